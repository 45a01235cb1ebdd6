/* chat_template_known.c - recognises the published templates, and finds the nearest one of another text.
 *
 * A template is a row of pieces: its tags, and what is between them. The white space before a tag that begins with
 * "{%-" or "{{-" has no effect, nor has a line break between two block tags (the reference sets trim_blocks and
 * lstrip_blocks), nor the amount of white space inside a tag, outside of string literals. A text is a published
 * template if it has the same tags and nothing else that has an effect. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/chat_template.h"
#include "io/utf8.h"

/* ---- The table --------------------------------------------------------------------------------- */

/* tests/data/chat holds the texts of the first four, and pieces.py, which makes these hashes. Those of Qwen3-Coder are
 * of the template that came with Qwen3-Coder-30B-A3B-Instruct in August 2025, and of the one after it (SHA-256
 * 5a38bfa05833266240066aedc497decc9b00cc0d3e3b8cceea98cf530196ab06). */
static const uint32_t qwen3[] = {
    0xc65fbe2c, 0xac5b50bc, 0x31f98962, 0x81a57570, 0x0ef9a6c6, 0x247e47cf, 0xf705f18d, 0xd7ff61bc, 0x4c435a17,
    0x69a63a50, 0x5db0f83e, 0xe3e5ee71, 0x31f98962, 0xf9f5d385, 0x0ef9a6c6, 0x0ef9a6c6, 0xf3a095cd, 0x7efc7a0b,
    0x7e2e9427, 0x7343a996, 0xd0e8296a, 0x33177544, 0x0ef9a6c6, 0x69a63a50, 0xf822f9c1, 0xf3251584, 0x25787ccd,
    0x79789771, 0xeffe4ba2, 0xd84d0ced, 0x1c7f279a, 0x5df6145e, 0xe3e5ee71, 0xbf338931, 0xee8dcf5b, 0x35d53a2a,
    0x0ef9a6c6, 0x0ef9a6c6, 0x0e3a656a, 0x531c4add, 0x0ad1c921, 0xe3e5ee71, 0xf7b0861e, 0x0ef9a6c6, 0xe3e5ee71,
    0xf7b0861e, 0x0ef9a6c6, 0xfe54985e, 0x53d52d26, 0xf064d09b, 0xee107b2e, 0x0ef9a6c6, 0xe41ef356, 0x9515c9e3,
    0x0ef9a6c6, 0xd63ae245, 0x2fc33bba, 0x52cee234, 0x265343a7, 0x180c6093, 0xe3e5ee71, 0xe196bc2e, 0x0ef9a6c6,
    0x2c4daf63, 0x69a63a50, 0x0ef9a6c6, 0x0d8939d4, 0xf0508375, 0x4863f91b, 0xa724fe24, 0x0ef9a6c6, 0xa8630848,
    0xad7ee55a, 0x32f1cf77, 0x6ad3a009, 0x0d8939d4, 0x0ef9a6c6, 0x0ef9a6c6, 0x69a63a50, 0x6802e78a, 0x53f4f5b3,
    0x3aff89ec, 0x966e1319, 0x0ef9a6c6, 0x0ef9a6c6};
static const uint32_t qwen3_revised[] = {
    0xc65fbe2c, 0xac5b50bc, 0x31f98962, 0x81a57570, 0x0ef9a6c6, 0x247e47cf, 0xf705f18d, 0xd7ff61bc, 0x4c435a17,
    0x69a63a50, 0x5db0f83e, 0xe3e5ee71, 0x31f98962, 0xf9f5d385, 0x0ef9a6c6, 0x0ef9a6c6, 0xf3a095cd, 0x7efc7a0b,
    0x7e2e9427, 0xcfe85a3e, 0xd0e8296a, 0x33177544, 0x0ef9a6c6, 0x69a63a50, 0xf822f9c1, 0x0748f752, 0xeffe4ba2,
    0xe3e5ee71, 0xc85c3a68, 0x0ef9a6c6, 0xf3251584, 0x001ab2b4, 0x79789771, 0xd84d0ced, 0x016f58e5, 0x5df6145e,
    0xe3e5ee71, 0x6aa4ec3c, 0xb1306853, 0x9254aaa8, 0x0ef9a6c6, 0x0ef9a6c6, 0x0e3a656a, 0x531c4add, 0x0ad1c921,
    0xe3e5ee71, 0xf7b0861e, 0x0ef9a6c6, 0xe3e5ee71, 0xf7b0861e, 0x0ef9a6c6, 0xfe54985e, 0x53d52d26, 0xf064d09b,
    0xee107b2e, 0x0ef9a6c6, 0xe41ef356, 0x9515c9e3, 0x0ef9a6c6, 0xd63ae245, 0x2fc33bba, 0x52cee234, 0x265343a7,
    0x180c6093, 0xe3e5ee71, 0xe196bc2e, 0x0ef9a6c6, 0x2c4daf63, 0x69a63a50, 0x0ef9a6c6, 0x0d8939d4, 0xf0508375,
    0x4863f91b, 0xa724fe24, 0x0ef9a6c6, 0xa8630848, 0x82896533, 0x32f1cf77, 0x6ad3a009, 0x0d8939d4, 0x0ef9a6c6,
    0x0ef9a6c6, 0x69a63a50, 0x6802e78a, 0x53f4f5b3, 0x3aff89ec, 0x966e1319, 0x0ef9a6c6, 0x0ef9a6c6};
static const uint32_t thinking_2507[] = {
    0xc65fbe2c, 0xac5b50bc, 0x31f98962, 0x81a57570, 0x0ef9a6c6, 0x247e47cf, 0xf705f18d, 0xd7ff61bc, 0x4c435a17,
    0x69a63a50, 0x5db0f83e, 0xe3e5ee71, 0x31f98962, 0xf9f5d385, 0x0ef9a6c6, 0x0ef9a6c6, 0xf3a095cd, 0x7efc7a0b,
    0x7e2e9427, 0xcfe85a3e, 0xd0e8296a, 0x33177544, 0x0ef9a6c6, 0x69a63a50, 0xf822f9c1, 0x0748f752, 0xeffe4ba2,
    0xe3e5ee71, 0xc85c3a68, 0x0ef9a6c6, 0xf3251584, 0x001ab2b4, 0x79789771, 0xd84d0ced, 0x016f58e5, 0x5df6145e,
    0xe3e5ee71, 0x6aa4ec3c, 0xb1306853, 0x9254aaa8, 0x0ef9a6c6, 0x0ef9a6c6, 0x0e3a656a, 0x531c4add, 0x0ad1c921,
    0xe3e5ee71, 0xf7b0861e, 0x0ef9a6c6, 0xe3e5ee71, 0xf7b0861e, 0x0ef9a6c6, 0xfe54985e, 0x53d52d26, 0xf064d09b,
    0xee107b2e, 0x0ef9a6c6, 0xe41ef356, 0x9515c9e3, 0x0ef9a6c6, 0xd63ae245, 0x2fc33bba, 0x52cee234, 0x265343a7,
    0x180c6093, 0xe3e5ee71, 0xe196bc2e, 0x0ef9a6c6, 0x2c4daf63, 0x69a63a50, 0x0ef9a6c6, 0x0d8939d4, 0xf0508375,
    0x4863f91b, 0xa724fe24, 0x0ef9a6c6, 0xa8630848, 0x82896533, 0x32f1cf77, 0x6ad3a009, 0x0d8939d4, 0x0ef9a6c6,
    0x0ef9a6c6, 0x69a63a50, 0x6802e78a, 0x3f1ef6df, 0x0ef9a6c6};
static const uint32_t instruct_2507[] = {
    0xc65fbe2c, 0xac5b50bc, 0x31f98962, 0x81a57570, 0x0ef9a6c6, 0x247e47cf, 0xf705f18d, 0xd7ff61bc, 0x4c435a17,
    0x69a63a50, 0x5db0f83e, 0xe3e5ee71, 0x31f98962, 0xf9f5d385, 0x0ef9a6c6, 0x0ef9a6c6, 0xf822f9c1, 0x0748f752,
    0xeffe4ba2, 0xe3e5ee71, 0xc85c3a68, 0x0ef9a6c6, 0xf3251584, 0x001ab2b4, 0x79789771, 0xf7b0861e, 0xfe54985e,
    0x53d52d26, 0xf064d09b, 0xee107b2e, 0x0ef9a6c6, 0xe41ef356, 0x9515c9e3, 0x0ef9a6c6, 0xd63ae245, 0x2fc33bba,
    0x52cee234, 0x265343a7, 0x180c6093, 0xe3e5ee71, 0xe196bc2e, 0x0ef9a6c6, 0x2c4daf63, 0x69a63a50, 0x0ef9a6c6,
    0x0d8939d4, 0xf0508375, 0x4863f91b, 0xa724fe24, 0x0ef9a6c6, 0xa8630848, 0x82896533, 0x32f1cf77, 0x6ad3a009,
    0x0d8939d4, 0x0ef9a6c6, 0x0ef9a6c6, 0x69a63a50, 0x6802e78a, 0x53f4f5b3, 0x0ef9a6c6};
static const uint32_t coder[] = {
    0xfdf2b859, 0xacb2e70a, 0x3272d96d, 0x1f6d40c0, 0xcbca1e6f, 0xe3e5ee71, 0xc043c572, 0x0ef9a6c6, 0x69a63a50,
    0x0ef9a6c6, 0x5f895293, 0x41b277a0, 0x5e48a517, 0x9e621981, 0xe3e5ee71, 0x01a11518, 0x0ef9a6c6, 0x68ae4ea2,
    0xfa5ddd88, 0x0ef9a6c6, 0xfa976155, 0xaf2650bc, 0xe3e5ee71, 0xdfbb3762, 0xd89f0fbe, 0x0ef9a6c6, 0x0ef9a6c6,
    0xdfbb3762, 0xa1bb4a45, 0x1137ac33, 0xf705f18d, 0x8dfe33a4, 0x952adc45, 0x0ef9a6c6, 0x3ec8ef6a, 0xad044840,
    0xd93059f6, 0x0ef9a6c6, 0xaa08b138, 0xbd8b9346, 0x1361d90d, 0xcecb81f1, 0x59a269b8, 0x97a1104d, 0xa2625404,
    0x0ef9a6c6, 0x41b89c47, 0x02ba7859, 0x0ef9a6c6, 0x8c184771, 0xcea60167, 0xf4994fe8, 0x69a63a50, 0x0ef9a6c6,
    0x460e9c19, 0x12906da6, 0xec9eab6f, 0xb9cbede3, 0x4c1c13dc, 0x7086e793, 0x69a63a50, 0x48bbde0a, 0x634b13ad,
    0x0ef9a6c6, 0xfa976155, 0x0d8939d4, 0xe3e5ee71, 0xdfbb3762, 0x0d8939d4, 0x0ef9a6c6, 0x0ef9a6c6, 0xdb039aec,
    0x60fe4df7, 0x438e3d6b, 0xd3a67757, 0x106ae7e0, 0x0ef9a6c6, 0x53d52d26, 0x631bfe6b, 0x9515c9e3, 0x0ef9a6c6,
    0xe9fa7104, 0x68f375d7, 0x813de051, 0x6baed2a9, 0x863218d2, 0xc80240c5, 0x04a08616, 0x69a63a50, 0x0ef9a6c6,
    0x6a318ce9, 0x69a63a50, 0x0d8939d4, 0x20b04383, 0x25787ccd, 0xf0508375, 0x527454d0, 0x64a14af2, 0x0ef9a6c6,
    0xaa4e40de, 0xad7ee55a, 0x12640359, 0xa21f3f41, 0x0d8939d4, 0x68a0d76a, 0x0d8939d4, 0x0ef9a6c6, 0xe3e5ee71,
    0xb2affb2c, 0x0ef9a6c6, 0x69a63a50, 0x6802e78a, 0x53f4f5b3, 0x0ef9a6c6};
static const uint32_t coder_revised[] = {
    0xfdf2b859, 0xacb2e70a, 0x3272d96d, 0x166ac780, 0xcbca1e6f, 0xe3e5ee71, 0xc043c572, 0x0ef9a6c6, 0x69a63a50,
    0x0ef9a6c6, 0x5f895293, 0x41b277a0, 0x5e48a517, 0x9e621981, 0xe3e5ee71, 0x01a11518, 0x0ef9a6c6, 0x68ae4ea2,
    0xfa5ddd88, 0x0ef9a6c6, 0xfa976155, 0xaf2650bc, 0xe3e5ee71, 0xdfbb3762, 0xd89f0fbe, 0x0ef9a6c6, 0x0ef9a6c6,
    0xdfbb3762, 0x7576e59b, 0x1137ac33, 0xf705f18d, 0x8dfe33a4, 0x952adc45, 0x0ef9a6c6, 0x3ec8ef6a, 0xad044840,
    0xd93059f6, 0x0ef9a6c6, 0xaa08b138, 0xbd8b9346, 0x1361d90d, 0xcecb81f1, 0x59a269b8, 0x97a1104d, 0xa2625404,
    0x0ef9a6c6, 0x41b89c47, 0x02ba7859, 0x0ef9a6c6, 0x8c184771, 0xcea60167, 0xf4994fe8, 0x69a63a50, 0x0ef9a6c6,
    0x460e9c19, 0x12906da6, 0xec9eab6f, 0xb9cbede3, 0x4c1c13dc, 0x7086e793, 0x69a63a50, 0x48bbde0a, 0x634b13ad,
    0x0ef9a6c6, 0xfa976155, 0x0d8939d4, 0xe3e5ee71, 0xdfbb3762, 0x0d8939d4, 0x0ef9a6c6, 0x0ef9a6c6, 0xdb039aec,
    0x60fe4df7, 0x438e3d6b, 0xd3a67757, 0x106ae7e0, 0x0ef9a6c6, 0x53d52d26, 0x631bfe6b, 0x9515c9e3, 0x0ef9a6c6,
    0xe9fa7104, 0x68f375d7, 0x813de051, 0x6baed2a9, 0x1da9307a, 0xc80240c5, 0x04a08616, 0x69a63a50, 0x0ef9a6c6,
    0x6a318ce9, 0x69a63a50, 0x0d8939d4, 0x20b04383, 0x25787ccd, 0xf0508375, 0x527454d0, 0x64a14af2, 0x0ef9a6c6,
    0xaa4e40de, 0xad7ee55a, 0x12640359, 0xa21f3f41, 0x0d8939d4, 0x68a0d76a, 0x0d8939d4, 0x0ef9a6c6, 0xe3e5ee71,
    0xb2affb2c, 0x0ef9a6c6, 0x69a63a50, 0x6802e78a, 0x53f4f5b3, 0x0ef9a6c6};

#define KNOWN(name, pieces, ...)                                                                                       \
    {                                                                                                                  \
        name, {__VA_ARGS__}, pieces, sizeof(pieces) / sizeof *(pieces)                                                 \
    }
/* The first of those that are equally near to a text is taken: the one that assumes least. */
static const known_template known[] = {
    KNOWN("qwen3-instruct-2507", instruct_2507, QWEN3_THINKING_NEVER, CHAT_NULL_ALLOWED, CHAT_TOOLS_JSON),
    KNOWN("qwen3-revised", qwen3_revised, QWEN3_THINKING_OPTIONAL, CHAT_NULL_ALLOWED, CHAT_TOOLS_JSON),
    /* as first published: content must be a string */
    KNOWN("qwen3", qwen3, QWEN3_THINKING_OPTIONAL, CHAT_NULL_WITH_TOOL_CALLS, CHAT_TOOLS_JSON),
    KNOWN("qwen3-thinking-2507", thinking_2507, QWEN3_THINKING_ALWAYS, CHAT_NULL_ALLOWED, CHAT_TOOLS_JSON),
    KNOWN("qwen3-coder-revised", coder_revised, QWEN3_THINKING_NEVER, CHAT_NULL_WITH_TOOL_CALLS,
          CHAT_TOOLS_XML_REVISED),
    KNOWN("qwen3-coder", coder, QWEN3_THINKING_NEVER, CHAT_NULL_WITH_TOOL_CALLS, CHAT_TOOLS_XML),
};
enum { KNOWN_TEMPLATES = sizeof known / sizeof *known };

const known_template *chat_template_named(const char *name)
{
    for (const known_template *k = known; k < known + KNOWN_TEMPLATES; k++)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

void chat_template_names(char *text, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < KNOWN_TEMPLATES && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", known[i].name);
}

/* ---- Pieces ------------------------------------------------------------------------------------ */

typedef struct piece {
    uint32_t hash;           /* of what has an effect: FNV-1a (Fowler, Noll, Vo) */
    const char *begin, *end; /* in the text */
    char kind;               /* of a tag: '%', '{', '#'; of text between tags: 0 */
    bool strips_before, strips_after;
} piece;

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

static void take(piece *p, char c)
{
    p->hash = (p->hash ^ (unsigned char)c) * UINT32_C(0x01000193);
}

static bool opens(const char *at, const char *end)
{
    return end - at >= 2 && at[0] == '{' && (at[1] == '%' || at[1] == '{' || at[1] == '#');
}

static bool closes(const piece *p, const char *at, const char *end)
{
    return end - at >= 2 && at[0] == (p->kind == '{' ? '}' : p->kind) && at[1] == '}';
}

/* Takes a string literal with its quotes; returns where it ends, NULL if it does not. */
static const char *take_literal(piece *p, const char *at, const char *end)
{
    const char quote = *at;
    take(p, *at++);
    while (at < end && *at != quote) {
        if (*at == '\\' && at + 1 < end)
            take(p, *at++);
        take(p, *at++);
    }
    if (at == end)
        return NULL;
    take(p, *at++);
    return at;
}

/* The tag at `at`; false if it does not end. */
static bool read_tag(piece *p, const char *at, const char *end)
{
    *p = (piece){UINT32_C(0x811c9dc5), at, NULL, at[1], false, false};
    take(p, p->kind);
    at += 2;
    p->strips_before = at < end && *at == '-';
    at = skip_space(at + p->strips_before, end);
    while (at < end && !closes(p, at, end)) {
        const char *next = skip_space(at, end);
        if (closes(p, next, end) || (next < end && *next == '-' && closes(p, next + 1, end))) {
            p->strips_after = *next == '-';
            at = next + p->strips_after;
            break;
        }
        if (next > at)
            take(p, ' ');
        at = next;
        if (at == end)
            break;
        const bool literal = p->kind != '#' && (*at == '"' || *at == '\'');
        if (!literal)
            take(p, *at++);
        else if (!(at = take_literal(p, at, end)))
            return false;
    }
    if (!closes(p, at, end))
        return false;
    p->end = at + 2;
    return true;
}

/* The piece at `at`, which is no white space: a tag, or text up to the next one. */
static void read_piece(piece *p, const char *at, const char *end)
{
    if (opens(at, end) && read_tag(p, at, end))
        return;
    *p = (piece){UINT32_C(0x811c9dc5), at, NULL, 0, false, false};
    do
        take(p, *at++);
    while (at < end && !opens(at, end));
    p->end = at;
}

/* Whether the white space [begin, p->begin) between two pieces has no effect; before: the first of them, NULL at the
 * beginning of the text. */
static bool is_idle(const piece *before, const char *begin, const piece *p)
{
    if (p->strips_before || begin == p->begin || (before && before->strips_after))
        return true;
    if (!before || before->kind != '%' || p->kind != '%' || *begin != '\n')
        return false;
    do
        begin++;
    while (*begin == ' ' || *begin == '\t');
    return begin == p->begin;
}

const known_template *chat_template_recognise(const char *text, size_t length)
{
    const char *at = text, *end = text + length;
    piece pieces[2]; /* this one and the one before */
    bool possible[KNOWN_TEMPLATES];
    size_t n = 0;
    memset(possible, true, sizeof possible);
    for (;; n++) {
        piece *p = &pieces[n % 2];
        const piece *before = n > 0 ? &pieces[(n + 1) % 2] : NULL;
        const char *gap = at;
        at = skip_space(at, end);
        /* The last tag may be followed by a newline; anything more would be part of the prompt. */
        if (at == end) {
            if (end - gap > 1 || (gap < end && *gap != '\n'))
                return NULL;
            break;
        }
        read_piece(p, at, end);
        if (!p->kind || p->kind == '#' || !is_idle(before, gap, p))
            return NULL;
        for (int k = 0; k < KNOWN_TEMPLATES; k++)
            possible[k] &= n < known[k].n && known[k].pieces[n] == p->hash;
        at = p->end;
    }
    for (int k = 0; k < KNOWN_TEMPLATES; k++)
        if (possible[k] && known[k].n == n)
            return &known[k];
    return NULL;
}

/* ---- The nearest ------------------------------------------------------------------------------- */

enum { MOST_PIECES = 4096 };

/* Tags and texts, without comments; *n of them, at most MOST_PIECES. */
static void list_pieces(const char *text, size_t length, piece *pieces, size_t *n)
{
    const char *end = text + length;
    *n = 0;
    for (const char *at = skip_space(text, end); at < end && *n < MOST_PIECES; at = skip_space(at, end)) {
        read_piece(&pieces[*n], at, end);
        at = pieces[*n].end;
        *n += pieces[*n].kind != '#';
    }
}

/* Pieces of both, in the same order: the longest common subsequence. row [k->n + 1] is scratch. */
static size_t count_common(const piece *pieces, size_t n, const known_template *k, uint16_t *row)
{
    memset(row, 0, (k->n + 1) * sizeof *row);
    for (size_t i = 0; i < n; i++) {
        uint16_t diagonal = 0; /* of the row before */
        for (size_t j = 0; j < k->n; j++) {
            const uint16_t above = row[j + 1];
            const uint16_t best = above > row[j] ? above : row[j];
            row[j + 1] = pieces[i].hash == k->pieces[j] ? (uint16_t)(diagonal + 1) : best;
            diagonal = above;
        }
    }
    return row[k->n];
}

/* "<|name|>" in a text that no template of the family has. */
static qwen3_status check_control_tokens(const char *where, const char *text, size_t length, qwen3_error *err)
{
    const char *at = text, *end = text + length;
    bool begins = false, ends = false;
    while ((at = memmem(at, (size_t)(end - at), "<|", 2))) {
        const char *close = memmem(at, (size_t)(end - at), "|>", 2);
        const size_t n = close ? (size_t)(close - at) + 2 : 0;
        const bool begin = n == strlen("<|im_start|>") && memcmp(at, "<|im_start|>", n) == 0;
        const bool finish = n == strlen("<|im_end|>") && memcmp(at, "<|im_end|>", n) == 0;
        if (n > 0 && n < 40 && !begin && !finish && !memchr(at, '\n', n))
            return fail(err, QWEN3_ERR_UNSUPPORTED,
                        "%s: has the control token %.*s, which no chat template of the family has", where, (int)n, at);
        begins |= begin;
        ends |= finish;
        at += 2;
    }
    if (!begins || !ends)
        return fail(err, QWEN3_ERR_UNSUPPORTED,
                    "%s: has no %s, with which every chat template of the family marks turns", where,
                    begins ? "<|im_end|>" : "<|im_start|>");
    return QWEN3_OK;
}

/* A piece as it is shown in a message: one line of at most 60 bytes of well-formed text. */
static void quote(const piece *p, char *out, size_t size)
{
    size_t n = 0, length;
    for (const char *at = p->begin; at < p->end; at += length) {
        const int32_t c = utf8_decode((const unsigned char *)at, (size_t)(p->end - at), &length);
        if (n + length > 60 || n + length >= size)
            break;
        for (size_t i = 0; i < length; i++)
            out[n++] = (char)(c < 0 ? '?' : c < ' ' || c == 0x7f ? ' ' : at[i]);
    }
    out[n] = '\0';
}

static void describe_difference(const char *where, const char *text, const piece *pieces, size_t n,
                                const known_template *k, char *warning)
{
    size_t same = 0;
    char quoted[64] = "";
    while (same < n && same < k->n && pieces[same].hash == k->pieces[same])
        same++;
    int used =
        snprintf(warning, CHAT_WARNING,
                 "%.200s: is none of the published chat templates; the nearest, %s, is used instead. ", where, k->name);
    if (same == n && n == k->n) {
        snprintf(warning + used, CHAT_WARNING - (size_t)used, "They differ in white space or comments");
        return;
    }
    if (same == n) {
        snprintf(warning + used, CHAT_WARNING - (size_t)used, "It lacks the end of that one");
        return;
    }
    size_t line = 1;
    for (const char *at = text; at < pieces[same].begin; at++)
        line += *at == '\n';
    quote(&pieces[same], quoted, sizeof quoted);
    snprintf(warning + used, CHAT_WARNING - (size_t)used, "The first difference is in line %zu: %s", line, quoted);
}

qwen3_status chat_template_nearest(const char *where, const char *text, size_t length, const known_template **nearest,
                                   char *warning, qwen3_error *err)
{
    size_t n, most = 0;
    double best = -1;
    *nearest = NULL;
    qwen3_status status = check_control_tokens(where, text, length, err);
    if (status)
        return status;
    for (int k = 0; k < KNOWN_TEMPLATES; k++)
        most = known[k].n > most ? known[k].n : most;
    piece *pieces = malloc((MOST_PIECES + 1) * sizeof *pieces);
    uint16_t *row = malloc((most + 1) * sizeof *row);
    if (pieces && row) {
        list_pieces(text, length, pieces, &n);
        for (const known_template *k = known; k < known + KNOWN_TEMPLATES; k++) {
            const double common = (double)count_common(pieces, n, k, row) / (double)(n + k->n);
            if (common > best) {
                best = common;
                *nearest = k;
            }
        }
        describe_difference(where, text, pieces, n, *nearest, warning);
    } else {
        status = fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", where);
    }
    free(row);
    free(pieces);
    return status;
}
