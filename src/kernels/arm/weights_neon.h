/* weights_neon.h - Q8 and Q4 weights (blocks.h) as the signed bytes that SDOT and SMMLA multiply. */
#ifndef QWEN3_KERNELS_ARM_WEIGHTS_NEON_H
#define QWEN3_KERNELS_ARM_WEIGHTS_NEON_H

#include "kernels/arm/vector_neon.h"

#include "kernels/blocks.h"
#include "kernels/tile.h"

#define NR (VECS * LANES)

/* The weights for eight i of 2 vectors of outputs, from those at q on: fours[0] of i = 0, 4, 1, 5 and fours[1] of 2, 6,
 * 3, 7. */
TEMPLATE void load_weights(const qwen3_dtype storage, int8x16_t levels, const unsigned char *q, int8x16_t fours[2][2])
{
    if (storage == QWEN3_DTYPE_Q4) {
        UNROLL
        for (int v = 0; v < 2; v++) {
            const uint8x16_t codes = vld1q_u8(q + v * 4 * LANES);
            fours[0][v] = vqtbl1q_s8(levels, vandq_u8(codes, vdupq_n_u8(15)));
            fours[1][v] = vqtbl1q_s8(levels, vshrq_n_u8(codes, 4));
        }
        return;
    }
    UNROLL
    for (int e = 0; e < 2; e++) {
        const int8_t *pair = (const int8_t *)q + e * 2 * NR;
        const int8x16_t a = vld1q_s8(pair), b = vld1q_s8(pair + 2 * 2 * NR);
        fours[e][0] = vzip1q_s8(a, b);
        fours[e][1] = vzip2q_s8(a, b);
    }
}

#endif
