/* kernels_avx512_bf16.c - BF16 x BF16 products with f32 sums (VDPBF16PS), 6 x 64 tiles.
 *
 * The instruction adds two products per lane, treats denormal inputs as 0 and flushes denormal sums.
 */
#include "kernels/x86/vector_avx512.h"

#include "kernels/blocks.h"
#include "kernels/vector_exp.h"

typedef __m512bh pairs;

TEMPLATE pairs pairs_load(const bf16 *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

TEMPLATE pairs pairs_of_bytes(const void *p)
{
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
    const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p + 1)));
    return _mm512_cvtne2ps_pbh(high, low);
}

TEMPLATE pairs pairs_set1(uint32_t pair)
{
    return (__m512bh)_mm512_set1_epi32((int)pair);
}

TEMPLATE vec vec_add_products(vec c, pairs a, pairs b)
{
    return _mm512_dpbf16_ps(c, a, b);
}

#include "kernels/vector_bf16_kernels.h"

/* ---- Blocks ------------------------------------------------------------------------------------ */

/* The codes at bits `shift` of 32 16-bit elements, which are the 16 pairs of as many outputs, as BF16. Index bit 4 of
 * the look-up belongs to the next code: the table is there twice. */
TEMPLATE __m512bh pairs_of_codes(__m512i table, __m512i codes, const int shift)
{
    return (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(codes, (unsigned)shift), table);
}

TEMPLATE __m512i levels_twice(void)
{
    const vec levels = vec_levels_load(q4_values);
    return (__m512i)_mm512_cvtne2ps_pbh(levels, levels);
}

/* Rows of a tile of blocks: as many as decode steps have, since taking a block apart costs as much as multiplying it
 * with two or three rows. */
#define BLOCK_MR 8

/* sum += x * weights of one block for `width` vectors of outputs, from the first value on. `q`: where these vectors
 * start in the block. */
TEMPLATE void add_block(const int rows, const int width, const qwen3_dtype storage, __m512i table, const bf16 *x,
                        size_t x_stride, const unsigned char *q, __m512 sum[BLOCK_MR][VECS])
{
    const size_t step = storage == QWEN3_DTYPE_Q8 ? 2 : 8, bytes = storage == QWEN3_DTYPE_Q8 ? 2 : 4;
    for (size_t i = 0; i < BLOCK; i += step, x += step, q += NR * bytes) {
        __m512i codes[VECS];
        UNROLL
        for (int v = 0; v < width && storage == QWEN3_DTYPE_Q4; v++)
            codes[v] = _mm512_loadu_si512(q + (size_t)v * LANES * bytes);
        UNROLL
        for (size_t e = 0; e < step; e += 2) {
            __m512bh weight[VECS];
            UNROLL
            for (int v = 0; v < width; v++)
                weight[v] = storage == QWEN3_DTYPE_Q8 ? pairs_of_bytes(q + (size_t)v * LANES * bytes)
                                                      : pairs_of_codes(table, codes[v], (int)q4_shift(e));
            UNROLL
            for (int r = 0; r < rows; r++) {
                uint32_t pair;
                memcpy(&pair, x + (size_t)r * x_stride + e, sizeof pair);
                UNROLL
                for (int v = 0; v < width; v++)
                    sum[r][v] = _mm512_dpbf16_ps(sum[r][v], pairs_set1(pair), weight[v]);
            }
        }
    }
}

/* The 32 terms of a block are summed without its scale: q is exact in BF16, scale * q is not. Few rows take all
 * outputs of a panel at once, more rows two vectors of them, so that the sums of a block stay in registers; those over
 * blocks live in y, in the first-level cache. */
TEMPLATE void tile_blocks(const int rows, const qwen3_dtype storage, size_t k_groups, const bf16 *x, size_t x_stride,
                          const void *w, float *y, size_t y_stride, bool accumulate, const char *ahead,
                          size_t ahead_bytes)
{
    const int width = rows <= 2 ? VECS : 2;
    const size_t bytes = storage == QWEN3_DTYPE_Q8 ? 2 : 4;
    const __m512i table = levels_twice();
    const unsigned char *group = w;
    for (int r = 0; r < rows && !accumulate; r++)
        memset(y + (size_t)r * y_stride, 0, NR * sizeof *y);
    for (size_t g = 0; g < k_groups; g++, x += BLOCK) {
        const unsigned char *q = group + NR * sizeof(bf16);
        if (rows >= ASKING_ROWS && ahead) {
            ask_ahead(0, x, 0, 0, ahead, ahead_bytes);
            ahead += ahead_bytes;
        }
        UNROLL
        for (int first = 0; first < VECS; first += width) {
            __m512 block[BLOCK_MR][VECS];
            UNROLL
            for (int i = 0; i < rows * width; i++)
                block[i / width][i % width] = _mm512_setzero_ps();
            add_block(rows, width, storage, table, x, x_stride, q + (size_t)first * LANES * bytes, block);
            UNROLL
            for (int v = 0; v < width; v++) {
                const vec scales = vec_load_part_bf16((const bf16 *)group + (first + v) * LANES, LANES);
                UNROLL
                for (int r = 0; r < rows; r++) {
                    float *at = y + (size_t)r * y_stride + (first + v) * LANES;
                    _mm512_storeu_ps(at, _mm512_fmadd_ps(scales, block[r][v], _mm512_loadu_ps(at)));
                }
            }
        }
        group = q + NR * BLOCK / 2 * (storage == QWEN3_DTYPE_Q8 ? 2 : 1);
    }
}

#define DEFINE_BLOCK_TILE(name, storage)                                                                               \
    static void name(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,               \
                     size_t y_stride, bool accumulate, const void *ahead, size_t ahead_bytes)                          \
    {                                                                                                                  \
        switch (rows) {                                                                                                \
            TILE_CASE(tile_blocks, storage, 1)                                                                         \
            TILE_CASE(tile_blocks, storage, 2)                                                                         \
            TILE_CASE(tile_blocks, storage, 3)                                                                         \
            TILE_CASE(tile_blocks, storage, 4)                                                                         \
            TILE_CASE(tile_blocks, storage, 5)                                                                         \
            TILE_CASE(tile_blocks, storage, 6)                                                                         \
            TILE_CASE(tile_blocks, storage, 7)                                                                         \
            TILE_CASE(tile_blocks, storage, 8)                                                                         \
        }                                                                                                              \
    }

DEFINE_BLOCK_TILE(tile_q8, QWEN3_DTYPE_Q8)
DEFINE_BLOCK_TILE(tile_q4, QWEN3_DTYPE_Q4)

/* Blocks to a panel of BF16. The even and the odd values of 16 outputs are computed apart and interleaved. */
TEMPLATE void expand_as(const qwen3_dtype storage, size_t k_groups, const void *w, bf16 *panel)
{
    static const uint16_t interleave[2 * LANES] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_loadu_si512(interleave);
    const vec_levels levels = vec_levels_load(q4_values);
    const size_t step = storage == QWEN3_DTYPE_Q8 ? 2 : 8, width = storage == QWEN3_DTYPE_Q8 ? 2 : 4;
    const unsigned char *group = w;
    for (size_t g = 0; g < k_groups; g++) {
        const unsigned char *q = group + NR * sizeof(bf16);
        for (size_t i = 0; i < BLOCK; i += step, q += NR * width, panel += step * NR) {
            UNROLL
            for (int v = 0; v < VECS; v++) {
                const unsigned char *at = q + (size_t)v * LANES * width;
                const vec scales = vec_load_part_bf16((const bf16 *)group + v * LANES, LANES);
                UNROLL
                for (size_t e = 0; e < step; e += 2) {
                    const bool bytes = storage == QWEN3_DTYPE_Q8;
                    const vec even = bytes ? vec_byte_pairs(at, 0) : vec_look_up(levels, at, (int)q4_shift(e));
                    const vec odd = bytes ? vec_byte_pairs(at, 1) : vec_look_up(levels, at, (int)q4_shift(e + 1));
                    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(vec_mul(scales, odd), vec_mul(scales, even));
                    _mm512_storeu_si512(panel + e * NR + (size_t)v * 2 * LANES, _mm512_permutexvar_epi16(order, both));
                }
            }
        }
        group = q;
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

/* ---- Probabilities ----------------------------------------------------------------------------- */

/* The instruction takes denormal numbers for 0, but exp gives none. */
TEMPLATE void exp_store_bf16(void *p, size_t i, vec e, size_t n)
{
    _mm256_mask_storeu_epi16((bf16 *)p + i, lane_mask(n), (__m256i)_mm512_cvtneps_pbh(e));
}

static float exp_sum(size_t n, const float *s, float m, void *p, qwen3_dtype p_type)
{
    return p_type == QWEN3_DTYPE_F32 ? exp_sum_with(n, s, m, p, exp_store_f32)
                                     : exp_sum_with(n, s, m, p, exp_store_bf16);
}

void kernels_bf16_blocks(kernels *k)
{
    const gemm_kernel *expanded = &k->gemm[QWEN3_DTYPE_BF16];
    k->gemm[QWEN3_DTYPE_Q8] = GEMM_BLOCKS(QWEN3_DTYPE_Q8, Q8_BLOCK_BYTES, tile_q8, expand_q8, expanded);
    k->gemm[QWEN3_DTYPE_Q4] = GEMM_BLOCKS(QWEN3_DTYPE_Q4, Q4_BLOCK_BYTES, tile_q4, expand_q4, expanded);
    k->gemm[QWEN3_DTYPE_Q8].mr = k->gemm[QWEN3_DTYPE_Q4].mr = BLOCK_MR;
}

/* Quantised weights stay with the VNNI level: on Zen 5 its products are a third faster than these would be. */
void kernels_init_avx512_bf16(kernels *k)
{
    vector_bf16_kernels_fill(k);
    k->exp_sum = exp_sum;
}
