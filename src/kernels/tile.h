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
    ((gemm_kernel){storage, activation, MR, MR, NR, kr, sizeof(uint32_t), tile, NULL, NULL, NULL})
#define GEMM_BYTES(activation, tile)                                                                                   \
    ((gemm_kernel){QWEN3_DTYPE_Q8, activation, MR, MR, NR, 2, 2, tile, NULL, NULL, NULL})
#define GEMM_BLOCKS(storage, block_bytes, expand, expanded)                                                            \
    ((gemm_kernel){storage, (expanded)->activation, MR, MR, NR, BLOCK, block_bytes, NULL, expand, expanded, NULL})

#define LINE 64

/* A tile asks in so many parts during a step: many lines at once would hold up its own loads. */
#define ASKING_PARTS 4

/* Asks the cache of a level for part `part` of `parts` of the lines of p[0..bytes). On Zen 5 the first tile that meets
 * weights loses half of a tile's time where level 1 was asked for them, and a whole one where level 2 was. */
TEMPLATE void ask_part(const char *p, size_t bytes, size_t part, const size_t parts, const int level)
{
    const size_t lines = (bytes + LINE - 1) / LINE;
    for (size_t i = lines * part / parts; i < lines * (part + 1) / parts; i++) {
        if (level == 1) /* the argument of the builtin must be a constant without optimisation too */
            __builtin_prefetch(p + i * LINE, 0, 3);
        else
            __builtin_prefetch(p + i * LINE, 0, 2);
    }
}

/* Asks for the values of as many rows of x as the tile has, after its own. Strides in bytes. */
TEMPLATE void ask_rows(const int rows, const void *x, size_t x_stride, const size_t x_bytes)
{
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
