/* Checksums: the definition, in any pieces, and that no small change goes unnoticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "io/checksum.h"

enum { MOST = 1000 };

static uint64_t value_of(const void *data, size_t bytes)
{
    checksum sum = {0};
    checksum_add(&sum, data, bytes);
    return checksum_value(&sum);
}

/* Word by word, as checksum.h says it. */
static uint64_t value_by_words(const unsigned char *data, size_t bytes)
{
    uint32_t a[16] = {0}, b[16] = {0};
    uint64_t value = mix64(bytes);
    for (size_t i = 0; i < (bytes + 63) / 64 * 16; i++) {
        uint32_t x = 0;
        for (size_t byte = 0; byte < 4; byte++)
            x |= 4 * i + byte < bytes ? (uint32_t)data[4 * i + byte] << 8 * byte : 0;
        a[i % 16] += x;
        b[i % 16] += a[i % 16];
    }
    for (size_t j = 0; j < 16; j++)
        value = mix64(value + ((uint64_t)b[j] << 32 | a[j]));
    return value;
}

static void fill(unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)mix64(i);
}

static void test_definition(void **state)
{
    (void)state;
    unsigned char data[MOST + 3];
    fill(data, sizeof data);
    for (size_t bytes = 0; bytes <= MOST; bytes++)
        assert_true(value_of(data + bytes % 4, bytes) == value_by_words(data + bytes % 4, bytes));
}

static void test_pieces(void **state)
{
    (void)state;
    unsigned char data[MOST];
    fill(data, sizeof data);
    for (size_t first = 0; first <= MOST; first += CHECKSUM_STEP) {
        checksum sum = {0};
        checksum_add(&sum, data, first);
        checksum_add(&sum, data + first, MOST - first);
        assert_true(checksum_value(&sum) == value_of(data, MOST));
    }
}

static void test_changes(void **state)
{
    (void)state;
    unsigned char data[MOST] = {0};
    for (int filled = 0; filled < 2; filled++) {
        if (filled)
            fill(data, sizeof data);
        const uint64_t value = value_of(data, MOST);
        for (size_t bit = 0; bit < 8 * MOST; bit++) {
            data[bit / 8] ^= (unsigned char)(1 << bit % 8);
            assert_true(value_of(data, MOST) != value);
            data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
        assert_true(value_of(data, MOST - 1) != value);
    }
    /* Two steps that change places, which no sum of the words would see. */
    unsigned char moved[MOST];
    memcpy(moved, data, sizeof moved);
    memcpy(moved, data + CHECKSUM_STEP, CHECKSUM_STEP);
    memcpy(moved + CHECKSUM_STEP, data, CHECKSUM_STEP);
    assert_true(value_of(moved, MOST) != value_of(data, MOST));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
