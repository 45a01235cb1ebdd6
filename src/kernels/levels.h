/* levels.h - how the files of the instruction-set levels register with the dispatch table (kernels.c).
 *
 * Each function overrides entries of a table that already holds the level below; isa and name are set by
 * the caller. */
#ifndef QWEN3_KERNELS_LEVELS_H
#define QWEN3_KERNELS_LEVELS_H

#include "kernels/kernels.h"

/* Inlined with constant arguments, so that one source serves every type and number of rows. */
#define TEMPLATE static inline __attribute__((always_inline))

/* 1 / sqrt(mean + eps) of n squares. Where these overflow it is NaN and not 0, which would make a row of zeros. */
TEMPLATE float inverse_rms(float squares, size_t n, float eps)
{
    return squares == INFINITY ? NAN : 1.0f / sqrtf(squares / (float)n + eps);
}

void kernels_init_c(kernels *k);
#if defined(__x86_64__)
void kernels_init_avx2(kernels *k);
void kernels_init_avx512(kernels *k);
void kernels_init_avx512_vnni(kernels *k);
/* The part of it for stored types (stored_avx512_vnni.c). */
void kernels_stored_vnni(kernels *k);
/* kernels.silu_mul, for the types that BF16 instructions do not help with. */
void kernels_avx512_silu_mul(size_t n, const float *gate, const float *up, void *y, qwen3_dtype y_type);
void kernels_init_avx512_bf16(kernels *k);
void kernels_init_amx(kernels *k);
/* The part of kernels_init_amx that needs vectors (kernels_amx_int8.c), and what few rows are left to
 * (kernels_amx_few.c, kernels_avx512_vnni.c). */
void kernels_amx_int8(kernels *k);
extern const gemm_kernel kernels_amx_few_bf16, kernels_vnni_q8, kernels_vnni_q4;
#elif defined(__aarch64__)
void kernels_init_neon(kernels *k);
void kernels_init_neon_dot(kernels *k);
void kernels_init_neon_bf16(kernels *k);
void kernels_init_neon_i8mm(kernels *k);
#endif

#endif
