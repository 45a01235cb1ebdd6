/* gguf_file.c - parses and checks one file. Everything in it is hostile until checked. What is checked here is not
 * checked again. The data of tensors is only mapped, not read. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/gguf.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "values and tensors are used in place, and are little-endian");

enum { HEADER_BYTES = 24, OLDEST_VERSION = 2, NEWEST_VERSION = 3, DEFAULT_ALIGNMENT = 32, LEAST_ALIGNMENT = 8 };
enum { KEY_LONGEST = 65535 };

/* What a key with its value, and a tensor, have at least: so that a count cannot make us allocate more than a few times
 * what the file has. */
enum { VALUE_LEAST_BYTES = 8 + 1 + 4 + 1, TENSOR_LEAST_BYTES = 8 + 1 + 4 + 8 + 4 + 8 };

/* Bytes of one element; 0: strings and arrays. */
static const uint8_t kind_bytes[GGUF_KINDS] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

typedef struct reader {
    const char *path;
    const unsigned char *at, *end;
    qwen3_error *err;
} reader;

static size_t left(const reader *r)
{
    return (size_t)(r->end - r->at);
}

/* ---- Numbers and strings ------------------------------------------------------------------------ */

/* False, and nothing taken, where fewer bytes follow. */
static bool take(reader *r, void *value, size_t bytes)
{
    if (bytes > left(r))
        return false;
    memcpy(value, r->at, bytes);
    r->at += bytes;
    return true;
}

static bool take_text(reader *r, gguf_text *text)
{
    uint64_t bytes;
    if (!take(r, &bytes, sizeof bytes) || bytes > left(r))
        return false;
    *text = (gguf_text){(const char *)r->at, (size_t)bytes};
    r->at += bytes;
    return true;
}

/* Whether a message may show it. */
static bool is_printable(gguf_text text)
{
    for (size_t i = 0; i < text.bytes; i++)
        if (text.data[i] < 0x20 || text.data[i] > 0x7e)
            return false;
    return text.bytes > 0;
}

static int shown(gguf_text text)
{
    return (int)(text.bytes < GGUF_SHOWN ? text.bytes : GGUF_SHOWN);
}

/* ---- Keys and values ---------------------------------------------------------------------------- */

#define fail_key(r, key, format, ...)                                                                                  \
    fail((r)->err, QWEN3_ERR_FORMAT, "%s: key %.*s: " format, (r)->path, shown(key), (key).data, __VA_ARGS__)

static qwen3_status take_elements(reader *r, gguf_value *v)
{
    const unsigned char *begin = r->at;
    const size_t each = kind_bytes[v->kind];
    if (v->n > left(r) / (each ? each : sizeof(uint64_t)))
        return fail_key(r, v->key, "its value of %" PRIu64 " elements ends after the file (truncated?)", v->n);
    v->data = begin;
    r->at += v->n * each;
    gguf_text text;
    for (uint64_t i = 0; !each && i < v->n; i++)
        if (!take_text(r, &text))
            return fail_key(r, v->key, "string %" PRIu64 " of %" PRIu64 " ends after the file (truncated?)", i, v->n);
    v->bytes = (size_t)(r->at - begin);
    return QWEN3_OK;
}

static qwen3_status take_value(reader *r, size_t index, gguf_value *v)
{
    uint32_t kind;
    *v = (gguf_value){.n = 1};
    if (!take_text(r, &v->key))
        return fail(r->err, QWEN3_ERR_FORMAT, "%s: key %zu ends after the file (truncated?)", r->path, index);
    if (v->key.bytes > KEY_LONGEST || !is_printable(v->key))
        return fail(r->err, QWEN3_ERR_FORMAT, "%s: key %zu: expected 1 to %d printable ASCII characters", r->path,
                    index, KEY_LONGEST);
    bool whole = take(r, &kind, sizeof kind);
    v->array = whole && kind == GGUF_ARRAY;
    if (v->array)
        whole = take(r, &kind, sizeof kind) && take(r, &v->n, sizeof v->n);
    if (!whole)
        return fail_key(r, v->key, "%s", "its value ends after the file (truncated?)");
    if (kind >= GGUF_KINDS || kind == GGUF_ARRAY)
        return fail_key(r, v->key, "kind of value %" PRIu32 "%s: expected 0 to %d and no array in an array", kind,
                        v->array ? " in an array" : "", GGUF_KINDS - 1);
    v->kind = (gguf_kind)kind;
    return take_elements(r, v);
}

static int by_key(const void *a, const void *b)
{
    const gguf_value *x = a, *y = b;
    const int order = memcmp(x->key.data, y->key.data, x->key.bytes < y->key.bytes ? x->key.bytes : y->key.bytes);
    return order ? order : (x->key.bytes > y->key.bytes) - (x->key.bytes < y->key.bytes);
}

static qwen3_status take_values(reader *r, gguf_file *file, uint64_t n)
{
    if (n > left(r) / VALUE_LEAST_BYTES)
        return fail(r->err, QWEN3_ERR_FORMAT, "%s: %" PRIu64 " keys: more than %zu bytes can hold", r->path, n,
                    left(r));
    file->values = calloc(n + 1, sizeof *file->values);
    if (!file->values)
        return fail(r->err, QWEN3_ERR_MEMORY, "%s: no memory for the table of keys", r->path);
    for (; file->n_values < n; file->n_values++) {
        const qwen3_status status = take_value(r, file->n_values, &file->values[file->n_values]);
        if (status)
            return status;
    }
    qsort(file->values, file->n_values, sizeof *file->values, by_key);
    for (size_t i = 1; i < n; i++)
        if (by_key(&file->values[i - 1], &file->values[i]) == 0)
            return fail_key(r, file->values[i].key, "%s", "is there twice");
    return QWEN3_OK;
}

/* ---- Tensors ------------------------------------------------------------------------------------ */

#define fail_tensor(r, t, format, ...)                                                                                 \
    fail((r)->err, QWEN3_ERR_FORMAT, "%s: tensor %s: " format, (r)->path, (t)->name, __VA_ARGS__)

/* Sets dims and *values, their product. */
static qwen3_status take_dimensions(reader *r, gguf_tensor *t, int64_t *values)
{
    uint32_t n;
    *values = 1;
    if (!take(r, &n, sizeof n))
        return fail_tensor(r, t, "%s", "its description ends after the file (truncated?)");
    if (n < 1 || n > GGUF_DIMENSIONS)
        return fail_tensor(r, t, "has %" PRIu32 " dimensions, expected 1 to %d", n, GGUF_DIMENSIONS);
    t->n_dims = (int)n;
    for (int i = 0; i < GGUF_DIMENSIONS; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims && !take(r, &t->dims[i], sizeof t->dims[i]))
            return fail_tensor(r, t, "%s", "its description ends after the file (truncated?)");
        if (t->dims[i] < 1 || __builtin_mul_overflow(*values, t->dims[i], values))
            return fail_tensor(r, t,
                               "dimension %d: got %" PRIu64 ", expected at least 1, and less than 2^63 values in all",
                               i, (uint64_t)t->dims[i]);
    }
    return QWEN3_OK;
}

/* *offset is that of its data. */
static qwen3_status take_tensor(reader *r, size_t index, gguf_tensor *t, uint64_t *offset)
{
    gguf_text name;
    uint32_t type;
    int64_t values, bytes;
    *t = (gguf_tensor){.path = r->path};
    if (!take_text(r, &name))
        return fail(r->err, QWEN3_ERR_FORMAT, "%s: the name of tensor %zu ends after the file (truncated?)", r->path,
                    index);
    if (name.bytes >= sizeof t->name || !is_printable(name))
        return fail(r->err, QWEN3_ERR_FORMAT,
                    "%s: the name of tensor %zu: expected 1 to %zu printable ASCII characters", r->path, index,
                    sizeof t->name - 1);
    memcpy(t->name, name.data, name.bytes);
    const qwen3_status status = take_dimensions(r, t, &values);
    if (status)
        return status;
    if (!take(r, &type, sizeof type) || !take(r, offset, sizeof *offset))
        return fail_tensor(r, t, "%s", "its description ends after the file (truncated?)");
    t->type = gguf_type_of(type);
    if (!t->type)
        return fail(r->err, QWEN3_ERR_UNSUPPORTED,
                    "%s: tensor %s: got type %s (number %" PRIu32
                    "), expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                    r->path, t->name, gguf_type_name(type), type);
    if (t->dims[0] % t->type->block != 0)
        return fail_tensor(r, t, "has rows of %" PRId64 " values, expected a multiple of %d for type %s", t->dims[0],
                           t->type->block, t->type->name);
    if (__builtin_mul_overflow(values / t->type->block, t->type->bytes, &bytes))
        return fail_tensor(r, t, "%" PRId64 " values of type %s: expected less than 2^63 bytes", values, t->type->name);
    t->bytes = (size_t)bytes;
    return QWEN3_OK;
}

/* *alignment stays as it is where the file does not say it. */
static qwen3_status read_alignment(const reader *r, const gguf_file *file, uint64_t *alignment)
{
    const gguf_section s = {file, "general.", r->err};
    int64_t value = (int64_t)*alignment;
    if (gguf_find(&s, "alignment")) {
        const qwen3_status status = gguf_read_integer(&s, "alignment", &value);
        if (status)
            return status;
    }
    if (value < LEAST_ALIGNMENT || value > UINT32_MAX || (value & (value - 1)) != 0)
        return fail(r->err, QWEN3_ERR_FORMAT,
                    "%s: key general.alignment: got %" PRId64 ", expected a power of two, at least %d", r->path, value,
                    LEAST_ALIGNMENT);
    *alignment = (uint64_t)value;
    return QWEN3_OK;
}

static int by_data(const void *a, const void *b)
{
    const gguf_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

/* Gives tensors their data. offsets [n_tensors]; r is behind the last description. */
static qwen3_status place_tensors(const reader *r, gguf_file *file, uint64_t alignment, const uint64_t *offsets)
{
    const uint64_t header = (uint64_t)(r->at - (const unsigned char *)file->map);
    const uint64_t begin = (header + alignment - 1) / alignment * alignment;
    const uint64_t data_bytes = begin < file->map_bytes ? file->map_bytes - begin : 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        gguf_tensor *t = &file->tensors[i];
        if (offsets[i] % alignment != 0)
            return fail_tensor(r, t, "its data begin at %" PRIu64 ", expected a multiple of the alignment, %" PRIu64,
                               offsets[i], alignment);
        if (offsets[i] > data_bytes || t->bytes > data_bytes - offsets[i])
            return fail_tensor(r, t,
                               "%zu bytes from %" PRIu64 " on, but the file has %" PRIu64 " bytes of data (truncated?)",
                               t->bytes, offsets[i], data_bytes);
        t->data = (const unsigned char *)file->map + begin + offsets[i];
    }
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, by_data);
    for (size_t i = 1; i < file->n_tensors; i++) {
        const gguf_tensor *before = &file->tensors[i - 1], *t = &file->tensors[i];
        if ((size_t)(t->data - before->data) < before->bytes)
            return fail_tensor(r, t, "its data overlap those of %s", before->name);
    }
    return QWEN3_OK;
}

static qwen3_status take_tensors(reader *r, gguf_file *file, uint64_t n)
{
    uint64_t alignment = DEFAULT_ALIGNMENT;
    qwen3_status status = read_alignment(r, file, &alignment);
    if (status)
        return status;
    if (n > left(r) / TENSOR_LEAST_BYTES)
        return fail(r->err, QWEN3_ERR_FORMAT, "%s: %" PRIu64 " tensors: more than %zu bytes can hold", r->path, n,
                    left(r));
    uint64_t *offsets = calloc(n + 1, sizeof *offsets);
    file->tensors = calloc(n + 1, sizeof *file->tensors);
    if (!offsets || !file->tensors)
        status = fail(r->err, QWEN3_ERR_MEMORY, "%s: no memory for the table of tensors", r->path);
    for (; file->n_tensors < n && !status; file->n_tensors += !status)
        status = take_tensor(r, file->n_tensors, &file->tensors[file->n_tensors], &offsets[file->n_tensors]);
    if (!status)
        status = place_tensors(r, file, alignment, offsets);
    free(offsets);
    return status;
}

/* ---- The file ----------------------------------------------------------------------------------- */

static qwen3_status check_version(const reader *r, uint32_t version)
{
    if (version == __builtin_bswap32(OLDEST_VERSION) || version == __builtin_bswap32(NEWEST_VERSION))
        return fail(r->err, QWEN3_ERR_UNSUPPORTED, "%s: is a big-endian GGUF file, expected a little-endian one",
                    r->path);
    if (version < OLDEST_VERSION || version > NEWEST_VERSION)
        return fail(r->err, QWEN3_ERR_UNSUPPORTED, "%s: is GGUF version %" PRIu32 ", expected %d or %d", r->path,
                    version, OLDEST_VERSION, NEWEST_VERSION);
    return QWEN3_OK;
}

static qwen3_status read_header(gguf_file *file, qwen3_error *err)
{
    reader r = {file->path, file->map, (const unsigned char *)file->map + file->map_bytes, err};
    uint32_t version;
    uint64_t n_tensors, n_values;
    if (file->map_bytes < 4 || memcmp(file->map, "GGUF", 4) != 0)
        return fail(err, QWEN3_ERR_FORMAT, "%s: does not begin with \"GGUF\", expected a GGUF file", file->path);
    r.at += 4;
    const bool has_version = take(&r, &version, sizeof version);
    qwen3_status status = has_version ? check_version(&r, version) : QWEN3_OK;
    if (status)
        return status;
    if (!has_version || !take(&r, &n_tensors, sizeof n_tensors) || !take(&r, &n_values, sizeof n_values))
        return fail(err, QWEN3_ERR_FORMAT, "%s: has %zu bytes, expected at least the %d of a GGUF header (truncated?)",
                    file->path, file->map_bytes, HEADER_BYTES);
    status = take_values(&r, file, n_values);
    if (!status)
        status = take_tensors(&r, file, n_tensors);
    file->header_bytes = (size_t)(r.at - (const unsigned char *)file->map);
    return status;
}

qwen3_status gguf_file_open(const char *path, gguf_file *file, qwen3_error *err)
{
    *file = (gguf_file){.path = strdup(path)};
    qwen3_status status = file->path ? file_map(path, &file->map, &file->map_bytes, err)
                                     : fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", path);
    if (!status)
        status = read_header(file, err);
    if (status)
        gguf_file_close(file);
    return status;
}

void gguf_file_close(gguf_file *file)
{
    free(file->values);
    free(file->tensors);
    file_unmap(file->map, file->map_bytes);
    free(file->path);
    *file = (gguf_file){0};
}
