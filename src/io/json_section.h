/* json_section.h - reads values of a JSON file that describes a model. Errors are QWEN3_ERR_CONFIG and name file and
 * key. */
#ifndef QWEN3_IO_JSON_SECTION_H
#define QWEN3_IO_JSON_SECTION_H

#include "io/json_file.h"

/* An object of the file; `name` is put before its keys in messages ("" or "rope_scaling."). */
typedef struct json_section {
    const char *path, *name;
    const json_t *object;
    qwen3_error *err;
} json_section;

/* Says what was read and what was expected; value NULL: the key is missing. */
qwen3_status json_fail_value(const json_section *s, qwen3_status status, const char *key, const json_t *value,
                             const char *expected);
/* The value of a key, or NULL if it is missing or null. */
const json_t *json_value_of(const json_section *s, const char *key);

/* *out is written on success only. If the key is missing or null, an optional number succeeds and leaves *out
 * unchanged. */
qwen3_status json_read_integer(const json_section *s, const char *key, int64_t *out);
qwen3_status json_read_number(const json_section *s, const char *key, double *out);
qwen3_status json_read_optional_number(const json_section *s, const char *key, double *out);
qwen3_status json_read_bool(const json_section *s, const char *key, bool *out);

/* Whether the value is this string. */
bool json_is_text(const json_t *value, const char *expected);

#endif
