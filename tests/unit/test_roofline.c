/* test_roofline.c - fractions of the machine's limits, by hand. */
#include "benchmark_qwen3/benchmark.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Prefill is held against the peak of the type that products with the weights are made of, decode against reading. */
static void test_fractions(void **state)
{
    (void)state;
    const qwen3_roofline limits = {.read_bytes_per_second = 100, .f32_flops = 1000, .bf16_flops = 4000};
    static const struct {
        qwen3_dtype dtype;
        double peak;
    } cases[] = {{QWEN3_DTYPE_F32, 1000}, {QWEN3_DTYPE_BF16, 4000}, {QWEN3_DTYPE_Q8, 4000}, {QWEN3_DTYPE_Q4, 4000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        benchmark_result r = {.prefill_flops = 500, .decode_bytes = 20, .ms_per_step = 400, .prefill = {.ms = 2000}};
        r.peak_flops = roofline_peak(&limits, cases[i].dtype);
        r.read_bandwidth = limits.read_bytes_per_second;
        roofline_fractions(&r);
        assert_true(r.peak_flops == cases[i].peak);
        assert_true(r.prefill_fraction == 500 / 2.0 / cases[i].peak);
        assert_true(r.decode_fraction > 0.4999 && r.decode_fraction < 0.5001);
    }
}

/* The limits of a repetition are the mean of those before and after it. */
static void test_mean(void **state)
{
    (void)state;
    const qwen3_roofline before = {.read_bytes_per_second = 100, .f32_flops = 1000, .bf16_flops = 4000};
    const qwen3_roofline after = {.read_bytes_per_second = 300, .f32_flops = 3000, .bf16_flops = 5000};
    const qwen3_roofline limits = roofline_mean(&before, &after);
    assert_true(limits.read_bytes_per_second == 200);
    assert_true(limits.f32_flops == 2000);
    assert_true(limits.bf16_flops == 4500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fractions), cmocka_unit_test(test_mean)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
