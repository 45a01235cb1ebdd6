/* vector_kernels.h - all kernels, written once over the vector operations of a level (x86/vector_avx2.h,
 * x86/vector_avx512.h, arm/vector_neon.h), which the including file includes before. Ends in
 * vector_kernels_fill().
 *
 * Loops over elements take LANES at a time and at the end the `part` that is left, with masked loads and
 * stores, so the tail needs no code of its own. Where a row is short and often handled the loop is EACH_VECTOR.
 */
#include "kernels/blocks.h"
#include "kernels/stored.h"
#include "kernels/tile.h"
#include "kernels/vector_exp.h"

#define NR (VECS * LANES)

/* How far ahead of their use row-major matrices are prefetched. The hardware does not follow strided loads of a few
 * rows at a time, so the lines are prefetched in the order of their addresses. */
#define ROWS_PREFETCH_DISTANCE 4096

TEMPLATE size_t part_of(size_t n, size_t i)
{
    return n - i < LANES ? n - i : LANES;
}

/* step(n, i, part, ...) for every vector of n elements: with LANES as a constant, so that the compiler masks nothing,
 * then for what is left. */
#define EACH_VECTOR(n, step, ...)                                                                                      \
    do {                                                                                                               \
        size_t vector = 0;                                                                                             \
        for (; vector + LANES <= (n); vector += LANES)                                                                 \
            step(n, vector, LANES, __VA_ARGS__);                                                                       \
        if (vector < (n))                                                                                              \
            step(n, vector, (n)-vector, __VA_ARGS__);                                                                  \
    } while (0)

/* ---- Matrix product ---------------------------------------------------------------------------- */

/* sum += x * weights of one group of kr values. */
TEMPLATE void add_group(const int rows, const qwen3_dtype storage, const float *x, size_t x_stride, const char *group,
                        vec sum[MR][VECS])
{
    const int kr = GROUP_VALUES(storage);
    UNROLL
    for (int i = 0; i < kr; i++) {
        vec weight[VECS];
        UNROLL
        for (int v = 0; v < VECS; v++) {
            const void *p = group + (size_t)v * LANES * GROUP_BYTES(storage);
            if (storage == QWEN3_DTYPE_Q8)
                weight[v] = vec_byte_pairs(p, i);
            else
                weight[v] = storage == QWEN3_DTYPE_F32 ? vec_load(p) : vec_pairs(p, i);
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            const vec xi = vec_set1(x[(size_t)r * x_stride + (size_t)i]);
            UNROLL
            for (int v = 0; v < VECS; v++)
                sum[r][v] = vec_fma(xi, weight[v], sum[r][v]);
        }
    }
}

typedef float tile_activation;
#include "kernels/vector_tile.h"

DEFINE_TILE(tile_f32, tile_rows, QWEN3_DTYPE_F32)
DEFINE_TILE(tile_bf16, tile_rows, QWEN3_DTYPE_BF16)
DEFINE_TILE(tile_bytes, tile_rows, QWEN3_DTYPE_Q8)

/* Pairs to a panel of F32. */
static void expand_bf16(size_t k_groups, const void *w, void *panel)
{
    const bf16 *group = w;
    float *values = panel;
    for (size_t g = 0; g < k_groups; g++, group += 2 * NR, values += 2 * NR) {
        UNROLL
        for (size_t v = 0; v < VECS; v++) {
            vec_store(values + v * LANES, vec_pairs(group + v * 2 * LANES, 0));
            vec_store(values + NR + v * LANES, vec_pairs(group + v * 2 * LANES, 1));
        }
    }
}

/* Blocks to a panel of F32. */
TEMPLATE void expand_as(const qwen3_dtype storage, size_t k_groups, const void *w, float *panel)
{
    const size_t step = storage == QWEN3_DTYPE_Q8 ? 2 : 8, width = storage == QWEN3_DTYPE_Q8 ? 2 : 4;
    const vec_levels levels = vec_levels_load(q4_values);
    const unsigned char *group = w;
    for (size_t g = 0; g < k_groups; g++, group += NR * (storage == QWEN3_DTYPE_Q8 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES)) {
        const unsigned char *q = group + NR * sizeof(bf16);
        for (size_t i = 0; i < BLOCK; i += step, q += NR * width, panel += step * NR) {
            UNROLL
            for (size_t v = 0; v < VECS; v++) {
                const vec scales = vec_load_part_bf16((const bf16 *)group + v * LANES, LANES);
                UNROLL
                for (size_t e = 0; e < step; e++) {
                    const unsigned char *at = q + v * LANES * width;
                    const vec values = storage == QWEN3_DTYPE_Q8 ? vec_byte_pairs(at, e & 1)
                                                                 : vec_look_up(levels, at, (int)q4_shift(e));
                    vec_store(panel + e * NR + v * LANES, vec_mul(scales, values));
                }
            }
        }
    }
}

static void expand_q8(size_t k_groups, const void *w, void *panel)
{
    expand_as(QWEN3_DTYPE_Q8, k_groups, w, panel);
}

static void expand_q4(size_t k_groups, const void *w, void *panel)
{
    expand_as(QWEN3_DTYPE_Q4, k_groups, w, panel);
}

/* Of a group: what all its blocks share. */
typedef struct group_head {
    vec d, m, zero;
} group_head;

/* That of vector v of outputs; zero is what is taken off codes. */
TEMPLATE group_head load_head(const stored_format f, const unsigned char *group, size_t v)
{
    const unsigned char *d = group + v * LANES * 2, *zeros = group + NR * stored_halves_bytes(f) + v * LANES;
    return (group_head){vec_halves(d), f.minimum ? vec_halves(d + NR * 2) : vec_set1(0.0f),
                        f.zero ? vec_bytes(zeros) : vec_set1((float)f.bias)};
}

/* Of a stored type: values of LANES outputs in a block of 32; words, scales and t are those of the first of these
 * outputs. */
TEMPLATE void expand_outputs(const stored_format f, vec_levels levels, const unsigned char *block, group_head head,
                             size_t v, float *out)
{
    vec m = head.m;
    const unsigned char *scales = block + v * LANES, *low = block + NR * stored_scales_bytes(f) + v * LANES * 4;
    const unsigned char *high = low + NR * (size_t)f.low * 4;
    if (f.scales && f.minimum)
        m = vec_mul(m, vec_bytes(scales + (size_t)f.scales * NR));
    UNROLL
    for (size_t i = 0; i < BLOCK; i++) {
        const unsigned char *word = low + stored_low_word(f, i) * NR * 4;
        const int shift = (int)stored_low_shift(f, i);
        vec q;
        if (f.levels)
            q = vec_look_up(levels, word, shift);
        else
            q = vec_sub(vec_bits(word, shift, (1 << f.low) - 1), head.zero);
        if (f.high) {
            const unsigned char *more = high + stored_high_word(f, i) * NR * 4;
            const vec bits = vec_bits(more, (int)stored_high_shift(f, i), (1 << f.high) - 1);
            q = vec_fma(bits, vec_set1((float)(1 << f.low)), q);
        }
        vec scale = head.d;
        if (f.scales)
            scale = vec_mul(head.d, vec_bytes(scales + i / (size_t)stored_run(f) * NR));
        const vec value = vec_mul(scale, q);
        vec_store(out + i * NR + v * LANES, f.minimum ? vec_sub(value, m) : value);
    }
}

TEMPLATE void expand_stored(const weight_type type, size_t k_groups, const void *w, float *panel)
{
    const stored_format f = stored_format_of(type);
    const vec_levels levels = vec_levels_load(f.levels ? f.levels : q4_values);
    const unsigned char *group = w;
    for (size_t g = 0; g < k_groups; g++) {
        const unsigned char *head = group;
        group += NR * stored_head_bytes(f);
        for (int b = 0; b < f.blocks; b++, group += NR * stored_block_bytes(f), panel += BLOCK * NR) {
            for (size_t v = 0; v < VECS; v++)
                expand_outputs(f, levels, group, load_head(f, head, v), v, panel);
        }
    }
}

EACH_STORED_TYPE(DEFINE_EXPAND)

DEFINE_MIXED_TILE(tile_mixed_f32, QWEN3_DTYPE_F32, tile_f32)
DEFINE_MIXED_TILE(tile_mixed_bf16, QWEN3_DTYPE_BF16, tile_bf16)

/* ---- Element by element ------------------------------------------------------------------------ */

TEMPLATE void store_part(void *y, const qwen3_dtype y_type, size_t i, vec v, size_t n)
{
    if (y_type == QWEN3_DTYPE_F32)
        vec_store_part((float *)y + i, v, n);
    else
        vec_store_part_bf16((bf16 *)y + i, v, n);
}

/* The same where y_type may be Q8, for i in ascending order; v is 0 past n. block[BLOCK] keeps what is not stored yet.
 */
TEMPLATE void store_activation(void *y, const qwen3_dtype y_type, size_t n, size_t i, size_t part, vec v, float *block)
{
    if (y_type != QWEN3_DTYPE_Q8) {
        store_part(y, y_type, i, v, part);
        return;
    }
    size_t end = i % BLOCK + LANES;
    vec_store(block + i % BLOCK, v);
    if (end < BLOCK && i + LANES < n)
        return;
    for (; end < BLOCK; end += LANES)
        vec_store(block + end, vec_set1(0.0f));
    activation_store_block(block, (unsigned char *)y + i / BLOCK * ACTIVATION_BLOCK_BYTES);
}

/* Calls a template with the type of its output as a constant. */
#define BY_TYPE(type, call, ...)                                                                                       \
    ((type) == QWEN3_DTYPE_F32 ? call(__VA_ARGS__, QWEN3_DTYPE_F32) : call(__VA_ARGS__, QWEN3_DTYPE_BF16))
#define BY_ACTIVATION(type, call, ...)                                                                                 \
    ((type) == QWEN3_DTYPE_Q8 ? call(__VA_ARGS__, QWEN3_DTYPE_Q8) : BY_TYPE(type, call, __VA_ARGS__))

/* Sums in flight at once, so that additions do not wait for each other. */
#define SUMS 4

TEMPLATE vec sum_of(const vec sums[SUMS])
{
    return vec_add(vec_add(sums[0], sums[1]), vec_add(sums[2], sums[3]));
}

TEMPLATE void norm_step(size_t n, size_t i, size_t part, const float *x, const float *w, vec factor, void *y,
                        const qwen3_dtype y_type, float *block)
{
    const vec zero = vec_set1(0.0f), v = vec_mul(vec_load_part(x + i, part, zero), factor);
    store_activation(y, y_type, n, i, part, vec_mul(v, vec_load_part(w + i, part, zero)), block);
}

/* 1 / sqrt(mean(x^2) + eps) in every lane. */
TEMPLATE vec norm_factor(size_t n, const float *x, float eps)
{
    const vec zero = vec_set1(0.0f);
    vec sums[SUMS] = {zero, zero, zero, zero};
    size_t whole = 0;
    for (; whole + SUMS * LANES <= n; whole += SUMS * LANES) {
        UNROLL
        for (size_t j = 0; j < SUMS; j++) {
            const vec v = vec_load(x + whole + j * LANES);
            sums[j] = vec_fma(v, v, sums[j]);
        }
    }
    for (size_t i = whole; i < n; i += LANES) {
        const vec v = vec_load_part(x + i, part_of(n, i), zero);
        sums[0] = vec_fma(v, v, sums[0]);
    }
    return vec_set1(inverse_rms(vec_sum(sum_of(sums)), n, eps));
}

TEMPLATE void rms_norm_as(size_t n, const float *x, const float *w, float eps, void *y, const qwen3_dtype y_type)
{
    const vec factor = norm_factor(n, x, eps);
    float block[BLOCK];
    EACH_VECTOR(n, norm_step, x, w, factor, y, y_type, block);
}

static void rms_norm(size_t n, const float *x, const float *w, float eps, void *y, qwen3_dtype y_type)
{
    BY_ACTIVATION(y_type, rms_norm_as, n, x, w, eps, y);
}

TEMPLATE void norm_rope_step(size_t half, size_t i, size_t part, const float *x, const float *w, vec factor,
                             const float *cosines, const float *sines, vec scale, void *y, const qwen3_dtype y_type)
{
    const vec zero = vec_set1(0.0f);
    const vec c = vec_load_part(cosines + i, part, zero), s = vec_load_part(sines + i, part, zero);
    vec a = vec_load_part(x + i, part, zero), b = vec_load_part(x + half + i, part, zero);
    if (w) {
        a = vec_mul(vec_mul(a, factor), vec_load_part(w + i, part, zero));
        b = vec_mul(vec_mul(b, factor), vec_load_part(w + half + i, part, zero));
    }
    store_part(y, y_type, i, vec_mul(scale, vec_fnma(b, s, vec_mul(a, c))), part);
    store_part(y, y_type, half + i, vec_mul(scale, vec_fma(a, s, vec_mul(b, c))), part);
}

TEMPLATE void norm_rope_as(size_t d, const float *x, const float *w, float eps, const float *cosines,
                           const float *sines, float scale, void *y, const qwen3_dtype y_type)
{
    const vec factor = w ? norm_factor(d, x, eps) : vec_set1(1.0f);
    EACH_VECTOR(d / 2, norm_rope_step, x, w, factor, cosines, sines, vec_set1(scale), y, y_type);
}

static void norm_rope(size_t d, const float *x, const float *w, float eps, const float *cosines, const float *sines,
                      float scale, void *y, qwen3_dtype y_type)
{
    BY_TYPE(y_type, norm_rope_as, d, x, w, eps, cosines, sines, scale, y);
}

TEMPLATE void silu_step(size_t n, size_t i, size_t part, const float *gate, const float *up, void *y,
                        const qwen3_dtype y_type, float *block)
{
    const vec zero = vec_set1(0.0f), silu = vec_silu(vec_load_part(gate + i, part, zero));
    store_activation(y, y_type, n, i, part, vec_mul(silu, vec_load_part(up + i, part, zero)), block);
}

TEMPLATE void silu_mul_as(size_t n, const float *gate, const float *up, void *y, const qwen3_dtype y_type)
{
    float block[BLOCK];
    EACH_VECTOR(n, silu_step, gate, up, y, y_type, block);
}

static void silu_mul(size_t n, const float *gate, const float *up, void *y, qwen3_dtype y_type)
{
    BY_ACTIVATION(y_type, silu_mul_as, n, gate, up, y);
}

TEMPLATE void add_step(size_t n, size_t i, size_t part, float *x, const float *y)
{
    (void)n;
    const vec zero = vec_set1(0.0f);
    vec_store_part(x + i, vec_add(vec_load_part(x + i, part, zero), vec_load_part(y + i, part, zero)), part);
}

static void add(size_t n, float *x, const float *y)
{
    EACH_VECTOR(n, add_step, x, y);
}

TEMPLATE void multiply_step(size_t n, size_t i, size_t part, const float *x, const float *w, void *y,
                            const qwen3_dtype y_type)
{
    (void)n;
    const vec zero = vec_set1(0.0f);
    store_part(y, y_type, i, vec_mul(vec_load_part(x + i, part, zero), vec_load_part(w + i, part, zero)), part);
}

TEMPLATE void multiply_as(size_t n, const float *x, const float *w, void *y, const qwen3_dtype y_type)
{
    EACH_VECTOR(n, multiply_step, x, w, y, y_type);
}

static void multiply(size_t n, const float *x, const float *w, void *y, qwen3_dtype y_type)
{
    BY_TYPE(y_type, multiply_as, n, x, w, y);
}

TEMPLATE void scale_step(size_t n, size_t i, size_t part, vec a, const float *x, void *y, const qwen3_dtype y_type,
                         float *block)
{
    store_activation(y, y_type, n, i, part, vec_mul(a, vec_load_part(x + i, part, vec_set1(0.0f))), block);
}

TEMPLATE void scale_as(size_t n, float a, const float *x, void *y, const qwen3_dtype y_type)
{
    float block[BLOCK];
    EACH_VECTOR(n, scale_step, vec_set1(a), x, y, y_type, block);
}

static void scale(size_t n, float a, const float *x, void *y, qwen3_dtype y_type)
{
    BY_ACTIVATION(y_type, scale_as, n, a, x, y);
}

static float max(size_t n, const float *s)
{
    const vec lowest = vec_set1(-INFINITY);
    vec largest = lowest, other = lowest; /* two chains: a maximum takes longer than a load */
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        largest = vec_max(largest, vec_load(s + i));
        other = vec_max(other, vec_load(s + i + LANES));
    }
    largest = vec_max(largest, other);
    for (; i < n; i += LANES)
        largest = vec_max(largest, vec_load_part(s + i, part_of(n, i), lowest));
    return vec_largest(largest);
}

TEMPLATE void exp_store_bf16(void *p, size_t i, vec e, size_t n)
{
    vec_store_part_bf16((bf16 *)p + i, e, n);
}

static float exp_sum(size_t n, const float *s, float m, void *p, qwen3_dtype p_type)
{
    return p_type == QWEN3_DTYPE_F32 ? exp_sum_with(n, s, m, p, exp_store_f32)
                                     : exp_sum_with(n, s, m, p, exp_store_bf16);
}

/* ---- Row-major matrices ------------------------------------------------------------------------ */

/* Keys that are multiplied at once: as many as a panel row has vectors, for the same registers. */
TEMPLATE void dot_keys(const int rows, const int keys, size_t k, const float *x, size_t x_stride, const float *w,
                       size_t w_stride, float *y, size_t y_stride)
{
    const vec zero = vec_set1(0.0f);
    vec sum[MR][VECS];
    UNROLL
    for (int i = 0; i < rows * keys; i++)
        sum[i / keys][i % keys] = zero;
    for (size_t i = 0; i < k; i += LANES) {
        const size_t part = part_of(k, i);
        vec weight[VECS];
        UNROLL
        for (int j = 0; j < keys; j++)
            weight[j] = vec_load_part(w + (size_t)j * w_stride + i, part, zero);
        UNROLL
        for (int j = 0; j < keys; j++)
            __builtin_prefetch((const char *)(w + (size_t)keys * i + j * LANES) + ROWS_PREFETCH_DISTANCE);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const vec xi = vec_load_part(x + (size_t)r * x_stride + i, part, zero);
            UNROLL
            for (int j = 0; j < keys; j++)
                sum[r][j] = vec_fma(xi, weight[j], sum[r][j]);
        }
    }
    UNROLL
    for (int i = 0; i < rows * keys; i++)
        y[(size_t)(i / keys) * y_stride + (size_t)(i % keys)] = vec_sum(sum[i / keys][i % keys]);
}

TEMPLATE void dot_some_rows(const int rows, size_t n, size_t k, const float *x, size_t x_stride, const float *w,
                            size_t w_stride, float *y, size_t y_stride)
{
    size_t j = 0;
    for (; j + VECS <= n; j += VECS)
        dot_keys(rows, VECS, k, x, x_stride, w + j * w_stride, w_stride, y + j, y_stride);
    for (; j < n; j++)
        dot_keys(rows, 1, k, x, x_stride, w + j * w_stride, w_stride, y + j, y_stride);
}

/* Columns [i, i + vecs * LANES), or of one vector the part that is left. */
TEMPLATE void add_weighted(const int rows, const int vecs, size_t n, size_t k, size_t i, const float *x,
                           size_t x_stride, const float *w, size_t w_stride, float *y, size_t y_stride)
{
    const size_t part = vecs > 1 ? LANES : part_of(k, i);
    const vec zero = vec_set1(0.0f);
    vec sum[MR][VECS];
    UNROLL
    for (int v = 0; v < rows * vecs; v++)
        sum[v / vecs][v % vecs] =
            vec_load_part(y + (size_t)(v / vecs) * y_stride + i + (size_t)(v % vecs) * LANES, part, zero);
    for (size_t j = 0; j < n; j++) {
        vec weight[VECS];
        UNROLL
        for (int v = 0; v < vecs; v++)
            __builtin_prefetch((const char *)(w + n * i + (j * (size_t)vecs + (size_t)v) * LANES) +
                               ROWS_PREFETCH_DISTANCE);
        UNROLL
        for (int v = 0; v < vecs; v++)
            weight[v] = vec_load_part(w + j * w_stride + i + (size_t)v * LANES, part, zero);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const vec xj = vec_set1(x[(size_t)r * x_stride + j]);
            UNROLL
            for (int v = 0; v < vecs; v++)
                sum[r][v] = vec_fma(xj, weight[v], sum[r][v]);
        }
    }
    UNROLL
    for (int v = 0; v < rows * vecs; v++)
        vec_store_part(y + (size_t)(v / vecs) * y_stride + i + (size_t)(v % vecs) * LANES, sum[v / vecs][v % vecs],
                       part);
}

/* A few rows of w at a time, all of their columns: memory is read in the order of its addresses, nearly. */
TEMPLATE void add_some_weighted(const int rows, size_t n, size_t k, const float *x, size_t x_stride, const float *w,
                                size_t w_stride, float *y, size_t y_stride)
{
    for (size_t j = 0; j < n; j += 8) {
        const size_t few = n - j < 8 ? n - j : 8;
        size_t i = 0;
        for (; i + NR <= k; i += NR)
            add_weighted(rows, VECS, few, k, i, x + j, x_stride, w + j * w_stride, w_stride, y, y_stride);
        for (; i < k; i += LANES)
            add_weighted(rows, 1, few, k, i, x + j, x_stride, w + j * w_stride, w_stride, y, y_stride);
    }
}

/* Inlines a template for each number of rows up to MR, as DEFINE_TILE does. */
#define ROWS_CASE(rows_template, count)                                                                                \
    case count:                                                                                                        \
        rows_template(count, n, k, x, x_stride, w, w_stride, y, y_stride);                                             \
        break;

#define DEFINE_ROWS(name, rows_template)                                                                               \
    static void name(size_t rows, size_t n, size_t k, const float *x, size_t x_stride, const float *w,                 \
                     size_t w_stride, float *y, size_t y_stride)                                                       \
    {                                                                                                                  \
        for (size_t r = 0; r < rows; r += MR, x += MR * x_stride, y += MR * y_stride) {                                \
            switch (rows - r < MR ? rows - r : MR) {                                                                   \
                ROWS_CASE(rows_template, 1)                                                                            \
                ROWS_CASE(rows_template, 2)                                                                            \
                ROWS_CASE(rows_template, 3)                                                                            \
                ROWS_CASE(rows_template, 4)                                                                            \
                ROWS_CASE(rows_template, 5)                                                                            \
                ROWS_CASE(rows_template, 6)                                                                            \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_ROWS(dot_rows, dot_some_rows)
DEFINE_ROWS(weighted_rows, add_some_weighted)

/* ---- Conversions ------------------------------------------------------------------------------- */

static void to_bf16(size_t n, const float *x, bf16 *y)
{
    for (size_t i = 0; i < n; i += LANES)
        vec_store_part_bf16(y + i, vec_load_part(x + i, part_of(n, i), vec_set1(0.0f)), part_of(n, i));
}

static void to_f32(size_t n, const bf16 *x, float *y)
{
    for (size_t i = 0; i < n; i += LANES)
        vec_store_part(y + i, vec_load_part_bf16(x + i, part_of(n, i)), part_of(n, i));
}

static void bytes_to_bf16(size_t n, const int8_t *x, bf16 *y)
{
    for (size_t i = 0; i < n; i += 2 * LANES)
        vec_store_pairs(y + i, vec_byte_pairs(x + i, 0), vec_byte_pairs(x + i, 1));
}

/* ---- Limits ------------------------------------------------------------------------------------ */

static uint64_t read_memory(const void *p, size_t bytes)
{
    const char *x = p;
    vec seen[8];
    UNROLL
    for (int j = 0; j < 8; j++)
        seen[j] = vec_set1(0.0f);
    for (const char *end = x + bytes; x < end; x += sizeof seen) {
        UNROLL
        for (int j = 0; j < 8; j++) {
            seen[j] = vec_xor(seen[j], vec_load((const float *)(x + j * (int)sizeof(vec))));
        }
    }
    UNROLL
    for (int j = 1; j < 8; j++)
        seen[0] = vec_xor(seen[0], seen[j]);
    uint64_t part[sizeof(vec) / sizeof(uint64_t)], all = 0;
    memcpy(part, &seen[0], sizeof part);
    for (size_t j = 0; j < sizeof part / sizeof *part; j++)
        all ^= part[j];
    return all;
}

static uint64_t multiply_add(size_t n)
{
    const size_t steps = n * (1000000 / (MR * VECS * LANES * 2));
    const vec factor = vec_opaque(vec_set1(0.5f));
    vec sum[MR * VECS];
    for (int j = 0; j < MR * VECS; j++)
        sum[j] = vec_opaque(vec_set1(0.0f)); /* not known to be equal: one would do for all */
    for (size_t i = 0; i < steps; i++) {
        UNROLL
        for (int j = 0; j < MR * VECS; j++)
            sum[j] = vec_fma(factor, factor, sum[j]);
    }
    for (int j = 0; j < MR * VECS; j++)
        sum[j] = vec_opaque(sum[j]);
    return (uint64_t)steps * MR * VECS * LANES * 2;
}

TEMPLATE void vector_kernels_fill(kernels *k)
{
    k->gemm[QWEN3_DTYPE_F32] = GEMM_ELEMENTS(QWEN3_DTYPE_F32, QWEN3_DTYPE_F32, 1, tile_f32);
    k->gemm[QWEN3_DTYPE_BF16] = GEMM_ELEMENTS(QWEN3_DTYPE_BF16, QWEN3_DTYPE_F32, 2, tile_bf16);
    k->gemm[QWEN3_DTYPE_BF16].expand = expand_bf16;
    k->gemm[QWEN3_DTYPE_BF16].expanded = &k->gemm[QWEN3_DTYPE_F32];
    k->bytes = GEMM_BYTES(QWEN3_DTYPE_F32, tile_bytes);
    k->gemm[QWEN3_DTYPE_Q8] = GEMM_BLOCKS(QWEN3_DTYPE_Q8, Q8_BLOCK_BYTES, expand_q8, &k->gemm[QWEN3_DTYPE_F32]);
    k->gemm[QWEN3_DTYPE_Q4] = GEMM_BLOCKS(QWEN3_DTYPE_Q4, Q4_BLOCK_BYTES, expand_q4, &k->gemm[QWEN3_DTYPE_F32]);
#define FILL_STORED(name, ...)                                                                                         \
    k->gemm[WEIGHT_##name] = GEMM_STORED(WEIGHT_##name, QWEN3_DTYPE_F32, MR, .expand = expand_##name,                  \
                                         .expanded = &k->gemm[QWEN3_DTYPE_F32]);
    EACH_STORED_TYPE(FILL_STORED)
    k->mixed[QWEN3_DTYPE_F32] = GEMM_ELEMENTS(QWEN3_DTYPE_F32, QWEN3_DTYPE_Q8, 1, tile_mixed_f32);
    k->mixed[QWEN3_DTYPE_BF16] = GEMM_ELEMENTS(QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8, 2, tile_mixed_bf16);
    k->mixed[QWEN3_DTYPE_BF16].expand = expand_bf16;
    k->mixed[QWEN3_DTYPE_BF16].expanded = &k->mixed[QWEN3_DTYPE_F32];
    k->rms_norm = rms_norm;
    k->norm_rope = norm_rope;
    k->silu_mul = silu_mul;
    k->add = add;
    k->multiply = multiply;
    k->scale = scale;
    k->max = max;
    k->exp_sum = exp_sum;
    k->dot_rows = dot_rows;
    k->weighted_rows = weighted_rows;
    k->to_bf16 = to_bf16;
    k->to_f32 = to_f32;
    k->bytes_to_bf16 = bytes_to_bf16;
    k->read_memory = read_memory;
    for (int type = 0; type < DTYPE_COUNT; type++)
        k->multiply_add[type] = multiply_add;
}
