/* vector_avx512.h - the operations that vector_kernels.h is written in, on 16 floats. See vector_avx2.h. */
#ifndef QWEN3_KERNELS_X86_VECTOR_AVX512_H
#define QWEN3_KERNELS_X86_VECTOR_AVX512_H

#include <immintrin.h>

#include "kernels/levels.h"

typedef __m512 vec;
#define LANES 16
/* Vectors in a panel row: MR * VECS sums + 2 VECS weights fill the 32 registers. */
#define VECS 4

TEMPLATE vec vec_set1(float x)
{
    return _mm512_set1_ps(x);
}

TEMPLATE vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

TEMPLATE void vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}

TEMPLATE __mmask16 lane_mask(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

TEMPLATE vec vec_load_part(const float *p, size_t n, vec fill)
{
    return _mm512_mask_loadu_ps(fill, lane_mask(n), p);
}

TEMPLATE void vec_store_part(float *p, vec v, size_t n)
{
    _mm512_mask_storeu_ps(p, lane_mask(n), v);
}

TEMPLATE vec vec_load_part_bf16(const bf16 *p, size_t n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lane_mask(n), p)), 16));
}

/* The conversion instruction would take denormal numbers for 0. */
TEMPLATE void vec_store_part_bf16(bf16 *p, vec v, size_t n)
{
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i high = _mm512_srli_epi32(_mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000)), 16);
    _mm256_mask_storeu_epi16(p, lane_mask(n), _mm512_cvtepi32_epi16(high));
}

TEMPLATE vec vec_pairs(const bf16 *p, int odd)
{
    const __m512i u = _mm512_loadu_si512(p);
    return _mm512_castsi512_ps(odd ? _mm512_and_si512(u, _mm512_set1_epi32((int)0xffff0000u))
                                   : _mm512_slli_epi32(u, 16));
}

TEMPLATE void vec_store_pairs(bf16 *p, vec even, vec odd)
{
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
    _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_castps_si512(odd)));
}

TEMPLATE vec vec_byte_pairs(const void *p, int odd)
{
    const __m512i u = _mm512_cvtepi16_epi32(_mm256_loadu_si256(p));
    return _mm512_cvtepi32_ps(odd ? _mm512_srai_epi32(u, 8) : _mm512_srai_epi32(_mm512_slli_epi32(u, 24), 24));
}

TEMPLATE vec vec_halves(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

TEMPLATE vec vec_bytes(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

TEMPLATE vec vec_bits(const void *p, int shift, int mask)
{
    return _mm512_cvtepi32_ps(
        _mm512_and_si512(_mm512_srli_epi32(_mm512_loadu_si512(p), (unsigned)shift), _mm512_set1_epi32(mask)));
}

typedef vec vec_levels;

TEMPLATE vec_levels vec_levels_load(const int8_t *table)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)table)));
}

TEMPLATE vec vec_look_up(vec_levels t, const void *p, int shift)
{
    return _mm512_permutexvar_ps(_mm512_srli_epi32(_mm512_loadu_si512(p), (unsigned)shift), t);
}

TEMPLATE vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

TEMPLATE vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

TEMPLATE vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

/* An approximation to 14 bits and a step of Newton's method, for a <= 2^126: relative error 1.2e-7. A division takes as
 * long as all else that silu does. */
TEMPLATE vec vec_inverse(vec a)
{
    const vec y = _mm512_rcp14_ps(a);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(a, y, _mm512_set1_ps(1.0f)), y, y);
}

TEMPLATE vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

TEMPLATE vec vec_fnma(vec a, vec b, vec c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

TEMPLATE vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

TEMPLATE vec vec_limit(vec a, vec limit)
{
    return _mm512_range_ps(a, limit, 2); /* the smaller magnitude with the sign of a */
}

TEMPLATE vec vec_zero_below(vec x, vec limit, vec v)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), v);
}

TEMPLATE vec vec_scale(vec v, vec n, vec rounded)
{
    (void)rounded;
    return _mm512_scalef_ps(v, n);
}

TEMPLATE float vec_sum(vec v)
{
    return _mm512_reduce_add_ps(v);
}

TEMPLATE float vec_largest(vec v)
{
    return _mm512_reduce_max_ps(v);
}

TEMPLATE vec vec_xor(vec a, vec b)
{
    return _mm512_xor_ps(a, b);
}

TEMPLATE vec vec_opaque(vec v)
{
    __asm__ volatile("" : "+v"(v));
    return v;
}

#endif
