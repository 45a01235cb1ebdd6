/* kernels_avx512.c - the AVX-512 level: 6 x 64 tiles. */
#include "kernels/x86/vector_avx512.h"

#include "kernels/vector_kernels.h"

void kernels_avx512_silu_mul(size_t n, const float *gate, const float *up, void *y, qwen3_dtype y_type)
{
    silu_mul(n, gate, up, y, y_type);
}

void kernels_init_avx512(kernels *k)
{
    vector_kernels_fill(k);
}
