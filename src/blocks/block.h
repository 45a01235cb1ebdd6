/* block.h - a block: what the layers of a decoder are lists of (attention, gated MLP).
 *
 * A block is a table of functions. It declares its tensors and what a rank keeps of them, holds state in a session for
 * all layers that have it, says what memory a step needs and when, and computes
 *
 *     x += block(rms_norm(x))
 *
 * The engine does the rest: it loads what is declared, plans memory, normalises, reduces partial outputs over ranks,
 * and knows no block by name. A new block is one source file with its header, and its place in a line of
 * architectures.c.
 */
#ifndef QWEN3_BLOCKS_BLOCK_H
#define QWEN3_BLOCKS_BLOCK_H

#include "attention/movement_prices.h"
#include "base/memory_plan.h"
#include "base/team.h"
#include "blocks/activations.h"
#include "blocks/linear.h"
#include "blocks/step.h"
#include "comm/comm.h"
#include "model/declaration.h"
#include "model/weights.h"

/* Parts of a batch that are computed side by side, so that messages of one go on while the other is computed. */
enum { STEP_PARTS = 2 };

/* Slots of comm for what is started, for each part of a batch. */
enum { SLOT_KEYS = 0, SLOT_REDUCE = STEP_PARTS };

/* The norm before a block is the first vector that it declares. */
enum { BLOCK_NORM };

typedef struct block block;
typedef struct combination combination; /* combine.h */

enum { COMBINE_BUFFERS = 5 };

/* What the blocks of a session share, as long as it is open. */
typedef struct decoder {
    const qwen3_config *config;
    const qwen3_session_options *options; /* without defaults left open */
    const kernels *kernels;
    const weight_format *format;
    qwen3_dtype kv_dtype;
    grid_place place;
    int threads;
    comm *world;                   /* all ranks */
    comm *sequence_comm;           /* ranks with the same heads; rank = place.s */
    comm *head_comm;               /* ranks with the same positions; rank = place.h */
    const movement_prices *prices; /* of movements in sequence_comm; NULL = the default ones */
    const sequence_table *sequences;
} decoder;

/* Phases of the memory of a step. A block has BLOCK_PHASES of its own, the same in every layer. */
enum { PHASE_START, PHASE_BLOCKS, PHASE_HEAD = 1000 };
enum {
    BLOCK_PREPARE, /* the input is being written; `prepare` runs beside it */
    BLOCK_INPUT,   /* the input is read */
    BLOCK_WORK,
    BLOCK_OUTPUT,
    BLOCK_PHASES,
};

/* A step, or a part of it, as its blocks see it. */
typedef struct block_step {
    const decoder *decoder;
    const step *step;
    int part;                       /* 0 is ahead of 1 in every block */
    const struct block_step *other; /* part 0 for part 1, otherwise NULL */
    bool followed;                  /* part 0 of two */
    size_t first, rows;             /* this rank computes rows [first, first + rows) of step->rows */
    float *x;                       /* [rows, hidden] residual stream */
    bool shared;                    /* several ranks compute the output of a block; otherwise it is added to x */
    comm *among;                    /* these ranks */
    const combination *combination; /* how they do that */
    void *buffers[COMBINE_BUFFERS]; /* each combination has an enum for its own */
    const comm_codec *wire;         /* of sums; NULL: floats */
    qwen3_error error;              /* set where `run` fails */
} block_step;

/* A block in one layer. */
typedef struct block_layer {
    block_weights weights;
    int64_t index;            /* among the layers that have the block */
    const activations *input; /* [rows, hidden] normalised */
} block_layer;

/* Bytes that a state holds, and how its work was spread. */
typedef struct block_usage {
    size_t bytes, used; /* kept of sequences: allocated; in use */
    size_t pages;       /* of KV_BLOCK positions in use */
    size_t score_bytes; /* of explicit scores, in the last step */
    double expert_load; /* as in qwen3_session_info */
} block_usage;

/* `state` is what open returned. Of the functions, reserve, append, truncate, fork, usage, start and prepare may be
 * NULL. */
struct block {
    const char *name;
    /* Declares the tensors of one layer, then what the rank at d->place keeps of them. */
    void (*declare)(declaration *d);

    /* The state for `layers` layers. Local. On failure *state is NULL. */
    qwen3_status (*open)(const decoder *d, int64_t layers, void **state, qwen3_error *err);
    void (*close)(void *state);
    /* Makes room for the positions of a planned step; nothing else changes. Local. */
    qwen3_status (*reserve)(void *state, const step *s, qwen3_error *err);
    /* The step has been committed: gives its positions their places. Cannot fail. */
    void (*append)(void *state, const block_step *s);
    /* Forgets what is kept of a sequence but its first `kept` own positions. */
    void (*truncate)(void *state, int sequence, int64_t kept);
    /* The empty sequence `to` gets the first `kept` own positions of `from`. Local. On failure nothing changes. */
    qwen3_status (*fork)(void *state, int from, int to, int64_t kept, qwen3_error *err);
    void (*usage)(const void *state, block_usage *usage);

    /* Adds the buffers of a planned step, not committed yet, to the memory plan, in phases from `phase` on. Local. */
    qwen3_status (*plan)(void *state, const block_step *s, memory_plan *m, int phase, qwen3_error *err);
    /* Once per step, before the first layer: all threads, a barrier follows. */
    void (*start)(team *t, void *state, const block_step *s);
    /* Per layer, while other threads write the input: one thread. */
    void (*prepare)(const team *t, void *state, const block_step *s, const block_layer *layer);
    /* What of the work comes before messages that go on by themselves, which it starts; NULL: nothing. Returns whether
     * any are under way. All threads, after a barrier; another part of the batch may be computed before `run`.
     * Collective as run. */
    bool (*begin)(team *t, void *state, block_step *s, const block_layer *layer);
    /* The output of all rows (block_output). All threads, after a barrier; ends in one. Collective over the ranks that
     * the block sends to. False on all threads of all ranks where one rank failed (block_agree); the step is then
     * undone. */
    bool (*run)(team *t, void *state, block_step *s, const block_layer *layer);
    /* Of the inputs of its last product those that the rank at `place` computes, in steps that split weights or in
     * others. */
    range (*inputs)(const decoder *d, bool split_weights, grid_place place);
    /* Rows of these inputs for each row of the step; NULL: one. */
    size_t (*input_rows)(const qwen3_config *config);
};

/* The last product of a block: y (+)= a W^T for all rows of the step. */
typedef struct last_product {
    const block *of;
    const matrix *matrix;      /* W[hidden, inputs]; where there are several, the first of them */
    const activations *inputs; /* a [rows, own inputs] */
    size_t rows;               /* of `inputs` */
    /* The product for part of W, whose `next` is not looked at; all of `a`, and the outputs of all rows of the step. By
     * all threads, between barriers. */
    void (*multiply)(team *t, const void *context, const matrix_part *w, const gemm_input *a, const gemm_output *y);
    const void *context;
} last_product;

/* That of a block with one matrix. */
last_product block_linear(const block_step *s, const block *of, const matrix *w, const activations *inputs);

/* Whether all ranks are well, told to all threads of all of them: where thread 0 of a rank has set s->error, s->error
 * becomes that of the lowest such rank everywhere. For blocks that can fail, before the first message whose size or
 * meaning depends on it. Collective over decoder->world; ends in a barrier. */
bool block_agree(team *t, block_step *s);

/* The inputs of the last product that this rank computes, counted from the first one of its head group. */
range block_own_inputs(const block_step *s, const block *of);

/* x += the last product. With other ranks the sum is complete once their part of it has come (combine.h). All threads
 * between barriers. */
void block_output(team *t, const block_step *s, const last_product *p);

#endif
