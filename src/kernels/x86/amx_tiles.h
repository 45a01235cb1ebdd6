/* amx_tiles.h - how the kernels divide the tile registers: 0..3 hold sums, 4 rows of x, 5..7 weights. */
#ifndef QWEN3_KERNELS_X86_AMX_TILES_H
#define QWEN3_KERNELS_X86_AMX_TILES_H

#include "kernels/levels.h"
#include "kernels/x86/amx.h"

/* For `rows` rows of x with x_bytes bytes each; a row of weights has four bytes of every output. */
static inline void configure_tiles(size_t rows, size_t x_bytes)
{
    amx_config config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.rows[t] = (uint8_t)(t < 5 ? rows : x_bytes / 4);
        config.bytes[t] = (uint16_t)(t == 4 ? x_bytes : AMX_BYTES);
    }
    amx_configure(&config);
}

/* multiply_add (kernels.h) of an instruction with values of value_bytes, of which a row of x is full. Zeros: the time
 * does not depend on the values. */
#define DEFINE_MULTIPLY_ADD(add_products, value_bytes)                                                                 \
    static uint64_t multiply_add(size_t n)                                                                             \
    {                                                                                                                  \
        const uint64_t operations = 4 * 2 * AMX_ROWS * 16 * (AMX_BYTES / (value_bytes)); /* of four instructions */    \
        const size_t steps = n * ((1 << 20) / operations);                                                             \
        configure_tiles(AMX_ROWS, AMX_BYTES);                                                                          \
        for (size_t i = 0; i < steps; i++) {                                                                           \
            add_products(0, 4, 5);                                                                                     \
            add_products(1, 4, 6);                                                                                     \
            add_products(2, 4, 7);                                                                                     \
            add_products(3, 4, 5);                                                                                     \
        }                                                                                                              \
        amx_release();                                                                                                 \
        return steps * operations;                                                                                     \
    }

#endif
