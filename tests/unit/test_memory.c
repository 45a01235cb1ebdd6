/* Large buffers: zeroed, aligned, and refused before the machine runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

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

/* Any part of a shared mapping may be collapsed, before and after it is written. */
static void test_collapse(void **state)
{
    (void)state;
    static const size_t parts[][2] = {{0, 1}, {1, 5000}, {4096, 3u << 20}, {1000001, 4u << 20}, {0, 7000001}};
    const size_t bytes = 7000001;
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)round_up(bytes, HUGE_PAGE)), 0);
    unsigned char *p = memory_map(bytes, fd), *other = memory_map(bytes, fd);
    assert_non_null(p);
    assert_non_null(other);
    assert_int_equal((uintptr_t)p % HUGE_PAGE, 0);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memory_collapse(p + parts[i][0], parts[i][1]);
        for (size_t b = 0; b < bytes; b++)
            if (other[b] != (i == 0 ? 0 : (unsigned char)(b + i - 1)))
                fail_msg("part %zu: byte %zu is %d", i, b, other[b]);
        for (size_t b = 0; b < bytes; b++)
            p[b] = (unsigned char)(b + i);
    }
    memory_unmap(p, bytes);
    memory_unmap(other, bytes);
    memory_unmap(NULL, bytes);
    close(fd);
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
        char needs[64];
        snprintf(needs, sizeof needs, "KV cache: needs %.1f MiB of memory", (double)sizes[i] / 1048576);
        assert_non_null(strstr(err.message, needs));
    }
}

/* Against what the kernel says by another way. Control groups can only lower it. */
static void test_limits(void **state)
{
    (void)state;
    struct sysinfo info;
    assert_int_equal(sysinfo(&info), 0);
    size_t machine = (size_t)info.totalram * info.mem_unit, total = memory_total(), available = memory_available();
    assert_in_range(total, 1, machine);
    assert_in_range(available, 1, total);
    if (total == machine) { /* not lowered; half: others may take and give back memory in between */
        assert_true(available >= (size_t)info.freeram * info.mem_unit / 2);
        assert_true(available < machine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),   cmocka_unit_test(test_nothing), cmocka_unit_test(test_collapse),
        cmocka_unit_test(test_refusal), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
