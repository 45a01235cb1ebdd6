/* operator.h - one call of an attention operator (qwen3_attention_*) on one rank.
 *
 * operators.c checks the arguments and agrees with the other ranks, operator_plan.c decides who computes what,
 * operator_run.c does it. How queries and keys of several ranks meet is a movement (movement.h).
 */
#ifndef QWEN3_ATTENTION_OPERATOR_H
#define QWEN3_ATTENTION_OPERATOR_H

#include "attention/movement.h"

/* What the ranks tell each other about their arguments. Plain data without padding. */
typedef struct operator_arguments {
    uint64_t strategy, algorithm, layout, causal, batch, head_dim; /* must be equal on all ranks */
    uint64_t heads, kv_heads, q_len, kv_len;                       /* depends on strategy and layout */
    uint64_t global_seq_len, has_mask, isa;
    double scale;
} operator_arguments;

/* A part of the output: all batches, some query heads, some rows (indices of the caller's arrays). */
typedef struct output_part {
    size_t head0, heads, row0, rows;
} output_part;

/* A rank has one part, or two of equal heads: the first and the last rows of its share. */
#define OPERATOR_PARTS 2

/* What is alive when, in phases of a memory_plan. */
enum { OPERATOR_PLAN, OPERATOR_PACK, OPERATOR_ATTEND, OPERATOR_COLLECT, OPERATOR_GATHER };

typedef struct operator_call {
    const qwen3_attention_args *args;
    comm *comm;
    operator_arguments *ranks; /* [size] the arguments of all ranks */
    const attention_algorithm *algorithm;
    attention_shape shape;  /* with the heads that this rank attends */
    size_t head0, kv_head0; /* the first of them in the caller's arrays */
    float scale;
    int threads;

    /* Job i * batch + b: rows queries[i] of batch b. */
    size_t n_queries;
    output_part queries[OPERATOR_PARTS];
    bool gather;          /* every rank's part of the output goes to all */
    size_t key0, keys;    /* keys of the caller's arrays that this rank brings, for each batch */
    size_t key_position0; /* position of the first of them */
    bool in_place;        /* they are attended where they are; otherwise packed into exchange.shard */
    attention_problem problem;
    exchange exchange;

    /* Tables of the problem. */
    size_t *rows, *problem_keys, *head_first;
    int32_t *positions;
    const float **masks;
    /* Parts of the output on their way: this rank's, those of all ranks; their sizes [size]. */
    float *send, *received;
    size_t *bytes;
    memory_plan plan;
    memory_region tables, buffers;
} operator_call;

static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* The parts of the output that `rank` computes; returns how many (1 or 2). */
size_t operator_parts(const operator_call *op, int rank, output_part parts[OPERATOR_PARTS]);
size_t part_elements(const operator_call *op, const output_part *part);

/* Decides heads, rows, keys and movement, and gets the memory. Uses only op->args, comm, ranks, algorithm, shape,
 * threads. Local; on failure the call still has to be freed. */
qwen3_status operator_plan(operator_call *op, qwen3_error *err);
/* Computes and communicates. Collective. */
void operator_run(operator_call *op);
void operator_free(operator_call *op);

#endif
