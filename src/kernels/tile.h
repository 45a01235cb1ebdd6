/* tile.h - from a tile template to the `tile` entry of a gemm_kernel.
 *
 * `rows_template(rows, storage, k_groups, x, x_stride, w, y, y_stride, accumulate)` is inlined once for each
 * number of rows up to MR = 6, so that its sums live in registers.
 */
#ifndef QWEN3_KERNELS_TILE_H
#define QWEN3_KERNELS_TILE_H

#include "kernels/levels.h"

#define MR 6

/* Entries of the table; MR and NR are those of the level. */
#define GEMM_ELEMENTS(storage, activation, kr, tile)                                                                   \
    ((gemm_kernel){storage, activation, MR, NR, kr, sizeof(uint32_t), tile, NULL, NULL, NULL})
#define GEMM_BYTES(activation, tile) ((gemm_kernel){QWEN3_DTYPE_Q8, activation, MR, NR, 2, 2, tile, NULL, NULL, NULL})
#define GEMM_BLOCKS(storage, block_bytes, expand, expanded)                                                            \
    ((gemm_kernel){storage, (expanded)->activation, MR, NR, BLOCK, block_bytes, NULL, expand, expanded, NULL})

/* Tiles of fewer rows read as fast as the hardware does by itself. */
#define ASKING_ROWS 3
#define LINE 64

/* Asks for ahead[0..ahead_bytes), and for the next AHEAD_STEP values of as many rows of x as the tile has, after its
 * own. Strides in bytes. Weights too are asked for into the first-level cache: on Zen 5 the first tile that meets them
 * loses half of a tile's time then, and a whole one where they were asked for into the second-level cache only. */
TEMPLATE void ask_ahead(const int rows, const void *x, size_t x_stride, const size_t x_bytes, const char *ahead,
                        size_t ahead_bytes)
{
    for (size_t b = 0; b < ahead_bytes; b += LINE)
        __builtin_prefetch(ahead + b, 0, 3);
    for (int r = rows; r < 2 * rows; r++)
        for (size_t b = 0; b < x_bytes; b += LINE)
            __builtin_prefetch((const char *)x + (size_t)r * x_stride + b, 0, 3);
}

/* For loops over what must become registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define TILE_CASE(rows_template, storage, rows)                                                                        \
    case rows:                                                                                                         \
        rows_template(rows, storage, k_groups, x, x_stride, w, y, y_stride, accumulate, ahead, ahead_bytes);           \
        break;

#define DEFINE_TILE(name, rows_template, storage)                                                                      \
    static void name(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,               \
                     size_t y_stride, bool accumulate, const void *ahead, size_t ahead_bytes)                          \
    {                                                                                                                  \
        switch (rows) {                                                                                                \
            TILE_CASE(rows_template, storage, 1)                                                                       \
            TILE_CASE(rows_template, storage, 2)                                                                       \
            TILE_CASE(rows_template, storage, 3)                                                                       \
            TILE_CASE(rows_template, storage, 4)                                                                       \
            TILE_CASE(rows_template, storage, 5)                                                                       \
            TILE_CASE(rows_template, storage, 6)                                                                       \
        }                                                                                                              \
    }

#endif
