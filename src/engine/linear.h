/* linear.h - the products of a step on all threads of a rank. Internal to the forward pass. */
#ifndef QWEN3_ENGINE_LINEAR_H
#define QWEN3_ENGINE_LINEAR_H

#include "engine/session.h"

/* Up to this many rows a product is bound by reading its weights. */
#define FEW_ROWS 16

/* Rows [row, row + m) of one part. */
typedef struct linear_item {
    size_t part, row, m;
} linear_item;

/* The items of work of a product of m > FEW_ROWS rows that has `parts` parts along its outputs: some rows of one part
 * each, at most `most`. The last ones have fewer rows than the others, so that the threads end together. All threads
 * begin, then call next until it is false. Barriers as for a loop of items (team.h), of which this is one. */
typedef struct linear_items {
    size_t count;
    size_t m, cuts, rows; /* cuts: items of a part; rows: of an ordinary item */
    size_t ordinary;      /* items before the smaller ones */
    size_t grain;         /* rows are cut at multiples of it */
    bool more;            /* this thread has taken one more item already: */
    linear_item following;
} linear_items;

linear_items linear_items_begin(team *t, const gemm_kernel *g, size_t m, size_t parts, size_t most);
bool linear_items_next(team *t, linear_items *items, linear_item *item);

/* y[m, n] (+)= x[m, k] W[n, k]^T for ranges n, k of W. Called by all threads between barriers. */
void linear(team *t, const gemm_kernel *g, const matrix *w, range n, range k, size_t m, const void *x, size_t x_stride,
            float *y, size_t y_stride, bool accumulate);

/* b.gated = silu(b.normed Wgate^T) * (b.normed Wup^T) for outputs n and m rows, panel by panel so that neither product
 * is ever stored whole. Called by all threads between barriers. */
void gated_linear(team *t, const qwen3_session *s, const layer_weights *w, range n, size_t m);

#endif
