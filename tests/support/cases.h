/* cases.h - what tests of kernels share: random numbers, arrays between pages that nobody may touch, comparisons.
 * A test includes cmocka first.
 */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/kernels.h"

/* Unit roundoff of f32. */
#define U 0x1p-24
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* ---- Random numbers ---------------------------------------------------------------------------- */

static uint64_t random_state;

/* Prints the seed; QWEN3_TEST_SEED sets it. */
static inline void seed_random(void)
{
    const char *seed = getenv("QWEN3_TEST_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : 20251122;
    printf("seed %llu, best level %s\n", (unsigned long long)random_state, qwen3_isa_name(qwen3_isa_best()));
}

static inline uint64_t random_bits(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u; /* splitmix64 (Steele et al. 2014) */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t random_below(size_t n)
{
    return (size_t)(random_bits() % n);
}

static inline double random_unit(void)
{
    return (double)(random_bits() >> 11) * 0x1p-53;
}

/* Mostly of order 1; now and then zeros of both signs, denormals, the tiny and the huge (squares of which are
 * still finite). */
static inline float random_nasty(void)
{
    const float sign = random_bits() & 1 ? 1.0f : -1.0f;
    switch (random_below(24)) {
    case 0:
        return sign * 0.0f;
    case 1:
        return sign * (float)(random_unit() * (double)FLT_MIN);
    case 2:
        return sign * 1e-30f;
    case 3:
        return sign * (float)(1e15 * random_unit());
    default:
        return sign * (float)(2.0 * random_unit());
    }
}

/* Of order 1 only: next to huge terms a wrong ordinary one would not be seen. */
static inline float random_plain(void)
{
    return (float)(4.0 * random_unit() - 2.0);
}

typedef float (*random_float)(void);

/* ---- Fenced arrays ----------------------------------------------------------------------------- */

typedef struct fenced {
    unsigned char *map;
    size_t map_bytes, bytes;
    unsigned char *data;
} fenced;

#define FILLER 0xa5

/* `bytes` bytes that end at a page nobody may touch, or, at_start, that begin behind one. */
static inline void *fence(fenced *f, size_t bytes, bool at_start)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t body = (bytes + page - 1) / page * page + page;
    f->map_bytes = body + 2 * page;
    f->map = mmap(NULL, f->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(f->map, MAP_FAILED);
    memset(f->map, FILLER, f->map_bytes);
    assert_int_equal(mprotect(f->map, page, PROT_NONE), 0);
    assert_int_equal(mprotect(f->map + page + body, page, PROT_NONE), 0);
    f->bytes = bytes;
    f->data = at_start ? f->map + page : f->map + page + body - bytes;
    return f->data;
}

/* Checks that what surrounds the array is as it was. */
static inline void unfence(fenced *f)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (unsigned char *p = f->map + page; p < f->map + f->map_bytes - page; p++) {
        if (p == f->data)
            p += f->bytes;
        if (p < f->map + f->map_bytes - page && *p != FILLER)
            fail_msg("byte %td relative to an array of %zu bytes was written", p - f->data, f->bytes);
    }
    munmap(f->map, f->map_bytes);
}

/* ---- Comparisons ------------------------------------------------------------------------------- */

static inline void check_close(const char *kernel, const char *level, size_t n, size_t i, double got, double expected,
                               double tolerance)
{
    if (isnan(expected) ? isnan(got) : got == expected || fabs(got - expected) <= tolerance)
        return;
    fail_msg("%s %s: n %zu element %zu: got %.9g, expected %.9g within %.3g", level, kernel, n, i, got, expected,
             tolerance);
}

static inline void fill_nasty(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = random_nasty();
}

#endif
