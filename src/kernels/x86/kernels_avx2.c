/* kernels_avx2.c - the AVX2 + FMA level: 6 x 16 tiles; and quantising, for the levels above too. */
#include "kernels/x86/vector_avx2.h"

#include "kernels/vector_kernels.h"
#include "kernels/x86/quantise_avx2.h"

void kernels_init_avx2(kernels *k)
{
    vector_kernels_fill(k);
    k->quantise[QWEN3_DTYPE_Q8] = quantise_q8;
    k->quantise[QWEN3_DTYPE_Q4] = quantise_q4;
}
