/* linear.h - the products of a step on all threads of a rank. */
#ifndef QWEN3_BLOCKS_LINEAR_H
#define QWEN3_BLOCKS_LINEAR_H

#include "base/team.h"
#include "blocks/activations.h"
#include "kernels/row_limits.h"
#include "model/weights.h"

/* Rows of one work item of products that are used where they are computed: their two tiles stay in the second-level
 * cache. */
#define TILED_ROWS 192

/* Rows [row, row + m) of one part. */
typedef struct linear_item {
    size_t part, row, m;
} linear_item;

/* The items of work of a product of m > LINEAR_FEW_ROWS rows that has `parts` parts along its outputs: some rows of one
 * part each, at most `most`, in multiples of `grain`. The last ones have fewer rows than the others, so that the
 * threads end together. All threads begin, then call next until it is false. Barriers as for a loop of items (team.h),
 * of which this is one. */
typedef struct linear_items {
    size_t count;
    size_t m, splits, rows; /* splits: items of a part; rows: of an ordinary item */
    size_t ordinary;        /* items before the smaller ones */
    size_t grain;           /* rows are split at multiples of it */
    bool more;              /* this thread has taken one more item already: */
    linear_item following;
} linear_items;

linear_items linear_items_begin(team *t, size_t grain, size_t m, size_t parts, size_t most);
bool linear_items_next(team *t, linear_items *items, linear_item *item);

/* y (+)= x W^T for a part of W; w->next is not looked at. Called by all threads between barriers. */
void linear(team *t, const matrix_part *w, const gemm_input *x, const gemm_output *y);

/* Rows that the kernel of a matrix takes at once. */
static inline size_t matrix_rows_at_once(const matrix *w)
{
    return (size_t)w->pieces[0].gemm->mr;
}

/* All outputs and inputs of a matrix. */
static inline matrix_part matrix_whole(const matrix *w)
{
    return (matrix_part){w, 0, w->n, 0, w->k, NULL};
}

/* Two tiles of [TILED_ROWS, width] f32 for each thread. */
static inline size_t thread_tiles_bytes(size_t width, int threads)
{
    return (size_t)threads * 2 * TILED_ROWS * width * sizeof(float);
}
static inline float *thread_tiles(float *tiles, size_t width, int tid)
{
    return tiles + (size_t)tid * 2 * TILED_ROWS * width;
}

#endif
