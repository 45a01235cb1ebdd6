/* activations.h - a view of activations that enter a product: rows of one type, whose starts are `stride` elements
 * apart.
 *
 * Kernels may read the elements between the last column and the end of the row (ACTIVATION_PAD), which are zero.
 */
#ifndef QWEN3_BLOCKS_ACTIVATIONS_H
#define QWEN3_BLOCKS_ACTIVATIONS_H

#include "kernels/kernels.h"

typedef struct activations {
    void *data;
    size_t columns, stride;
    qwen3_dtype type; /* activation type of the product */
} activations;

/* Rows of `columns`, not in memory yet. */
static inline activations activations_of(size_t columns, qwen3_dtype type)
{
    return (activations){NULL, columns, (columns + ACTIVATION_PAD - 1) / ACTIVATION_PAD * ACTIVATION_PAD, type};
}

static inline size_t activations_bytes(const activations *a, size_t rows)
{
    return rows * activation_bytes(a->type, a->stride);
}

/* Where `column` of a row begins; a multiple of ACTIVATION_PAD where activations are blocks. */
static inline void *activations_at(const activations *a, size_t row, size_t column)
{
    return (char *)a->data + activation_bytes(a->type, row * a->stride + column);
}

/* Zeroes what a row has after its last column. Blocks are written whole. */
static inline void activations_pad(const activations *a, size_t row)
{
    if (a->stride > a->columns && a->type < ELEMENT_TYPES)
        memset(activations_at(a, row, a->columns), 0, (a->stride - a->columns) * dtype_size(a->type));
}

/* Rows [row, row + rows) as the input of a product. */
static inline gemm_input activations_input(const activations *a, size_t row, size_t rows)
{
    return (gemm_input){activations_at(a, row, 0), rows, a->stride};
}

#endif
