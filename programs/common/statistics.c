/* statistics.c - see statistics.h. */
#include "common/statistics.h"

#include <math.h>
#include <time.h>

double mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / (double)n : 0;
}

double standard_deviation(const double *x, size_t n)
{
    double m = mean(x, n), sum = 0;
    if (n < 2)
        return 0;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - m) * (x[i] - m);
    return sqrt(sum / (double)(n - 1));
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
