/* amx.h - the AMX instructions that kernels are written in, on tile registers named by a literal 0..7.
 *
 * A tile has up to 16 rows of up to 64 bytes, as configured. Loads and stores touch exactly those, `stride` bytes from
 * row to row. Written as assembly because the intrinsics of GCC 12 do not tell the compiler which memory they read and
 * write; tests replace this header by an emulation (tests/support/amx_emulation.h).
 */
#ifndef QWEN3_KERNELS_X86_AMX_H
#define QWEN3_KERNELS_X86_AMX_H

#include <stddef.h>
#include <stdint.h>

#define AMX_ROWS 16
#define AMX_BYTES 64

/* What LDTILECFG reads. */
typedef struct amx_config {
    uint8_t palette, start_row; /* 1 and 0 */
    uint8_t reserved[14];
    uint16_t bytes[16]; /* of a row of each tile; there are 8 tiles */
    uint8_t rows[16];
} amx_config;

_Static_assert(sizeof(amx_config) == 64, "as the instruction reads it");

/* Configures all tiles and zeroes them. */
#define amx_configure(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(config)))
/* Back to the state in which the operating system has nothing to save. */
#define amx_release() __asm__ volatile("tilerelease")
#define amx_zero(tile) __asm__ volatile("tilezero %%tmm" #tile:)
#define amx_load(tile, from, stride)                                                                                   \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"((ptrdiff_t)(stride)) : "memory")
#define amx_store(tile, to, stride)                                                                                    \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"((ptrdiff_t)(stride)) : "memory")
/* sums[m, n] += rows[m, k] x columns[k, n] of pairs of BF16: TDPBF16PS. */
#define amx_add_products_bf16(sums, rows, columns)                                                                     \
    __asm__ volatile("tdpbf16ps %%tmm" #columns ", %%tmm" #rows ", %%tmm" #sums:)
/* The same of fours of signed bytes, with sums of 32 bits: TDPBSSD. */
#define amx_add_products_int8(sums, rows, columns)                                                                     \
    __asm__ volatile("tdpbssd %%tmm" #columns ", %%tmm" #rows ", %%tmm" #sums:)

#endif
