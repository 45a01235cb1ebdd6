/* test_grammar.c - schemas: texts that are accepted and refused, masks against single tokens, random texts under the
 * mask against a validator of its own, schemas that are refused or hostile. */
#include "support/temp_files.h"

#include <math.h>

#include "qwen3_grammar.h"

#define MOST 12

typedef struct schema_case {
    const char *schema;
    const char *good[MOST], *bad[MOST]; /* bad: no value, or not the whole of one */
} schema_case;

static const schema_case cases[] = {
    {"true", {"1", "null", "{\"a\": [1, {\"b\": null}]}", "\"x\"", "[]", "{}", "\n\n1"}, {"", "x", "[1,", "tru", "01"}},
    {"{\"type\":\"object\"}", {"{}", "{ }", "{\n  \"a\": 1\n}", "{\"a\":1,\"b\":2}\n"}, {"[]", "1", "{,}", "{\"a\"}"}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"\xC3\xA4\"", "\"\\u00e4\"", "\"\\ud83d\\ude00\"", "\"\\\\\"", "\"\xF0\x9F\x98\x80\""},
     {"\"\xFF\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\\ud83d\"", "\"\\x\"", "\"\n\"", "\"\\u0000\"", "\"\xC3\""}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"abc\"", "\"\xC3\xA4\xC3\xA4\xC3\xA4\"", "\"\\u0041\\n\""},
     {"\"a\"", "\"abcd\"", "\"\xC3\xA4\""}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":105}",
     {"-12", "-9", "0", "7", "99", "100", "105"},
     {"-13", "106", "00", "1.5", "-", "-0", "200"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":5,\"exclusiveMaximum\":8}", {"6", "7"}, {"5", "8", "60"}},
    {"{\"type\":\"integer\"}", {"0", "-1", "123456789012345678"}, {"1.0", "1e3", "01", "1234567890123456789"}},
    {"{\"type\":\"number\"}", {"0", "-0.5", "1e3", "12.25E-3"}, {".5", "1.", "1e", "+1", "--1"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}", {"0", "1", "0.25", "0.999999", "1.0"}, {"1.1", "-0.1", "2"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0.1,\"maximum\":12.5}",
     {"0.11", "12.5", "0.2", "9.75", "12"},
     {"0.1", "12.51", "13", "0", "0.10"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"boolean\"}},"
     "\"required\":[\"a\"],\"additionalProperties\":false}",
     {"{\"a\":1}", "{\"a\": 1, \"b\": true}", "{\n  \"a\": 1,\n  \"b\": false\n}"},
     {"{}", "{\"b\":true}", "{\"a\":1,\"c\":2}", "{\"a\":true}", "{\"a\":1,}", "{\"b\":true,\"a\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"null\"}},\"additionalProperties\":{\"type\":\"integer\"}"
     "}",
     {"{}", "{\"ab\":null}", "{\"a\":1}", "{\"ab\":null,\"abc\":2,\"b\":3}", "{\"x\":1}"},
     {"{\"ab\":1}", "{\"x\":null}", "{\"a\\u0062\":1}", "{\"x\":1,\"ab\":null}"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
     {"[1]", "[1, 2, 3]", "[\n  1,\n  2\n]"},
     {"[]", "[1,2,3,4]", "[true]", "[1,]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"null\"}],\"items\":{\"type\":\"integer\"}"
     "}",
     {"[\"a\", null]", "[\"a\", null, 1, 2]"},
     {"[]", "[\"a\"]", "[\"a\", null, null]"}},
    {"{\"enum\":[\"red\",\"green\",1,null,{\"a\":[1]}]}",
     {"\"red\"", "\"green\"", "1", "null", "{\"a\": [1]}"},
     {"\"re\"", "2", "\"redd\"", "{}"}},
    {"{\"type\":\"string\",\"enum\":[\"a\",1]}", {"\"a\""}, {"1"}},
    {"{\"const\":\"q\\\"\\n\\u0001\"}", {"\"q\\\"\\n\\u0001\""}, {"\"q\""}},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1}]}", {"1", "\"a\""}, {"\"ab\"", "null"}},
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"},\"v\":{\"type\":\"integer\"}},"
     "\"required\":[\"k\",\"v\"]},{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"b\"}},\"required\":[\"k\"]}]"
     "}",
     {"{\"k\":\"a\",\"v\":1}", "{\"k\":\"b\"}"},
     {"{\"k\":\"a\"}", "{\"k\":\"c\"}"}},
    {"{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]},"
     "{\"properties\":{\"a\":{\"minimum\":5},\"b\":{\"const\":1}},\"required\":[\"b\"]}]}",
     {"{\"a\":5,\"b\":1}"},
     {"{\"a\":4,\"b\":1}", "{\"a\":5}", "{\"b\":1}"}},
    {"{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"next\":{\"anyOf\":["
     "{\"$ref\":\"#/$defs/node\"},{\"type\":\"null\"}]}},\"required\":[\"next\"],\"additionalProperties\":false}}}",
     {"{\"next\":null}", "{\"next\":{\"next\":{\"next\":null}}}"},
     {"{}", "{\"next\":{}}", "null"}},
    {"{\"type\":\"object\",\"properties\":{\"t\":{\"$id\":\"t\",\"$ref\":\"#/definitions/d\",\"definitions\":"
     "{\"d\":{\"const\":7}}}},\"required\":[\"t\"]}",
     {"{\"t\":7}"},
     {"{\"t\":8}"}},
    {"{\"type\":[\"string\",\"null\"],\"maxLength\":2}", {"null", "\"ab\""}, {"\"abc\"", "1"}},
    {"{\"type\":\"integer\",\"nullable\":true}", {"null", "3"}, {"\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-c]+(-\\\\d{2,3})?$\"}",
     {"\"a\"", "\"abc-12\"", "\"c-123\""},
     {"\"\"", "\"d\"", "\"a-1\"", "\"a-1234\"", "\"a-\""}},
    {"{\"type\":\"string\",\"pattern\":\"x|yz\"}", {"\"x\"", "\"aax\"", "\"yzb\""}, {"\"y\"", "\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[^a\\\"]\\\\\\\\.$\"}",
     {"\"b\\\\c\"", "\"\xC3\xA4\\\\\\\"\""},
     {"\"a\\\\b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(ab?){2}$\",\"minLength\":2,\"maxLength\":4}",
     {"\"aa\"", "\"abab\""},
     {"\"a\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-12-31\"", "\"2024-02-28\""},
     {"\"2024-02-30\"", "\"2024-13-01\""}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}", {"\"2024-12-31T23:59:59Z\""}, {"\"2024-12-31\"", "\"\""}},
    {"{\"type\":\"string\",\"format\":\"uuid\"}", {"\"123e4567-e89b-12d3-a456-426614174000\""}, {"\"123\""}},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}", {"\"255.0.10.1\""}, {"\"256.0.0.1\"", "\"1.1.1\""}},
    {"{\"type\":\"string\",\"format\":\"email\"}", {"\"a.b@example.org\""}, {"\"a@b\"", "\"@b.c\""}},
    {"{\"type\":\"string\",\"format\":\"uri\"}", {"\"https://example.org/a?b=c#d\""}, {"\"example\""}},
};
enum { CASES = sizeof cases / sizeof *cases };

typedef struct setting {
    qwen3_tokenizer *tokenizer;
    qwen3_vocabulary *vocabulary;
} setting;

static int set_up(void **state)
{
    static setting s;
    qwen3_error err = {0};
    if (qwen3_tokenizer_open(DEMO_MODEL, &s.tokenizer, &err) || qwen3_vocabulary_open(s.tokenizer, &s.vocabulary, &err))
        fail_msg("%s", err.message);
    *state = &s;
    return 0;
}

static int tear_down(void **state)
{
    setting *s = *state;
    qwen3_vocabulary_close(s->vocabulary);
    qwen3_tokenizer_close(s->tokenizer);
    return 0;
}

static qwen3_matcher *open_matcher(const setting *s, const char *schema, qwen3_grammar **g)
{
    qwen3_error err = {0};
    qwen3_matcher *m = NULL;
    if (qwen3_grammar_open(schema, strlen(schema), g, &err) || qwen3_matcher_open(*g, s->vocabulary, &m, &err))
        fail_msg("%s: %s", schema, err.message);
    return m;
}

static bool accepts(qwen3_matcher *m, const char *text)
{
    qwen3_matcher_reset(m);
    return qwen3_matcher_accept_bytes(m, text, strlen(text)) && qwen3_matcher_complete(m);
}

static void test_texts(void **state)
{
    for (int i = 0; i < CASES; i++) {
        qwen3_grammar *g;
        qwen3_matcher *m = open_matcher(*state, cases[i].schema, &g);
        for (int k = 0; k < MOST && cases[i].good[k]; k++)
            if (!accepts(m, cases[i].good[k]))
                fail_msg("%s: refuses %s", cases[i].schema, cases[i].good[k]);
        for (int k = 0; k < MOST && cases[i].bad[k]; k++)
            if (accepts(m, cases[i].bad[k]))
                fail_msg("%s: accepts %s", cases[i].schema, cases[i].bad[k]);
        qwen3_matcher_close(m);
        qwen3_grammar_close(g);
    }
}

/* ---- A validator: what is in the schemas above, but for patterns and formats ------------------- */

static bool valid(const json_t *root, const json_t *schema, const json_t *value);

static bool of_type(const char *type, const json_t *value)
{
    return strcmp(type, "object") == 0    ? json_is_object(value)
           : strcmp(type, "array") == 0   ? json_is_array(value)
           : strcmp(type, "string") == 0  ? json_is_string(value)
           : strcmp(type, "integer") == 0 ? json_is_integer(value)
           : strcmp(type, "number") == 0  ? json_is_number(value)
           : strcmp(type, "boolean") == 0 ? json_is_boolean(value)
                                          : json_is_null(value);
}

static size_t characters(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static double bound(const json_t *schema, const char *key, double otherwise)
{
    const json_t *given = json_object_get(schema, key);
    return given ? json_number_value(given) : otherwise;
}

static bool valid_object(const json_t *root, const json_t *schema, json_t *value)
{
    const json_t *properties = json_object_get(schema, "properties"), *more;
    const char *name;
    json_t *member, *one;
    size_t i;
    more = json_object_get(schema, "additionalProperties");
    json_object_foreach(value, name, member)
    {
        const json_t *own = json_object_get(properties, name);
        if (!valid(root, own ? own : more, member))
            return false;
    }
    json_array_foreach(json_object_get(schema, "required"), i, one)
    {
        if (!json_object_get(value, json_string_value(one)))
            return false;
    }
    return true;
}

static bool valid_array(const json_t *root, const json_t *schema, json_t *value)
{
    const json_t *prefix = json_object_get(schema, "prefixItems");
    json_t *item;
    size_t i;
    json_array_foreach(value, i, item)
    {
        const json_t *own = json_array_get(prefix, i);
        if (!valid(root, own ? own : json_object_get(schema, "items"), item))
            return false;
    }
    const double n = (double)json_array_size(value);
    return n >= bound(schema, "minItems", 0) && n <= bound(schema, "maxItems", INFINITY);
}

static int count_valid(const json_t *root, json_t *list, const json_t *value)
{
    int n = 0;
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        n += valid(root, one, value);
    }
    return n;
}

static bool valid_type(const json_t *schema, const json_t *value)
{
    json_t *type = json_object_get(schema, "type"), *one;
    size_t i;
    bool any = !type || (json_is_null(value) && json_is_true(json_object_get(schema, "nullable")));
    if (json_is_string(type))
        any |= of_type(json_string_value(type), value);
    json_array_foreach(type, i, one)
    {
        any |= of_type(json_string_value(one), value);
    }
    return any;
}

static bool valid_listed(const json_t *schema, const json_t *value)
{
    json_t *list = json_object_get(schema, "enum"), *constant = json_object_get(schema, "const"), *one;
    bool any = !list && (!constant || json_equal(constant, value));
    size_t i;
    json_array_foreach(list, i, one)
    {
        any |= json_equal(one, value);
    }
    return any;
}

static bool valid(const json_t *root, const json_t *schema, const json_t *value)
{
    if (!schema || json_is_true(schema))
        return true;
    if (json_is_false(schema) || !valid_type(schema, value) || !valid_listed(schema, value))
        return false;
    if (json_object_get(schema, "$id"))
        root = schema;
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    if (reference) { /* "#/X/Y" */
        char section[64];
        const char *name = strrchr(reference, '/');
        snprintf(section, sizeof section, "%.*s", (int)(name - reference - 2), reference + 2);
        return valid(root, json_object_get(json_object_get(root, section), name + 1), value);
    }
    json_t *any = json_object_get(schema, "anyOf"), *one = json_object_get(schema, "oneOf"),
           *all = json_object_get(schema, "allOf");
    if ((any && count_valid(root, any, value) == 0) || (one && count_valid(root, one, value) != 1) ||
        (all && count_valid(root, all, value) != (int)json_array_size(all)))
        return false;
    if (json_is_number(value)) {
        const double x = json_number_value(value);
        return x >= bound(schema, "minimum", -INFINITY) && x <= bound(schema, "maximum", INFINITY) &&
               x > bound(schema, "exclusiveMinimum", -INFINITY) && x < bound(schema, "exclusiveMaximum", INFINITY);
    }
    if (json_is_string(value)) {
        const double n = (double)characters(json_string_value(value));
        return n >= bound(schema, "minLength", 0) && n <= bound(schema, "maxLength", INFINITY);
    }
    return json_is_object(value)  ? valid_object(root, schema, (json_t *)value)
           : json_is_array(value) ? valid_array(root, schema, (json_t *)value)
                                  : true;
}

/* ---- Random texts ------------------------------------------------------------------------------- */

enum { WORDS = 64, LONG_TEXT = 40, LAST_TOKEN = 3000, ROOM = 1 << 16 };

static bool in_mask(const uint64_t *mask, int32_t token)
{
    return mask[token / 64] >> token % 64 & 1;
}

static void check_mask(qwen3_matcher *m, const uint64_t *mask, int32_t n, const char *schema)
{
    for (int32_t t = 0; t < n; t++)
        if (qwen3_matcher_allows(m, t) != in_mask(mask, t))
            fail_msg("%s: token %d is %sin the mask", schema, t, in_mask(mask, t) ? "" : "not ");
}

/* One of the mask; late in a text what ends values first. */
static int32_t choose(const setting *s, const uint64_t *mask, int32_t n, int length, uint64_t *random)
{
    static const char *const ends[] = {"\"", "x", "}", "]", ":", "null", "0", "n"};
    for (size_t i = 0; length > LONG_TEXT && i < sizeof ends / sizeof *ends; i++) {
        const int32_t t = qwen3_tokenizer_find(s->tokenizer, ends[i], strlen(ends[i]));
        if (t >= 0 && in_mask(mask, t) && test_random(random) % 8 != 0)
            return t;
    }
    int32_t t = (int32_t)(test_random(random) % (uint64_t)n);
    while (!in_mask(mask, t))
        t = (t + 1) % n;
    return t;
}

static void walk(const setting *s, qwen3_matcher *m, const char *schema, uint64_t *random)
{
    static char text[ROOM];
    const int32_t n = qwen3_tokenizer_vocab_size(s->tokenizer);
    size_t length = 0, bytes;
    qwen3_matcher_reset(m);
    for (int i = 0;; i++) {
        uint64_t mask[WORDS] = {0};
        const bool some = qwen3_matcher_mask(m, mask, n);
        assert_true(some || qwen3_matcher_complete(m));
        if (i == LAST_TOKEN)
            fail_msg("%s: does not end: %.*s", schema, (int)(length < 300 ? length : 300), text);
        if (!some || (qwen3_matcher_complete(m) && test_random(random) % 4 == 0))
            break;
        if (test_random(random) % 64 == 0)
            check_mask(m, mask, n, schema);
        const int32_t t = choose(s, mask, n, i, random);
        const char *token = qwen3_tokenizer_token(s->tokenizer, t, &bytes);
        assert_int_equal(qwen3_tokenizer_kind(s->tokenizer, t), QWEN3_TOKEN_ORDINARY);
        assert_true(qwen3_matcher_accept(m, t));
        assert_true(length + bytes < ROOM);
        memcpy(text + length, token, bytes);
        length += bytes;
    }
    json_t *root = json_loads(schema, JSON_DECODE_ANY, NULL), *value = json_loadb(text, length, JSON_DECODE_ANY, NULL);
    if (getenv("QWEN3_TEST_PRINT"))
        printf("WALK %s\t%.*s\n", schema, (int)length, text);
    if (!value || !valid(root, root, value))
        fail_msg("%s: made %.*s", schema, (int)length, text);
    json_decref(root);
    json_decref(value);
}

static void test_walks(void **state)
{
    enum { WALKS = 20 };
    uint64_t random = test_seed();
    for (int i = 0; i < CASES; i++) {
        qwen3_grammar *g;
        qwen3_matcher *m = open_matcher(*state, cases[i].schema, &g);
        for (int k = 0; k < WALKS; k++)
            walk(*state, m, cases[i].schema, &random);
        qwen3_matcher_close(m);
        qwen3_grammar_close(g);
    }
}

/* ---- Refusals ----------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    static const struct {
        const char *schema;
        qwen3_status status;
        const char *place, *word;
    } refused[] = {
        {"{\"properties\":{\"a\":{\"not\":{}}}}", QWEN3_ERR_UNSUPPORTED, "#/properties/a/not", "not supported"},
        {"{\"items\":{\"uniqueItems\":true}}", QWEN3_ERR_UNSUPPORTED, "#/items/uniqueItems", ""},
        {"{\"patternProperties\":{}}", QWEN3_ERR_UNSUPPORTED, "#/patternProperties", ""},
        {"{\"anyOf\":[{},{\"if\":{}}]}", QWEN3_ERR_UNSUPPORTED, "#/anyOf/1/if", ""},
        {"{\"type\":\"number\",\"multipleOf\":2}", QWEN3_ERR_UNSUPPORTED, "#/multipleOf", ""},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", QWEN3_ERR_UNSUPPORTED, "#/oneOf/1", "anyOf"},
        {"{\"type\":\"string\",\"format\":\"colour\"}", QWEN3_ERR_UNSUPPORTED, "#", "colour"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", QWEN3_ERR_UNSUPPORTED, "#", "pattern"},
        {"{\"type\":\"string\",\"pattern\":\"a$b\"}", QWEN3_ERR_UNSUPPORTED, "#", "anchor"},
        {"{\"type\":\"string\",\"pattern\":\"^a|b\"}", QWEN3_ERR_UNSUPPORTED, "#", "anchor"},
        {"{\"type\":\"string\",\"pattern\":\"\\\\bx\"}", QWEN3_ERR_UNSUPPORTED, "#", "escape"},
        {"{\"type\":\"string\",\"pattern\":\"[a\"}", QWEN3_ERR_FORMAT, "#", "]"},
        {"{\"type\":\"string\",\"pattern\":\"a)\"}", QWEN3_ERR_FORMAT, "#", ")"},
        {"{\"type\":\"string\",\"pattern\":\"*\"}", QWEN3_ERR_FORMAT, "#", "backslash"},
        {"{\"type\":\"string\",\"pattern\":\"a*\",\"maxLength\":3}", QWEN3_ERR_UNSUPPORTED, "#", "maxLength"},
        {"{\"type\":\"date\"}", QWEN3_ERR_FORMAT, "#", "type"},
        {"{\"type\":[]}", QWEN3_ERR_FORMAT, "#", "type"},
        {"{\"minLength\":-1}", QWEN3_ERR_FORMAT, "#", "minLength"},
        {"{\"properties\":[]}", QWEN3_ERR_FORMAT, "#", "properties"},
        {"{\"properties\":{\"x\":1}}", QWEN3_ERR_FORMAT, "#/properties/x", "schema"},
        {"{\"$ref\":\"#/nowhere\"}", QWEN3_ERR_FORMAT, "#", "nowhere"},
        {"{\"$ref\":\"http://example.org/x\"}", QWEN3_ERR_UNSUPPORTED, "#", "$ref"},
        {"{\"$ref\":\"#\"}", QWEN3_ERR_ARGUMENT, "#", "no value"},
        {"false", QWEN3_ERR_ARGUMENT, "#", "no value"},
        {"{\"enum\":[]}", QWEN3_ERR_ARGUMENT, "#", "no value"},
        {"{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", QWEN3_ERR_ARGUMENT, "#", "no value"},
        {"{\"type\":\"array\",\"minItems\":2,\"maxItems\":1}", QWEN3_ERR_ARGUMENT, "#", "no value"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", QWEN3_ERR_ARGUMENT, "#",
         ""},
        {"{\"$defs\":{\"a\":{\"$ref\":\"#/$defs/a\",\"type\":\"null\"}},\"$ref\":\"#/$defs/a\"}", QWEN3_ERR_CAPACITY,
         "", ""},
        {"{\"allOf\":[{\"$ref\":\"#\"},{\"type\":\"object\"}]}", QWEN3_ERR_CAPACITY, "", ""},
        {"{\"allOf\":[{\"additionalProperties\":false},{\"properties\":{\"a\":{}}}]}", QWEN3_ERR_UNSUPPORTED,
         "#/allOf/1", "additionalProperties"},
        {"{\"type\":\"array\",\"maxItems\":10000000}", QWEN3_ERR_CAPACITY, "#", "maxItems"},
        {"[", QWEN3_ERR_FORMAT, "", ""},
        {"[]", QWEN3_ERR_FORMAT, "#", "schema"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        qwen3_error err = {0};
        qwen3_grammar *g = (qwen3_grammar *)&err;
        const qwen3_status status = qwen3_grammar_open(refused[i].schema, strlen(refused[i].schema), &g, &err);
        assert_refused(refused[i].schema, status, refused[i].status, &err, refused[i].place, refused[i].word);
        assert_null(g);
    }
}

/* ---- Hostile schemas ---------------------------------------------------------------------------- */

static char *repeated(const char *before, const char *middle, int n, const char *after)
{
    char *text = malloc(strlen(before) + (size_t)n * strlen(middle) + (size_t)n * strlen(after) + 64), *at = text;
    assert_non_null(text);
    at += sprintf(at, "%s", before);
    for (int i = 0; i < n; i++)
        at += sprintf(at, "%s", middle);
    at += sprintf(at, "true");
    for (int i = 0; i < n; i++)
        at += sprintf(at, "%s", after);
    return text;
}

/* They are refused, or their matchers work within their limits. */
static void test_hostile(void **state)
{
    static const char *const schemas[] = {
        "{\"type\":\"string\",\"pattern\":\"^((((a?){1000}){1000}){1000}){1000}$\"}",
        "{\"type\":\"string\",\"pattern\":\"^(a|b|ab)*(a|ab){0,900}(b?){900}(a?){900}$\"}",
        "{\"type\":\"string\",\"maxLength\":1048576,\"minLength\":1048576}",
        "{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}},{\"type\":\"null\"}]}",
        "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{},\"maxItems\":1000000},\"maxItems\":1000000}",
        "{\"allOf\":[{\"anyOf\":[{\"minimum\":1},{\"minimum\":2}]},{\"type\":\"integer\"}]}",
    };
    uint64_t random = test_seed();
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        qwen3_grammar *g;
        qwen3_matcher *m = open_matcher(*state, schemas[i], &g);
        const int32_t n = qwen3_tokenizer_vocab_size(((setting *)*state)->tokenizer);
        for (int k = 0; k < 60; k++) {
            uint64_t mask[WORDS] = {0};
            if (!qwen3_matcher_mask(m, mask, n))
                break;
            assert_true(qwen3_matcher_accept(m, choose(*state, mask, n, 0, &random)));
        }
        qwen3_matcher_close(m);
        qwen3_grammar_close(g);
    }
    char *deep = repeated("", "{\"items\":", 3000, "}");
    qwen3_error err = {0};
    qwen3_grammar *g;
    assert_true(qwen3_grammar_open(deep, strlen(deep), &g, &err) != QWEN3_OK);
    free(deep);
}

/* More states than are kept: what is forgotten changes nothing. */
static void test_forgetting(void **state)
{
    qwen3_grammar *g;
    qwen3_matcher *m =
        open_matcher(*state, "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":20000}}", &g);
    assert_true(qwen3_matcher_accept_bytes(m, "[\"", 2));
    for (int i = 0; i < 20000; i++)
        assert_true(qwen3_matcher_accept_bytes(m, "a", 1));
    assert_false(qwen3_matcher_accept_bytes(m, "a", 1));
    assert_false(qwen3_matcher_complete(m));
    assert_true(qwen3_matcher_accept_bytes(m, "\"]", 2));
    assert_true(qwen3_matcher_complete(m));
    qwen3_matcher_close(m);
    qwen3_grammar_close(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_texts), cmocka_unit_test(test_walks),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_hostile),
                                       cmocka_unit_test(test_forgetting)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
