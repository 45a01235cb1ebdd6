/* vector_bf16_kernels.h - BF16 x BF16 products with f32 sums, written once over the instructions that add the
 * products of pairs. The including file provides before:
 *   the vectors of a level (vector_*.h);
 *   pairs                         as many pairs of BF16 values as a vec has lanes
 *   pairs_load(p), pairs_set1(u)  from memory; every pair from the 32 bits of u
 *   pairs_of_bytes(p)             from signed bytes
 *   vec_add_products(c, a, b)     c + a0 b0 + a1 b1 in every lane
 * Ends in vector_bf16_kernels_fill().
 */
#include "kernels/tile.h"

#define NR (VECS * LANES)

/* sum += x * weights of one group. */
TEMPLATE void add_group(const int rows, const qwen3_dtype storage, const bf16 *x, size_t x_stride, const char *group,
                        vec sum[MR][VECS])
{
    pairs weight[VECS];
    UNROLL
    for (int v = 0; v < VECS; v++) {
        const void *p = group + (size_t)v * LANES * GROUP_BYTES(storage);
        if (storage == QWEN3_DTYPE_Q8) /* no ?: of these vectors in clang before 19 */
            weight[v] = pairs_of_bytes(p);
        else
            weight[v] = pairs_load(p);
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        uint32_t pair;
        memcpy(&pair, x + (size_t)r * x_stride, sizeof pair);
        const pairs xi = pairs_set1(pair);
        UNROLL
        for (int v = 0; v < VECS; v++)
            sum[r][v] = vec_add_products(sum[r][v], xi, weight[v]);
    }
}

typedef bf16 tile_activation;
#include "kernels/vector_tile.h"

DEFINE_TILE(tile_bf16, tile_rows, QWEN3_DTYPE_BF16)
DEFINE_TILE(tile_bytes, tile_rows, QWEN3_DTYPE_Q8)

static uint64_t multiply_add_bf16(size_t n)
{
    const size_t steps = n * (1000000 / (MR * NR * 4));
    uint32_t bits = 0x3f003f00; /* 0.5 twice */
    __asm__ volatile("" : "+r"(bits));
    const pairs half = pairs_set1(bits);
    vec sum[MR * VECS];
    for (int j = 0; j < MR * VECS; j++)
        sum[j] = vec_opaque(vec_set1(0.0f)); /* not known to be equal: one would do for all */
    for (size_t i = 0; i < steps; i++) {
        UNROLL
        for (int j = 0; j < MR * VECS; j++)
            sum[j] = vec_add_products(sum[j], half, half);
    }
    for (int j = 0; j < MR * VECS; j++)
        sum[j] = vec_opaque(sum[j]);
    return (uint64_t)steps * MR * NR * 4;
}

TEMPLATE void vector_bf16_kernels_fill(kernels *k)
{
    k->gemm[QWEN3_DTYPE_BF16] = GEMM_ELEMENTS(QWEN3_DTYPE_BF16, QWEN3_DTYPE_BF16, 2, tile_bf16);
    k->bytes = GEMM_BYTES(QWEN3_DTYPE_BF16, tile_bytes);
    k->multiply_add[QWEN3_DTYPE_BF16] = multiply_add_bf16;
}
