/* json_reader.c - see json_reader.h. */
#include "io/json_reader.h"

#include <string.h>

#include "io/utf8.h"

static void skip_space(json_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

bool json_take(json_reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

bool json_at_end(json_reader *r)
{
    skip_space(r);
    return r->at == r->end;
}

qwen3_status json_expected(const json_reader *r, const char *expected, qwen3_error *err)
{
    size_t line = 1;
    for (const char *p = r->text; p < r->at; p++)
        line += *p == '\n';
    return fail(err, QWEN3_ERR_FORMAT, "%s: line %zu: expected %s%s", r->path, line, expected,
                r->at == r->end ? ", the text ends" : "");
}

/* Four hexadecimal digits, or -1. */
static int32_t take_hex(json_reader *r)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        if (r->at == r->end)
            return -1;
        char c = *r->at;
        int digit = c >= '0' && c <= '9'                     ? c - '0'
                    : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* The code point of what follows a backslash; -1 if it is no escape. */
static int32_t take_escape(json_reader *r)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end)
        return -1;
    char c = *r->at++;
    const char *known = c ? strchr(names, c) : NULL;
    if (known)
        return values[known - names];
    if (c != 'u')
        return -1;
    int32_t high = take_hex(r);
    if (high < 0xD800 || high > 0xDFFF)
        return high;
    if (high > 0xDBFF || r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u')
        return -1;
    r->at += 2;
    int32_t low = take_hex(r);
    return low < 0xDC00 || low > 0xDFFF ? -1 : 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

static qwen3_status take_escaped(json_reader *r, char *buffer, size_t room, size_t *n, qwen3_error *err)
{
    *n = 0;
    while (r->at < r->end && *r->at != '"') {
        if (*n + 4 > room)
            return json_expected(r, "a shorter string", err);
        if ((unsigned char)*r->at < 0x20)
            return json_expected(r, "no control character in a string", err);
        if (*r->at != '\\') {
            buffer[(*n)++] = *r->at++;
            continue;
        }
        r->at++;
        int32_t code_point = take_escape(r);
        if (code_point < 0)
            return json_expected(r, "an escape sequence", err);
        *n += utf8_encode(code_point, (unsigned char *)buffer + *n);
    }
    return r->at < r->end ? QWEN3_OK : json_expected(r, "the end of a string", err);
}

qwen3_status json_take_string(json_reader *r, char *buffer, size_t room, const char **string, size_t *n,
                              qwen3_error *err)
{
    if (!json_take(r, '"'))
        return json_expected(r, "a string", err);
    const char *begin = r->at;
    while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= 0x20)
        r->at++;
    *string = begin;
    *n = (size_t)(r->at - begin);
    if (r->at < r->end && *r->at == '"') {
        r->at++;
        return QWEN3_OK;
    }
    r->at = begin;
    *string = buffer;
    qwen3_status status = take_escaped(r, buffer, room, n, err);
    r->at += status == QWEN3_OK;
    return status;
}

qwen3_status json_take_integer(json_reader *r, int32_t *value, qwen3_error *err)
{
    enum { DIGITS = 9 };
    skip_space(r);
    const char *begin = r->at;
    *value = 0;
    while (r->at < r->end && r->at - begin < DIGITS && *r->at >= '0' && *r->at <= '9')
        *value = 10 * *value + (*r->at++ - '0');
    bool number_goes_on = r->at < r->end && (strchr("+-.eE", *r->at) || (*r->at >= '0' && *r->at <= '9'));
    bool leading_zero = r->at - begin > 1 && *begin == '0';
    if (r->at == begin || number_goes_on || leading_zero) {
        r->at = begin;
        return json_expected(r, "an integer from 0 to 999999999", err);
    }
    return QWEN3_OK;
}

/* Skips a string after its first quote. */
static bool skip_string(json_reader *r)
{
    while (r->at < r->end && *r->at != '"')
        r->at += *r->at == '\\' && r->end - r->at > 1 ? 2 : 1;
    return r->at++ < r->end;
}

/* Skips a value, up to the comma or bracket that follows it. */
static qwen3_status skip_value(json_reader *r, qwen3_error *err)
{
    size_t depth = 0;
    for (; r->at < r->end; r->at++) {
        switch (*r->at) {
        case '"':
            r->at++;
            if (!skip_string(r)) {
                r->at = r->end;
                return json_expected(r, "the end of a string", err);
            }
            r->at--;
            break;
        case '[':
        case '{':
            depth++;
            break;
        case ']':
        case '}':
            if (depth == 0)
                return QWEN3_OK;
            depth--;
            break;
        case ',':
            if (depth == 0)
                return QWEN3_OK;
            break;
        default:
            break;
        }
    }
    return json_expected(r, "the end of a value", err);
}

static qwen3_status take_member(json_reader *r, const json_members *m, qwen3_error *err)
{
    char buffer[64];
    const char *name = buffer;
    size_t n = 0, i = 0;
    qwen3_status status = json_take_string(r, buffer, sizeof buffer, &name, &n, err);
    if (status)
        return status;
    if (!json_take(r, ':'))
        return json_expected(r, "':'", err);
    while (i < m->n && (strlen(m->names[i]) != n || memcmp(m->names[i], name, n) != 0))
        i++;
    int shown = n > 64 ? 64 : (int)n;
    if (i == m->n)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: %s%.*s: this section is not handled", r->path, m->where, shown,
                    name);
    if (m->values[i].text)
        return fail(err, QWEN3_ERR_FORMAT, "%s: %s%s: is there twice", r->path, m->where, m->names[i]);
    m->values[i] = *r;
    status = m->inner && i == m->inner_of ? json_take_members(r, m->inner, err) : skip_value(r, err);
    m->values[i].end = r->at;
    return status;
}

qwen3_status json_take_members(json_reader *r, const json_members *m, qwen3_error *err)
{
    for (size_t i = 0; i < m->n; i++)
        m->values[i] = (json_reader){.path = r->path};
    if (!json_take(r, '{'))
        return json_expected(r, "an object", err);
    if (json_take(r, '}'))
        return QWEN3_OK;
    do {
        qwen3_status status = take_member(r, m, err);
        if (status)
            return status;
    } while (json_take(r, ','));
    return json_take(r, '}') ? QWEN3_OK : json_expected(r, "',' or '}'", err);
}
