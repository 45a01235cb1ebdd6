/* processor.c - the table of processor families (docs/notebook/2026-11-27-prefetch.md has the measurements). */
#include "kernels/processor.h"

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* In all lines: measured on an Intel core with 2 MiB of second-level cache (docs/notebook/2026-11-27-amx.md). AMD has
 * no AMX so far. */
#define AMX_MEASURED .amx = {.bf16_rows = 2, .block_rows = 4}

/* Model numbers are left out: virtual machines change them, and the families measured do not differ within. */
static const processor_family families[] = {
    /* Measured on Emerald Rapids and on a later core with AMX. */
    {"Intel", "GenuineIntel", 6, {.elements = true, .piece_level = 2}, .fast_bf16 = false, AMX_MEASURED},
    /* Measured on Zen 4 and Zen 5, the only ones so far that have AVX512_BF16. */
    {"AMD Zen", "AuthenticAMD", 0x17, {.elements = false, .piece_level = 1}, .fast_bf16 = true, AMX_MEASURED},
};

/* Prefetches what no hardware is known to follow, and keeps to f32, which is more exact, where it is not known that
 * VDPBF16PS is faster. */
static const processor_family unknown = {
    .name = "unknown",
    .vendor = "",
    .prefetch = {.elements = false, .piece_level = 1},
    .fast_bf16 = false,
    AMX_MEASURED,
};

const processor_family *processor_family_of(const char *vendor, unsigned family)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].vendor, vendor) == 0 && family >= families[i].first)
            return &families[i];
    return &unknown;
}

void processor_identify(char vendor[13], unsigned *family)
{
    memset(vendor, 0, 13);
    *family = 0;
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(0, &eax, &ebx, &ecx, &edx))
        return;
    memcpy(vendor, &ebx, sizeof ebx);
    memcpy(vendor + 4, &edx, sizeof edx);
    memcpy(vendor + 8, &ecx, sizeof ecx);
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    const unsigned base = eax >> 8 & 15;
    *family = base == 15 ? base + (eax >> 20 & 255) : base; /* the extended family adds to 15 alone */
#endif
}
