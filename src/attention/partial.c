/* partial.c - un-normalised attention results and their merge (attention.h gives the mathematics). */
#include "attention/attention.h"

void partial_clear(size_t n, size_t head_dim, partial_run p)
{
    if (n == 0) /* a rank without rows has no arrays either, and memset wants one */
        return;
    memset(p.o, 0, n * head_dim * sizeof *p.o);
    memset(p.l, 0, n * sizeof *p.l);
    for (size_t i = 0; i < n; i++)
        p.m[i] = -INFINITY;
}

/* The weights w_i = exp(m_i - max(m1, m2)) of a merge, without the NaN of -inf - -inf. */
static inline float merge_weight(float m, float max)
{
    return m == -INFINITY ? 0.0f : expf(m - max);
}

void partial_merge(size_t n, size_t head_dim, partial_run into, partial_run from)
{
    float *o = into.o;
    const float *o2 = from.o;
    for (size_t i = 0; i < n; i++, o += head_dim, o2 += head_dim) {
        if (from.m[i] == -INFINITY)
            continue;
        const float max = fmaxf(into.m[i], from.m[i]);
        const float w1 = merge_weight(into.m[i], max), w2 = merge_weight(from.m[i], max);
        into.m[i] = max;
        into.l[i] = w1 * into.l[i] + w2 * from.l[i];
        for (size_t d = 0; d < head_dim; d++)
            o[d] = w1 * o[d] + w2 * o2[d];
    }
}

void partial_output(const kernels *k, size_t head_dim, partial_run p, size_t at, void *y, qwen3_dtype y_type)
{
    const float inverse = p.m[at] == -INFINITY ? 0.0f : 1.0f / p.l[at];
    k->scale(head_dim, inverse, p.o + at * head_dim, y, y_type);
}
