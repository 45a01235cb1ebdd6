/* tokenizer_split.c - the split pattern of the family as a scanner: linear time, no regular expressions.
 *
 * At each place the first alternative that matches is taken, as a backtracking engine does:
 *   1  (?i:'s|'t|'re|'ve|'m|'ll|'d)     the long s is an s (simple case folding)
 *   2  [^\r\n\p{L}\p{N}]?\p{L}+
 *   3  \p{N}
 *   4   ?[^\s\p{L}\p{N}]+[\r\n]*
 *   5  \s*[\r\n]+                        up to the last line break of the white space
 *   6  \s+(?!\S)                         all white space but the last character, or all at the end of the text
 *   7  \s+
 *
 * A newer form has [\p{L}\p{M}]+ in 2 and [^\s\p{L}\p{M}\p{N}]+ in 4, and differs in nothing but that marks are
 * letters: the class before the letters in 2 still has marks, but one that it takes could have been taken by what
 * follows. */
#include "io/tokenizer.h"

#include <string.h>

#include <utf8proc.h>

typedef enum kind { OTHER = 0, LETTER, NUMBER, SPACE, BREAK } kind; /* BREAK: \r, \n */

static const unsigned char ascii_kinds[128] = {
    ['\t'] = SPACE, ['\n'] = BREAK,         ['\v'] = SPACE,         ['\f'] = SPACE,         ['\r'] = BREAK,
    [' '] = SPACE,  ['0' ... '9'] = NUMBER, ['A' ... 'Z'] = LETTER, ['a' ... 'z'] = LETTER,
};

/* White_Space of the Unicode character database, beyond ASCII. */
static bool is_wide_space(int32_t c)
{
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static kind wide_kind(int32_t c, bool marks)
{
    utf8proc_category_t category = utf8proc_get_property(c)->category; /* Lu to Lo, Mn to Me, Nd to No, ... */
    if (category >= UTF8PROC_CATEGORY_LU && category <= (marks ? UTF8PROC_CATEGORY_ME : UTF8PROC_CATEGORY_LO))
        return LETTER;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO)
        return NUMBER;
    return is_wide_space(c) ? SPACE : OTHER;
}

/* The kind of the character at text[0], which has *length bytes. bytes > 0. */
static inline kind kind_at(const unsigned char *text, size_t bytes, bool marks, size_t *length)
{
    if (text[0] < 0x80) {
        *length = 1;
        return ascii_kinds[text[0]];
    }
    int32_t c = utf8_decode(text, bytes, length);
    return c < 0 ? OTHER : wide_kind(c, marks);
}

/* Where the run of characters of this kind that begins at `at` ends. */
static size_t run_end(const unsigned char *text, size_t bytes, size_t at, kind wanted, bool marks)
{
    size_t length;
    while (at < bytes && kind_at(text + at, bytes - at, marks, &length) == wanted)
        at += length;
    return at;
}

/* Alternative 1: bytes of the contraction at text[0] = '\'', or 0. */
static size_t contraction(const unsigned char *text, size_t bytes)
{
    static const unsigned char pairs[][2] = {{'r', 'e'}, {'v', 'e'}, {'l', 'l'}};
    if (bytes < 2)
        return 0;
    unsigned char first = text[1] | 0x20;
    if (text[1] < 0x80 && first != 0 && strchr("stmd", first))
        return 2;
    if (bytes < 3)
        return 0;
    if (text[1] == 0xC5 && text[2] == 0xBF) /* U+017F, the long s */
        return 3;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (first == pairs[i][0] && (text[2] | 0x20) == pairs[i][1])
            return 3;
    return 0;
}

/* Alternatives 5 to 7, from white space at text[0]. */
static size_t space_end(const unsigned char *text, size_t bytes)
{
    size_t at = 0, last = 0, after_break = 0, length;
    while (at < bytes) {
        kind k = kind_at(text + at, bytes - at, false, &length); /* a mark is no space either way */
        if (k != SPACE && k != BREAK)
            break;
        last = at;
        at += length;
        if (k == BREAK)
            after_break = at;
    }
    if (after_break)
        return after_break;
    return at == bytes || last == 0 ? at : last;
}

size_t split_piece(const unsigned char *text, size_t bytes, bool marks)
{
    size_t length, next_length;
    kind first = kind_at(text, bytes, marks, &length), next = SPACE;
    if (text[0] == '\'') {
        size_t end = contraction(text, bytes);
        if (end)
            return end;
    }
    if (first == LETTER)
        return run_end(text, bytes, length, LETTER, marks);
    if (first == NUMBER)
        return length;
    if (length < bytes)
        next = kind_at(text + length, bytes - length, marks, &next_length);
    if (first != BREAK && next == LETTER)
        return run_end(text, bytes, length + next_length, LETTER, marks);
    if (first == OTHER || (text[0] == ' ' && next == OTHER))
        return run_end(text, bytes, run_end(text, bytes, length, OTHER, marks), BREAK, marks);
    return space_end(text, bytes);
}
