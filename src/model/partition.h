/* partition.h - who owns what: pure arithmetic, no ranks, no memory. */
#ifndef QWEN3_MODEL_PARTITION_H
#define QWEN3_MODEL_PARTITION_H

#include <stdbool.h>
#include <stdint.h>

typedef struct range {
    int64_t begin, end; /* half-open; empty where equal */
} range;

static inline int64_t range_size(range r)
{
    return r.end - r.begin;
}

/* A rank's place in a grid of ranks: one of s_groups sequence groups and one of h_groups head groups. */
typedef struct grid_place {
    int s_groups, h_groups, s, h;
    bool deterministic; /* work is split so that no bit of a result depends on the place or the grid */
} grid_place;

/* Part `index` of n items split into `parts` contiguous parts whose inner boundaries are multiples of
 * `grain`. Sizes differ by at most one grain; parts may be empty. */
range partition(int64_t n, int64_t grain, int64_t parts, int64_t index);

typedef struct head_shard {
    range heads;    /* query heads */
    range kv_heads; /* the KV heads that they read */
} head_shard;

/* Heads of part `index`. With parts <= kv_heads every part has whole groups (query heads of one KV head);
 * with more parts each part has query heads of one single group, and its KV head is repeated by the parts
 * that share the group. So within a part every KV head has the same number of query heads. */
head_shard partition_heads(int64_t heads, int64_t kv_heads, int64_t parts, int64_t index);

/* The part that computes item i of n, where the items are split into 2 * parts chunks and part p takes the
 * chunks p and 2 * parts - 1 - p: causal attention costs every part the same ("zigzag", Zhu 2023, ring
 * flash attention; Brandon et al. 2023, striped attention, for the argument). */
int64_t partition_zigzag_owner(int64_t n, int64_t parts, int64_t i);

#endif
