/* tokenizer_load.c - from tokenizer.json to tables. Every section is checked, and a setting that is not handled is
 * refused by name: if it were ignored, ids would be wrong without a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "io/json_file.h"
#include "io/json_reader.h"
#include "io/tokenizer.h"

/* The split pattern, and the newer one of later models, in which marks are part of words. */
#define PATTERN_OF(letters, others)                                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?" letters "+|\\p{N}| ?" others                                 \
    "+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define PATTERN PATTERN_OF("\\p{L}", "[^\\s\\p{L}\\p{N}]")
#define PATTERN_WITH_MARKS PATTERN_OF("[\\p{L}\\p{M}]", "[^\\s\\p{L}\\p{M}\\p{N}]")

/* The alphabet of byte-level vocabularies: a byte that is a printable character of Latin-1 is written as itself, the
 * others, in order, as U+0100 and following. */
enum { ALPHABET_END = 0x144 };

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

typedef struct loader {
    qwen3_tokenizer *t;
    const char *path;
    int16_t byte_of[ALPHABET_END]; /* -1: not in the alphabet */
    size_t used;                   /* of t->bytes */
    size_t room;                   /* of t->tokens */
} loader;

/* A merge as read; its rank is its index. */
typedef struct triple {
    int32_t left, right, id;
} triple;

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

static void set_alphabet(int16_t *byte_of)
{
    int16_t other = 0x100;
    memset(byte_of, 0xFF, ALPHABET_END * sizeof *byte_of);
    for (int16_t b = 0; b < 256; b++) {
        bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        byte_of[itself ? b : other++] = b;
    }
}

/* Characters of the alphabet to bytes; out has room for n. False if another character is among them. */
static bool to_bytes(const loader *l, const char *string, size_t n, unsigned char *out, size_t *n_out)
{
    const unsigned char *text = (const unsigned char *)string;
    size_t length;
    *n_out = 0;
    for (size_t at = 0; at < n; at += length) {
        int32_t c = utf8_decode(text + at, n - at, &length);
        if (c < 0 || c >= ALPHABET_END || l->byte_of[c] < 0)
            return false;
        out[(*n_out)++] = (unsigned char)l->byte_of[c];
    }
    return true;
}

/* The entry of an id, which may be new; NULL if there is no memory. */
static token *token_entry(loader *l, int32_t id)
{
    qwen3_tokenizer *t = l->t;
    size_t needed = (size_t)id + 1;
    if (needed > l->room) {
        size_t room = needed > 2 * l->room ? needed : 2 * l->room;
        token *tokens = realloc(t->tokens, room * sizeof *tokens);
        if (!tokens)
            return NULL;
        memset(tokens + l->room, 0, (room - l->room) * sizeof *tokens);
        t->tokens = tokens;
        l->room = room;
    }
    if (needed > t->n_tokens)
        t->n_tokens = needed;
    return &t->tokens[id];
}

/* Makes the n bytes at t->bytes + l->used the token `id`. */
static qwen3_status add_token(loader *l, int32_t id, size_t n, qwen3_token_kind kind, qwen3_error *err)
{
    if (id >= TOKEN_IDS)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: token id %d, expected at most %d", l->path, (int)id,
                    TOKEN_IDS - 1);
    if (n == 0 || n > TOKEN_LONGEST)
        return fail(err, QWEN3_ERR_FORMAT, "%s: the token of id %d has %zu bytes, expected 1 to %d", l->path, (int)id,
                    n, TOKEN_LONGEST);
    token *entry = token_entry(l, id);
    if (!entry)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate the table of tokens", l->path);
    if (entry->kind != QWEN3_TOKEN_NONE)
        return fail(err, QWEN3_ERR_FORMAT, "%s: two tokens have the id %d", l->path, (int)id);
    *entry = (token){(uint32_t)l->used, (uint32_t)n, kind};
    l->used += n;
    if (n > l->t->longest)
        l->t->longest = n;
    return QWEN3_OK;
}

static qwen3_status read_vocabulary(loader *l, json_reader *r, qwen3_error *err)
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
        if (!to_bytes(l, string, n, l->t->bytes + l->used, &n_bytes))
            return json_expected(r, "a token of the byte-level alphabet before this place", err);
        if (!json_take(r, ':'))
            return json_expected(r, "':'", err);
        status = json_take_integer(r, &id, err);
        if (status == QWEN3_OK)
            status = add_token(l, id, n_bytes, QWEN3_TOKEN_ORDINARY, err);
        if (status)
            return status;
    } while (json_take(r, ','));
    return json_take(r, '}') ? QWEN3_OK : json_expected(r, "',' or '}'", err);
}

/* Every byte must have a token, so that any text can be encoded. */
static qwen3_status find_bytes(loader *l, qwen3_error *err)
{
    for (int b = 0; b < 256; b++) {
        unsigned char byte = (unsigned char)b;
        l->t->byte_ids[b] = vocabulary_find(l->t, &byte, 1);
        if (l->t->byte_ids[b] == NO_ID)
            return fail(err, QWEN3_ERR_FORMAT, "%s: model.vocab: no token for the byte 0x%02X", l->path, b);
    }
    return QWEN3_OK;
}

/* ---- Merges */

/* "left right", as older files have it, or ["left", "right"]. left and right [TOKEN_LONGEST] get the bytes. */
static qwen3_status read_pair(const loader *l, json_reader *r, unsigned char *left, size_t *n_left,
                              unsigned char *right, size_t *n_right, qwen3_error *err)
{
    char first_buffer[2 * TOKEN_LONGEST], second_buffer[2 * TOKEN_LONGEST];
    const char *first, *second;
    size_t n_first, n_second;
    bool pair = json_take(r, '[');
    qwen3_status status = json_take_string(r, first_buffer, sizeof first_buffer, &first, &n_first, err);
    if (status)
        return status;
    if (pair) {
        if (!json_take(r, ','))
            return json_expected(r, "','", err);
        status = json_take_string(r, second_buffer, sizeof second_buffer, &second, &n_second, err);
        if (status)
            return status;
        if (!json_take(r, ']'))
            return json_expected(r, "']' after two tokens", err);
    } else {
        const char *space = memchr(first, ' ', n_first);
        if (!space)
            return json_expected(r, "two tokens with a space between them before this place", err);
        second = space + 1;
        n_second = n_first - (size_t)(second - first);
        n_first = (size_t)(space - first);
    }
    if (n_first > TOKEN_LONGEST || n_second > TOKEN_LONGEST || !to_bytes(l, first, n_first, left, n_left) ||
        !to_bytes(l, second, n_second, right, n_right))
        return json_expected(r, "tokens of the byte-level alphabet before this place", err);
    return QWEN3_OK;
}

/* The token of these bytes. Training gives ids in the order of merges, so the guess is mostly right. Checking it is
 * cheaper than a look-up. */
static int32_t find_merged(const qwen3_tokenizer *t, int32_t guess, const unsigned char *bytes, size_t n)
{
    const token *entry = (size_t)guess < t->n_tokens ? &t->tokens[guess] : NULL;
    bool right =
        entry && entry->kind != QWEN3_TOKEN_NONE && entry->bytes == n && memcmp(t->bytes + entry->begin, bytes, n) == 0;
    return right ? guess : vocabulary_find(t, bytes, n);
}

/* guess: the id that the merge probably makes; any id that is not negative is allowed. */
static qwen3_status read_merge(const loader *l, json_reader *r, int32_t guess, triple *out, qwen3_error *err)
{
    unsigned char bytes[2 * TOKEN_LONGEST], right[TOKEN_LONGEST];
    size_t n_left = 0, n_right = 0;
    qwen3_status status = read_pair(l, r, bytes, &n_left, right, &n_right, err);
    if (status)
        return status;
    memcpy(bytes + n_left, right, n_right);
    out->left = vocabulary_find(l->t, bytes, n_left);
    out->right = vocabulary_find(l->t, right, n_right);
    out->id = find_merged(l->t, guess, bytes, n_left + n_right);
    if (out->left == NO_ID || out->right == NO_ID || out->id == NO_ID)
        return json_expected(r, "a merge of two tokens of model.vocab into a third before this place", err);
    return QWEN3_OK;
}

/* No merge may use a token that a later one makes: tokenizer_merge.c visits ranks once, in ascending order. Trained
 * merges are like that. */
static qwen3_status check_order(const loader *l, const triple *merges, size_t n, qwen3_error *err)
{
    int32_t *maker = malloc((l->t->n_tokens + 1) * sizeof *maker); /* the last merge that makes the token */
    if (!maker)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate the table of merges", l->path);
    memset(maker, 0xFF, l->t->n_tokens * sizeof *maker);
    for (size_t i = 0; i < n; i++)
        maker[merges[i].id] = (int32_t)i;
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < n && status == QWEN3_OK; i++) {
        int32_t last = maker[merges[i].left] > maker[merges[i].right] ? maker[merges[i].left] : maker[merges[i].right];
        if (last >= (int32_t)i)
            status = fail(err, QWEN3_ERR_UNSUPPORTED,
                          "%s: model.merges: merge %zu uses what merge %d makes, expected them in the order of use",
                          l->path, i, (int)last);
    }
    free(maker);
    return status;
}

static qwen3_status insert_merges(loader *l, const triple *merges, size_t n, qwen3_error *err)
{
    qwen3_status status = check_order(l, merges, n, err);
    if (status == QWEN3_OK)
        status = merges_reserve(l->t, n, err);
    for (size_t i = 0; i < n && status == QWEN3_OK; i++)
        if (!merges_insert(l->t, (merge){merges[i].left, merges[i].right, (int32_t)i, merges[i].id}))
            status = fail(err, QWEN3_ERR_FORMAT, "%s: model.merges: merge %zu is there twice", l->path, i);
    l->t->n_merges = n;
    return status;
}

static qwen3_status read_merges(loader *l, json_reader *r, qwen3_error *err)
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
        status = insert_merges(l, merges, n, err);
    free(merges);
    return status;
}

/* ---- Added tokens */

/* Conditions of the token on the text around it, none of which is handled. */
static qwen3_status check_flags(const loader *l, const json_t *entry, const char *content, qwen3_error *err)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (!json_is_false(json_object_get(entry, flags[i])))
            return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: added token %.100s: %s is not false", l->path, content,
                        flags[i]);
    return QWEN3_OK;
}

static qwen3_status read_added(loader *l, const json_t *entry, size_t index, qwen3_error *err)
{
    qwen3_tokenizer *t = l->t;
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
    token *known = (size_t)id < t->n_tokens ? &t->tokens[id] : NULL;
    if (known && known->kind == QWEN3_TOKEN_ORDINARY && known->bytes == n &&
        memcmp(t->bytes + known->begin, content, n) == 0) {
        known->kind = kind;
    } else {
        memcpy(t->bytes + l->used, content, n);
        status = add_token(l, (int32_t)id, n, kind, err);
    }
    t->added[t->n_added++] = (int32_t)id;
    return status;
}

static qwen3_status read_all_added(loader *l, const json_reader *r, qwen3_error *err)
{
    json_t *list;
    qwen3_status status = read_small(r, "", section_names[ADDED], &list, err);
    if (status == QWEN3_OK && list && !json_is_array(list))
        status = fail(err, QWEN3_ERR_FORMAT, "%s: added_tokens: expected an array", l->path);
    size_t n = json_array_size(list);
    if (status == QWEN3_OK && n && !(l->t->added = malloc(n * sizeof *l->t->added)))
        status = fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %zu added tokens", l->path, n);
    for (size_t i = 0; i < n && status == QWEN3_OK; i++)
        status = read_added(l, json_array_get(list, i), i, err);
    json_decref(list);
    if (status)
        return status;
    added_sort(l->t);
    for (size_t i = 1; i < n; i++) {
        const token *a = &l->t->tokens[l->t->added[i - 1]], *b = &l->t->tokens[l->t->added[i]];
        if (a->bytes == b->bytes && memcmp(l->t->bytes + a->begin, l->t->bytes + b->begin, a->bytes) == 0)
            return fail(err, QWEN3_ERR_FORMAT, "%s: added_tokens: ids %d and %d are the same token", l->path,
                        (int)l->t->added[i - 1], (int)l->t->added[i]);
    }
    return QWEN3_OK;
}

qwen3_status tokenizer_load(qwen3_tokenizer *t, const char *path, const char *text, size_t bytes, qwen3_error *err)
{
    loader l = {.t = t, .path = path};
    json_reader r = {path, text, text, text + bytes}, sections[SECTIONS], parts[PARTS];
    const json_members model = {"model.", part_names, PARTS, parts, NULL, 0};
    const json_members whole = {"", section_names, SECTIONS, sections, &model, MODEL};
    set_alphabet(l.byte_of);
    qwen3_status status = json_take_members(&r, &whole, err);
    if (status)
        return status;
    if (!json_at_end(&r))
        return json_expected(&r, "the end of the file", err);
    if (!sections[MODEL].text)
        return fail(err, QWEN3_ERR_FORMAT, "%s: model: is missing", path);
    status = check_sections(t, sections, parts, err);
    if (status)
        return status;
    /* No token has more bytes than its text in the file. */
    size_t room = (size_t)(parts[VOCAB].end - parts[VOCAB].at) + (size_t)(sections[ADDED].end - sections[ADDED].at);
    t->bytes = malloc(room + 1);
    if (!t->bytes)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %zu bytes", path, room);
    status = read_vocabulary(&l, &parts[VOCAB], err);
    if (status == QWEN3_OK)
        status = vocabulary_build(t, path, err);
    if (status == QWEN3_OK)
        status = find_bytes(&l, err);
    if (status == QWEN3_OK)
        status = read_merges(&l, &parts[MERGES], err);
    if (status == QWEN3_OK)
        status = read_all_added(&l, &sections[ADDED], err);
    if (status == QWEN3_OK && t->end != NO_ID && qwen3_tokenizer_kind(t, t->end) == QWEN3_TOKEN_NONE)
        status = fail(err, QWEN3_ERR_FORMAT, "%s: post_processor: no token has the id %d", path, (int)t->end);
    return status;
}
