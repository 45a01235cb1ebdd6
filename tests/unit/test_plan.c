/* test_plan.c - which grid the options give, and what is refused. */
#include "engine/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const qwen3_config config = {.num_heads = 16, .num_kv_heads = 8};

static grid choose(qwen3_model_options options, int ranks)
{
    grid g;
    assert_int_equal(plan_grid(&config, &options, ranks, &g, NULL), QWEN3_OK);
    assert_int_equal(g.s * g.h, ranks);
    assert_true(g.strategy != QWEN3_STRATEGY_AUTO);
    return g;
}

static void test_asked_for(void **state)
{
    (void)state;
    for (int ranks = 1; ranks < 20; ranks++) {
        assert_int_equal(choose((qwen3_model_options){.strategy = QWEN3_STRATEGY_HEAD_WISE}, ranks).h, ranks);
        assert_int_equal(choose((qwen3_model_options){.strategy = QWEN3_STRATEGY_SEQUENCE}, ranks).s, ranks);
        choose((qwen3_model_options){.strategy = QWEN3_STRATEGY_HYBRID}, ranks);
    }
    grid g = choose((qwen3_model_options){.strategy = QWEN3_STRATEGY_HYBRID, .grid_sequence = 3, .grid_heads = 2}, 6);
    assert_int_equal(g.s, 3);
    assert_int_equal(choose((qwen3_model_options){.strategy = QWEN3_STRATEGY_HYBRID}, 6).h, 2);
}

static void test_auto(void **state)
{
    (void)state;
    qwen3_model_options prefill = {.expected_tokens = 2048},
                        generate = {.expected_tokens = 2048, .expect_decode = true};
    assert_int_equal(choose(prefill, 1).strategy, QWEN3_STRATEGY_HEAD_WISE);
    assert_int_equal(choose(prefill, 4).strategy, QWEN3_STRATEGY_SEQUENCE);
    assert_int_equal(choose((qwen3_model_options){.expected_tokens = 20}, 4).strategy, QWEN3_STRATEGY_HEAD_WISE);
    assert_int_equal(choose(generate, 4).strategy, QWEN3_STRATEGY_HEAD_WISE);
    grid g = choose(generate, 16);
    assert_int_equal(g.strategy, QWEN3_STRATEGY_HYBRID);
    assert_int_equal(g.h, 8);
    assert_int_equal(choose(generate, 11).strategy, QWEN3_STRATEGY_SEQUENCE);
}

static void test_refused(void **state)
{
    (void)state;
    const struct {
        qwen3_model_options options;
        const char *says;
    } cases[] = {
        {{.strategy = QWEN3_STRATEGY_HYBRID, .grid_sequence = 2, .grid_heads = 2}, "4 places, but the job has 6 ranks"},
        {{.strategy = QWEN3_STRATEGY_HYBRID, .grid_sequence = 2}, "grid 2x0"},
        {{.strategy = QWEN3_STRATEGY_HYBRID, .grid_sequence = -2, .grid_heads = -3}, "grid -2x-3"},
        {{.strategy = QWEN3_STRATEGY_HEAD_WISE, .grid_sequence = 2, .grid_heads = 3}, "contradicts strategy headwise"},
        {{.strategy = QWEN3_STRATEGY_SEQUENCE, .grid_sequence = 2, .grid_heads = 3}, "contradicts strategy sequence"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_error err = {0};
        grid g;
        assert_int_equal(plan_grid(&config, &cases[i].options, 6, &g, &err), QWEN3_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, cases[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked_for),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
