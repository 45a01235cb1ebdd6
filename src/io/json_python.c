/* json_python.c - see json_python.h. (CPython: Lib/json/encoder.py, Python/dtoa.c mode 0, Python/pystrtod.c) */
#include "io/json_python.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "io/utf8.h"

typedef struct writer {
    json_python_sink sink;
    void *to;
    bool repr; /* Python's literals, not JSON */
} writer;

static void put(const writer *w, const char *text)
{
    w->sink(w->to, text, strlen(text));
}

/* The character after the backslash, or 0. */
static char short_escape(char c)
{
    switch (c) {
    case '"':
    case '\\':
        return c;
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    default:
        return 0;
    }
}

static void write_string(const writer *w, const char *text, size_t length)
{
    size_t plain = 0; /* start of the text that is not written yet and needs no escape */
    put(w, "\"");
    for (size_t i = 0; i < length; i++) {
        char escape[8], c = short_escape(text[i]);
        if (!c && (unsigned char)text[i] >= 0x20)
            continue;
        w->sink(w->to, text + plain, i - plain);
        plain = i + 1;
        if (c)
            snprintf(escape, sizeof escape, "\\%c", c);
        else
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)text[i]);
        put(w, escape);
    }
    w->sink(w->to, text + plain, length - plain);
    put(w, "\"");
}

/* ---- Python's literals ------------------------------------------------------------------------- */

/* Whether str.isprintable says so: no control, format, private or unassigned character, and no separator but the
 * space. */
static bool is_printable(int32_t c)
{
    const utf8proc_category_t k = utf8proc_get_property(c)->category;
    return c == ' ' || (k != UTF8PROC_CATEGORY_CN && k < UTF8PROC_CATEGORY_ZS);
}

/* In single quotes, unless it has these and no double ones. */
static void write_literal(const writer *w, const char *text, size_t length)
{
    const bool other = memchr(text, '\'', length) && !memchr(text, '"', length);
    const char *quote = other ? "\"" : "'";
    size_t bytes;
    put(w, quote);
    for (size_t at = 0; at < length; at += bytes) {
        char escape[16];
        const int32_t c = utf8_decode((const unsigned char *)text + at, length - at, &bytes);
        if (c == *quote || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(escape, sizeof escape, "\\%c", short_escape((char)c));
        else if (c < 0 || is_printable(c))
            escape[0] = '\0';
        else
            snprintf(escape, sizeof escape, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        if (escape[0])
            put(w, escape);
        else
            w->sink(w->to, text + at, bytes);
    }
    put(w, quote);
}

/* ---- Numbers ----------------------------------------------------------------------------------- */

enum { DIGITS = 17 };

/* A positive number 0.d1 d2 ... dn x 10^point. */
typedef struct decimal {
    char digits[DIGITS + 1];
    int point;
} decimal;

/* The decimal of n digits that is nearest to x. */
static decimal decimal_nearest(double x, int n)
{
    char text[40];
    decimal d = {.digits = ""};
    snprintf(text, sizeof text, "%.*e", n - 1, x);
    d.digits[0] = text[0];
    if (n > 1)
        memcpy(d.digits + 1, text + 2, (size_t)n - 1); /* skips the locale's decimal point */
    d.point = atoi(strchr(text, 'e') + 1) + 1;
    return d;
}

/* Adds one to the last digit. */
static decimal decimal_next(decimal d)
{
    size_t i = strlen(d.digits);
    while (i > 0 && d.digits[i - 1] == '9')
        d.digits[--i] = '0';
    if (i > 0) {
        d.digits[i - 1]++;
    } else { /* all digits were nines */
        d.digits[0] = '1';
        d.point++;
    }
    return d;
}

static bool decimal_is(const decimal *d, double x)
{
    char text[40];
    snprintf(text, sizeof text, "%se%d", d->digits, d->point - (int)strlen(d->digits));
    return strtod(text, NULL) == x;
}

/* The fewest digits that read back as x. Numbers are closer together below a power of two than above it: there the
 * nearest decimal, which is smaller, may not read back where the next larger one does. */
static decimal decimal_shortest(double x)
{
    int exponent;
    bool power_of_two = frexp(x, &exponent) == 0.5;
    for (int n = 1; n < DIGITS; n++) {
        decimal d = decimal_nearest(x, n);
        if (decimal_is(&d, x))
            return d;
        d = decimal_next(d);
        if (power_of_two && decimal_is(&d, x))
            return d;
    }
    return decimal_nearest(x, DIGITS);
}

static void write_real(const writer *w, double x)
{
    char text[64];
    if (signbit(x))
        put(w, "-");
    if (x == 0) {
        put(w, "0.0");
        return;
    }
    decimal d = decimal_shortest(fabs(x));
    int n = (int)strlen(d.digits), point = d.point;
    if (point <= -4 || point > 16) {
        snprintf(text, sizeof text, "%c%s%se%c%02d", d.digits[0], n > 1 ? "." : "", d.digits + 1, point > 0 ? '+' : '-',
                 abs(point - 1));
    } else if (point <= 0) {
        snprintf(text, sizeof text, "0.%.*s%s", -point, "0000", d.digits);
    } else if (point < n) {
        snprintf(text, sizeof text, "%.*s.%s", point, d.digits, d.digits + point);
    } else {
        snprintf(text, sizeof text, "%s%.*s.0", d.digits, point - n, "0000000000000000");
    }
    put(w, text);
}

/* ---- Values ------------------------------------------------------------------------------------ */

static void write_text(const writer *w, const char *text, size_t length)
{
    if (w->repr)
        write_literal(w, text, length);
    else
        write_string(w, text, length);
}

/* Recursion as deep as the value, which Jansson limits (JSON_PARSER_MAX_DEPTH). NOLINTNEXTLINE(misc-no-recursion) */
static void write_value(const writer *w, const json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;
    char number[32];
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        put(w, "{");
        i = 0;
        json_object_foreach((json_t *)value, key, member)
        {
            put(w, i++ ? ", " : "");
            write_text(w, key, strlen(key));
            put(w, ": ");
            write_value(w, member);
        }
        put(w, "}");
        break;
    case JSON_ARRAY:
        put(w, "[");
        json_array_foreach(value, i, member)
        {
            put(w, i ? ", " : "");
            write_value(w, member);
        }
        put(w, "]");
        break;
    case JSON_STRING:
        write_text(w, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%" PRId64, (int64_t)json_integer_value(value));
        put(w, number);
        break;
    case JSON_REAL:
        write_real(w, json_real_value(value));
        break;
    case JSON_TRUE:
        put(w, w->repr ? "True" : "true");
        break;
    case JSON_FALSE:
        put(w, w->repr ? "False" : "false");
        break;
    case JSON_NULL:
        put(w, w->repr ? "None" : "null");
        break;
    }
}

void json_python_write(const json_t *value, json_python_sink sink, void *to)
{
    write_value(&(writer){sink, to, false}, value);
}

void json_python_write_str(const json_t *value, json_python_sink sink, void *to)
{
    if (json_is_string(value))
        sink(to, json_string_value(value), json_string_length(value));
    else
        write_value(&(writer){sink, to, true}, value);
}
