/* session.h - the mutable state of generation on one rank. */
#ifndef QWEN3_ENGINE_SESSION_H
#define QWEN3_ENGINE_SESSION_H

#include "attention/pass_kv.h"
#include "attention/pass_q.h"
#include "blocks/architectures.h"
#include "blocks/attention.h"
#include "blocks/gated_mlp.h"
#include "engine/model.h"
#include "engine/step.h"

/* Rows of one work item of products that are used where they are computed: their two tiles stay in the second-level
 * cache. */
#define TILED_ROWS 192

/* The parts of the weights that this rank multiplies with in the step at hand: whole slices where rows are
 * split, 1/S of them where weights are. */
typedef struct weight_part {
    range qkv;          /* outputs of the q-k-v matrix; whole heads */
    range heads;        /* query heads whose attention output enters `o` */
    range intermediate; /* of this rank's slice */
} weight_part;

/* Buffers of one step, all in one allocation that grows when needed. n is the rows of this rank, "all" those
 * of the batch. Empty where the step does not use them. */
typedef struct step_buffers {
    float *x;                /* [n, hidden] residual stream */
    void *normed;            /* [n, hidden] activation */
    float *qkv;              /* [n, part of qkv], where heads do not go to their places at once (attend.h) */
    float *qkv_gathered;     /* [S][n, part of group s]: weights split */
    float *cosines, *sines;  /* [n, head_dim / 2] */
    void *q;                 /* by job [kv_heads, rows, group, q_stride] activation */
    void *q_gathered;        /* the same for all groups: queries travel */
    float *partials;         /* runs (pass_q.h) by group of rows; one run of all rows otherwise */
    float *partials_by_head; /* runs by destination, [row, head]: weights split */
    float *received;         /* [S] runs for this rank's rows or heads */
    void *attended;          /* [n, part of heads * head_dim] activation */
    void *gated;             /* [n, part of intermediate] activation */
    float *sums;             /* [n, hidden] partial outputs of o and down, to be reduced */
    float *tiles;            /* [threads][2][TILED_ROWS, gemm_grain or head_dim]: gate and up, or k and v of one head */
    void *embed_scratch;     /* [threads][hidden] f32 */
    void *shards[2];         /* pass_kv */
    kv_block *own_views;     /* by sequence [kv_heads][pages] */
    kv_block *shard_views;
    attention_workspace workspace;
    float *out_hidden; /* [n_out, hidden] after the final norm, by group of rows */
    float *out_own;    /* this group's part of it */
    void *out_act;     /* [n_out, hidden] activation, in the order of the batch */
    float *logits;     /* [n_out, vocabulary part] */
} step_buffers;

/* Small tables of one step; grow with the batch. */
typedef struct step_tables {
    attention_job *jobs; /* [groups or 1][n_sequences] */
    size_t *blocks;      /* [S][n_sequences] KV blocks of each group after the step */
    int32_t *positions;  /* [all] */
    size_t *out_first;   /* [S + 1] first wanted row of each group among those of all groups */
    int64_t *out_order;  /* [n_out] place in the batch's order, by group */
    size_t *bytes[2];    /* [S] */
    size_t *counts;      /* [S] */
    size_t jobs_capacity, rows_capacity;
} step_tables;

struct qwen3_session {
    qwen3_model *model;
    qwen3_session_options options;
    const attention_algorithm *algorithm;
    attention_shape shape;
    kv_cache cache;
    step step;
    weight_part part;
    step_tables tables;
    step_buffers b;
    void *arena;
    size_t arena_bytes;
    bool has_logits;
    qwen3_comm_stats stats_base; /* counters of the group at the last reset */
};

/* Columns of q, k and v rows, in elements: q first, then k, then v. */
static inline size_t session_qkv_size(const qwen3_session *s)
{
    return (s->shape.kv_heads * s->shape.group + 2 * s->shape.kv_heads) * s->shape.head_dim;
}
static inline size_t session_heads(const qwen3_session *s)
{
    return s->shape.kv_heads * s->shape.group;
}
/* The weights of a layer, by name. */
typedef struct layer_weights {
    const float *input_norm, *post_norm; /* [hidden] */
    const float *q_norm, *k_norm;        /* [head_dim] */
    matrix qkv, o, gate, up, down;
} layer_weights;

static inline layer_weights session_layer_weights(const qwen3_model *m, int64_t layer)
{
    const block_weights a = weights_of(&m->weights, layer, 0), f = weights_of(&m->weights, layer, 1);
    return (layer_weights){a.vectors[ATTENTION_INPUT_NORM], f.vectors[GATED_MLP_NORM], a.vectors[ATTENTION_Q_NORM],
                           a.vectors[ATTENTION_K_NORM],     a.matrices[ATTENTION_QKV], a.matrices[ATTENTION_O],
                           f.matrices[GATED_MLP_GATE],      f.matrices[GATED_MLP_UP],  f.matrices[GATED_MLP_DOWN]};
}

/* This rank's slice of the intermediate dimension. */
static inline range session_intermediate(const qwen3_session *s)
{
    return gated_mlp_intermediate(&s->model->config, s->model->weights.gemm, s->model->place);
}

/* The part that sequence group g computes in STEP_SPLIT_WEIGHTS. */
weight_part session_weight_part(const qwen3_session *s, int g);
/* Row stride of an activation matrix with k columns. */
static inline size_t activation_stride(size_t k)
{
    return (k + ACTIVATION_PAD - 1) / ACTIVATION_PAD * ACTIVATION_PAD;
}

/* Queries and partials of which rows this rank handles in attention: those of all groups where they travel. */
static inline bool session_attends_all(const qwen3_session *s)
{
    return s->step.mode == STEP_SPLIT_WEIGHTS || s->step.pass_query;
}

/* Columns of the tiles of a thread, and the first of its two. */
static inline size_t session_tile_width(const qwen3_session *s)
{
    size_t grain = (size_t)gemm_grain(s->model->weights.gemm);
    return s->shape.head_dim > grain ? s->shape.head_dim : grain;
}
static inline float *session_tiles(const qwen3_session *s, int tid)
{
    return s->b.tiles + (size_t)tid * 2 * TILED_ROWS * session_tile_width(s);
}

/* Attention jobs of a layer: one for each sequence, of each group whose queries come here row by row. */
static inline size_t session_jobs(const qwen3_session *s)
{
    return s->step.pass_query ? (size_t)s->cache.groups * s->step.n_sequences : s->step.n_sequences;
}

/* The rows that this rank computes: [*first, *first + result) of step.rows. */
static inline size_t session_rows(const qwen3_session *s, size_t *first)
{
    return step_rows_of(&s->step, s->cache.group, first);
}
/* What activations that enter products with weights are stored as. */
static inline qwen3_dtype session_act_type(const qwen3_session *s)
{
    return s->model->weights.gemm->activation;
}
/* Bytes of n of them, a multiple of ACTIVATION_PAD. */
static inline size_t session_act_bytes(const qwen3_session *s, size_t n)
{
    return activation_bytes(session_act_type(s), n);
}
/* The same for queries. */
static inline qwen3_dtype session_q_type(const qwen3_session *s)
{
    return attention_gemm(&s->shape)->activation;
}

/* buffers.c: tables and buffers for the planned step, before it is committed. */
qwen3_status session_prepare(qwen3_session *s, qwen3_error *err);
void session_free_buffers(qwen3_session *s);

/* logits.c: the part of the vocabulary that a rank has the logits of. */
range session_vocabulary(const qwen3_model *m, int rank);
/* QWEN3_OK where the last forward left logits. */
qwen3_status session_need_logits(const qwen3_session *s, qwen3_error *err);

/* forward.c: carries the planned and committed step out. */
void session_run(qwen3_session *s);

#endif
