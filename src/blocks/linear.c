/* linear.c - products of few rows are bound by reading weights: each thread reads contiguous pieces of them, which
 * keeps the hardware's prefetching going (handing out single panels was 15 % slower), and helps the others at the end.
 * Products of many rows are bound by arithmetic: items of one panel and some rows are taken one by one, those of the
 * same panel one after the other, so that it is read from memory once and often is in the caches already. */
#include "blocks/linear.h"

/* Rows that share one pass over a panel; their activations stay in the last-level cache. */
#define ROWS_PER_ITEM 512
#define ITEMS_PER_THREAD 16

/* The rows of the last items, LAST_ITEMS for each thread, are split in LAST_SPLITS. */
#define LAST_ITEMS 2
#define LAST_SPLITS 4

static linear_item item_at(const linear_items *items, size_t i)
{
    const bool smaller = i >= items->ordinary;
    const size_t whole = smaller ? items->ordinary + (i - items->ordinary) / LAST_SPLITS : i;
    const size_t row = whole % items->splits * items->rows, left = items->m - row;
    linear_item item = {whole / items->splits, row, left < items->rows ? left : items->rows};
    if (smaller) {
        const size_t units = (item.m + items->grain - 1) / items->grain, piece = (i - items->ordinary) % LAST_SPLITS;
        const size_t begin = units * piece / LAST_SPLITS * items->grain;
        const size_t end = units * (piece + 1) / LAST_SPLITS * items->grain;
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

/* Rows are split so that every thread finds ITEMS_PER_THREAD items. */
linear_items linear_items_begin(team *t, size_t grain, size_t m, size_t parts, size_t most)
{
    const size_t chunks = ((size_t)t->size * ITEMS_PER_THREAD + parts - 1) / parts;
    const size_t last = t->size > 1 ? (size_t)t->size * LAST_ITEMS : 0;
    size_t rows = (m + chunks - 1) / chunks;
    rows = rows > LINEAR_ITEM_MIN_ROWS ? rows : LINEAR_ITEM_MIN_ROWS;
    rows = (rows + grain - 1) / grain * grain;
    rows = rows < most ? rows : most / grain * grain;
    const size_t splits = (m + rows - 1) / rows, count = splits * parts, ordinary = count > last ? count - last : 0;
    linear_items items = {ordinary + (count - ordinary) * LAST_SPLITS, m, splits, rows, ordinary, grain, false, {0}};
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

void linear(team *t, const matrix_part *w, const gemm_input *x, const gemm_output *y)
{
    const gemm_kernel *g = w->matrix->pieces[0].gemm; /* nr and activations are those of all pieces */
    const size_t nr = (size_t)g->nr, outputs = w->n1 - w->n0, panels = (outputs + nr - 1) / nr;
    matrix_part part = *w;
    gemm_output to = *y;
    part.next = NULL;
    if (x->rows == 0 || panels == 0)
        return;
    if (x->rows <= LINEAR_FEW_ROWS) {
        team_pieces pieces = team_pieces_begin(t, outputs, nr);
        for (size_t begin, end; team_pieces_next(t, &pieces, &begin, &end);) {
            part.n0 = w->n0 + begin;
            part.n1 = w->n0 + end;
            to.y = y->y + begin;
            matrix_product(&part, x, &to);
        }
        return;
    }
    linear_items items = linear_items_begin(t, (size_t)g->mr, x->rows, panels, ROWS_PER_ITEM);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const size_t begin = item.part * nr, end = begin + nr < outputs ? begin + nr : outputs;
        const void *rows = (const char *)x->x + activation_bytes(g->activation, item.row * x->stride);
        part.n0 = w->n0 + begin;
        part.n1 = w->n0 + end;
        part.next = items.more ? matrix_at(w->matrix, w->n0 + items.following.part * nr, w->k0) : NULL;
        to.y = y->y + item.row * y->stride + begin;
        matrix_product(&part, &(gemm_input){rows, item.m, x->stride}, &to);
    }
}
