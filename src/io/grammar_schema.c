/* grammar_schema.c - a schema becomes nodes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/grammar_schema.h"

/* A schema that references lead to, and its rule. */
typedef struct schema_rule {
    const json_t *schema;
    int32_t rule;
} schema_rule;

typedef struct compiler {
    schema_work w;
    grammar_builder *b;
    schema_rule *rules; /* [n_rules] */
    int32_t n_rules, room;
    int32_t any; /* the rule of any value; -1 = not made yet */
    json_t *truth;
} compiler;

static int32_t build_value(compiler *c, const schema_place *p, json_t *schema, int32_t next);

static int32_t word(compiler *c, const char *text, int32_t next)
{
    return build_text(c->b, text, strlen(text), next);
}

/* ---- Rules -------------------------------------------------------------------------------------- */

static int32_t value_rule(compiler *c, const schema_place *p, json_t *schema)
{
    const int32_t rule = build_rule(c->b);
    build_rule_body(c->b, rule, build_value(c, p, schema, NODE_RETURN));
    return rule;
}

/* The rule of a schema that may be a part of itself: it is known before its body is. */
static int32_t reference_rule(compiler *c, const schema_place *p, json_t *schema)
{
    for (int32_t i = 0; i < c->n_rules; i++)
        if (c->rules[i].schema == schema)
            return c->rules[i].rule;
    if (c->n_rules == c->room) {
        const int32_t room = 2 * c->room + 16;
        schema_rule *larger = realloc(c->rules, (size_t)room * sizeof *larger);
        if (!larger) {
            schema_fail(&c->w, p, QWEN3_ERR_MEMORY, "no memory for the schema");
            return 0;
        }
        c->rules = larger;
        c->room = room;
    }
    const int32_t rule = build_rule(c->b);
    c->rules[c->n_rules++] = (schema_rule){schema, rule};
    build_rule_body(c->b, rule, build_value(c, p, schema, NODE_RETURN));
    return rule;
}

static int32_t build_types(compiler *c, const schema_place *p, json_t *schema, int types, int32_t next);

/* Any value: a rule, which is known before its body is, because values are inside values. */
static int32_t build_any(compiler *c, const schema_place *p, int32_t next)
{
    if (c->any < 0) {
        c->any = build_rule(c->b);
        build_rule_body(c->b, c->any, build_types(c, p, c->truth, TYPE_ALL, NODE_RETURN));
    }
    return build_call(c->b, c->any, next);
}

/* ---- Keywords ----------------------------------------------------------------------------------- */

static bool take_size(compiler *c, const schema_place *p, const json_t *schema, const char *key, int64_t *value)
{
    const json_t *given = json_object_get(schema, key);
    if (!given)
        return true;
    const double size = json_number_value(given);
    if (!json_is_number(given) || size < 0 || size != floor(size)) {
        schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "%s: expected an integer from 0", key);
        return false;
    }
    if (size > GRAMMAR_COUNT)
        schema_fail(&c->w, p, QWEN3_ERR_CAPACITY, "%s: expected at most %d", key, GRAMMAR_COUNT);
    *value = size > GRAMMAR_COUNT ? 0 : (int64_t)size;
    return size <= GRAMMAR_COUNT;
}

static bool take_sizes(compiler *c, const schema_place *p, const json_t *schema, const char *const *keys,
                       int64_t *least, int64_t *most)
{
    *least = 0;
    *most = GRAMMAR_NO_LIMIT;
    return take_size(c, p, schema, keys[0], least) && take_size(c, p, schema, keys[1], most);
}

static bool check_keywords(compiler *c, const schema_place *p, json_t *schema)
{
    static const char *const known[] = {
        "type",        "nullable", "enum",     "const",     "properties", "required",         "items",
        "prefixItems", "minItems", "maxItems", "minLength", "maxLength",  "pattern",          "format",
        "minimum",     "maximum",  "anyOf",    "oneOf",     "allOf",      "exclusiveMinimum", "exclusiveMaximum",
        "$ref",        NULL};
    const char *key;
    json_t *value;
    json_object_foreach(schema, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        const bool counted = strcmp(key, "minProperties") == 0 || strcmp(key, "maxProperties") == 0;
        if (known[i] || schema_is_annotation(key) || counted || strcmp(key, "additionalProperties") == 0)
            continue;
        const schema_place below = schema_below(p, key, 0);
        if (strcmp(key, "uniqueItems") != 0 || !json_is_false(value)) {
            schema_fail(&c->w, &below, QWEN3_ERR_UNSUPPORTED, "this keyword is not supported");
            return false;
        }
    }
    return true;
}

/* ---- Constants ---------------------------------------------------------------------------------- */

static int32_t build_constant(compiler *c, const schema_place *p, json_t *value, int32_t next);

static int32_t build_constant_members(compiler *c, const schema_place *p, json_t *value, int32_t next)
{
    const bool object = json_is_object(value);
    const char *key;
    json_t *member, *keys = json_array();
    size_t i;
    if (object)
        json_object_foreach(value, key, member)
        {
            json_array_append_new(keys, json_string(key));
        }
    next = build_space(c->b, word(c, object ? "}" : "]", next));
    for (i = object ? json_array_size(keys) : json_array_size(value); i-- > 0;) {
        const json_t *name = json_array_get(keys, i);
        member = object ? json_object_get(value, json_string_value(name)) : json_array_get(value, i);
        next = build_constant(c, p, member, next);
        if (object)
            next = build_string(c->b, json_string_value(name), json_string_length(name),
                                word(c, ":", build_space(c->b, next)));
        if (i > 0)
            next = word(c, ",", build_space(c->b, next));
    }
    json_decref(keys);
    return word(c, object ? "{" : "[", build_space(c->b, next));
}

static int32_t build_constant(compiler *c, const schema_place *p, json_t *value, int32_t next)
{
    const schema_place below = schema_below(p, "const", 0);
    char number[40];
    if (!schema_visit(&c->w, &below, 1))
        return NODE_DEAD;
    switch (json_typeof(value)) {
    case JSON_NULL:
        return word(c, "null", next);
    case JSON_TRUE:
        return word(c, "true", next);
    case JSON_FALSE:
        return word(c, "false", next);
    case JSON_STRING:
        return build_string(c->b, json_string_value(value), json_string_length(value), next);
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return word(c, number, next);
    case JSON_REAL:
        for (int digits = 1; digits <= 17; digits++) {
            snprintf(number, sizeof number, "%.*g", digits, json_real_value(value));
            if (strtod(number, NULL) == json_real_value(value))
                break;
        }
        return word(c, number, next);
    default:
        return build_constant_members(c, &below, value, next);
    }
}

/* enum or const. Of the other keywords only types say something about them here. */
static int32_t build_listed(compiler *c, const schema_place *p, json_t *schema, int types, int32_t next)
{
    static const char *const beside[] = {"type", "nullable", "enum", "const", NULL};
    json_t *list = json_object_get(schema, "enum"), *constant = json_object_get(schema, "const"), *value;
    json_t *rest = schema_without(&c->w, p, schema, beside);
    int32_t all = NODE_DEAD;
    if (!rest)
        return NODE_DEAD;
    if (json_object_size(rest) > 0)
        schema_fail(&c->w, p, QWEN3_ERR_UNSUPPORTED, "%s beside enum or const is not supported",
                    json_object_iter_key(json_object_iter(rest)));
    else if (list && (!json_is_array(list) || constant))
        schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "enum: expected an array, without const beside it");
    else if (json_array_size(list) > GRAMMAR_CHOICES)
        schema_fail(&c->w, p, QWEN3_ERR_CAPACITY, "enum: expected at most %d values", GRAMMAR_CHOICES);
    else if (!list)
        return schema_type_of(constant) & types ? build_constant(c, p, constant, next) : NODE_DEAD;
    for (size_t i = json_array_size(list); i-- > 0 && !c->w.err->status;) {
        value = json_array_get(list, i);
        if (schema_type_of(value) & types)
            all = build_split(c->b, build_constant(c, p, value, next), all);
    }
    return all;
}

/* ---- Strings and numbers ------------------------------------------------------------------------ */

/* The pattern of a string, also that of its format; NULL = none. */
static const char *string_pattern(compiler *c, const schema_place *p, const json_t *schema)
{
    const json_t *pattern = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    if (pattern && (!json_is_string(pattern) || strlen(json_string_value(pattern)) != json_string_length(pattern)))
        schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "pattern: expected a string without zero bytes");
    else if (pattern && format)
        schema_fail(&c->w, p, QWEN3_ERR_UNSUPPORTED, "format beside pattern is not supported");
    else if (format && !format_pattern(json_string_value(format)))
        schema_fail(&c->w, p, QWEN3_ERR_UNSUPPORTED, "format: %.60s is not supported",
                    json_is_string(format) ? json_string_value(format) : "what is no string");
    if (c->w.err->status)
        return NULL;
    return pattern ? json_string_value(pattern) : format_pattern(json_string_value(format));
}

static int32_t build_string_value(compiler *c, const schema_place *p, const json_t *schema, int32_t next)
{
    static const char *const keys[] = {"minLength", "maxLength"};
    const char *pattern = string_pattern(c, p, schema);
    int64_t least, most;
    if (!take_sizes(c, p, schema, keys, &least, &most) || c->w.err->status)
        return NODE_DEAD;
    next = word(c, "\"", next);
    if (!pattern)
        return word(c, "\"", build_characters(c->b, least, most, next));
    pattern_lengths lengths;
    qwen3_error local = {0}, *err = c->b->err;
    c->b->err = &local; /* for its place */
    next = build_pattern(c->b, pattern, "pattern", &lengths, next);
    c->b->err = err;
    if (local.status)
        schema_fail(&c->w, p, local.status, "%.180s", local.message);
    else if (least > lengths.least ||
             (most != GRAMMAR_NO_LIMIT && (lengths.most == GRAMMAR_NO_LIMIT || lengths.most > most)))
        schema_fail(&c->w, p, QWEN3_ERR_UNSUPPORTED,
                    "minLength or maxLength beside a pattern that does not imply it is not supported");
    return word(c, "\"", next);
}

static bool take_bound(compiler *c, const schema_place *p, const json_t *schema, const char *key, double *value)
{
    const json_t *given = json_object_get(schema, key);
    if (given && json_is_number(given))
        *value = json_number_value(given);
    else if (given)
        schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "%s: expected a number", key);
    return given && json_is_number(given);
}

static int32_t build_number_value(compiler *c, const schema_place *p, const json_t *schema, int types, int32_t next)
{
    number_bounds n = {.low = -INFINITY, .high = INFINITY};
    double edge = 0;
    take_bound(c, p, schema, "minimum", &n.low);
    take_bound(c, p, schema, "maximum", &n.high);
    if (take_bound(c, p, schema, "exclusiveMinimum", &edge) && edge >= n.low) {
        n.low = edge;
        n.above = true;
    }
    if (take_bound(c, p, schema, "exclusiveMaximum", &edge) && edge <= n.high) {
        n.high = edge;
        n.below = true;
    }
    const bool whole = (types & TYPE_NUMBER) == TYPE_INTEGER;
    return whole ? build_integer(c->b, &n, next) : build_number(c->b, &n, next);
}

/* ---- Objects ------------------------------------------------------------------------------------ */

/* Names of properties of which none is in the list, from byte `at` on, where those in the list have been alike so far.
 * Escapes are left out, because they could spell a name of the list. */
static int32_t build_other_name(compiler *c, json_t *names, const char *prefix, size_t n, int32_t next)
{
    grammar_class taken = {{0}};
    bool ends = false;
    int32_t all = NODE_DEAD;
    size_t i;
    json_t *name;
    json_array_foreach(names, i, name)
    {
        const char *text = json_string_value(name);
        if (strncmp(text, prefix, n) != 0)
            continue;
        const unsigned char byte = (unsigned char)text[n];
        ends |= byte == '\0';
        if (byte == '\0' || grammar_class_has(&taken, byte))
            continue;
        taken.bits[byte / 64] |= (uint64_t)1 << byte % 64;
        if (byte >= 0x20 && byte < 0x7F && byte != '"' && byte != '\\') {
            char longer[64];
            memcpy(longer, prefix, n);
            longer[n] = (char)byte;
            if (n + 1 < sizeof longer) /* a longer name that begins like this is not written */
                all = build_split(c->b, build_range(c->b, byte, byte, build_other_name(c, names, longer, n + 1, next)),
                                  all);
        }
    }
    const int32_t rest = build_rule(c->b);
    grammar_class plain = {{0}};
    for (int byte = ' '; byte < 0x7F; byte++)
        if (byte != '"' && byte != '\\')
            plain.bits[byte / 64] |= (uint64_t)1 << byte % 64;
    build_rule_body(c->b, rest, build_class(c->b, &plain, NODE_RETURN));
    grammar_class first = {{plain.bits[0] & ~taken.bits[0], plain.bits[1] & ~taken.bits[1], 0, 0}};
    const int32_t tail = build_repeat(c->b, rest, 0, GRAMMAR_NO_LIMIT, next);
    all = build_split(c->b, build_class(c->b, &first, tail), all);
    return ends || n == 0 ? all : build_split(c->b, next, all);
}

/* "name": value, of a name that is not in `names`. */
static int32_t build_other_pair(compiler *c, const schema_place *p, json_t *more, json_t *names, int32_t next)
{
    const schema_place below = schema_below(p, "additionalProperties", 0);
    next = word(c, "\":", build_space(c->b, build_value(c, &below, more, next)));
    next = json_array_size(names) > 0 ? build_other_name(c, names, "", 0, next)
                                      : build_characters(c->b, 0, GRAMMAR_NO_LIMIT, next);
    return word(c, "\"", next);
}

typedef struct object_shape {
    json_t *names;             /* in their order */
    json_t *required;          /* of the schema, NULL = none */
    json_t *properties, *more; /* more NULL = no other properties */
    int64_t most;              /* properties */
} object_shape;

static bool is_in(const json_t *list, const char *name)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)list, i, one)
    {
        if (json_is_string(one) && strcmp(json_string_value(one), name) == 0)
            return true;
    }
    return false;
}

/* names is a new array, also on failure. */
static bool take_shape(compiler *c, const schema_place *p, json_t *schema, object_shape *o)
{
    static const char *const keys[] = {"minProperties", "maxProperties"};
    const char *name;
    json_t *value, *one;
    size_t i, n_required = 0;
    int64_t least;
    *o = (object_shape){.names = json_array(),
                        .required = json_object_get(schema, "required"),
                        .properties = json_object_get(schema, "properties"),
                        .more = json_object_get(schema, "additionalProperties")};
    if ((o->properties && !json_is_object(o->properties)) || (o->required && !json_is_array(o->required))) {
        schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "properties: expected an object; required: an array");
        return false;
    }
    json_object_foreach(o->properties, name, value)
    {
        json_array_append_new(o->names, json_string(name));
    }
    json_array_foreach(o->required, i, one)
    {
        if (!json_is_string(one)) {
            schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "required: expected strings");
            return false;
        }
        n_required++;
        if (!is_in(o->names, json_string_value(one)))
            json_array_append(o->names, one);
    }
    if (!take_sizes(c, p, schema, keys, &least, &o->most))
        return false;
    if (!o->more && !o->properties)
        o->more = c->truth;
    if (json_is_false(o->more))
        o->more = NULL;
    if (least > (int64_t)n_required)
        schema_fail(&c->w, p, QWEN3_ERR_UNSUPPORTED, "minProperties: more than there are in required is not supported");
    if (o->most != GRAMMAR_NO_LIMIT && json_array_size(o->names) > 0 && (int64_t)json_array_size(o->names) > o->most)
        schema_fail(&c->w, p, QWEN3_ERR_UNSUPPORTED,
                    "maxProperties: less than there are in properties is not supported");
    if (json_array_size(o->names) > GRAMMAR_CHOICES)
        schema_fail(&c->w, p, QWEN3_ERR_CAPACITY, "properties: expected at most %d", GRAMMAR_CHOICES);
    return schema_visit(&c->w, p, json_array_size(o->names));
}

/* Other properties after those with names: `first` without a comma in front, `later` with one. */
static void build_others(compiler *c, const schema_place *p, const object_shape *o, int32_t end, int32_t *first,
                         int32_t *later)
{
    const int64_t most = o->most == GRAMMAR_NO_LIMIT ? o->most : o->most - (int64_t)json_array_size(o->names);
    *first = *later = end;
    if (!o->more || most == 0)
        return;
    const int32_t pair = build_rule(c->b), next_pair = build_rule(c->b);
    build_rule_body(c->b, pair, build_other_pair(c, p, o->more, o->names, NODE_RETURN));
    build_rule_body(c->b, next_pair, word(c, ",", build_space(c->b, build_call(c->b, pair, NODE_RETURN))));
    const int64_t rest = most == GRAMMAR_NO_LIMIT ? most : most - 1;
    *later = build_repeat(c->b, next_pair, 0, most, end);
    *first = build_split(c->b, end, build_call(c->b, pair, build_repeat(c->b, next_pair, 0, rest, end)));
}

static int32_t build_object(compiler *c, const schema_place *p, json_t *schema, int32_t next)
{
    object_shape o;
    int32_t first, later;
    if (!take_shape(c, p, schema, &o)) {
        json_decref(o.names);
        return NODE_DEAD;
    }
    const schema_place below = schema_below(p, "properties", 0);
    build_others(c, p, &o, build_space(c->b, word(c, "}", next)), &first, &later);
    for (size_t i = json_array_size(o.names); i-- > 0 && !c->w.err->status;) {
        const json_t *name = json_array_get(o.names, i);
        const char *text = json_string_value(name);
        json_t *value = json_object_get(o.properties, text);
        const schema_place own = schema_below(&below, text, 0);
        int32_t pair = build_value(c, &own, value ? value : o.more ? o.more : c->truth, later);
        pair = word(c, ":", build_space(c->b, pair));
        pair = build_string(c->b, text, json_string_length(name), pair);
        const int32_t with_comma = word(c, ",", build_space(c->b, pair));
        const bool required = is_in(o.required, text);
        first = required ? pair : build_split(c->b, pair, first);
        later = required ? with_comma : build_split(c->b, with_comma, later);
    }
    json_decref(o.names);
    return word(c, "{", build_space(c->b, first));
}

/* ---- Arrays ------------------------------------------------------------------------------------- */

/* Items after `before` others, least to most of them. */
static int32_t build_items(compiler *c, const schema_place *p, json_t *items, size_t before, const int64_t bounds[2],
                           int32_t end)
{
    const schema_place below = schema_below(p, "items", 0);
    const int64_t least = bounds[0], most = bounds[1];
    if (most == 0)
        return least > 0 ? NODE_DEAD : end;
    const int32_t item = value_rule(c, &below, items), next_item = build_rule(c->b);
    build_rule_body(c->b, next_item, word(c, ",", build_space(c->b, build_call(c->b, item, NODE_RETURN))));
    if (before > 0)
        return build_repeat(c->b, next_item, least, most, end);
    const int32_t rest =
        build_repeat(c->b, next_item, least > 0 ? least - 1 : 0, most == GRAMMAR_NO_LIMIT ? most : most - 1, end);
    const int32_t all = build_call(c->b, item, rest);
    return least > 0 ? all : build_split(c->b, end, all);
}

static int32_t build_array(compiler *c, const schema_place *p, json_t *schema, int32_t next)
{
    static const char *const keys[] = {"minItems", "maxItems"};
    json_t *items = json_object_get(schema, "items"), *prefix = json_object_get(schema, "prefixItems");
    int64_t least, most;
    if (!take_sizes(c, p, schema, keys, &least, &most))
        return NODE_DEAD;
    if (prefix && !json_is_array(prefix)) {
        schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "prefixItems: expected an array");
        return NODE_DEAD;
    }
    size_t n = json_array_size(prefix);
    if (most != GRAMMAR_NO_LIMIT && (int64_t)n > most)
        n = (size_t)most;
    least = least > (int64_t)n ? least - (int64_t)n : 0;
    most = most == GRAMMAR_NO_LIMIT ? most : most - (int64_t)n;
    if (json_is_false(items) || (prefix && !items && least == 0))
        most = 0;
    const int64_t bounds[] = {least, most};
    next = build_items(c, p, items ? items : c->truth, n, bounds, build_space(c->b, word(c, "]", next)));
    const schema_place below = schema_below(p, "prefixItems", 0);
    while (n-- > 0) {
        const schema_place own = schema_below(&below, NULL, n);
        next = build_value(c, &own, json_array_get(prefix, n), next);
        if (n > 0)
            next = word(c, ",", build_space(c->b, next));
    }
    return word(c, "[", build_space(c->b, next));
}

/* ---- Values ------------------------------------------------------------------------------------- */

static int32_t build_types(compiler *c, const schema_place *p, json_t *schema, int types, int32_t next)
{
    int32_t all = NODE_DEAD;
    if (types & TYPE_NULL)
        all = build_split(c->b, word(c, "null", next), all);
    if (types & TYPE_BOOLEAN)
        all = build_split(c->b, build_split(c->b, word(c, "true", next), word(c, "false", next)), all);
    if (types & TYPE_NUMBER)
        all = build_split(c->b, build_number_value(c, p, schema, types, next), all);
    if (types & TYPE_STRING)
        all = build_split(c->b, build_string_value(c, p, schema, next), all);
    if (types & TYPE_ARRAY)
        all = build_split(c->b, build_array(c, p, schema, next), all);
    if (types & TYPE_OBJECT)
        all = build_split(c->b, build_object(c, p, schema, next), all);
    return all;
}

/* anyOf or oneOf, with what is beside it. */
static int32_t build_alternatives(compiler *c, const schema_place *p, json_t *schema, const char *key, int32_t next)
{
    const char *const keys[] = {key, NULL};
    json_t *list = json_object_get(schema, key), *rest = schema_without(&c->w, p, schema, keys);
    const schema_place below = schema_below(p, key, 0);
    int32_t all = NODE_DEAD;
    if (rest && (!json_is_array(list) || json_array_size(list) == 0))
        schema_fail(&c->w, &below, QWEN3_ERR_FORMAT, "expected an array of schemas");
    const bool one = strcmp(key, "oneOf") == 0;
    for (size_t i = json_array_size(list); i-- > 0 && !c->w.err->status;) {
        const schema_place own = schema_below(&below, NULL, i);
        json_t *alternative = json_array_get(list, i);
        for (size_t k = 0; one && k < i; k++)
            if (!schema_exclude(&c->w, &own, json_array_get(list, k), alternative))
                schema_fail(&c->w, &own, QWEN3_ERR_UNSUPPORTED,
                            "alternative %zu may have the same values; use anyOf, or a property of which each has its "
                            "own constant",
                            k);
        if (!c->w.err->status && json_object_size(rest) > 0)
            alternative = schema_both(&c->w, &own, rest, alternative);
        if (alternative)
            all = build_split(c->b, build_value(c, &own, alternative, next), all);
    }
    return all;
}

/* allOf, or $ref with something beside it: one schema that says all. */
static int32_t build_together(compiler *c, const schema_place *p, json_t *schema, int32_t next)
{
    static const char *const keys[] = {"allOf", NULL};
    const schema_place below = schema_below(p, "allOf", 0);
    json_t *list = json_object_get(schema, "allOf"), *all = schema_without(&c->w, p, schema, keys);
    if (all && list && (!json_is_array(list) || json_array_size(list) == 0)) {
        schema_fail(&c->w, &below, QWEN3_ERR_FORMAT, "expected an array of schemas");
        return NODE_DEAD;
    }
    if (all && json_object_size(all) == 0 && json_array_size(list) == 1)
        return build_value(c, &below, json_array_get(list, 0), next);
    for (size_t i = 0; i < json_array_size(list) && all; i++) {
        const schema_place own = schema_below(&below, NULL, i);
        all = schema_both(&c->w, &own, all, json_array_get(list, i));
    }
    if (all && !list)
        all = schema_both(&c->w, p, c->truth, all);
    return all ? build_value(c, &below, all, next) : NODE_DEAD;
}

/* Whether the schema says nothing, but for the key. */
static bool says_only(const json_t *schema, const char *only)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)schema, key, value)
    {
        if (strcmp(key, only) != 0 && !schema_is_annotation(key))
            return false;
    }
    return json_is_object(schema);
}

static int32_t build_keywords(compiler *c, const schema_place *p, json_t *schema, int32_t next)
{
    if (!check_keywords(c, p, schema))
        return NODE_DEAD;
    if (json_object_get(schema, "$ref") && says_only(schema, "$ref")) {
        const schema_place below = schema_below(p, "$ref", 0);
        json_t *target = schema_target(&c->w, p, json_object_get(schema, "$ref"));
        return target ? build_call(c->b, reference_rule(c, &below, target), next) : NODE_DEAD;
    }
    if (json_object_get(schema, "$ref") || json_object_get(schema, "allOf"))
        return build_together(c, p, schema, next);
    if (json_object_get(schema, "anyOf"))
        return build_alternatives(c, p, schema, "anyOf", next);
    if (json_object_get(schema, "oneOf"))
        return build_alternatives(c, p, schema, "oneOf", next);
    const int types = schema_types(&c->w, p, schema);
    if (json_object_get(schema, "enum") || json_object_get(schema, "const"))
        return build_listed(c, p, schema, types, next);
    return build_types(c, p, schema, types, next);
}

static int32_t build_value(compiler *c, const schema_place *p, json_t *schema, int32_t next)
{
    schema_place here = *p;
    if (!schema_visit(&c->w, p, 1) || json_is_false(schema))
        return NODE_DEAD;
    if (json_is_true(schema) || says_only(schema, ""))
        return build_any(c, p, next);
    if (!json_is_object(schema)) {
        schema_fail(&c->w, p, QWEN3_ERR_FORMAT, "expected a schema, which is an object, true or false");
        return NODE_DEAD;
    }
    if (json_is_string(json_object_get(schema, "$id")))
        here.resource = schema;
    return build_keywords(c, &here, schema, next);
}

int32_t build_schema(grammar_builder *b, json_t *schema, int32_t next)
{
    compiler c = {.w = {.err = b->err, .made = json_array()}, .b = b, .any = -1, .truth = json_object()};
    const schema_place whole = {.resource = schema};
    if (c.w.made && c.truth)
        next = build_value(&c, &whole, schema, next);
    else
        fail(b->err, QWEN3_ERR_MEMORY, "#: no memory for the schema");
    json_decref(c.w.made);
    json_decref(c.truth);
    free(c.rules);
    return next;
}
