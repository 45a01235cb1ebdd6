#include "blocks/routing.h"

void routing_plan(routing *r, memory_plan *m, int input, int output)
{
    const size_t pairs = r->rows * r->chosen;
    memory_plan_add(m, &r->scores, r->rows * r->experts * sizeof *r->scores, input, input);
    memory_plan_add(m, &r->choices, pairs * sizeof *r->choices, input, input);
    memory_plan_add(m, &r->choice_weights, pairs * sizeof *r->choice_weights, input, input);
    memory_plan_add(m, &r->places, r->experts * sizeof *r->places, input, input);
    memory_plan_add(m, &r->first, (r->experts + 1) * sizeof *r->first, input, output);
    memory_plan_add(m, &r->pair_rows, pairs * sizeof *r->pair_rows, input, output);
    memory_plan_add(m, &r->pair_weights, pairs * sizeof *r->pair_weights, input, output);
    memory_plan_add(m, &r->active, r->experts * sizeof *r->active, input, output);
    memory_plan_add(m, &r->first_tile, (r->experts + 1) * sizeof *r->first_tile, input, output);
}

/* The best of s[n] among those that come after `last` in the order of the largest, then the first; last = n: of all. */
static size_t next_best(const float *s, size_t n, size_t last)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        const bool left = last == n || s[i] < s[last] || (s[i] == s[last] && i > last);
        if (left && (best == n || s[i] > s[best]))
            best = i;
    }
    return best;
}

static bool all_finite(const float *s, size_t n)
{
    bool finite = true;
    for (size_t i = 0; i < n; i++)
        finite &= isfinite(s[i]) != 0;
    return finite;
}

void routing_choose(routing *r, const kernels *k, size_t row)
{
    float *s = r->scores + row * r->experts, *weights = r->choice_weights + row * r->chosen;
    int32_t *choices = r->choices + row * r->chosen;
    if (!all_finite(s, r->experts)) {
        for (size_t i = 0; i < r->chosen; i++) {
            choices[i] = (int32_t)i;
            weights[i] = NAN;
        }
        return;
    }
    size_t last = r->experts;
    for (size_t i = 0; i < r->chosen; i++)
        choices[i] = (int32_t)(last = next_best(s, r->experts, last));
    const float all = k->exp_sum(r->experts, s, s[choices[0]], s, QWEN3_DTYPE_F32);
    float best = 0;
    for (size_t i = 0; i < r->chosen; i++)
        best += s[choices[i]];
    for (size_t i = 0; i < r->chosen; i++)
        weights[i] = s[choices[i]] / (r->normalise ? best : all);
}

static size_t tiles_of(const routing *r, size_t pairs)
{
    return (pairs + r->tile_rows - 1) / r->tile_rows;
}

void routing_sort(routing *r)
{
    const size_t pairs = r->rows * r->chosen;
    memset(r->places, 0, r->experts * sizeof *r->places);
    for (size_t i = 0; i < pairs; i++)
        r->places[r->choices[i]]++;
    r->first[0] = r->first_tile[0] = r->n_active = 0;
    for (size_t e = 0; e < r->experts; e++) {
        const size_t n = r->places[e];
        r->first[e + 1] = r->first[e] + n;
        r->places[e] = r->first[e];
        if (n == 0)
            continue;
        r->active[r->n_active++] = (int32_t)e;
        r->first_tile[r->n_active] = r->first_tile[r->n_active - 1] + tiles_of(r, n);
    }
    for (size_t i = 0; i < pairs; i++) {
        const size_t place = r->places[r->choices[i]]++;
        r->pair_rows[place] = (int32_t)(i / r->chosen);
        r->pair_weights[place] = r->choice_weights[i];
    }
}

double routing_load(const routing *r)
{
    size_t most = 0;
    for (size_t e = 0; e < r->experts; e++) {
        const size_t n = r->first[e + 1] - r->first[e];
        most = n > most ? n : most;
    }
    return r->rows ? (double)most * (double)r->experts / (double)(r->rows * r->chosen) : 0;
}

/* The first of pairs [begin, end) of an expert whose row is not below `row`. */
static size_t lower_bound(const routing *r, size_t begin, size_t end, size_t row)
{
    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        if ((size_t)r->pair_rows[middle] < row)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

size_t routing_pairs(const routing *r, int32_t expert, size_t row, size_t end, size_t *first)
{
    const size_t last = r->first[expert + 1];
    *first = lower_bound(r, r->first[expert], last, row);
    return lower_bound(r, *first, last, end) - *first;
}

routing_tile routing_tile_at(const routing *r, size_t tile)
{
    size_t begin = 0, end = r->n_active; /* first_tile[begin] <= tile < first_tile[end] */
    while (end - begin > 1) {
        const size_t middle = begin + (end - begin) / 2;
        if (r->first_tile[middle] <= tile)
            begin = middle;
        else
            end = middle;
    }
    /* Tiles of an expert have nearly the same number of rows. */
    const int32_t expert = r->active[begin];
    const size_t pair = r->first[expert], n = r->first[expert + 1] - pair, i = tile - r->first_tile[begin];
    const size_t tiles = tiles_of(r, n), from = n * i / tiles;
    return (routing_tile){begin, pair + from, n * (i + 1) / tiles - from};
}
