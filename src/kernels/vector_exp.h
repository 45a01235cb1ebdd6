/* vector_exp.h - exp(x) and sums of it, over the vector operations of a level that the including file includes before.
 */
#ifndef QWEN3_KERNELS_VECTOR_EXP_H
#define QWEN3_KERNELS_VECTOR_EXP_H

#include "kernels/exp_constants.h"

/* exp(x) = 2^n p; rounded is n + EXP_ROUNDER. */
typedef struct exp_parts {
    vec p, n, rounded;
} exp_parts;

/* Of exp(sign x), for a sign of 1 or -1; see exp_constants.h. NaN stays NaN. */
TEMPLATE exp_parts vec_exp_parts(vec x, const float sign)
{
    exp_parts e;
    e.rounded = vec_fma(x, vec_set1(sign * EXP_LOG2E), vec_set1(EXP_ROUNDER));
    e.n = vec_sub(e.rounded, vec_set1(EXP_ROUNDER));
    const vec r = vec_fnma(e.n, vec_set1(sign * EXP_LN2_LOW), vec_fnma(e.n, vec_set1(sign * EXP_LN2_HIGH), x));
    e.p = vec_fma(vec_set1(sign * EXP_P3), r, vec_set1(EXP_P2));
    e.p = vec_fma(e.p, r, vec_set1(sign * EXP_P1));
    e.p = vec_fma(e.p, r, vec_set1(EXP_P0));
    e.p = vec_fma(e.p, r, vec_set1(sign));
    e.p = vec_fma(e.p, r, vec_set1(1.0f));
    return e;
}

TEMPLATE vec vec_exp(vec x)
{
    const exp_parts e = vec_exp_parts(x, 1.0f);
    return vec_zero_below(x, vec_set1(EXP_MIN), vec_scale(e.p, e.n, e.rounded));
}

/* g / (1 + exp(-g)). exp is that of the nearest value of which it and 1 / (1 + exp) are normal numbers. */
TEMPLATE vec vec_silu(vec g)
{
    const exp_parts e = vec_exp_parts(vec_limit(g, vec_set1(EXP_NORMAL)), -1.0f);
    return vec_mul(g, vec_inverse(vec_add(vec_set1(1.0f), vec_scale(e.p, e.n, e.rounded))));
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
