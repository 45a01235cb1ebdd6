/* clock.h - monotonic time. */
#ifndef QWEN3_BASE_CLOCK_H
#define QWEN3_BASE_CLOCK_H

#include <time.h>

/* Seconds since some fixed point in time. */
static inline double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
