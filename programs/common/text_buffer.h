/* text_buffer.h - a growing array of bytes. */
#ifndef TEXT_BUFFER_H
#define TEXT_BUFFER_H

#include <stddef.h>

#include "common/error.h"

/* All zero = empty. */
typedef struct text_buffer {
    char *data; /* [n], followed by a zero byte if room > 0 */
    size_t n, room;
} text_buffer;

/* On failure the buffer is unchanged. */
qwen3_status text_append(text_buffer *buffer, const char *bytes, size_t n, qwen3_error *err);
/* Removes the first n bytes. */
void text_drop(text_buffer *buffer, size_t n);
/* Empties the buffer but keeps its memory. */
void text_clear(text_buffer *buffer);
/* Empties the buffer and frees its memory. */
void text_free(text_buffer *buffer);

#endif
