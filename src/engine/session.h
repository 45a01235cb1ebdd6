/* session.h - the mutable state of generation on one rank. */
#ifndef QWEN3_ENGINE_SESSION_H
#define QWEN3_ENGINE_SESSION_H

#include "blocks/block.h"
#include "engine/model.h"

/* A kind of block with its state in this session. */
typedef struct session_block {
    const block *block;
    void *state;
    int64_t layers; /* that have it */
} session_block;

/* A batch, or a part of it, on its way through the decoder. */
typedef struct session_part {
    step step;
    block_step run;
    activations *inputs;  /* [n_blocks] of each kind of block: [rows, hidden] of this rank, what the block reads */
    float *embed_scratch; /* [threads][hidden] */
    memory_plan plan;
    memory_region arena;
} session_part;

/* One block of one layer, in the order in which they run. */
typedef struct session_layer {
    size_t kind; /* in session.blocks */
    block_layer layer;
} session_layer;

/* The output head of a step: rows whose logits are wanted, from all sequence groups. */
typedef struct output_head {
    float *hidden;       /* [n_out, hidden] after the final norm, by group of rows */
    float *own;          /* this group's part of it */
    activations input;   /* [n_out, hidden], in the order of the batch */
    float *logits;       /* [n_out, vocabulary part] */
    int64_t *order;      /* [n_out] place in the batch's order, by group */
    size_t *group_bytes; /* [groups] of `hidden` */
} output_head;

struct qwen3_session {
    qwen3_model *model;
    qwen3_session_options options;
    decoder decoder;
    comm_codec wire; /* of sums between nodes */
    sequence_table sequences;
    /* Between nodes a long batch is computed in two parts, whose blocks take turns: messages of one go on while the
     * other is computed. */
    session_part parts[STEP_PARTS];
    int n_parts;           /* of the last batch */
    session_block *blocks; /* [n_blocks] kinds of blocks */
    size_t n_blocks;
    session_layer *layers; /* [n_layers] */
    size_t n_layers;
    output_head head;
    size_t n_out;        /* rows of it */
    int64_t *owned;      /* [sequence groups] scratch: positions that each keeps of a sequence */
    size_t *owned_bytes; /* [sequence groups] sizes of these */
    bool has_logits;
    qwen3_comm_stats stats_base; /* counters of the comm at the last reset */
};

/* forward.c: memory for a planned part of the batch, before it is committed; parts in their order. Local. */
qwen3_status forward_plan(qwen3_session *s, int part, qwen3_error *err);
/* Carries the planned and committed parts out. Collective; where it fails, it fails on all ranks. */
qwen3_status forward_run(qwen3_session *s, qwen3_error *err);

/* logits.c: the part of the vocabulary that a rank has the logits of. */
range session_vocabulary(const qwen3_model *m, int rank);
/* QWEN3_OK where there is a session whose last forward left logits. err is not NULL. */
qwen3_status session_need_logits(const qwen3_session *s, qwen3_error *err);

#endif
