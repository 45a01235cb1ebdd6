/* processor.h - what depends on the family of the processor and cannot be read from its feature bits: one table.
 *
 * `bench_kernels levels` measures a processor and prints the line that it proposes. */
#ifndef QWEN3_KERNELS_PROCESSOR_H
#define QWEN3_KERNELS_PROCESSOR_H

#include <stdbool.h>
#include <stddef.h>

/* How products of few rows, which are bound by reading weights, prefetch these. No value depends on it. */
typedef struct prefetch_policy {
    /* F32 and BF16 weights that a tile reads once and in order are prefetched too. Where this is false, the hardware
     * follows such reads as fast as memory is. Quantised weights and bytes are always prefetched: taking them apart
     * keeps the core from looking far ahead. */
    bool elements;
    /* The cache, 1 or 2, that the next piece of a panel is brought into while tiles pass over one. */
    int piece_level;
} prefetch_policy;

/* Up to how many rows the AMX level leaves products to vectors, whose bits are the same: a tile of few rows waits for
 * weights that vectors read ahead. */
typedef struct amx_policy {
    size_t bf16_rows, block_rows; /* of BF16 weights (keys and values too), of Q8 and Q4 */
} amx_policy;

typedef struct processor_family {
    const char *name;
    const char *vendor; /* of CPUID */
    unsigned first;     /* CPUID families from this one on */
    prefetch_policy prefetch;
    /* VDPBF16PS multiplies faster than f32 multiply-adds. Elsewhere the level of AVX512_BF16 is passed over. */
    bool fast_bf16;
    amx_policy amx;
} processor_family;

/* The line of the table for a vendor and a family of CPUID; an unknown processor has one too. Never NULL. */
const processor_family *processor_family_of(const char *vendor, unsigned family);

/* What CPUID says of this processor: vendor[13] ends in 0. Other architectures: "" and 0. */
void processor_identify(char vendor[13], unsigned *family);

#endif
