/* half.h - 16-bit floating-point numbers of IEEE 754. */
#ifndef QWEN3_BASE_HALF_H
#define QWEN3_BASE_HALF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* binary16 to binary32, exactly; integer arithmetic, so that it does not depend on whether the thread flushes
 * denormals. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    uint32_t bits = (magnitude << 13) + (UINT32_C(112) << 23); /* exponent bias 15 to 127 */
    if (magnitude >= 0x7c00)
        bits += UINT32_C(112) << 23; /* infinity and NaN */
    float small = (float)(int32_t)magnitude * 0x1p-24f, result;
    if (magnitude < 0x0400)
        memcpy(&bits, &small, sizeof bits); /* zero and denormals */
    bits |= sign;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* The binary16 number that is x; false where there is none. NaN becomes infinity. */
static inline bool f16_of_f32(float x, uint16_t *half)
{
    uint32_t bits, back;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) {
        *half = (uint16_t)(sign | 0x7c00);
        return true;
    }
    float size;
    memcpy(&size, &magnitude, sizeof size);
    if (size >= 0x1p16f)
        return false;
    const uint32_t small = (uint32_t)(size * 0x1p24f); /* of denormals */
    *half = (uint16_t)(sign | (size < 0x1p-14f ? small : (magnitude >> 13) - (UINT32_C(112) << 10)));
    const float same = f16_to_f32(*half);
    memcpy(&back, &same, sizeof back);
    return back == bits;
}

#endif
