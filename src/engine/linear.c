/* linear.c - products of few rows are bound by reading weights: each thread reads contiguous pieces of them, which
 * keeps the hardware's prefetching going (handing out single panels was 15 % slower), and helps the others at the end.
 * Products of many rows are bound by arithmetic: items of one panel and some rows are taken one by one. */
#include "engine/linear.h"

/* Rows that share one pass over a panel; their activations stay in the last-level cache. */
#define ROWS_PER_ITEM 512
#define ITEMS_PER_THREAD 32
/* Fewer rows would not pay for bringing a panel into the caches. */
#define LEAST_ROWS 48

/* Rows are cut so that every thread finds ITEMS_PER_THREAD items, and the last ones to finish are not long alone. */
size_t linear_item_rows(const team *t, const gemm_kernel *g, size_t m, size_t parts, size_t most)
{
    const size_t mr = (size_t)g->mr, chunks = ((size_t)t->size * ITEMS_PER_THREAD + parts - 1) / parts;
    size_t rows = (m + chunks - 1) / chunks;
    rows = rows > LEAST_ROWS ? rows : LEAST_ROWS;
    rows = (rows + mr - 1) / mr * mr;
    return rows < most ? rows : most / mr * mr;
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
            matrix_product(g, w, m, x, x_stride, n0 + begin, n0 + end, k0, k1, y + begin, y_stride, accumulate, NULL);
        return;
    }
    size_t rows = linear_item_rows(t, g, m, panels, ROWS_PER_ITEM), chunks = (m + rows - 1) / rows;
    team_loop_begin(t);
    size_t i = team_loop_next(t);
    for (size_t next; i < chunks * panels; i = next) {
        size_t row = i / panels * rows, column = i % panels * nr;
        size_t m_item = m - row < rows ? m - row : rows;
        size_t end = n0 + column + nr < n1 ? n0 + column + nr : n1;
        next = team_loop_next(t);
        const void *ahead = next < chunks * panels ? matrix_at(g, w, n0 + next % panels * nr, k0) : NULL;
        matrix_product(g, w, m_item, (const char *)x + activation_bytes(g->activation, row * x_stride), x_stride,
                       n0 + column, end, k0, k1, y + row * y_stride + column, y_stride, accumulate, ahead);
    }
}

/* Outputs that are gated together: whole panels, and whole blocks where activations are blocks. */
static size_t gated_width(const qwen3_session *s)
{
    return (size_t)gemm_grain(s->model->weights.gemm);
}

/* Rows [row, row + m) of gated_width outputs of b.gated from n0 on. `next`: the weights that come after. */
static void gated_part(const team *t, const qwen3_session *s, const layer_weights *w, range n, size_t n0, size_t row,
                       size_t m, const void *next)
{
    const gemm_kernel *g = s->model->weights.gemm;
    const size_t width = gated_width(s), n1 = n0 + width < (size_t)n.end ? n0 + width : (size_t)n.end;
    const size_t x_stride = activation_stride(w->gate.k), y_stride = activation_stride((size_t)range_size(n));
    float *gate = session_tiles(s, t->tid), *up = gate + TILED_ROWS * width;
    const char *x = (const char *)s->b.normed + session_act_bytes(s, row * x_stride);
    matrix_product(g, &w->gate, m, x, x_stride, n0, n1, 0, w->gate.k, gate, width, false, matrix_at(g, &w->up, n0, 0));
    matrix_product(g, &w->up, m, x, x_stride, n0, n1, 0, w->up.k, up, width, false, next);
    char *y = (char *)s->b.gated + session_act_bytes(s, row * y_stride + n0 - (size_t)n.begin);
    for (size_t r = 0; r < m; r++)
        s->model->kernels->silu_mul(n1 - n0, gate + r * width, up + r * width, y + session_act_bytes(s, r * y_stride),
                                    session_act_type(s));
}

void gated_linear(team *t, const qwen3_session *s, const layer_weights *w, range n, size_t m)
{
    const gemm_kernel *g = s->model->weights.gemm;
    const size_t width = gated_width(s), parts = ((size_t)range_size(n) + width - 1) / width;
    if (m == 0 || parts == 0)
        return;
    if (m <= FEW_ROWS) {
        team_pieces pieces = team_pieces_begin(t, parts, 1);
        for (size_t begin, end; team_pieces_next(t, &pieces, &begin, &end);)
            for (; begin < end; begin++)
                gated_part(t, s, w, n, (size_t)n.begin + begin * width, 0, m, NULL);
        return;
    }
    const size_t rows = linear_item_rows(t, g, m, parts, TILED_ROWS), items = (m + rows - 1) / rows * parts;
    team_loop_begin(t);
    size_t i = team_loop_next(t);
    for (size_t next; i < items; i = next) {
        const size_t row = i / parts * rows;
        next = team_loop_next(t);
        gated_part(t, s, w, n, (size_t)n.begin + i % parts * width, row, m - row < rows ? m - row : rows,
                   next < items ? matrix_at(g, &w->gate, (size_t)n.begin + next % parts * width, 0) : NULL);
    }
}
