/* operator.h - one call of an attention operator (qwen3_attention_*) on one rank.
 *
 * operators.c checks the arguments and agrees with the other ranks, operator_plan.c decides who computes what,
 * operator_run.c does it.
 */
#ifndef QWEN3_ATTENTION_OPERATOR_H
#define QWEN3_ATTENTION_OPERATOR_H

#include "attention/attention.h"
#include "attention/kv_shard.h"
#include "base/status.h"
#include "comm/comm.h"

/* What the ranks tell each other about their arguments. Plain data without padding. */
typedef struct operator_arguments {
    uint64_t strategy, algorithm, layout, causal, batch, head_dim; /* must be equal on all ranks */
    uint64_t heads, kv_heads, q_len, kv_len;                       /* depends on strategy and layout */
    uint64_t global_seq_len, has_mask, isa;
    double scale;
} operator_arguments;

/* How queries and keys come together. */
typedef enum operator_flow {
    FLOW_LOCAL,      /* this rank's part of the output needs nothing from other ranks */
    FLOW_SPLIT_KEYS, /* all queries to this rank's part of the keys; partials are gathered by all */
    FLOW_PASS_KV,    /* keys travel */
    FLOW_PASS_Q,     /* queries travel, partials come back */
} operator_flow;

/* A part of the output: all batches, some query heads, some rows (indices of the caller's arrays). */
typedef struct output_part {
    size_t head0, heads, row0, rows;
} output_part;

/* Queries that are attended together: rows of one rank for all batches and the heads of the plan.
 *   q [batch, kv_heads, rows, group, q_stride] activation type
 *   run: partials o [n, head_dim], m [n], l [n] with n = batch * kv_heads * rows * group */
typedef struct query_set {
    size_t rows;
    size_t row0;        /* in the caller's q, where it is this rank's */
    int64_t position0;  /* of the first row */
    int32_t *positions; /* [rows] */
    void *q;
    float *run;
} query_set;

#define OPERATOR_BUFFERS 16

typedef struct operator_call {
    const qwen3_attention_args *args;
    comm *comm;
    operator_arguments *ranks; /* [size] the arguments of all ranks */
    const attention_algorithm *algorithm;
    attention_shape shape;  /* with the heads that this rank computes */
    size_t head0, kv_head0; /* the first of them in the caller's arrays */
    float scale;
    int threads;

    operator_flow flow;
    bool gather;          /* the output is spread over the ranks and must become whole */
    size_t n_sets, own;   /* query sets; the first of this rank's own */
    query_set *sets;      /* LOCAL, gathered by rows: two of this rank; PASS_Q: one of each rank; otherwise one */
    size_t key0, keys;    /* keys of the caller's arrays that this rank brings */
    size_t key_position0; /* position of the first of them */
    bool in_place;        /* they are attended where they are; otherwise packed into a shard */

    /* Memory, see operator_plan.c. */
    attention_job *jobs; /* [n_sets * batch] */
    size_t *blocks;      /* [size][batch] blocks of each rank's shard */
    void *shards[2];
    kv_block *views;
    float *received, *send;                     /* partials or parts of the output on their way */
    size_t *send_bytes, *receive_bytes, *pairs; /* [size] */
    attention_workspace workspace;

    struct {
        void *data;
        size_t bytes;
    } buffers[OPERATOR_BUFFERS];
    size_t n_buffers;
} operator_call;

static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* (row, head) pairs of a set. */
static inline size_t set_pairs(const operator_call *op, const query_set *set)
{
    return op->args->batch * op->shape.kv_heads * op->shape.group * set->rows;
}

/* The parts of the output that `rank` computes where the output is gathered; returns how many (1 or 2). */
size_t operator_parts(const operator_call *op, int rank, output_part parts[2]);
size_t part_elements(const operator_call *op, const output_part *part);

/* Decides heads, flow and query sets and gets the memory. Uses only op->args, comm, ranks, algorithm, threads.
 * Local; on failure the call still has to be freed. */
qwen3_status operator_plan(operator_call *op, qwen3_error *err);
/* Computes and communicates. Collective. */
void operator_run(operator_call *op);
void operator_free(operator_call *op);

#endif
