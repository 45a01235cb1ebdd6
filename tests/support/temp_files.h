/* temp_files.h - files that a test makes for itself: a temporary directory, safetensors files with any
 * header, and what a refusal must look like. */
#ifndef TESTS_TEMP_FILES_H
#define TESTS_TEMP_FILES_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/status.h" /* before cmocka, whose macro fail() would change it */

#include <cmocka.h>

typedef struct temp_dir {
    char path[64];
} temp_dir;

/* cmocka set-up and tear-down: *state is the temp_dir. */
static inline int temp_dir_setup(void **state)
{
    temp_dir *dir = calloc(1, sizeof *dir);
    assert_non_null(dir);
    snprintf(dir->path, sizeof dir->path, "%.40s/qwen3-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(dir->path));
    *state = dir;
    return 0;
}

static inline int temp_remove_entry(const char *path, const struct stat *info, int flag, struct FTW *walk)
{
    (void)info, (void)flag, (void)walk;
    return remove(path);
}

/* Removes what is in the directory, too. */
static inline int temp_dir_teardown(void **state)
{
    temp_dir *dir = *state;
    nftw(dir->path, temp_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(dir);
    return 0;
}

typedef struct temp_path {
    char text[160];
} temp_path;

static inline temp_path temp_join(const temp_dir *dir, const char *name)
{
    temp_path path;
    snprintf(path.text, sizeof path.text, "%s/%s", dir->path, name);
    return path;
}

static inline void write_bytes(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static inline void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static inline void write_json(const char *path, const json_t *value)
{
    assert_int_equal(json_dump_file(value, path, 0), 0);
}

/* A safetensors file with this header as it is, and these data. */
static inline void write_safetensors(const char *path, const char *header, const void *data, size_t bytes)
{
    uint64_t length = strlen(header);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(&length, sizeof length, 1, file), 1);
    assert_int_equal(fwrite(header, 1, length, file), length);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* The call failed as expected, and its message holds both words. */
static inline void assert_refused(const char *label, qwen3_status got, qwen3_status expected, const qwen3_error *err,
                                  const char *word, const char *word2)
{
    if (got != expected || err->status != expected || !strstr(err->message, word) || !strstr(err->message, word2))
        fail_msg("%s: got \"%s\": %s\n  expected \"%s\" with \"%s\" and \"%s\"", label, qwen3_status_name(got),
                 err->message, qwen3_status_name(expected), word, word2);
}

/* The seed of randomised tests, printed so that a failure can be repeated. */
static inline uint64_t test_seed(void)
{
    const char *text = getenv("QWEN3_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : UINT64_C(20250429);
    print_message("seed %llu (QWEN3_TEST_SEED)\n", (unsigned long long)seed);
    return seed;
}

/* xorshift64* (Vigna 2016); *state must not be 0. */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

#endif
