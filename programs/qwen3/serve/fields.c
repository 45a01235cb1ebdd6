/* fields.c - see fields.h. */
#include "fields.h"

#include <inttypes.h>
#include <string.h>

json_t *fields_parse(const char *text, size_t n, api_error *e)
{
    json_error_t at;
    json_t *value = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &at);
    if (!value)
        api_refuse(e, NULL, "the body is not JSON: line %d, column %d: %s", at.line, at.column, at.text);
    else if (!json_is_object(value))
        api_refuse(e, NULL, "the body is JSON, but not an object");
    if (json_is_object(value))
        return value;
    json_decref(value);
    return NULL;
}

json_t *field_get(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

bool field_bool(const json_t *object, const char *name, bool *value, api_error *e)
{
    json_t *field = field_get(object, name);
    if (field && !json_is_boolean(field))
        return api_refuse(e, name, "%s: expected true or false", name);
    if (field)
        *value = json_is_true(field);
    return !e->http;
}

bool field_int(const json_t *object, const char *name, int64_t least, int64_t most, int64_t *value, api_error *e)
{
    json_t *field = field_get(object, name);
    if (!field)
        return !e->http;
    if (!json_is_integer(field) || json_integer_value(field) < least || json_integer_value(field) > most)
        return api_refuse(e, name, "%s: expected an integer from %" PRId64 " to %" PRId64, name, least, most);
    *value = json_integer_value(field);
    return !e->http;
}

bool field_number(const json_t *object, const char *name, double least, double most, double *value, api_error *e)
{
    json_t *field = field_get(object, name);
    if (!field)
        return !e->http;
    double number = json_number_value(field);
    if (!json_is_number(field) || !(number >= least && number <= most))
        return api_refuse(e, name, "%s: expected a number from %g to %g", name, least, most);
    *value = number;
    return !e->http;
}

bool field_of_type(const json_t *object, const char *name, json_type type, json_t **value, api_error *e)
{
    static const char *const names[] = {"an object", "an array", "a string"};
    json_t *field = field_get(object, name);
    if (!field)
        return !e->http;
    if (json_typeof(field) != type)
        return api_refuse(e, name, "%s: expected %s", name, names[type]);
    *value = field;
    return !e->http;
}

bool field_string(const json_t *object, const char *name, const char **value, api_error *e)
{
    json_t *field = NULL;
    if (!field_of_type(object, name, JSON_STRING, &field, e))
        return false;
    if (field && json_string_length(field) != strlen(json_string_value(field)))
        return api_refuse(e, name, "%s: has a zero byte", name);
    if (field)
        *value = json_string_value(field);
    return true;
}
