/* kernels_amx_int8.c - quantised weights times activations of 8 bits in tile registers (TDPBSSD), for the AMX level.
 *
 * As at the VNNI level integers are summed exactly within a block, and scaled and added to f32 sums in the same order
 * with the same roundings: the results are the same bits.
 *
 * A block of 16 outputs is a tile of eight rows, each with four bytes of every output, in the order of activations
 * (blocks.h): 32 bytes of up to 16 rows of x are the other operand without any change. A few groups of a panel at a
 * time are expanded into such tiles and multiplied with all rows of x. Sums of whole blocks pass through memory to the
 * vectors that scale them.
 *
 * By a count of instructions for Golden Cove, the vector operations that scale sums are the limit, not the products in
 * tiles; VNNI would take four times as long. Products of weights expanded to BF16 need no scaling and would be faster
 * from about 130 rows on (docs/notebook/2026-11-27-prefetch.md).
 */
#include "kernels/x86/vector_avx512.h"

#include "kernels/blocks.h"
#include "kernels/tile.h"
#include "kernels/x86/amx_tiles.h"

#define NR (VECS * LANES)
#define TILE_ROWS ((size_t)BLOCK / 4) /* of the weights */

/* Groups whose sums are scaled together: 16 vectors of scales stay in registers, and sums over blocks are loaded and
 * stored once for all of them. */
#define STEP_GROUPS 4

/* 24 KiB, which stay in the first-level cache. */
typedef struct step {
    _Alignas(64) int8_t weights[STEP_GROUPS][VECS][TILE_ROWS][AMX_BYTES];
    int32_t sums[AMX_ROWS][STEP_GROUPS][VECS][LANES]; /* of 16 rows, within blocks */
} step;

/* Eight i of Q8: interleaving bytes of pairs gives 0, 4, 1, 5 and 2, 6, 3, 7; of 32 outputs in order, where 64-bit
 * elements are brought to the 128-bit parts that they are to end in. */
TEMPLATE void expand_eight_q8(const unsigned char *q, int8_t weights[VECS][TILE_ROWS][AMX_BYTES], size_t row)
{
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    UNROLL
    for (size_t v = 0; v < VECS; v += 2) {
        UNROLL
        for (size_t e = 0; e < 2; e++) {
            const unsigned char *pair = q + (v * LANES + e * NR) * 2;
            const __m512i a = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(pair));
            const __m512i b = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(pair + 2 * NR * 2));
            _mm512_store_si512(weights[v][row + e], _mm512_unpacklo_epi8(a, b));
            _mm512_store_si512(weights[v + 1][row + e], _mm512_unpackhi_epi8(a, b));
        }
    }
}

/* Eight i of Q4: the low and the high halves of the bytes of a word are the codes in that order. */
TEMPLATE void expand_eight_q4(const unsigned char *q, int8_t weights[VECS][TILE_ROWS][AMX_BYTES], size_t row)
{
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)q4_values));
    const __m512i code = _mm512_set1_epi8(15);
    UNROLL
    for (size_t v = 0; v < VECS; v++) {
        const __m512i codes = _mm512_loadu_si512(q + v * LANES * 4);
        const __m512i low = _mm512_and_si512(codes, code);
        const __m512i high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), code);
        _mm512_store_si512(weights[v][row], _mm512_shuffle_epi8(table, low));
        _mm512_store_si512(weights[v][row + 1], _mm512_shuffle_epi8(table, high));
    }
}

TEMPLATE size_t group_bytes(const qwen3_dtype storage)
{
    return NR * (storage == QWEN3_DTYPE_Q8 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES);
}

/* Groups from w on, into tiles. The groups of the next step are prefetched while these are multiplied. */
TEMPLATE void expand(const qwen3_dtype storage, size_t groups, const unsigned char *w, step *s)
{
    for (size_t g = 0; g < groups; g++, w += group_bytes(storage)) {
        for (size_t b = 0; b < group_bytes(storage); b += LINE)
            __builtin_prefetch(w + STEP_GROUPS * group_bytes(storage) + b);
        const unsigned char *q = w + NR * sizeof(bf16);
        for (size_t row = 0; row < TILE_ROWS; row += 2, q += NR * (storage == QWEN3_DTYPE_Q8 ? 8 : 4)) {
            if (storage == QWEN3_DTYPE_Q8)
                expand_eight_q8(q, s->weights[g], row);
            else
                expand_eight_q4(q, s->weights[g], row);
        }
    }
}

/* The sums of blocks of the configured rows of x. */
static void multiply(size_t groups, const unsigned char *x, size_t x_bytes, step *s)
{
    for (size_t g = 0; g < groups; g++) {
        int8_t(*w)[TILE_ROWS][AMX_BYTES] = s->weights[g];
        int32_t(*sums)[LANES] = s->sums[0][g];
        amx_zero(0);
        amx_zero(1);
        amx_zero(2);
        amx_zero(3);
        amx_load(4, x + g * ACTIVATION_BLOCK_BYTES + activation_offset(0), x_bytes);
        amx_load(5, w[0], AMX_BYTES);
        amx_load(6, w[1], AMX_BYTES);
        amx_load(7, w[2], AMX_BYTES);
        amx_add_products_int8(0, 4, 5);
        amx_load(5, w[3], AMX_BYTES);
        amx_add_products_int8(1, 4, 6);
        amx_add_products_int8(2, 4, 7);
        amx_add_products_int8(3, 4, 5);
        amx_store(0, sums[0], sizeof s->sums[0]);
        amx_store(1, sums[1], sizeof s->sums[0]);
        amx_store(2, sums[2], sizeof s->sums[0]);
        amx_store(3, sums[3], sizeof s->sums[0]);
    }
}

/* y[rows, NR] (+)= sums of blocks, from row `first` of the tiles on, * scales of the groups from w on * scales of x. */
TEMPLATE void add_scaled(const size_t groups, const qwen3_dtype storage, size_t rows, const step *s, size_t first,
                         const unsigned char *x, size_t x_bytes, const unsigned char *w, float *y, size_t y_stride,
                         bool accumulate)
{
    vec scales[STEP_GROUPS][VECS];
    UNROLL
    for (size_t g = 0; g < groups; g++) {
        UNROLL
        for (size_t v = 0; v < VECS; v++)
            scales[g][v] = vec_load_part_bf16((const bf16 *)(w + g * group_bytes(storage)) + v * LANES, LANES);
    }
    for (size_t r = 0; r < rows; r++, x += x_bytes, y += y_stride) {
        vec sum[VECS];
        UNROLL
        for (size_t v = 0; v < VECS; v++)
            sum[v] = accumulate ? vec_load(y + v * LANES) : vec_set1(0.0f);
        UNROLL
        for (size_t g = 0; g < groups; g++) {
            float scale;
            memcpy(&scale, x + g * ACTIVATION_BLOCK_BYTES, sizeof scale);
            UNROLL
            for (size_t v = 0; v < VECS; v++) {
                const vec block = _mm512_cvtepi32_ps(_mm512_load_si512(s->sums[first + r][g][v]));
                sum[v] = vec_fma(vec_mul(scales[g][v], block), vec_set1(scale), sum[v]);
            }
        }
        UNROLL
        for (size_t v = 0; v < VECS; v++)
            vec_store(y + v * LANES, sum[v]);
    }
}

#define ADD_CASE(groups)                                                                                               \
    case groups:                                                                                                       \
        add_scaled(groups, storage, rows, s, first, x, x_bytes, w, y, y_stride, accumulate);                           \
        break;

TEMPLATE void add_groups(size_t groups, const qwen3_dtype storage, size_t rows, const step *s, size_t first,
                         const unsigned char *x, size_t x_bytes, const unsigned char *w, float *y, size_t y_stride,
                         bool accumulate)
{
    switch (groups) {
        ADD_CASE(0)
        ADD_CASE(1)
        ADD_CASE(2)
        ADD_CASE(3)
        ADD_CASE(4)
    }
}

/* Rows in parts of equal height, so that tiles are configured once: the last part may begin with rows of the one
 * before, whose sums it leaves alone. */
TEMPLATE void tile_blocks(const qwen3_dtype storage, size_t rows, size_t k_groups, const unsigned char *x,
                          size_t x_stride, const unsigned char *w, float *y, size_t y_stride, bool accumulate)
{
    const size_t x_bytes = x_stride / BLOCK * ACTIVATION_BLOCK_BYTES;
    const size_t parts = (rows + AMX_ROWS - 1) / AMX_ROWS, height = (rows + parts - 1) / parts;
    step s;
    configure_tiles(height, BLOCK);
    size_t done = 0;
    do { /* once at least: an empty sum is 0 */
        const size_t groups = k_groups - done < STEP_GROUPS ? k_groups - done : STEP_GROUPS;
        expand(storage, groups, w, &s);
        for (size_t r = 0; r < rows; r += height) {
            const size_t begin = r + height <= rows ? r : rows - height;
            multiply(groups, x + begin * x_bytes, x_bytes, &s);
            add_groups(groups, storage, begin + height - r, &s, r - begin, x + r * x_bytes, x_bytes, w,
                       y + r * y_stride, y_stride, accumulate || done > 0);
        }
        done += groups;
        x += groups * ACTIVATION_BLOCK_BYTES;
        w += groups * group_bytes(storage);
    } while (done < k_groups);
    amx_release();
}

static void tile_q8(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y, size_t y_stride,
                    bool accumulate, const gemm_prefetch *prefetch)
{
    (void)prefetch;
    tile_blocks(QWEN3_DTYPE_Q8, (size_t)rows, k_groups, x, x_stride, w, y, y_stride, accumulate);
}

static void tile_q4(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y, size_t y_stride,
                    bool accumulate, const gemm_prefetch *prefetch)
{
    (void)prefetch;
    tile_blocks(QWEN3_DTYPE_Q4, (size_t)rows, k_groups, x, x_stride, w, y, y_stride, accumulate);
}

/* A block fills half of what the instruction can do. */
DEFINE_MULTIPLY_ADD(amx_add_products_int8, sizeof(int8_t))

void kernels_amx_int8(kernels *k)
{
    gemm_kernel *q8 = &k->gemm[QWEN3_DTYPE_Q8], *q4 = &k->gemm[QWEN3_DTYPE_Q4];
    *q8 = k->few[QWEN3_DTYPE_Q8] = kernels_vnni_q8;
    *q4 = k->few[QWEN3_DTYPE_Q4] = kernels_vnni_q4;
    q8->few = &k->few[QWEN3_DTYPE_Q8];
    q4->few = &k->few[QWEN3_DTYPE_Q4];
    q8->tile = tile_q8;
    q4->tile = tile_q4;
    q8->mr = q4->mr = q8->one_pass_rows = q4->one_pass_rows =
        GEMM_MOST_ROWS; /* their tiles pass over few groups at a time */
    k->multiply_add[QWEN3_DTYPE_Q8] = multiply_add;
    k->multiply_add[QWEN3_DTYPE_Q4] = multiply_add;
}
