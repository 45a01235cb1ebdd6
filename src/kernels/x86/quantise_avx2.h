/* quantise_avx2.h - a block of 32 values in four vectors of 8: the arithmetic of quantise.c, the same bits.
 *
 * Conversion to integers rounds to nearest even, as adding 1.5 * 2^23 does. Packing to bytes saturates at -128 where
 * plain C stops at -127: Q8 raises it, to Q4 both are the lowest level.
 */
#ifndef QWEN3_KERNELS_X86_QUANTISE_AVX2_H
#define QWEN3_KERNELS_X86_QUANTISE_AVX2_H

#include <immintrin.h>

#include "kernels/blocks.h"
#include "kernels/levels.h"

#define EIGHTS (BLOCK / 8)

/* Returns the largest magnitude. */
TEMPLATE float load_values(const float *from, __m256 *x)
{
    __m256 most = _mm256_setzero_ps();
    for (int i = 0; i < EIGHTS; i++) {
        x[i] = _mm256_loadu_ps(from + 8 * i);
        most = _mm256_max_ps(most, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x[i]));
    }
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

/* a x rounded to the nearest integers in -128..127. */
TEMPLATE __m256i round_values(const __m256 *x, float a)
{
    __m256i v[EIGHTS];
    for (int i = 0; i < EIGHTS; i++)
        v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_set1_ps(a), x[i]));
    /* Packing works within halves of vectors and leaves 0-3 8-11 16-19 24-27, 4-7 ... */
    const __m256i low = _mm256_packs_epi32(v[0], v[1]), high = _mm256_packs_epi32(v[2], v[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
}

static bool quantise_q8(const float *from, bf16 *scale, int8_t *q)
{
    __m256 x[EIGHTS];
    const float largest = load_values(from, x);
    *scale = largest < LEAST_MAGNITUDE ? 0 : f32_to_bf16(largest / 127.0f);
    const float s = bf16_to_f32(*scale);
    const __m256i rounded = round_values(x, s > 0.0f ? 1.0f / s : 0.0f);
    _mm256_storeu_si256((__m256i *)q, _mm256_max_epi8(rounded, _mm256_set1_epi8(-127)));
    return isfinite(127.0f * s);
}

TEMPLATE __m256i table_of(const int8_t *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

/* The codes of the levels nearest to q. Of 16 consecutive q, counted from -133, no more than one is the last below
 * the middle between two levels: a code is that of the first of the 16, or the next one. */
TEMPLATE __m256i nearest_codes(__m256i q)
{
    static const int8_t first[16] = {0, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 14, 14, 15},
                        last[16] = {127, -114, -91, -72, -56, -42, -29, -17, 5, 17, 29, 56, 73, 127, 93, 127};
    const __m256i from_0 = _mm256_xor_si256(_mm256_adds_epi8(q, _mm256_set1_epi8(5)), _mm256_set1_epi8(-128));
    const __m256i sixteen = _mm256_and_si256(_mm256_srli_epi16(from_0, 4), _mm256_set1_epi8(15));
    const __m256i next = _mm256_cmpgt_epi8(q, _mm256_shuffle_epi8(table_of(last), sixteen));
    return _mm256_sub_epi8(_mm256_shuffle_epi8(table_of(first), sixteen), next);
}

/* <x, t> and <t, t> for the levels t nearest to q, each as four numbers that are still to be added, those of the
 * product as 0 + 2 and 1 + 3 first. */
TEMPLATE void products_with_levels(const __m256 *x, __m256i q, __m128 *product, __m128i *square)
{
    const __m256i levels = _mm256_shuffle_epi8(table_of(q4_values), nearest_codes(q));
    const __m128i low = _mm256_castsi256_si128(levels), high = _mm256_extracti128_si256(levels, 1);
    const __m256i low16 = _mm256_cvtepi8_epi16(low), high16 = _mm256_cvtepi8_epi16(high);
    const __m256i squares = _mm256_add_epi32(_mm256_madd_epi16(low16, low16), _mm256_madd_epi16(high16, high16));
    *square = _mm_add_epi32(_mm256_castsi256_si128(squares), _mm256_extracti128_si256(squares, 1));
    const __m128i bytes[EIGHTS] = {low, _mm_unpackhi_epi64(low, low), high, _mm_unpackhi_epi64(high, high)};
    __m256 p[EIGHTS];
    for (int i = 0; i < EIGHTS; i++)
        p[i] = _mm256_mul_ps(x[i], _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes[i])));
    const __m256 sum = _mm256_add_ps(_mm256_add_ps(p[0], p[2]), _mm256_add_ps(p[1], p[3]));
    *product = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
}

/* Fits and scores of the four candidates that map 1 to a, -a, b, -b. */
TEMPLATE void try_four(const __m256 *unit, float a, float b, float *fits, float *scores)
{
    __m128 p[4];
    __m128i s[4];
    for (int i = 0; i < 2; i++) {
        const __m256i q = round_values(unit, i ? b : a);
        products_with_levels(unit, q, &p[2 * i], &s[2 * i]);
        products_with_levels(unit, _mm256_subs_epi8(_mm256_setzero_si256(), q), &p[2 * i + 1], &s[2 * i + 1]);
    }
    _MM_TRANSPOSE4_PS(p[0], p[1], p[2], p[3]);
    const __m128 product = _mm_add_ps(_mm_add_ps(p[0], p[2]), _mm_add_ps(p[1], p[3]));
    const __m128i square = _mm_hadd_epi32(_mm_hadd_epi32(s[0], s[1]), _mm_hadd_epi32(s[2], s[3]));
    const __m128 fit = _mm_div_ps(product, _mm_cvtepi32_ps(square));
    _mm_storeu_ps(fits, fit);
    _mm_storeu_ps(scores, _mm_mul_ps(fit, product));
}

static bool quantise_q4(const float *from, bf16 *scale, int8_t *codes)
{
    __m256 x[EIGHTS], unit[EIGHTS];
    const float largest = load_values(from, x);
    if (largest < LEAST_MAGNITUDE) {
        *scale = 0;
        memset(codes, Q4_ZERO, BLOCK);
        return true;
    }
    for (int i = 0; i < EIGHTS; i++)
        unit[i] = _mm256_div_ps(x[i], _mm256_set1_ps(largest));
    float fits[8], scores[8];
    try_four(unit, q4_targets[0], q4_targets[1], fits, scores);
    try_four(unit, q4_targets[2], q4_targets[3], fits + 4, scores + 4);
    const __m256 all = _mm256_loadu_ps(scores);
    __m256 most = _mm256_max_ps(all, _mm256_permute2f128_ps(all, all, 1));
    most = _mm256_max_ps(most, _mm256_permute_ps(most, 0x4e));
    most = _mm256_max_ps(most, _mm256_permute_ps(most, 0xb1));
    const int best = __builtin_ctz((unsigned)_mm256_movemask_ps(_mm256_cmp_ps(all, most, _CMP_EQ_OQ)));
    *scale = f32_to_bf16(fits[best] * largest);
    const float s = bf16_to_f32(*scale);
    _mm256_storeu_si256((__m256i *)codes, nearest_codes(round_values(x, 1.0f / s)));
    return isfinite(127.0f * s);
}

#endif
