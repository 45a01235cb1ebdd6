/* test_cost.c - the cost model: identities, limits and the direction of every change, for published shapes. */
#include "engine/cost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/config.h"

static const char *const sizes[] = {"synthetic:0.6B", "synthetic:8B", "synthetic:32B", "synthetic:30B-A3B"};
enum { SIZES = sizeof sizes / sizeof *sizes };

static qwen3_config config_of(const char *spec)
{
    qwen3_config config;
    assert_int_equal(qwen3_config_read(spec, &config, NULL), QWEN3_OK);
    return config;
}

static qwen3_scenario on(const qwen3_config *config, const qwen3_machine *machine, int nodes, int ranks_per_node)
{
    return (qwen3_scenario){.config = config,
                            .machine = machine,
                            .nodes = nodes,
                            .ranks_per_node = ranks_per_node,
                            .grid_sequence = 1,
                            .grid_heads = nodes * ranks_per_node,
                            .dtype = QWEN3_DTYPE_BF16,
                            .kv_dtype = QWEN3_DTYPE_AUTO,
                            .algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX};
}

static qwen3_prediction predict(qwen3_scenario s, int groups, int64_t batch, int64_t tokens, int64_t past)
{
    qwen3_prediction p;
    s.grid_heads = s.nodes * s.ranks_per_node / groups;
    s.grid_sequence = groups;
    assert_int_equal(qwen3_predict(&s, &(qwen3_forward_shape){batch, tokens, past}, &p, NULL), QWEN3_OK);
    assert_true(p.seconds > 0 && isfinite(p.seconds));
    assert_true(fabs(p.seconds - p.products - p.attention - p.rows - p.barriers - p.messages) < 1e-12 * p.seconds);
    return p;
}

static void assert_close(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance * fabs(b)))
        fail_msg("%g is not %g within %g", a, b, tolerance);
}

/* A prompt is as much work as its tokens one by one, but for the output head of all but the last. */
static void test_flops(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++) {
        const qwen3_config c = config_of(sizes[i]);
        const double head = 2 * (double)(c.hidden_size * c.vocab_size);
        double sum = 0;
        for (int64_t past = 100; past < 110; past++)
            sum += qwen3_forward_flops(&c, &(qwen3_forward_shape){3, 1, past});
        assert_close(qwen3_forward_flops(&c, &(qwen3_forward_shape){3, 10, 100}) + 3 * 9 * head, sum, 1e-12);
        assert_close(qwen3_kv_bytes_per_token(&c, QWEN3_DTYPE_F32), 2 * qwen3_kv_bytes_per_token(&c, QWEN3_DTYPE_BF16),
                     1e-12);
    }
}

/* Of experts only the chosen ones count: one token has k of them, many have all. */
static void test_experts(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:30B-A3B");
    assert_close(config_active_experts(&c, 1), 8, 1e-12);
    assert_close(config_active_experts(&c, 2), 8 + 8 * (1 - 8.0 / 128),
                 1e-12); /* 8, and of 8 more those that are new */
    assert_close(config_active_experts(&c, 1e6), 128, 1e-12);
    assert_close(qwen3_forward_flops(&c, &(qwen3_forward_shape){1, 1, 0}), 2 * 3.04e9, 0.01); /* embeddings looked up */

    qwen3_config dense = c; /* of the same width */
    dense.num_experts = 0;
    dense.intermediate_size = c.num_experts_per_token * c.moe_intermediate_size;
    qwen3_machine m = qwen3_machine_default();
    for (int ranks = 1; ranks <= 4; ranks *= 2)
        for (int groups = 1; groups <= ranks; groups *= ranks > 1 ? ranks : 2) {
            const qwen3_scenario s = on(&c, &m, ranks, 1), same = on(&dense, &m, ranks, 1);
            /* One token reads as much; the router is repeated on each rank. */
            const double one = predict(s, groups, 1, 1, 100).products, wide = predict(same, groups, 1, 1, 100).products;
            assert_true(one >= wide && one < (1 + 0.02 * ranks) * wide);
            /* Eight read most of eight times as much, hundreds share experts. */
            const double eight = predict(s, groups, 8, 1, 100).products,
                         many = predict(s, groups, 512, 1, 100).products;
            assert_true(eight > 3 * one && eight < 8 * one);
            assert_true(many < 64 * eight);
        }
    const double memory = predict(on(&c, &m, 1, 1), 1, 1, 1, 0).weight_bytes;
    assert_true(memory > 2 * 30.1e9 && memory < 2 * 30.6e9);
}

/* The experts of a step as bytes of an open model. */
static void test_bytes_per_step(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:tiny-moe");
    qwen3_model_options options = qwen3_model_options_default();
    options.dtype = QWEN3_DTYPE_BF16;
    options.threads = 1;
    qwen3_model *model;
    assert_int_equal(qwen3_model_open(qwen3_comm_self(), "synthetic:tiny-moe", &options, &model, NULL), QWEN3_OK);
    const double expert = 3 * (double)(c.hidden_size * c.moe_intermediate_size);
    const double heads = (double)((2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim);
    const double layer = 2 * (double)c.hidden_size * heads, router = 4 * (double)(c.num_experts * c.hidden_size);
    const double head = 2 * (double)(c.vocab_size * c.hidden_size);
    for (int rows = 1; rows < 100; rows *= 5)
        assert_close(qwen3_model_bytes_per_step(model, rows),
                     3 * (layer + router + 2 * expert * config_active_experts(&c, rows)) + head, 1e-12);
    assert_close(qwen3_model_bytes_per_step(model, INFINITY), 3 * (layer + router + 2 * expert * 10) + head, 1e-12);
    assert_close((double)qwen3_model_bytes_per_token(model), qwen3_model_bytes_per_step(model, 1), 1e-6);
    qwen3_model_close(model);
}

/* More of anything takes longer, and so does a slower machine. */
static void test_monotone(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++)
        for (int groups = 1; groups <= 8; groups *= 2) {
            const qwen3_config c = config_of(sizes[i]);
            qwen3_machine m = qwen3_machine_default();
            const qwen3_scenario s = on(&c, &m, 4, 2);
            double before = 0;
            for (int64_t tokens = 512; tokens <= 16384; tokens *= 2) {
                const double seconds = predict(s, groups, 1, tokens, 0).seconds;
                if (seconds <= 0.95 * before) /* movements are chosen by prices, which are rougher */
                    fail_msg("%s, %d groups, %d tokens: %g after %g", sizes[i], groups, (int)tokens, seconds, before);
                before = seconds;
            }
            const double step = predict(s, groups, 1, 1, 1000).seconds;
            assert_true(predict(s, groups, 1, 1, 8000).seconds > step);
            assert_true(predict(s, groups, 8, 1, 1000).seconds > step);
            m.across.latency *= 2;
            m.across.message *= 2;
            assert_true(predict(s, groups, 1, 1, 1000).seconds > step);
            m.across.bytes_per_second /= 100;
            assert_true(predict(s, groups, 1, 1, 1000).seconds > step);
        }
}

/* Nothing is sent by one rank, and where messages cost nothing, R ranks on R nodes are R times as fast as one, as far
 * as heads and panels can be divided. */
static void test_limits(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:8B");
    qwen3_machine m = qwen3_machine_default();
    m.across = m.inside = (qwen3_link){1e-15, 1e-15, 1e20};
    const qwen3_scenario one = on(&c, &m, 1, 1);
    for (int ranks = 1; ranks <= 8; ranks *= 2)
        for (int groups = 1; groups <= ranks; groups *= ranks > 1 ? ranks : 2) {
            const qwen3_scenario s = on(&c, &m, ranks, 1);
            const qwen3_prediction alone = predict(one, 1, 1, 4096 * 8, 0), shared = predict(s, groups, 1, 4096 * 8, 0);
            assert_true(alone.messages == 0 && alone.sent_bytes == 0 && alone.messages_per_layer == 0);
            assert_string_equal(alone.movement, "local");
            assert_close(shared.products, alone.products / ranks, 0.01);
            assert_close(shared.attention, alone.attention / ranks, 0.01);
            const qwen3_prediction step = predict(one, 1, 1, 1, 8192), part = predict(s, groups, 1, 1, 8192);
            assert_close(part.products, step.products / ranks, 0.02);
            assert_close(part.attention, step.attention / ranks, 0.01);
        }
}

/* Four nodes of one rank, and one node of four ranks with four times the rates and the same links, are the same. */
static void test_symmetric(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:0.6B");
    qwen3_machine small = qwen3_machine_default(), large = small;
    large.inside = large.across = small.inside = small.across;
    large.row_values *= 4;
    for (int type = 0; type < QWEN3_WEIGHT_TYPES; type++)
        for (int i = 0; i < QWEN3_MACHINE_ROWS; i++)
            large.product_values[type][i] *= 4;
    for (int type = 0; type < QWEN3_KV_TYPES; type++) {
        large.attention_bytes[type] *= 4;
        large.attention_flops[type][0] *= 4;
        large.attention_flops[type][1] *= 4;
    }
    const qwen3_scenario nodes = on(&c, &small, 4, 1), node = on(&c, &large, 1, 4);
    for (int groups = 1; groups <= 4; groups *= 2)
        for (int64_t tokens = 1; tokens <= 256; tokens *= 4) { /* more are computed in two parts between nodes */
            const qwen3_prediction a = predict(nodes, groups, 1, tokens, 100),
                                   b = predict(node, groups, 1, tokens, 100);
            if (strcmp(a.movement, b.movement) == 0) /* the two groups of a grid share the link of a node in one case */
                assert_close(a.messages + a.overlapped, b.messages + b.overlapped,
                             groups == 2 ? 0.6 : 0.02); /* TCP takes time of its own */
        }
}

/* Bytes of docs/PARALLEL_STRATEGIES.md for the shape of 0.6B on two ranks. */
static void test_bytes(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:0.6B");
    const qwen3_machine m = qwen3_machine_default();
    const qwen3_scenario s = on(&c, &m, 1, 2);
    const qwen3_prediction heads = predict(s, 1, 1, 2048, 0), sequence = predict(s, 2, 1, 2048, 0);
    const double tokens = 2048.0 * (double)c.num_layers;
    assert_close(heads.sent_bytes / tokens, 8192, 1e-9);
    assert_close(sequence.sent_bytes / tokens, 2048, 0.01); /* and the positions of each page */
    assert_string_equal(sequence.movement, "pass_kv");
    assert_true(sequence.overlapped > 0);
    assert_string_equal(predict(s, 2, 1, 1, 100).movement, "split_heads");
}

/* 8 KV heads on 16 ranks: each holds one, which another one has too; on 32 some products are not divided at all. */
static void test_imbalance(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:0.6B");
    const qwen3_machine m = qwen3_machine_default();
    const double on8 = predict(on(&c, &m, 8, 1), 1, 1, 1, 8192).attention,
                 on16 = predict(on(&c, &m, 16, 1), 1, 1, 1, 8192).attention;
    assert_close(on16, on8, 1e-9);
    assert_close(predict(on(&c, &m, 16, 1), 2, 1, 1, 8192).attention, on8 / 2, 1e-9);
    assert_true(predict(on(&c, &m, 64, 1), 1, 1, 512, 0).products >
                predict(on(&c, &m, 16, 1), 1, 1, 512, 0).products / 4);
}

/* Movements are priced by the links where the machine was given: hops that cost as much as seconds are not taken. */
static void test_priced(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:0.6B");
    qwen3_machine m = qwen3_machine_default();
    qwen3_scenario s = on(&c, &m, 1, 4);
    assert_string_equal(predict(s, 4, 1, 8192, 0).movement, "pass_kv");
    m.inside.message = 1;
    assert_string_equal(predict(s, 4, 1, 8192, 0).movement, "pass_kv");
    s.priced = true;
    assert_string_equal(predict(s, 4, 1, 8192, 0).movement, "gather_kv");
    m.inside.message = 1e-7;
    assert_string_equal(predict(s, 4, 1, 8192, 0).movement, "pass_kv");
}

/* A long step over nodes goes in two parts: messages that take less time than computing cost no more than their end. */
static void test_overlap(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:8B");
    const qwen3_machine m = qwen3_machine_default();
    const qwen3_prediction p = predict(on(&c, &m, 2, 1), 1, 1, 8192, 0), few = predict(on(&c, &m, 2, 1), 1, 1, 256, 0);
    assert_true(p.overlapped > 0.9 * (p.overlapped + p.messages) || p.messages > 0.1 * p.seconds);
    assert_true(p.overlapped > 0);
    assert_true(few.overlapped == 0 && few.messages > 0);
}

static void test_refused(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:0.6B");
    qwen3_machine m = qwen3_machine_default();
    const qwen3_forward_shape shape = {1, 1, 0};
    qwen3_scenario s = on(&c, &m, 2, 2);
    qwen3_prediction p;
    qwen3_error err;
    s.grid_heads = 3;
    assert_int_equal(qwen3_predict(&s, &shape, &p, &err), QWEN3_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "grid 1x3 on 2 nodes of 2 ranks"));
    s.grid_heads = 4;
    assert_int_equal(qwen3_predict(&s, &(qwen3_forward_shape){1, 0, 0}, &p, &err), QWEN3_ERR_ARGUMENT);
    memset(m.product_values[QWEN3_DTYPE_BF16], 0, sizeof m.product_values[QWEN3_DTYPE_BF16]);
    assert_int_equal(qwen3_predict(&s, &shape, &p, &err), QWEN3_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "no rates for bf16 weights"));
    assert_true(isinf(cost_seconds(&s, (cost_phases){1, 1})));
}

/* Two parts pay where links are slow, from fewer rows on the slower they are (until messages are all), and never where
 * messages cost nothing. */
static void test_parts(void **state)
{
    (void)state;
    const qwen3_config c = config_of("synthetic:0.6B");
    qwen3_machine m = qwen3_machine_default();
    for (int groups = 1; groups <= 2; groups++) {
        qwen3_scenario s = on(&c, &m, 2, 1);
        s.grid_sequence = groups;
        s.grid_heads = 2 / groups;
        m.across = (qwen3_link){1e-15, 1e-15, 1e20};
        assert_int_equal(cost_overlap_min_rows(&s), INT32_MAX);
        int64_t before = INT32_MAX;
        for (double rate = 1e11; rate >= 1e8; rate /= 10) {
            m.across = (qwen3_link){20e-6, 20e-6, rate};
            const int64_t rows = cost_overlap_min_rows(&s);
            assert_true(rows <= before);
            before = rows;
        }
        assert_true(before < INT32_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flops),    cmocka_unit_test(test_experts),   cmocka_unit_test(test_bytes_per_step),
        cmocka_unit_test(test_monotone), cmocka_unit_test(test_limits),    cmocka_unit_test(test_symmetric),
        cmocka_unit_test(test_bytes),    cmocka_unit_test(test_imbalance), cmocka_unit_test(test_priced),
        cmocka_unit_test(test_overlap),  cmocka_unit_test(test_refused),   cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
