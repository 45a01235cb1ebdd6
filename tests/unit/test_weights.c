/* test_weights.c - which thread packs which panels, and that packing gives the same bytes however many do it. */
#include "model/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/team.h"
#include "blocks/architectures.h"
#include "blocks/attention.h"
#include "model/config.h"

/* Every panel is touched by one thread of one rank: the one that reads it when a step has few rows (engine/linear.c,
 * session_weight_part). */
static void test_touched(void **state)
{
    (void)state;
    static const int64_t grains[] = {16, 32, 48, 128};
    for (int64_t n = 0; n < 700; n += n < 40 ? 1 : 37)
        for (size_t g = 0; g < sizeof grains / sizeof *grains; g++)
            for (int parts = 1; parts < 6; parts++)
                for (int threads = 1; threads < 8; threads++) {
                    int64_t at = 0;
                    for (int part = 0; part < parts; part++)
                        for (int t = 0; t < threads; t++) {
                            range touched = weights_touched(n, grains[g], 16, part, parts, t, threads);
                            range rows = partition(n, grains[g], parts, part);
                            size_t begin, end;
                            team_part(&(team){.tid = t, .size = threads}, (size_t)range_size(rows), 16, &begin, &end);
                            assert_int_equal(touched.begin, at);
                            assert_int_equal(range_size(touched), (int64_t)(end - begin + 15) / 16);
                            if (begin < end)
                                assert_int_equal(touched.begin, (rows.begin + (int64_t)begin) / 16);
                            at = touched.end;
                        }
                    assert_int_equal(at, (n + 15) / 16);
                }
}

static void test_head_grain(void **state)
{
    (void)state;
    static const struct {
        int nr;
        int64_t head_dim, grain;
    } cases[] = {{16, 128, 128}, {16, 24, 48}, {32, 32, 32}, {64, 32, 64}, {16, 1, 16}, {1, 80, 80}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(attention_grain(cases[i].nr, cases[i].head_dim), cases[i].grain);
}

/* More threads than panels, too. */
static void test_threads(void **state)
{
    (void)state;
    source *src;
    qwen3_config config;
    qwen3_error err = {0};
    assert_int_equal(model_source_open("synthetic:tiny", 3, &src, &config, &err), QWEN3_OK);
    for (int type = 0; type < DTYPE_COUNT; type++) {
        const weight_format format = weight_format_of(kernels_get(QWEN3_ISA_AUTO), (qwen3_dtype)type);
        declaration d;
        assert_int_equal(model_declare(&config, (grid_place){1, 1, 0, 0, false}, &format, &d, &err), QWEN3_OK);
        weights one, many;
        assert_int_equal(weights_load(&one, src, &d, qwen3_comm_self(), (packers){1, NULL}, &err), QWEN3_OK);
        for (int threads = 2; threads < 80; threads = threads * 3 - 1) {
            assert_int_equal(weights_load(&many, src, &d, qwen3_comm_self(), (packers){threads, NULL}, &err), QWEN3_OK);
            assert_int_equal(many.slice_bytes, one.slice_bytes);
            assert_memory_equal(many.slice, one.slice, one.slice_bytes);
            assert_memory_equal(many.own, one.own, one.allocated);
            weights_free(&many);
        }
        weights_free(&one);
        declaration_free(&d);
    }
    source_close(src);
}

/* The bias of q, k and v is that of the rows of a rank; vectors that an architecture has not are NULL. */
static void test_bias(void **state)
{
    (void)state;
    qwen3_config config;
    qwen3_error err = {0};
    assert_int_equal(config_synthetic("tiny", &config, &err), QWEN3_OK);
    config.architecture = "qwen2";
    config.qk_norm = false;
    config.attention_bias = true;
    const weight_format format = weight_format_of(kernels_get(QWEN3_ISA_C), QWEN3_DTYPE_F32);
    declaration d;
    source *src;
    assert_int_equal(model_declare(&config, (grid_place){1, 1, 0, 0, false}, NULL, &d, &err), QWEN3_OK);
    assert_int_equal(source_open("synthetic:tiny", 3, &d, &src, &err), QWEN3_OK);
    declaration_free(&d);
    const int64_t dim = config.head_dim, heads = config.num_heads, kv_heads = config.num_kv_heads, layer = 1;
    weights whole, part;
    assert_int_equal(model_declare(&config, (grid_place){1, 1, 0, 0, false}, &format, &d, &err), QWEN3_OK);
    assert_int_equal(weights_load(&whole, src, &d, qwen3_comm_self(), (packers){1, NULL}, &err), QWEN3_OK);
    declaration_free(&d);
    const block_weights all = weights_of(&whole, layer, 0);
    assert_null(all.vectors[ATTENTION_Q_NORM]);
    assert_null(all.vectors[ATTENTION_K_NORM]);
    const float *q = all.vectors[ATTENTION_QKV_BIAS], *k = q + heads * dim, *v = k + kv_heads * dim;
    for (int h = 0; h < 2; h++) {
        const grid_place place = {2, 2, 1, h, false};
        const head_shard shard = attention_heads(&config, place);
        const size_t n = (size_t)(range_size(shard.heads) * dim), n_kv = (size_t)(range_size(shard.kv_heads) * dim);
        assert_int_equal(model_declare(&config, place, &format, &d, &err), QWEN3_OK);
        assert_int_equal(weights_load(&part, src, &d, qwen3_comm_self(), (packers){1, NULL}, &err), QWEN3_OK);
        const float *bias = weights_of(&part, layer, 0).vectors[ATTENTION_QKV_BIAS];
        assert_int_equal(weights_of(&part, layer, 0).matrices[ATTENTION_QKV].n, n + 2 * n_kv);
        assert_memory_equal(bias, q + shard.heads.begin * dim, n * sizeof *bias);
        assert_memory_equal(bias + n, k + shard.kv_heads.begin * dim, n_kv * sizeof *bias);
        assert_memory_equal(bias + n + n_kv, v + shard.kv_heads.begin * dim, n_kv * sizeof *bias);
        weights_free(&part);
        declaration_free(&d);
    }
    weights_free(&whole);
    source_close(src);
}

/* A configuration made by hand is one of Qwen3, or of a known architecture. */
static void test_unknown_architecture(void **state)
{
    (void)state;
    qwen3_config config;
    qwen3_error err = {0};
    declaration d;
    assert_int_equal(config_synthetic("tiny", &config, &err), QWEN3_OK);
    const uint64_t bytes = qwen3_memory_estimate(&config, QWEN3_STRATEGY_SEQUENCE, 2, 1, QWEN3_DTYPE_F32);
    assert_true(bytes > 0);
    config.architecture = NULL;
    assert_int_equal(qwen3_memory_estimate(&config, QWEN3_STRATEGY_SEQUENCE, 2, 1, QWEN3_DTYPE_F32), bytes);
    config.architecture = "mistral";
    assert_int_equal(qwen3_memory_estimate(&config, QWEN3_STRATEGY_SEQUENCE, 2, 1, QWEN3_DTYPE_F32), 0);
    assert_int_equal(model_declare(&config, (grid_place){1, 1, 0, 0, false}, NULL, &d, &err), QWEN3_ERR_CONFIG);
    assert_non_null(strstr(err.message, "mistral"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_touched), cmocka_unit_test(test_head_grain),           cmocka_unit_test(test_threads),
        cmocka_unit_test(test_bias),    cmocka_unit_test(test_unknown_architecture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
