/* kernels_neon_bf16.c - BF16 x BF16 products with f32 sums (BFDOT, Armv8.6), 6 x 16 tiles.
 *
 * The instruction adds two products per lane and their sum to the accumulator, rounds both sums to odd, treats
 * denormal inputs as 0 and flushes denormal sums. (Arm Architecture Reference Manual, FPAdd_BF16)
 */
#include "kernels/arm/vector_neon.h"

typedef bfloat16x8_t pairs;

TEMPLATE pairs pairs_load(const bf16 *p)
{
    return vreinterpretq_bf16_u16(vld1q_u16(p));
}

/* The upper halves of f32 are BF16, and whole: bytes have no more than 7 bits after the first. */
TEMPLATE pairs pairs_of_bytes(const void *p)
{
    const int16x8_t q = vmovl_s8(vld1_s8(p));
    const float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), high = vcvtq_f32_s32(vmovl_high_s16(q));
    return vreinterpretq_bf16_u16(vuzp2q_u16(vreinterpretq_u16_f32(low), vreinterpretq_u16_f32(high)));
}

TEMPLATE pairs pairs_set1(uint32_t pair)
{
    return vreinterpretq_bf16_u32(vdupq_n_u32(pair));
}

TEMPLATE vec vec_add_products(vec c, pairs a, pairs b)
{
    return vbfdotq_f32(c, a, b);
}

#include "kernels/vector_bf16_kernels.h"

/* Quantised weights stay with the level of SDOT: that multiplies 16 pairs in an instruction, and the 32 products of a
 * block of 4 outputs take 8 of them and 3 that scale the sum. BFDOT multiplies 8 pairs, which makes 16, and weights
 * would have to be widened before. */
void kernels_init_neon_bf16(kernels *k)
{
    vector_bf16_kernels_fill(k);
}
