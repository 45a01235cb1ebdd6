/* kernels_amx_few.c - BF16 x BF16 products of few rows for the AMX level, in vectors: the results of TDPBF16PS to the
 * last bit (kernels_amx.c), so that rows may be few or many.
 *
 * For up to 16 pairs of i at a time the instruction adds the products of even and of odd i apart, each by one fused
 * multiply-add in ascending order, then adds both to each other and to the sum. It rounds to nearest even, takes
 * denormal numbers for 0 and flushes results to 0, whatever the thread's settings: MXCSR is set so meanwhile. Few rows
 * are bound by reading weights; VDPBF16PS, which adds in another order, would not be faster on the processors that have
 * AMX.
 */
#include "kernels/x86/vector_avx512.h"

#include "kernels/tile.h"

#define NR (VECS * LANES)
#define STEP_GROUPS ((size_t)16)
#define GROUP_BYTES_BF16 ((size_t)NR * 4)

/* Up to this many rows sum all outputs in one pass over a step; more leave registers for half of them. */
#define WHOLE_ROWS 3

/* All exceptions masked, rounding to nearest, denormal inputs and results to 0. */
#define MXCSR_OF_TILES 0x9fc0u

/* Even and odd x of a step, widened. */
typedef float widened[MR][2][16];

TEMPLATE void widen_rows(const int rows, size_t groups, const bf16 *x, size_t x_stride, widened wide)
{
    UNROLL
    for (int r = 0; r < rows; r++) {
        const __m512i pairs = _mm512_maskz_loadu_epi32(lane_mask(groups), x + (size_t)r * x_stride);
        vec_store(wide[r][0], _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)));
        vec_store(wide[r][1], _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u))));
    }
}

/* y[rows, vecs * LANES] (+)= the products of one step. Of `later`, step_bytes are prefetched meanwhile. */
TEMPLATE void add_step(const int rows, const int vecs, size_t groups, const widened wide, const char *w, float *y,
                       size_t y_stride, bool accumulate, gemm_prefetch later)
{
    vec sum[MR][2][VECS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vecs; v++)
            sum[r][0][v] = sum[r][1][v] = vec_set1(0.0f);
    }
    for (size_t g = 0; g < groups; g++) {
        prefetch_part(later.from, later.step_bytes, g, STEP_GROUPS, later.level);
        vec weight[2][VECS];
        UNROLL
        for (int v = 0; v < vecs; v++) {
            const bf16 *pairs = (const bf16 *)(w + g * GROUP_BYTES_BF16) + v * 2 * LANES;
            weight[0][v] = vec_pairs(pairs, 0);
            weight[1][v] = vec_pairs(pairs, 1);
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int odd = 0; odd < 2; odd++) {
                const vec x = vec_set1(wide[r][odd][g]);
                UNROLL
                for (int v = 0; v < vecs; v++)
                    sum[r][odd][v] = vec_fma(x, weight[odd][v], sum[r][odd][v]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vecs; v++) {
            float *to = y + (size_t)r * y_stride + v * LANES;
            const vec before = accumulate ? vec_load(to) : vec_set1(0.0f);
            vec_store(to, vec_add(before, vec_add(sum[r][0][v], sum[r][1][v])));
        }
    }
}

TEMPLATE void tile_rows(const int rows, const qwen3_dtype storage, size_t k_groups, const void *x, size_t x_stride,
                        const void *w, float *y, size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    (void)storage;
    gemm_prefetch later = prefetch ? *prefetch : (gemm_prefetch){.from = w, .level = 2};
    widened wide;
    size_t done = 0;
    for (; done < k_groups; done += STEP_GROUPS, accumulate = true, later.from += later.step_bytes) {
        const size_t groups = k_groups - done < STEP_GROUPS ? k_groups - done : STEP_GROUPS;
        const char *step = (const char *)w + done * GROUP_BYTES_BF16;
        widen_rows(rows, groups, (const bf16 *)x + 2 * done, x_stride, wide);
        if (rows <= WHOLE_ROWS) {
            add_step(rows, VECS, groups, (const float(*)[2][16])wide, step, y, y_stride, accumulate, later);
        } else {
            add_step(rows, VECS / 2, groups, (const float(*)[2][16])wide, step, y, y_stride, accumulate, later);
            add_step(rows, VECS / 2, groups, (const float(*)[2][16])wide, step + GROUP_BYTES_BF16 / 2, y + NR / 2,
                     y_stride, accumulate, (gemm_prefetch){.from = w, .level = 2});
        }
    }
    for (int r = 0; r < rows && k_groups == 0 && !accumulate; r++)
        memset(y + (size_t)r * y_stride, 0, NR * sizeof *y);
}

DEFINE_TILE(tile_in_order, tile_rows, QWEN3_DTYPE_BF16)

/* Nothing may be computed outside of the two settings: all of it comes from memory and goes to memory. */
static void tile_bf16(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,
                      size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    const unsigned before = _mm_getcsr();
    _mm_setcsr(MXCSR_OF_TILES);
    __asm__ volatile("" : : : "memory");
    tile_in_order(rows, k_groups, x, x_stride, w, y, y_stride, accumulate, prefetch);
    __asm__ volatile("" : : : "memory");
    _mm_setcsr(before);
}

const gemm_kernel kernels_amx_few_bf16 =
    GEMM(QWEN3_DTYPE_BF16, QWEN3_DTYPE_BF16, 2, sizeof(uint32_t), MR, .tile = tile_bf16);
