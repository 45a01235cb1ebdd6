/* session.h - the mutable state of generation on one rank. */
#ifndef QWEN3_ENGINE_SESSION_H
#define QWEN3_ENGINE_SESSION_H

#include "blocks/block.h"
#include "engine/model.h"

/* A kind of block with its state in this session. */
typedef struct session_block {
    const block *block;
    void *state;
    activations input; /* [rows, hidden] of this rank: what the block reads */
    int64_t layers;    /* that have it */
} session_block;

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
    sequence_table sequences;
    step step;
    session_block *blocks; /* [n_blocks] kinds of blocks */
    size_t n_blocks;
    session_layer *layers; /* [n_layers] */
    size_t n_layers;
    block_step run;
    float *embed_scratch; /* [threads][hidden] */
    output_head head;
    int64_t *owned;      /* [sequence groups] scratch: positions that each keeps of a sequence */
    size_t *owned_bytes; /* [sequence groups] sizes of these */
    memory_plan plan;
    memory_region arena; /* the buffers of a step */
    bool has_logits;
    qwen3_comm_stats stats_base; /* counters of the comm at the last reset */
};

/* forward.c: memory for the planned step, before it is committed. Local. */
qwen3_status forward_plan(qwen3_session *s, qwen3_error *err);
/* Carries the planned and committed step out. Collective; where it fails, it fails on all ranks. */
qwen3_status forward_run(qwen3_session *s, qwen3_error *err);

/* logits.c: the part of the vocabulary that a rank has the logits of. */
range session_vocabulary(const qwen3_model *m, int rank);
/* QWEN3_OK where the last forward left logits. */
qwen3_status session_need_logits(const qwen3_session *s, qwen3_error *err);

#endif
