/* gguf_values.c - values by key. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "io/file.h"
#include "io/gguf.h"

enum { KEY_ROOM = 128 }; /* for the keys that are looked up */

const gguf_value *gguf_find(const gguf_section *s, const char *name)
{
    char key[KEY_ROOM];
    snprintf(key, sizeof key, "%s%s", s->prefix, name);
    const size_t bytes = strlen(key);
    size_t begin = 0, end = s->file->n_values;
    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        const gguf_text found = s->file->values[middle].key;
        int order = memcmp(found.data, key, found.bytes < bytes ? found.bytes : bytes);
        if (!order)
            order = (found.bytes > bytes) - (found.bytes < bytes);
        if (!order)
            return &s->file->values[middle];
        if (order < 0)
            begin = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

static const char *const kind_names[GGUF_KINDS] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                   "bool", "string", "array", "u64", "i64", "f64"};

static qwen3_status fail_kind(const gguf_section *s, const char *name, const gguf_value *v, const char *expected)
{
    if (!v)
        return fail(s->err, QWEN3_ERR_CONFIG, "%s: key %s%s is missing, expected %s", s->file->path, s->prefix, name,
                    expected);
    return fail(s->err, QWEN3_ERR_CONFIG, "%s: key %s%s: got %s%s, expected %s", s->file->path, s->prefix, name,
                v->array ? "an array of " : "", kind_names[v->kind], expected);
}

static uint64_t bits_of(const gguf_value *v)
{
    uint64_t bits = 0;
    memcpy(&bits, v->data, v->bytes);
    return bits;
}

static bool is_integer(const gguf_value *v)
{
    return v && !v->array && v->kind != GGUF_F32 && v->kind != GGUF_BOOL && v->kind != GGUF_STRING &&
           v->kind != GGUF_F64;
}

qwen3_status gguf_read_integer(const gguf_section *s, const char *name, int64_t *value)
{
    const gguf_value *v = gguf_find(s, name);
    if (!is_integer(v))
        return fail_kind(s, name, v, "an integer");
    const uint64_t bits = bits_of(v);
    if (v->kind == GGUF_U64 && bits > INT64_MAX)
        return fail(s->err, QWEN3_ERR_CONFIG, "%s: key %s%s: got %" PRIu64 ", expected less than 2^63", s->file->path,
                    s->prefix, name, bits);
    *value = v->kind == GGUF_I8    ? (int8_t)bits
             : v->kind == GGUF_I16 ? (int16_t)bits
             : v->kind == GGUF_I32 ? (int32_t)bits
                                   : (int64_t)bits;
    return QWEN3_OK;
}

qwen3_status gguf_read_number(const gguf_section *s, const char *name, double *value)
{
    const gguf_value *v = gguf_find(s, name);
    if (is_integer(v)) {
        int64_t integer = 0;
        const qwen3_status status = gguf_read_integer(s, name, &integer);
        *value = (double)integer;
        return status;
    }
    float single;
    if (v && !v->array && v->kind == GGUF_F32) {
        memcpy(&single, v->data, sizeof single);
        *value = (double)single;
    } else if (v && !v->array && v->kind == GGUF_F64) {
        memcpy(value, v->data, sizeof *value);
    } else {
        return fail_kind(s, name, v, "a number");
    }
    return QWEN3_OK;
}

qwen3_status gguf_read_bool(const gguf_section *s, const char *name, bool *value)
{
    const gguf_value *v = gguf_find(s, name);
    if (!v || v->array || v->kind != GGUF_BOOL || *v->data > 1)
        return fail_kind(s, name, v, "a bool, 0 or 1");
    *value = *v->data;
    return QWEN3_OK;
}

qwen3_status gguf_read_text(const gguf_section *s, const char *name, gguf_text *value)
{
    const gguf_value *v = gguf_find(s, name);
    if (!v || v->array || v->kind != GGUF_STRING)
        return fail_kind(s, name, v, "a string");
    const unsigned char *at = v->data;
    *value = gguf_next_text(&at);
    return QWEN3_OK;
}

qwen3_status gguf_read_array(const gguf_section *s, const char *name, gguf_kind kind, const gguf_value **value)
{
    const gguf_value *v = gguf_find(s, name);
    if (!v || !v->array || (v->kind != kind && !(kind == GGUF_I32 && v->kind == GGUF_U32)))
        return fail_kind(s, name, v, kind == GGUF_STRING ? "an array of strings" : "an array of i32");
    *value = v;
    return QWEN3_OK;
}

bool gguf_text_is(gguf_text text, const char *expected)
{
    return text.bytes == strlen(expected) && memcmp(text.data, expected, text.bytes) == 0;
}

gguf_text gguf_next_text(const unsigned char **at)
{
    uint64_t bytes;
    memcpy(&bytes, *at, sizeof bytes);
    const gguf_text text = {(const char *)*at + sizeof bytes, (size_t)bytes};
    *at += sizeof bytes + bytes;
    return text;
}

int32_t gguf_int32_at(const gguf_value *array, uint64_t i)
{
    int32_t value;
    memcpy(&value, array->data + i * sizeof value, sizeof value);
    return value;
}

/* ---- Which file describes a model --------------------------------------------------------------- */

bool gguf_is_path(const char *spec)
{
    const size_t bytes = strlen(spec), n = strlen(".gguf");
    struct stat info;
    return bytes >= n && strcasecmp(spec + bytes - n, ".gguf") == 0 &&
           (stat(spec, &info) != 0 || !S_ISDIR(info.st_mode));
}

qwen3_status gguf_metadata_path(const char *spec, char **path, qwen3_error *err)
{
    const bool file = gguf_is_path(spec);
    *path = NULL;
    if ((file ? asprintf(path, "%s", spec) : asprintf(path, "%s/" GGUF_METADATA_FILE, spec)) < 0) {
        *path = NULL;
        return fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", spec);
    }
    if (!file && !file_exists(*path)) {
        free(*path);
        *path = NULL;
    }
    return QWEN3_OK;
}
