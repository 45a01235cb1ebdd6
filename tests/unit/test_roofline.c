/* test_roofline.c - fractions of the machine's limits, by hand. */
#include "benchmark_qwen3/benchmark.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

/* The type is that of the model that was open, so that --dtype AUTO with a packed model is held against the right peak.
 */
static void test_fractions(void **state)
{
    (void)state;
    const qwen3_roofline limits = {.read_bytes_per_second = 100, .f32_flops = 1000, .bf16_flops = 4000};
    static const struct {
        const char *dtype;
        double peak;
    } cases[] = {{"f32", 1000}, {"bf16", 4000}, {"q8", 4000}, {"q4", 4000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        benchmark_result r = {.prefill_flops = 500, .decode_bytes = 20, .ms_per_step = 400, .prefill = {.ms = 2000}};
        snprintf(r.dtype, sizeof r.dtype, "%s", cases[i].dtype);
        roofline_fractions(&r, &limits);
        assert_true(r.peak_flops == cases[i].peak);
        assert_true(r.prefill_fraction == 500 / 2.0 / cases[i].peak);
        assert_true(r.read_bandwidth == 100);
        assert_true(r.decode_fraction > 0.4999 && r.decode_fraction < 0.5001);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fractions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
