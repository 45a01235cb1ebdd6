/* grammar_merge.c - see grammar_schema.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/grammar_schema.h"

enum { VISITS = 1 << 18, MESSAGE = 200 };

schema_place schema_below(const schema_place *up, const char *key, size_t index)
{
    return (schema_place){.up = up, .key = key, .index = index, .resource = up->resource, .depth = up->depth + 1};
}

/* A long pointer loses its beginning. */
static void write_pointer(const schema_place *p, char *out, size_t room)
{
    char part[64];
    size_t n = room - 1;
    out[n] = '\0';
    for (; p->up; p = p->up) {
        if (p->key)
            snprintf(part, sizeof part, "/%.60s", p->key);
        else
            snprintf(part, sizeof part, "/%zu", p->index);
        const size_t length = strlen(part);
        if (length + 4 > n)
            break;
        n -= length;
        memcpy(out + n, part, length);
    }
    const char *begin = p->up ? "..." : "#";
    n -= strlen(begin);
    memcpy(out + n, begin, strlen(begin));
    memmove(out, out + n, room - n);
}

qwen3_status schema_fail(schema_work *w, const schema_place *p, qwen3_status status, const char *format, ...)
{
    char pointer[160], message[MESSAGE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    write_pointer(p, pointer, sizeof pointer);
    return fail(w->err, status, "%s: %s", pointer, message);
}

bool schema_visit(schema_work *w, const schema_place *p, size_t n)
{
    if (w->err->status)
        return false;
    w->visited += n;
    if (p->depth > GRAMMAR_NESTED)
        schema_fail(w, p, QWEN3_ERR_CAPACITY, "the schema is nested too deeply, or it combines itself without end");
    else if (w->visited > VISITS)
        schema_fail(w, p, QWEN3_ERR_CAPACITY, "the schema is too large");
    return !w->err->status;
}

static bool is_one_of(const char *key, const char *const *keys)
{
    while (*keys && strcmp(*keys, key) != 0)
        keys++;
    return *keys != NULL;
}

bool schema_is_annotation(const char *key)
{
    static const char *const names[] = {"title",      "description", "default",   "examples", "example",
                                        "$schema",    "$comment",    "$id",       "$defs",    "definitions",
                                        "deprecated", "readOnly",    "writeOnly", NULL};
    return is_one_of(key, names);
}

/* Takes ownership. */
static json_t *keep(schema_work *w, const schema_place *p, json_t *made)
{
    if (made && json_array_append_new(w->made, made) == 0)
        return made;
    schema_fail(w, p, QWEN3_ERR_MEMORY, "no memory for the schema");
    return NULL;
}

/* ---- References --------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    const char lower = (char)(c | 0x20);
    return c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* A part of a pointer, up to '/' or the end: ~0, ~1 and %XX are what they mean. */
static const char *take_reference(const char *at, char *out, size_t room)
{
    size_t n = 0;
    for (; *at && *at != '/'; at++) {
        char c = *at;
        if (c == '%' && hex_digit(at[1]) >= 0 && hex_digit(at[2]) >= 0) {
            c = (char)(16 * hex_digit(at[1]) + hex_digit(at[2]));
            at += 2;
        }
        if (c == '~' && (at[1] == '0' || at[1] == '1'))
            c = *++at == '0' ? '~' : '/';
        if (n + 1 < room)
            out[n++] = c;
    }
    out[n] = '\0';
    return at;
}

json_t *schema_target(schema_work *w, const schema_place *p, json_t *reference)
{
    const char *text = json_string_value(reference);
    json_t *at = p->resource;
    char key[256];
    if (!text || *text != '#' || (text[1] && text[1] != '/')) {
        schema_fail(w, p, QWEN3_ERR_UNSUPPORTED, "$ref: expected \"#\", or \"#/...\" inside the schema");
        return NULL;
    }
    for (text++; *text == '/' && at;) {
        text = take_reference(text + 1, key, sizeof key);
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10)) : json_object_get(at, key);
    }
    if (!at)
        schema_fail(w, p, QWEN3_ERR_FORMAT, "$ref: there is nothing at %.100s", json_string_value(reference));
    return at;
}

/* Follows references that have nothing beside them. */
static json_t *follow(schema_work *w, const schema_place *p, json_t *schema)
{
    for (int i = 0; i < GRAMMAR_NESTED; i++) {
        json_t *reference = json_object_get(schema, "$ref");
        if (!reference)
            return schema;
        json_t *target = schema_target(w, p, reference);
        static const char *const keys[] = {"$ref", NULL};
        json_t *rest = target ? schema_without(w, p, schema, keys) : NULL;
        if (!rest)
            return NULL;
        schema = json_object_size(rest) == 0 ? target : schema_both(w, p, target, rest);
    }
    schema_fail(w, p, QWEN3_ERR_CAPACITY, "$ref: references go round in a circle");
    return NULL;
}

json_t *schema_without(schema_work *w, const schema_place *p, json_t *schema, const char *const *keys)
{
    const char *key;
    json_t *value, *copy = json_object();
    if (!schema_visit(w, p, json_object_size(schema))) {
        json_decref(copy);
        return NULL;
    }
    json_object_foreach(schema, key, value)
    {
        if (!is_one_of(key, keys) && !schema_is_annotation(key) && json_object_set(copy, key, value) < 0) {
            json_decref(copy);
            copy = NULL;
            break;
        }
    }
    return keep(w, p, copy);
}

/* ---- Types -------------------------------------------------------------------------------------- */

int schema_type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
        return TYPE_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return TYPE_BOOLEAN;
    case JSON_OBJECT:
        return TYPE_OBJECT;
    case JSON_ARRAY:
        return TYPE_ARRAY;
    case JSON_STRING:
        return TYPE_STRING;
    case JSON_INTEGER:
        return TYPE_INTEGER;
    default: /* 1.0 is an integer */
        return floor(json_real_value(value)) == json_real_value(value) ? TYPE_INTEGER : TYPE_NUMBER & ~TYPE_INTEGER;
    }
}

static int type_of_name(const char *name)
{
    static const struct {
        const char *name;
        int type;
    } types[] = {{"null", TYPE_NULL},     {"boolean", TYPE_BOOLEAN}, {"object", TYPE_OBJECT}, {"array", TYPE_ARRAY},
                 {"string", TYPE_STRING}, {"integer", TYPE_INTEGER}, {"number", TYPE_NUMBER}};
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].type;
    return 0;
}

int schema_types(schema_work *w, const schema_place *p, const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    int all = json_is_true(json_object_get(schema, "nullable")) ? TYPE_NULL : 0;
    if (!type)
        return TYPE_ALL;
    const size_t n = json_is_array(type) ? json_array_size(type) : 1;
    for (size_t i = 0; i < n; i++) {
        const int one = type_of_name(json_string_value(json_is_array(type) ? json_array_get(type, i) : type));
        if (!one) {
            schema_fail(w, p, QWEN3_ERR_FORMAT,
                        "type: expected null, boolean, object, array, string, number or integer");
            return 0;
        }
        all |= one;
    }
    if (n == 0)
        schema_fail(w, p, QWEN3_ERR_FORMAT, "type: expected at least one");
    return n == 0 ? 0 : all;
}

/* ---- Both --------------------------------------------------------------------------------------- */

static json_t *type_names(int types)
{
    static const char *const names[] = {"null", "boolean", "object", "array", "string", "integer"};
    json_t *all = json_array();
    for (size_t i = 0; i < 6; i++)
        if (types >> i & 1 && (i != 5 || (types & TYPE_NUMBER) != TYPE_NUMBER))
            json_array_append_new(all, json_string(names[i]));
    if ((types & TYPE_NUMBER) == TYPE_NUMBER)
        json_array_append_new(all, json_string("number"));
    return all;
}

static json_t *common_values(const json_t *one, const json_t *other)
{
    size_t i, k;
    json_t *value, *same, *all = json_array();
    json_array_foreach((json_t *)one, i, value)
    {
        json_array_foreach((json_t *)other, k, same)
        {
            if (json_equal(value, same))
                json_array_append(all, value);
        }
    }
    return all;
}

/* Names that either has. Whoever has `additionalProperties` speaks of the properties that the other has as well. */
static json_t *both_properties(const json_t *one, const json_t *other)
{
    const char *name;
    json_t *value, *all = json_copy((json_t *)one);
    json_object_foreach((json_t *)other, name, value)
    {
        json_t *own = json_object_get(all, name);
        if (!own)
            json_object_set(all, name, value);
        else if (!json_equal(own, value))
            json_object_set_new(all, name, json_pack("{s[OO]}", "allOf", own, value));
    }
    return all;
}

static json_t *joined(const json_t *one, const json_t *other)
{
    json_t *all = json_copy((json_t *)one);
    if (all)
        json_array_extend(all, (json_t *)other);
    return all;
}

/* Whether a schema that has additionalProperties would forbid what the other one adds. */
static bool closes(const json_t *one, const json_t *other)
{
    const char *name;
    json_t *value;
    const json_t *more = json_object_get(one, "additionalProperties");
    if (!more || json_is_true(more))
        return false;
    json_object_foreach(json_object_get(other, "properties"), name, value)
    {
        if (!json_object_get(json_object_get(one, "properties"), name))
            return true;
    }
    return false;
}

static bool begins(const char *key, const char *prefix)
{
    return strncmp(key, prefix, strlen(prefix)) == 0;
}

/* The value of a keyword that both have, and that differs; NULL = they cannot be merged. */
static json_t *both_values(schema_work *w, const schema_place *p, const char *key, json_t *one, json_t *other)
{
    if (strcmp(key, "type") == 0) {
        json_t *a = json_pack("{sO}", key, one), *b = json_pack("{sO}", key, other);
        int types = schema_types(w, p, a) & schema_types(w, p, b);
        json_decref(a);
        json_decref(b);
        return types ? type_names(types) : NULL;
    }
    if (strcmp(key, "enum") == 0 && json_is_array(one) && json_is_array(other))
        return common_values(one, other);
    if (strcmp(key, "properties") == 0 && json_is_object(one) && json_is_object(other))
        return both_properties(one, other);
    if ((strcmp(key, "required") == 0 || strcmp(key, "allOf") == 0) && json_is_array(one) && json_is_array(other))
        return joined(one, other);
    if (strcmp(key, "items") == 0)
        return json_pack("{s[OO]}", "allOf", one, other);
    if (strcmp(key, "additionalProperties") == 0 && (json_is_true(one) || json_is_true(other)))
        return json_incref(json_is_true(one) ? other : one);
    if (!json_is_number(one) || !json_is_number(other))
        return NULL;
    const bool first_larger = json_number_value(one) > json_number_value(other);
    if (begins(key, "min") || begins(key, "exclusiveMin"))
        return json_incref(first_larger ? one : other);
    if (begins(key, "max") || begins(key, "exclusiveMax"))
        return json_incref(first_larger ? other : one);
    return NULL;
}

static bool merge_keyword(schema_work *w, const schema_place *p, json_t *all, const char *key, json_t *value)
{
    json_t *own = json_object_get(all, key);
    if (schema_is_annotation(key) || (own && json_equal(own, value)))
        return true;
    json_t *both = own ? both_values(w, p, key, own, value) : json_incref(value);
    if (both && json_object_set_new(all, key, both) == 0)
        return true;
    schema_fail(w, p, QWEN3_ERR_UNSUPPORTED, "%.60s: there are two of them that hold together, and cannot be merged",
                key);
    return false;
}

json_t *schema_both(schema_work *w, const schema_place *p, json_t *one, json_t *other)
{
    const char *key;
    json_t *value;
    schema_place below = schema_below(p, "$ref", 0);
    if (!schema_visit(w, &below, json_object_size(one) + json_object_size(other)))
        return NULL;
    one = follow(w, &below, one);
    other = one ? follow(w, &below, other) : NULL;
    if (!other)
        return NULL;
    if (json_is_true(one) || json_is_false(other))
        return other;
    if (json_is_true(other) || json_is_false(one))
        return one;
    if (!json_is_object(one) || !json_is_object(other)) {
        schema_fail(w, p, QWEN3_ERR_FORMAT, "expected a schema");
        return NULL;
    }
    if (closes(one, other) || closes(other, one)) {
        schema_fail(w, p, QWEN3_ERR_UNSUPPORTED,
                    "additionalProperties: of one of several schemas that hold together, and others have properties");
        return NULL;
    }
    json_t *all = keep(w, p, json_copy(one));
    json_object_foreach(other, key, value)
    {
        if (!all || !merge_keyword(w, p, all, key, value))
            return NULL;
    }
    return all;
}

/* ---- Exclusion ---------------------------------------------------------------------------------- */

/* The values that a schema lists: those of enum, or const as a list; NULL where it lists none. Owned by the caller. */
static json_t *listed(const json_t *schema)
{
    json_t *values = json_object_get(schema, "enum"), *constant = json_object_get(schema, "const");
    return constant ? json_pack("[O]", constant) : json_incref(values);
}

static bool lists_exclude(const json_t *one, const json_t *other)
{
    json_t *a = listed(one), *b = listed(other), *common = a && b ? common_values(a, b) : NULL;
    const bool apart = common && json_array_size(common) == 0;
    json_decref(a);
    json_decref(b);
    json_decref(common);
    return apart;
}

static bool requires(const json_t *schema, const char *name)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(schema, "required"), i, one)
    {
        if (json_is_string(one) && strcmp(json_string_value(one), name) == 0)
            return true;
    }
    return false;
}

static int listed_types(schema_work *w, const schema_place *p, const json_t *schema)
{
    size_t i;
    json_t *values = listed(schema), *value;
    int types = 0;
    json_array_foreach(values, i, value)
    {
        types |= schema_type_of(value);
    }
    json_decref(values);
    return types && !json_object_get(schema, "type") ? types : schema_types(w, p, schema);
}

bool schema_exclude(schema_work *w, const schema_place *p, json_t *one, json_t *other)
{
    const char *name;
    json_t *value;
    const schema_place below = schema_below(p, "properties", 0);
    if (!schema_visit(w, &below, 1))
        return false;
    one = follow(w, p, one);
    other = one ? follow(w, p, other) : NULL;
    if (!other)
        return false;
    const int common = listed_types(w, p, one) & listed_types(w, p, other);
    if (common == 0 || lists_exclude(one, other))
        return true;
    if (common != TYPE_OBJECT)
        return false;
    json_object_foreach(json_object_get(one, "properties"), name, value)
    {
        json_t *same = json_object_get(json_object_get(other, "properties"), name);
        if (same && requires(one, name) && requires(other, name) && schema_exclude(w, &below, value, same))
            return true;
    }
    return false;
}
