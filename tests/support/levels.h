/* levels.h - the levels that tests of kernels go through: those of this CPU, and AMX emulated. */
#ifndef TESTS_LEVELS_H
#define TESTS_LEVELS_H

#include "kernels/kernels.h"

#if defined(__x86_64__)
#include "support/amx_emulation.h"
#define TEST_LEVELS (ISA_COUNT + 1)
#else
#define TEST_LEVELS ISA_COUNT
#endif

/* NULL where there is none of this number. */
static inline const kernels *test_level(int number)
{
#if defined(__x86_64__)
    if (number == ISA_COUNT)
        return amx_emulated();
#endif
    return kernels_get((qwen3_isa)number);
}

/* Whether a kernel left the calling thread in a state that must not outlast it. */
static inline bool test_level_holds_tiles(void)
{
#if defined(__x86_64__)
    return amx_in_use();
#else
    return false;
#endif
}

#define FOR_EACH_LEVEL(k)                                                                                              \
    for (int level_ = QWEN3_ISA_C; level_ < TEST_LEVELS; level_++)                                                     \
        for (const kernels *k = test_level(level_); k; k = NULL)

#endif
