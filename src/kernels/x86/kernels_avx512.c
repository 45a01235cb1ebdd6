/* kernels_avx512.c - the AVX-512 level: 6 x 64 tiles. */
#include "kernels/x86/vector_avx512.h"

#include "kernels/vector_kernels.h"

void kernels_init_avx512(kernels *k)
{
    const kernels below = *k;
    vector_kernels_fill(k);
    k->read_memory = below.read_memory; /* on Zen 4 narrower loads read a tenth more bytes per second */
}
