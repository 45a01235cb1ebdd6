/* kernels_neon.c - the level of every 64-bit Arm CPU: 6 x 16 tiles. */
#include "kernels/arm/vector_neon.h"

#include "kernels/vector_kernels.h"

void kernels_init_neon(kernels *k)
{
    vector_kernels_fill(k);
}
