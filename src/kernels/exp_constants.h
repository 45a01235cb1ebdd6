/* exp_constants.h - exp(x) in f32, the same method on every level.
 *
 * n = round(x / ln 2), r = x - n ln 2 with ln 2 in two parts (n * EXP_LN2_HIGH is exact), then
 * exp(x) = 2^n (1 + r + r^2 P(r)); P is the minimax polynomial of degree 4 on |r| <= ln 2 / 2, relative error
 * of exp(r) 4e-9 before rounding. Adding EXP_ROUNDER = 1.5 * 2^23 rounds to an integer and leaves it in the
 * low bits of the sum, so 2^n is (bits << 23) + bits of 1.0f.
 */
#ifndef QWEN3_KERNELS_EXP_CONSTANTS_H
#define QWEN3_KERNELS_EXP_CONSTANTS_H

#define EXP_MIN -87.33654f /* below, exp(x) < FLT_MIN and becomes 0 */
#define EXP_MAX 88.0f      /* above, exp(x) is taken as exp(EXP_MAX) */
#define EXP_LOG2E 1.44269504f
#define EXP_ROUNDER 12582912.0f
#define EXP_LN2_HIGH 0.693359375f
#define EXP_LN2_LOW -2.12194440e-4f
#define EXP_P0 0.49999994f
#define EXP_P1 0.166665211f
#define EXP_P2 0.041668389f
#define EXP_P3 0.00836874545f
#define EXP_P4 0.00138145406f

#endif
