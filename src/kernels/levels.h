/* levels.h - how the files of the instruction-set levels register with the dispatch table (kernels.c).
 *
 * Each function overrides entries of a table that already holds the level below; isa and name are set by
 * the caller. */
#ifndef QWEN3_KERNELS_LEVELS_H
#define QWEN3_KERNELS_LEVELS_H

#include "kernels/kernels.h"

/* Inlined with constant arguments, so that one source serves every type and number of rows. */
#define TEMPLATE static inline __attribute__((always_inline))

void kernels_init_c(kernels *k);
#if defined(__x86_64__)
void kernels_init_avx2(kernels *k);
void kernels_init_avx512(kernels *k);
void kernels_init_avx512_vnni(kernels *k);
void kernels_init_avx512_bf16(kernels *k);
void kernels_init_amx(kernels *k);
/* Q8 and Q4 with BF16 activations, expanded to gemm[BF16] of the table (kernels_avx512_bf16.c); for levels whose BF16
 * products outrun those of bytes. */
void kernels_bf16_blocks(kernels *k);
#elif defined(__aarch64__)
void kernels_init_neon(kernels *k);
void kernels_init_neon_dot(kernels *k);
void kernels_init_neon_bf16(kernels *k);
#endif

#endif
