/* safetensors.c - parses and checks one file. Everything in it is hostile until checked. What is checked here is not
 * checked again. The data is only mapped, not read. */
#include "io/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json_file.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor data is used in place, and is little-endian");

#define LENGTH_BYTES 8
#define HEADER_MAX (UINT64_C(100) << 20) /* as in the reference implementation */

static const struct {
    const char *name;
    size_t size;
} stored_types[] = {
    [STORED_BF16] = {"BF16", 2}, [STORED_F16] = {"F16", 2}, [STORED_F32] = {"F32", 4}, [STORED_F8] = {"F8_E4M3", 1}};

size_t stored_type_size(stored_type type)
{
    return stored_types[type].size;
}

/* Bits of one element of any type that the format defines; 0 for a name it does not. */
static int64_t type_bits(const char *name)
{
    static const struct {
        const char *name;
        int64_t bits;
    } types[] = {{"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8},        {"U8", 8},          {"I8", 8},
                 {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
                 {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
                 {"I64", 64},    {"U64", 64},    {"F64", 64},    {"C64", 64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].bits;
    return 0;
}

/* The tensor that messages are about. */
typedef struct place {
    const char *path, *tensor;
    qwen3_error *err;
} place;

#define fail_tensor(place, format, ...)                                                                                \
    fail((place)->err, QWEN3_ERR_FORMAT, "%s: tensor %.200s: " format, (place)->path, (place)->tensor, __VA_ARGS__)

static qwen3_status parse_type(const place *at, const json_t *value, stored_tensor *t)
{
    if (!json_is_string(value))
        return fail_tensor(at, "%s", "dtype is missing or not a string");
    const char *name = json_string_value(value);
    snprintf(t->type_name, sizeof t->type_name, "%s", name);
    for (size_t i = 0; i < sizeof stored_types / sizeof *stored_types; i++) {
        if (strcmp(name, stored_types[i].name) == 0) {
            t->type = (stored_type)i;
            t->supported = true;
        }
    }
    return QWEN3_OK;
}

/* Sets rank, shape and the number of elements. */
static qwen3_status parse_shape(const place *at, const json_t *value, stored_tensor *t, int64_t *elements)
{
    if (!json_is_array(value))
        return fail_tensor(at, "%s", "shape is missing or not an array");
    *elements = 1;
    size_t i;
    json_t *dimension;
    json_array_foreach(value, i, dimension)
    {
        if (!json_is_integer(dimension) || json_integer_value(dimension) < 0)
            return fail_tensor(at, "shape[%zu]: expected an integer of at least 0", i);
        int64_t n = json_integer_value(dimension);
        if (__builtin_mul_overflow(*elements, n, elements))
            return fail_tensor(at, "shape[%zu] = %" PRId64 ": the number of elements overflows", i, n);
        if (i < sizeof t->shape / sizeof *t->shape)
            t->shape[i] = n;
    }
    t->rank = (int)json_array_size(value);
    return QWEN3_OK;
}

static qwen3_status parse_offsets(const place *at, const json_t *value, const unsigned char *data, size_t data_bytes,
                                  stored_tensor *t)
{
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return fail_tensor(at, "%s", "data_offsets: expected two integers");
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin)
        return fail_tensor(at, "data_offsets: got [%" PRId64 ", %" PRId64 "], expected 0 <= begin <= end", begin, end);
    if ((uint64_t)end > data_bytes)
        return fail_tensor(at, "data_offsets: end at %" PRId64 ", but the file has %zu bytes of data", end, data_bytes);
    t->data = data + begin;
    t->bytes = (size_t)(end - begin);
    return QWEN3_OK;
}

static qwen3_status check_size(const place *at, const char *type, int64_t elements, const stored_tensor *t)
{
    int64_t bits = type_bits(type), total;
    if (bits == 0)
        return QWEN3_OK; /* perhaps a type of a later version of the format */
    if (__builtin_mul_overflow(elements, bits, &total) || total % 8 != 0)
        return fail_tensor(at, "%" PRId64 " elements of type %s: not a whole number of bytes below 2^60", elements,
                           type);
    if ((uint64_t)(total / 8) != t->bytes)
        return fail_tensor(at, "data_offsets span %zu bytes, but shape and dtype %s make %" PRId64, t->bytes, type,
                           total / 8);
    return QWEN3_OK;
}

static qwen3_status parse_tensor(const place *at, const json_t *value, const unsigned char *data, size_t data_bytes,
                                 stored_tensor *t)
{
    for (const char *c = at->tensor; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return fail(at->err, QWEN3_ERR_FORMAT, "%s: a tensor name has control characters", at->path);
    if (!json_is_object(value))
        return fail_tensor(at, "%s", "expected an object with dtype, shape and data_offsets");
    int64_t elements = 0;
    qwen3_status status;
    if ((status = parse_type(at, json_object_get(value, "dtype"), t)) ||
        (status = parse_shape(at, json_object_get(value, "shape"), t, &elements)) ||
        (status = parse_offsets(at, json_object_get(value, "data_offsets"), data, data_bytes, t)) ||
        (status = check_size(at, json_string_value(json_object_get(value, "dtype")), elements, t)))
        return status;
    t->name = strdup(at->tensor);
    return t->name ? QWEN3_OK : fail(at->err, QWEN3_ERR_MEMORY, "%s: no memory for the tensor table", at->path);
}

static qwen3_status check_metadata(const char *path, const json_t *metadata, qwen3_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return fail(err, QWEN3_ERR_FORMAT, "%s: __metadata__: expected an object of strings", path);
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return fail(err, QWEN3_ERR_FORMAT, "%s: __metadata__: %.200s: expected a string", path, key);
    }
    return QWEN3_OK;
}

static int by_data(const void *a, const void *b)
{
    const stored_tensor *x = a, *y = b;
    if (x->data != y->data)
        return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Sorts the tensors by their data, which must be the whole data section, each byte once. */
static qwen3_status check_layout(safetensors *file, const unsigned char *data, size_t data_bytes, qwen3_error *err)
{
    if (file->n_tensors > 0)
        qsort(file->tensors, file->n_tensors, sizeof *file->tensors, by_data);
    size_t expected = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const stored_tensor *t = &file->tensors[i];
        place at = {file->path, t->name, err};
        size_t begin = (size_t)((const unsigned char *)t->data - data);
        if (begin < expected)
            return fail_tensor(&at, "data begins at %zu, within tensor %.200s, which ends at %zu", begin,
                               file->tensors[i - 1].name, expected);
        if (begin > expected)
            return fail_tensor(&at, "data begins at %zu, which leaves a hole after %zu", begin, expected);
        expected = begin + t->bytes;
    }
    if (expected != data_bytes)
        return fail(err, QWEN3_ERR_FORMAT, "%s: the tensors end at %zu, but the file has %zu bytes of data", file->path,
                    expected, data_bytes);
    return QWEN3_OK;
}

static qwen3_status parse_header(safetensors *file, const json_t *header, size_t data_begin, qwen3_error *err)
{
    const unsigned char *data = (const unsigned char *)file->map + data_begin;
    size_t data_bytes = file->map_bytes - data_begin;
    file->tensors = calloc(json_object_size(header) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for %zu tensors", file->path, json_object_size(header));
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)header, name, value)
    {
        qwen3_status status;
        if (strcmp(name, "__metadata__") == 0) {
            status = check_metadata(file->path, value, err);
            file->metadata = json_incref(value);
        } else {
            place at = {file->path, name, err};
            status = parse_tensor(&at, value, data, data_bytes, &file->tensors[file->n_tensors++]);
        }
        if (status)
            return status;
    }
    return check_layout(file, data, data_bytes, err);
}

static qwen3_status read_header(safetensors *file, qwen3_error *err)
{
    const char *bytes = file->map;
    uint64_t length;
    if (file->map_bytes < LENGTH_BYTES)
        return fail(err, QWEN3_ERR_FORMAT, "%s: has %zu bytes, expected at least the %d of the header length",
                    file->path, file->map_bytes, LENGTH_BYTES);
    memcpy(&length, bytes, sizeof length);
    if (length > HEADER_MAX)
        return fail(err, QWEN3_ERR_FORMAT, "%s: header length: got %" PRIu64 ", expected at most %" PRIu64, file->path,
                    length, HEADER_MAX);
    if (length > file->map_bytes - LENGTH_BYTES)
        return fail(err, QWEN3_ERR_FORMAT, "%s: header length: got %" PRIu64 ", but only %zu bytes follow (truncated?)",
                    file->path, length, file->map_bytes - LENGTH_BYTES);
    if (length == 0 || bytes[LENGTH_BYTES] != '{')
        return fail(err, QWEN3_ERR_FORMAT, "%s: the header does not begin with '{'", file->path);
    json_t *header;
    qwen3_status status = json_text_load(file->path, bytes + LENGTH_BYTES, (size_t)length, &header, err);
    if (status)
        return status;
    file->header_bytes = LENGTH_BYTES + (size_t)length;
    status = parse_header(file, header, file->header_bytes, err);
    json_decref(header);
    return status;
}

qwen3_status safetensors_open(const char *path, safetensors *file, qwen3_error *err)
{
    *file = (safetensors){.path = strdup(path)};
    qwen3_status status = file->path ? file_map(path, &file->map, &file->map_bytes, err)
                                     : fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", path);
    if (!status)
        status = read_header(file, err);
    if (status)
        safetensors_close(file);
    return status;
}

void safetensors_close(safetensors *file)
{
    for (size_t i = 0; i < file->n_tensors; i++)
        free(file->tensors[i].name);
    free(file->tensors);
    json_decref(file->metadata);
    file_unmap(file->map, file->map_bytes);
    free(file->path);
    *file = (safetensors){0};
}

const char *safetensors_metadata(const safetensors *file, const char *key)
{
    const char *value = json_string_value(json_object_get(file->metadata, key));
    return value ? value : "";
}
