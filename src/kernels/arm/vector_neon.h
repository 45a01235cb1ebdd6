/* vector_neon.h - the operations that vector_kernels.h is written in, on 4 floats. See x86/vector_avx2.h. */
#ifndef QWEN3_KERNELS_ARM_VECTOR_NEON_H
#define QWEN3_KERNELS_ARM_VECTOR_NEON_H

#include <arm_neon.h>

#include "kernels/levels.h"

typedef float32x4_t vec;
#define LANES 4
/* Vectors in a panel row: MR * VECS sums + VECS weights + 1 input fit the 32 registers. */
#define VECS 4

TEMPLATE vec vec_set1(float x)
{
    return vdupq_n_f32(x);
}

TEMPLATE vec vec_load(const float *p)
{
    return vld1q_f32(p);
}

TEMPLATE void vec_store(float *p, vec v)
{
    vst1q_f32(p, v);
}

TEMPLATE vec vec_load_part(const float *p, size_t n, vec fill)
{
    if (n == LANES)
        return vld1q_f32(p);
    float part[LANES];
    vst1q_f32(part, fill);
    memcpy(part, p, n * sizeof *p);
    return vld1q_f32(part);
}

TEMPLATE void vec_store_part(float *p, vec v, size_t n)
{
    if (n == LANES) {
        vst1q_f32(p, v);
    } else {
        float part[LANES];
        vst1q_f32(part, v);
        memcpy(p, part, n * sizeof *p);
    }
}

TEMPLATE vec vec_load_part_bf16(const bf16 *p, size_t n)
{
    bf16 part[LANES] = {0};
    if (n < LANES) {
        memcpy(part, p, n * sizeof *p);
        p = part;
    }
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16));
}

TEMPLATE void vec_store_part_bf16(bf16 *p, vec v, size_t n)
{
    const uint32x4_t u = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(u, vdupq_n_u32(0x400000));
    const uint16x4_t packed = vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet), 16);
    if (n == LANES) {
        vst1_u16(p, packed);
    } else {
        bf16 part[LANES];
        vst1_u16(part, packed);
        memcpy(p, part, n * sizeof *p);
    }
}

TEMPLATE vec vec_pairs(const bf16 *p, int odd)
{
    const uint32x4_t u = vreinterpretq_u32_u16(vld1q_u16(p));
    return vreinterpretq_f32_u32(odd ? vandq_u32(u, vdupq_n_u32(0xffff0000u)) : vshlq_n_u32(u, 16));
}

TEMPLATE void vec_store_pairs(bf16 *p, vec even, vec odd)
{
    const uint32x4_t low = vshrq_n_u32(vreinterpretq_u32_f32(even), 16);
    vst1q_u16(p, vreinterpretq_u16_u32(vorrq_u32(low, vreinterpretq_u32_f32(odd))));
}

TEMPLATE vec vec_byte_pairs(const void *p, int odd)
{
    const int32x4_t u = vmovl_s16(vreinterpret_s16_s8(vld1_s8(p)));
    return vcvtq_f32_s32(odd ? vshrq_n_s32(u, 8) : vshrq_n_s32(vshlq_n_s32(u, 24), 24));
}

TEMPLATE vec vec_halves(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

TEMPLATE vec vec_bytes(const void *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
}

TEMPLATE vec vec_bits(const void *p, int shift, int mask)
{
    const uint32x4_t u = vreinterpretq_u32_u8(vld1q_u8(p));
    return vcvtq_f32_s32(
        vreinterpretq_s32_u32(vandq_u32(vshlq_u32(u, vdupq_n_s32(-shift)), vdupq_n_u32((uint32_t)mask))));
}

typedef int8x16_t vec_levels;

TEMPLATE vec_levels vec_levels_load(const int8_t *table)
{
    return vld1q_s8(table);
}

/* In the highest byte of each element, so that one shift extends the sign; lower bytes look up something too. */
TEMPLATE vec vec_look_up(vec_levels t, const void *p, int shift)
{
    const uint32x4_t u = vreinterpretq_u32_u8(vld1q_u8(p));
    const uint32x4_t index = vandq_u32(vshlq_u32(u, vdupq_n_s32(24 - shift)), vdupq_n_u32(0x0f000000));
    const int8x16_t entries = vqtbl1q_s8(t, vreinterpretq_u8_u32(index));
    return vcvtq_f32_s32(vshrq_n_s32(vreinterpretq_s32_s8(entries), 24));
}

TEMPLATE vec vec_add(vec a, vec b)
{
    return vaddq_f32(a, b);
}

TEMPLATE vec vec_sub(vec a, vec b)
{
    return vsubq_f32(a, b);
}

TEMPLATE vec vec_mul(vec a, vec b)
{
    return vmulq_f32(a, b);
}

TEMPLATE vec vec_inverse(vec a)
{
    return vdivq_f32(vdupq_n_f32(1.0f), a);
}

TEMPLATE vec vec_fma(vec a, vec b, vec c)
{
    return vfmaq_f32(c, a, b);
}

TEMPLATE vec vec_fnma(vec a, vec b, vec c)
{
    return vfmsq_f32(c, a, b);
}

/* NaN where either is. */
TEMPLATE vec vec_max(vec a, vec b)
{
    return vmaxq_f32(a, b);
}

TEMPLATE vec vec_limit(vec a, vec limit)
{
    return vminq_f32(vmaxq_f32(a, vnegq_f32(limit)), limit);
}

TEMPLATE vec vec_zero_below(vec x, vec limit, vec v)
{
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltq_f32(x, limit)));
}

TEMPLATE vec vec_scale(vec v, vec n, vec rounded)
{
    (void)n;
    const uint32x4_t shifted = vshlq_n_u32(vreinterpretq_u32_f32(rounded), 23);
    return vmulq_f32(v, vreinterpretq_f32_u32(vaddq_u32(shifted, vdupq_n_u32(0x3f800000))));
}

TEMPLATE float vec_sum(vec v)
{
    return vaddvq_f32(v);
}

TEMPLATE float vec_largest(vec v)
{
    return vmaxvq_f32(v);
}

TEMPLATE vec vec_xor(vec a, vec b)
{
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}

TEMPLATE vec vec_opaque(vec v)
{
    __asm__ volatile("" : "+w"(v));
    return v;
}

#endif
