/* test_routing.c - which experts rows go to: the best and their weights against a plain calculation, ties, rows that
 * all choose one expert, experts that nobody chooses, scores that are not finite, pairs and tiles.
 */
#include "blocks/routing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/random.h"

typedef struct fixture {
    routing r;
    memory_plan plan;
    memory_region memory;
} fixture;

static void open_routing(fixture *f, size_t rows, size_t experts, size_t chosen, bool normalise)
{
    *f = (fixture){.r = {.rows = rows, .experts = experts, .chosen = chosen, .normalise = normalise, .tile_rows = 7}};
    routing_plan(&f->r, &f->plan, 0, 1);
    assert_int_equal(memory_region_fit(&f->memory, &f->plan, "a test", NULL), QWEN3_OK);
}

static void close_routing(fixture *f)
{
    memory_plan_free(&f->plan);
    memory_region_free(&f->memory);
}

static void choose_all(fixture *f)
{
    for (size_t i = 0; i < f->r.rows; i++)
        routing_choose(&f->r, kernels_get(QWEN3_ISA_AUTO), i);
    routing_sort(&f->r);
}

static float random_score(uint64_t *random, int distinct)
{
    *random += GOLDEN_GAMMA;
    return (float)(int)(mix64(*random) % (uint64_t)distinct) * 0.25f - 2;
}

/* The choices of a row against scores s: each is the best that is left, of equal ones the first. */
static void check_row(const routing *r, size_t row, const float *s)
{
    const int32_t *choices = r->choices + row * r->chosen;
    const float *weights = r->choice_weights + row * r->chosen;
    bool *taken = calloc(r->experts, sizeof *taken);
    double all = 0, best = 0;
    for (size_t e = 0; e < r->experts; e++)
        all += exp((double)s[e]);
    for (size_t i = 0; i < r->chosen; i++) {
        size_t expected = r->experts;
        for (size_t e = 0; e < r->experts; e++)
            if (!taken[e] && (expected == r->experts || s[e] > s[expected]))
                expected = e;
        taken[expected] = true;
        assert_int_equal(choices[i], expected);
        best += exp((double)s[expected]);
    }
    for (size_t i = 0; i < r->chosen; i++) {
        const double expected = exp((double)s[choices[i]]) / (r->normalise ? best : all);
        assert_true(fabs((double)weights[i] - expected) <= 2e-6 * expected);
    }
    free(taken);
}

/* Every pair once, by expert, then by row, with its weight; tiles cover them. */
static void check_pairs(const routing *r)
{
    size_t active = 0, tile = 0;
    assert_int_equal(r->first[0], 0);
    assert_int_equal(r->first[r->experts], r->rows * r->chosen);
    for (size_t e = 0; e < r->experts; e++) {
        size_t pair = r->first[e], first;
        for (size_t row = 0; row < r->rows; row++)
            for (size_t i = 0; i < r->chosen; i++) {
                if ((size_t)r->choices[row * r->chosen + i] != e)
                    continue;
                assert_int_equal(r->pair_rows[pair], row);
                assert_memory_equal(&r->pair_weights[pair], &r->choice_weights[row * r->chosen + i], sizeof(float));
                assert_int_equal(routing_pairs(r, (int32_t)e, row, row + 1, &first), 1);
                assert_int_equal(first, pair);
                pair++;
            }
        assert_int_equal(pair, r->first[e + 1]);
        assert_int_equal(routing_pairs(r, (int32_t)e, 0, r->rows, &first), pair - r->first[e]);
        if (pair == r->first[e])
            continue;
        assert_int_equal(r->active[active], e);
        for (size_t at = r->first[e]; at < pair; tile++) {
            const routing_tile t = routing_tile_at(r, tile);
            assert_int_equal(t.index, active);
            assert_int_equal(t.pair, at);
            assert_true(t.n >= 1 && t.n <= r->tile_rows);
            at += t.n;
        }
        active++;
    }
    assert_int_equal(r->n_active, active);
    assert_true(r->rows ? routing_load(r) >= 1 && routing_load(r) <= (double)r->experts : routing_load(r) == 0);
    assert_int_equal(r->first_tile[active], tile);
}

static void test_choices(void **state)
{
    (void)state;
    uint64_t random = 20261127;
    static const size_t sizes[][3] = {{1, 1, 1}, {1, 128, 8}, {40, 5, 5}, {65, 12, 3}, {300, 33, 2}, {0, 4, 2}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int distinct = 2; distinct < 5000; distinct *= 40) /* few values: many ties */
            for (int normalise = 0; normalise < 2; normalise++) {
                fixture f;
                open_routing(&f, sizes[i][0], sizes[i][1], sizes[i][2], normalise);
                const size_t n = f.r.rows * f.r.experts;
                float *scores = malloc(n * sizeof *scores + 1);
                for (size_t j = 0; j < n; j++)
                    f.r.scores[j] = scores[j] = random_score(&random, distinct) / 40;
                choose_all(&f);
                for (size_t row = 0; row < f.r.rows; row++)
                    check_row(&f.r, row, scores + row * f.r.experts);
                check_pairs(&f.r);
                free(scores);
                close_routing(&f);
            }
}

/* All rows on the same experts: the others have no pairs. */
static void test_one_expert(void **state)
{
    (void)state;
    fixture f;
    open_routing(&f, 50, 9, 1, true);
    for (size_t i = 0; i < f.r.rows * f.r.experts; i++)
        f.r.scores[i] = i % 9 == 6 ? 1.0f : -1.0f;
    choose_all(&f);
    check_pairs(&f.r);
    assert_int_equal(f.r.n_active, 1);
    assert_int_equal(f.r.active[0], 6);
    assert_true(routing_load(&f.r) == 9);
    assert_int_equal(f.r.first_tile[1], 8); /* of at most 7 rows */
    for (size_t i = 0; i < 50; i++)
        assert_true(f.r.pair_rows[i] == (int32_t)i && f.r.pair_weights[i] == 1.0f);
    close_routing(&f);
}

/* Weights far apart, and scores that are not finite: NaN, never a guess. */
static void test_extremes(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    fixture f;
    open_routing(&f, 1, 6, 2, true);
    const float far[] = {-3e38f, 1, 3e38f, -200, 0, 2};
    memcpy(f.r.scores, far, sizeof far);
    choose_all(&f);
    assert_true(f.r.choices[0] == 2 && f.r.choices[1] == 5);
    assert_true(f.r.choice_weights[0] == 1.0f && f.r.choice_weights[1] == 0.0f);
    for (size_t b = 0; b < 3; b++)
        for (size_t at = 0; at < 6; at++) {
            for (size_t e = 0; e < 6; e++)
                f.r.scores[e] = e == at ? bad[b] : (float)e;
            choose_all(&f);
            check_pairs(&f.r);
            assert_true(isnan(f.r.pair_weights[0]) && isnan(f.r.pair_weights[1]));
        }
    close_routing(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_one_expert),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
