/* amx_emulation.h - what tests compile the AMX kernels with instead of kernels/x86/amx.h: the same instructions on
 * tiles in memory, with the results and the faults that Intel's manual (volume 2, TDPBF16PS, TDPBSSD and others)
 * specifies. A fault ends the program. Each thread has its tiles.
 */
#ifndef QWEN3_KERNELS_X86_AMX_H /* so that the kernels do not see the real one */
#define QWEN3_KERNELS_X86_AMX_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

#define AMX_ROWS 16
#define AMX_BYTES 64

typedef struct amx_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} amx_config;

_Static_assert(sizeof(amx_config) == 64, "as the instruction reads it");

void amx_configure(const amx_config *config);
void amx_release(void);
void amx_zero(int tile);
void amx_load(int tile, const void *from, size_t stride);
void amx_store(int tile, void *to, size_t stride);
void amx_add_products_bf16(int sums, int rows, int columns);
void amx_add_products_int8(int sums, int rows, int columns);

/* The AMX level over emulated tiles, built on what the CPU has of the levels below it; NULL where that lacks the FMA
 * that the emulation needs. Where it lacks VNNI, with which the real level goes together, only BF16 storage is that of
 * the level. */
const kernels *amx_emulated(void);
/* Whether the calling thread's tiles are configured. */
bool amx_in_use(void);

#endif
