/* tokenizer_load.c - from tokenizer.json to tables. Every section is checked, and a setting that is not handled is
 * refused by name: if it were ignored, ids would be wrong without a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "io/json_file.h"
#include "io/json_reader.h"
#include "io/tokenizer_loader.h"

/* The split pattern, and the newer one of later models, in which marks are part of words. */
#define PATTERN_OF(letters, others)                                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?" letters "+|\\p{N}| ?" others                                 \
    "+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN PATTERN_OF("\\p{L}", "[^\\s\\p{L}\\p{N}]")
#define PATTERN_WITH_MARKS PATTERN_OF("[\\p{L}\\p{M}]", "[^\\s\\p{L}\\p{M}\\p{N}]")

enum section {
    VERSION,
    TRUNCATION,
    PADDING,
    ADDED,
    NORMALIZER,
    PRE_TOKENIZER,
    POST_PROCESSOR,
    DECODER,
    MODEL,
    SECTIONS
};
static const char *const section_names[SECTIONS] = {"version",        "truncation", "padding",
                                                    "added_tokens",   "normalizer", "pre_tokenizer",
                                                    "post_processor", "decoder",    "model"};

enum part { VOCAB, MERGES, SMALL_PARTS, PARTS = SMALL_PARTS + 8 };
static const char *const part_names[PARTS] = {"vocab",
                                              "merges",
                                              "type",
                                              "dropout",
                                              "unk_token",
                                              "continuing_subword_prefix",
                                              "end_of_word_suffix",
                                              "fuse_unk",
                                              "byte_fallback",
                                              "ignore_merges"};

/* ---- Small sections: compared with what is handled */

/* *value is NULL if the section is missing. */
static qwen3_status read_small(const json_reader *r, const char *where, const char *name, json_t **value,
                               qwen3_error *err)
{
    json_error_t fault;
    *value = NULL;
    if (!r->text)
        return QWEN3_OK;
    *value = json_loadb(r->at, (size_t)(r->end - r->at), JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &fault);
    if (!*value)
        return fail(err, json_fault_status(&fault), "%s: %s%s: line %d of it: %s", r->path, where, name, fault.line,
                    fault.text[0] ? fault.text : "no memory for JSON");
    return QWEN3_OK;
}

static qwen3_status refuse(const char *path, const char *what, const json_t *found, const char *expected,
                           qwen3_error *err)
{
    char *text = found ? json_dumps(found, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    qwen3_status status = fail(err, QWEN3_ERR_UNSUPPORTED, "%s: %s: got %.300s, expected %s", path, what,
                               text ? text : "nothing", expected);
    free(text);
    return status;
}

/* The value must be one of the JSON texts in `allowed`, which are separated by " or ". */
static bool is_one_of(const json_t *value, const char *allowed)
{
    while (*allowed) {
        const char *end = strstr(allowed, " or ");
        size_t length = end ? (size_t)(end - allowed) : strlen(allowed);
        json_t *candidate = json_loadb(allowed, length, JSON_DECODE_ANY, NULL);
        bool equal = candidate && json_equal(value, candidate);
        json_decref(candidate);
        if (equal)
            return true;
        allowed = end ? end + strlen(" or ") : allowed + length;
    }
    return false;
}

static qwen3_status check_small(const json_reader *r, const char *where, const char *name, const char *allowed,
                                bool required, qwen3_error *err)
{
    json_t *value;
    char what[64];
    qwen3_status status = read_small(r, where, name, &value, err);
    snprintf(what, sizeof what, "%s%s", where, name);
    if (status == QWEN3_OK && (value ? !is_one_of(value, allowed) : required))
        status = refuse(r->path, what, value, allowed, err);
    json_decref(value);
    return status;
}

/* Splitting by a pattern, then bytes. The pattern has its own message, as it differs between families. *marks: it is
 * the one with marks. */
static qwen3_status read_pre_tokenizer(const json_reader *r, bool *marks, qwen3_error *err)
{
    static const char layout[] =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"PATTERN\"},"
        "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":false,\"use_regex\":false}]}";
    json_t *value;
    qwen3_status status = read_small(r, "", section_names[PRE_TOKENIZER], &value, err);
    json_t *split = json_array_get(json_object_get(value, "pretokenizers"), 0);
    json_t *pattern = json_object_get(json_object_get(split, "pattern"), "Regex");
    *marks = json_is_string(pattern) && strcmp(json_string_value(pattern), PATTERN_WITH_MARKS) == 0;
    if (status == QWEN3_OK && pattern && !*marks &&
        (!json_is_string(pattern) || strcmp(json_string_value(pattern), PATTERN) != 0))
        status = refuse(r->path, "pre_tokenizer: split pattern", pattern, "that of the Qwen3 family, " PATTERN, err);
    if (status == QWEN3_OK && pattern)
        json_string_set(pattern, "PATTERN");
    json_t *bytes = json_array_get(json_object_get(value, "pretokenizers"), 1);
    json_object_set_new(bytes, "trim_offsets", json_false()); /* of no effect on ids */
    if (status == QWEN3_OK && !is_one_of(value, layout))
        status = refuse(r->path, "pre_tokenizer", value, layout, err);
    json_decref(value);
    return status;
}

static bool has_type(const json_t *object, const char *type)
{
    const json_t *value = json_object_get(object, "type");
    return json_is_string(value) && strcmp(json_string_value(value), type) == 0;
}

/* A decoder of type ByteLevel, whose flags have no effect. */
static qwen3_status check_decoder(const json_reader *r, qwen3_error *err)
{
    json_t *value;
    qwen3_status status = read_small(r, "", section_names[DECODER], &value, err);
    if (status == QWEN3_OK && !has_type(value, "ByteLevel"))
        status = refuse(r->path, section_names[DECODER], value, "an object of type ByteLevel", err);
    json_decref(value);
    return status;
}

/* A template of a text and one token behind it: *end gets its id. False where it is another one. */
static bool read_template(const json_t *value, int32_t *end)
{
    const json_t *single = json_object_get(value, "single");
    const json_t *text = json_object_get(json_array_get(single, 0), "Sequence");
    const json_t *name = json_object_get(json_object_get(json_array_get(single, 1), "SpecialToken"), "id");
    if (json_array_size(single) != 2 || !text || !json_is_string(name))
        return false;
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(value, "special_tokens"), json_string_value(name)), "ids");
    const json_int_t id = json_integer_value(json_array_get(ids, 0));
    *end = (int32_t)id;
    return json_array_size(ids) == 1 && json_is_integer(json_array_get(ids, 0)) && id >= 0 && id < TOKEN_IDS;
}

/* Nothing, or ByteLevel, whose flags have no effect on ids, or that and a template with a token at the end. */
static qwen3_status read_post_processor(const json_reader *r, int32_t *end, qwen3_error *err)
{
    json_t *value;
    qwen3_status status = read_small(r, "", section_names[POST_PROCESSOR], &value, err);
    const json_t *list = has_type(value, "Sequence") ? json_object_get(value, "processors") : NULL;
    bool good = !value || json_is_null(value) || has_type(value, "ByteLevel") || json_is_array(list);
    *end = NO_ID;
    for (size_t i = 0; i < json_array_size(list) && good; i++) {
        const json_t *one = json_array_get(list, i);
        good = has_type(one, "ByteLevel") ||
               (has_type(one, "TemplateProcessing") && *end == NO_ID && read_template(one, end));
    }
    if (!good && has_type(value, "TemplateProcessing"))
        good = read_template(value, end);
    if (status == QWEN3_OK && !good)
        status = refuse(r->path, section_names[POST_PROCESSOR], value,
                        "ByteLevel, and perhaps a template that puts one token at the end", err);
    json_decref(value);
    return status;
}

/* truncation and padding are not looked at: they are about batches of the program that wrote the file. */
static qwen3_status check_sections(qwen3_tokenizer *t, const json_reader *sections, const json_reader *parts,
                                   qwen3_error *err)
{
    static const char *const allowed[PARTS] = {NULL,           NULL,           "\"BPE\"", "null",  "null",
                                               "null or \"\"", "null or \"\"", "false",   "false", "false"};
    qwen3_status status = check_small(&sections[VERSION], "", "version", "\"1.0\"", false, err);
    if (status == QWEN3_OK)
        status = check_small(&sections[NORMALIZER], "", "normalizer", "{\"type\":\"NFC\"}", true, err);
    if (status == QWEN3_OK)
        status = read_pre_tokenizer(&sections[PRE_TOKENIZER], &t->marks, err);
    if (status == QWEN3_OK)
        status = read_post_processor(&sections[POST_PROCESSOR], &t->end, err);
    if (status == QWEN3_OK)
        status = check_decoder(&sections[DECODER], err);
    for (int i = SMALL_PARTS; i < PARTS && status == QWEN3_OK; i++)
        status = check_small(&parts[i], "model.", part_names[i], allowed[i], i == SMALL_PARTS, err);
    return status;
}

/* ---- Vocabulary */

static qwen3_status read_vocabulary(tokenizer_loader *l, json_reader *r, qwen3_error *err)
{
    char buffer[2 * TOKEN_LONGEST];
    if (!r->text || !json_take(r, '{'))
        return fail(err, QWEN3_ERR_FORMAT, "%s: model.vocab: expected an object of tokens and ids", l->path);
    if (json_take(r, '}'))
        return QWEN3_OK;
    do {
        const char *string;
        size_t n, n_bytes;
        int32_t id = 0;
        qwen3_status status = json_take_string(r, buffer, sizeof buffer, &string, &n, err);
        if (status)
            return status;
        if (!loader_put(l, (token_text){string, n}, &n_bytes))
            return json_expected(r, "a token of the byte-level alphabet before this place", err);
        if (!json_take(r, ':'))
            return json_expected(r, "':'", err);
        status = json_take_integer(r, &id, err);
        if (status == QWEN3_OK)
            status = loader_add(l, id, n_bytes, QWEN3_TOKEN_ORDINARY, err);
        if (status)
            return status;
    } while (json_take(r, ','));
    return json_take(r, '}') ? QWEN3_OK : json_expected(r, "',' or '}'", err);
}

/* ---- Merges */

/* "left right", as older files have it, or ["left", "right"]. guess as in loader_find_merge. */
static qwen3_status read_merge(const tokenizer_loader *l, json_reader *r, int32_t guess, triple *out, qwen3_error *err)
{
    char first_buffer[2 * TOKEN_LONGEST], second_buffer[2 * TOKEN_LONGEST];
    token_text left, right;
    *out = (triple){NO_ID, NO_ID, NO_ID};
    bool pair = json_take(r, '[');
    qwen3_status status = json_take_string(r, first_buffer, sizeof first_buffer, &left.data, &left.n, err);
    if (status)
        return status;
    if (pair) {
        if (!json_take(r, ','))
            return json_expected(r, "','", err);
        status = json_take_string(r, second_buffer, sizeof second_buffer, &right.data, &right.n, err);
        if (status)
            return status;
        if (!json_take(r, ']'))
            return json_expected(r, "']' after two tokens", err);
    } else if (!loader_split_pair(left, &left, &right)) {
        return json_expected(r, "two tokens with a space between them before this place", err);
    }
    const merge_fault fault = loader_find_merge(l, left, right, guess, out);
    if (fault == MERGE_NOT_BYTES)
        return json_expected(r, "tokens of the byte-level alphabet before this place", err);
    if (fault == MERGE_NO_TOKEN)
        return json_expected(r, "a merge of two tokens of model.vocab into a third before this place", err);
    return QWEN3_OK;
}

static qwen3_status read_merges(tokenizer_loader *l, json_reader *r, qwen3_error *err)
{
    triple *merges = NULL;
    size_t n = 0, room = 0;
    qwen3_status status = QWEN3_OK;
    if (!r->text || !json_take(r, '['))
        return fail(err, QWEN3_ERR_FORMAT, "%s: model.merges: expected an array", l->path);
    bool more = !json_take(r, ']');
    while (more && status == QWEN3_OK) {
        if (n == room) {
            room = room ? 2 * room : l->t->n_tokens;
            triple *larger = realloc(merges, room * sizeof *merges);
            if (!larger) {
                status = fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %zu merges", l->path, room);
                break;
            }
            merges = larger;
        }
        status = read_merge(l, r, n > 0 ? merges[n - 1].id + 1 : 0, &merges[n], err);
        n++;
        more = json_take(r, ',');
        if (!more && status == QWEN3_OK && !json_take(r, ']'))
            status = json_expected(r, "',' or ']'", err);
    }
    if (status == QWEN3_OK)
        status = loader_add_merges(l, merges, n, err);
    free(merges);
    return status;
}

/* ---- Added tokens */

/* Conditions of the token on the text around it, none of which is handled. */
static qwen3_status check_flags(const tokenizer_loader *l, const json_t *entry, const char *content, qwen3_error *err)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!json_is_false(json_object_get(entry, flags[i])))
            return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: added token %.100s: %s is not false", l->path, content,
                        flags[i]);
    return QWEN3_OK;
}

static qwen3_status read_added(tokenizer_loader *l, const json_t *entry, size_t index, qwen3_error *err)
{
    const json_t *id_value = json_object_get(entry, "id"), *content_value = json_object_get(entry, "content");
    const json_t *special = json_object_get(entry, "special");
    json_int_t id = json_is_integer(id_value) ? json_integer_value(id_value) : -1;
    if (id < 0 || id >= TOKEN_IDS || !json_is_string(content_value) || !json_is_boolean(special))
        return fail(err, QWEN3_ERR_FORMAT,
                    "%s: added_tokens[%zu]: expected an id from 0 to %d, a content and special true or false", l->path,
                    index, TOKEN_IDS - 1);
    const char *content = json_string_value(content_value);
    size_t n = json_string_length(content_value);
    qwen3_status status = check_flags(l, entry, content, err);
    if (status)
        return status;
    qwen3_token_kind kind = json_is_true(special) ? QWEN3_TOKEN_SPECIAL : QWEN3_TOKEN_ADDED;
    return loader_add_added(l, (int32_t)id, (token_text){content, n}, kind, err);
}

static qwen3_status read_all_added(tokenizer_loader *l, const json_t *list, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < json_array_size(list) && status == QWEN3_OK; i++)
        status = read_added(l, json_array_get(list, i), i, err);
    return status ? status : loader_end_added(l, err);
}

/* The sections in the order in which they need each other. */
static qwen3_status read_tables(tokenizer_loader *l, json_reader *sections, json_reader *parts, qwen3_error *err)
{
    json_t *added;
    qwen3_status status = read_small(&sections[ADDED], "", section_names[ADDED], &added, err);
    if (status == QWEN3_OK && added && !json_is_array(added))
        status = fail(err, QWEN3_ERR_FORMAT, "%s: added_tokens: expected an array", l->path);
    /* No token has more bytes than its text in the file. */
    size_t room = (size_t)(parts[VOCAB].end - parts[VOCAB].at) + (size_t)(sections[ADDED].end - sections[ADDED].at);
    if (status == QWEN3_OK)
        status = loader_reserve(l, room, json_array_size(added), err);
    if (status == QWEN3_OK)
        status = read_vocabulary(l, &parts[VOCAB], err);
    if (status == QWEN3_OK)
        status = loader_end_vocabulary(l, err);
    if (status == QWEN3_OK)
        status = read_merges(l, &parts[MERGES], err);
    if (status == QWEN3_OK)
        status = read_all_added(l, added, err);
    json_decref(added);
    return status;
}

qwen3_status tokenizer_load(qwen3_tokenizer *t, const char *path, const char *text, size_t bytes, qwen3_error *err)
{
    tokenizer_loader l = {
        .t = t, .path = path, .vocabulary = "model.vocab", .merges = "model.merges", .added = "added_tokens"};
    json_reader r = {path, text, text, text + bytes}, sections[SECTIONS], parts[PARTS];
    const json_members model = {"model.", part_names, PARTS, parts, NULL, 0};
    const json_members whole = {"", section_names, SECTIONS, sections, &model, MODEL};
    qwen3_status status = json_take_members(&r, &whole, err);
    if (status)
        return status;
    if (!json_at_end(&r))
        return json_expected(&r, "the end of the file", err);
    if (!sections[MODEL].text)
        return fail(err, QWEN3_ERR_FORMAT, "%s: model: is missing", path);
    status = check_sections(t, sections, parts, err);
    if (status == QWEN3_OK)
        status = read_tables(&l, sections, parts, err);
    if (status == QWEN3_OK && t->end != NO_ID && qwen3_tokenizer_kind(t, t->end) == QWEN3_TOKEN_NONE)
        status = fail(err, QWEN3_ERR_FORMAT, "%s: post_processor: no token has the id %d", path, (int)t->end);
    return status;
}
