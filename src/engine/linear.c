/* linear.c - products of few rows are bound by reading weights: each thread reads contiguous pieces of them, which
 * keeps the hardware's prefetching going (handing out single panels was 15 % slower), and helps the others at the end.
 * Products of many rows are bound by arithmetic: items of one panel and some rows are taken one by one, those of the
 * same panel one after the other, so that it is read from memory once and often is in the caches already. */
#include "engine/linear.h"

/* Rows that share one pass over a panel; their activations stay in the last-level cache. */
#define ROWS_PER_ITEM 512
#define ITEMS_PER_THREAD 16
/* Fewer rows would not pay for bringing a panel into the caches. */
#define LEAST_ROWS 48

/* Of the last items, LAST_ITEMS for each thread, the rows are cut in LAST_CUTS. */
#define LAST_ITEMS 2
#define LAST_CUTS 4

static linear_item item_at(const linear_items *items, size_t i)
{
    const bool cut = i >= items->ordinary;
    const size_t whole = cut ? items->ordinary + (i - items->ordinary) / LAST_CUTS : i;
    const size_t row = whole % items->cuts * items->rows, left = items->m - row;
    linear_item item = {whole / items->cuts, row, left < items->rows ? left : items->rows};
    if (cut) {
        const size_t units = (item.m + items->grain - 1) / items->grain, piece = (i - items->ordinary) % LAST_CUTS;
        const size_t begin = units * piece / LAST_CUTS * items->grain;
        const size_t end = units * (piece + 1) / LAST_CUTS * items->grain;
        item.row += begin;
        item.m = (end < item.m ? end : item.m) - begin;
    }
    return item;
}

static void take_item(team *t, linear_items *items)
{
    const size_t i = team_loop_next(t);
    items->more = i < items->count;
    if (items->more)
        items->following = item_at(items, i);
}

/* Rows are cut so that every thread finds ITEMS_PER_THREAD items. */
linear_items linear_items_begin(team *t, const gemm_kernel *g, size_t m, size_t parts, size_t most)
{
    const size_t mr = (size_t)g->mr, chunks = ((size_t)t->size * ITEMS_PER_THREAD + parts - 1) / parts;
    const size_t last = t->size > 1 ? (size_t)t->size * LAST_ITEMS : 0;
    size_t rows = (m + chunks - 1) / chunks;
    rows = rows > LEAST_ROWS ? rows : LEAST_ROWS;
    rows = (rows + mr - 1) / mr * mr;
    rows = rows < most ? rows : most / mr * mr;
    const size_t cuts = (m + rows - 1) / rows, count = cuts * parts, ordinary = count > last ? count - last : 0;
    linear_items items = {ordinary + (count - ordinary) * LAST_CUTS, m, cuts, rows, ordinary, mr, false, {0}};
    team_loop_begin(t);
    take_item(t, &items);
    return items;
}

bool linear_items_next(team *t, linear_items *items, linear_item *item)
{
    if (!items->more)
        return false;
    *item = items->following;
    take_item(t, items);
    return true;
}

void linear(team *t, const gemm_kernel *g, const matrix *w, range n, range k, size_t m, const void *x, size_t x_stride,
            float *y, size_t y_stride, bool accumulate)
{
    size_t nr = (size_t)g->nr, n0 = (size_t)n.begin, n1 = (size_t)n.end, k0 = (size_t)k.begin, k1 = (size_t)k.end;
    size_t panels = (n1 - n0 + nr - 1) / nr;
    if (m == 0 || panels == 0)
        return;
    if (m <= FEW_ROWS) {
        team_pieces pieces = team_pieces_begin(t, n1 - n0, nr);
        for (size_t begin, end; team_pieces_next(t, &pieces, &begin, &end);)
            matrix_product(g, &(matrix_part){w, n0 + begin, n0 + end, k0, k1, NULL}, &(gemm_input){x, m, x_stride},
                           &(gemm_output){y + begin, y_stride, accumulate});
        return;
    }
    linear_items items = linear_items_begin(t, g, m, panels, ROWS_PER_ITEM);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const size_t column = item.part * nr, end = n0 + column + nr < n1 ? n0 + column + nr : n1;
        const void *ahead = items.more ? matrix_at(g, w, n0 + items.following.part * nr, k0) : NULL;
        const void *rows = (const char *)x + activation_bytes(g->activation, item.row * x_stride);
        matrix_product(g, &(matrix_part){w, n0 + column, end, k0, k1, ahead}, &(gemm_input){rows, item.m, x_stride},
                       &(gemm_output){y + item.row * y_stride + column, y_stride, accumulate});
    }
}

/* Outputs that are gated together: whole panels, and whole blocks where activations are blocks. */
static size_t gated_width(const qwen3_session *s)
{
    return (size_t)gemm_grain(s->model->weights.gemm);
}

/* Rows [row, row + m) of outputs [n0, n1) of b.gated, of which a tile of the thread has room for. `next`: the weights
 * that come after. */
static void gated_part(const team *t, const qwen3_session *s, const layer_weights *w, range n, size_t n0, size_t n1,
                       size_t row, size_t m, const void *next)
{
    const gemm_kernel *g = s->model->weights.gemm;
    const size_t width = n1 - n0;
    const size_t x_stride = activation_stride(w->gate.k), y_stride = activation_stride((size_t)range_size(n));
    float *gate = session_tiles(s, t->tid), *up = gate + TILED_ROWS * gated_width(s);
    const gemm_input x = {(const char *)s->b.normed + session_act_bytes(s, row * x_stride), m, x_stride};
    matrix_product(g, &(matrix_part){&w->gate, n0, n1, 0, w->gate.k, matrix_at(g, &w->up, n0, 0)}, &x,
                   &(gemm_output){gate, width, false});
    matrix_product(g, &(matrix_part){&w->up, n0, n1, 0, w->up.k, next}, &x, &(gemm_output){up, width, false});
    char *y = (char *)s->b.gated + session_act_bytes(s, row * y_stride + n0 - (size_t)n.begin);
    for (size_t r = 0; r < m; r++)
        s->model->kernels->silu_mul(width, gate + r * width, up + r * width, y + session_act_bytes(s, r * y_stride),
                                    session_act_type(s));
}

void gated_linear(team *t, const qwen3_session *s, const layer_weights *w, range n, size_t m)
{
    const gemm_kernel *g = s->model->weights.gemm;
    const size_t n0 = (size_t)n.begin, n1 = (size_t)n.end, width = gated_width(s);
    const size_t parts = (n1 - n0 + width - 1) / width;
    if (m == 0 || parts == 0)
        return;
    if (m <= FEW_ROWS) {
        /* As many outputs at once as there is room for: both matrices are read in long pieces. */
        const size_t most = TILED_ROWS / m * width;
        team_pieces pieces = team_pieces_begin(t, n1 - n0, width);
        for (size_t begin, end; team_pieces_next(t, &pieces, &begin, &end);)
            for (; begin < end; begin += most)
                gated_part(t, s, w, n, n0 + begin, n0 + (begin + most < end ? begin + most : end), 0, m, NULL);
        return;
    }
    linear_items items = linear_items_begin(t, g, m, parts, TILED_ROWS);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const size_t begin = n0 + item.part * width;
        const void *ahead = items.more ? matrix_at(g, &w->gate, n0 + items.following.part * width, 0) : NULL;
        gated_part(t, s, w, n, begin, begin + width < n1 ? begin + width : n1, item.row, item.m, ahead);
    }
}
