/* problem.h - a seeded attention problem, the same on all ranks, with its float64 answer. */
#ifndef TEST_PARALLEL_STRATEGIES_PROBLEM_H
#define TEST_PARALLEL_STRATEGIES_PROBLEM_H

#include "qwen3.h"

typedef enum shape_class {
    CLASS_FIXED, /* batch 1, seq 64, 8 heads, 4 KV heads, d 64 */
    CLASS_RANDOM,
    CLASS_GROUP_OF_5,
    CLASS_ONE_KV_HEAD,
    CLASS_FEW_HEADS, /* fewer than ranks */
    CLASS_UNEVEN,
    CLASS_EMPTY,   /* some ranks have no queries, no keys or neither */
    CLASS_LENGTHS, /* q_len != kv_len, one query too */
    CLASS_MASKED,  /* rows that see no key */
    CLASS_LARGE,   /* scores of +-1e4 */
    CLASSES,
} shape_class;

extern const char *const class_names[CLASSES];

typedef struct problem {
    size_t batch, heads, kv_heads, q_len, kv_len, head_dim;
    bool causal;
    float scale;      /* 0 = default */
    float *q, *k, *v; /* [batch, heads, q_len, head_dim], [batch, kv_heads, kv_len, head_dim] */
    float *mask;      /* NULL, or [mask_batch, mask_heads, mask_rows, kv_len]; 1 = broadcast */
    size_t mask_batch, mask_heads, mask_rows;
    bool exact_scores; /* integers that f32 holds exactly */
    /* Where the shards of each rank begin, [size + 1]: KV heads (whole groups), queries, keys. */
    size_t *head_begin, *q_begin, *kv_begin;
    /* The answer and how far f32 may be from it, [batch, heads, q_len, head_dim]; on all ranks. */
    double *expected, *bound;
} problem;

/* Case `number` of a class. Ends the program where memory is short. Collective. */
problem problem_make(qwen3_comm *world, shape_class class, uint64_t seed, int number);
void problem_free(problem *p);

/* Zeroed; never NULL. */
void *checked_alloc(size_t bytes);

#endif
