/* grammar_build.c - nodes of a grammar, and the parts of JSON that every schema has. */
#include <stdlib.h>
#include <string.h>

#include "io/grammar.h"
#include "io/utf8.h"

enum { INDENTATION = 64 };

/* Room for one more of n; false after a fault. */
static bool grow(grammar_builder *b, void **array, int32_t n, int32_t *room, size_t size)
{
    if (b->err->status)
        return false;
    if (n < *room)
        return true;
    if (n >= GRAMMAR_NODES) {
        fail(b->err, QWEN3_ERR_CAPACITY, "#: the schema is too large, it needs more than %d states", GRAMMAR_NODES);
        return false;
    }
    const int32_t larger = 2 * *room + 64;
    void *moved = realloc(*array, (size_t)larger * size);
    if (!moved) {
        fail(b->err, QWEN3_ERR_MEMORY, "#: no memory for the schema");
        return false;
    }
    *array = moved;
    *room = larger;
    return true;
}

static int32_t add_node(grammar_builder *b, grammar_node node)
{
    qwen3_grammar *g = b->g;
    if (!grow(b, (void **)&g->nodes, g->n_nodes, &g->room_nodes, sizeof *g->nodes))
        return NODE_DEAD;
    g->nodes[g->n_nodes] = node;
    return g->n_nodes++;
}

int32_t build_class(grammar_builder *b, const grammar_class *c, int32_t next)
{
    qwen3_grammar *g = b->g;
    int32_t k = 0;
    if (next == NODE_DEAD)
        return NODE_DEAD;
    while (k < g->n_classes && memcmp(&g->classes[k], c, sizeof *c) != 0)
        k++;
    if (k == g->n_classes) {
        if (!grow(b, (void **)&g->classes, g->n_classes, &g->room_classes, sizeof *g->classes))
            return NODE_DEAD;
        g->classes[g->n_classes++] = *c;
    }
    return add_node(b, (grammar_node){.op = GRAMMAR_BYTE, .what = k, .next = next});
}

int32_t build_range(grammar_builder *b, unsigned char low, unsigned char high, int32_t next)
{
    grammar_class c = {{0}};
    for (int byte = low; byte <= high; byte++)
        c.bits[byte / 64] |= (uint64_t)1 << byte % 64;
    return build_class(b, &c, next);
}

int32_t build_text(grammar_builder *b, const char *text, size_t n, int32_t next)
{
    while (n-- > 0)
        next = build_range(b, (unsigned char)text[n], (unsigned char)text[n], next);
    return next;
}

int32_t build_split(grammar_builder *b, int32_t one, int32_t other)
{
    if (one == NODE_DEAD || one == other)
        return other;
    if (other == NODE_DEAD)
        return one;
    return add_node(b, (grammar_node){.op = GRAMMAR_SPLIT, .next = one, .what = other});
}

int32_t build_rule(grammar_builder *b)
{
    qwen3_grammar *g = b->g;
    if (!grow(b, (void **)&g->rules, g->n_rules, &g->room_rules, sizeof *g->rules))
        return 0;
    g->rules[g->n_rules] = NODE_DEAD;
    return g->n_rules++;
}

void build_rule_body(grammar_builder *b, int32_t rule, int32_t start)
{
    if (!b->err->status)
        b->g->rules[rule] = start;
}

int32_t build_call(grammar_builder *b, int32_t rule, int32_t next)
{
    return add_node(b, (grammar_node){.op = GRAMMAR_CALL, .what = rule, .next = next});
}

int32_t build_repeat(grammar_builder *b, int32_t rule, int64_t least, int64_t most, int32_t next)
{
    if (least > GRAMMAR_COUNT || most > GRAMMAR_COUNT) {
        fail(b->err, QWEN3_ERR_CAPACITY, "#: a repetition of more than %d times", GRAMMAR_COUNT);
        return NODE_DEAD;
    }
    if (most != GRAMMAR_NO_LIMIT && most < least)
        return NODE_DEAD;
    if (most == 0)
        return next;
    const grammar_node node = {
        .op = GRAMMAR_REPEAT, .what = rule, .next = next, .least = (int32_t)least, .most = (int32_t)most};
    return add_node(b, node);
}

int32_t build_space(grammar_builder *b, int32_t next)
{
    if (b->space_rule < 0) {
        b->space_rule = build_rule(b);
        const int32_t blank = build_split(b, build_text(b, " ", 1, NODE_RETURN), build_text(b, "\t", 1, NODE_RETURN));
        build_rule_body(b, b->space_rule, blank);
    }
    const int32_t lines = build_text(b, "\n", 1, build_repeat(b, b->space_rule, 0, INDENTATION, next));
    return build_split(b, next, build_split(b, build_text(b, " ", 1, next), lines));
}

/* ---- UTF-8 -------------------------------------------------------------------------------------- */

/* Code points of the same length whose UTF-8 differs in the last `tail` bytes. Where the range is not one of whole
 * blocks of the next byte it is split into at most three that are. */
static int32_t build_utf8(grammar_builder *b, int32_t low, int32_t high, int32_t next)
{
    unsigned char from[4], to[4];
    const size_t n = utf8_encode(low, from);
    utf8_encode(high, to);
    for (size_t i = 1; i < n; i++) {
        const int32_t block = (int32_t)1 << 6 * i, last = block - 1;
        if ((low & ~last) == (high & ~last))
            continue;
        if (low & last)
            return build_split(b, build_utf8(b, low, low | last, next), build_utf8(b, (low | last) + 1, high, next));
        if ((high & last) != last)
            return build_split(b, build_utf8(b, low, (high & ~last) - 1, next),
                               build_utf8(b, high & ~last, high, next));
    }
    for (size_t i = n; i-- > 0;)
        next = build_range(b, from[i], to[i], next);
    return next;
}

int32_t build_code_points(grammar_builder *b, int32_t low, int32_t high, int32_t next)
{
    static const int32_t ends[] = {0x7F, 0x7FF, 0xD7FF, 0xDFFF, 0xFFFF, 0x10FFFF};
    int32_t all = NODE_DEAD, begin = 0;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; begin = ends[i++] + 1) {
        const int32_t from = low > begin ? low : begin, to = high < ends[i] ? high : ends[i];
        if (from <= to && ends[i] != 0xDFFF)
            all = build_split(b, build_utf8(b, from, to, next), all);
    }
    return all;
}

/* ---- Strings ------------------------------------------------------------------------------------ */

int32_t build_spelled(grammar_builder *b, int32_t code_point, int32_t next)
{
    static const char plain[] = "\"\\\b\f\n\r\t", escaped[] = "\"\\bfnrt";
    const char *found = code_point > 0 && code_point < 0x80 ? strchr(plain, code_point) : NULL;
    if (found)
        return build_text(b, (const char[]){'\\', escaped[found - plain]}, 2, next);
    return code_point < 0x20 ? NODE_DEAD : build_code_points(b, code_point, code_point, next);
}

int32_t build_string(grammar_builder *b, const char *text, size_t n, int32_t next)
{
    next = build_text(b, "\"", 1, next);
    for (size_t i = n; i-- > 0;) {
        const unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            next = build_text(b, &text[i], 1, next);
        } else if (c >= 0x20 || strchr("\b\f\n\r\t", c)) {
            next = build_spelled(b, c, next);
        } else {
            static const char digits[] = "0123456789abcdef";
            const char spelled[] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
            next = build_text(b, spelled, sizeof spelled, next);
        }
    }
    return build_text(b, "\"", 1, next);
}

static int32_t build_hex(grammar_builder *b, const char *digits, int32_t next)
{
    grammar_class c = {{0}};
    for (; *digits; digits++)
        c.bits[*digits / 64] |= (uint64_t)1 << *digits % 64;
    return build_class(b, &c, next);
}

/* What follows "\u" of a character: four digits that are no surrogate and not all zero, or a pair of surrogates. A
 * zero is left out because readers in C have no place for it. */
static int32_t build_unicode_escape(grammar_builder *b, int32_t next)
{
    static const char any[] = "0123456789abcdefABCDEF", not_0[] = "123456789abcdefABCDEF";
    static const char other[] = "123456789abcefABCEF";
    const int32_t one = build_hex(b, any, next), two = build_hex(b, any, one), three = build_hex(b, any, two);
    const int32_t low = build_text(b, "\\u", 2, build_hex(b, "dD", build_hex(b, "cdefCDEF", two)));
    const int32_t pair = build_hex(b, "89abAB", build_hex(b, any, build_hex(b, any, low)));
    const int32_t after_d = build_split(b, build_hex(b, "01234567", two), pair);
    int32_t after_0 = build_hex(b, not_0, next);
    after_0 = build_split(b, build_hex(b, not_0, one), build_hex(b, "0", after_0));
    after_0 = build_split(b, build_hex(b, not_0, two), build_hex(b, "0", after_0));
    return build_split(b, build_hex(b, other, three),
                       build_split(b, build_hex(b, "dD", after_d), build_hex(b, "0", after_0)));
}

int32_t build_characters(grammar_builder *b, int64_t least, int64_t most, int32_t next)
{
    if (b->char_rule < 0) {
        b->char_rule = build_rule(b);
        const int32_t short_escape = build_hex(b, "\"\\/bfnrt", NODE_RETURN);
        const int32_t long_escape = build_text(b, "u", 1, build_unicode_escape(b, NODE_RETURN));
        const int32_t escape = build_text(b, "\\", 1, build_split(b, short_escape, long_escape));
        grammar_class plain = {{~(uint64_t)0 << ' ', ~(uint64_t)0, 0, 0}};
        plain.bits['"' / 64] &= ~((uint64_t)1 << '"');
        plain.bits['\\' / 64] &= ~((uint64_t)1 << '\\' % 64);
        const int32_t beyond = build_code_points(b, 0x80, 0x10FFFF, NODE_RETURN);
        const int32_t raw = build_split(b, build_class(b, &plain, NODE_RETURN), beyond);
        build_rule_body(b, b->char_rule, build_split(b, raw, escape));
    }
    return build_repeat(b, b->char_rule, least, most, next);
}
