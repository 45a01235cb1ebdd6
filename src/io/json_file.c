/* json_file.c - JSON through Jansson. */
#include "io/json_file.h"

#include "io/file.h"

/* As for the header of a safetensors file. */
#define JSON_FILE_MAX ((size_t)100 << 20)

enum { KEY_DEPTH = 64 };

/* The key of the innermost member that text [n] ends in; NULL: there is none. The text is well-formed so far. */
static const char *innermost_key(const char *text, size_t n, size_t *length)
{
    struct {
        const char *begin;
        size_t length;
    } keys[KEY_DEPTH] = {{NULL, 0}}, last = {NULL, 0};
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"') {
            const size_t begin = ++i;
            while (i < n && text[i] != '"')
                i += text[i] == '\\' ? 2 : 1;
            last.begin = text + begin;
            last.length = i - begin;
        } else if (text[i] == ':' && depth < KEY_DEPTH) {
            keys[depth] = last;
        } else if ((text[i] == '{' || text[i] == '[') && ++depth < KEY_DEPTH) {
            keys[depth].begin = NULL;
        } else if (text[i] == '}' || text[i] == ']') {
            depth--;
        }
    }
    for (depth = depth < KEY_DEPTH ? depth : KEY_DEPTH - 1; depth > 0 && !keys[depth].begin;)
        depth--;
    *length = keys[depth].length;
    return keys[depth].begin;
}

qwen3_status json_value_load(const char *path, const char *text, size_t length, size_t flags, json_t **root,
                             qwen3_error *err)
{
    json_error_t fault;
    *root = json_loadb(text, length, JSON_REJECT_DUPLICATES | flags, &fault);
    if (*root)
        return QWEN3_OK;
    size_t n = 0;
    const char *key = NULL;
    if (json_error_code(&fault) == json_error_numeric_overflow) /* Jansson quotes the number and not its key */
        key = innermost_key(text, (size_t)fault.position, &n);
    return fail(err, json_fault_status(&fault), "%s: line %d, column %d: %.*s%s%s", path, fault.line, fault.column,
                n > 100 ? 100 : (int)n, key ? key : "", key ? ": " : "",
                fault.text[0] ? fault.text : "no memory for JSON");
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
