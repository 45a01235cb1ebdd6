/* source_synthetic.c - seeded random weights without a file: every value is a function of its place, so any
 * rank can make any block of any tensor and all agree.
 *
 * A counter-based generator (base/random.h) hashes (seed, number of the tensor, row) to a key and (key, column / 4) to
 * 64 bits, which are four independent uniform numbers u0..u3 of 16 bits. Four columns get their sums with the signs of
 * the rows of a Hadamard matrix, which are uncorrelated and each distributed as the sum of four uniform numbers
 * (Irwin-Hall), close to normal: kurtosis 2.7, nothing beyond 3.46 standard deviations. The standard deviations are
 * those that keep activations of the published shapes near 1: matrices (and biases) 0.7 / sqrt(cols), embeddings and
 * head 0.05, norm weights 1 + 0.2 x. */
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "model/source_backend.h"

#define LANES 4

typedef struct synthetic_source {
    source base;
    uint64_t seed;
} synthetic_source;

/* Mean and scale of a value: mean + scale * (integer of variance SUM_VARIANCE and mean 0). */
typedef struct distribution {
    float mean, scale;
} distribution;

/* Four uniform integers on [-32768, 32767] each have variance (2^32 - 1) / 12. */
#define SUM_VARIANCE ((4294967296.0 - 1) / 3)

static distribution distribution_of(const tensor *t)
{
    double unit = 1 / sqrt(SUM_VARIANCE);
    if (t->kind == TENSOR_NORM)
        return (distribution){1.0f, (float)(0.2 * unit)};
    if (t->kind == TENSOR_EMBEDDING || t->kind == TENSOR_HEAD)
        return (distribution){0.0f, (float)(0.05 * unit)};
    return (distribution){0.0f, (float)(0.7 / sqrt((double)t->cols) * unit)};
}

/* The values of columns LANES * group .. LANES * group + LANES - 1. */
static inline void generate_group(uint64_t key, uint64_t group, distribution d, bf16 *out)
{
    uint64_t bits = mix64(key + group * GOLDEN_GAMMA);
    int32_t u0 = (int16_t)bits, u1 = (int16_t)(bits >> 16), u2 = (int16_t)(bits >> 32), u3 = (int16_t)(bits >> 48);
    int32_t a = u0 + u1, b = u0 - u1, c = u2 + u3, e = u2 - u3;
    int32_t sums[LANES] = {a + c, b + e, a - c, b - e};
    for (int i = 0; i < LANES; i++)
        out[i] = f32_to_bf16(d.mean + d.scale * (float)sums[i]);
}

/* Columns [col0, col0 + cols) of the row with this key. */
static void generate_row(uint64_t key, int64_t col0, int64_t cols, distribution d, bf16 *out)
{
    int64_t end = col0 + cols, first = (col0 + LANES - 1) / LANES, last = end / LANES;
    bf16 edge[LANES];
    int64_t col = col0;
    if (col < first * LANES) {
        generate_group(key, (uint64_t)(col / LANES), d, edge);
        for (; col < first * LANES && col < end; col++)
            *out++ = edge[col % LANES];
    }
    for (int64_t group = first; group < last; group++, out += LANES)
        generate_group(key, (uint64_t)group, d, out);
    if (last >= first && last * LANES < end) {
        generate_group(key, (uint64_t)last, d, edge);
        for (col = last * LANES; col < end; col++)
            *out++ = edge[col % LANES];
    }
}

static tensor_view synthetic_part(const source *base, tensor_part part, void *scratch)
{
    const synthetic_source *s = (const synthetic_source *)base;
    const tensor *t = &base->tensors[part.tensor];
    const int64_t cols = range_size(part.cols);
    distribution d = distribution_of(t);
    uint64_t tensor_key = mix64(mix64(s->seed + GOLDEN_GAMMA) + GOLDEN_GAMMA * (1 + part.tensor));
    bf16 *out = scratch;
    if (tensor_is_vector(t->kind)) { /* along the vector, whose columns are one each */
        generate_row(mix64(tensor_key), part.rows.begin, range_size(part.rows), d, out);
    } else {
        for (int64_t row = part.rows.begin; row < part.rows.end; row++, out += cols)
            generate_row(mix64(tensor_key + (uint64_t)row * GOLDEN_GAMMA), part.cols.begin, cols, d, out);
    }
    return (tensor_view){scratch, QWEN3_DTYPE_BF16, (size_t)cols};
}

static const char *synthetic_stored_type(const source *base, size_t number)
{
    (void)base, (void)number;
    return "BF16";
}

static const void *synthetic_stored(const source *base, size_t number, size_t *bytes)
{
    (void)base, (void)number;
    *bytes = 0;
    return NULL;
}

static bool synthetic_file(const source *base, size_t number, source_file_info *info)
{
    (void)base, (void)number, (void)info;
    return false;
}

static void synthetic_close(source *base)
{
    free(base);
}

qwen3_status source_open_synthetic(uint64_t seed, const declaration *d, source **out, qwen3_error *err)
{
    static const source_backend backend = {.part = synthetic_part,
                                           .stored_type = synthetic_stored_type,
                                           .stored = synthetic_stored,
                                           .file = synthetic_file,
                                           .close = synthetic_close};
    synthetic_source *s = malloc(sizeof *s);
    *out = NULL;
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "synthetic model: no memory for %zu bytes", sizeof *s);
    *s = (synthetic_source){source_begin(&backend, d), seed};
    *out = &s->base;
    return QWEN3_OK;
}
