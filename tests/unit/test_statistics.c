/* test_statistics.c - means and deviations of the programs, against values worked out by hand. */
#include "common/statistics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-12 * fmax(1, fabs(expected))))
        fail_msg("got %.17g, expected %.17g", value, expected);
}

static void test_mean(void **state)
{
    (void)state;
    const double x[] = {2, 4, 4, 4, 5, 5, 7, 9};
    assert_near(mean(x, 8), 5);
    assert_near(mean(x, 1), 2);
    assert_near(mean(x, 0), 0);
}

static void test_standard_deviation(void **state)
{
    (void)state;
    const double x[] = {2, 4, 4, 4, 5, 5, 7, 9};      /* sum of squared differences 32, over 8 - 1 */
    const double far[] = {1e9 + 1, 1e9 + 2, 1e9 + 3}; /* the difference of sums of squares would lose it */
    assert_near(standard_deviation(x, 8), sqrt(32.0 / 7));
    assert_near(standard_deviation(far, 3), 1);
    assert_near(standard_deviation(x, 2), sqrt(2));
    assert_near(standard_deviation(x, 1), 0);
    assert_near(standard_deviation(x, 0), 0);
}

static void test_clock(void **state)
{
    (void)state;
    const double first = seconds_now();
    for (int i = 0; i < 1000; i++)
        assert_true(seconds_now() >= first);
    const double before = seconds_now();
    assert_int_equal(nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL), 0);
    const double slept = seconds_now() - before;
    assert_true(slept >= 0.0099 && slept < 10); /* the machine may be busy */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mean), cmocka_unit_test(test_standard_deviation),
                                       cmocka_unit_test(test_clock)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
