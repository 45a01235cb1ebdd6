/* grammar_pattern.c - regular expressions of `pattern` and `format`, over the code points of a string.
 *
 * They are read from left to right, but nodes are made from the end to the beginning. So each part is first a tree. */
#include <stdlib.h>
#include <string.h>

#include "io/grammar.h"
#include "io/utf8.h"

enum { POINT_LAST = 0x10FFFF, SET_RANGES = 256, PARTS = 1 << 14 };

typedef struct point_range {
    int32_t low, high;
} point_range;

/* Code points, ranges in any order. */
typedef struct point_set {
    point_range ranges[SET_RANGES];
    int n;
} point_set;

typedef enum part_kind { PART_EMPTY, PART_SET, PART_SEQUENCE, PART_CHOICE, PART_REPEAT } part_kind;

typedef struct part {
    part_kind kind;
    int32_t one, other;  /* parts; PART_REPEAT: one */
    int64_t least, most; /* PART_REPEAT */
    point_range *ranges; /* PART_SET [n], owned; ascending, apart */
    int n;
} part;

typedef struct pattern_reader {
    grammar_builder *b;
    const char *text, *at, *end, *where;
    part *parts; /* [n_parts] */
    int32_t n_parts, room;
    int depth;
} pattern_reader;

static int32_t refuse(pattern_reader *r, qwen3_status status, const char *what)
{
    fail(r->b->err, status, "%s: %s at byte %zu of \"%.100s\"", r->where, what, (size_t)(r->at - r->text), r->text);
    r->at = r->end; /* nothing more is read */
    return 0;
}

static int32_t malformed(pattern_reader *r, const char *what)
{
    return refuse(r, QWEN3_ERR_FORMAT, what);
}

static int32_t unsupported(pattern_reader *r, const char *what)
{
    return refuse(r, QWEN3_ERR_UNSUPPORTED, what);
}

static int32_t add_part(pattern_reader *r, part p)
{
    if (r->n_parts == r->room) {
        const int32_t room = 2 * r->room + 32;
        part *larger = r->n_parts < PARTS ? realloc(r->parts, (size_t)room * sizeof *larger) : NULL;
        if (!larger) {
            free(p.ranges);
            return refuse(r, r->n_parts < PARTS ? QWEN3_ERR_MEMORY : QWEN3_ERR_CAPACITY, "the pattern is too large");
        }
        r->parts = larger;
        r->room = room;
    }
    r->parts[r->n_parts] = p;
    return r->n_parts++;
}

/* ---- Sets --------------------------------------------------------------------------------------- */

static void set_add(pattern_reader *r, point_set *s, int32_t low, int32_t high)
{
    if (s->n == SET_RANGES)
        unsupported(r, "a class with so many ranges");
    else
        s->ranges[s->n++] = (point_range){low, high};
}

static int compare_ranges(const void *one, const void *other)
{
    const point_range *a = one, *b = other;
    return (a->low > b->low) - (a->low < b->low);
}

/* Sorts and joins. */
static void set_normalise(point_set *s)
{
    int n = 0;
    qsort(s->ranges, (size_t)s->n, sizeof *s->ranges, compare_ranges);
    for (int i = 0; i < s->n; i++) {
        if (n > 0 && s->ranges[i].low <= s->ranges[n - 1].high + 1) {
            if (s->ranges[i].high > s->ranges[n - 1].high)
                s->ranges[n - 1].high = s->ranges[i].high;
        } else {
            s->ranges[n++] = s->ranges[i];
        }
    }
    s->n = n;
}

static void set_invert(pattern_reader *r, point_set *s)
{
    point_set inverse = {.n = 0};
    int32_t begin = 0;
    set_normalise(s);
    for (int i = 0; i < s->n; i++) {
        if (begin < s->ranges[i].low)
            set_add(r, &inverse, begin, s->ranges[i].low - 1);
        begin = s->ranges[i].high + 1;
    }
    if (begin <= POINT_LAST)
        set_add(r, &inverse, begin, POINT_LAST);
    *s = inverse;
}

static int32_t add_set(pattern_reader *r, point_set *s)
{
    set_normalise(s);
    part p = {.kind = PART_SET, .n = s->n, .ranges = malloc((size_t)(s->n + 1) * sizeof *p.ranges)};
    if (!p.ranges)
        return refuse(r, QWEN3_ERR_MEMORY, "no memory");
    memcpy(p.ranges, s->ranges, (size_t)s->n * sizeof *p.ranges);
    return add_part(r, p);
}

/* \d, \w, \s and their opposites as ECMA-262 has them. */
static bool take_class_escape(pattern_reader *r, char c, point_set *s)
{
    static const point_range digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const point_range spaces[] = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                                         {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                         {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    const char kind = (char)(c | 0x20);
    const point_range *ranges = kind == 'd' ? digits : kind == 'w' ? words : kind == 's' ? spaces : NULL;
    const size_t n = kind == 'd' ? 1 : kind == 'w' ? 4 : sizeof spaces / sizeof *spaces;
    point_set own = {.n = 0};
    if (!ranges)
        return false;
    for (size_t i = 0; i < n; i++)
        set_add(r, &own, ranges[i].low, ranges[i].high);
    if (c != kind)
        set_invert(r, &own);
    for (int i = 0; i < own.n; i++)
        set_add(r, s, own.ranges[i].low, own.ranges[i].high);
    return true;
}

static int32_t take_hex(pattern_reader *r, int digits)
{
    int32_t value = 0;
    for (; digits > 0 && r->at < r->end; digits--) {
        static const char known[] = "0123456789abcdef";
        const char *found = *r->at ? strchr(known, *r->at | 0x20) : NULL;
        if (!found)
            break;
        value = 16 * value + (int32_t)(found - known);
        r->at++;
    }
    return digits > 0 ? malformed(r, "expected hexadecimal digits") : value;
}

/* The code point of what follows a backslash. */
static int32_t take_escape(pattern_reader *r)
{
    static const char names[] = "tnrfv", values[] = "\t\n\r\f\v";
    const char c = *r->at++;
    const char *found = c ? strchr(names, c) : NULL;
    if (found)
        return values[found - names];
    if (c == 'x')
        return take_hex(r, 2);
    if (c == 'u')
        return take_hex(r, 4);
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return unsupported(r, "this escape sequence is not supported");
    return (unsigned char)c < 0x80 ? c : malformed(r, "expected an escape sequence");
}

static int32_t take_point(pattern_reader *r)
{
    size_t n;
    const int32_t point = utf8_decode((const unsigned char *)r->at, (size_t)(r->end - r->at), &n);
    r->at += n;
    return point < 0 ? malformed(r, "expected UTF-8") : point;
}

/* A code point of a class, or a class in it (false). */
static bool take_class_member(pattern_reader *r, point_set *s, int32_t *point)
{
    if (*r->at != '\\') {
        *point = take_point(r);
        return true;
    }
    r->at++;
    if (r->at == r->end)
        malformed(r, "expected an escape sequence");
    else if (take_class_escape(r, *r->at, s))
        r->at++;
    else if (*r->at == 'b')
        unsupported(r, "this escape sequence is not supported");
    else {
        *point = take_escape(r);
        return true;
    }
    return false;
}

/* After "[". */
static int32_t take_class(pattern_reader *r)
{
    point_set s = {.n = 0};
    const bool inverse = r->at < r->end && *r->at == '^';
    r->at += inverse;
    while (r->at < r->end && *r->at != ']') {
        int32_t low, high;
        if (!take_class_member(r, &s, &low))
            continue;
        high = low;
        if (r->end - r->at > 1 && r->at[0] == '-' && r->at[1] != ']') {
            r->at++;
            if (!take_class_member(r, &s, &high))
                return malformed(r, "expected a character at the end of a range");
            if (high < low)
                return malformed(r, "a range whose end is before its beginning");
        }
        set_add(r, &s, low, high);
    }
    if (r->at == r->end)
        return malformed(r, "expected ']'");
    r->at++;
    if (inverse)
        set_invert(r, &s);
    return add_set(r, &s);
}

/* ---- Expressions -------------------------------------------------------------------------------- */

static int32_t take_choice(pattern_reader *r);

/* After "(". */
static int32_t take_group(pattern_reader *r)
{
    if (r->end - r->at > 1 && r->at[0] == '?') {
        if (r->at[1] != ':')
            return unsupported(r, "groups with (? other than (?: are not supported");
        r->at += 2;
    }
    if (++r->depth > GRAMMAR_NESTED)
        return refuse(r, QWEN3_ERR_CAPACITY, "groups are nested too deeply");
    const int32_t inner = take_choice(r);
    r->depth--;
    if (r->at == r->end)
        return malformed(r, "expected ')'");
    r->at++;
    return inner;
}

static int32_t take_atom(pattern_reader *r)
{
    static const point_range lines[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
    point_set s = {.n = 0};
    switch (*r->at) {
    case '(':
        r->at++;
        return take_group(r);
    case '[':
        r->at++;
        return take_class(r);
    case '.':
        r->at++;
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
            set_add(r, &s, lines[i].low, lines[i].high);
        set_invert(r, &s);
        return add_set(r, &s);
    case '\\':
        if (++r->at == r->end)
            return malformed(r, "expected an escape sequence");
        if (take_class_escape(r, *r->at, &s)) {
            r->at++;
        } else {
            const int32_t point = take_escape(r);
            set_add(r, &s, point, point);
        }
        return add_set(r, &s);
    case '^':
    case '$':
        return unsupported(r, "an anchor is supported at the ends of the pattern only");
    case '*':
    case '+':
    case '?':
    case '{':
    case '}':
    case ']':
        return malformed(r, "a character that needs a backslash");
    default: {
        const int32_t point = take_point(r);
        set_add(r, &s, point, point);
        return add_set(r, &s);
    }
    }
}

static int64_t take_count(pattern_reader *r)
{
    int64_t value = 0;
    const char *begin = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9' && value <= GRAMMAR_COUNT)
        value = 10 * value + (*r->at++ - '0');
    if (r->at == begin)
        malformed(r, "expected a number");
    else if (value > GRAMMAR_COUNT)
        refuse(r, QWEN3_ERR_CAPACITY, "too many repetitions");
    return value;
}

static void take_bounds(pattern_reader *r, int64_t *least, int64_t *most)
{
    *least = *most = take_count(r);
    if (r->at < r->end && *r->at == ',') {
        r->at++;
        *most = r->at < r->end && *r->at == '}' ? GRAMMAR_NO_LIMIT : take_count(r);
    }
    if (r->at == r->end || *r->at != '}' || (*most != GRAMMAR_NO_LIMIT && *most < *least))
        malformed(r, "expected bounds of a repetition");
    else
        r->at++;
}

/* An atom and how often it is there. */
static int32_t take_piece(pattern_reader *r)
{
    int64_t least = 1, most = 1;
    const int32_t atom = take_atom(r);
    if (r->at == r->end || !strchr("*+?{", *r->at))
        return atom;
    const char c = *r->at++;
    if (c == '{')
        take_bounds(r, &least, &most);
    else {
        least = c == '+';
        most = c == '?' ? 1 : GRAMMAR_NO_LIMIT;
    }
    if (r->at < r->end && *r->at == '?') /* as few as possible: the same texts */
        r->at++;
    return add_part(r, (part){.kind = PART_REPEAT, .one = atom, .least = least, .most = most});
}

static int32_t take_sequence(pattern_reader *r)
{
    int32_t all = add_part(r, (part){.kind = PART_EMPTY});
    while (r->at < r->end && *r->at != '|' && *r->at != ')') {
        const int32_t piece = take_piece(r);
        all = add_part(r, (part){.kind = PART_SEQUENCE, .one = all, .other = piece});
    }
    return all;
}

static int32_t take_choice(pattern_reader *r)
{
    int32_t all = take_sequence(r);
    while (r->at < r->end && *r->at == '|') {
        r->at++;
        const int32_t other = take_sequence(r);
        all = add_part(r, (part){.kind = PART_CHOICE, .one = all, .other = other});
    }
    return all;
}

/* ---- Nodes -------------------------------------------------------------------------------------- */

/* At most GRAMMAR_COUNT + 1 of what there is a limit to. */
static int64_t bounded(int64_t n)
{
    return n > GRAMMAR_COUNT ? GRAMMAR_COUNT + 1 : n;
}

static pattern_lengths lengths_of(const pattern_reader *r, int32_t i);

/* Of a repetition. */
static pattern_lengths repeated_lengths(const pattern_reader *r, const part *p)
{
    const pattern_lengths a = lengths_of(r, p->one);
    pattern_lengths all = {bounded(a.least * p->least), 0};
    if (a.most != 0 && (p->most == GRAMMAR_NO_LIMIT || a.most == GRAMMAR_NO_LIMIT))
        all.most = p->most == 0 ? 0 : GRAMMAR_NO_LIMIT;
    else if (a.most != 0)
        all.most = bounded(a.most * p->most);
    return all;
}

/* Sequences and choices are lists by `one`: no recursion along them. */
static pattern_lengths lengths_of(const pattern_reader *r, int32_t i)
{
    const part_kind kind = r->parts[i].kind;
    if (kind == PART_EMPTY)
        return (pattern_lengths){0, 0};
    if (kind == PART_SET)
        return (pattern_lengths){1, 1};
    if (kind == PART_REPEAT)
        return repeated_lengths(r, &r->parts[i]);
    pattern_lengths all = lengths_of(r, r->parts[i].other);
    while (r->parts[i].kind == kind) {
        i = r->parts[i].one;
        const pattern_lengths one = lengths_of(r, r->parts[i].kind == kind ? r->parts[i].other : i);
        const bool endless = all.most == GRAMMAR_NO_LIMIT || one.most == GRAMMAR_NO_LIMIT;
        if (kind == PART_SEQUENCE) {
            all = (pattern_lengths){bounded(all.least + one.least), bounded(all.most + one.most)};
        } else {
            all.least = all.least < one.least ? all.least : one.least;
            all.most = all.most > one.most ? all.most : one.most;
        }
        if (endless)
            all.most = GRAMMAR_NO_LIMIT;
    }
    return all;
}

static int32_t build_set(grammar_builder *b, const part *p, int32_t next)
{
    int32_t all = NODE_DEAD;
    for (int i = 0; i < p->n; i++) {
        int32_t low = p->ranges[i].low;
        const int32_t high = p->ranges[i].high;
        static const int32_t spelled[] = {'"', '\\'};
        for (; low <= high && low < 0x20; low++)
            if (low > 0 && strchr("\b\f\n\r\t", low))
                all = build_split(b, build_spelled(b, low, next), all);
        for (size_t k = 0; k < 2; k++) {
            if (low > spelled[k] || high < spelled[k])
                continue;
            all = build_split(b, build_spelled(b, spelled[k], next), all);
            if (low < spelled[k])
                all = build_split(b, build_code_points(b, low, spelled[k] - 1, next), all);
            low = spelled[k] + 1;
        }
        if (low <= high)
            all = build_split(b, build_code_points(b, low, high, next), all);
    }
    return all;
}

static int32_t build_part(pattern_reader *r, int32_t i, int32_t next)
{
    grammar_builder *b = r->b;
    const part *p = &r->parts[i];
    if (b->err->status)
        return NODE_DEAD;
    switch (p->kind) {
    case PART_SET:
        return build_set(b, p, next);
    case PART_SEQUENCE: /* a long text is a long list by `one`: no recursion along it */
        while (r->parts[i].kind == PART_SEQUENCE) {
            next = build_part(r, r->parts[i].other, next);
            i = r->parts[i].one;
        }
        return build_part(r, i, next);
    case PART_CHOICE: {
        int32_t all = NODE_DEAD;
        for (; r->parts[i].kind == PART_CHOICE; i = r->parts[i].one)
            all = build_split(b, build_part(r, r->parts[i].other, next), all);
        return build_split(b, build_part(r, i, next), all);
    }
    case PART_REPEAT: {
        if (p->most == 1 && p->least == 0)
            return build_split(b, build_part(r, p->one, next), next);
        const int32_t rule = build_rule(b);
        build_rule_body(b, rule, build_part(r, p->one, NODE_RETURN));
        /* what may be empty need not be there */
        return build_repeat(b, rule, lengths_of(r, p->one).least == 0 ? 0 : p->least, p->most, next);
    }
    default:
        return next;
    }
}

static bool ends_in_anchor(const char *text, size_t n)
{
    size_t backslashes = 0;
    while (n > 1 + backslashes && text[n - 2 - backslashes] == '\\')
        backslashes++;
    return n > 0 && text[n - 1] == '$' && backslashes % 2 == 0;
}

int32_t build_pattern(grammar_builder *b, const char *pattern, const char *where, pattern_lengths *lengths,
                      int32_t next)
{
    const size_t n = strlen(pattern);
    const bool begins = n > 0 && *pattern == '^', ends = ends_in_anchor(pattern, n);
    pattern_reader r = {.b = b, .text = pattern, .at = pattern + begins, .end = pattern + n - ends, .where = where};
    const int32_t all = r.at <= r.end ? take_choice(&r) : 0;
    if (r.at < r.end)
        malformed(&r, "expected no ')' here");
    if ((begins || ends) && !b->err->status && r.parts[all].kind == PART_CHOICE)
        unsupported(&r, "an anchor beside a choice that has no group around it is not supported");
    *lengths = (pattern_lengths){0, GRAMMAR_NO_LIMIT};
    if (!b->err->status) {
        *lengths = lengths_of(&r, all);
        if (!begins || !ends)
            lengths->most = GRAMMAR_NO_LIMIT;
        if (!ends)
            next = build_characters(b, 0, GRAMMAR_NO_LIMIT, next);
        next = build_part(&r, all, next);
        if (!begins)
            next = build_characters(b, 0, GRAMMAR_NO_LIMIT, next);
    }
    for (int32_t i = 0; i < r.n_parts; i++)
        free(r.parts[i].ranges);
    free(r.parts);
    return b->err->status ? NODE_DEAD : next;
}
