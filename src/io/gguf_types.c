/* gguf_types.c - the block formats, as the file format defines them (ggml-common.h of llama.cpp has the layouts).
 *
 * d, m and dmin are the block's binary16 numbers, q the integers. Products are exact in f32, since a scale has 11 bits,
 * or 18 times that of its sub-block, and q has at most 6 (8 beside a scale of 11 or 16). So only the types with a
 * minimum round, once, in the last addition, and a fused multiply-add changes no bit. */
#include "io/gguf_types.h"

#include <stdbool.h>

#include "base/half.h"

/* A little-endian binary16 number. */
static inline float half_at(const unsigned char *p)
{
    return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static void expand_f16(const unsigned char *b, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = half_at(b + 2 * i);
}

/* ---- Blocks of 32: value i < 16 is in the low half of byte i, value 16 + i in its high half ------- */

enum { SMALL_BLOCK = 32, HALF = SMALL_BLOCK / 2 };

/* The fifth bits of all values. */
static inline uint32_t high_bits(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* What changes no number that it is added to, not even the sign of a zero. */
#define NO_MINIMUM (-0.0f)

/* y = d (q - bias) + m; `high` has 1 bit for each value. */
static inline void expand_nibbles(const unsigned char *quants, uint32_t high, int bias, float d, float m, float *y)
{
    for (int i = 0; i < HALF; i++) {
        const int first = (quants[i] & 15) | (int)(high >> i & 1) << 4;
        const int second = quants[i] >> 4 | (int)(high >> (i + HALF) & 1) << 4;
        y[i] = (float)(first - bias) * d + m;
        y[i + HALF] = (float)(second - bias) * d + m;
    }
}

/* {d, quants[16]}: d (q - 8). */
static void expand_q4_0(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 18, y += SMALL_BLOCK)
        expand_nibbles(b + 2, 0, 8, half_at(b), NO_MINIMUM, y);
}

/* {d, m, quants[16]}: d q + m. */
static void expand_q4_1(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 20, y += SMALL_BLOCK)
        expand_nibbles(b + 4, 0, 0, half_at(b), half_at(b + 2), y);
}

/* {d, high bits[4], quants[16]}: d (q - 16). */
static void expand_q5_0(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 22, y += SMALL_BLOCK)
        expand_nibbles(b + 6, high_bits(b + 2), 16, half_at(b), NO_MINIMUM, y);
}

/* {d, m, high bits[4], quants[16]}: d q + m. */
static void expand_q5_1(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 24, y += SMALL_BLOCK)
        expand_nibbles(b + 8, high_bits(b + 4), 0, half_at(b), half_at(b + 2), y);
}

/* {d, q[32] signed}. */
static void expand_q8_0(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 34, y += SMALL_BLOCK) {
        const float d = half_at(b);
        for (int i = 0; i < SMALL_BLOCK; i++)
            y[i] = (float)(int8_t)b[2 + i] * d;
    }
}

/* The levels of codes 0..15 of IQ4_NL and IQ4_XS. */
static const int8_t levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static inline void expand_levels(const unsigned char *quants, float d, float *y)
{
    for (int i = 0; i < HALF; i++) {
        y[i] = d * (float)levels[quants[i] & 15];
        y[i + HALF] = d * (float)levels[quants[i] >> 4];
    }
}

/* {d, codes[16]}: d level. */
static void expand_iq4_nl(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 18, y += SMALL_BLOCK)
        expand_levels(b + 2, half_at(b), y);
}

/* ---- Super-blocks of 256 ------------------------------------------------------------------------ */

/* Scale and minimum, 6 bits each, of sub-block j of 8, from 12 bytes: the first 4 bytes have the scales of j < 4, the
 * next 4 the minima; the low and high halves of the last 4 are the low 4 bits of both for j >= 4, whose high bits are
 * the top ones of the first 8 bytes. */
static inline void scale_and_minimum(const unsigned char *s, int j, int *scale, int *minimum)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *minimum = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *minimum = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

/* Sub-blocks of 32: d scale q - dmin minimum. Sub-blocks 2 i and 2 i + 1 are the low and high halves of bytes 32 i and
 * following; bit j of high[32], if there is one, is the fifth bit in sub-block j. */
static inline void expand_k_nibbles(const unsigned char *b, const unsigned char *high, const unsigned char *quants,
                                    float *y)
{
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++, y += 32) {
        const unsigned char *q = quants + j / 2 * 32;
        int scale, minimum;
        scale_and_minimum(b + 4, j, &scale, &minimum);
        const float ds = d * (float)scale, dm = dmin * (float)minimum;
        for (int i = 0; i < 32; i++) {
            int value = j % 2 ? q[i] >> 4 : q[i] & 15;
            if (high)
                value |= (high[i] >> j & 1) << 4;
            y[i] = ds * (float)value - dm;
        }
    }
}

/* {d, dmin, scales[12], quants[128]}. */
static void expand_q4_k(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 144, y += 256)
        expand_k_nibbles(b, NULL, b + 16, y);
}

/* {d, dmin, scales[12], high[32], quants[128]}. */
static void expand_q5_k(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 176, y += 256)
        expand_k_nibbles(b, b + 16, b + 48, y);
}

/* {low 4 bits[128], high 2 bits[64], scales[16] signed, d}: sub-blocks of 16, d scale (q - 32). Each half of the block
 * has 64 bytes of low bits: their low halves are its first 64 values, their high halves the others. Bits 2 k and
 * 2 k + 1 of 32 bytes are the high ones of its values 32 k and following. */
static void expand_q6_k(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 210, y += 256) {
        const float d = half_at(b + 208);
        for (int i = 0; i < 256; i++) {
            const int half = i / 128, at = i % 128;
            const int low = b[64 * half + at % 64] >> (at / 64 * 4) & 15;
            const int high = b[128 + 32 * half + at % 32] >> (at / 32 * 2) & 3;
            y[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
        }
    }
}

/* {d, high bits of scales, low halves of scales[4], codes[128]}: sub-blocks of 32, d (scale - 32) level, in the order
 * of their codes. */
static void expand_iq4_xs(const unsigned char *b, size_t n, float *y)
{
    for (; n > 0; n--, b += 136) {
        for (int j = 0; j < 8; j++, y += 32) {
            const int low = b[4 + j / 2] >> (j % 2 * 4) & 15, high = (b[2] | b[3] << 8) >> (2 * j) & 3;
            expand_levels(b + 8 + 16 * j, half_at(b) * (float)((low | high << 4) - 32), y);
        }
    }
}

/* ---- The table ----------------------------------------------------------------------------------- */

/* By the numbers that files have. Types with 0 bytes are known by name only. */
static const gguf_type types[] = {
    [0] = {"F32", 1, 4, NULL},
    [1] = {"F16", 1, 2, expand_f16},
    [2] = {"Q4_0", 32, 18, expand_q4_0},
    [3] = {"Q4_1", 32, 20, expand_q4_1},
    [6] = {"Q5_0", 32, 22, expand_q5_0},
    [7] = {"Q5_1", 32, 24, expand_q5_1},
    [8] = {"Q8_0", 32, 34, expand_q8_0},
    [9] = {"Q8_1", 0, 0, NULL},
    [10] = {"Q2_K", 0, 0, NULL},
    [11] = {"Q3_K", 0, 0, NULL},
    [12] = {"Q4_K", 256, 144, expand_q4_k},
    [13] = {"Q5_K", 256, 176, expand_q5_k},
    [14] = {"Q6_K", 256, 210, expand_q6_k},
    [15] = {"Q8_K", 0, 0, NULL},
    [16] = {"IQ2_XXS", 0, 0, NULL},
    [17] = {"IQ2_XS", 0, 0, NULL},
    [18] = {"IQ3_XXS", 0, 0, NULL},
    [19] = {"IQ1_S", 0, 0, NULL},
    [20] = {"IQ4_NL", 32, 18, expand_iq4_nl},
    [21] = {"IQ3_S", 0, 0, NULL},
    [22] = {"IQ2_S", 0, 0, NULL},
    [23] = {"IQ4_XS", 256, 136, expand_iq4_xs},
    [24] = {"I8", 0, 0, NULL},
    [25] = {"I16", 0, 0, NULL},
    [26] = {"I32", 0, 0, NULL},
    [27] = {"I64", 0, 0, NULL},
    [28] = {"F64", 0, 0, NULL},
    [29] = {"IQ1_M", 0, 0, NULL},
    [30] = {"BF16", 1, 2, NULL},
    [34] = {"TQ1_0", 0, 0, NULL},
    [35] = {"TQ2_0", 0, 0, NULL},
    [39] = {"MXFP4", 0, 0, NULL},
};

enum { TYPES = sizeof types / sizeof *types };

const gguf_type *gguf_type_of(uint32_t id)
{
    return id < TYPES && types[id].bytes ? &types[id] : NULL;
}

const char *gguf_type_name(uint32_t id)
{
    return id < TYPES && types[id].name ? types[id].name : "type";
}
