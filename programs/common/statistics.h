/* statistics.h - statistics of repeated measurements. */
#ifndef STATISTICS_H
#define STATISTICS_H

#include <stddef.h>

double mean(const double *x, size_t n);
/* Of the sample (n - 1 degrees of freedom); 0 for n < 2. */
double standard_deviation(const double *x, size_t n);
/* Seconds on a monotonic clock. */
double seconds_now(void);

#endif
