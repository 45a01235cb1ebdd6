/* utf8.h - UTF-8 by code points, and a growing buffer. */
#ifndef QWEN3_IO_UTF8_H
#define QWEN3_IO_UTF8_H

#include "base/status.h"

#define UTF8_REPLACEMENT 0xFFFD

enum {
    UTF8_INVALID = -1,   /* a maximal subpart of an ill-formed sequence (Unicode 15, section 3.9) */
    UTF8_TRUNCATED = -2, /* the text ends within a sequence that is well-formed so far */
};

/* The code point at text[0], or one of the above; *length > 0 bytes belong to it. bytes > 0. */
int32_t utf8_decode(const unsigned char *text, size_t bytes, size_t *length);
/* Writes a code point (at most 4 bytes) and returns its length. */
size_t utf8_encode(int32_t code_point, unsigned char *out);

/* Bytes [n], owned; zeroed = empty. */
typedef struct text_buffer {
    unsigned char *data;
    size_t n, room;
} text_buffer;

/* Makes room for `more` bytes after the n. */
qwen3_status text_buffer_reserve(text_buffer *buffer, size_t more, qwen3_error *err);
qwen3_status text_buffer_append(text_buffer *buffer, const void *bytes, size_t n, qwen3_error *err);
void text_buffer_free(text_buffer *buffer);

/* Appends the text with U+FFFD for each maximal ill-formed subpart. *held: bytes at the end that may be the beginning
 * of a code point and are not appended; with held NULL they count as ill-formed. */
qwen3_status utf8_append_valid(text_buffer *out, const unsigned char *text, size_t bytes, size_t *held,
                               qwen3_error *err);

#endif
