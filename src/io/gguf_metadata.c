/* gguf_metadata.c - the keys and values of a model as a GGUF file without tensors. */
#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"

/* A key with its value as it is in the file, from the length of the key on. */
static gguf_text whole_of(const gguf_value *v)
{
    const char *begin = v->key.data - sizeof(uint64_t);
    return (gguf_text){begin, (size_t)((const char *)v->data + v->bytes - begin)};
}

/* The parts of a split model are not parts of its description. */
static bool is_kept(const gguf_value *v)
{
    const size_t n = strlen("split.");
    return v->key.bytes < n || memcmp(v->key.data, "split.", n) != 0;
}

static char *put(char *at, const void *data, size_t bytes)
{
    memcpy(at, data, bytes);
    return at + bytes;
}

qwen3_status gguf_metadata(const gguf_file *file, const char *key, bool value, gguf_text *out, qwen3_error *err)
{
    const uint32_t version = 3, kind = GGUF_BOOL;
    const uint64_t no_tensors = 0, key_bytes = strlen(key);
    uint64_t n = 1;
    size_t bytes = file->header_bytes + sizeof key_bytes + key_bytes + sizeof kind + 1;
    char *data = malloc(bytes), *at = data;
    if (!data)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for %zu bytes of keys and values", file->path, bytes);
    for (size_t i = 0; i < file->n_values; i++)
        n += is_kept(&file->values[i]);
    at = put(at, "GGUF", 4);
    at = put(at, &version, sizeof version);
    at = put(at, &no_tensors, sizeof no_tensors);
    at = put(at, &n, sizeof n);
    for (size_t i = 0; i < file->n_values; i++)
        if (is_kept(&file->values[i]))
            at = put(at, whole_of(&file->values[i]).data, whole_of(&file->values[i]).bytes);
    at = put(at, &key_bytes, sizeof key_bytes);
    at = put(at, key, key_bytes);
    at = put(at, &kind, sizeof kind);
    *at++ = (char)value;
    *out = (gguf_text){data, (size_t)(at - data)};
    return QWEN3_OK;
}
