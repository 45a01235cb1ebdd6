/* tile.h - from a tile template to the `tile` entry of a gemm_kernel.
 *
 * `rows_template(rows, storage, k_groups, x, x_stride, w, y, y_stride, accumulate, ahead)` is inlined once for each
 * number of rows up to MR = 6, so that its sums live in registers.
 */
#ifndef QWEN3_KERNELS_TILE_H
#define QWEN3_KERNELS_TILE_H

#include "kernels/levels.h"

#define MR 6

/* Entries of the table; MR and NR are those of the level. None asks for weights of its own but GEMM_DOTS, products of
 * bytes, whose tiles of more than `most_once` rows pass over weights more than once. */
#define GEMM(type, activation_type, values, output_bytes, most_once, asks, ...)                                        \
    {                                                                                                                  \
        .storage = (type), .activation = (activation_type), .mr = MR, .once = (most_once), .asks_from = (asks),        \
        .nr = NR, .kr = (values), .group_bytes = (output_bytes), __VA_ARGS__                                           \
    }
#define GEMM_ELEMENTS(type, activation_type, values, tile_function)                                                    \
    ((gemm_kernel)GEMM(type, activation_type, values, sizeof(uint32_t), MR, MR + 1, .tile = (tile_function)))
#define GEMM_BYTES(activation_type, tile_function)                                                                     \
    ((gemm_kernel)GEMM(QWEN3_DTYPE_Q8, activation_type, 2, 2, MR, MR + 1, .tile = (tile_function)))
#define GEMM_BLOCKS(type, block_bytes, expand_function, f32)                                                           \
    ((gemm_kernel)GEMM(type, (f32)->activation, BLOCK, block_bytes, MR, MR + 1, .expand = (expand_function),           \
                       .expanded = (f32)))
#define GEMM_DOTS(type, block_bytes, most_once, tile_function)                                                         \
    GEMM(type, QWEN3_DTYPE_Q8, BLOCK, block_bytes, most_once, 1, .tile = (tile_function))

/* Of F32, BF16 and bytes in the places of BF16 (Q8, for kernels.bytes): values in a group, and its bytes of one output.
 */
#define GROUP_VALUES(storage) ((storage) == QWEN3_DTYPE_F32 ? 1 : 2)
#define GROUP_BYTES(storage) ((storage) == QWEN3_DTYPE_Q8 ? 2 : sizeof(uint32_t))

#define LINE 64

/* Tiles of many rows ask in so many parts during a step: many lines at once would hold up their own loads. Those of few
 * rows, which ask for more, do with every group. */
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
        rows_template(rows, storage, k_groups, x, x_stride, w, y, y_stride, accumulate, ahead);                        \
        break;

#define DEFINE_TILE(name, rows_template, storage)                                                                      \
    static void name(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,               \
                     size_t y_stride, bool accumulate, const gemm_ahead *ahead)                                        \
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
