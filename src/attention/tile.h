/* tile.h - the steps that the attention algorithms are made of. All work on a tile: a job of one KV head.
 *
 * The rows * heads_per_kv queries of a tile that read the same KV head are stacked to one matrix, so that each block of
 * K and V is read once for all of them. Scores and probabilities are [rows * heads_per_kv, n * KV_BLOCK], block i of
 * the list in columns [i * KV_BLOCK, (i + 1) * KV_BLOCK).
 */
#ifndef QWEN3_ATTENTION_TILE_H
#define QWEN3_ATTENTION_TILE_H

#include "attention/attention.h"
#include "kernels/row_limits.h"

/* Rows [row0, row0 + rows) of one KV head of `job` against its blocks [block0, block0 + n_blocks), as a job of one
 * KV head. */
attention_job attention_tile(const attention_shape *shape, const attention_job *job, size_t kv_head, size_t row0,
                             size_t rows, size_t block0, size_t n_blocks);

/* The last position that some query at q_positions[rows] may see. */
static inline int32_t last_position(const attention_shape *shape, size_t rows, const int32_t *q_positions)
{
    if (!shape->causal)
        return INT32_MAX;
    int32_t last = INT32_MIN;
    for (size_t r = 0; r < rows; r++)
        last = q_positions[r] > last ? q_positions[r] : last;
    return last;
}

/* A block that some query of a tile may see. */
typedef struct visible_block {
    const kv_block *block;
    size_t slots; /* up to the last one that some query of the tile may see */
} visible_block;

/* Lists, from block *next on, at most `limit` blocks that some query of the tile may see, and moves *next past
 * them. 0 = no more. */
size_t tile_visible_blocks(const attention_shape *shape, const attention_job *tile, size_t *next, size_t limit,
                           visible_block *blocks);

/* s = q K^T, plus the mask; -INFINITY for keys that a query may not see and for slots that are not filled. */
void tile_scores(const attention_shape *shape, const attention_job *tile, size_t n, const visible_block *blocks,
                 float *s, size_t stride, bf16 *panel);

/* Moves the running m and l of the tile on to the scores s, rescales o where m grew, and stores the probabilities
 * exp(s - m) in the activation type in p (p = s where that is F32; same stride in elements); for Q8 these times the
 * scales of the values, and s is overwritten. Scores that are not finite as in attention.h: the sum of their exp is
 * NaN, except of -INFINITY. */
void tile_softmax(const attention_shape *shape, const attention_job *tile, size_t n, const visible_block *blocks,
                  float *s, void *p, size_t stride);

/* o += p V over the visible slots of each block, and on to the end of their last k-group. A value there that is not
 * finite reaches all queries of the tile, also those that may not see it: their probability of it is 0, and 0 * NaN and
 * 0 * infinity are NaN. */
void tile_values(const attention_shape *shape, const attention_job *tile, size_t n, const visible_block *blocks,
                 const void *p, size_t stride, bf16 *panel);

/* Elements from one row of scores to the next: rows that are a power of two apart would fall into few sets of a cache.
 */
static inline size_t tile_stride(size_t n_blocks)
{
    return n_blocks * KV_BLOCK + ACTIVATION_PAD;
}

/* Workspace of a tile whose score matrix has room for `n_blocks` blocks at once. */
typedef struct tile_workspace {
    visible_block *blocks; /* [n_blocks] */
    float *scores;         /* [tile_rows * heads_per_kv, tile_stride(n_blocks)] */
    void *probabilities;   /* the same in the activation type; = scores where that is F32 */
    bf16 *panel;           /* one of K or V, expanded; Q8 only */
} tile_workspace;

/* Lays the parts out from `data` on and returns the bytes they take. data NULL = only the bytes. */
size_t tile_workspace_layout(const attention_shape *shape, size_t tile_rows, size_t n_blocks, void *data,
                             tile_workspace *parts);

#endif
