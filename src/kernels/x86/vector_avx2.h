/* vector_avx2.h - the operations that vector_kernels.h is written in, on 8 floats. */
#ifndef QWEN3_KERNELS_X86_VECTOR_AVX2_H
#define QWEN3_KERNELS_X86_VECTOR_AVX2_H

#include <immintrin.h>

#include "kernels/levels.h"

typedef __m256 vec;
#define LANES 8
/* Vectors in a panel row: MR * VECS sums + VECS weights + 1 input fill the 16 registers. */
#define VECS 2

TEMPLATE vec vec_set1(float x)
{
    return _mm256_set1_ps(x);
}

TEMPLATE vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

TEMPLATE void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}

/* All ones in the first n of 8 lanes, 0 <= n <= 8. */
TEMPLATE __m256i lane_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of LANES elements; the other lanes are `fill`, or are not written. */
TEMPLATE vec vec_load_part(const float *p, size_t n, vec fill)
{
    if (n == LANES)
        return _mm256_loadu_ps(p);
    const __m256i mask = lane_mask(n);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}

TEMPLATE void vec_store_part(float *p, vec v, size_t n)
{
    if (n == LANES)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, lane_mask(n), v);
}

TEMPLATE vec vec_load_part_bf16(const bf16 *p, size_t n)
{
    bf16 part[LANES] = {0};
    if (n < LANES) {
        memcpy(part, p, n * sizeof *p);
        p = part;
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

/* Rounds to nearest even as f32_to_bf16. */
TEMPLATE void vec_store_part_bf16(bf16 *p, vec v, size_t n)
{
    const __m256i u = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const vec nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    const __m256i high = _mm256_srli_epi32(
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan)), 16);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    if (n == LANES) {
        _mm_storeu_si128((__m128i *)p, packed);
    } else {
        bf16 part[LANES];
        _mm_storeu_si128((__m128i *)part, packed);
        memcpy(p, part, n * sizeof *p);
    }
}

/* The even or the odd ones of 2 * LANES BF16 values. */
TEMPLATE vec vec_pairs(const bf16 *p, int odd)
{
    const __m256i u = _mm256_loadu_si256((const __m256i *)p);
    return _mm256_castsi256_ps(odd ? _mm256_and_si256(u, _mm256_set1_epi32((int)0xffff0000u))
                                   : _mm256_slli_epi32(u, 16));
}

/* The inverse, of values that are exact in BF16. */
TEMPLATE void vec_store_pairs(bf16 *p, vec even, vec odd)
{
    const __m256i low = _mm256_srli_epi32(_mm256_castps_si256(even), 16);
    _mm256_storeu_si256((__m256i *)p, _mm256_or_si256(low, _mm256_castps_si256(odd)));
}

/* The even or the odd ones of 2 * LANES signed bytes. */
TEMPLATE vec vec_byte_pairs(const void *p, int odd)
{
    const __m256i u = _mm256_cvtepi16_epi32(_mm_loadu_si128(p));
    return _mm256_cvtepi32_ps(odd ? _mm256_srai_epi32(u, 8) : _mm256_srai_epi32(_mm256_slli_epi32(u, 24), 24));
}

/* LANES binary16 numbers. */
TEMPLATE vec vec_halves(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

/* LANES signed bytes. */
TEMPLATE vec vec_bytes(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}

/* Of each 32-bit word of p the bits of `mask` after a shift to the right. */
TEMPLATE vec vec_bits(const void *p, int shift, int mask)
{
    return _mm256_cvtepi32_ps(
        _mm256_and_si256(_mm256_srli_epi32(_mm256_loadu_si256(p), shift), _mm256_set1_epi32(mask)));
}

/* A table of 16 signed bytes as f32. */
typedef struct vec_levels {
    vec low, high;
} vec_levels;

TEMPLATE vec_levels vec_levels_load(const int8_t *table)
{
    const __m128i u = _mm_loadu_si128((const __m128i *)table);
    return (vec_levels){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(u)),
                        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(u, 8)))};
}

/* The entries of LANES 4-bit indices, which start at bit `shift` of 32-bit elements. */
TEMPLATE vec vec_look_up(vec_levels t, const void *p, int shift)
{
    const __m256i index = _mm256_srli_epi32(_mm256_loadu_si256(p), shift);
    const vec in_high = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, index), _mm256_permutevar8x32_ps(t.high, index), in_high);
}

TEMPLATE vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}

TEMPLATE vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}

TEMPLATE vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}

/* 1 / a of a >= 1. */
TEMPLATE vec vec_inverse(vec a)
{
    return _mm256_div_ps(_mm256_set1_ps(1.0f), a);
}

/* a b + c and c - a b */
TEMPLATE vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

TEMPLATE vec vec_fnma(vec a, vec b, vec c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

/* b where either is NaN. */
TEMPLATE vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}

/* The nearest value to a from -limit to limit; any of them where a is NaN. */
TEMPLATE vec vec_limit(vec a, vec limit)
{
    return _mm256_min_ps(_mm256_max_ps(a, _mm256_sub_ps(_mm256_setzero_ps(), limit)), limit);
}

/* 0 where x < limit, otherwise v. */
TEMPLATE vec vec_zero_below(vec x, vec limit, vec v)
{
    return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), v);
}

/* 2^n v; rounded is n + EXP_ROUNDER. */
TEMPLATE vec vec_scale(vec v, vec n, vec rounded)
{
    (void)n;
    const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(rounded), 23);
    return _mm256_mul_ps(v, _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(0x3f800000))));
}

TEMPLATE float vec_sum(vec v)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

TEMPLATE float vec_largest(vec v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

TEMPLATE vec vec_xor(vec a, vec b)
{
    return _mm256_xor_ps(a, b);
}

/* v, of which the compiler knows nothing. */
TEMPLATE vec vec_opaque(vec v)
{
    __asm__ volatile("" : "+x"(v));
    return v;
}

#endif
