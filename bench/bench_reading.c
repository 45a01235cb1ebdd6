/* bench_reading.c - how fast a core reads memory while it multiplies: a loop over lines of 64 bytes with some
 * multiply-adds for each. Products of few rows are such loops: of one row with 1 (F32), 4 (BF16, widened) or 8 (Q4)
 * operations for a line, of eight rows with 8 (F32) or 20 (BF16).
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "kernels/tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f")))
#define PREFETCH_DISTANCE 4096
#define SUMS 16

typedef struct reading {
    const kernels *k;
    const char *buffer;
    size_t bytes;
    int threads;
    float (*loop)(const char *p, size_t bytes);
} reading;

AVX512 TEMPLATE float multiply_lines(const char *p, size_t bytes, const int operations, const bool prefetches)
{
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 sum[SUMS];
    UNROLL
    for (int i = 0; i < SUMS; i++) {
        sum[i] = _mm512_setzero_ps();
        __asm__ volatile("" : "+v"(sum[i])); /* not known to be equal: one would do for all */
    }
    for (const char *end = p + bytes; p < end; p += LINE) {
        if (prefetches)
            __builtin_prefetch(p + PREFETCH_DISTANCE, 0, 2);
        const __m512 line = _mm512_loadu_ps(p);
        UNROLL
        for (int i = 0; i < operations; i++)
            sum[i % SUMS] = _mm512_fmadd_ps(line, half, sum[i % SUMS]);
    }
    UNROLL
    for (int i = 1; i < SUMS; i++)
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    return _mm512_reduce_add_ps(sum[0]);
}

#define LOOP(operations)                                                                                               \
    AVX512 static float plain_##operations(const char *p, size_t bytes)                                                \
    {                                                                                                                  \
        return multiply_lines(p, bytes, operations, false);                                                            \
    }                                                                                                                  \
    AVX512 static float prefetched_##operations(const char *p, size_t bytes)                                           \
    {                                                                                                                  \
        return multiply_lines(p, bytes, operations, true);                                                             \
    }

LOOP(1)
LOOP(2)
LOOP(4)
LOOP(8)
LOOP(12)
LOOP(16)
LOOP(20)
LOOP(24)

static const struct {
    int operations;
    float (*loop[2])(const char *p, size_t bytes); /* without and with prefetching */
} loops[] = {{1, {plain_1, prefetched_1}},    {2, {plain_2, prefetched_2}},    {4, {plain_4, prefetched_4}},
             {8, {plain_8, prefetched_8}},    {12, {plain_12, prefetched_12}}, {16, {plain_16, prefetched_16}},
             {20, {plain_20, prefetched_20}}, {24, {plain_24, prefetched_24}}};

static void run_loop(team *t, void *arg)
{
    const reading *r = arg;
    size_t begin, end;
    team_part(t, r->bytes, 1024, &begin, &end);
    volatile float sink = r->loop(r->buffer + begin, end - begin);
    (void)sink;
}

static void run_read(team *t, void *arg)
{
    const reading *r = arg;
    read_part(t, r->k, r->buffer, r->bytes);
}

static double time_loop(void *arg)
{
    return seconds_of(((reading *)arg)->threads, run_loop, arg);
}

static double time_reading(void *arg)
{
    return seconds_of(((reading *)arg)->threads, run_read, arg);
}

void bench_reading(const void *buffer, size_t bytes, int threads)
{
    reading r = {.k = kernels_get(QWEN3_ISA_AVX512), .buffer = buffer, .bytes = bytes};
    if (!r.k) {
        printf("reading: needs AVX-512\n");
        return;
    }
    for (r.threads = 1; r.threads <= threads; r.threads += threads > 1 ? threads - 1 : 1) {
        for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
            double limit[2], seconds[2];
            for (int prefetches = 0; prefetches < 2; prefetches++) {
                r.loop = loops[i].loop[prefetches];
                race(time_reading, time_loop, &r, &limit[prefetches], &seconds[prefetches]);
            }
            printf("  reading %2d thr %2d multiply-adds a line %6.1f GB/s %5.1f %% of reading, prefetched %6.1f "
                   "GB/s %5.1f %%\n",
                   r.threads, loops[i].operations, (double)bytes / seconds[0] * 1e-9, 100 * limit[0] / seconds[0],
                   (double)bytes / seconds[1] * 1e-9, 100 * limit[1] / seconds[1]);
        }
    }
}

#else

void bench_reading(const void *buffer, size_t bytes, int threads)
{
    (void)buffer;
    (void)bytes;
    (void)threads;
    printf("reading: needs AVX-512\n");
}

#endif
