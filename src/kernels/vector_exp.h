/* vector_exp.h - exp(x) and sums of it, over the vector operations of a level that the including file includes before.
 */
#ifndef QWEN3_KERNELS_VECTOR_EXP_H
#define QWEN3_KERNELS_VECTOR_EXP_H

#include "kernels/exp_constants.h"

/* See exp_constants.h. NaN stays NaN. */
TEMPLATE vec vec_exp(vec x)
{
    const vec clamped = vec_min(vec_set1(EXP_MAX), x);
    const vec rounded = vec_fma(clamped, vec_set1(EXP_LOG2E), vec_set1(EXP_ROUNDER));
    const vec n = vec_sub(rounded, vec_set1(EXP_ROUNDER));
    const vec r = vec_fnma(n, vec_set1(EXP_LN2_LOW), vec_fnma(n, vec_set1(EXP_LN2_HIGH), clamped));
    vec p = vec_fma(vec_set1(EXP_P4), r, vec_set1(EXP_P3));
    p = vec_fma(p, r, vec_set1(EXP_P2));
    p = vec_fma(p, r, vec_set1(EXP_P1));
    p = vec_fma(p, r, vec_set1(EXP_P0));
    p = vec_add(vec_set1(1.0f), vec_fma(vec_mul(r, r), p, r));
    return vec_zero_below(x, vec_set1(EXP_MIN), vec_mul(vec_power_of_2(rounded), p));
}

/* How the first n lanes of e become elements i, i + 1, ... of p. */
typedef void exp_store(void *p, size_t i, vec e, size_t n);

/* p[i] = exp(s[i] - m) for the first n lanes from element i on, 0 in the others. */
TEMPLATE vec exp_part(const float *s, float m, void *p, exp_store *store, size_t i, size_t n)
{
    const vec e = vec_exp(vec_sub(vec_load_part(s + i, n, vec_set1(-INFINITY)), vec_set1(m)));
    store(p, i, e, n);
    return e;
}

/* `store` is a constant where this is called. */
TEMPLATE float exp_sum_with(size_t n, const float *s, float m, void *p, exp_store *store)
{
    vec sum = vec_set1(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = vec_add(sum, exp_part(s, m, p, store, i, LANES));
    if (i < n)
        sum = vec_add(sum, exp_part(s, m, p, store, i, n - i));
    return vec_sum(sum);
}

TEMPLATE void exp_store_f32(void *p, size_t i, vec e, size_t n)
{
    vec_store_part((float *)p + i, e, n);
}

#endif
