/* attention.h - the seam between movements and algorithms.
 *
 * An algorithm attends a tile of queries to keys at hand and merges the result into running partials. It does not know
 * that other ranks exist. A movement (movement.h) brings queries and keys together. It does not know how a tile is
 * computed.
 *
 * A partial, per query row and head, is un-normalised: m = max score, l = sum exp(score - m),
 * o = sum exp(score - m) v. Two partials over disjoint keys merge to m = max(m1, m2), w_i = exp(m_i - m),
 * l = w1 l1 + w2 l2, o = w1 o1 + w2 o2 (Milakov & Gimelshein 2018; Dao et al. 2022). No keys seen is
 * m = -INFINITY, l = 0, o = 0, the identity of merging. At the very end the output is o / l, or 0 where no key was
 * seen.
 *
 * Whether a key is seen depends on its position and the mask, never on its score. One score of NaN or +INFINITY makes l
 * and with it the output NaN. A score of -INFINITY, by overflow, counts as exp = 0. Where all scores are that, the
 * partial is m = -FLT_MAX, l = 0, and the output, 0 / 0, is NaN.
 */
#ifndef QWEN3_ATTENTION_H
#define QWEN3_ATTENTION_H

#include "base/memory.h"
#include "base/team.h"
#include "kernels/kernels.h"

/* Slots of a block of keys and values. Sums over slots are then about as long as sums over a head's dimensions, so that
 * loading and storing tiles pays in both products. */
#define KV_BLOCK 128

/* Tile sizes where the user names none: queries (tokens) and keys. */
#define ATTENTION_Q_BLOCK 64
#define ATTENTION_KV_BLOCK 256

/* What all calls of one problem share. */
typedef struct attention_shape {
    const kernels *kernels;
    qwen3_dtype kv_type; /* storage of K and V: F32, BF16 or Q8; queries have the activation type of attention_gemm */
    size_t head_dim;
    size_t kv_heads;     /* on this rank */
    size_t heads_per_kv; /* query heads of each, on this rank */
    bool causal;
    bool pagewise;     /* results do not depend on how work is split: see "Pages in their order" */
    int q_block_size;  /* queries (tokens) per tile; > 0 */
    int kv_block_size; /* keys per tile; > 0, multiple of KV_BLOCK */
} attention_shape;

/* What multiplies queries with K and probabilities with V. Q8 is expanded to BF16, in which its bytes are exact. */
static inline const gemm_kernel *attention_gemm(const attention_shape *shape)
{
    return &shape->kernels->gemm[shape->kv_type == QWEN3_DTYPE_Q8 ? QWEN3_DTYPE_BF16 : shape->kv_type];
}

/* A block of one KV head, of `slots` <= KV_BLOCK slots: KV_BLOCK in the cache, and no more than are filled where it was
 * sent.
 *   k: packed W[n = slots, k = head_dim] of attention_gemm
 *   v: packed W[n = head_dim, k = slots] of attention_gemm
 * Q8: an f32 scale for each slot (kv_scale_bytes), then W in the same order with signed bytes -127..127 instead of BF16
 * values. A key is scale * bytes, so the scale multiplies its score instead; the scale of a value multiplies its
 * probability.
 * Slots past `count` may hold anything. Only values in the last k-group must be finite (kv_block_end): they meet
 * probabilities of 0.
 * Where row_stride is not 0 (kv_type F32 only) the block is row-major f32 of the caller: slot j is k, v[j * row_stride,
 * + head_dim), and there is nothing past `count`. */
typedef struct kv_block {
    const void *k, *v;
    size_t slots, row_stride;
    const int32_t *positions; /* [count] of the filled slots, in any order; NULL = min_position + slot */
    int32_t count;
    int32_t min_position, max_position; /* over the filled slots */
} kv_block;

/* Blocks that so many keys fill. */
static inline size_t kv_blocks_for(size_t keys)
{
    return (keys + KV_BLOCK - 1) / KV_BLOCK;
}
/* Bytes of the packed K or V of one head in a block of `slots` slots. */
size_t kv_block_k_bytes(const attention_shape *shape, size_t slots);
size_t kv_block_v_bytes(const attention_shape *shape, size_t slots);
/* Of the scales in a Q8 block: whole cache lines. */
static inline size_t kv_scale_bytes(size_t slots)
{
    return round_up(slots * sizeof(float), CACHE_LINE);
}
/* What follows the scales in the k or v of a Q8 block. */
static inline const int8_t *kv_block_q8(const void *part, size_t slots)
{
    return (const int8_t *)part + kv_scale_bytes(slots);
}

/* Where a block of one KV head is written. */
typedef struct kv_place {
    void *k, *v;
    size_t slots;
} kv_place;

/* Writes the keys and the values [slots, head_dim] of tokens into slots [slot, slot + slots) of a block. Q8: bytes to
 * the nearest multiple of the scale, which is largest magnitude / 127, and not finite where one of the vector is not.
 */
void kv_block_store(const attention_shape *shape, kv_place to, size_t slot, size_t slots, const float *key,
                    const float *value);

/* Prefetches what kv_block_store of one slot will write: a line for each k-group of a key. */
void kv_block_prefetch(const attention_shape *shape, kv_place to, size_t slot);

/* Makes finite what v has past `count` slots in their last k-group. To be called behind the last kv_block_store of
 * the slots below `count`, in memory that may hold other than zeros there. */
void kv_block_end(const attention_shape *shape, kv_place to, size_t count);

/* Copies the first to.slots slots of a block, finite in their last k-group, into a block of no more slots. */
void kv_block_copy(const attention_shape *shape, kv_place to, const kv_block *from);

/* ---- Pages in their order ----------------------------------------------------------------------
 *
 * Where shape.pagewise, block i of a sequence holds its positions from i * KV_BLOCK on, each in the slot of its number,
 * and belongs to one rank as a whole. Every block is attended by itself, and the partials are merged in the order of
 * positions. So no bit depends on which thread or rank does it, nor on the other rows of a tile. */

typedef struct page_place {
    int owner;
    size_t index; /* among the pages of the owner */
} page_place;

/* Which of `ranks` keeps a page: 0 1 2 2 1 0 0 1 2 ..., which balances causal attention. */
static inline page_place page_place_of(size_t page, int ranks)
{
    const size_t n = (size_t)ranks, turn = page % (2 * n);
    const size_t owner = turn < n ? turn : 2 * n - 1 - turn;
    return (page_place){(int)owner, page / (2 * n) * 2 + (turn >= n)};
}

/* Elements from one row of q to the next: head_dim rounded up to ACTIVATION_PAD. */
size_t attention_q_stride(const attention_shape *shape);

/* Queries of one sequence and all keys at hand for them. */
typedef struct attention_job {
    size_t rows;
    const int32_t *q_positions; /* [rows] */
    const void *q; /* [kv_heads, rows, heads_per_kv, q_stride] activation type, multiplied by the softmax scale */
    float *o;      /* [kv_heads, rows, heads_per_kv, head_dim] running partials, in and out */
    float *m, *l;  /* [kv_heads, rows, heads_per_kv] */
    size_t n_blocks;
    const kv_block *blocks; /* [kv_heads][n_blocks] slots (count, positions) are the same for every head */
    /* NULL, or added to scores: of query head h, row r and key position p
     * mask[h * mask_stride_head + r * mask_stride_row + p]. */
    const float *mask;
    size_t mask_stride_head, mask_stride_row;
} attention_job;

/* How a tile is computed. A tile is a job of one KV head, taken from a job by attention_tile (tile.h): some of
 * its rows against some of its blocks. It runs on one thread; `workspace` has workspace_bytes(shape, rows, n_blocks)
 * bytes, 64-byte aligned. Blocks that no query of the tile may see are skipped. */
typedef struct attention_algorithm {
    const char *name;
    qwen3_attention_algorithm id;
    /* Queries of one tile for a job with `rows` queries when `threads` threads share `kv_heads` heads. */
    size_t (*tile_rows)(const attention_shape *shape, size_t rows, size_t jobs, int threads);
    size_t (*workspace_bytes)(const attention_shape *shape, size_t tile_rows, size_t n_blocks);
    void (*run)(const attention_shape *shape, const attention_job *tile, void *workspace);
    /* run may be called with some blocks of a tile after the other. */
    bool piecewise;
} attention_algorithm;

/* Registered in algorithms.c; NULL for AUTO. */
const attention_algorithm *attention_algorithm_get(qwen3_attention_algorithm id);

typedef struct attention_workspace {
    void *data;
    size_t bytes;
    size_t score_bytes; /* of these, for scores and probabilities */
    int threads;        /* that it was sized for; attention_run takes no more. 0 = size of the team */
} attention_workspace;

/* Workspace that attention_plan needs for these jobs (only rows and n_blocks of them are read) with `threads` threads,
 * and for jobs of the same rows with fewer blocks. Score bytes in *score_bytes. */
size_t attention_workspace_bytes(const attention_shape *shape, const attention_algorithm *algorithm,
                                 const attention_job *jobs, size_t n_jobs, int threads, size_t *score_bytes);
/* Splits the jobs into pieces of work and leaves them, with the arguments, in the workspace for attention_run. The
 * arguments must last as long. One thread of the team calls it, and a barrier must follow. Only the positions of keys
 * must be known; keys may come later. */
void attention_plan(const team *t, const attention_shape *shape, const attention_algorithm *algorithm,
                    const attention_job *jobs, size_t n_jobs, const attention_workspace *workspace);
/* All jobs of the plan, on all threads of the team; a barrier at the end. Where tiles are fewer than threads (one query
 * against many keys), tiles are split over keys and the partials merged, in an order that depends on the number of
 * threads only. */
void attention_run(team *t, const attention_workspace *workspace);

/* ---- Partials (partial.c) ---------------------------------------------------------------------- */

/* Partials of n (row, head) pairs: o [n, head_dim], m [n], l [n]. */
typedef struct partial_run {
    float *o, *m, *l;
} partial_run;

/* Floats of a run that lies in one piece: all o, then all m, then all l. */
static inline size_t partial_floats(size_t n, size_t head_dim)
{
    return n * (head_dim + 2);
}
static inline partial_run partial_at(float *run, size_t n, size_t head_dim)
{
    return (partial_run){run, run + n * head_dim, run + n * (head_dim + 1)};
}
/* The run without its first pairs. */
static inline partial_run partial_from(partial_run p, size_t first, size_t head_dim)
{
    return (partial_run){p.o + first * head_dim, p.m + first, p.l + first};
}

/* Sets the identity. */
void partial_clear(size_t n, size_t head_dim, partial_run p);
/* into = merge of it with `from`. */
void partial_merge(size_t n, size_t head_dim, partial_run into, partial_run from);
/* y = o / l of pair `at`, [head_dim] stored as y_type; 0 where no key was seen. y may be its o where that is F32. */
void partial_output(const kernels *k, size_t head_dim, partial_run p, size_t at, void *y, qwen3_dtype y_type);

#endif
