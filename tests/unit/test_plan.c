/* test_plan.c - which grid the options give, and what is refused. */
#include "engine/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The shape of 0.6B. */
static const qwen3_config config = {.vocab_size = 151936,
                                    .hidden_size = 1024,
                                    .intermediate_size = 3072,
                                    .num_layers = 28,
                                    .num_heads = 16,
                                    .num_kv_heads = 8,
                                    .head_dim = 128,
                                    .max_positions = 40960,
                                    .rms_norm_eps = 1e-6,
                                    .rope_theta = 1e6};

static grid choose_on(qwen3_model_options options, plan_ranks ranks)
{
    grid g;
    options.kv_dtype = QWEN3_DTYPE_AUTO;
    options.dtype = QWEN3_DTYPE_BF16;
    assert_int_equal(plan_grid(&config, &options, &ranks, &g, NULL), QWEN3_OK);
    assert_int_equal(g.s * g.h, ranks.ranks);
    assert_true(g.strategy != QWEN3_STRATEGY_AUTO);
    return g;
}

static grid choose(qwen3_model_options options, int ranks)
{
    return choose_on(options, (plan_ranks){ranks, 1, NULL});
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
    for (int ranks = 4; ranks < 20; ranks += 2) {
        g = choose((qwen3_model_options){.strategy = QWEN3_STRATEGY_HYBRID}, ranks);
        assert_true(g.s > 1 && g.h > 1);
    }
}

static void test_auto(void **state)
{
    (void)state;
    const qwen3_model_options prefill = {.expected_tokens = 2048},
                              generate = {.expected_tokens = 2048, .expect_decode = true};
    assert_int_equal(choose(prefill, 1).strategy, QWEN3_STRATEGY_HEAD_WISE);
    assert_int_equal(choose((qwen3_model_options){.expected_tokens = 8}, 4).strategy, QWEN3_STRATEGY_HEAD_WISE);
    assert_int_equal(choose(generate, 4).strategy, QWEN3_STRATEGY_HEAD_WISE);
    assert_non_null(strstr(choose(generate, 4).reason, "1024 tokens and 1024 steps: 1x4"));
    /* Over a slow network only keys and values are few enough. */
    qwen3_machine slow = qwen3_machine_default();
    slow.across = (qwen3_link){5e-5, 5e-5, 1.2e8};
    assert_int_equal(choose_on(prefill, (plan_ranks){4, 4, &slow}).strategy, QWEN3_STRATEGY_SEQUENCE);
    /* Each KV head is on some rank of its own where the number of ranks allows it. */
    assert_true(choose(generate, 16).h <= 8);
    grid first = choose_on(generate, (plan_ranks){12, 3, NULL}), again = choose_on(generate, (plan_ranks){12, 3, NULL});
    assert_memory_equal(&first, &again, sizeof first);
}

/* Many nodes with a network that is far too slow: AUTO says so, but only of a machine that it knows. */
static void test_slower_than_one_node(void **state)
{
    (void)state;
    const qwen3_model_options generate = {.expected_tokens = 512, .expect_decode = true};
    qwen3_machine slow = qwen3_machine_default(), fast = slow;
    slow.across = (qwen3_link){1e-2, 1e-2, 1e7};
    fast.across = (qwen3_link){2e-6, 2e-6, 5e10};
    assert_non_null(strstr(choose_on(generate, (plan_ranks){4, 4, &slow}).warning, "one node alone, with 1 rank,"));
    assert_string_equal(choose_on(generate, (plan_ranks){4, 4, &fast}).warning, "");
    assert_string_equal(choose_on(generate, (plan_ranks){4, 4, NULL}).warning, "");
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
        assert_int_equal(plan_grid(&config, &cases[i].options, &(plan_ranks){6, 1, NULL}, &g, &err),
                         QWEN3_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, cases[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked_for),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_slower_than_one_node),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
