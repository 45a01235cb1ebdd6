/* utf8.c - see utf8.h. */
#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>

/* The range of the second byte is narrower after some first bytes, to exclude overlong forms, surrogates, and code
 * points above U+10FFFF. */
static bool second_fits(unsigned char first, unsigned char second)
{
    unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    return second >= low && second <= high;
}

int32_t utf8_decode(const unsigned char *text, size_t bytes, size_t *length)
{
    unsigned char first = text[0];
    *length = 1;
    if (first < 0x80)
        return first;
    if (first < 0xC2 || first > 0xF4)
        return UTF8_INVALID;
    size_t whole = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    int32_t code_point = first & (0x7F >> whole);
    for (size_t i = 1; i < whole; i++) {
        *length = i;
        if (i == bytes)
            return UTF8_TRUNCATED;
        if (i == 1 ? !second_fits(first, text[1]) : (text[i] & 0xC0) != 0x80)
            return UTF8_INVALID;
        code_point = code_point << 6 | (text[i] & 0x3F);
    }
    *length = whole;
    return code_point;
}

size_t utf8_encode(int32_t code_point, unsigned char *out)
{
    uint32_t c = (uint32_t)code_point;
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (unsigned char)(0x80 | (c & 0x3F));
    out[0] = (unsigned char)((0xF00 >> length) | c);
    return length;
}

qwen3_status text_buffer_reserve(text_buffer *buffer, size_t more, qwen3_error *err)
{
    size_t needed = buffer->n + more;
    if (needed <= buffer->room)
        return QWEN3_OK;
    size_t room = needed > 2 * buffer->room ? needed : 2 * buffer->room;
    unsigned char *data = realloc(buffer->data, room);
    if (!data)
        return fail(err, QWEN3_ERR_MEMORY, "text: cannot allocate %zu bytes", room);
    buffer->data = data;
    buffer->room = room;
    return QWEN3_OK;
}

qwen3_status text_buffer_append(text_buffer *buffer, const void *bytes, size_t n, qwen3_error *err)
{
    qwen3_status status = text_buffer_reserve(buffer, n, err);
    if (status == QWEN3_OK && n) {
        memcpy(buffer->data + buffer->n, bytes, n);
        buffer->n += n;
    }
    return status;
}

void text_buffer_free(text_buffer *buffer)
{
    free(buffer->data);
    *buffer = (text_buffer){0};
}

qwen3_status utf8_append_valid(text_buffer *out, const unsigned char *text, size_t bytes, size_t *held,
                               qwen3_error *err)
{
    static const unsigned char replacement[] = {0xEF, 0xBF, 0xBD};
    qwen3_status status = QWEN3_OK;
    size_t begin = 0, at = 0, length;
    if (held)
        *held = 0;
    if (bytes == 0) /* text may be NULL */
        return QWEN3_OK;
    while (at < bytes && status == QWEN3_OK) {
        int32_t code_point = utf8_decode(text + at, bytes - at, &length);
        if (code_point < 0) {
            status = text_buffer_append(out, text + begin, at - begin, err);
            begin = at + length;
            if (code_point == UTF8_TRUNCATED && held)
                *held = length;
            else if (status == QWEN3_OK)
                status = text_buffer_append(out, replacement, sizeof replacement, err);
        }
        at += length;
    }
    return status ? status : text_buffer_append(out, text + begin, at - begin, err);
}
