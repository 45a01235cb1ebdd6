/* test_tokenizer.c - the steps of the tokenizer against slow and obvious versions of them, on random text that
 * is biased to the edges; whole texts; refused files. */
#include "support/temp_files.h"
#include "support/tiny_tokenizer.h"

#include <utf8proc.h>

#include "io/nfc.h"
#include "io/tokenizer.h"

/* Characters at which rules differ: contractions, long s, Kelvin sign, marks of several classes, digits, spaces
 * and line breaks of several kinds, zero width, emoji with joiner, jamo, unassigned and private ones. */
static const int32_t odd_points[] = {
    '\'',    '\'',    's',     'S',     't',      'r',     'e',     'v',     'E',    'm',    'l',    'l',
    'L',     'd',     ' ',     ' ',     ' ',      '\n',    '\r',    '\t',    '\v',   '\0',   0x1C,   '0',
    '9',     '-',     '!',     'a',     0x7F,     0x85,    0xA0,    0xAD,    0xB2,   0xE9,   0x17F,  0x212A,
    0x300,   0x301,   0x323,   0x327,   0x345,    0x5B0,   0x661,   0x915,   0x93C,  0x958,  0x1100, 0x1161,
    0x11A8,  0xAC00,  0x1E69,  0x200B,  0x200D,   0x2028,  0x3000,  0x304B,  0x3099, 0x4E16, 0xFEFF, 0xFFFD,
    0x1D15F, 0x1F3F3, 0xE0001, 0xF0000, 0x10FFFF, 0x2F800, 0x1112E, 0x11127,
};

/* Random text of odd characters, with repeats; returns its bytes. */
static size_t random_text(uint64_t *random, unsigned char *out, size_t room)
{
    enum { POINTS = sizeof odd_points / sizeof *odd_points };
    size_t n = 0, wanted = test_random(random) % (room - 4);
    while (n < wanted) {
        int32_t c = odd_points[test_random(random) % POINTS];
        size_t repeats = test_random(random) % 8 == 0 ? test_random(random) % 20 : 1;
        while (repeats-- > 0 && n < wanted)
            n += utf8_encode(c, out + n);
    }
    return n;
}

static void open_tiny(const temp_dir *dir, qwen3_tokenizer **t)
{
    qwen3_error err = {0};
    json_t *json = tiny_tokenizer();
    assert_non_null(json);
    write_json(temp_join(dir, "tokenizer.json").text, json);
    json_decref(json);
    if (qwen3_tokenizer_open(dir->path, t, &err))
        fail_msg("%s", err.message);
}

/* ---- UTF-8 */

static void test_utf8(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        /* Unicode 15, section 3.9, tables 3-8 to 3-11: a mark for each maximal subpart */
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},
        {"a\xF0\x9F\x8F", "a?"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text_buffer out = {0};
        qwen3_error err = {0};
        assert_int_equal(
            utf8_append_valid(&out, (const unsigned char *)cases[i].text, strlen(cases[i].text), NULL, &err), QWEN3_OK);
        unsigned char expected[64];
        size_t n = 0;
        for (const char *p = cases[i].expected; *p; p++)
            n += utf8_encode(*p == '?' ? UTF8_REPLACEMENT : (unsigned char)*p, expected + n);
        assert_int_equal(out.n, n);
        assert_memory_equal(out.data, expected, out.n);
        text_buffer_free(&out);
    }
    for (int32_t c = 0; c <= 0x10FFFF; c++) {
        unsigned char bytes[4];
        size_t length;
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        size_t n = utf8_encode(c, bytes);
        assert_int_equal(utf8_decode(bytes, n, &length), c);
        assert_int_equal(length, n);
        if (n > 1)
            assert_int_equal(utf8_decode(bytes, n - 1, &length), UTF8_TRUNCATED);
    }
}

/* ---- Form C */

static void assert_form_c(nfc_work *work, const unsigned char *text, size_t n)
{
    const unsigned char *out;
    unsigned char *expected = NULL;
    size_t n_out;
    qwen3_error err = {0};
    assert_int_equal(nfc_normalise(work, text, n, &out, &n_out, &err), QWEN3_OK);
    utf8proc_ssize_t n_expected =
        utf8proc_map(text, (utf8proc_ssize_t)n, &expected, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    assert_true(n_expected >= 0);
    assert_int_equal(n_out, n_expected);
    assert_memory_equal(out, expected, n_out);
    free(expected);
}

static void test_form_c(void **state)
{
    enum { ROOM = 400 };
    (void)state;
    uint64_t random = test_seed();
    nfc_work work = {0};
    unsigned char text[ROOM];
    for (int i = 0; i < 20000; i++)
        assert_form_c(&work, text, random_text(&random, text, i % 2 ? ROOM : 16));
    /* every character, alone and between two that combine with much */
    for (int32_t c = 1; c <= 0x10FFFF; c++) {
        size_t n = utf8_encode('e', text);
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        n += utf8_encode(c, text + n);
        assert_form_c(&work, text + 1, n - 1);
        n += utf8_encode(0x301, text + n);
        assert_form_c(&work, text, n);
    }
    nfc_work_free(&work);
}

/* ---- The split pattern */

typedef enum kind { OTHER, LETTER, NUMBER, SPACE } kind;

static kind kind_of(int32_t c)
{
    static const int32_t spaces[] = {9,      10,     11,     12,     13,     32,     0x85,   0xA0,   0x1680,
                                     0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                     0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (c == spaces[i])
            return SPACE;
    const char *category = utf8proc_category_string(c);
    return category[0] == 'L' ? LETTER : category[0] == 'N' ? NUMBER : OTHER;
}

static bool is_break(int32_t c)
{
    return c == '\n' || c == '\r';
}

static bool is_mark(int32_t c)
{
    return utf8proc_category_string(c)[0] == 'M';
}

/* Length of the first match of the pattern in c [n]; each alternative as it is written, with all the ways that
 * a backtracking engine tries, the greediest first. marks: of the newer pattern, [\p{L}\p{M}]+ and
 * [^\s\p{L}\p{M}\p{N}]+. */
static size_t slow_match(const int32_t *c, size_t n, bool marks)
{
    static const char *const contractions[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    for (size_t i = 0; i < 7; i++) {
        size_t length = strlen(contractions[i]);
        bool same = n > length && c[0] == '\'';
        for (size_t j = 0; j < length && same; j++) {
            int32_t folded = c[j + 1] == 0x17F ? 's' : c[j + 1] >= 'A' && c[j + 1] <= 'Z' ? c[j + 1] + 32 : c[j + 1];
            same = folded == contractions[i][j];
        }
        if (same)
            return 1 + length;
    }
    for (size_t optional = 2; optional-- > 0;) { /* [^\r\n\p{L}\p{N}]?\p{L}+ */
        if (optional && (is_break(c[0]) || kind_of(c[0]) == LETTER || kind_of(c[0]) == NUMBER))
            continue;
        size_t at = optional;
        while (at < n && (kind_of(c[at]) == LETTER || (marks && is_mark(c[at]))))
            at++;
        if (at > optional)
            return at;
    }
    if (kind_of(c[0]) == NUMBER)
        return 1;
    for (size_t optional = 2; optional-- > 0;) { /*  ?[^\s\p{L}\p{N}]+[\r\n]* */
        if (optional && c[0] != ' ')
            continue;
        size_t at = optional;
        while (at < n && kind_of(c[at]) == OTHER && !(marks && is_mark(c[at])))
            at++;
        if (at == optional)
            continue;
        while (at < n && is_break(c[at]))
            at++;
        return at;
    }
    size_t spaces = 0;
    while (spaces < n && kind_of(c[spaces]) == SPACE)
        spaces++;
    for (size_t before = spaces + 1; before-- > 0;) { /* \s*[\r\n]+ */
        size_t at = before;
        while (at < n && is_break(c[at]))
            at++;
        if (at > before)
            return at;
    }
    for (size_t at = spaces; at > 0; at--) /* \s+(?!\S) */
        if (at == n || kind_of(c[at]) == SPACE)
            return at;
    return spaces; /* \s+ */
}

static void test_split(void **state)
{
    enum { ROOM = 200 };
    (void)state;
    uint64_t random = test_seed();
    unsigned char text[ROOM];
    int32_t points[ROOM];
    size_t begins[ROOM + 1], length;
    for (int i = 0; i < 50000; i++) {
        size_t bytes = random_text(&random, text, i % 2 ? ROOM : 12), n = 0;
        for (size_t at = 0; at < bytes; at += length) {
            begins[n] = at;
            points[n++] = utf8_decode(text + at, bytes - at, &length);
        }
        begins[n] = bytes;
        for (size_t at = 0, match; at < n; at += match) {
            bool marks = i / 2 % 2;
            match = slow_match(points + at, n - at, marks);
            assert_true(match > 0);
            assert_int_equal(split_piece(text + begins[at], bytes - begins[at], marks),
                             begins[at + match] - begins[at]);
        }
    }
}

/* ---- Merges */

/* The lowest rank first, the leftmost of it first. */
static size_t slow_merge(const qwen3_tokenizer *t, const unsigned char *piece, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = t->byte_ids[piece[i]];
    for (;;) {
        const merge *best = NULL;
        size_t place = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const merge *m = merges_find(t, ids[i], ids[i + 1]);
            if (m && (!best || m->rank < best->rank)) {
                best = m;
                place = i;
            }
        }
        if (!best)
            return n;
        ids[place] = best->id;
        memmove(ids + place + 1, ids + place + 2, (n - place - 2) * sizeof *ids);
        n--;
    }
}

static void test_merges(void **state)
{
    enum { ROOM = 400, LONG_ROOM = 20000 };
    static const char alphabet[] = "aaaaabbbab-- thereings'";
    qwen3_tokenizer *t;
    qwen3_error err = {0};
    open_tiny(*state, &t);
    merge_work work = {0};
    uint64_t random = test_seed();
    unsigned char *piece = malloc(LONG_ROOM);
    int32_t *ids = malloc(LONG_ROOM * sizeof *ids), *expected = malloc(LONG_ROOM * sizeof *expected);
    for (int i = 0; i < 3006; i++) {
        /* a few longer than the blocks in which very long pieces are encoded */
        size_t n = i < 3000 ? 1 + test_random(&random) % ROOM : 8000 + test_random(&random) % 12000, n_ids;
        size_t letters = i % 3 == 0 ? 1 + (size_t)i % 2 * 6 : i % 3 == 1 ? 10 : sizeof alphabet - 1;
        for (size_t j = 0; j < n; j++)
            piece[j] = (unsigned char)alphabet[test_random(&random) % letters];
        assert_int_equal(merge_piece(t, &work, piece, n, ids, &n_ids, &err), QWEN3_OK);
        assert_int_equal(n_ids, slow_merge(t, piece, n, expected));
        assert_memory_equal(ids, expected, n_ids * sizeof *ids);
    }
    free(piece);
    free(ids);
    free(expected);
    merge_work_free(&work);
    qwen3_tokenizer_close(t);
}

/* ---- Whole texts */

static void expect_ids(const qwen3_tokenizer *t, const char *text, const qwen3_text_range *plain, size_t n_plain,
                       const char *expected)
{
    int32_t *ids;
    size_t n, used = 0;
    char got[512] = "";
    qwen3_error err = {0};
    if (qwen3_tokenizer_encode(t, &(qwen3_encode_args){text, strlen(text), plain, n_plain}, &ids, &n, &err))
        fail_msg("%s: %s", text, err.message);
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *bytes = qwen3_tokenizer_token(t, ids[i], &length);
        bool added = qwen3_tokenizer_kind(t, ids[i]) != QWEN3_TOKEN_ORDINARY;
        used += (size_t)snprintf(got + used, sizeof got - used, added ? "[%.*s]|" : "%.*s|", (int)length, bytes);
    }
    free(ids);
    assert_string_equal(got, expected);
}

static void test_encode(void **state)
{
    static const struct {
        const char *text;
        qwen3_text_range plain[2];
        size_t n_plain;
        const char *expected;
    } cases[] = {
        {"", {{0}}, 0, ""},
        {" there the re", {{0}}, 0, " there| the| |re|"},
        {"aaaaaaa", {{0}}, 0, "aaaa|aaa|"},
        {"it's", {{0}}, 0, "i|t|'s|"},
        /* the longest added token, and what is left where it does not fit */
        {"a<|end|><|end|<think><", {{0}}, 0, "a|[<|end|>]|[<|end]|||[<think>]|<|"},
        {"<|end|>", {{0, 7}}, 1, "<|||e|n|d|||>|"},
        {"<|end|>", {{3, 3}}, 1, "<|||e|n|d|||>|"},
        {"<|end|>", {{2, 4}}, 1, "<|||e|n|d|||>|"},
        {"<|end|>  <|end|><|end|>", {{0, 7}, {9, 16}}, 2, "<|||e|n|d|||>| | |<|||e|n|d|||>|[<|end|>]|"},
        /* ranges do not cut text, added tokens do */
        {"aaaaaaaa", {{2, 4}}, 1, "aaaa|aaaa|"},
        {"aa<think>aa", {{0}}, 0, "aa|[<think>]|aa|"},
        /* white space at the end of a stretch is one piece */
        {"  <think>  a", {{0}}, 0, "  |[<think>]| | |a|"},
    };
    qwen3_tokenizer *t;
    int32_t *ids;
    size_t n;
    open_tiny(*state, &t);
    assert_int_equal(qwen3_tokenizer_encode(t, &(qwen3_encode_args){0}, &ids, &n, NULL), QWEN3_OK);
    assert_int_equal(n, 0);
    assert_non_null(ids);
    free(ids);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_ids(t, cases[i].text, cases[i].plain, cases[i].n_plain, cases[i].expected);
    qwen3_tokenizer_close(t);
}

static void test_tokens(void **state)
{
    static const struct {
        const char *token;
        int32_t id;
        qwen3_token_kind kind;
    } cases[] = {
        {"<|end|>", TINY_TOKENS, QWEN3_TOKEN_SPECIAL},
        {"<|end", TINY_TOKENS + 1, QWEN3_TOKEN_ADDED},
        {" the", 258, QWEN3_TOKEN_ORDINARY},
        {"<|en", NO_ID, QWEN3_TOKEN_NONE},
        {"", NO_ID, QWEN3_TOKEN_NONE},
    };
    qwen3_tokenizer *t;
    open_tiny(*state, &t);
    assert_int_equal(qwen3_tokenizer_vocab_size(t), TINY_TOKENS + TINY_ADDED);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(qwen3_tokenizer_find(t, cases[i].token, strlen(cases[i].token)), cases[i].id);
        assert_int_equal(qwen3_tokenizer_kind(t, cases[i].id), cases[i].kind);
    }
    assert_int_equal(qwen3_tokenizer_kind(t, TINY_TOKENS + TINY_ADDED), QWEN3_TOKEN_NONE);
    assert_null(qwen3_tokenizer_token(t, INT32_MAX, NULL));
    qwen3_tokenizer_close(t);
}

static void test_bad_arguments(void **state)
{
    static const struct {
        const char *what;
        size_t bytes; /* of "abcd" */
        qwen3_text_range plain[2];
        size_t n_plain;
        const char *word, *word2;
    } cases[] = {
        {"reversed", 4, {{3, 2}}, 1, "range 0", "[3, 2)"},
        {"beyond", 4, {{0, 5}}, 1, "range 0", "4 bytes"},
        {"overlap", 4, {{0, 2}, {1, 3}}, 2, "range 1", "[1, 3)"},
        {"too long", SIZE_MAX, {{0}}, 0, "text", "at most 536870912"},
    };
    static const int32_t ids[] = {'a', TINY_TOKENS + TINY_ADDED}, negative[] = {-1};
    qwen3_tokenizer *t;
    qwen3_text_stream *stream;
    qwen3_error err = {0};
    int32_t *out;
    char *text;
    const char *part;
    size_t n;
    open_tiny(*state, &t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const qwen3_encode_args args = {"abcd", cases[i].bytes, cases[i].plain, cases[i].n_plain};
        qwen3_status status = qwen3_tokenizer_encode(t, &args, &out, &n, &err);
        assert_refused(cases[i].what, status, QWEN3_ERR_ARGUMENT, &err, cases[i].word, cases[i].word2);
        assert_null(out);
    }
    assert_refused("unknown id", qwen3_tokenizer_decode(t, ids, 2, false, &text, &n, &err), QWEN3_ERR_ARGUMENT, &err,
                   "token id 280", "index 1");
    assert_null(text);
    assert_refused("negative id", qwen3_tokenizer_decode(t, negative, 1, false, &text, &n, &err), QWEN3_ERR_ARGUMENT,
                   &err, "token id -1", "index 0");
    assert_int_equal(qwen3_text_stream_open(t, false, &stream, &err), QWEN3_OK);
    assert_refused("unknown id in a stream", qwen3_text_stream_push(stream, 280, &part, &n, &err), QWEN3_ERR_ARGUMENT,
                   &err, "token id 280", "0 to 279");
    qwen3_text_stream_close(stream);
    qwen3_tokenizer_close(t);
}

/* decode(encode(x)) is form C of x, whole and token by token. */
static void test_round_trip(void **state)
{
    enum { ROOM = 300 };
    qwen3_tokenizer *t;
    qwen3_text_stream *stream;
    qwen3_error err = {0};
    open_tiny(*state, &t);
    assert_int_equal(qwen3_text_stream_open(t, false, &stream, &err), QWEN3_OK);
    uint64_t random = test_seed();
    for (int i = 0; i < 5000; i++) {
        unsigned char text[ROOM], parts[3 * ROOM];
        size_t bytes = random_text(&random, text, ROOM), n, n_decoded, n_parts = 0, length;
        if (i % 2) /* damaged */
            for (size_t j = test_random(&random) % 8; j > 0 && bytes; j--)
                text[test_random(&random) % bytes] = (unsigned char)test_random(&random);
        text_buffer valid = {0};
        assert_int_equal(utf8_append_valid(&valid, text, bytes, NULL, &err), QWEN3_OK);
        unsigned char *expected = NULL;
        utf8proc_ssize_t n_expected =
            utf8proc_map(valid.data, (utf8proc_ssize_t)valid.n, &expected, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        int32_t *ids;
        char *decoded;
        const char *part;
        const qwen3_encode_args args = {.text = (const char *)text, .length = bytes};
        assert_int_equal(qwen3_tokenizer_encode(t, &args, &ids, &n, &err), QWEN3_OK);
        assert_int_equal(qwen3_tokenizer_decode(t, ids, n, false, &decoded, &n_decoded, &err), QWEN3_OK);
        assert_int_equal(n_decoded, n_expected);
        assert_memory_equal(decoded, expected, n_decoded);
        for (size_t j = 0; j < n; j++) {
            assert_int_equal(qwen3_text_stream_push(stream, ids[j], &part, &length, &err), QWEN3_OK);
            assert_int_equal(part[length], 0);
            memcpy(parts + n_parts, part, length);
            n_parts += length;
            for (size_t at = 0, step; at < length; at += step)
                assert_true(utf8_decode((const unsigned char *)part + at, length - at, &step) >= 0);
        }
        qwen3_text_stream_finish(stream, &part, &length);
        assert_int_equal(length, 0);
        assert_int_equal(n_parts, n_decoded);
        assert_memory_equal(parts, decoded, n_parts);
        text_buffer_free(&valid);
        free(expected);
        free(ids);
        free(decoded);
    }
    qwen3_text_stream_close(stream);
    qwen3_tokenizer_close(t);
}

static void test_decode(void **state)
{
    static const int32_t ids[] = {0xE4, 0xB8, TINY_TOKENS, 'a', 0xF0, 0x9F}; /* ids of bytes are the bytes */
    qwen3_tokenizer *t;
    qwen3_text_stream *stream;
    qwen3_error err = {0};
    char *text;
    const char *part;
    size_t length;
    open_tiny(*state, &t);
    assert_int_equal(qwen3_tokenizer_decode(t, ids, 6, false, &text, &length, &err), QWEN3_OK);
    assert_string_equal(text, "\xEF\xBF\xBD<|end|>a\xEF\xBF\xBD");
    free(text);
    assert_int_equal(qwen3_tokenizer_decode(t, ids, 6, true, &text, &length, &err), QWEN3_OK);
    assert_string_equal(text, "\xEF\xBF\xBD"
                              "a\xEF\xBF\xBD");
    free(text);
    assert_int_equal(qwen3_tokenizer_decode(t, NULL, 0, false, &text, &length, &err), QWEN3_OK);
    assert_string_equal(text, "");
    free(text);
    static const char *const expected[] = {"", "", "", "\xEF\xBF\xBD\x61", "", ""}; // \x61: a
    assert_int_equal(qwen3_text_stream_open(t, true, &stream, &err), QWEN3_OK);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(qwen3_text_stream_push(stream, ids[i], &part, &length, &err), QWEN3_OK);
        assert_string_equal(part, expected[i]);
    }
    qwen3_text_stream_finish(stream, &part, &length);
    assert_string_equal(part, "\xEF\xBF\xBD");
    assert_int_equal(length, 3);
    qwen3_text_stream_finish(stream, &part, &length);
    assert_string_equal(part, "");
    qwen3_text_stream_close(stream);
    qwen3_tokenizer_close(t);
}

/* ---- Files */

/* Sets the value at a path of keys and indices, "model/merges/0"; text NULL removes it. */
static void change(json_t *root, const char *path, const char *text)
{
    char copy[128];
    json_t *at = root, *value = text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
    snprintf(copy, sizeof copy, "%s", path);
    char *key = copy;
    for (char *slash; (slash = strchr(key, '/')); key = slash + 1) {
        *slash = '\0';
        at = json_is_array(at) ? json_array_get(at, strtoul(key, NULL, 10)) : json_object_get(at, key);
    }
    if (json_is_array(at))
        assert_int_equal(json_array_set_new(at, strtoul(key, NULL, 10), value), 0);
    else if (text)
        assert_int_equal(json_object_set_new(at, key, value), 0);
    else
        assert_int_equal(json_object_del(at, key), 0);
}

static const struct {
    const char *path, *value, *word;
    qwen3_status status;
} bad_files[] = {
    {"version", "\"2.0\"", "version", QWEN3_ERR_UNSUPPORTED},
    {"surprise", "1", "surprise", QWEN3_ERR_UNSUPPORTED},
    {"normalizer", NULL, "normalizer", QWEN3_ERR_UNSUPPORTED},
    {"normalizer", "null", "normalizer", QWEN3_ERR_UNSUPPORTED},
    {"normalizer/type", "\"NFKC\"", "NFKC", QWEN3_ERR_UNSUPPORTED},
    {"pre_tokenizer", NULL, "pre_tokenizer", QWEN3_ERR_UNSUPPORTED},
    {"pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\w+\"", "\\w+", QWEN3_ERR_UNSUPPORTED},
    {"pre_tokenizer/pretokenizers/0/pattern", "{\"String\":\" \"}", "pre_tokenizer", QWEN3_ERR_UNSUPPORTED},
    {"pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", "Removed", QWEN3_ERR_UNSUPPORTED},
    {"pre_tokenizer/pretokenizers/0/invert", "true", "invert", QWEN3_ERR_UNSUPPORTED},
    {"pre_tokenizer/pretokenizers/1/add_prefix_space", "true", "add_prefix_space", QWEN3_ERR_UNSUPPORTED},
    {"post_processor", "{\"type\":\"TemplateProcessing\"}", "post_processor", QWEN3_ERR_UNSUPPORTED},
    {"decoder", NULL, "decoder", QWEN3_ERR_UNSUPPORTED},
    {"decoder", "{\"type\":\"Metaspace\"}", "decoder", QWEN3_ERR_UNSUPPORTED},
    {"model", NULL, "model", QWEN3_ERR_FORMAT},
    {"model", "[]", "an object", QWEN3_ERR_FORMAT},
    {"model/type", "\"Unigram\"", "model.type", QWEN3_ERR_UNSUPPORTED},
    {"model/type", NULL, "model.type", QWEN3_ERR_UNSUPPORTED},
    {"model/dropout", "0.1", "model.dropout", QWEN3_ERR_UNSUPPORTED},
    {"model/unk_token", "\"<unk>\"", "model.unk_token", QWEN3_ERR_UNSUPPORTED},
    {"model/continuing_subword_prefix", "\"##\"", "continuing_subword_prefix", QWEN3_ERR_UNSUPPORTED},
    {"model/end_of_word_suffix", "\"</w>\"", "end_of_word_suffix", QWEN3_ERR_UNSUPPORTED},
    {"model/byte_fallback", "true", "byte_fallback", QWEN3_ERR_UNSUPPORTED},
    {"model/ignore_merges", "true", "ignore_merges", QWEN3_ERR_UNSUPPORTED},
    {"model/surprise", "1", "model.surprise", QWEN3_ERR_UNSUPPORTED},
    {"model/vocab", NULL, "model.vocab", QWEN3_ERR_FORMAT},
    {"model/vocab", "{}", "byte 0x00", QWEN3_ERR_FORMAT},
    {"model/vocab", "[]", "model.vocab", QWEN3_ERR_FORMAT},
    {"model/vocab/a", NULL, "byte 0x61", QWEN3_ERR_FORMAT},
    {"model/vocab/a", "-1", "an integer", QWEN3_ERR_FORMAT},
    {"model/vocab/a", "1.5", "an integer", QWEN3_ERR_FORMAT},
    {"model/vocab/a", "98", "id 98", QWEN3_ERR_FORMAT},
    {"model/vocab/a", "4194304", "id 4194304", QWEN3_ERR_UNSUPPORTED},
    {"model/vocab/a", "10000000000", "an integer", QWEN3_ERR_FORMAT},
    {"model/vocab/x y", "900", "byte-level alphabet", QWEN3_ERR_FORMAT},
    {"model/vocab/\xE4\xB8\x96", "900", "byte-level alphabet", QWEN3_ERR_FORMAT},
    {"model/vocab/", "900", "0 bytes", QWEN3_ERR_FORMAT},
    {"model/merges", NULL, "model.merges", QWEN3_ERR_FORMAT},
    {"model/merges", "{}", "model.merges", QWEN3_ERR_FORMAT},
    {"model/merges/0", "[\"a\"]", "','", QWEN3_ERR_FORMAT},
    {"model/merges/0", "[\"a\",\"b\",\"a\"]", "']'", QWEN3_ERR_FORMAT},
    {"model/merges/0", "\"ab\"", "a space", QWEN3_ERR_FORMAT},
    {"model/merges/0", "[\"a\",\"z\"]", "a merge of two tokens", QWEN3_ERR_FORMAT},
    {"model/merges/0", "[\"in\",\"g\"]", "merge 0 uses what merge 3 makes", QWEN3_ERR_UNSUPPORTED},
    {"model/merges/13", "[\"a\",\"b\"]", "merge", QWEN3_ERR_UNSUPPORTED},
    {"model/merges/14", "[\"-\",\"-\"]", "twice", QWEN3_ERR_FORMAT},
    {"added_tokens", "{}", "added_tokens", QWEN3_ERR_FORMAT},
    {"added_tokens/0", "1", "added_tokens[0]", QWEN3_ERR_FORMAT},
    {"added_tokens/1/id", "-1", "added_tokens[1]", QWEN3_ERR_FORMAT},
    {"added_tokens/1/id", "97", "id 97", QWEN3_ERR_FORMAT},
    {"added_tokens/1/content", "\"\"", "0 bytes", QWEN3_ERR_FORMAT},
    {"added_tokens/1/content", "\"<think>\"", "same token", QWEN3_ERR_FORMAT},
    {"added_tokens/1/special", NULL, "added_tokens[1]", QWEN3_ERR_FORMAT},
    {"added_tokens/2/lstrip", "true", "<think>: lstrip", QWEN3_ERR_UNSUPPORTED},
    {"added_tokens/2/rstrip", "true", "<think>: rstrip", QWEN3_ERR_UNSUPPORTED},
    {"added_tokens/2/single_word", "true", "<think>: single_word", QWEN3_ERR_UNSUPPORTED},
    {"added_tokens/2/normalized", "true", "<think>: normalized", QWEN3_ERR_UNSUPPORTED},
};

static void test_bad_files(void **state)
{
    temp_path path = temp_join(*state, "tokenizer.json");
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        qwen3_tokenizer *t = (qwen3_tokenizer *)state;
        qwen3_error err = {0};
        json_t *json = tiny_tokenizer();
        change(json, bad_files[i].path, bad_files[i].value);
        write_json(path.text, json);
        json_decref(json);
        assert_refused(bad_files[i].path, qwen3_tokenizer_open(path.text, &t, &err), bad_files[i].status, &err,
                       path.text, bad_files[i].word);
        assert_null(t);
    }
}

/* What published files have had besides. */
static void test_other_files(void **state)
{
    static const struct {
        const char *path, *value;
    } changes[] = {
        {"model/merges/0", "\"\xC4\xA0 t\""},
        {"post_processor", "null"},
        {"post_processor", NULL},
        {"post_processor", "{\"type\":\"Sequence\",\"processors\":[]}"},
        {"truncation", "{\"direction\":\"Right\",\"max_length\":5,\"strategy\":\"LongestFirst\",\"stride\":0}"},
        {"padding", "{\"strategy\":\"BatchLongest\",\"direction\":\"Left\",\"pad_id\":0}"},
        {"model/ignore_merges", NULL},
        {"model/dropout", NULL},
        {"model/end_of_word_suffix", "null"},
        {"pre_tokenizer/pretokenizers/1/trim_offsets", "true"},
        {"added_tokens", "[]"},
        {"model/vocab/<|end|>", "276"}, /* in the vocabulary, too */
    };
    temp_path path = temp_join(*state, "tokenizer.json");
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        qwen3_tokenizer *t;
        qwen3_error err = {0};
        json_t *json = tiny_tokenizer();
        change(json, changes[i].path, changes[i].value);
        assert_int_equal(json_dump_file(json, path.text, JSON_INDENT(2) | (i % 2 ? JSON_ENSURE_ASCII : 0)), 0);
        json_decref(json);
        if (qwen3_tokenizer_open(path.text, &t, &err))
            fail_msg("%s: %s", changes[i].path, err.message);
        expect_ids(t, " there", NULL, 0, " there|");
        qwen3_tokenizer_close(t);
    }
}

#define END(id)                                                                                                        \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"                        \
    "{\"SpecialToken\":{\"id\":\"<|end|>\",\"type_id\":0}}],\"special_tokens\":{\"<|end|>\":{\"id\":\"<|end|>\","      \
    "\"ids\":[" id "],\"tokens\":[\"<|end|>\"]}}}"

/* The token at the end of a text that embedding models have; encoding does not add it. */
static void test_end_token(void **state)
{
    static const struct {
        const char *post_processor;
        int32_t end; /* -2: refused */
    } cases[] = {
        {"null", -1},
        {"{\"type\":\"ByteLevel\"}", -1},
        {"{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," END("276") "]}", TINY_TOKENS},
        {END("276"), TINY_TOKENS},
        {END("300"), -2},
        {END("276,277"), -2},
        {END("\"276\""), -2},
        {"{\"type\":\"Sequence\",\"processors\":[" END("276") "," END("276") "]}", -2},
        {"{\"type\":\"Sequence\"}", -2},
        {"{\"type\":\"TemplateProcessing\",\"single\":[]}", -2},
        {"{\"type\":\"BertProcessing\"}", -2},
    };
    temp_path path = temp_join(*state, "tokenizer.json");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_tokenizer *t;
        qwen3_error err = {0};
        json_t *json = tiny_tokenizer();
        change(json, "post_processor", cases[i].post_processor);
        write_json(path.text, json);
        json_decref(json);
        qwen3_status status = qwen3_tokenizer_open(path.text, &t, &err);
        if (cases[i].end == -2) {
            assert_true(status != QWEN3_OK && strstr(err.message, "post_processor"));
            continue;
        }
        assert_int_equal(status, QWEN3_OK);
        assert_int_equal(qwen3_tokenizer_end(t), cases[i].end);
        expect_ids(t, " there", NULL, 0, " there|");
        qwen3_tokenizer_close(t);
    }
}

/* The pattern of the file decides how text is split: "e" and a mark that has no composed form, then "s". */
static void test_pattern_with_marks(void **state)
{
    static const char text[] = "the\xCC\xA7re"; /* the cedilla ends a word in the first pattern */
    qwen3_tokenizer *t;
    qwen3_error err = {0};
    json_t *json = tiny_tokenizer();
    change(json, "pre_tokenizer/pretokenizers/0/pattern/Regex",
           "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?[\\\\p{L}\\\\p{M}]+|\\\\p{N}| "
           "?[^\\\\s\\\\p{L}\\\\p{M}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"");
    write_json(temp_join(*state, "tokenizer.json").text, json);
    json_decref(json);
    if (qwen3_tokenizer_open(temp_join(*state, "tokenizer.json").text, &t, &err))
        fail_msg("%s", err.message);
    assert_true(t->marks);
    assert_int_equal(split_piece((const unsigned char *)text, sizeof text - 1, t->marks), sizeof text - 1);
    assert_int_equal(split_piece((const unsigned char *)text, sizeof text - 1, false), 3);
    qwen3_tokenizer_close(t);
}

/* No prefix of a good file is a good file, and no change of a byte does harm. */
static void test_truncated_and_damaged(void **state)
{
    temp_path path = temp_join(*state, "tokenizer.json");
    json_t *json = tiny_tokenizer();
    char *text = json_dumps(json, JSON_ENSURE_ASCII), copy[32768];
    size_t bytes = strlen(text);
    json_decref(json);
    assert_true(bytes < sizeof copy);
    uint64_t random = test_seed();
    for (int i = 0; i < 3000; i++) {
        qwen3_tokenizer *t;
        qwen3_error err = {0};
        memcpy(copy, text, bytes);
        bool cut = i < 1000;
        for (uint64_t n = 1 + test_random(&random) % 3; n > 0 && !cut; n--)
            copy[test_random(&random) % bytes] = (char)test_random(&random);
        write_bytes(path.text, copy, cut ? test_random(&random) % bytes : bytes);
        if (qwen3_tokenizer_open(path.text, &t, &err) == QWEN3_OK) {
            assert_false(cut);
            int32_t *ids;
            size_t n;
            const qwen3_encode_args args = {.text = text, .length = bytes};
            assert_int_equal(qwen3_tokenizer_encode(t, &args, &ids, &n, &err), QWEN3_OK);
            free(ids);
            qwen3_tokenizer_close(t);
        } else {
            assert_non_null(strstr(err.message, path.text));
        }
    }
    free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temp_dir_setup, temp_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_form_c),
        cmocka_unit_test(test_split),
        TEST(test_merges),
        TEST(test_encode),
        TEST(test_tokens),
        TEST(test_bad_arguments),
        TEST(test_round_trip),
        TEST(test_decode),
        TEST(test_bad_files),
        TEST(test_other_files),
        TEST(test_end_token),
        TEST(test_pattern_with_marks),
        TEST(test_truncated_and_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
