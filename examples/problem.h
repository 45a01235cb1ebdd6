/* problem.h - what the four examples of attention operators have in common: one problem, of which each hands over its
 * own parts, and the sum of its output, which is the same for all of them and for any number of ranks. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "qwen3.h"

/* Grouped-query attention: two query heads read one KV head. */
enum { HEADS = 8, KV_HEADS = 4, HEAD_DIM = 64, POSITIONS = 100 };

/* Heads first to first + heads and positions start to start + count of the sequence. */
typedef struct part {
    size_t first, heads, start, count;
} part;

/* The arrays of a call, [1, heads, count, HEAD_DIM] each. */
typedef struct arrays {
    float *q, *k, *v, *out;
} arrays;

/* Some smooth data that depends on the head and the position in the whole problem, as a real model's would. */
static inline float *data(const part *p, float phase)
{
    float *x = calloc(p->heads * p->count * HEAD_DIM + 1, sizeof *x);
    for (size_t h = 0; x && h < p->heads; h++)
        for (size_t i = 0; i < p->count; i++)
            for (size_t d = 0; d < HEAD_DIM; d++)
                x[(h * p->count + i) * HEAD_DIM + d] =
                    sinf(phase + (float)(p->first + h) + 0.1f * (float)((p->start + i) * (d + 1)));
    return x;
}

static inline void arrays_free(arrays *a)
{
    free(a->q);
    free(a->k);
    free(a->v);
    free(a->out);
}

/* Makes q of one part and k, v of another; args describes them. */
static inline qwen3_status arrays_make(arrays *a, const part *queries, const part *keys, qwen3_attention_args *args)
{
    *a = (arrays){data(queries, 0.0f), data(keys, 1.0f), data(keys, 2.0f), data(queries, 0.0f)};
    *args = qwen3_attention_args_default();
    args->batch = 1;
    args->heads = queries->heads;
    args->kv_heads = keys->heads;
    args->q_len = queries->count;
    args->kv_len = keys->count;
    args->head_dim = HEAD_DIM;
    args->q = a->q;
    args->k = a->k;
    args->v = a->v;
    args->out = a->out;
    args->causal = true;
    return a->q && a->k && a->v && a->out ? QWEN3_OK : QWEN3_ERR_MEMORY;
}

/* Prints the sum over the outputs of all ranks, of n values on this one. Collective. */
static inline void print_sum(const float *out, size_t n, qwen3_comm *world)
{
    int ranks = qwen3_comm_size(world);
    double sum = 0.0, total = 0.0, *sums = calloc((size_t)ranks, sizeof *sums);
    for (size_t i = 0; i < n; i++)
        sum += (double)out[i];
    qwen3_error err = {.status = sums ? QWEN3_OK : QWEN3_ERR_MEMORY};
    if (qwen3_comm_agree(world, &err) == QWEN3_OK) {
        qwen3_comm_gather(world, &sum, sizeof sum, sums);
        for (int r = 0; r < ranks; r++)
            total += sums[r];
        if (qwen3_comm_rank(world) == 0)
            printf("sum of the output: %.3f\n", total);
    }
    free(sums);
}

typedef qwen3_status (*attention_example)(qwen3_comm *world, qwen3_error *err);

/* All that a main has to do. */
static inline int run_example(int argc, char **argv, attention_example attend)
{
    qwen3_error err = {0};
    qwen3_comm *world;
    qwen3_status status = qwen3_init(&argc, &argv, &world, &err);
    bool root = status != QWEN3_OK || qwen3_comm_rank(world) == 0;
    if (status == QWEN3_OK)
        status = attend(world, &err);
    if (status != QWEN3_OK && root)
        fprintf(stderr, "%s: %s\n", qwen3_status_name(status), err.message);
    qwen3_finalize();
    return status == QWEN3_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
