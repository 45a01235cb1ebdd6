/* gemm.c - packing, and products of whole matrices out of tiles.
 *
 * A panel (nr outputs) is split along k into pieces that stay in the second-level cache while all rows of x
 * pass by, mr at a time (Goto & van de Geijn 2008; x is small enough here to need no packing). Pieces of
 * panels that must be widened are expanded for many rows to share, unless a tile takes them as they are.
 */
#include "base/memory.h"
#include "kernels/blocks.h"
#include "kernels/row_limits.h"

/* A quarter of the smallest second-level cache of current server cores. */
#define PIECE_BYTES ((size_t)256 * 1024)
/* Of few rows: a tile that reads its weights once and in order prefetches them so far ahead of their use; several tiles
 * pass over pieces of so many bytes, and prefetch the next piece. */
#define PREFETCH_DISTANCE ((size_t)4096)
#define FEW_PIECE_BYTES ((size_t)16 * 1024)
/* Of many rows the last so many tiles prefetch the weights that come next: earlier, the rows of x that pass through
 * would drive these out of the caches again. */
#define PREFETCHING_TILES ((size_t)16)
/* Of a piece that is expanded, on the stack of the calling thread. */
#define EXPANDED_BYTES ((size_t)64 * 1024)
/* Groups (32 bits per output each) that are packed at once: of one row two or more cache lines. */
#define PACK_GROUPS ((size_t)64)

static inline size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t groups_of(const gemm_kernel *g, size_t k)
{
    return (k + (size_t)g->kr - 1) / (size_t)g->kr;
}

static inline size_t panel_bytes(const gemm_kernel *g, size_t k)
{
    return groups_of(g, k) * (size_t)g->group_bytes * (size_t)g->nr;
}

size_t gemm_packed_bytes(const gemm_kernel *g, size_t n, size_t k)
{
    return (n + (size_t)g->nr - 1) / (size_t)g->nr * panel_bytes(g, k);
}

const void *gemm_at(const gemm_kernel *g, const void *w, size_t depth, size_t n, size_t k)
{
    return (const unsigned char *)w + n / (size_t)g->nr * panel_bytes(g, depth) +
           k / (size_t)g->kr * (size_t)g->nr * (size_t)g->group_bytes;
}

static bool finite_bf16(size_t n, const bf16 *x)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (x[i] & 0x7f80) == 0x7f80;
    return !bad;
}

static bool finite_f32(size_t n, const float *x)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        bad |= (u & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* Part of a row, in the storage type. */
typedef union packed_row {
    float f32[PACK_GROUPS];
    bf16 bf16[2 * PACK_GROUPS];
    uint32_t group[PACK_GROUPS];
} packed_row;

/* Columns [col, col + n) of a source row. Returns false where one is not finite. */
static bool convert_row(qwen3_dtype storage, packed_row *row, const void *src, qwen3_dtype src_type, size_t col,
                        size_t n)
{
    const unsigned char *from = (const unsigned char *)src + col * dtype_size(src_type);
    if (src_type == storage) {
        memcpy(row, from, n * dtype_size(storage));
    } else if (storage == QWEN3_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            float x;
            memcpy(&x, from + i * sizeof x, sizeof x);
            row->bf16[i] = f32_to_bf16(x);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            bf16 x;
            memcpy(&x, from + i * sizeof x, sizeof x);
            row->f32[i] = bf16_to_f32(x);
        }
    }
    return storage == QWEN3_DTYPE_BF16 ? finite_bf16(n, row->bf16) : finite_f32(n, row->f32);
}

/* A group of one F32 or BF16 output has 32 bits, so packing is a transposition of 32-bit elements, a few cache
 * lines of every row at a time. */
static bool pack_elements(const gemm_kernel *g, const matrix_rows *rows, void *panel)
{
    const size_t nr = (size_t)g->nr, kr = (size_t)g->kr, k = rows->k, groups = groups_of(g, k);
    bool finite = true;
    for (size_t group = 0; group < groups; group += PACK_GROUPS) {
        const size_t count = min_size(PACK_GROUPS, groups - group);
        unsigned char *dst = (unsigned char *)panel + group * nr * sizeof(uint32_t);
        const size_t row_share = PACK_GROUPS * sizeof(uint32_t);
        packed_row row = {0};
        for (size_t j = 0; j < nr; j++) {
            if (j < rows->n) {
                const unsigned char *from =
                    (const unsigned char *)rows->data + j * rows->stride * dtype_size(rows->type);
                const size_t col = group * kr;
                finite &= convert_row(g->storage, &row, from, rows->type, col, min_size(count * kr, k - col));
            } else if (j == rows->n) {
                memset(&row, 0, sizeof row);
            }
            for (size_t i = 0; i < count; i++)
                memcpy(dst + (i * nr + j) * sizeof(uint32_t), &row.group[i], sizeof(uint32_t));
            for (size_t b = 0; b < row_share; b += 64)
                __builtin_prefetch(dst + PACK_GROUPS * nr * sizeof(uint32_t) + j * row_share + b, 1);
        }
    }
    return finite;
}

bool gemm_pack_panel(const gemm_kernel *g, const matrix_rows *rows, void *panel)
{
    return (g->storage < ELEMENT_TYPES ? pack_elements : blocks_pack_panel)(g, rows, panel);
}

/* One problem of the size that a panel piece covers: all rows of x, `cols` <= nr outputs. */
typedef struct gemm_piece {
    const void *x;
    const void *w;
    size_t k_groups;
    size_t cols;
    float *y;
    bool accumulate;
    const unsigned char *next; /* weights to prefetch; NULL = none */
    size_t next_bytes;
    size_t prefetching; /* so many tiles of rows, the last ones, prefetch them, each its share */
    int level;          /* of the cache */
} gemm_piece;

/* Rows of `cols` of nr outputs from and to y; the others are 0. */
static void load_outputs(const gemm_kernel *g, size_t rows, size_t cols, const float *y, size_t y_stride, float *whole)
{
    const size_t nr = (size_t)g->nr;
    for (size_t r = 0; r < rows; r++) {
        memcpy(whole + r * nr, y + r * y_stride, cols * sizeof(float));
        memset(whole + r * nr + cols, 0, (nr - cols) * sizeof(float));
    }
}

static void store_outputs(const gemm_kernel *g, size_t rows, size_t cols, const float *whole, float *y, size_t y_stride)
{
    for (size_t r = 0; r < rows; r++)
        memcpy(y + r * y_stride, whole + r * (size_t)g->nr, cols * sizeof(float));
}

/* The last panel of a matrix computes outputs that y has no room for. */
static void tile_edge(const gemm_kernel *g, int rows, const gemm_piece *p, const void *x, size_t x_stride, float *y,
                      size_t y_stride)
{
    _Alignas(64) float whole[GEMM_MOST_ROWS * GEMM_MOST_OUTPUTS];
    if (p->accumulate)
        load_outputs(g, (size_t)rows, p->cols, y, y_stride, whole);
    g->tile(rows, p->k_groups, x, x_stride, p->w, whole, (size_t)g->nr, p->accumulate, NULL);
    store_outputs(g, (size_t)rows, p->cols, whole, y, y_stride);
}

static size_t tiles_of(const gemm_kernel *g, size_t m)
{
    return (m + (size_t)g->mr - 1) / (size_t)g->mr;
}

/* Tiles of nearly equal height: 8 rows at mr = 6 are 4 + 4, not 6 + 2. */
static void piece_rows(const gemm_kernel *g, size_t m, size_t x_stride, size_t y_stride, const gemm_piece *p)
{
    const size_t tiles = tiles_of(g, m), prefetching = min_size(p->prefetching, tiles);
    const size_t steps = p->k_groups * (size_t)g->kr / PREFETCH_STEP;
    size_t step_bytes = 0, done = 0;
    if (prefetching > 0 && steps > 0 && p->next)
        step_bytes = round_up(p->next_bytes / prefetching / steps, CACHE_LINE);
    for (size_t t = 0; t < tiles; t++) {
        const size_t row = t * m / tiles;
        const int rows = (int)((t + 1) * m / tiles - row);
        const void *x = (const unsigned char *)p->x + activation_bytes(g->activation, row * x_stride);
        float *y = p->y + row * y_stride;
        gemm_prefetch prefetch = {.level = p->level}; /* where no weights are left, rows of x alone */
        if (step_bytes > 0)
            prefetch.from = (const char *)p->next + done;
        if (t + prefetching >= tiles && done < p->next_bytes)
            prefetch.step_bytes = step_bytes;
        if (p->cols == (size_t)g->nr)
            g->tile(rows, p->k_groups, x, x_stride, p->w, y, y_stride, p->accumulate,
                    step_bytes > 0 ? &prefetch : NULL);
        else
            tile_edge(g, rows, p, x, x_stride, y, y_stride);
        done += steps * prefetch.step_bytes;
    }
}

static void expanded_rows(const gemm_kernel *g, size_t m, size_t x_stride, size_t y_stride, size_t k,
                          const gemm_piece *piece)
{
    _Alignas(64) unsigned char panel[EXPANDED_BYTES];
    gemm_piece expanded = *piece;
    g->expand(piece->k_groups, piece->w, panel);
    expanded.w = panel;
    expanded.k_groups = groups_of(g->expanded, k);
    piece_rows(g->expanded, m, x_stride, y_stride, &expanded);
}

/* Whether a tile that reads its weights once and in order prefetches them. */
static bool prefetches_stream(const gemm_kernel *g)
{
    return g->storage >= ELEMENT_TYPES || g->policy->elements;
}

/* Rows for which tiles pass once over weights that come from memory. */
static void one_pass_rows(const gemm_kernel *g, size_t m, size_t x_stride, size_t y_stride, const gemm_piece *piece)
{
    gemm_piece p = *piece;
    p.next_bytes = p.k_groups * (size_t)g->nr * (size_t)g->group_bytes;
    p.next = prefetches_stream(g) ? (const unsigned char *)p.w + PREFETCH_DISTANCE : NULL;
    p.level = 2;
    piece_rows(g, m, x_stride, y_stride, &p);
}

/* Rows that are bound by reading weights, which tiles pass over more than once: over pieces that are in the first-level
 * cache, while the next one is prefetched, a few lines at a time, in all passes or, where the hardware follows the
 * first, in the others. Sums stay in one place: rows of y are often a power of 2 apart, and would meet in a few
 * sets of the cache. */
static void few_rows(const gemm_kernel *g, size_t m, size_t x_stride, size_t y_stride, const gemm_piece *panel)
{
    _Alignas(64) float sums[GEMM_FEW_ROWS * GEMM_MOST_OUTPUTS];
    const size_t nr = (size_t)g->nr, group_bytes = nr * (size_t)g->group_bytes;
    const size_t groups = round_up(FEW_PIECE_BYTES / group_bytes * (size_t)g->kr, ACTIVATION_PAD) / (size_t)g->kr;
    gemm_piece p = {.cols = nr,
                    .y = sums,
                    .next_bytes = groups * group_bytes,
                    .prefetching = tiles_of(g, m) - !prefetches_stream(g),
                    .level = g->policy->piece_level};
    if (panel->accumulate)
        load_outputs(g, m, panel->cols, panel->y, y_stride, sums);
    for (size_t i = 0; i < panel->k_groups || i == 0; i += groups) {
        p.x = (const unsigned char *)panel->x + activation_bytes(g->activation, i * (size_t)g->kr);
        p.w = (const unsigned char *)panel->w + i * group_bytes;
        p.k_groups = min_size(groups, panel->k_groups - i);
        p.accumulate = panel->accumulate || i > 0;
        p.next = i + groups < panel->k_groups ? (const unsigned char *)p.w + groups * group_bytes : panel->next;
        piece_rows(g, m, x_stride, nr, &p);
    }
    store_outputs(g, m, panel->cols, sums, panel->y, y_stride);
}

/* Many rows: panels one after the other, each with all of them. */
static void whole_panels(const gemm_kernel *g, const gemm_weights *w, const gemm_input *x, const gemm_output *y)
{
    const size_t nr = (size_t)g->nr, k = w->k1 - w->k0;
    for (size_t out = w->n0; out < w->n1; out += nr)
        g->panel(&(gemm_panel){.rows = x->rows,
                               .k_groups = groups_of(g, k),
                               .cols = min_size(nr, w->n - out),
                               .x = x->x,
                               .x_stride = x->stride,
                               .w = gemm_at(g, w->w, w->k, out, w->k0),
                               .y = y->y + (out - w->n0),
                               .y_stride = y->stride,
                               .accumulate = y->accumulate,
                               .next = out + nr < w->n1 ? gemm_at(g, w->w, w->k, out + nr, w->k0) : w->next,
                               .next_bytes = panel_bytes(g, k)});
}

void gemm(const gemm_kernel *g, const gemm_weights *w, const gemm_input *x, const gemm_output *y)
{
    if (g->few && x->rows <= g->few_rows)
        g = g->few;
    if (g->panel && x->rows > GEMM_FEW_ROWS) {
        whole_panels(g, w, x, y);
        return;
    }
    const size_t m = x->rows, nr = (size_t)g->nr, group_bytes = nr * (size_t)g->group_bytes;
    const bool expands = g->expand && (!g->tile || m > GEMM_FEW_ROWS);
    size_t k_piece = PIECE_BYTES / group_bytes * (size_t)g->kr;
    if (expands) {
        k_piece = EXPANDED_BYTES / nr / (size_t)g->expanded->group_bytes * (size_t)g->expanded->kr;
        k_piece -= k_piece % (size_t)g->kr; /* whole groups of both */
    }
    for (size_t out = w->n0; out < w->n1; out += nr) {
        size_t i = w->k0;
        do { /* once at least: an empty sum is 0 */
            const size_t end = min_size(w->k1, i + k_piece);
            gemm_piece p = {.x = (const unsigned char *)x->x + activation_bytes(g->activation, i - w->k0),
                            .w = gemm_at(g, w->w, w->k, out, i),
                            .k_groups = groups_of(g, end - i),
                            .cols = min_size(nr, w->n - out),
                            .y = y->y + (out - w->n0),
                            .accumulate = y->accumulate || i > w->k0,
                            .prefetching = PREFETCHING_TILES,
                            .level = 1};
            if (end < w->k1)
                p.next = gemm_at(g, w->w, w->k, out, end);
            else
                p.next = out + nr < w->n1 ? gemm_at(g, w->w, w->k, out + nr, w->k0) : w->next;
            p.next_bytes = min_size(w->k1 - w->k0, k_piece) / (size_t)g->kr * group_bytes;
            if (expands)
                expanded_rows(g, m, x->stride, y->stride, end - i, &p);
            else if (m <= (size_t)g->one_pass_rows)
                one_pass_rows(g, m, x->stride, y->stride, &p);
            else if (m <= GEMM_FEW_ROWS)
                few_rows(g, m, x->stride, y->stride, &p);
            else
                piece_rows(g, m, x->stride, y->stride, &p);
            i = end;
        } while (i < w->k1);
    }
}
