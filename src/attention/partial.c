/* partial.c - un-normalised attention results and their merge (attention.h gives the mathematics). */
#include "attention/attention.h"

void partial_clear(size_t n, size_t head_dim, float *o, float *m, float *l)
{
    if (n == 0) /* a rank without rows has no arrays either, and memset wants one */
        return;
    memset(o, 0, n * head_dim * sizeof *o);
    memset(l, 0, n * sizeof *l);
    for (size_t i = 0; i < n; i++)
        m[i] = -INFINITY;
}

/* The weights w_i = exp(m_i - max(m1, m2)) of a merge, without the NaN of -inf - -inf. */
static inline float merge_weight(float m, float max)
{
    return m == -INFINITY ? 0.0f : expf(m - max);
}

void partial_merge(const kernels *k, size_t n, size_t head_dim, float *o, float *m, float *l, const float *o2,
                   const float *m2, const float *l2)
{
    (void)k;
    for (size_t i = 0; i < n; i++, o += head_dim, o2 += head_dim) {
        if (m2[i] == -INFINITY)
            continue;
        float max = fmaxf(m[i], m2[i]);
        float w1 = merge_weight(m[i], max), w2 = merge_weight(m2[i], max);
        m[i] = max;
        l[i] = w1 * l[i] + w2 * l2[i];
        for (size_t d = 0; d < head_dim; d++)
            o[d] = w1 * o[d] + w2 * o2[d];
    }
}

void partial_finish(const kernels *k, size_t n, size_t head_dim, float *o, const float *l)
{
    for (size_t i = 0; i < n; i++, o += head_dim) {
        if (l[i] > 0.0f)
            k->scale(head_dim, 1.0f / l[i], o, o, QWEN3_DTYPE_F32);
        else
            memset(o, 0, head_dim * sizeof *o);
    }
}
