/* exp_constants.h - exp(x) in f32, the same method on every level.
 *
 * n = round(x / ln 2), r = x - n ln 2 with ln 2 in two parts (n * EXP_LN2_HIGH is exact), then
 * exp(x) = 2^n (1 + r + r^2 P(r)), by Horner's scheme. P is the minimax polynomial of degree 3 on |r| <= ln 2 / 2:
 * relative error of exp(r) 1.05e-7 before rounding, 1.8e-7 with that (and FMA); exp(0) is 1. Adding EXP_ROUNDER = 1.5 *
 * 2^23 rounds to an integer and leaves it in the low bits of the sum, so 2^n is (bits << 23) + bits of 1.0f.
 *
 * Above x = 88 the result is not defined, unless x is NaN or infinite: then it is NaN or INFINITY.
 */
#ifndef QWEN3_KERNELS_EXP_CONSTANTS_H
#define QWEN3_KERNELS_EXP_CONSTANTS_H

#define EXP_MIN -87.33654f /* below, exp(x) < FLT_MIN and becomes 0 */
#define EXP_NORMAL 87.33f  /* exp(x) is normal from its negative on, and 1 / (1 + exp(x)) up to it */
#define EXP_LOG2E 1.44269504f
#define EXP_ROUNDER 12582912.0f
#define EXP_LN2_HIGH 0.693359375f
#define EXP_LN2_LOW -2.12194440e-4f
#define EXP_P0 0.499992311f
#define EXP_P1 0.166671142f
#define EXP_P2 0.0418901257f
#define EXP_P3 0.00831252337f

#endif
