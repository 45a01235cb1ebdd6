/* kernels_avx512_vnni.c - quantised weights times activations of 8 bits (VPDPBUSD): integers are summed exactly within
 * a block, and scaled once for its 32 products.
 *
 * The instruction adds four products of an unsigned and a signed byte in every 32-bit lane. Weights are the unsigned
 * ones, 128 too large, and sums start at -128 times the sum of the activations (blocks.h), which makes up for it. The
 * four are i, i + 4, i + 1 and i + 5, as they come out of the words of Q4 and of interleaved pairs of Q8; activations
 * are stored in this order. For Q8 the interleaving leaves the outputs of 128-bit parts in two vectors, the sums' until
 * the end.
 */
#include "kernels/x86/vector_avx512.h"

#include "kernels/blocks.h"
#include "kernels/tile.h"

#define NR (VECS * LANES)

/* Up to this many rows all outputs are summed in one pass over the weights, which come from memory; more leave
 * registers for half of them. */
#define WHOLE_ROWS 3

/* Of 32 outputs: sums or scales; sums within a block; weights, four in each lane. */
typedef struct vec_pair {
    vec low, high;
} vec_pair;

typedef struct lanes_pair {
    __m512i low, high;
} lanes_pair;

/* The 128-bit parts of the two vectors of outputs in ascending order to the order of the sums, and back. */
TEMPLATE vec_pair order_of_sums(vec_pair y)
{
    const __m512i even = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(4));
    return (vec_pair){_mm512_permutex2var_ps(y.low, even, y.high), _mm512_permutex2var_ps(y.low, odd, y.high)};
}

TEMPLATE vec_pair order_of_outputs(vec_pair sum)
{
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i last = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    return (vec_pair){_mm512_permutex2var_ps(sum.low, first, sum.high),
                      _mm512_permutex2var_ps(sum.low, last, sum.high)};
}

TEMPLATE vec_pair load_sums(const qwen3_dtype storage, const float *y)
{
    const vec_pair sum = {vec_load(y), vec_load(y + LANES)};
    return storage == QWEN3_DTYPE_Q8 ? order_of_sums(sum) : sum;
}

TEMPLATE void store_sums(const qwen3_dtype storage, float *y, vec_pair sum)
{
    if (storage == QWEN3_DTYPE_Q8)
        sum = order_of_outputs(sum);
    vec_store(y, sum.low);
    vec_store(y + LANES, sum.high);
}

TEMPLATE vec_pair load_scales(const qwen3_dtype storage, const bf16 *p)
{
    if (storage == QWEN3_DTYPE_Q4)
        return (vec_pair){vec_load_part_bf16(p, LANES), vec_load_part_bf16(p + LANES, LANES)};
    const __m512i scales = _mm512_loadu_si512(p), zero = _mm512_setzero_si512();
    return (vec_pair){_mm512_castsi512_ps(_mm512_unpacklo_epi16(zero, scales)),
                      _mm512_castsi512_ps(_mm512_unpackhi_epi16(zero, scales))};
}

/* What turns codes or q into weights + 128. */
TEMPLATE __m512i load_table(const qwen3_dtype storage)
{
    const __m512i offset = _mm512_set1_epi8((char)128);
    if (storage == QWEN3_DTYPE_Q8)
        return offset;
    return _mm512_xor_si512(offset, _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)q4_values)));
}

/* The weights + 128 for eight i from those at q on: fours[0] of i = 0, 4, 1, 5 and fours[1] of 2, 6, 3, 7. */
TEMPLATE void load_weights(const qwen3_dtype storage, __m512i table, const unsigned char *q, lanes_pair fours[2])
{
    if (storage == QWEN3_DTYPE_Q4) {
        const __m512i low = _mm512_loadu_si512(q), high = _mm512_loadu_si512(q + 4 * LANES),
                      code = _mm512_set1_epi8(15);
        fours[0].low = _mm512_shuffle_epi8(table, _mm512_and_si512(low, code));
        fours[0].high = _mm512_shuffle_epi8(table, _mm512_and_si512(high, code));
        fours[1].low = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(low, 4), code));
        fours[1].high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(high, 4), code));
        return;
    }
    UNROLL
    for (int e = 0; e < 2; e++) {
        const unsigned char *pair = q + e * 2 * NR;
        const __m512i a = _mm512_xor_si512(_mm512_loadu_si512(pair), table);
        const __m512i b = _mm512_xor_si512(_mm512_loadu_si512(pair + 2 * 2 * NR), table);
        fours[e].low = _mm512_unpacklo_epi8(a, b);
        fours[e].high = _mm512_unpackhi_epi8(a, b);
    }
}

TEMPLATE size_t group_bytes_of(const qwen3_dtype storage)
{
    return NR * (storage == QWEN3_DTYPE_Q8 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES);
}

/* block = products of a block of each of `rows` rows with those of 32 * pairs outputs whose first q is at q. Between
 * them one step is prefetched, or half `half` of it where these are half of the outputs: line by line, because many
 * lines at once delay the loads of the tile. */
TEMPLATE void sum_block(const int rows, const int pairs, const qwen3_dtype storage, __m512i table,
                        const unsigned char *x, size_t x_bytes, const unsigned char *q, const int half,
                        const gemm_prefetch prefetch, lanes_pair block[MR][2])
{
    const size_t pair_bytes = 2 * LANES * (storage == QWEN3_DTYPE_Q8 ? 2 : 4);
    const size_t eight_bytes = NR * (storage == QWEN3_DTYPE_Q8 ? 8 : 4);
    UNROLL
    for (int r = 0; r < rows; r++) {
        int32_t start;
        memcpy(&start, x + (size_t)r * x_bytes + sizeof(float), sizeof start);
        UNROLL
        for (int p = 0; p < pairs; p++)
            block[r][p] = (lanes_pair){_mm512_set1_epi32(start), _mm512_set1_epi32(start)};
    }
    UNROLL
    for (size_t i = 0; i < BLOCK; i += 8) {
        UNROLL
        for (int p = 0; p < pairs; p++) {
            lanes_pair fours[2];
            const size_t part = pairs == 2 ? i / 8 * 2 + (size_t)p : (size_t)half * (BLOCK / 8) + i / 8;
            prefetch_part(prefetch.from, prefetch.step_bytes, part, BLOCK / 8 * 2, prefetch.level);
            __asm__ volatile("" : : : "memory"); /* compilers would gather the prefetches */
            load_weights(storage, table, q + i / 8 * eight_bytes + (size_t)p * pair_bytes, fours);
            UNROLL
            for (size_t e = 0; e < 2; e++) {
                UNROLL
                for (int r = 0; r < rows; r++) {
                    int32_t four;
                    memcpy(&four, x + (size_t)r * x_bytes + activation_offset(i) + 4 * e, sizeof four);
                    const __m512i xi = _mm512_set1_epi32(four);
                    block[r][p].low = _mm512_dpbusd_epi32(block[r][p].low, fours[e].low, xi);
                    block[r][p].high = _mm512_dpbusd_epi32(block[r][p].high, fours[e].high, xi);
                }
            }
        }
    }
}

/* 32 * pairs outputs of a panel, from pair `half` on, to y. */
TEMPLATE void sum_outputs(const int rows, const int pairs, const int half, const qwen3_dtype storage, size_t k_groups,
                          const unsigned char *x, size_t x_bytes, const unsigned char *w, float *y, size_t y_stride,
                          bool accumulate, const gemm_prefetch *prefetch)
{
    const size_t width = storage == QWEN3_DTYPE_Q8 ? 2 : 4, out = (size_t)half * 2 * LANES;
    const unsigned char *scales = w + out * sizeof(bf16), *q = w + NR * sizeof(bf16) + out * width;
    const __m512i table = load_table(storage);
    gemm_prefetch step = prefetch ? *prefetch : (gemm_prefetch){(const char *)w, 0, 2};
    vec_pair sum[MR][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int p = 0; p < pairs; p++)
            sum[r][p] = accumulate ? load_sums(storage, y + (size_t)r * y_stride + p * 2 * LANES)
                                   : (vec_pair){vec_set1(0.0f), vec_set1(0.0f)};
    }
    for (size_t g = 0; g < k_groups; g++) {
        lanes_pair block[MR][2];
        sum_block(rows, pairs, storage, table, x, x_bytes, q, half, step, block);
        UNROLL
        for (int p = 0; p < pairs; p++) {
            const vec_pair s = load_scales(storage, (const bf16 *)scales + p * 2 * LANES);
            UNROLL
            for (int r = 0; r < rows; r++) {
                float scale;
                memcpy(&scale, x + (size_t)r * x_bytes, sizeof scale);
                const vec xs = vec_set1(scale);
                sum[r][p].low = vec_fma(vec_mul(s.low, _mm512_cvtepi32_ps(block[r][p].low)), xs, sum[r][p].low);
                sum[r][p].high = vec_fma(vec_mul(s.high, _mm512_cvtepi32_ps(block[r][p].high)), xs, sum[r][p].high);
            }
        }
        step.from += step.step_bytes;
        scales += group_bytes_of(storage);
        q += group_bytes_of(storage);
        x += ACTIVATION_BLOCK_BYTES;
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int p = 0; p < pairs; p++)
            store_sums(storage, y + (size_t)r * y_stride + p * 2 * LANES, sum[r][p]);
    }
}

TEMPLATE void tile_blocks(const int rows, const qwen3_dtype storage, size_t k_groups, const unsigned char *x,
                          size_t x_stride, const unsigned char *w, float *y, size_t y_stride, bool accumulate,
                          const gemm_prefetch *prefetch)
{
    const size_t x_bytes = x_stride / BLOCK * ACTIVATION_BLOCK_BYTES;
    if (rows <= WHOLE_ROWS) {
        sum_outputs(rows, 2, 0, storage, k_groups, x, x_bytes, w, y, y_stride, accumulate, prefetch);
        return;
    }
    UNROLL
    for (int half = 0; half < 2; half++)
        sum_outputs(rows, 1, half, storage, k_groups, x, x_bytes, w, y + half * 2 * LANES, y_stride, accumulate,
                    prefetch);
}

DEFINE_TILE(tile_q8, tile_blocks, QWEN3_DTYPE_Q8)
DEFINE_TILE(tile_q4, tile_blocks, QWEN3_DTYPE_Q4)

static uint64_t multiply_add(size_t n)
{
    const size_t steps = n * (1000000 / (MR * VECS * 128));
    int32_t bits = 0x01010101;
    __asm__ volatile("" : "+r"(bits));
    const __m512i ones = _mm512_set1_epi32(bits);
    __m512i sum[MR * VECS];
    UNROLL
    for (int j = 0; j < MR * VECS; j++) {
        sum[j] = _mm512_setzero_si512();
        __asm__ volatile("" : "+v"(sum[j])); /* not known to be equal: one would do for all */
    }
    for (size_t i = 0; i < steps; i++) {
        UNROLL
        for (int j = 0; j < MR * VECS; j++)
            sum[j] = _mm512_dpbusd_epi32(sum[j], ones, ones);
    }
    UNROLL
    for (int j = 0; j < MR * VECS; j++)
        __asm__ volatile("" : : "v"(sum[j]));
    return (uint64_t)steps * MR * VECS * 128;
}

const gemm_kernel kernels_vnni_q8 = GEMM_DOTS(QWEN3_DTYPE_Q8, Q8_BLOCK_BYTES, WHOLE_ROWS, tile_q8);
const gemm_kernel kernels_vnni_q4 = GEMM_DOTS(QWEN3_DTYPE_Q4, Q4_BLOCK_BYTES, WHOLE_ROWS, tile_q4);

void kernels_init_avx512_vnni(kernels *k)
{
    k->gemm[QWEN3_DTYPE_Q8] = kernels_vnni_q8;
    k->gemm[QWEN3_DTYPE_Q4] = kernels_vnni_q4;
    kernels_stored_vnni(k);
    k->multiply_add[QWEN3_DTYPE_Q8] = multiply_add;
    k->multiply_add[QWEN3_DTYPE_Q4] = multiply_add;
}
