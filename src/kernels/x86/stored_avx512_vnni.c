/* stored_avx512_vnni.c - stored types of weights (stored_types.h) times activations of 8 bits (VPDPBUSD).
 *
 * As in kernels_avx512_vnni.c integers are summed exactly within a block, or half of one where that has a scale of its
 * own, and the unsigned bytes of the instruction are the weights: codes as they are, levels of a table 128 too large,
 * codes with a zero point 16 too large.
 * What a code is too large by is taken off with the sum of the activations, as is m.
 */
#include "kernels/x86/vector_avx512.h"

#include "kernels/stored.h"
#include "kernels/tile.h"

#define NR (VECS * LANES)

/* Up to this many rows all outputs are summed in one pass over the weights, which come from memory; more leave
 * registers for half of them. */
#define WHOLE_ROWS 3

TEMPLATE int bias_of(const stored_format f)
{
    return f.levels ? 128 : f.zero ? STORED_MOST_ZERO : f.bias;
}

/* Of four values of each of 16 outputs the high bits, which are in `word`, above four low ones. */
TEMPLATE __m512i add_high(const stored_format f, __m512i low, const unsigned char *word, const size_t four)
{
    const int shift = 4 - (int)four * f.high % 8; /* from their place in a byte to bit 4 */
    const __m512i bits = _mm512_loadu_si512(word), mask = _mm512_set1_epi8(f.high == 1 ? 0x10 : 0x30);
    const __m512i moved =
        shift >= 0 ? _mm512_slli_epi16(bits, (unsigned)shift) : _mm512_srli_epi16(bits, (unsigned)-shift);
    return _mm512_ternarylogic_epi32(low, moved, mask, 0xf8); /* low | (moved & mask) */
}

/* bias_of less the zero points of 16 outputs, in all four bytes of each. */
TEMPLATE __m512i load_lift(const stored_format f, const unsigned char *zeros)
{
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)zeros));
    const __m512i four_times = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    return _mm512_sub_epi8(_mm512_set1_epi8((char)bias_of(f)), _mm512_shuffle_epi8(wide, four_times));
}

/* The weights, too large by bias_of, for i = 8 e, ... of vector v of outputs: fours[0] of 0, 4, 1, 5 and fours[1] of 2,
 * 6, 3, 7. low: the low bits of the block; lift: of load_lift. */
TEMPLATE void load_fours(const stored_format f, __m512i table, const unsigned char *low, const size_t e, size_t v,
                         __m512i lift, __m512i fours[2])
{
    const unsigned char *at = low + v * LANES * 4, *high = at + NR * (size_t)f.low * 4;
    const __m512i code = _mm512_set1_epi8(15);
    if (f.low == 8) {
        fours[0] = _mm512_loadu_si512(at + 2 * e * NR * 4);
        fours[1] = _mm512_loadu_si512(at + (2 * e + 1) * NR * 4);
    } else {
        const __m512i word = _mm512_loadu_si512(at + e * NR * 4);
        fours[0] = _mm512_and_si512(word, code);
        fours[1] = _mm512_and_si512(_mm512_srli_epi16(word, 4), code);
    }
    UNROLL
    for (size_t n = 0; n < 2; n++) {
        const size_t four = 2 * e + n;
        if (f.high)
            fours[n] = add_high(f, fours[n], high + four * (size_t)f.high / 8 * NR * 4, four);
        if (f.levels)
            fours[n] = _mm512_shuffle_epi8(table, fours[n]);
        if (f.zero)
            fours[n] = _mm512_add_epi8(fours[n], lift);
    }
}

TEMPLATE int32_t four_at(const unsigned char *x, size_t four)
{
    int32_t value;
    memcpy(&value, x + activation_offset(0) + 4 * four, sizeof value);
    return value;
}

TEMPLATE float scale_of(const unsigned char *x)
{
    float scale;
    memcpy(&scale, x, sizeof scale);
    return scale;
}

/* -128 times the sum of a block of activations. */
TEMPLATE int32_t start_of(const unsigned char *x)
{
    int32_t start;
    memcpy(&start, x + sizeof(float), sizeof start);
    return start;
}

/* What sums of the values from `first` on start at: the bias times their sum, taken off. */
TEMPLATE __m512i start_at(const stored_format f, const unsigned char *x, const size_t first)
{
    if (bias_of(f) == 0)
        return _mm512_setzero_si512();
    if (stored_run(f) == BLOCK)
        return _mm512_set1_epi32(start_of(x) / (128 / (bias_of(f) ? bias_of(f) : 1)));
    __m512i sum = _mm512_setzero_si512();
    UNROLL
    for (size_t four = first / 4; four < (first + BLOCK / 2) / 4; four++)
        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8((char)bias_of(f)), _mm512_set1_epi32(four_at(x, four)));
    return _mm512_sub_epi32(_mm512_setzero_si512(), sum);
}

/* sums += products of a block of 32: rows of x from x on; the block's scales, t and bits begin at `block`, d and m of
 * the group, and z, at `halves`, all those of vector 0 of the outputs; vectors [first, first + vecs) of them. Meanwhile
 * it prefetches step_bytes, or a half of them where that is half of the outputs, line by line: many lines at once delay
 * the loads of the tile. */
TEMPLATE void add_block(const int rows, const int vecs, size_t first, const stored_format f, __m512i table,
                        const unsigned char *x, size_t x_bytes, const unsigned char *halves, const unsigned char *block,
                        const gemm_prefetch prefetch, vec sum[MR][VECS])
{
    const unsigned char *scales = block + first * LANES, *low = block + NR * stored_scales_bytes(f);
    const size_t run = (size_t)stored_run(f), runs = BLOCK / run, parts = BLOCK / 8 * VECS / 2;
    UNROLL
    for (size_t r0 = 0; r0 < runs; r0++) {
        __m512i dots[MR][VECS], lift[VECS];
        UNROLL
        for (int v = 0; v < vecs; v++)
            lift[v] = f.zero ? load_lift(f, halves + NR * stored_halves_bytes(f) + (first + (size_t)v) * LANES)
                             : _mm512_setzero_si512();
        UNROLL
        for (int r = 0; r < rows; r++) {
            const __m512i start = start_at(f, x + (size_t)r * x_bytes, r0 * run);
            UNROLL
            for (int v = 0; v < vecs; v++)
                dots[r][v] = start;
        }
        UNROLL
        for (size_t e = r0 * run / 8; e < (r0 + 1) * run / 8; e++) {
            UNROLL
            for (int v = 0; v < vecs; v++) {
                __m512i fours[2];
                if (v % 2 == 0)
                    prefetch_part(prefetch.from, prefetch.step_bytes,
                                  (first * (BLOCK / 8) + e * (size_t)vecs + (size_t)v) / 2, parts, prefetch.level);
                __asm__ volatile("" : : : "memory"); /* compilers would gather the prefetches */
                load_fours(f, table, low, e, first + (size_t)v, lift[v], fours);
                UNROLL
                for (size_t n = 0; n < 2; n++) {
                    UNROLL
                    for (int r = 0; r < rows; r++)
                        dots[r][v] = _mm512_dpbusd_epi32(
                            dots[r][v], fours[n], _mm512_set1_epi32(four_at(x + (size_t)r * x_bytes, 2 * e + n)));
                }
            }
        }
        UNROLL
        for (int v = 0; v < vecs; v++) {
            vec scale = vec_halves(halves + (first + (size_t)v) * LANES * 2);
            if (f.scales)
                scale = vec_mul(scale, vec_bytes(scales + r0 * NR + (size_t)v * LANES));
            UNROLL
            for (int r = 0; r < rows; r++)
                sum[r][v] = vec_fma(vec_mul(scale, _mm512_cvtepi32_ps(dots[r][v])),
                                    vec_set1(scale_of(x + (size_t)r * x_bytes)), sum[r][v]);
        }
    }
    if (!f.minimum)
        return;
    UNROLL
    for (int v = 0; v < vecs; v++) {
        vec m = vec_halves(halves + (NR + (first + (size_t)v) * LANES) * 2);
        if (f.scales)
            m = vec_mul(m, vec_bytes(scales + (size_t)f.scales * NR + (size_t)v * LANES));
        UNROLL
        for (int r = 0; r < rows; r++) {
            const unsigned char *at = x + (size_t)r * x_bytes;
            sum[r][v] = vec_fma(m, vec_set1(scale_of(at) * ((float)start_of(at) * (1 / 128.0f))), sum[r][v]);
        }
    }
}

/* Vectors [first, first + vecs) of a panel's outputs, to y. */
TEMPLATE void sum_outputs(const int rows, const int vecs, size_t first, const weight_type type, size_t k_groups,
                          const unsigned char *x, size_t x_bytes, const unsigned char *w, float *y, size_t y_stride,
                          bool accumulate, const gemm_prefetch *prefetch)
{
    const stored_format f = stored_format_of(type);
    const __m512i table = f.levels
                              ? _mm512_xor_si512(_mm512_set1_epi8((char)128),
                                                 _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)f.levels)))
                              : _mm512_setzero_si512();
    gemm_prefetch step = prefetch ? *prefetch : (gemm_prefetch){(const char *)w, 0, 2};
    vec sum[MR][VECS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vecs; v++)
            sum[r][v] = accumulate ? vec_load(y + (size_t)r * y_stride + v * LANES) : vec_set1(0.0f);
    }
    for (size_t g = 0; g < k_groups; g++) {
        const unsigned char *halves = w;
        w += NR * stored_head_bytes(f);
        for (int b = 0; b < f.blocks; b++) {
            add_block(rows, vecs, first, f, table, x, x_bytes, halves, w, step, sum);
            step.from += step.step_bytes;
            w += NR * stored_block_bytes(f);
            x += ACTIVATION_BLOCK_BYTES;
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vecs; v++)
            vec_store(y + (size_t)r * y_stride + v * LANES, sum[r][v]);
    }
}

TEMPLATE void tile_stored(const int rows, const weight_type type, size_t k_groups, const unsigned char *x,
                          size_t x_stride, const unsigned char *w, float *y, size_t y_stride, bool accumulate,
                          const gemm_prefetch *prefetch)
{
    const size_t x_bytes = x_stride / BLOCK * ACTIVATION_BLOCK_BYTES;
    if (rows <= WHOLE_ROWS) {
        sum_outputs(rows, VECS, 0, type, k_groups, x, x_bytes, w, y, y_stride, accumulate, prefetch);
        return;
    }
    for (size_t first = 0; first < VECS; first += VECS / 2)
        sum_outputs(rows, VECS / 2, first, type, k_groups, x, x_bytes, w, y + first * LANES, y_stride, accumulate,
                    prefetch);
}

#define DEFINE_STORED_TILE(name, ...) DEFINE_TILE(tile_##name, tile_stored, WEIGHT_##name)
EACH_STORED_TYPE(DEFINE_STORED_TILE)

void kernels_stored_vnni(kernels *k)
{
#define FILL_STORED(name, ...)                                                                                         \
    k->gemm[WEIGHT_##name] = GEMM_STORED(WEIGHT_##name, QWEN3_DTYPE_Q8, WHOLE_ROWS, .tile = tile_##name);
    EACH_STORED_TYPE(FILL_STORED)
}
