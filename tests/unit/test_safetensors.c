/* Files in the safetensors format and checkpoint directories: good ones, and every way to be bad. */
#include "support/temp_files.h"

#include "io/checkpoint.h"
#include "io/json_file.h"

#define A_TO_B(name, from, to) "\"" name "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" #from "," #to "]}"
#define ONE(dtype, shape, offsets) "{\"w\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static const unsigned char zeros[4096];

/* ---- One file ---------------------------------------------------------------------------------- */

static void test_good_file(void **state)
{
    temp_path path = temp_join(*state, "good.safetensors");
    float data[6] = {1, 2, 3, 4, 5, 6};
    /* listed out of order, with metadata, an empty tensor, an unknown type, five dimensions and padding */
    write_safetensors(path.text,
                      "{\"b\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[8,24]},"
                      "\"__metadata__\":{\"format\":\"pt\"},"
                      "\"none\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[24,24]},"
                      "\"odd\":{\"dtype\":\"FUTURE_TYPE\",\"shape\":[3],\"data_offsets\":[0,1]},"
                      "\"deep\":{\"dtype\":\"U8\",\"shape\":[1,1,7,1,1],\"data_offsets\":[1,8]}}   ",
                      data, sizeof data);
    safetensors file;
    qwen3_error err = {0};
    assert_int_equal(safetensors_open(path.text, &file, &err), QWEN3_OK);
    assert_int_equal(file.n_tensors, 4);
    assert_string_equal(file.tensors[0].name, "odd");
    assert_false(file.tensors[0].supported);
    assert_string_equal(file.tensors[0].type_name, "FUTURE_");
    assert_int_equal(file.tensors[1].rank, 5);
    assert_string_equal(file.tensors[2].name, "b");
    assert_true(file.tensors[2].supported);
    assert_int_equal(file.tensors[2].type, STORED_F32);
    assert_int_equal(file.tensors[2].rank, 2);
    assert_int_equal(file.tensors[2].shape[1], 2);
    assert_int_equal(file.tensors[2].bytes, 16);
    assert_memory_equal(file.tensors[2].data, data + 2, 16);
    assert_int_equal(file.tensors[3].bytes, 0);
    safetensors_close(&file);
    assert_null(file.path);

    write_safetensors(path.text, "{}", zeros, 0);
    assert_int_equal(safetensors_open(path.text, &file, &err), QWEN3_OK);
    assert_int_equal(file.n_tensors, 0);
    safetensors_close(&file);
}

static void test_bad_headers(void **state)
{
    static const struct {
        const char *label, *header;
        size_t data_bytes;
        const char *word;
    } cases[] = {
        {"not JSON", "{\"w\":", 0, "line 1"},
        {"array", "[1]", 0, "'{'"},
        {"leading space", " {}", 0, "'{'"},
        {"trailing garbage", "{} x", 0, "line 1"},
        {"second object", "{}{}", 0, "line 1"},
        {"duplicate tensor", "{" A_TO_B("w", 0, 8) "," A_TO_B("w", 8, 16) "}", 16, "duplicate"},
        {"duplicate key", "{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F16\"}}", 0, "duplicate"},
        {"name with NUL", "{\"a\\u0000b\":{}}", 0, "line 1"},
        {"name with an escape sequence", "{\"a\\u001bb\":{}}", 0, "control"},
        {"not UTF-8", "{\"\xff\":{}}", 0, "decode"},
        {"tensor is a number", "{\"w\":7}", 0, "tensor w"},
        {"tensor is empty", "{\"w\":{}}", 0, "dtype"},
        {"dtype is a number", ONE("3", "[2]", "[0,8]"), 8, "dtype"},
        {"dtype is missing", "{\"w\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"shape is missing", "{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "shape"},
        {"offsets are missing", "{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets"},
        {"shape is a number", ONE("\"F32\"", "2", "[0,8]"), 8, "shape"},
        {"negative shape", ONE("\"F32\"", "[2,-1]", "[0,8]"), 8, "shape[1]"},
        {"negative shapes with a positive product", ONE("\"F32\"", "[-2,-1]", "[0,8]"), 8, "shape[0]"},
        {"fractional shape", ONE("\"F32\"", "[2.0]", "[0,8]"), 8, "shape[0]"},
        {"text shape", ONE("\"F32\"", "[\"2\"]", "[0,8]"), 8, "shape[0]"},
        {"shape beyond 64 bits", ONE("\"F32\"", "[99999999999999999999]", "[0,8]"), 8, "line 1"},
        {"elements overflow", ONE("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, "overflow"},
        {"elements overflow before a zero", ONE("\"F32\"", "[4294967296,4294967296,0]", "[0,0]"), 0, "overflow"},
        {"bits overflow", ONE("\"F32\"", "[576460752303423488]", "[0,0]"), 0, "whole number"},
        {"half a byte", ONE("\"F4\"", "[3]", "[0,1]"), 1, "whole number"},
        {"size too small", ONE("\"F32\"", "[3]", "[0,8]"), 8, "span 8 bytes"},
        {"size too large", ONE("\"BF16\"", "[2]", "[0,8]"), 8, "make 4"},
        {"reversed offsets", ONE("\"F32\"", "[2]", "[8,0]"), 8, "begin <= end"},
        {"negative offset", ONE("\"F32\"", "[2]", "[-8,0]"), 8, "begin <= end"},
        {"fractional offset", ONE("\"F32\"", "[2]", "[0,8.0]"), 8, "two integers"},
        {"one offset", ONE("\"F32\"", "[2]", "[8]"), 8, "two integers"},
        {"three offsets", ONE("\"F32\"", "[2]", "[0,8,8]"), 8, "two integers"},
        {"offsets are an object", ONE("\"F32\"", "[2]", "{\"0\":0}"), 8, "two integers"},
        {"end beyond the file", ONE("\"F32\"", "[2]", "[0,8]"), 7, "7 bytes of data"},
        {"begin beyond the file", ONE("\"F32\"", "[0]", "[9,9]"), 8, "8 bytes of data"},
        {"end near 2^63", ONE("\"F32\"", "[2]", "[9223372036854775799,9223372036854775807]"), 8, "8 bytes of data"},
        {"overlap", "{" A_TO_B("v", 0, 8) "," A_TO_B("w", 4, 12) "}", 12, "within tensor v"},
        {"same data", "{" A_TO_B("v", 0, 8) "," A_TO_B("w", 0, 8) "}", 8, "within tensor"},
        {"hole", "{" A_TO_B("v", 0, 8) "," A_TO_B("w", 12, 20) "}", 20, "hole"},
        {"hole at the start", "{" A_TO_B("w", 4, 12) "}", 12, "hole"},
        {"bytes after the last tensor", "{" A_TO_B("w", 0, 8) "}", 9, "9 bytes of data"},
        {"metadata is a list", "{\"__metadata__\":[]}", 0, "__metadata__"},
        {"metadata of numbers", "{\"__metadata__\":{\"k\":1}}", 0, "__metadata__: k"},
    };
    temp_path path = temp_join(*state, "bad.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_safetensors(path.text, cases[i].header, zeros, cases[i].data_bytes);
        safetensors file;
        qwen3_error err = {0};
        qwen3_status status = safetensors_open(path.text, &file, &err);
        assert_refused(cases[i].label, status, QWEN3_ERR_FORMAT, &err, path.text, cases[i].word);
        assert_null(file.map);
        assert_null(file.tensors);
    }
}

static void expect_file(const char *label, const char *path, qwen3_status expected, const char *word)
{
    safetensors file;
    qwen3_error err = {0};
    assert_refused(label, safetensors_open(path, &file, &err), expected, &err, path, word);
}

static void test_bad_files(void **state)
{
    temp_path path = temp_join(*state, "odd");
    expect_file("missing", path.text, QWEN3_ERR_IO, "No such file");
    assert_int_equal(mkfifo(path.text, 0600), 0);
    expect_file("pipe", path.text, QWEN3_ERR_IO, "a pipe");
    assert_int_equal(unlink(path.text), 0);
    assert_int_equal(symlink("nowhere", path.text), 0);
    expect_file("dangling link", path.text, QWEN3_ERR_IO, "No such file");
    assert_int_equal(unlink(path.text), 0);
    write_text(path.text, "");
    expect_file("empty", path.text, QWEN3_ERR_FORMAT, "empty");
    write_text(path.text, "1234567");
    expect_file("shorter than the length", path.text, QWEN3_ERR_FORMAT, "7 bytes");
    write_bytes(path.text, zeros, 8);
    expect_file("header of no bytes", path.text, QWEN3_ERR_FORMAT, "'{'");
    write_bytes(path.text, "\3\0\0\0\0\0\0\0{}", 10);
    expect_file("header beyond the file", path.text, QWEN3_ERR_FORMAT, "only 2 bytes");
    write_bytes(path.text, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    expect_file("header of 2^64 - 1 bytes", path.text, QWEN3_ERR_FORMAT, "18446744073709551615");
    write_bytes(path.text, "\1\0\x40\6\0\0\0\0{}", 10);
    expect_file("header above the limit", path.text, QWEN3_ERR_FORMAT, "at most 104857600");
    expect_file("directory", ((temp_dir *)*state)->path, QWEN3_ERR_IO, "a directory");
    if (geteuid() != 0) { /* root reads everything */
        assert_int_equal(chmod(path.text, 0), 0);
        expect_file("unreadable", path.text, QWEN3_ERR_IO, "denied");
    }
}

/* Deep nesting must not exhaust the stack. */
static void test_deep_nesting(void **state)
{
    temp_path path = temp_join(*state, "deep.safetensors");
    size_t depth = 100000;
    char *header = malloc(depth + 16);
    assert_non_null(header);
    strcpy(header, "{\"w\":");
    memset(header + 5, '[', depth);
    header[5 + depth] = '\0';
    write_safetensors(path.text, header, zeros, 0);
    expect_file("deep", path.text, QWEN3_ERR_FORMAT, "depth");
    free(header);
}

/* No prefix of a good file is a good file, and no change of a byte reads outside it. */
static void test_truncated_and_damaged(void **state)
{
    static const char header[] = "{" A_TO_B("first", 0, 8) "," A_TO_B("second", 8, 16) "}";
    temp_path path = temp_join(*state, "cut.safetensors");
    unsigned char whole[8 + sizeof header - 1 + 16] = {0};
    size_t bytes = sizeof whole;
    whole[0] = (unsigned char)(sizeof header - 1);
    memcpy(whole + 8, header, sizeof header - 1);
    safetensors file;
    qwen3_error err = {0};
    write_bytes(path.text, whole, bytes);
    assert_int_equal(safetensors_open(path.text, &file, &err), QWEN3_OK);
    safetensors_close(&file);
    for (size_t cut = 0; cut < bytes; cut++) {
        write_bytes(path.text, whole, cut);
        expect_file("truncated", path.text, QWEN3_ERR_FORMAT, ":");
    }
    uint64_t random = test_seed();
    for (int i = 0; i < 1000; i++) {
        unsigned char damaged[sizeof whole];
        memcpy(damaged, whole, bytes);
        for (uint64_t n = 1 + test_random(&random) % 3; n > 0; n--)
            damaged[test_random(&random) % bytes] = (unsigned char)test_random(&random);
        write_bytes(path.text, damaged, bytes);
        qwen3_error ignored = {0};
        if (safetensors_open(path.text, &file, &ignored) == QWEN3_OK) {
            for (size_t t = 0; t < file.n_tensors; t++) {
                const unsigned char *begin = file.tensors[t].data, *map = file.map;
                assert_true(begin >= map + 8 && begin + file.tensors[t].bytes <= map + file.map_bytes);
            }
            safetensors_close(&file);
        }
    }
}

/* ---- Directories ------------------------------------------------------------------------------- */

#define INDEX "model.safetensors.index.json"

static void write_shards(const temp_dir *dir)
{
    write_safetensors(temp_join(dir, "a.safetensors").text, "{" A_TO_B("u", 0, 8) "," A_TO_B("v", 8, 16) "}", zeros,
                      16);
    write_safetensors(temp_join(dir, "b.safetensors").text, "{" A_TO_B("w", 0, 8) "}", zeros, 8);
}

#define MAP_UVW "\"u\":\"a.safetensors\",\"v\":\"a.safetensors\",\"w\":\"b.safetensors\""

static void test_good_checkpoints(void **state)
{
    static const char *const indexes[] = {
        "{\"weight_map\":{" MAP_UVW "}}",
        "{\"metadata\":{},\"weight_map\":{" MAP_UVW "}}",
        "{\"metadata\":{\"total_size\":24},\"weight_map\":{" MAP_UVW "}}",
        "{\"metadata\":{\"total_size\":24.0},\"weight_map\":{" MAP_UVW "}}",
        /* published ones: the size of nothing that is there, and a tied output head that no file holds */
        "{\"metadata\":{\"total_size\":25},\"weight_map\":{" MAP_UVW "}}",
        "{\"metadata\":{\"total_size\":\"24\"},\"weight_map\":{" MAP_UVW "}}",
        "{\"weight_map\":{" MAP_UVW ",\"lm_head.weight\":\"a.safetensors\"}}",
    };
    temp_dir *dir = *state;
    checkpoint c;
    qwen3_error err = {0};
    write_shards(dir);
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        write_text(temp_join(dir, INDEX).text, indexes[i]);
        assert_int_equal(checkpoint_open(dir->path, &c, &err), QWEN3_OK);
        assert_int_equal(c.n_files, 2);
        const stored_tensor *w = checkpoint_find(&c, "w");
        assert_non_null(w);
        assert_string_equal(w->name, "w");
        assert_string_equal(checkpoint_path_of(&c, w), temp_join(dir, "b.safetensors").text);
        assert_null(checkpoint_find(&c, "x"));
        assert_null(checkpoint_find(&c, "lm_head.weight"));
        checkpoint_close(&c);
    }
    /* the whole file goes before the index */
    write_safetensors(temp_join(dir, "model.safetensors").text, "{" A_TO_B("x", 0, 8) "}", zeros, 8);
    assert_int_equal(checkpoint_open(dir->path, &c, &err), QWEN3_OK);
    assert_int_equal(c.n_files, 1);
    assert_non_null(checkpoint_find(&c, "x"));
    assert_null(checkpoint_find(&c, "w"));
    checkpoint_close(&c);
}

static void test_bad_indexes(void **state)
{
    static const struct {
        const char *label, *index, *word, *word2;
        qwen3_status status;
    } cases[] = {
        {"not JSON", "{\n\"weight_map\": x}", INDEX, "line 2", QWEN3_ERR_FORMAT},
        {"array", "[]", INDEX, "object", QWEN3_ERR_FORMAT},
        {"no map", "{}", INDEX, "weight_map", QWEN3_ERR_FORMAT},
        {"map is empty", "{\"weight_map\":{}}", INDEX, "weight_map", QWEN3_ERR_FORMAT},
        {"map is a list", "{\"weight_map\":[\"a\"]}", INDEX, "weight_map", QWEN3_ERR_FORMAT},
        {"duplicate in the map", "{\"weight_map\":{" MAP_UVW ",\"w\":\"a.safetensors\"}}", INDEX, "duplicate",
         QWEN3_ERR_FORMAT},
        {"name is a number", "{\"weight_map\":{\"u\":1}}", INDEX, "u: expected a file name", QWEN3_ERR_FORMAT},
        {"absolute name", "{\"weight_map\":{\"u\":\"/etc/passwd\"}}", "u", "/etc/passwd", QWEN3_ERR_FORMAT},
        {"parent", "{\"weight_map\":{\"u\":\"../a.safetensors\"}}", "u", "same directory", QWEN3_ERR_FORMAT},
        {"two dots", "{\"weight_map\":{\"u\":\"..\"}}", "u", "same directory", QWEN3_ERR_FORMAT},
        {"one dot", "{\"weight_map\":{\"u\":\".\"}}", "u", "same directory", QWEN3_ERR_FORMAT},
        {"backslash", "{\"weight_map\":{\"u\":\"a\\\\b\"}}", "u", "same directory", QWEN3_ERR_FORMAT},
        {"empty name", "{\"weight_map\":{\"u\":\"\"}}", "u", "same directory", QWEN3_ERR_FORMAT},
        {"name with NUL", "{\"weight_map\":{\"u\":\"a\\u0000\"}}", INDEX, "line 1", QWEN3_ERR_FORMAT},
        {"missing shard", "{\"weight_map\":{" MAP_UVW ",\"x\":\"c.safetensors\"}}", "c.safetensors", "No such file",
         QWEN3_ERR_IO},
        {"in the map only", "{\"weight_map\":{" MAP_UVW ",\"x\":\"b.safetensors\"}}", INDEX, "tensor x is not in",
         QWEN3_ERR_FORMAT},
        {"in a file only", "{\"weight_map\":{\"u\":\"a.safetensors\",\"w\":\"b.safetensors\"}}", INDEX,
         "lacks tensor v", QWEN3_ERR_FORMAT},
        {"in another file",
         "{\"weight_map\":{\"u\":\"a.safetensors\",\"v\":\"b.safetensors\",\"w\":\"b.safetensors\"}}", "tensor v",
         "is in a.safetensors, not in b.safetensors", QWEN3_ERR_FORMAT},
        {"in two files", "{\"weight_map\":{" MAP_UVW ",\"t\":\"twice.safetensors\"}}", "tensor w", " too",
         QWEN3_ERR_FORMAT},
    };
    temp_dir *dir = *state;
    write_shards(dir);
    write_safetensors(temp_join(dir, "twice.safetensors").text, "{" A_TO_B("t", 0, 8) "," A_TO_B("w", 8, 16) "}", zeros,
                      16);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        checkpoint c;
        qwen3_error err = {0};
        write_text(temp_join(dir, INDEX).text, cases[i].index);
        assert_refused(cases[i].label, checkpoint_open(dir->path, &c, &err), cases[i].status, &err, cases[i].word,
                       cases[i].word2);
        assert_null(c.files);
        assert_null(c.dir);
    }
}

static void test_bad_directories(void **state)
{
    temp_dir *dir = *state;
    checkpoint c;
    qwen3_error err = {0};
    assert_refused("empty", checkpoint_open(dir->path, &c, &err), QWEN3_ERR_IO, &err, dir->path, "neither");
    error_clear(&err);
    temp_path single = temp_join(dir, "model.safetensors");
    assert_int_equal(mkdir(single.text, 0700), 0);
    assert_refused("directory", checkpoint_open(dir->path, &c, &err), QWEN3_ERR_IO, &err, single.text, "a directory");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temp_dir_setup, temp_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_good_file),    TEST(test_bad_headers),           TEST(test_bad_files),
        TEST(test_deep_nesting), TEST(test_truncated_and_damaged), TEST(test_good_checkpoints),
        TEST(test_bad_indexes),  TEST(test_bad_directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
