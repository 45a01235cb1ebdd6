/* quantise.c - weights to blocks (blocks.h), and blocks to panels.
 *
 * Q8 rounds to the nearest of 255 multiples of the scale that fits the largest value.
 * Q4 tries several scales of both signs (the levels are not symmetric). For given codes t the squared error
 * |x - s t|^2 is smallest for s = <x, t> / <t, t>, where it is |x|^2 - <x, t>^2 / <t, t>: the candidate with the
 * largest <x, t>^2 / <t, t> wins. On normally distributed values the relative error is 0.074; symmetric rounding
 * by the largest value alone gives 0.097.
 *
 * Everything is a function of the 32 values, computed in one order at every level and on every machine.
 */
#include "kernels/blocks.h"
#include "kernels/tile.h"

const int8_t q4_values[16] = {-127, -101, -80, -63, -48, -35, -23, -11, 0, 11, 23, 35, 49, 64, 82, 105};

const float q4_targets[4] = {100, 110, 120, 130};

static float largest_magnitude(const float *x)
{
    float largest = 0.0f;
    for (size_t i = 0; i < BLOCK; i++) {
        const float magnitude = fabsf(x[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* q[i] = a x[i] rounded to the nearest integer in -127..127. Adding 1.5 * 2^23 leaves the integer in the low bits. */
static void round_block(const float *x, float a, int8_t *q)
{
    float scaled[BLOCK];
    uint32_t bits[BLOCK];
    for (size_t i = 0; i < BLOCK; i++) {
        scaled[i] = a * x[i];
        scaled[i] = scaled[i] > 127.0f ? 127.0f : scaled[i];
        scaled[i] = scaled[i] < -127.0f ? -127.0f : scaled[i];
        scaled[i] += 12582912.0f;
    }
    memcpy(bits, scaled, sizeof bits);
    for (size_t i = 0; i < BLOCK; i++)
        q[i] = (int8_t)(uint8_t)bits[i];
}

bool q8_quantise(const float *x, bf16 *scale, int8_t *q)
{
    const float largest = largest_magnitude(x);
    *scale = largest < LEAST_MAGNITUDE ? 0 : f32_to_bf16(largest / 127.0f);
    const float s = bf16_to_f32(*scale);
    round_block(x, s > 0.0f ? 1.0f / s : 0.0f, q);
    return isfinite(127.0f * s);
}

/* Bytes as GNU C has vectors on every architecture. */
typedef int8_t byte16 __attribute__((vector_size(16)));

/* levels[i] = the level nearest to q[i], codes[i] its code. */
static void nearest_levels(const int8_t *q, int8_t *levels, int8_t *codes)
{
    for (size_t i = 0; i < BLOCK; i += sizeof(byte16)) {
        byte16 from, level = (byte16){0} + q4_values[0], code = {0};
        memcpy(&from, q + i, sizeof from);
        UNROLL
        for (size_t c = 0; c + 1 < sizeof q4_values; c++) {
            const int8_t step = (int8_t)(q4_values[c + 1] - q4_values[c]);
            const int8_t middle = (int8_t)((q4_values[c + 1] + q4_values[c] + 256) / 2 - 128); /* rounded down */
            const byte16 above = (byte16)(from > middle);                                      /* all bits or none */
            level += above & step;
            code -= above;
        }
        memcpy(levels + i, &level, sizeof level);
        memcpy(codes + i, &code, sizeof code);
    }
}

/* <x, levels>, added in one order on every machine. */
static float product_of(const float *x, const int8_t *levels)
{
    float product[BLOCK];
    for (size_t i = 0; i < BLOCK; i++)
        product[i] = x[i] * (float)levels[i];
    for (size_t half = BLOCK / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++)
            product[i] += product[i + half];
    return product[0];
}

static int32_t square_of(const int8_t *levels)
{
    int32_t sum = 0;
    for (size_t i = 0; i < BLOCK; i++)
        sum += levels[i] * levels[i];
    return sum;
}

bool q4_quantise(const float *x, bf16 *scale, int8_t *codes)
{
    const float largest = largest_magnitude(x);
    int8_t q[BLOCK], levels[BLOCK];
    if (largest < LEAST_MAGNITUDE) {
        *scale = 0;
        memset(codes, Q4_ZERO, BLOCK);
        return true;
    }
    float unit[BLOCK]; /* x by its largest magnitude: squares and sums stay finite */
    for (size_t i = 0; i < BLOCK; i++)
        unit[i] = x[i] / largest;
    float best = -1.0f, best_scale = 0.0f;
    for (size_t c = 0; c < 2 * sizeof q4_targets / sizeof *q4_targets; c++) {
        round_block(unit, c & 1 ? -q4_targets[c / 2] : q4_targets[c / 2], q);
        nearest_levels(q, levels, codes);
        const float product = product_of(unit, levels), fit = product / (float)square_of(levels);
        if (fit * product > best) {
            best = fit * product;
            best_scale = fit;
        }
    }
    *scale = f32_to_bf16(best_scale * largest);
    const float s = bf16_to_f32(*scale);
    round_block(x, 1.0f / s, q);
    nearest_levels(q, levels, codes);
    return isfinite(127.0f * s);
}

/* ---- Panels ------------------------------------------------------------------------------------ */

/* How far ahead of its use a row of the source is prefetched: the hardware does not follow so many rows at once. */
#define PREFETCH_BLOCKS 2

/* BLOCK columns of a source row, of which the first n exist, as f32. Returns false where one is not finite. */
static bool load_block(const void *src, qwen3_dtype type, size_t n, float *x)
{
    union {
        float f32[BLOCK];
        bf16 bf16[BLOCK];
    } part = {{0}};
    const void *whole = src;
    if (n < BLOCK) {
        memcpy(&part, src, n * dtype_size(type));
        whole = &part;
    }
    if (type == QWEN3_DTYPE_F32) {
        memcpy(x, whole, BLOCK * sizeof *x);
    } else {
        bf16 h[BLOCK];
        memcpy(h, whole, sizeof h);
        for (size_t i = 0; i < BLOCK; i++)
            x[i] = bf16_to_f32(h[i]);
    }
    uint32_t bits[BLOCK], bad = 0;
    memcpy(bits, x, sizeof bits);
    for (size_t i = 0; i < BLOCK; i++)
        bad |= (bits[i] & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

/* One block into a group, as output j. */
static bool store_block(const gemm_kernel *g, size_t j, const float *x, unsigned char *group)
{
    const size_t nr = (size_t)g->nr;
    bf16 scale;
    int8_t q[BLOCK];
    const bool finite = g->quantise(x, &scale, q);
    if (g->storage == QWEN3_DTYPE_Q8) {
        for (size_t i = 0; i < BLOCK; i += 2)
            memcpy(group + q8_offset(nr, i) + 2 * j, q + i, 2);
    } else {
        for (size_t i = 0; i < BLOCK; i += 8) {
            uint32_t word = 0;
            for (size_t e = 0; e < 8; e++)
                word |= (uint32_t)q[i + e] << q4_shift(e);
            memcpy(group + q4_offset(nr, i) + 4 * j, &word, sizeof word);
        }
    }
    memcpy(group + j * sizeof scale, &scale, sizeof scale);
    return finite;
}

bool blocks_pack_panel(const gemm_kernel *g, const matrix_rows *rows, void *panel)
{
    const size_t nr = (size_t)g->nr, size = dtype_size(rows->type);
    const float none[BLOCK] = {0};
    bool finite = true;
    unsigned char *group = panel;
    for (size_t i = 0; i < rows->k; i += BLOCK, group += nr * (size_t)g->group_bytes) {
        const size_t count = rows->k - i < BLOCK ? rows->k - i : BLOCK;
        for (size_t j = 0; j < rows->n; j++) {
            const unsigned char *from = (const unsigned char *)rows->data + (j * rows->stride + i) * size;
            float x[BLOCK];
            for (size_t b = 0; b < BLOCK * size; b += 64)
                __builtin_prefetch(from + PREFETCH_BLOCKS * BLOCK * size + b);
            const bool loaded = load_block(from, rows->type, count, x);
            finite &= store_block(g, j, loaded ? x : none, group) && loaded;
        }
        for (size_t j = rows->n; j < nr; j++)
            store_block(g, j, none, group);
    }
    return finite;
}
