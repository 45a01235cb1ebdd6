/* blocks.h - quantised weights: blocks of 32 values along k of one output, with one scale.
 *
 *   value = scale * q        Q8: q = -127..127        Q4: q = q4_values[0..15]
 *
 * The scale is BF16, so that scale * q is exact in f32. A packed group (kernels.h) is one block of each of the nr
 * outputs of a panel: first the nr scales, then the q
 *   Q8: by pairs of i: nr outputs x 2 signed bytes, i even first
 *   Q4: by eights of i: nr outputs x one little-endian 32-bit word; its low half holds the codes of i = 0, 2, 4, 6,
 *       its high half those of i = 1, 3, 5, 7, the lowest bits first
 * so that one vector load gives values of many outputs, and for Q4 the low and the high halves of its bytes are the
 * codes of i = 0, 4, 1, 5 and 2, 6, 3, 7.
 */
#ifndef QWEN3_KERNELS_BLOCKS_H
#define QWEN3_KERNELS_BLOCKS_H

#include "kernels/kernels.h"

#define BLOCK 32
#define Q8_BLOCK_BYTES (2 + BLOCK)
#define Q4_BLOCK_BYTES (2 + BLOCK / 2)

/* The q of the 16 codes: the levels that minimise the squared error of normally distributed values in blocks of 32
 * whose scale is searched as in quantise.c (Lloyd 1982), with 0 among them. Exact in BF16. */
extern const int8_t q4_values[16];

/* Offset of the q of i for output 0; output j is 2 (Q8) or 4 (Q4) bytes * j further. */
static inline size_t q8_offset(size_t nr, size_t i)
{
    return nr * (sizeof(bf16) + i / 2 * 2) + i % 2;
}

static inline size_t q4_offset(size_t nr, size_t i)
{
    return nr * (sizeof(bf16) + i / 8 * 4);
}

static inline unsigned q4_shift(size_t i)
{
    return (unsigned)(i % 8 / 2 * 4 + i % 2 * 16);
}

#define Q4_ZERO 8 /* the code of 0 */

/* What the largest magnitude is mapped to in the candidates, in units of the levels. */
extern const float q4_targets[4];

/* A block of nothing but smaller values becomes 0: its scale must have a finite inverse. */
#define LEAST_MAGNITUDE 0x1p-100f

/* kernels.quantise in plain C: the specification. */
bool q8_quantise(const float *x, bf16 *scale, int8_t *q);
bool q4_quantise(const float *x, bf16 *scale, int8_t *codes);

/* ---- Activations of 8 bits ---------------------------------------------------------------------
 *
 * value = scale * q, q = -127..127. A block is
 *   f32 scale; int32 -128 * sum of all q; 32 signed bytes, the q of each eight i in the order 0, 4, 1, 5, 2, 6, 3, 7
 * x86/kernels_avx512_vnni.c and arm/kernels_neon_dot.c say why. */

/* Offset of the q of i in its block. */
static inline size_t activation_offset(size_t i)
{
    return sizeof(float) + sizeof(int32_t) + i / 8 * 8 + i % 4 * 2 + i / 4 % 2;
}

typedef int8_t activation_bytes32 __attribute__((vector_size(BLOCK)));

/* Puts the q of i = 0, 1, ... into the order of a block. */
static inline void activation_order(int8_t values[BLOCK])
{
#define ORDER                                                                                                          \
    0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15, 16, 20, 17, 21, 18, 22, 19, 23, 24, 28, 25, 29, 26, 30, 27, 31
    activation_bytes32 q;
    memcpy(&q, values, sizeof q);
#ifdef __clang__
    q = __builtin_shufflevector(q, q, ORDER);
#else /* gcc has that one from 12 on only */
    q = __builtin_shuffle(q, (activation_bytes32){ORDER});
#endif
    memcpy(values, &q, sizeof q);
#undef ORDER
}

/* Stores 32 values as a block, to the nearest q. Where one is not finite, neither is the scale. */
static inline void activation_store_block(const float *x, void *block)
{
    uint32_t bits[BLOCK], largest_bits = 0;
    memcpy(bits, x, sizeof bits);
    for (size_t i = 0; i < BLOCK; i++)
        largest_bits = (bits[i] & 0x7fffffffu) > largest_bits ? bits[i] & 0x7fffffffu : largest_bits;
    float largest, scaled[BLOCK];
    memcpy(&largest, &largest_bits, sizeof largest);
    const bool zero = largest < 0x1p-100f; /* the inverse of a scale must be finite */
    const float scale = zero ? 0.0f : largest / 127.0f, inverse = zero ? 0.0f : 127.0f / largest;
    for (size_t i = 0; i < BLOCK; i++)
        scaled[i] = x[i] * inverse + 12582912.0f; /* 1.5 * 2^23 leaves the integer in the low bits */
    memcpy(bits, scaled, sizeof bits);
    int8_t values[BLOCK];
    int32_t sum = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        values[i] = (int8_t)(uint8_t)bits[i];
        sum += values[i];
    }
    activation_order(values);
    const int32_t start = -128 * sum;
    unsigned char *to = block;
    memcpy(to, &scale, sizeof scale);
    memcpy(to + sizeof scale, &start, sizeof start);
    memcpy(to + sizeof scale + sizeof start, values, sizeof values);
}

/* The first n values of the blocks at x, n up to their end. */
static inline void activation_widen(const void *x, size_t n, float *values)
{
    const unsigned char *block = x;
    for (size_t i = 0; i < n; i += BLOCK, block += ACTIVATION_BLOCK_BYTES) {
        float scale, wide[BLOCK];
        memcpy(&scale, block, sizeof scale);
        for (size_t b = 0; b < BLOCK; b++)
            wide[b] = scale * (float)(int8_t)block[activation_offset(b)];
        memcpy(values + i, wide, (n - i < BLOCK ? n - i : BLOCK) * sizeof *wide);
    }
}

/* gemm_pack_panel for Q8 and Q4. */
bool blocks_pack_panel(const gemm_kernel *g, const matrix_rows *rows, void *panel);

#endif
