/* kernels_amx.c - BF16 x BF16 products with f32 sums in tile registers (TDPBF16PS); for bytes see kernels_amx_int8.c.
 *
 * A panel's groups are pairs, so 16 of them are the second operand without any change, and 16 rows of x are the first:
 * four tiles hold the sums of 16 rows and all 64 outputs, which leaves one for x and three for weights. The ends of
 * rows and of k are tiles that are configured smaller, so nothing is padded or copied and nothing else is read.
 *
 * The instruction adds the 16 products of even and of odd i apart, then both to the sum, takes denormal inputs for 0
 * and flushes denormal sums. Tiles are configured in every call and released at its end: a configuration that is left
 * to the thread would be lost to other code that uses tiles, and saved at every switch of threads.
 */
#include "kernels/x86/amx_tiles.h"

#define MR GEMM_MOST_ROWS
#define NR 64

#define PAIR_BYTES ((size_t)4)
#define GROUP_BYTES (NR * PAIR_BYTES)
#define STEP_GROUPS ((size_t)AMX_BYTES / PAIR_BYTES) /* that one tile of x covers */
/* Weights that several tiles of rows read one after the other: 32 KiB, which stay in the first-level cache. */
#define CHUNK_STEPS ((size_t)8)

/* A step has PREFETCH_STEP values. */
static void prefetch_step(const gemm_prefetch *prefetch, size_t step)
{
    for (size_t b = 0; prefetch && b < prefetch->step_bytes; b += 64)
        __builtin_prefetch(prefetch->from + step * prefetch->step_bytes + b, 0, 2);
}

/* y[configured rows, NR] (+)= x W, for `steps` times the configured groups, from step `first` of the tile on. */
static void add_steps(size_t first, size_t steps, const bf16 *x, size_t x_stride, const char *w, float *y,
                      size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    const size_t x_bytes = x_stride * sizeof *x, y_bytes = y_stride * sizeof *y;
    if (accumulate) {
        amx_load(0, y, y_bytes);
        amx_load(1, y + 16, y_bytes);
        amx_load(2, y + 32, y_bytes);
        amx_load(3, y + 48, y_bytes);
    } else {
        amx_zero(0);
        amx_zero(1);
        amx_zero(2);
        amx_zero(3);
    }
    x += first * 2 * STEP_GROUPS;
    w += first * STEP_GROUPS * GROUP_BYTES;
    for (size_t s = first; s < first + steps; s++, x += 2 * STEP_GROUPS, w += STEP_GROUPS * GROUP_BYTES) {
        prefetch_step(prefetch, s);
        amx_load(4, x, x_bytes);
        amx_load(5, w, GROUP_BYTES);
        amx_load(6, w + 64, GROUP_BYTES);
        amx_load(7, w + 128, GROUP_BYTES);
        amx_add_products_bf16(0, 4, 5);
        amx_load(5, w + 192, GROUP_BYTES);
        amx_add_products_bf16(1, 4, 6);
        amx_add_products_bf16(2, 4, 7);
        amx_add_products_bf16(3, 4, 5);
    }
    amx_store(0, y, y_bytes);
    amx_store(1, y + 16, y_bytes);
    amx_store(2, y + 32, y_bytes);
    amx_store(3, y + 48, y_bytes);
}

/* The same for any number of rows, `groups` <= STEP_GROUPS in each step. */
static void add_rows(size_t rows, size_t groups, size_t steps, const bf16 *x, size_t x_stride, const char *w, float *y,
                     size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    const size_t whole = rows / AMX_ROWS * AMX_ROWS;
    if (whole > 0)
        configure_tiles(AMX_ROWS, groups * PAIR_BYTES);
    for (size_t s = 0; whole > 0 && (s == 0 || s < steps); s += CHUNK_STEPS) {
        const size_t chunk = steps - s < CHUNK_STEPS ? steps - s : CHUNK_STEPS;
        for (size_t r = 0; r < whole; r += AMX_ROWS)
            add_steps(s, chunk, x + r * x_stride, x_stride, w, y + r * y_stride, y_stride, accumulate || s > 0,
                      r == 0 ? prefetch : NULL);
    }
    if (rows > whole) {
        configure_tiles(rows - whole, groups * PAIR_BYTES);
        add_steps(0, steps, x + whole * x_stride, x_stride, w, y + whole * y_stride, y_stride, accumulate,
                  whole == 0 ? prefetch : NULL);
    }
}

static void tile_bf16(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,
                      size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    const size_t steps = k_groups / STEP_GROUPS, rest = k_groups % STEP_GROUPS;
    if (steps > 0 || rest == 0)
        add_rows((size_t)rows, STEP_GROUPS, steps, x, x_stride, w, y, y_stride, accumulate, prefetch);
    if (rest > 0)
        add_rows((size_t)rows, rest, 1, (const bf16 *)x + steps * 2 * STEP_GROUPS, x_stride,
                 (const char *)w + steps * STEP_GROUPS * GROUP_BYTES, y, y_stride, accumulate || steps > 0, NULL);
    amx_release();
}

DEFINE_MULTIPLY_ADD(amx_add_products_bf16, sizeof(bf16))

void kernels_init_amx(kernels *k)
{
    k->gemm[QWEN3_DTYPE_BF16] = (gemm_kernel){.storage = QWEN3_DTYPE_BF16,
                                              .activation = QWEN3_DTYPE_BF16,
                                              .mr = MR,
                                              .one_pass_rows = MR,
                                              .nr = NR,
                                              .kr = 2,
                                              .group_bytes = PAIR_BYTES,
                                              .tile = tile_bf16};
    k->multiply_add[QWEN3_DTYPE_BF16] = multiply_add;
    kernels_amx_int8(k);
}
