/* kernels_avx512_bf16.c - BF16 x BF16 products with f32 sums (VDPBF16PS), 6 x 64 tiles.
 *
 * The instruction adds two products per lane, treats denormal inputs as 0 and flushes denormal sums.
 */
#include <immintrin.h>

#include "kernels/tile.h"

#define LANES 16
#define VECS 4
#define NR (VECS * LANES)

TEMPLATE void tile_rows(const int rows, const qwen3_dtype storage, size_t k_groups, const bf16 *x, size_t x_stride,
                        const void *w, float *y, size_t y_stride, bool accumulate)
{
    (void)storage;
    __m512 sum[MR][VECS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < VECS; v++)
            sum[r][v] = accumulate ? _mm512_loadu_ps(y + (size_t)r * y_stride + v * LANES) : _mm512_setzero_ps();
    }
    const bf16 *group = w;
    for (size_t g = 0; g < k_groups; g++, group += 2 * NR, x += 2) {
        __m512bh weight[VECS];
        UNROLL
        for (int v = 0; v < VECS; v++)
            weight[v] = (__m512bh)_mm512_loadu_si512(group + v * 2 * LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x + (size_t)r * x_stride, sizeof pair);
            const __m512bh xi = (__m512bh)_mm512_set1_epi32(pair);
            UNROLL
            for (int v = 0; v < VECS; v++)
                sum[r][v] = _mm512_dpbf16_ps(sum[r][v], xi, weight[v]);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < VECS; v++)
            _mm512_storeu_ps(y + (size_t)r * y_stride + v * LANES, sum[r][v]);
    }
}

DEFINE_TILE(tile_bf16, tile_rows, QWEN3_DTYPE_BF16)

static uint64_t multiply_add_bf16(size_t n)
{
    const size_t steps = n * (1000000 / (MR * NR * 4));
    __m512i half = _mm512_set1_epi16(0x3f00);
    __asm__ volatile("" : "+v"(half));
    __m512 sum[MR * VECS];
    for (int j = 0; j < MR * VECS; j++)
        sum[j] = _mm512_setzero_ps();
    for (size_t i = 0; i < steps; i++) {
        UNROLL
        for (int j = 0; j < MR * VECS; j++)
            sum[j] = _mm512_dpbf16_ps(sum[j], (__m512bh)half, (__m512bh)half);
    }
    for (int j = 0; j < MR * VECS; j++)
        __asm__ volatile("" : "+v"(sum[j]));
    return (uint64_t)steps * MR * NR * 4;
}

void kernels_init_avx512_bf16(kernels *k)
{
    k->gemm[QWEN3_DTYPE_BF16] = (gemm_kernel){QWEN3_DTYPE_BF16, QWEN3_DTYPE_BF16, MR, NR, 2, tile_bf16};
    k->multiply_add[QWEN3_DTYPE_BF16] = multiply_add_bf16;
}
