/* kernels_avx2.c - the AVX2 + FMA level: 6 x 16 tiles. */
#include "kernels/x86/vector_avx2.h"

#include "kernels/vector_kernels.h"

void kernels_init_avx2(kernels *k)
{
    vector_kernels_fill(k);
}
