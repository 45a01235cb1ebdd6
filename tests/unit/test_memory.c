/* Large buffers: zeroed, aligned, and refused before the machine runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "base/memory.h" /* before cmocka, whose macro fail() would change it */

#include <cmocka.h>

static void test_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 63, 64, 65, 4096, (2u << 20) - 1, 2u << 20, (2u << 20) + 1, 7000001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        /* twice, so that memory that was used before is met */
        for (int round = 0; round < 2; round++) {
            qwen3_error err = {0};
            void *p;
            assert_int_equal(memory_alloc(&p, sizes[i], "buffer", &err), QWEN3_OK);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % (sizes[i] >= 2u << 20 ? 2u << 20 : CACHE_LINE), 0);
            const unsigned char *bytes = p;
            for (size_t b = 0; b < sizes[i]; b++)
                if (bytes[b] != 0)
                    fail_msg("byte %zu of %zu is %d", b, sizes[i], bytes[b]);
            memset(p, 0xff, sizes[i]);
            memory_free(p, sizes[i]);
        }
    }
}

static void test_nothing(void **state)
{
    (void)state;
    qwen3_error err = {0};
    void *p = &err;
    assert_int_equal(memory_alloc(&p, 0, "buffer", &err), QWEN3_OK);
    assert_null(p);
    memory_free(NULL, 0);
    memory_free(NULL, 1u << 30);
}

static void test_refusal(void **state)
{
    (void)state;
    const size_t sizes[] = {memory_total() + 1, (size_t)1 << 50, SIZE_MAX / 2, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        qwen3_error err = {0};
        void *p = &err;
        assert_int_equal(memory_alloc(&p, sizes[i], "KV cache", &err), QWEN3_ERR_MEMORY);
        assert_null(p);
        assert_non_null(strstr(err.message, "KV cache: needs"));
        assert_non_null(strstr(err.message, "available"));
    }
}

static void test_limits(void **state)
{
    (void)state;
    assert_true(memory_total() >= (size_t)16 << 20);
    assert_true(memory_available() > 0 && memory_available() <= memory_total());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
