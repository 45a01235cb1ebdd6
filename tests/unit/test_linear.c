/* test_linear.c - how products of many rows are divided: every row of every part once, whatever the sizes. */
#include "blocks/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST_ROWS 1100
#define MOST_PARTS 70

static void check_items(int threads, int mr, size_t m, size_t parts, size_t most)
{
    static unsigned char taken[MOST_PARTS][MOST_ROWS];
    team_shared shared = {.size = threads};
    team t = {.shared = &shared, .size = threads};
    linear_items items = linear_items_begin(&t, (size_t)mr, m, parts, most);
    memset(taken, 0, sizeof taken);
    for (linear_item item, expected = items.following; linear_items_next(&t, &items, &item);) {
        assert_memory_equal(&item, &expected, sizeof item);
        expected = items.following;
        assert_in_range(item.part, 0, parts - 1);
        assert_in_range(item.m, 0, most);
        assert_in_range(item.row + item.m, 0, m);
        for (size_t r = item.row; r < item.row + item.m; r++)
            taken[item.part][r]++;
    }
    for (size_t part = 0; part < parts; part++)
        for (size_t r = 0; r < m; r++)
            assert_int_equal(taken[part][r], 1);
}

static void test_items(void **state)
{
    (void)state;
    static const int heights[] = {6, 8, 16};
    static const size_t rows[] = {17, 18, 47, 48, 49, 130, 256, 257, 511, 512, 513, 1100}, most[] = {256, 512};
    for (int threads = 1; threads <= 9; threads += threads < 4 ? 1 : 5)
        for (size_t h = 0; h < sizeof heights / sizeof *heights; h++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                for (size_t parts = 1; parts <= MOST_PARTS; parts += parts < 5 ? 1 : 13)
                    for (size_t i = 0; i < sizeof most / sizeof *most; i++)
                        check_items(threads, heights[h], rows[r], parts, most[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_items)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
