/* kernels.c - dispatch: one table per instruction-set level, each built on the level below, once. */
#include "kernels/kernels.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/status.h"
#include "kernels/levels.h"

#define LEVELS (QWEN3_ISA_AVX512_BF16 + 1)

static const char *const isa_names[LEVELS] = {"auto", "c", "avx2", "avx512", "avx512_bf16"};

static kernels tables[LEVELS];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

const char *qwen3_isa_name(qwen3_isa isa)
{
    return (size_t)isa < LEVELS ? isa_names[isa] : "unknown";
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        int c = *a == '-' ? '_' : tolower((unsigned char)*a);
        if (c != *b)
            return false;
    }
    return *a == *b;
}

bool qwen3_isa_parse(const char *name, qwen3_isa *value)
{
    for (int i = 0; name && i < LEVELS; i++) {
        if (same_name(name, isa_names[i])) {
            *value = (qwen3_isa)i;
            return true;
        }
    }
    return false;
}

/* The compiler's run-time library asks CPUID for the instructions and XGETBV for whether the operating
 * system saves the registers. */
qwen3_isa qwen3_isa_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return QWEN3_ISA_C;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return QWEN3_ISA_AVX2;
    return __builtin_cpu_supports("avx512bf16") ? QWEN3_ISA_AVX512_BF16 : QWEN3_ISA_AVX512;
#else
    return QWEN3_ISA_C;
#endif
}

static void build_tables(void)
{
    static void (*const init[LEVELS])(kernels *) = {
        [QWEN3_ISA_C] = kernels_init_c,
#if defined(__x86_64__)
        [QWEN3_ISA_AVX2] = kernels_init_avx2,
        [QWEN3_ISA_AVX512] = kernels_init_avx512,
        [QWEN3_ISA_AVX512_BF16] = kernels_init_avx512_bf16,
#endif
    };
    for (qwen3_isa isa = QWEN3_ISA_C; isa <= qwen3_isa_best(); isa++) {
        tables[isa] = tables[isa - 1];
        tables[isa].isa = isa;
        tables[isa].name = isa_names[isa];
        init[isa](&tables[isa]);
    }
}

/* AUTO and levels above the best in the environment leave the best. */
static bool isa_from_environment(qwen3_isa best, qwen3_isa *isa)
{
    const char *name = getenv("QWEN3_ISA");
    *isa = QWEN3_ISA_AUTO;
    if (name && *name && !qwen3_isa_parse(name, isa))
        return false;
    if (*isa == QWEN3_ISA_AUTO || *isa > best)
        *isa = best;
    return true;
}

const kernels *kernels_get(qwen3_isa isa)
{
    qwen3_isa best = qwen3_isa_best();
    if (isa == QWEN3_ISA_AUTO && !isa_from_environment(best, &isa))
        return NULL;
    if (isa < QWEN3_ISA_C || isa > best)
        return NULL;
    pthread_once(&tables_once, build_tables);
    return &tables[isa];
}

qwen3_status kernels_choose(qwen3_isa isa, const kernels **k, qwen3_error *err)
{
    *k = kernels_get(isa);
    if (*k)
        return QWEN3_OK;
    if (isa == QWEN3_ISA_AUTO)
        return fail(err, QWEN3_ERR_ARGUMENT, "environment variable QWEN3_ISA: got \"%s\", expected %s",
                    getenv("QWEN3_ISA"), "auto, c, avx2, avx512 or avx512_bf16");
    return fail(err, QWEN3_ERR_UNSUPPORTED, "instruction set: got %s, expected at most %s, the best of this CPU",
                qwen3_isa_name(isa), qwen3_isa_name(qwen3_isa_best()));
}
