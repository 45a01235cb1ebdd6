/* work.c and who tells of it: nothing between two moments, then bytes that grow up to the total, once at the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/work.h"

typedef struct told {
    int calls;
    qwen3_stage stage;
    uint64_t done, total;
} told;

static void take(void *context, qwen3_stage stage, uint64_t done, uint64_t total)
{
    told *t = context;
    assert_true(t->calls == 0 || stage != t->stage || (done >= t->done && total == t->total));
    *t = (told){t->calls + 1, stage, done, total};
}

static void test_moments(void **state)
{
    (void)state;
    told t = {0};
    work w = {.report = take, .context = &t};
    work_begin(&w, QWEN3_STAGE_PACK, 100);
    work_done(&w, 10);
    work_tell(&w); /* too soon after the beginning */
    assert_int_equal(t.calls, 0);
    w.told -= 1;
    work_tell(&w);
    work_tell(&w);
    assert_int_equal(t.calls, 1);
    assert_int_equal(t.stage, QWEN3_STAGE_PACK);
    assert_int_equal(t.done, 10);
    assert_int_equal(t.total, 100);
    work_done(&w, 90);
    w.told -= 1;
    work_tell(&w); /* the end is told by work_end alone */
    assert_int_equal(t.calls, 1);
    work_end(&w);
    assert_int_equal(t.calls, 2);
    assert_int_equal(t.done, 100);
}

static void test_nobody(void **state)
{
    (void)state;
    told t = {0};
    work silent = {.context = &t}, none = {.report = take, .context = &t};
    work *const all[] = {NULL, &silent, &none};
    for (size_t i = 0; i < 3; i++) {
        work_begin(all[i], QWEN3_STAGE_LOAD, 0);
        work_tell(all[i]);
        work_end(all[i]);
    }
    assert_int_equal(t.calls, 0);
}

static void test_loading(void **state)
{
    (void)state;
    static const qwen3_dtype types[] = {QWEN3_DTYPE_F32, QWEN3_DTYPE_Q4};
    for (size_t i = 0; i < 2; i++) {
        told t = {0};
        qwen3_error err;
        qwen3_model *model;
        qwen3_model_options options = qwen3_model_options_default();
        options.dtype = types[i];
        options.threads = 2;
        options.progress = take;
        options.progress_context = &t;
        assert_int_equal(qwen3_model_open(qwen3_comm_self(), "synthetic:tiny", &options, &model, &err), QWEN3_OK);
        assert_true(t.calls > 0);
        assert_int_equal(t.stage, QWEN3_STAGE_LOAD);
        assert_int_equal(t.done, t.total);
        const uint64_t all = qwen3_model_plan(model)->weight_bytes; /* with the vectors, and rounded up */
        assert_true(t.total <= all && (double)t.total > 0.95 * (double)all);
        qwen3_model_close(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_loading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
