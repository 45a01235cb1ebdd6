/* kernels_avx512_bf16.c - stub of the first landing: inherits everything from the level below. */
#include "kernels/levels.h"

void kernels_init_avx512_bf16(kernels *k)
{
    (void)k;
}
