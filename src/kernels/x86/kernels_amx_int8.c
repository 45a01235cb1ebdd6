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
 * tiles. So the tiles work ahead: between the rows whose sums are scaled come the products of the rows after them.
 */
#include "kernels/x86/vector_avx512.h"

#include "kernels/blocks.h"
#include "kernels/tile.h"
#include "kernels/x86/amx_tiles.h"

#define NR (VECS * LANES)
#define TILE_ROWS ((size_t)BLOCK / 4) /* of the weights */

/* Groups that are expanded at once, 16 KiB of tiles, which stay in the first-level cache while all rows pass by. */
#define CHUNK_GROUPS ((size_t)8)
/* Groups whose sums are scaled together: their scales stay in registers, and sums over blocks are loaded and stored
 * once for all of them. */
#define STEP_GROUPS ((size_t)2)
/* Rows whose sums over blocks pass from chunk to chunk, 48 KiB on the stack: rows of y are often a power of 2 apart,
 * and would meet in a few sets of the cache. */
#define SUM_ROWS ((size_t)192)

typedef int8_t tile_weights[VECS][TILE_ROWS][AMX_BYTES];

/* Within blocks, of the groups of a step: of 16 rows. */
typedef int32_t block_sums[STEP_GROUPS][VECS][AMX_ROWS][LANES];

/* Eight i of Q8: interleaving bytes of pairs gives 0, 4, 1, 5 and 2, 6, 3, 7; of 32 outputs in order, where 64-bit
 * elements are brought to the 128-bit parts that they are to end in. */
TEMPLATE void expand_eight_q8(const unsigned char *q, tile_weights weights, size_t row)
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
TEMPLATE void expand_eight_q4(const unsigned char *q, tile_weights weights, size_t row)
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

/* Groups from w on, into tiles. The groups of the next chunk are prefetched. */
TEMPLATE void expand(const qwen3_dtype storage, size_t groups, const unsigned char *w, tile_weights *weights)
{
    for (size_t g = 0; g < groups; g++, w += group_bytes(storage)) {
        for (size_t b = 0; b < group_bytes(storage); b += LINE)
            __builtin_prefetch(w + CHUNK_GROUPS * group_bytes(storage) + b);
        const unsigned char *q = w + NR * sizeof(bf16);
        for (size_t row = 0; row < TILE_ROWS; row += 2, q += NR * (storage == QWEN3_DTYPE_Q8 ? 8 : 4)) {
            if (storage == QWEN3_DTYPE_Q8)
                expand_eight_q8(q, weights[g], row);
            else
                expand_eight_q4(q, weights[g], row);
        }
    }
}

/* The sums of one block of the configured rows of x. */
static inline void multiply(const unsigned char *x, size_t x_bytes, tile_weights w, int32_t sums[VECS][AMX_ROWS][LANES])
{
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
    amx_load(4, x + activation_offset(0), x_bytes);
    amx_load(5, w[0], AMX_BYTES);
    amx_load(6, w[1], AMX_BYTES);
    amx_load(7, w[2], AMX_BYTES);
    amx_add_products_int8(0, 4, 5);
    amx_load(5, w[3], AMX_BYTES);
    amx_add_products_int8(1, 4, 6);
    amx_add_products_int8(2, 4, 7);
    amx_add_products_int8(3, 4, 5);
    amx_store(0, sums[0], AMX_BYTES);
    amx_store(1, sums[1], AMX_BYTES);
    amx_store(2, sums[2], AMX_BYTES);
    amx_store(3, sums[3], AMX_BYTES);
}

/* Some rows against the groups of a step. */
typedef struct step {
    size_t groups, rows;
    const unsigned char *x, *w; /* w: the groups as they are packed, whose scales are read */
    tile_weights *weights;      /* the same groups, expanded */
    float *y;                   /* sums over blocks, [rows, NR] */
    bool accumulate;
} step;

/* y (+)= sums of blocks * scales of the weights * scales of x, for rows [row, end). */
TEMPLATE void add_scaled(const size_t groups, const qwen3_dtype storage, const step *s, size_t row, size_t end,
                         size_t x_bytes, block_sums sums)
{
    vec scales[STEP_GROUPS][VECS];
    UNROLL
    for (size_t g = 0; g < groups; g++) {
        UNROLL
        for (size_t v = 0; v < VECS; v++)
            scales[g][v] = vec_load_part_bf16((const bf16 *)(s->w + g * group_bytes(storage)) + v * LANES, LANES);
    }
    for (size_t r = row; r < end; r++) {
        vec sum[VECS];
        UNROLL
        for (size_t v = 0; v < VECS; v++)
            sum[v] = s->accumulate ? vec_load(s->y + r * NR + v * LANES) : vec_set1(0.0f);
        UNROLL
        for (size_t g = 0; g < groups; g++) {
            float scale;
            memcpy(&scale, s->x + r * x_bytes + g * ACTIVATION_BLOCK_BYTES, sizeof scale);
            UNROLL
            for (size_t v = 0; v < VECS; v++) {
                const vec block = _mm512_cvtepi32_ps(_mm512_load_si512(sums[g][v][r]));
                sum[v] = vec_fma(vec_mul(scales[g][v], block), vec_set1(scale), sum[v]);
            }
        }
        UNROLL
        for (size_t v = 0; v < VECS; v++)
            vec_store(s->y + r * NR + v * LANES, sum[v]);
    }
}

/* Scales the sums of `now`, if any, and meanwhile computes those of `later`, if any: its groups between parts of the
 * rows. */
TEMPLATE void pass(const qwen3_dtype storage, const step *now, block_sums now_sums, const step *later,
                   block_sums later_sums, size_t x_bytes)
{
    const size_t parts = STEP_GROUPS;
    for (size_t part = 0; part < parts; part++) {
        if (part < later->groups)
            multiply(later->x + part * ACTIVATION_BLOCK_BYTES, x_bytes, later->weights[part], later_sums[part]);
        const size_t row = now->rows * part / parts, end = now->rows * (part + 1) / parts;
        if (now->groups == STEP_GROUPS)
            add_scaled(STEP_GROUPS, storage, now, row, end, x_bytes, now_sums);
        else if (now->groups > 0)
            add_scaled(1, storage, now, row, end, x_bytes, now_sums);
    }
}

/* `rows` of x in tiles of `height`, of which they are a multiple, against the groups of a chunk: y += x W. The steps of
 * one tile of rows follow each other. */
TEMPLATE void multiply_chunk(const qwen3_dtype storage, size_t rows, size_t height, size_t groups,
                             const unsigned char *x, size_t x_bytes, const unsigned char *w, tile_weights *weights,
                             float *y, bool accumulate)
{
    _Alignas(64) block_sums sums[2];
    step now = {0}, later = {0};
    size_t turn = 0;
    for (size_t r = 0; r < rows; r += height) {
        for (size_t g = 0; g < groups; g += STEP_GROUPS, turn ^= 1) {
            later = (step){.groups = groups - g < STEP_GROUPS ? groups - g : STEP_GROUPS,
                           .rows = height,
                           .x = x + r * x_bytes + g * ACTIVATION_BLOCK_BYTES,
                           .w = w + g * group_bytes(storage),
                           .weights = weights + g,
                           .y = y + r * NR,
                           .accumulate = accumulate || g > 0};
            pass(storage, &now, sums[turn ^ 1], &later, sums[turn], x_bytes);
            now = later;
        }
    }
    later.groups = 0;
    pass(storage, &now, sums[turn ^ 1], &later, sums[turn], x_bytes);
}

/* At most SUM_ROWS rows, whose sums are at y[rows, NR]. */
TEMPLATE void add_block(const qwen3_dtype storage, size_t rows, const gemm_panel *p, const unsigned char *x,
                        size_t x_bytes, float *y)
{
    _Alignas(64) tile_weights weights[CHUNK_GROUPS];
    const size_t whole = rows / AMX_ROWS * AMX_ROWS, rest = rows - whole;
    size_t configured = 0;
    for (size_t done = 0; done < p->k_groups; done += CHUNK_GROUPS) {
        const size_t groups = p->k_groups - done < CHUNK_GROUPS ? p->k_groups - done : CHUNK_GROUPS;
        const unsigned char *w = (const unsigned char *)p->w + done * group_bytes(storage);
        const unsigned char *from = x + done * ACTIVATION_BLOCK_BYTES;
        const bool accumulate = p->accumulate || done > 0;
        expand(storage, groups, w, weights);
        if (whole > 0) {
            if (configured != AMX_ROWS)
                configure_tiles(AMX_ROWS, BLOCK);
            configured = AMX_ROWS;
            multiply_chunk(storage, whole, AMX_ROWS, groups, from, x_bytes, w, weights, y, accumulate);
        }
        if (rest > 0) {
            if (configured != rest)
                configure_tiles(rest, BLOCK);
            configured = rest;
            multiply_chunk(storage, rest, rest, groups, from + whole * x_bytes, x_bytes, w, weights, y + whole * NR,
                           accumulate);
        }
    }
}

TEMPLATE void panel_blocks(const qwen3_dtype storage, const gemm_panel *p)
{
    _Alignas(64) float sums[SUM_ROWS * NR];
    const size_t x_bytes = p->x_stride / BLOCK * ACTIVATION_BLOCK_BYTES;
    for (size_t row = 0; row < p->rows; row += SUM_ROWS) {
        const size_t rows = p->rows - row < SUM_ROWS ? p->rows - row : SUM_ROWS;
        float *y = p->y + row * p->y_stride;
        if (p->accumulate || p->k_groups == 0)
            memset(sums, 0, rows * NR * sizeof *sums); /* an empty sum is 0, as are outputs that y has no room for */
        for (size_t r = 0; r < rows && p->accumulate; r++)
            memcpy(sums + r * NR, y + r * p->y_stride, p->cols * sizeof *y);
        add_block(storage, rows, p, (const unsigned char *)p->x + row * x_bytes, x_bytes, sums);
        for (size_t r = 0; r < rows; r++)
            memcpy(y + r * p->y_stride, sums + r * NR, p->cols * sizeof *y);
    }
    amx_release();
}

static void panel_q8(const gemm_panel *p)
{
    panel_blocks(QWEN3_DTYPE_Q8, p);
}

static void panel_q4(const gemm_panel *p)
{
    panel_blocks(QWEN3_DTYPE_Q4, p);
}

DEFINE_TILE_OF_PANEL(tile_q8, panel_q8)
DEFINE_TILE_OF_PANEL(tile_q4, panel_q4)

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
    q8->panel = panel_q8;
    q4->panel = panel_q4;
    q8->mr = q4->mr = q8->one_pass_rows = q4->one_pass_rows =
        GEMM_MOST_ROWS; /* their tiles pass over few groups at a time */
    k->multiply_add[QWEN3_DTYPE_Q8] = multiply_add;
    k->multiply_add[QWEN3_DTYPE_Q4] = multiply_add;
}
