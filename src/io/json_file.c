/* json_file.c - JSON through Jansson. */
#include "io/json_file.h"

#include "io/file.h"

/* As for the header of a safetensors file. */
#define JSON_FILE_MAX ((size_t)100 << 20)

qwen3_status json_value_load(const char *path, const char *text, size_t length, size_t flags, json_t **root,
                             qwen3_error *err)
{
    json_error_t fault;
    *root = json_loadb(text, length, JSON_REJECT_DUPLICATES | flags, &fault);
    if (!*root)
        return fail(err, json_fault_status(&fault), "%s: line %d, column %d: %s", path, fault.line, fault.column,
                    fault.text[0] ? fault.text : "no memory for JSON");
    return QWEN3_OK;
}

qwen3_status json_text_load(const char *path, const char *text, size_t length, json_t **root, qwen3_error *err)
{
    qwen3_status status = json_value_load(path, text, length, 0, root, err);
    if (!status && !json_is_object(*root)) {
        json_decref(*root);
        *root = NULL;
        return fail(err, QWEN3_ERR_FORMAT, "%s: line 1: expected a JSON object", path);
    }
    return status;
}

qwen3_status json_file_load(const char *path, json_t **root, qwen3_error *err)
{
    *root = NULL;
    void *text;
    size_t length;
    qwen3_status status = file_map(path, &text, &length, err);
    if (status)
        return status;
    if (length > JSON_FILE_MAX)
        status =
            fail(err, QWEN3_ERR_FORMAT, "%s: has %zu bytes, expected JSON of at most %zu", path, length, JSON_FILE_MAX);
    else
        status = json_text_load(path, text, length, root, err);
    file_unmap(text, length);
    return status;
}
