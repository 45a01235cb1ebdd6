/* sampling_reference.h - the distribution that options of sampling ask for, computed plainly from a whole row. */
#ifndef TESTS_SAMPLING_REFERENCE_H
#define TESTS_SAMPLING_REFERENCE_H

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "qwen3.h"

/* The history of a sequence. */
typedef struct reference_history {
    const int32_t *prompt, *generated;
    size_t n_prompt, n_generated;
} reference_history;

static const float *reference_sorted_by;

/* Larger logits first, lower ids first at ties. */
static inline int reference_compare(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    float p = reference_sorted_by[x], q = reference_sorted_by[y];
    return p != q ? (p < q) - (p > q) : (x > y) - (x < y);
}

static inline float reference_rounded(double x)
{
    return x > FLT_MAX ? FLT_MAX : (float)x;
}

/* x[n_tokens] = logits after bias and penalties. */
static inline void reference_adjust(const qwen3_sampling_options *o, const reference_history *h, int32_t n_tokens,
                                    float *x)
{
    for (size_t i = 0; i < o->n_bias; i++)
        x[o->bias[i].token] = reference_rounded((double)x[o->bias[i].token] + o->bias[i].bias);
    for (int32_t t = 0; t < n_tokens; t++) {
        size_t prompt = 0, generated = 0;
        for (size_t i = 0; i < h->n_prompt; i++)
            prompt += h->prompt[i] == t;
        for (size_t i = 0; i < h->n_generated; i++)
            generated += h->generated[i] == t;
        if (prompt + generated == 0)
            continue;
        double v = x[t] > 0 ? x[t] / o->repetition_penalty : x[t] * o->repetition_penalty;
        v -= (double)generated * o->frequency_penalty + (generated > 0) * o->presence_penalty;
        x[t] = reference_rounded(v);
    }
}

/* probability[n_tokens] of each token; false where no token may be chosen. */
static inline bool reference_distribution(const qwen3_sampling_options *o, const reference_history *h,
                                          const float *logits, int32_t n_tokens, double *probability)
{
    size_t n = (size_t)n_tokens, kept = 0;
    float *x = malloc(n * sizeof *x);
    int32_t *order = malloc(n * sizeof *order);
    for (size_t i = 0; i < n; i++) {
        x[i] = logits[i];
        order[i] = (int32_t)i;
        probability[i] = 0;
    }
    reference_adjust(o, h, n_tokens, x);
    reference_sorted_by = x;
    qsort(order, n, sizeof *order, reference_compare);
    while (kept < n && x[order[kept]] > -INFINITY)
        kept++;
    if (o->temperature == 0)
        kept = kept < 1 ? kept : 1;
    if (o->top_k > 0 && (size_t)o->top_k < kept)
        kept = (size_t)o->top_k;
    double sum = 0, before = 0, most = kept ? x[order[0]] : 0, t = o->temperature > 0 ? o->temperature : 1;
    for (size_t i = 0; i < kept; i++)
        sum += exp((x[order[i]] - most) / t);
    for (size_t i = 0; i < kept; i++) {
        double p = exp((x[order[i]] - most) / t);
        if (i > 0 && ((o->top_p < 1 && before >= o->top_p * sum) || p < o->min_p))
            kept = i;
        else
            before += p;
    }
    for (size_t i = 0; i < kept; i++)
        probability[order[i]] = exp((x[order[i]] - most) / t) / before;
    free(x);
    free(order);
    return kept > 0;
}

#endif
