/* test_partition.c - who owns what: every item exactly once, sizes even, heads in whole groups. */
#include "model/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_ranges(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 70; n++)
        for (int64_t grain = 1; grain < 20; grain += 3)
            for (int64_t parts = 1; parts < 12; parts++) {
                int64_t at = 0, units = (n + grain - 1) / grain;
                for (int64_t i = 0; i < parts; i++) {
                    range r = partition(n, grain, parts, i);
                    assert_int_equal(r.begin, at);
                    assert_true(r.end >= r.begin);
                    assert_true(r.end == n || r.end % grain == 0);
                    int64_t size = (range_size(r) + grain - 1) / grain;
                    assert_true(size == units / parts || size == units / parts + 1);
                    at = r.end;
                }
                assert_int_equal(at, n);
            }
}

static void test_heads(void **state)
{
    (void)state;
    for (int64_t kv_heads = 1; kv_heads < 10; kv_heads++)
        for (int64_t group = 1; group < 7; group++)
            for (int64_t parts = 1; parts < 24; parts++) {
                int64_t at = 0, heads = kv_heads * group;
                for (int64_t i = 0; i < parts; i++) {
                    head_shard s = partition_heads(heads, kv_heads, parts, i);
                    int64_t n = range_size(s.heads), kv = range_size(s.kv_heads);
                    assert_int_equal(s.heads.begin, at);
                    at = s.heads.end;
                    assert_int_equal(n == 0, kv == 0);
                    if (n == 0)
                        continue;
                    /* The same number of query heads for each KV head, and none that they do not read. */
                    assert_int_equal(n % kv, 0);
                    assert_int_equal(s.heads.begin / group, s.kv_heads.begin);
                    assert_int_equal((s.heads.end - 1) / group, s.kv_heads.end - 1);
                    assert_true(kv == 1 || n == kv * group);
                }
                assert_int_equal(at, heads);
            }
}

/* Keys that the queries of each part see under a causal mask differ little between parts. */
static void test_zigzag(void **state)
{
    (void)state;
    for (int64_t parts = 1; parts < 10; parts++)
        for (int64_t n = parts; n < 300; n += 7) {
            int64_t rows[10] = {0}, keys[10] = {0}, total = n * (n + 1) / 2;
            for (int64_t i = 0; i < n; i++) {
                int64_t p = partition_zigzag_owner(n, parts, i);
                assert_in_range(p, 0, parts - 1);
                rows[p]++;
                keys[p] += i + 1;
            }
            for (int64_t p = 0; p < parts; p++) {
                assert_true(rows[p] >= n / parts - 2 && rows[p] <= n / parts + 2);
                assert_true(llabs(keys[p] * parts - total) <= 2 * n * parts);
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_zigzag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
