/* blocks.h - quantised weights: blocks of 32 values along k of one output, with one scale.
 *
 *   value = scale * q        Q8: q = -127..127        Q4: q = q4_values[0..15]
 *
 * The scale is BF16, so that scale * q is exact in f32. A packed group (kernels.h) is one block of each of the nr
 * outputs of a panel: first the nr scales, then the q
 *   Q8: by pairs of i: nr outputs x 2 signed bytes, i even first
 *   Q4: by eights of i: nr outputs x one little-endian 32-bit word; its low half holds the codes of i = 0, 2, 4, 6,
 *       its high half those of i = 1, 3, 5, 7, the lowest bits first
 * so that one vector load gives values of many outputs, and for Q4 shifts of 16-bit elements leave the codes of a
 * pair (i, i + 1) in the halves of a 32-bit element.
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

/* Where the q of i stand for output 0; output j is 2 (Q8) or 4 (Q4) bytes * j further. */
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

/* gemm_pack_panel for Q8 and Q4. */
bool blocks_pack_panel(const gemm_kernel *g, size_t n, size_t k, size_t panel, const void *src, qwen3_dtype src_type,
                       size_t src_stride, void *dst_panel);

#endif
