/* test_memory_plan.c - buffers that are alive together never overlap, others share room. */
#include "base/memory.h"
#include "base/memory_plan.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_BUFFERS = 40 };

static void test_random_plans(void **state)
{
    (void)state;
    uint64_t seed = 20261127;
    printf("seed %llu\n", (unsigned long long)seed);
    memory_plan plan = {0};
    for (int round = 0; round < 300; round++) {
        char *pointers[MAX_BUFFERS];
        size_t bytes[MAX_BUFFERS], all = 0, total, at_once = 0;
        int first[MAX_BUFFERS], last[MAX_BUFFERS];
        const int n = 1 + (int)(mix64(seed += GOLDEN_GAMMA) % MAX_BUFFERS);
        for (int i = 0; i < n; i++) {
            bytes[i] = mix64(seed += GOLDEN_GAMMA) % 5 ? mix64(seed += GOLDEN_GAMMA) % 5000 : 0;
            first[i] = (int)(mix64(seed += GOLDEN_GAMMA) % 10);
            last[i] = first[i] + (int)(mix64(seed += GOLDEN_GAMMA) % 4);
            memory_plan_add(&plan, &pointers[i], bytes[i], first[i], last[i]);
            all += round_up(bytes[i], CACHE_LINE);
        }
        assert_true(memory_plan_place(&plan, &total));
        for (int phase = 0; phase < 14; phase++) {
            size_t alive = 0;
            for (int i = 0; i < n; i++)
                alive += first[i] <= phase && phase <= last[i] ? round_up(bytes[i], CACHE_LINE) : 0;
            at_once = alive > at_once ? alive : at_once;
        }
        assert_true(at_once <= total && total <= all);
        char *base = aligned_alloc(CACHE_LINE, total + CACHE_LINE);
        memory_plan_bind(&plan, base);
        for (int i = 0; i < n; i++) {
            assert_int_equal(pointers[i] == NULL, bytes[i] == 0);
            if (!bytes[i])
                continue;
            assert_int_equal((uintptr_t)pointers[i] % CACHE_LINE, 0);
            assert_true(pointers[i] >= base && pointers[i] + bytes[i] <= base + total);
            for (int j = 0; j < i; j++)
                if (bytes[j] && first[i] <= last[j] && first[j] <= last[i])
                    assert_true(pointers[i] + bytes[i] <= pointers[j] || pointers[j] + bytes[j] <= pointers[i]);
        }
        free(base);
    }
    memory_plan_free(&plan);
}

/* A region grows and does not shrink; what was too little before is enough after a smaller plan. */
static void test_region(void **state)
{
    (void)state;
    memory_plan plan = {0};
    memory_region region = {0};
    char *a, *b;
    for (size_t bytes = 100; bytes <= 100000; bytes *= 10) {
        memory_plan_add(&plan, &a, bytes, 0, 1);
        memory_plan_add(&plan, &b, bytes, 1, 2);
        assert_int_equal(memory_region_fit(&region, &plan, "test", NULL), QWEN3_OK);
        memset(a, 1, bytes);
        memset(b, 2, bytes);
        assert_int_equal(a[0] + a[bytes - 1], 2);
        const memory_region before = region;
        memory_plan_add(&plan, &a, 64, 0, 0);
        assert_int_equal(memory_region_fit(&region, &plan, "test", NULL), QWEN3_OK);
        assert_ptr_equal(region.data, before.data);
        assert_int_equal(region.bytes, before.bytes);
    }
    memory_region_free(&region);
    memory_region_free(&region);
    memory_plan_free(&plan);
}

/* What is never alive together takes the room of the largest. */
static void test_shared_room(void **state)
{
    (void)state;
    memory_plan plan = {0};
    void *a, *b, *c;
    size_t total;
    memory_plan_add(&plan, &a, 640, 0, 1);
    memory_plan_add(&plan, &b, 6400, 2, 2);
    memory_plan_add(&plan, &c, 64, 0, 2);
    assert_true(memory_plan_place(&plan, &total));
    assert_int_equal(total, 6464);
    memory_plan_free(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_plans),
        cmocka_unit_test(test_shared_room),
        cmocka_unit_test(test_region),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
