/* kernels_neon_i8mm.c - products of many rows by the instructions for 2 x 2 sums: SMMLA (Armv8.6, I8MM) for weights in
 * blocks times activations of 8 bits, BFMMLA for BF16. 6 x 16 tiles.
 *
 * SMMLA adds to c[2, 2] the products of a[2, 8] with b[2, 8] transposed, BFMMLA those of [2, 4]: rows of x with
 * outputs, twice as many products as SDOT and BFDOT have. Panels are expanded once for all rows into the operands b, in
 * the order in which the tiles read them. Of few rows the levels below make better use, as they read panels as they
 * are; stored types, for which these have no products, are expanded for any number of rows.
 *
 * The bits are those of the levels below. Integers are summed exactly and scaled in the same steps. BFMMLA is defined
 * as two BFDOT, one after the other (Arm Architecture Reference Manual, BFMatMulAdd).
 */
#include "kernels/arm/weights_neon.h"
#include "kernels/stored.h"

#define PAIRS (MR / 2) /* of rows, and most in a tile */

/* The second row of a pair; the last one of an odd number of rows is computed twice. */
TEMPLATE size_t second_row(const int rows, size_t pair)
{
    return 2 * pair + 1 < (size_t)rows ? 2 * pair + 1 : 2 * pair;
}

/* Sums of a tile are sum[pair][outputs / 2], a vector for each two rows and two outputs: c[2, 2]. */
TEMPLATE size_t sums_of(const int rows, const size_t outputs)
{
    return (size_t)(rows + 1) / 2 * (outputs / 2);
}

TEMPLATE void load_sums(const int rows, const size_t outputs, const float *y, size_t y_stride, vec *sum)
{
    UNROLL
    for (size_t i = 0; i < sums_of(rows, outputs); i++) {
        const size_t pair = i / (outputs / 2);
        const float *first = y + i % (outputs / 2) * 2;
        sum[i] =
            vcombine_f32(vld1_f32(first + 2 * pair * y_stride), vld1_f32(first + second_row(rows, pair) * y_stride));
    }
}

TEMPLATE void zero_sums(const int rows, const size_t outputs, vec *sum)
{
    UNROLL
    for (size_t i = 0; i < sums_of(rows, outputs); i++)
        sum[i] = vec_set1(0.0f);
}

TEMPLATE void store_sums(const int rows, const size_t outputs, const vec *sum, float *y, size_t y_stride)
{
    UNROLL
    for (size_t i = 0; i < sums_of(rows, outputs); i++) {
        const size_t pair = i / (outputs / 2);
        float *first = y + i % (outputs / 2) * 2 + 2 * pair * y_stride;
        vst1_f32(first, vget_low_f32(sum[i]));
        if (second_row(rows, pair) > 2 * pair)
            vst1_f32(first + y_stride, vget_high_f32(sum[i]));
    }
}

/* ---- Blocks ------------------------------------------------------------------------------------
 *
 * An expanded group is a block of 32 values of each output, value = s q - m:
 *   s [runs][nr] f32, for all values or for each half of them; m [nr] f32, where there is one;
 *   for each half of the outputs, each eight i, each two of the 8 outputs: the q of one, then of the other, signed
 *   bytes in the order of the activations (blocks.h)
 */
typedef enum block_form { PLAIN, HALVES, MINIMUM } block_form;

#define HALF (NR / 2) /* outputs whose sums, of a block and whole, are in registers */
#define EIGHTS (BLOCK / 8)

TEMPLATE size_t form_runs(const block_form form)
{
    return form == HALVES ? 2 : 1;
}

TEMPLATE size_t form_floats(const block_form form)
{
    return form == PLAIN ? 1 : 2;
}

#define FORM_BYTES(form) (BLOCK + ((form) == PLAIN ? 1 : 2) * (int)sizeof(float))

/* What the sums of a block are multiplied by: of each pair of rows the scales, and with minima the sums of the
 * activations times these, taken from the header of a block. */
TEMPLATE float row_factor(const unsigned char *x, bool sums)
{
    float scale;
    int32_t start; /* -128 times the sum */
    memcpy(&scale, x, sizeof scale);
    memcpy(&start, x + sizeof scale, sizeof start);
    return sums ? scale * ((float)start * (1 / 128.0f)) : scale;
}

TEMPLATE vec row_factors(const unsigned char *a, const unsigned char *b, bool sums)
{
    return vcombine_f32(vdup_n_f32(row_factor(a, sums)), vdup_n_f32(row_factor(b, sums)));
}

TEMPLATE vec two_outputs(const float *p)
{
    const float32x2_t two = vld1_f32(p);
    return vcombine_f32(two, two);
}

/* sum += products of a block of each row with those of HALF outputs, whose s and m begin at `floats` and q at `q`. */
TEMPLATE void add_block(const int rows, const block_form form, const unsigned char *x, size_t x_bytes,
                        const float *floats, const int8_t *q, vec sum[PAIRS][HALF / 2])
{
    const size_t pairs = (size_t)(rows + 1) / 2, run_eights = EIGHTS / form_runs(form);
    vec factors[PAIRS];
    UNROLL
    for (size_t p = 0; p < pairs; p++)
        factors[p] = row_factors(x + 2 * p * x_bytes, x + second_row(rows, p) * x_bytes, false);
    UNROLL
    for (size_t run = 0; run < form_runs(form); run++) {
        int32x4_t dots[PAIRS][HALF / 2];
        UNROLL
        for (size_t i = 0; i < pairs * (HALF / 2); i++)
            dots[i / (HALF / 2)][i % (HALF / 2)] = vdupq_n_s32(0);
        UNROLL
        for (size_t e = run * run_eights; e < (run + 1) * run_eights; e++) {
            int8x16_t xi[PAIRS];
            UNROLL
            for (size_t p = 0; p < pairs; p++) {
                const int8_t *at = (const int8_t *)x + activation_offset(8 * e);
                xi[p] = vcombine_s8(vld1_s8(at + 2 * p * x_bytes), vld1_s8(at + second_row(rows, p) * x_bytes));
            }
            UNROLL
            for (size_t o = 0; o < HALF / 2; o++) {
                const int8x16_t two = vld1q_s8(q + (e * HALF / 2 + o) * 16);
                UNROLL
                for (size_t p = 0; p < pairs; p++)
                    dots[p][o] = vmmlaq_s32(dots[p][o], xi[p], two);
            }
        }
        UNROLL
        for (size_t o = 0; o < HALF / 2; o++) {
            const vec s = two_outputs(floats + run * NR + 2 * o);
            UNROLL
            for (size_t p = 0; p < pairs; p++)
                sum[p][o] = vec_fma(vec_mul(s, vcvtq_f32_s32(dots[p][o])), factors[p], sum[p][o]);
        }
    }
    if (form != MINIMUM)
        return;
    UNROLL
    for (size_t p = 0; p < pairs; p++) {
        const vec sums = row_factors(x + 2 * p * x_bytes, x + second_row(rows, p) * x_bytes, true);
        UNROLL
        for (size_t o = 0; o < HALF / 2; o++)
            sum[p][o] = vec_fma(two_outputs(floats + NR + 2 * o), sums, sum[p][o]);
    }
}

TEMPLATE void tile_form(const int rows, const block_form form, size_t k_groups, const unsigned char *x, size_t x_stride,
                        const unsigned char *w, float *y, size_t y_stride, bool accumulate,
                        const gemm_prefetch *prefetch)
{
    (void)prefetch; /* the panel has just been written */
    const size_t x_bytes = x_stride / BLOCK * ACTIVATION_BLOCK_BYTES,
                 floats_bytes = form_floats(form) * NR * sizeof(float);
    for (size_t half = 0; half < NR; half += HALF) {
        vec sum[PAIRS][HALF / 2];
        if (accumulate)
            load_sums(rows, HALF, y + half, y_stride, sum[0]);
        else
            zero_sums(rows, HALF, sum[0]);
        for (size_t g = 0; g < k_groups; g++) {
            const unsigned char *group = w + g * (size_t)(NR * FORM_BYTES(form));
            add_block(rows, form, x + g * ACTIVATION_BLOCK_BYTES, x_bytes, (const float *)group + half,
                      (const int8_t *)group + floats_bytes + half * BLOCK, sum);
        }
        store_sums(rows, HALF, sum[0], y + half, y_stride);
    }
}

DEFINE_TILE(tile_plain, tile_form, PLAIN)
DEFINE_TILE(tile_halves, tile_form, HALVES)
DEFINE_TILE(tile_minimum, tile_form, MINIMUM)

#define FORM(form, tile_function)                                                                                      \
    GEMM(QWEN3_DTYPE_Q8, QWEN3_DTYPE_Q8, BLOCK, FORM_BYTES(form), MR, .tile = tile_function)
static const gemm_kernel plain = FORM(PLAIN, tile_plain), halves = FORM(HALVES, tile_halves),
                         minimum = FORM(MINIMUM, tile_minimum);

/* Of the eight i with number e: values 0, 4, 1, 5 and 2, 6, 3, 7 of a vector of outputs, the v-th, to their place among
 * the q of a group. */
TEMPLATE void store_eight(int8_t *q, size_t v, size_t e, int8x16_t first, int8x16_t second)
{
    const int32x4_t a = vreinterpretq_s32_s8(first), b = vreinterpretq_s32_s8(second);
    int8_t *to = q + v * LANES / HALF * HALF * BLOCK + (e * HALF + v * LANES % HALF) / 2 * 16;
    vst1q_s8(to, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
    vst1q_s8(to + 16, vreinterpretq_s8_s32(vzip2q_s32(a, b)));
}

TEMPLATE void expand_blocks(const qwen3_dtype storage, size_t k_groups, const unsigned char *w, unsigned char *panel)
{
    const size_t width = storage == QWEN3_DTYPE_Q8 ? 2 : 4,
                 eight_bytes = NR * width * (storage == QWEN3_DTYPE_Q8 ? 4 : 1);
    const int8x16_t levels = vld1q_s8(q4_values);
    for (size_t g = 0; g < k_groups; g++, panel += NR * FORM_BYTES(PLAIN)) {
        float *scales = (float *)panel;
        int8_t *q = (int8_t *)(scales + NR);
        for (size_t v = 0; v < VECS; v++)
            vec_store(scales + v * LANES, vec_load_part_bf16((const bf16 *)w + v * LANES, LANES));
        w += NR * sizeof(bf16);
        for (size_t e = 0; e < EIGHTS; e++, w += eight_bytes) {
            UNROLL
            for (size_t v = 0; v < VECS; v += 2) {
                int8x16_t fours[2][2];
                load_weights(storage, levels, w + v * LANES * width, fours);
                store_eight(q, v, e, fours[0][0], fours[1][0]);
                store_eight(q, v + 1, e, fours[0][1], fours[1][1]);
            }
        }
    }
}

static void expand_q8(size_t k_groups, const void *w, void *panel)
{
    expand_blocks(QWEN3_DTYPE_Q8, k_groups, w, panel);
}

static void expand_q4(size_t k_groups, const void *w, void *panel)
{
    expand_blocks(QWEN3_DTYPE_Q4, k_groups, w, panel);
}

/* ---- Stored types ------------------------------------------------------------------------------ */

TEMPLATE block_form form_of(const stored_format f)
{
    return f.scales == 2 ? HALVES : f.minimum ? MINIMUM : PLAIN;
}

/* What is taken off the four values of each output of a vector, whose zero points are at `zeros`. */
TEMPLATE uint8x16_t load_bias(const stored_format f, const unsigned char *zeros)
{
    static const uint8_t fours[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t bias = vdupq_n_u8((uint8_t)f.bias);
    if (!f.zero)
        return bias;
    uint32_t z;
    memcpy(&z, zeros, sizeof z);
    return vaddq_u8(bias, vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(z)), vld1q_u8(fours)));
}

/* Four values, those with number `four` of a block, of each output of a vector; the block's low and high bits of the
 * vector begin at `low` and `high`. */
TEMPLATE int8x16_t load_four(const stored_format f, int8x16_t levels, uint8x16_t bias, const unsigned char *low,
                             const unsigned char *high, const size_t four)
{
    uint8x16_t code = vld1q_u8(low + (f.low == 8 ? four : four / 2) * NR * 4);
    if (f.low == 4)
        code = four % 2 ? vshrq_n_u8(code, 4) : vandq_u8(code, vdupq_n_u8(15));
    if (f.high) {
        const uint8x16_t word = vld1q_u8(high + four * (size_t)f.high / 8 * NR * 4);
        const int8x16_t shift =
            vdupq_n_s8((int8_t)(4 - (int)four * f.high % 8)); /* from their place in a byte to bit 4 */
        code = vorrq_u8(code, vandq_u8(vshlq_u8(word, shift), vdupq_n_u8(f.high == 1 ? 0x10 : 0x30)));
    }
    return f.levels ? vqtbl1q_s8(levels, code) : vreinterpretq_s8_u8(vsubq_u8(code, bias));
}

/* d or m of the group at `halves`, times the small integers at `bytes`, or NULL. */
TEMPLATE void store_floats(float *to, const unsigned char *group_halves, const unsigned char *bytes)
{
    UNROLL
    for (size_t v = 0; v < VECS; v++) {
        vec x = vec_halves(group_halves + v * LANES * 2);
        if (bytes)
            x = vec_mul(x, vec_bytes(bytes + v * LANES));
        vec_store(to + v * LANES, x);
    }
}

TEMPLATE void expand_stored(const weight_type type, size_t k_groups, const unsigned char *w, unsigned char *panel)
{
    const stored_format f = stored_format_of(type);
    const block_form form = form_of(f);
    const int8x16_t levels = f.levels ? vld1q_s8(f.levels) : vdupq_n_s8(0);
    for (size_t g = 0; g < k_groups; g++) {
        const unsigned char *d = w, *zeros = w + NR * stored_halves_bytes(f);
        w += NR * stored_head_bytes(f);
        for (int b = 0; b < f.blocks; b++, w += NR * stored_block_bytes(f), panel += NR * FORM_BYTES(form)) {
            float *floats = (float *)panel;
            int8_t *q = (int8_t *)(floats + NR * form_floats(form));
            UNROLL
            for (size_t run = 0; run < form_runs(form); run++)
                store_floats(floats + run * NR, d, f.scales ? w + run * NR : NULL);
            if (f.minimum)
                store_floats(floats + NR, d + 2 * NR, f.scales ? w + NR : NULL);
            const unsigned char *low = w + NR * stored_scales_bytes(f), *high = low + NR * (size_t)f.low * 4;
            for (size_t v = 0; v < VECS; v++, low += LANES * 4, high += LANES * 4) {
                const uint8x16_t bias = load_bias(f, zeros + v * LANES);
                UNROLL
                for (size_t e = 0; e < EIGHTS; e++)
                    store_eight(q, v, e, load_four(f, levels, bias, low, high, 2 * e),
                                load_four(f, levels, bias, low, high, 2 * e + 1));
            }
        }
    }
}

EACH_STORED_TYPE(DEFINE_EXPAND)

/* ---- BF16 --------------------------------------------------------------------------------------
 *
 * An expanded group is four values of each output: of each two outputs those of one, then of the other. */

#define FOUR 4

TEMPLATE bfloat16x8_t two_rows(const bf16 *a, const bf16 *b)
{
    return vreinterpretq_bf16_u16(vcombine_u16(vld1_u16(a), vld1_u16(b)));
}

TEMPLATE void tile_rows(const int rows, const qwen3_dtype storage, size_t k_groups, const bf16 *x, size_t x_stride,
                        const bf16 *w, float *y, size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    (void)storage;
    (void)prefetch; /* the panel has just been written */
    const size_t pairs = (size_t)(rows + 1) / 2;
    vec sum[PAIRS][NR / 2];
    if (accumulate)
        load_sums(rows, NR, y, y_stride, sum[0]);
    else
        zero_sums(rows, NR, sum[0]);
    for (size_t g = 0; g < k_groups; g++, x += FOUR, w += NR * FOUR) {
        bfloat16x8_t xi[PAIRS];
        UNROLL
        for (size_t p = 0; p < pairs; p++)
            xi[p] = two_rows(x + 2 * p * x_stride, x + second_row(rows, p) * x_stride);
        UNROLL
        for (size_t o = 0; o < NR / 2; o++) {
            const bfloat16x8_t two = vreinterpretq_bf16_u16(vld1q_u16(w + o * 2 * FOUR));
            UNROLL
            for (size_t p = 0; p < pairs; p++)
                sum[p][o] = vbfmmlaq_f32(sum[p][o], xi[p], two);
        }
    }
    store_sums(rows, NR, sum[0], y, y_stride);
}

DEFINE_TILE(tile_bf16, tile_rows, QWEN3_DTYPE_BF16)

static const gemm_kernel fours =
    GEMM(QWEN3_DTYPE_BF16, QWEN3_DTYPE_BF16, FOUR, FOUR * sizeof(bf16), MR, .tile = tile_bf16);

/* Two groups of pairs become one of fours; where the last has no second, it is 0. */
static void expand_bf16(size_t k_groups, const void *w, void *panel)
{
    const uint32_t *from = w;
    uint32_t *to = panel;
    for (size_t g = 0; g < k_groups; g += 2, from += 2 * NR, to += 2 * NR) {
        UNROLL
        for (size_t v = 0; v < NR; v += LANES) {
            const uint32x4_t a = vld1q_u32(from + v), b = g + 1 < k_groups ? vld1q_u32(from + NR + v) : vdupq_n_u32(0);
            vst1q_u32(to + 2 * v, vzip1q_u32(a, b));
            vst1q_u32(to + 2 * v + LANES, vzip2q_u32(a, b));
        }
    }
}

/* ---- Limits ------------------------------------------------------------------------------------ */

#define DEFINE_MULTIPLY_ADD(name, sum_type, factor_of, factor_bits, instruction, products)                             \
    static uint64_t name(size_t n)                                                                                     \
    {                                                                                                                  \
        const size_t steps = n * (1000000 / (MR * VECS * 2 * (products)));                                             \
        uint32_t bits = factor_bits;                                                                                   \
        __asm__ volatile("" : "+r"(bits));                                                                             \
        sum_type sum[MR * VECS];                                                                                       \
        UNROLL                                                                                                         \
        for (int j = 0; j < MR * VECS; j++) {                                                                          \
            sum[j] = (sum_type){0};                                                                                    \
            __asm__ volatile("" : "+w"(sum[j])); /* not known to be equal: one would do for all */                     \
        }                                                                                                              \
        for (size_t i = 0; i < steps; i++) {                                                                           \
            UNROLL                                                                                                     \
            for (int j = 0; j < MR * VECS; j++)                                                                        \
                sum[j] = instruction(sum[j], factor_of(vdupq_n_u32(bits)), factor_of(vdupq_n_u32(bits)));              \
        }                                                                                                              \
        UNROLL                                                                                                         \
        for (int j = 0; j < MR * VECS; j++)                                                                            \
            __asm__ volatile("" : : "w"(sum[j]));                                                                      \
        return (uint64_t)steps * MR * VECS * 2 * (products);                                                           \
    }

DEFINE_MULTIPLY_ADD(multiply_add_bytes, int32x4_t, vreinterpretq_s8_u32, 0x01010101, vmmlaq_s32, 32)
DEFINE_MULTIPLY_ADD(multiply_add_bf16, float32x4_t, vreinterpretq_bf16_u32, 0x3f003f00, vbfmmlaq_f32, 16) /* 0.5 */

void kernels_init_neon_i8mm(kernels *k)
{
    k->gemm[QWEN3_DTYPE_BF16].expand = expand_bf16;
    k->gemm[QWEN3_DTYPE_BF16].expanded = &fours;
    k->gemm[QWEN3_DTYPE_Q8].expand = expand_q8;
    k->gemm[QWEN3_DTYPE_Q8].expanded = &plain;
    k->gemm[QWEN3_DTYPE_Q4].expand = expand_q4;
    k->gemm[QWEN3_DTYPE_Q4].expanded = &plain;
#define FILL_STORED(name, ...)                                                                                         \
    k->gemm[WEIGHT_##name].expand = expand_##name;                                                                     \
    k->gemm[WEIGHT_##name].expanded = form_of(stored_format_of(WEIGHT_##name)) == HALVES    ? &halves                  \
                                      : form_of(stored_format_of(WEIGHT_##name)) == MINIMUM ? &minimum                 \
                                                                                            : &plain;
    EACH_STORED_TYPE(FILL_STORED)
    k->multiply_add[QWEN3_DTYPE_BF16] = multiply_add_bf16;
    k->multiply_add[QWEN3_DTYPE_Q8] = multiply_add_bytes;
    k->multiply_add[QWEN3_DTYPE_Q4] = multiply_add_bytes;
}
