/* kernels_c.c - every kernel in plain C: the specification, and the level of last resort. Loops are
 * written so that compilers vectorise them for the baseline of the architecture. */
#include "kernels/blocks.h"
#include "kernels/exp_constants.h"
#include "kernels/stored.h"
#include "kernels/tile.h"

#define NR 16

/* Vectors as GNU C has them on every architecture: compilers do not keep an array of sums in registers. */
typedef float float4 __attribute__((vector_size(16)));
typedef uint32_t uint4 __attribute__((vector_size(16)));
#define VECS (NR / 4)

/* Row by row, so that the NR sums of a row fit the registers. Groups of packed BF16 hold the values of two
 * consecutive i as one 32-bit element, the even i in the low half (little-endian machines). */
TEMPLATE void tile_as(const qwen3_dtype storage, int rows, size_t k_groups, const float *x, size_t x_stride,
                      const void *w, float *y, size_t y_stride, bool accumulate)
{
    for (int r = 0; r < rows; r++, x += x_stride, y += y_stride) {
        float4 sum[VECS] = {0};
        if (accumulate)
            memcpy(sum, y, sizeof sum);
        for (size_t group = 0; group < k_groups; group++) {
            const unsigned char *values = (const unsigned char *)w + group * NR * sizeof(uint32_t);
            UNROLL
            for (int v = 0; v < VECS; v++) {
                uint4 bits;
                memcpy(&bits, values + (size_t)v * sizeof bits, sizeof bits);
                if (storage == QWEN3_DTYPE_F32) {
                    sum[v] += x[group] * (float4)bits;
                } else {
                    sum[v] += x[2 * group] * (float4)(bits << 16);
                    sum[v] += x[2 * group + 1] * (float4)(bits & 0xffff0000u);
                }
            }
        }
        memcpy(y, sum, sizeof sum);
    }
}

static void tile_f32(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,
                     size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    (void)prefetch;
    tile_as(QWEN3_DTYPE_F32, rows, k_groups, x, x_stride, w, y, y_stride, accumulate);
}

static void tile_bf16(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,
                      size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    (void)prefetch;
    tile_as(QWEN3_DTYPE_BF16, rows, k_groups, x, x_stride, w, y, y_stride, accumulate);
}

/* Blocks to a panel of F32. */
static void expand_q8(size_t k_groups, const void *w, void *panel)
{
    const unsigned char *group = w;
    float *out = panel;
    for (size_t g = 0; g < k_groups; g++, group += NR * Q8_BLOCK_BYTES) {
        for (size_t i = 0; i < BLOCK; i++, out += NR) {
            for (size_t j = 0; j < NR; j++) {
                bf16 scale;
                int8_t q;
                memcpy(&scale, group + j * sizeof scale, sizeof scale);
                memcpy(&q, group + q8_offset(NR, i) + 2 * j, sizeof q);
                out[j] = bf16_to_f32(scale) * (float)q;
            }
        }
    }
}

static void expand_q4(size_t k_groups, const void *w, void *panel)
{
    const unsigned char *group = w;
    float *out = panel;
    for (size_t g = 0; g < k_groups; g++, group += NR * Q4_BLOCK_BYTES) {
        for (size_t i = 0; i < BLOCK; i++, out += NR) {
            for (size_t j = 0; j < NR; j++) {
                bf16 scale;
                uint32_t codes;
                memcpy(&scale, group + j * sizeof scale, sizeof scale);
                memcpy(&codes, group + q4_offset(NR, i) + 4 * j, sizeof codes);
                out[j] = bf16_to_f32(scale) * (float)q4_values[codes >> q4_shift(i) & 15];
            }
        }
    }
}

TEMPLATE uint32_t word_at(const unsigned char *words, size_t word, size_t j)
{
    uint32_t value;
    memcpy(&value, words + (word * NR + j) * sizeof value, sizeof value);
    return value;
}

/* Value i of output j in a block of 32 at `block`: d s (q - bias - z) - m t, with one rounding at most. */
TEMPLATE float stored_value(const stored_format f, const unsigned char *block, float d, float m, int z, size_t i,
                            size_t j)
{
    const unsigned char *low = block + NR * stored_scales_bytes(f), *high = low + NR * (size_t)f.low * sizeof(uint32_t);
    int q = (int)(word_at(low, stored_low_word(f, i), j) >> stored_low_shift(f, i) & ((1u << f.low) - 1));
    if (f.high)
        q |= (int)(word_at(high, stored_high_word(f, i), j) >> stored_high_shift(f, i) & ((1u << f.high) - 1)) << f.low;
    q = f.levels ? f.levels[q] : q - f.bias - z;
    const float scale = f.scales ? d * (float)(int8_t)block[i / (size_t)stored_run(f) * NR + j] : d;
    if (!f.minimum)
        return scale * (float)q;
    return scale * (float)q - (f.scales ? m * (float)block[(size_t)f.scales * NR + j] : m);
}

TEMPLATE void expand_stored(const weight_type type, size_t k_groups, const void *w, float *out)
{
    const stored_format f = stored_format_of(type);
    const unsigned char *group = w;
    for (size_t g = 0; g < k_groups; g++) {
        const unsigned char *halves = group, *zeros = group + NR * stored_halves_bytes(f);
        group += NR * stored_head_bytes(f);
        for (int b = 0; b < f.blocks; b++, group += NR * stored_block_bytes(f)) {
            for (size_t i = 0; i < BLOCK; i++, out += NR) {
                for (size_t j = 0; j < NR; j++) {
                    uint16_t d, m = 0;
                    memcpy(&d, halves + j * sizeof d, sizeof d);
                    if (f.minimum)
                        memcpy(&m, halves + (NR + j) * sizeof m, sizeof m);
                    out[j] = stored_value(f, group, f16_to_f32(d), f16_to_f32(m), f.zero ? zeros[j] : 0, i, j);
                }
            }
        }
    }
}

EACH_STORED_TYPE(DEFINE_EXPAND)

DEFINE_MIXED_TILE(tile_mixed_f32, QWEN3_DTYPE_F32, tile_f32)
DEFINE_MIXED_TILE(tile_mixed_bf16, QWEN3_DTYPE_BF16, tile_bf16)

static inline void store(void *y, qwen3_dtype y_type, size_t i, float value)
{
    if (y_type == QWEN3_DTYPE_F32)
        ((float *)y)[i] = value;
    else
        ((bf16 *)y)[i] = f32_to_bf16(value);
}

/* The same where y_type may be Q8, for i in ascending order up to n - 1. block[BLOCK] keeps what is not stored yet. */
static inline void store_activation(void *y, qwen3_dtype y_type, size_t n, size_t i, float value, float *block)
{
    if (y_type != QWEN3_DTYPE_Q8) {
        store(y, y_type, i, value);
        return;
    }
    block[i % BLOCK] = value;
    if (i + 1 < n && i % BLOCK + 1 < BLOCK)
        return;
    for (size_t rest = i % BLOCK + 1; rest < BLOCK; rest++)
        block[rest] = 0.0f;
    activation_store_block(block, (unsigned char *)y + i / BLOCK * ACTIVATION_BLOCK_BYTES);
}

/* See exp_constants.h. NaN stays NaN. */
static inline float exp_f32(float x)
{
    const float rounded = x * EXP_LOG2E + EXP_ROUNDER;
    const float n = rounded - EXP_ROUNDER;
    const float r = (x - n * EXP_LN2_HIGH) - n * EXP_LN2_LOW;
    const float p = ((EXP_P3 * r + EXP_P2) * r + EXP_P1) * r + EXP_P0;
    uint32_t bits;
    float power;
    memcpy(&bits, &rounded, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&power, &bits, sizeof power);
    return x < EXP_MIN ? 0.0f : power * ((p * r + 1.0f) * r + 1.0f);
}

/* 1 / sqrt(mean(x^2) + eps) */
static float norm_factor(size_t n, const float *x, float eps)
{
    float sum = 0.0f, lane[16] = {0}; /* partial sums that the compiler may keep in vector registers */
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++)
            lane[j] += x[i + j] * x[i + j];
    for (; i < n; i++)
        lane[i % 16] += x[i] * x[i];
    for (size_t j = 0; j < 16; j++)
        sum += lane[j];
    return inverse_rms(sum, n, eps);
}

static void rms_norm(size_t n, const float *x, const float *w, float eps, void *y, qwen3_dtype y_type)
{
    const float factor = norm_factor(n, x, eps);
    float block[BLOCK];
    for (size_t i = 0; i < n; i++)
        store_activation(y, y_type, n, i, x[i] * factor * w[i], block);
}

static void norm_rope(size_t d, const float *x, const float *w, float eps, const float *cosines, const float *sines,
                      float scale, void *y, qwen3_dtype y_type)
{
    const size_t half = d / 2;
    const float factor = w ? norm_factor(d, x, eps) : 1.0f;
    for (size_t i = 0; i < half; i++) {
        const float a = w ? x[i] * factor * w[i] : x[i], b = w ? x[i + half] * factor * w[i + half] : x[i + half];
        store(y, y_type, i, scale * (a * cosines[i] - b * sines[i]));
        store(y, y_type, i + half, scale * (b * cosines[i] + a * sines[i]));
    }
}

static void silu_mul(size_t n, const float *gate, const float *up, void *y, qwen3_dtype y_type)
{
    float block[BLOCK];
    for (size_t i = 0; i < n; i++) {
        const float t = exp_f32(-fabsf(gate[i]));
        const float numerator = gate[i] < 0.0f ? t : 1.0f;
        store_activation(y, y_type, n, i, gate[i] * (numerator / (1.0f + t)) * up[i], block);
    }
}

static void add(size_t n, float *x, const float *y)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void multiply(size_t n, const float *x, const float *w, void *y, qwen3_dtype y_type)
{
    for (size_t i = 0; i < n; i++)
        store(y, y_type, i, x[i] * w[i]);
}

static void scale(size_t n, float a, const float *x, void *y, qwen3_dtype y_type)
{
    float block[BLOCK];
    for (size_t i = 0; i < n; i++)
        store_activation(y, y_type, n, i, a * x[i], block);
}

static float max(size_t n, const float *s)
{
    float largest = -INFINITY;
    for (size_t i = 0; i < n; i++)
        largest = s[i] > largest ? s[i] : largest;
    return largest;
}

static float exp_sum(size_t n, const float *s, float m, void *p, qwen3_dtype p_type)
{
    float lane[16] = {0};
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float e = exp_f32(s[i] - m);
        lane[i % 16] += e;
        store(p, p_type, i, e);
    }
    for (size_t j = 0; j < 16; j++)
        sum += lane[j];
    return sum;
}

static void dot_rows(size_t rows, size_t n, size_t k, const float *x, size_t x_stride, const float *w, size_t w_stride,
                     float *y, size_t y_stride)
{
    for (size_t j = 0; j < n; j++, w += w_stride) {
        for (size_t r = 0; r < rows; r++) {
            float lane[16] = {0}, sum = 0.0f;
            size_t i = 0;
            for (; i + 16 <= k; i += 16)
                for (size_t l = 0; l < 16; l++)
                    lane[l] += x[r * x_stride + i + l] * w[i + l];
            for (; i < k; i++)
                lane[i % 16] += x[r * x_stride + i] * w[i];
            for (size_t l = 0; l < 16; l++)
                sum += lane[l];
            y[r * y_stride + j] = sum;
        }
    }
}

static void weighted_rows(size_t rows, size_t n, size_t k, const float *x, size_t x_stride, const float *w,
                          size_t w_stride, float *y, size_t y_stride)
{
    for (size_t j = 0; j < n; j++, w += w_stride)
        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < k; i++)
                y[r * y_stride + i] += x[r * x_stride + j] * w[i];
}

static void to_bf16(size_t n, const float *x, bf16 *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f32_to_bf16(x[i]);
}

static void to_f32(size_t n, const bf16 *x, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bf16_to_f32(x[i]);
}

static void bytes_to_bf16(size_t n, const int8_t *x, bf16 *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f32_to_bf16((float)x[i]);
}

static uint64_t read_memory(const void *p, size_t bytes)
{
    const uint64_t *x = p;
    uint64_t lane[8] = {0};
    for (size_t i = 0; i < bytes / sizeof *x; i += 8)
        for (size_t j = 0; j < 8; j++)
            lane[j] ^= x[i + j];
    return lane[0] ^ lane[1] ^ lane[2] ^ lane[3] ^ lane[4] ^ lane[5] ^ lane[6] ^ lane[7];
}

/* 32 independent sums hide the latency of the additions. */
static uint64_t multiply_add(size_t n)
{
    const size_t steps = n * 15625;
    volatile float seed = 0.5f;
    float sum[32] = {0}, factor[32];
    for (int j = 0; j < 32; j++)
        factor[j] = seed;
    for (size_t i = 0; i < steps; i++)
        for (int j = 0; j < 32; j++)
            sum[j] = sum[j] * factor[j] + factor[j];
    for (int j = 0; j < 32; j++)
        seed = sum[j];
    return (uint64_t)steps * 32 * 2;
}

void kernels_init_c(kernels *k)
{
    k->gemm[QWEN3_DTYPE_F32] = GEMM_ELEMENTS(QWEN3_DTYPE_F32, QWEN3_DTYPE_F32, 1, tile_f32);
    k->gemm[QWEN3_DTYPE_BF16] = GEMM_ELEMENTS(QWEN3_DTYPE_BF16, QWEN3_DTYPE_F32, 2, tile_bf16);
    k->gemm[QWEN3_DTYPE_Q8] = GEMM_BLOCKS(QWEN3_DTYPE_Q8, Q8_BLOCK_BYTES, expand_q8, &k->gemm[QWEN3_DTYPE_F32]);
    k->gemm[QWEN3_DTYPE_Q4] = GEMM_BLOCKS(QWEN3_DTYPE_Q4, Q4_BLOCK_BYTES, expand_q4, &k->gemm[QWEN3_DTYPE_F32]);
#define FILL_STORED(name, ...)                                                                                         \
    k->gemm[WEIGHT_##name] = GEMM_STORED(WEIGHT_##name, QWEN3_DTYPE_F32, MR, .expand = expand_##name,                  \
                                         .expanded = &k->gemm[QWEN3_DTYPE_F32]);
    EACH_STORED_TYPE(FILL_STORED)
    k->mixed[QWEN3_DTYPE_F32] = GEMM_ELEMENTS(QWEN3_DTYPE_F32, QWEN3_DTYPE_Q8, 1, tile_mixed_f32);
    k->mixed[QWEN3_DTYPE_BF16] = GEMM_ELEMENTS(QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8, 2, tile_mixed_bf16);
    k->quantise[QWEN3_DTYPE_Q8] = q8_quantise;
    k->quantise[QWEN3_DTYPE_Q4] = q4_quantise;
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
