/* kernels.c - dispatch: one table per instruction-set level, each built on the level below, once. */
#include "kernels/kernels.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "base/status.h"
#include "kernels/levels.h"

static const char *const isa_names[ISA_COUNT] = {
    [QWEN3_ISA_AUTO] = "auto",
    [QWEN3_ISA_C] = "c",
    [QWEN3_ISA_AVX2] = "avx2",
    [QWEN3_ISA_AVX512] = "avx512",
    [QWEN3_ISA_AVX512_VNNI] = "avx512_vnni",
    [QWEN3_ISA_AVX512_BF16] = "avx512_bf16",
    [QWEN3_ISA_AMX] = "amx",
    [QWEN3_ISA_NEON] = "neon",
    [QWEN3_ISA_NEON_DOT] = "neon_dot",
    [QWEN3_ISA_NEON_BF16] = "neon_bf16",
    [QWEN3_ISA_NEON_I8MM] = "neon_i8mm",
};

/* The level that each is built on: smaller than itself, so that all chains end at plain C. */
static const qwen3_isa below[ISA_COUNT] = {
    [QWEN3_ISA_AVX2] = QWEN3_ISA_C,
    [QWEN3_ISA_AVX512] = QWEN3_ISA_AVX2,
    [QWEN3_ISA_AVX512_VNNI] = QWEN3_ISA_AVX512,
    [QWEN3_ISA_AVX512_BF16] = QWEN3_ISA_AVX512_VNNI,
    [QWEN3_ISA_AMX] = QWEN3_ISA_AVX512_BF16,
    [QWEN3_ISA_NEON] = QWEN3_ISA_C,
    [QWEN3_ISA_NEON_DOT] = QWEN3_ISA_NEON,
    [QWEN3_ISA_NEON_BF16] = QWEN3_ISA_NEON_DOT,
    [QWEN3_ISA_NEON_I8MM] = QWEN3_ISA_NEON_BF16,
};

/* Those that this CPU has are filled; the others stay without a name. */
static kernels tables[ISA_COUNT];
static qwen3_isa best;
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

const char *qwen3_isa_name(qwen3_isa isa)
{
    return (size_t)isa < ISA_COUNT ? isa_names[isa] : "unknown";
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
    for (int i = 0; name && value && i < ISA_COUNT; i++) {
        if (same_name(name, isa_names[i])) {
            *value = (qwen3_isa)i;
            return true;
        }
    }
    return false;
}

#if defined(__x86_64__)
static bool amx_allowed;

/* A process requests the tile registers from Linux before any thread uses them. The answer is no from kernels that do
 * not know them, and where a thread has a stack for signals (sigaltstack) that is too small to save them on. */
static void request_amx(void)
{
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 }; /* in EDX of CPUID leaf 7 */
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };      /* since Linux 5.16 */
    const unsigned needed = AMX_BF16 | AMX_TILE | AMX_INT8;
    unsigned eax, ebx, ecx, edx;
    amx_allowed = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & needed) == needed &&
                  syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static bool amx_ready(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, request_amx);
    return amx_allowed;
}
#endif

/* Whether this CPU has the instructions that a level adds to those of the level below. */
static bool cpu_has(qwen3_isa isa)
{
    switch (isa) {
#if defined(__x86_64__)
    /* The compiler's run-time library reads the instructions from CPUID, and from XGETBV whether the operating
     * system saves the registers. */
    case QWEN3_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case QWEN3_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case QWEN3_ISA_AVX512_VNNI:
        return __builtin_cpu_supports("avx512vnni");
    case QWEN3_ISA_AVX512_BF16:
        return __builtin_cpu_supports("avx512bf16");
    case QWEN3_ISA_AMX:
        return amx_ready();
#elif defined(__aarch64__)
    case QWEN3_ISA_NEON:
        return true; /* the calling convention needs it */
    case QWEN3_ISA_NEON_DOT:
        return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    case QWEN3_ISA_NEON_BF16:
        return getauxval(AT_HWCAP2) & HWCAP2_BF16;
    case QWEN3_ISA_NEON_I8MM:
        return getauxval(AT_HWCAP2) & HWCAP2_I8MM;
#endif
    default:
        return false;
    }
}

qwen3_isa kernels_highest(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    qwen3_isa highest = QWEN3_ISA_C;
    for (qwen3_isa isa = highest + 1; isa < ISA_COUNT; isa++)
        if (below[isa] == highest && cpu_has(isa))
            highest = isa;
    return highest;
}

qwen3_isa kernels_common(qwen3_isa a, qwen3_isa b)
{
    while (a != b) {
        if (a > b)
            a = below[a];
        else
            b = below[b];
    }
    return a;
}

static void build_tables(void)
{
    static void (*const init[ISA_COUNT])(kernels *) = {
        [QWEN3_ISA_C] = kernels_init_c,
#if defined(__x86_64__)
        [QWEN3_ISA_AVX2] = kernels_init_avx2,
        [QWEN3_ISA_AVX512] = kernels_init_avx512,
        [QWEN3_ISA_AVX512_VNNI] = kernels_init_avx512_vnni,
        [QWEN3_ISA_AVX512_BF16] = kernels_init_avx512_bf16,
        [QWEN3_ISA_AMX] = kernels_init_amx,
#elif defined(__aarch64__)
        [QWEN3_ISA_NEON] = kernels_init_neon,
        [QWEN3_ISA_NEON_DOT] = kernels_init_neon_dot,
        [QWEN3_ISA_NEON_BF16] = kernels_init_neon_bf16,
        [QWEN3_ISA_NEON_I8MM] = kernels_init_neon_i8mm,
#endif
    };
    const qwen3_isa highest = kernels_highest();
    char vendor[13];
    unsigned family;
    processor_identify(vendor, &family);
    const processor_family *processor = processor_family_of(vendor, family);
    for (qwen3_isa isa = QWEN3_ISA_C; isa <= highest; isa++) {
        if (kernels_common(isa, highest) != isa)
            continue; /* of another architecture */
        const kernels *base = &tables[below[isa]];
        tables[isa] = *base;
        tables[isa].isa = isa;
        tables[isa].name = isa_names[isa];
        tables[isa].below = isa > QWEN3_ISA_C ? base : NULL;
        init[isa](&tables[isa]);
        for (weight_type type = 0; type < WEIGHT_TYPES; type++) {
            gemm_kernel *g = &tables[isa].gemm[type];
            g->policy = &processor->prefetch;
            g->few_rows = type == QWEN3_DTYPE_BF16 ? processor->amx.bf16_rows : processor->amx.block_rows;
            if (type < DTYPE_COUNT) {
                g->quantise = tables[isa].quantise[type];
                tables[isa].few[type].policy = &processor->prefetch;
            }
        }
        tables[isa].bytes.policy = &processor->prefetch;
        for (int type = 0; type < ELEMENT_TYPES; type++)
            tables[isa].mixed[type].policy = &processor->prefetch;
    }
    best = highest;
    /* From a table and not by timing: the level decides on the type of activations, and so on bits. */
    if (best == QWEN3_ISA_AVX512_BF16 && !processor->fast_bf16)
        best = below[best];
}

qwen3_isa qwen3_isa_best(void)
{
    pthread_once(&tables_once, build_tables);
    return best;
}

/* AUTO and levels that this CPU lacks leave the best. */
static bool isa_from_environment(qwen3_isa *isa)
{
    const char *name = getenv("QWEN3_ISA");
    *isa = QWEN3_ISA_AUTO;
    if (name && *name && !qwen3_isa_parse(name, isa))
        return false;
    if (!tables[*isa].name)
        *isa = best;
    return true;
}

const kernels *kernels_get(qwen3_isa isa)
{
    pthread_once(&tables_once, build_tables);
    if (isa == QWEN3_ISA_AUTO && !isa_from_environment(&isa))
        return NULL;
    return (size_t)isa < ISA_COUNT && tables[isa].name ? &tables[isa] : NULL;
}

qwen3_status dtype_check(qwen3_dtype dtype, qwen3_error *err)
{
    if (dtype == QWEN3_DTYPE_AUTO || (unsigned)dtype < DTYPE_COUNT)
        return QWEN3_OK;
    return fail(err, QWEN3_ERR_ARGUMENT, "dtype %d is unknown", (int)dtype);
}

qwen3_status kernels_choose(qwen3_isa isa, const kernels **k, qwen3_error *err)
{
    *k = kernels_get(isa);
    if (*k)
        return QWEN3_OK;
    if ((unsigned)isa >= ISA_COUNT)
        return fail(err, QWEN3_ERR_ARGUMENT, "isa %d is unknown", (int)isa);
    if (isa == QWEN3_ISA_AUTO)
        return fail(err, QWEN3_ERR_ARGUMENT, "environment variable QWEN3_ISA: got \"%s\", expected %s",
                    getenv("QWEN3_ISA"),
                    "auto, c, avx2, avx512, avx512_vnni, avx512_bf16, amx, neon, neon_dot, neon_bf16 or neon_i8mm");
    return fail(err, QWEN3_ERR_UNSUPPORTED, "instruction set: got %s, expected one that this CPU has, at best %s",
                qwen3_isa_name(isa), qwen3_isa_name(kernels_highest()));
}
