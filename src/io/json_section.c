/* json_section.c - values of JSON objects, checked. */
#include "io/json_section.h"

#include <stdlib.h>
#include <string.h>

qwen3_status json_fail_value(const json_section *s, qwen3_status status, const char *key, const json_t *value,
                             const char *expected)
{
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    if (value)
        fail(s->err, status, "%s: %s%s: got %.80s, expected %s", s->path, s->name, key, text ? text : "?", expected);
    else
        fail(s->err, status, "%s: %s%s is missing, expected %s", s->path, s->name, key, expected);
    free(text);
    return status;
}

const json_t *json_value_of(const json_section *s, const char *key)
{
    const json_t *value = json_object_get(s->object, key);
    return json_is_null(value) ? NULL : value;
}

qwen3_status json_read_integer(const json_section *s, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(s->object, key);
    if (!json_is_integer(value))
        return json_fail_value(s, QWEN3_ERR_CONFIG, key, value, "an integer");
    *out = json_integer_value(value);
    return QWEN3_OK;
}

qwen3_status json_read_number(const json_section *s, const char *key, double *out)
{
    const json_t *value = json_object_get(s->object, key);
    if (!json_is_number(value))
        return json_fail_value(s, QWEN3_ERR_CONFIG, key, value, "a number");
    *out = json_number_value(value);
    return QWEN3_OK;
}

qwen3_status json_read_optional_number(const json_section *s, const char *key, double *out)
{
    return json_value_of(s, key) ? json_read_number(s, key, out) : QWEN3_OK;
}

qwen3_status json_read_bool(const json_section *s, const char *key, bool *out)
{
    const json_t *value = json_object_get(s->object, key);
    if (!json_is_boolean(value))
        return json_fail_value(s, QWEN3_ERR_CONFIG, key, value, "true or false");
    *out = json_is_true(value);
    return QWEN3_OK;
}

bool json_is_text(const json_t *value, const char *expected)
{
    return json_is_string(value) && strcmp(json_string_value(value), expected) == 0;
}
