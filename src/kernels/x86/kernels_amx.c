/* kernels_amx.c - BF16 x BF16 products with f32 sums in tile registers (TDPBF16PS); for bytes see kernels_amx_int8.c,
 * for few rows kernels_amx_few.c.
 *
 * A panel's groups are pairs, so 16 of them are the second operand without any change, and 16 rows of x are the first:
 * four tiles hold the sums of 16 rows and all 64 outputs, which leaves one for x and three for weights. The ends of
 * rows and of k are tiles that are configured smaller, so nothing is padded or copied and nothing else is read.
 *
 * Loading tiles is what limits (docs/notebook/2026-11-27-amx.md). So a chunk of weights stays in the first-level cache
 * while all rows pass by, and sums that pass from chunk to chunk lie tile after tile: rows of y, which are often a
 * power of 2 apart, would meet in a few sets of the cache.
 *
 * The instruction adds the 16 products of even and of odd i apart, then both to the sum, takes denormal inputs for 0
 * and flushes denormal sums. Tiles are configured for each panel and released at its end: a configuration that is left
 * to the thread would be lost to other code that uses tiles, and saved at every switch of threads.
 */
#include "base/memory.h"
#include "kernels/x86/amx_tiles.h"

#define MR GEMM_MOST_ROWS
#define NR 64

#define PAIR_BYTES ((size_t)4)
#define GROUP_BYTES (NR * PAIR_BYTES)
#define STEP_GROUPS ((size_t)AMX_BYTES / PAIR_BYTES) /* that one tile of x covers */
/* Of weights, 32 KiB. */
#define CHUNK_GROUPS (8 * STEP_GROUPS)
/* Rows whose sums pass from chunk to chunk, 64 KiB on the stack. */
#define SUM_ROWS ((size_t)256)

/* Where the sums of 16 rows and NR outputs are: floats from row to row, and from tile to tile. NULL: they are 0. */
typedef struct sums {
    float *at;
    size_t row, tile;
} sums;

/* Weights to prefetch into the second-level cache, step_bytes with every step. */
typedef struct prefetching {
    const char *from, *end;
    size_t step_bytes;
} prefetching;

static inline void prefetch_step(prefetching *p)
{
    for (size_t done = 0; done < p->step_bytes && p->from < p->end; done += 64, p->from += 64)
        __builtin_prefetch(p->from, 0, 2);
}

/* to[configured rows, NR] = from + x W, for `steps` times the configured groups. */
static void add_steps(size_t steps, const bf16 *x, size_t x_bytes, const char *w, sums from, sums to,
                      prefetching *prefetch)
{
    if (from.at) {
        amx_load(0, from.at, from.row * sizeof(float));
        amx_load(1, from.at + from.tile, from.row * sizeof(float));
        amx_load(2, from.at + 2 * from.tile, from.row * sizeof(float));
        amx_load(3, from.at + 3 * from.tile, from.row * sizeof(float));
    } else {
        amx_zero(0);
        amx_zero(1);
        amx_zero(2);
        amx_zero(3);
    }
    for (size_t s = 0; s < steps; s++, x += 2 * STEP_GROUPS, w += STEP_GROUPS * GROUP_BYTES) {
        prefetch_step(prefetch);
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
    amx_store(0, to.at, to.row * sizeof(float));
    amx_store(1, to.at + to.tile, to.row * sizeof(float));
    amx_store(2, to.at + 2 * to.tile, to.row * sizeof(float));
    amx_store(3, to.at + 3 * to.tile, to.row * sizeof(float));
}

/* Where the chunk of groups that begins at `done` ends. What the whole steps leave is a chunk of one smaller step. */
static size_t chunk_end(const gemm_panel *p, size_t done)
{
    const size_t whole = p->k_groups / STEP_GROUPS * STEP_GROUPS;
    if (done >= whole)
        return p->k_groups;
    return done + CHUNK_GROUPS < whole ? done + CHUNK_GROUPS : whole;
}

/* The weights that come after the chunk that ends at `end`, a share with each of so many steps. */
static prefetching chunk_after(const gemm_panel *p, size_t end, size_t steps)
{
    const bool last = end == p->k_groups;
    const char *from = last ? p->next : (const char *)p->w + end * GROUP_BYTES;
    const size_t most = CHUNK_GROUPS * GROUP_BYTES;
    const size_t bytes = last ? (p->next_bytes < most ? p->next_bytes : most) : (chunk_end(p, end) - end) * GROUP_BYTES;
    if (!from || steps == 0)
        return (prefetching){NULL, NULL, 0};
    return (prefetching){from, from + bytes, round_up((bytes + steps - 1) / steps, 64)};
}

/* Rows of the last part from `first` on, from its sums [tile of outputs][height][16]. */
static void store_rows(const float *part, size_t height, size_t first, float *y, size_t y_stride)
{
    for (size_t r = first; r < height; r++)
        for (size_t tile = 0; tile < NR / 16; tile++)
            memcpy(y + r * y_stride + tile * 16, part + (tile * height + r) * 16, 16 * sizeof *y);
}

/* At most SUM_ROWS rows: y (+)= x W. They are in parts of equal height, so that all of them pass by a chunk with one
 * configuration. The last part may begin with rows of the one before, which it computes again and does not store. The
 * first part reads a chunk, which the hardware follows; the others prefetch the next one. */
static void add_block(size_t rows, const gemm_panel *p, const bf16 *x, float *y)
{
    _Alignas(64) float between[SUM_ROWS * NR]; /* [part][tile of outputs][height][16] */
    const size_t parts = (rows + AMX_ROWS - 1) / AMX_ROWS, height = (rows + parts - 1) / parts;
    const size_t repeated = parts * height - rows; /* rows of the last part */
    const sums none = {NULL, 0, 0};
    size_t done = 0, configured = 0;
    do { /* once at least: an empty sum is 0 */
        const size_t end = chunk_end(p, done), groups = end - done;
        const size_t step = groups > 0 && groups < STEP_GROUPS ? groups : STEP_GROUPS, steps = groups / step;
        prefetching next = {NULL, NULL, 0};
        if (configured != step)
            configure_tiles(height, step * PAIR_BYTES);
        configured = step;
        for (size_t i = 0; i < parts; i++) {
            const size_t row = i + 1 < parts ? i * height : rows - height;
            const sums passed = {between + i * height * NR, 16, height * 16};
            const sums outputs = {y + row * p->y_stride, p->y_stride, 16};
            const bool to_outputs = end == p->k_groups && (i + 1 < parts || repeated == 0);
            if (i == 1)
                next = chunk_after(p, end, (parts - 1) * steps);
            add_steps(steps, x + row * p->x_stride + 2 * done, p->x_stride * sizeof *x,
                      (const char *)p->w + done * GROUP_BYTES,
                      done > 0        ? passed
                      : p->accumulate ? outputs
                                      : none,
                      to_outputs ? outputs : passed, &next);
        }
        done = end;
    } while (done < p->k_groups);
    if (repeated > 0)
        store_rows(between + (parts - 1) * height * NR, height, repeated, y + (rows - height) * p->y_stride,
                   p->y_stride);
}

static void panel_bf16(const gemm_panel *p)
{
    for (size_t row = 0; row < p->rows; row += SUM_ROWS) {
        const size_t rows = p->rows - row < SUM_ROWS ? p->rows - row : SUM_ROWS;
        const bf16 *x = (const bf16 *)p->x + row * p->x_stride;
        float *y = p->y + row * p->y_stride;
        if (p->cols == NR) {
            add_block(rows, p, x, y);
            continue;
        }
        float outputs[SUM_ROWS * NR]; /* the last panel of a matrix computes outputs that y has no room for */
        gemm_panel edge = *p;
        edge.y_stride = NR;
        memset(outputs, 0, rows * NR * sizeof *outputs);
        for (size_t r = 0; r < rows && p->accumulate; r++)
            memcpy(outputs + r * NR, y + r * p->y_stride, p->cols * sizeof *y);
        add_block(rows, &edge, x, outputs);
        for (size_t r = 0; r < rows; r++)
            memcpy(y + r * p->y_stride, outputs + r * NR, p->cols * sizeof *y);
    }
    amx_release();
}

static void tile_bf16(int rows, size_t k_groups, const void *x, size_t x_stride, const void *w, float *y,
                      size_t y_stride, bool accumulate, const gemm_prefetch *prefetch)
{
    const gemm_panel p = {(size_t)rows, k_groups, NR, x, x_stride, w, y, y_stride, accumulate, NULL, 0};
    (void)prefetch;
    add_block((size_t)rows, &p, x, y);
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
                                              .tile = tile_bf16,
                                              .panel = panel_bf16,
                                              .few = &k->few[QWEN3_DTYPE_BF16]};
    k->few[QWEN3_DTYPE_BF16] = kernels_amx_few_bf16;
    k->multiply_add[QWEN3_DTYPE_BF16] = multiply_add;
    kernels_amx_int8(k);
}
