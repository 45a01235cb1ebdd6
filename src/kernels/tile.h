/* tile.h - from a tile template to the `tile` entry of a gemm_kernel.
 *
 * `rows_template(rows, storage, k_groups, x, x_stride, w, y, y_stride, accumulate, prefetch)` is inlined once for each
 * number of rows up to MR = 6, so that its sums live in registers.
 */
#ifndef QWEN3_KERNELS_TILE_H
#define QWEN3_KERNELS_TILE_H

#include "kernels/levels.h"

#define MR 6

/* Entries of the table; MR and NR are those of the level. Tiles of GEMM_DOTS, products of bytes, pass more than once
 * over weights for more than `one_pass` rows. */
#define GEMM(type, activation_type, values, output_bytes, one_pass, ...)                                               \
    {                                                                                                                  \
        .storage = (type), .activation = (activation_type), .mr = MR, .one_pass_rows = (one_pass), .nr = NR,           \
        .kr = (values), .group_bytes = (output_bytes), __VA_ARGS__                                                     \
    }
#define GEMM_ELEMENTS(type, activation_type, values, tile_function)                                                    \
    ((gemm_kernel)GEMM(type, activation_type, values, sizeof(uint32_t), MR, .tile = (tile_function)))
#define GEMM_BYTES(activation_type, tile_function)                                                                     \
    ((gemm_kernel)GEMM(QWEN3_DTYPE_Q8, activation_type, 2, 2, MR, .tile = (tile_function)))
#define GEMM_BLOCKS(type, block_bytes, expand_function, f32)                                                           \
    ((gemm_kernel)GEMM(type, (f32)->activation, BLOCK, block_bytes, MR, .expand = (expand_function), .expanded = (f32)))
#define GEMM_STORED(type, activation_type, one_pass, ...)                                                              \
    ((gemm_kernel)GEMM(type, activation_type, BLOCK * stored_format_of(type).blocks,                                   \
                       (int)stored_group_bytes(stored_format_of(type)), one_pass, __VA_ARGS__))
#define GEMM_DOTS(type, block_bytes, one_pass, tile_function)                                                          \
    GEMM(type, QWEN3_DTYPE_Q8, BLOCK, block_bytes, one_pass, .tile = (tile_function))

/* Of F32, BF16 and bytes in the places of BF16 (Q8, for kernels.bytes): values in a group, and its bytes of one output.
 */
#define GROUP_VALUES(storage) ((storage) == QWEN3_DTYPE_F32 ? 1 : 2)
#define GROUP_BYTES(storage) ((storage) == QWEN3_DTYPE_Q8 ? 2 : sizeof(uint32_t))

#define LINE 64

/* Parts in which a tile prefetches into level 1 during a step: many lines at once would delay its own loads. Into level
 * 2, which brings more lines, a tile prefetches with every group. */
#define PREFETCH_PARTS 4

/* Prefetches part `part` of `parts` of the lines of p[0..bytes) into the cache of a level. */
TEMPLATE void prefetch_part(const char *p, size_t bytes, size_t part, const size_t parts, const int level)
{
    const size_t lines = (bytes + LINE - 1) / LINE;
    for (size_t i = lines * part / parts; i < lines * (part + 1) / parts; i++) {
        if (level == 1) /* the argument of the builtin must be a constant without optimisation too */
            __builtin_prefetch(p + i * LINE, 0, 3);
        else
            __builtin_prefetch(p + i * LINE, 0, 2);
    }
}

/* Prefetches the values of as many rows of x as the tile has, after its own. Strides in bytes. */
TEMPLATE void prefetch_rows(const int rows, const void *x, size_t x_stride, const size_t x_bytes)
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

/* For EACH_STORED_TYPE (stored_types.h): `expand` of a type out of expand_stored of all. */
#define DEFINE_EXPAND(name, ...)                                                                                       \
    static void expand_##name(size_t k_groups, const void *w, void *panel)                                             \
    {                                                                                                                  \
        expand_stored(WEIGHT_##name, k_groups, w, panel);                                                              \
    }

/* A tile of kernels.mixed out of that of the same weights and f32 activations. */
#define MIXED_VALUES 512 /* widened at once, of each row; a multiple of BLOCK */

#define DEFINE_MIXED_TILE(name, storage, tile_of_f32)                                                                  \
    static void name(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,               \
                     size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)                                  \
    {                                                                                                                  \
        _Alignas(64) float wide[MR * MIXED_VALUES];                                                                    \
        const size_t kr = GROUP_VALUES(storage), most = MIXED_VALUES / kr;                                             \
        size_t done = 0;                                                                                               \
        (void)prefetch;                                                                                                \
        do { /* once at least: an empty sum is 0 */                                                                    \
            const size_t n = k_groups - done < most ? k_groups - done : most;                                          \
            for (size_t r = 0; r < (size_t)rows; r++)                                                                  \
                activation_widen((const char *)x + activation_bytes(QWEN3_DTYPE_Q8, r * x_stride + done * kr), n * kr, \
                                 wide + r * MIXED_VALUES);                                                             \
            tile_of_f32(rows, n, wide, MIXED_VALUES, (const char *)w + done * NR * GROUP_BYTES(storage), y, y_stride,  \
                        accumulate || done > 0, NULL);                                                                 \
            done += n;                                                                                                 \
        } while (done < k_groups);                                                                                     \
    }

#define TILE_CASE(rows_template, storage, rows)                                                                        \
    case rows:                                                                                                         \
        rows_template(rows, storage, k_groups, x, x_stride, w, y, y_stride, accumulate, prefetch);                     \
        break;

#define DEFINE_TILE(name, rows_template, storage)                                                                      \
    static void name(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,               \
                     size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)                                  \
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
