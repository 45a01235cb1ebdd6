/* kernels_avx512_bf16.c - BF16 x BF16 products with f32 sums (VDPBF16PS), 6 x 64 tiles.
 *
 * The instruction adds two products per lane, treats denormal inputs as 0 and flushes denormal sums.
 */
#include "kernels/x86/vector_avx512.h"

#include "kernels/vector_exp.h"

typedef __m512bh pairs;

TEMPLATE pairs pairs_load(const bf16 *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

TEMPLATE pairs pairs_of_bytes(const void *p)
{
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
    const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p + 1)));
    return _mm512_cvtne2ps_pbh(high, low);
}

TEMPLATE pairs pairs_set1(uint32_t pair)
{
    __m512i all = _mm512_set1_epi32((int)pair);
#if defined(__clang__) && __clang_major__ >= 16 && __clang_major__ <= 18
    __asm__("" : "+v"(all)); /* clang 16 crashes on products of what it knows to be repeated; 19 does not */
#endif
    return (__m512bh)all;
}

TEMPLATE vec vec_add_products(vec c, pairs a, pairs b)
{
    return _mm512_dpbf16_ps(c, a, b);
}

#include "kernels/vector_bf16_kernels.h"

/* ---- Exponentials ------------------------------------------------------------------------------ */

/* The instruction takes denormal numbers for 0. exp gives none, and products take those of silu for 0. */
TEMPLATE void exp_store_bf16(void *p, size_t i, vec e, size_t n)
{
    _mm256_mask_storeu_epi16((bf16 *)p + i, lane_mask(n), (__m256i)_mm512_cvtneps_pbh(e));
}

static float exp_sum(size_t n, const float *s, float m, void *p, qwen3_dtype p_type)
{
    return p_type == QWEN3_DTYPE_F32 ? exp_sum_with(n, s, m, p, exp_store_f32)
                                     : exp_sum_with(n, s, m, p, exp_store_bf16);
}

static void silu_mul(size_t n, const float *gate, const float *up, void *y, qwen3_dtype y_type)
{
    const vec zero = vec_set1(0.0f);
    size_t i = 0;
    if (y_type != QWEN3_DTYPE_BF16) {
        kernels_avx512_silu_mul(n, gate, up, y, y_type);
        return;
    }
    for (; i + LANES <= n; i += LANES)
        exp_store_bf16(y, i, vec_mul(vec_silu(vec_load(gate + i)), vec_load(up + i)), LANES);
    if (i < n)
        exp_store_bf16(
            y, i, vec_mul(vec_silu(vec_load_part(gate + i, n - i, zero)), vec_load_part(up + i, n - i, zero)), n - i);
}

/* Quantised weights stay with the VNNI level, whose products are faster than these would be. */
void kernels_init_avx512_bf16(kernels *k)
{
    vector_bf16_kernels_fill(k);
    k->exp_sum = exp_sum;
    k->silu_mul = silu_mul;
}
