/* kernels_neon_dot.c - quantised weights times activations of 8 bits (SDOT, Armv8.2): integers are summed exactly
 * within a block, and scaled once for its 32 products.
 *
 * The instruction adds four products of signed bytes in every 32-bit lane; one of its factors can be a lane of a
 * vector, so that activations need not be repeated. The four are i, i + 4, i + 1 and i + 5, as they come out of the
 * words of Q4 and of interleaved pairs of Q8; activations are stored in this order (blocks.h).
 */
#include "kernels/arm/vector_neon.h"

#include "kernels/arm/weights_neon.h"
#include "kernels/tile.h"

/* Products are summed for 2 vectors of outputs at a time, within a block first, which takes as many registers again.
 * Up to this many rows, the whole sums of all outputs fit beside these, and the weights pass by once; more rows, up to
 * 6, leave registers for half of the outputs: 24 sums, 4 weights, the activations, the table and the mask of codes. */
#define WHOLE_ROWS 3

/* block = products of a block of each of `rows` rows with those of 2 vectors of outputs whose first q is at q. */
TEMPLATE void sum_block(const int rows, const qwen3_dtype storage, int8x16_t levels, const unsigned char *x,
                        size_t x_bytes, const unsigned char *q, int32x4_t block[MR][2])
{
    const size_t eight_bytes = NR * (storage == QWEN3_DTYPE_Q8 ? 8 : 4);
    UNROLL
    for (int r = 0; r < rows; r++)
        block[r][0] = block[r][1] = vdupq_n_s32(0);
    UNROLL
    for (size_t i = 0; i < BLOCK; i += 8) {
        int8x16_t fours[2][2];
        load_weights(storage, levels, q + i / 8 * eight_bytes, fours);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const int8x8_t xi = vld1_s8((const int8_t *)x + (size_t)r * x_bytes + activation_offset(i));
            UNROLL
            for (int v = 0; v < 2; v++) {
                block[r][v] = vdotq_lane_s32(block[r][v], fours[0][v], xi, 0);
                block[r][v] = vdotq_lane_s32(block[r][v], fours[1][v], xi, 1);
            }
        }
    }
}

/* `vecs` vectors of outputs of a panel; the scales and q of the first are at `scales` and q. */
TEMPLATE void sum_outputs(const int rows, const int vecs, const qwen3_dtype storage, size_t k_groups,
                          const unsigned char *x, size_t x_bytes, const unsigned char *scales, const unsigned char *q,
                          float *y, size_t y_stride, bool accumulate)
{
    const size_t group_bytes = NR * (storage == QWEN3_DTYPE_Q8 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES);
    const size_t width = storage == QWEN3_DTYPE_Q8 ? 2 : 4;
    const int8x16_t levels = vld1q_s8(q4_values);
    vec sum[MR][VECS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vecs; v++)
            sum[r][v] = accumulate ? vec_load(y + (size_t)r * y_stride + v * LANES) : vec_set1(0.0f);
    }
    for (size_t g = 0; g < k_groups; g++, scales += group_bytes, q += group_bytes, x += ACTIVATION_BLOCK_BYTES) {
        UNROLL
        for (int v = 0; v < vecs; v += 2) {
            int32x4_t block[MR][2];
            sum_block(rows, storage, levels, x, x_bytes, q + (size_t)v * LANES * width, block);
            const bf16 *at = (const bf16 *)scales + v * LANES;
            const vec s[2] = {vec_load_part_bf16(at, LANES), vec_load_part_bf16(at + LANES, LANES)};
            UNROLL
            for (int r = 0; r < rows; r++) {
                float scale;
                memcpy(&scale, x + (size_t)r * x_bytes, sizeof scale);
                UNROLL
                for (int j = 0; j < 2; j++)
                    sum[r][v + j] = vec_fma(vec_mul(s[j], vcvtq_f32_s32(block[r][j])), vec_set1(scale), sum[r][v + j]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vecs; v++)
            vec_store(y + (size_t)r * y_stride + v * LANES, sum[r][v]);
    }
}

TEMPLATE void tile_blocks(const int rows, const qwen3_dtype storage, size_t k_groups, const unsigned char *x,
                          size_t x_stride, const unsigned char *w, float *y, size_t y_stride, bool accumulate,
                          const gemm_prefetch *prefetch)
{
    (void)prefetch; /* not measured on Arm */
    const size_t x_bytes = x_stride / BLOCK * ACTIVATION_BLOCK_BYTES, width = storage == QWEN3_DTYPE_Q8 ? 2 : 4;
    const unsigned char *q = w + NR * sizeof(bf16);
    const int vecs = rows <= WHOLE_ROWS ? VECS : VECS / 2;
    UNROLL
    for (int v = 0; v < VECS; v += vecs) {
        const size_t out = (size_t)v * LANES;
        sum_outputs(rows, vecs, storage, k_groups, x, x_bytes, w + out * sizeof(bf16), q + out * width, y + out,
                    y_stride, accumulate);
    }
}

DEFINE_TILE(tile_q8, tile_blocks, QWEN3_DTYPE_Q8)
DEFINE_TILE(tile_q4, tile_blocks, QWEN3_DTYPE_Q4)

static uint64_t multiply_add(size_t n)
{
    const size_t steps = n * (1000000 / (MR * VECS * 32));
    int8x16_t ones = vdupq_n_s8(1);
    __asm__ volatile("" : "+w"(ones));
    int32x4_t sum[MR * VECS];
    UNROLL
    for (int j = 0; j < MR * VECS; j++) {
        sum[j] = vdupq_n_s32(0);
        __asm__ volatile("" : "+w"(sum[j])); /* not known to be equal: one would do for all */
    }
    for (size_t i = 0; i < steps; i++) {
        UNROLL
        for (int j = 0; j < MR * VECS; j++)
            sum[j] = vdotq_s32(sum[j], ones, ones);
    }
    UNROLL
    for (int j = 0; j < MR * VECS; j++)
        __asm__ volatile("" : : "w"(sum[j]));
    return (uint64_t)steps * MR * VECS * 32;
}

void kernels_init_neon_dot(kernels *k)
{
    k->gemm[QWEN3_DTYPE_Q8] = (gemm_kernel)GEMM_DOTS(QWEN3_DTYPE_Q8, Q8_BLOCK_BYTES, WHOLE_ROWS, tile_q8);
    k->gemm[QWEN3_DTYPE_Q4] = (gemm_kernel)GEMM_DOTS(QWEN3_DTYPE_Q4, Q4_BLOCK_BYTES, WHOLE_ROWS, tile_q4);
    for (weight_type type = DTYPE_COUNT; type < WEIGHT_TYPES; type++) { /* expanded: activations are those of Q8, too */
        k->gemm[type].activation = QWEN3_DTYPE_Q8;
        k->gemm[type].expanded = &k->mixed[QWEN3_DTYPE_F32];
    }
    k->multiply_add[QWEN3_DTYPE_Q8] = multiply_add;
    k->multiply_add[QWEN3_DTYPE_Q4] = multiply_add;
}
