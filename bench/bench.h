/* bench.h - what the parts of bench_kernels share. */
#ifndef QWEN3_BENCH_H
#define QWEN3_BENCH_H

#include <math.h>
#include <omp.h>

#include "base/team.h"
#include "kernels/kernels.h"

#define TURNS 5

/* Time of one run, in seconds. */
typedef double timed(void *arg);

/* Best of TURNS of each, taken in turns. */
static inline void race(timed *limit, timed *subject, void *arg, double *limit_seconds, double *subject_seconds)
{
    *limit_seconds = *subject_seconds = 1e30;
    for (int i = 0; i < TURNS; i++) {
        *limit_seconds = fmin(*limit_seconds, limit(arg));
        *subject_seconds = fmin(*subject_seconds, subject(arg));
    }
}

static inline double seconds_of(int threads, void (*run)(team *t, void *arg), void *arg)
{
    const double start = omp_get_wtime();
    team_run(threads, run, arg);
    return omp_get_wtime() - start;
}

/* This thread's part of a plain read of p[0..bytes), bytes a multiple of 1 KiB. */
static inline void read_part(const team *t, const kernels *k, const void *p, size_t bytes)
{
    size_t begin, end;
    team_part(t, bytes, 1024, &begin, &end);
    volatile uint64_t sink = k->read_memory((const char *)p + begin, end - begin);
    (void)sink;
}

/* bench_attention.c. Returns false, and says why on stderr, where there is not enough memory. */
bool bench_attention(const kernels *k, int threads);

/* bench_reading.c. buffer: of more bytes than caches hold, a multiple of 1 KiB, touched. */
void bench_reading(const void *buffer, size_t bytes, int threads);

/* What products of bench_levels.c read and write; all touched. */
typedef struct level_buffers {
    const void *matrix; /* larger than caches */
    size_t matrix_bytes;
    const void *x; /* [16, 1024] f32 */
    float *y;
    size_t y_floats;
} level_buffers;

/* bench_levels.c */
void bench_levels(const level_buffers *b, int threads);

#endif
