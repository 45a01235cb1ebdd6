/* text_buffer.c - see text_buffer.h. */
#include "common/text_buffer.h"

#include <stdlib.h>
#include <string.h>

qwen3_status text_append(text_buffer *buffer, const char *bytes, size_t n, qwen3_error *err)
{
    if (buffer->n + n + 1 > buffer->room) {
        size_t room = 2 * (buffer->n + n) + 64;
        char *larger = realloc(buffer->data, room);
        if (!larger)
            return set_error(err, QWEN3_ERR_MEMORY, "text: cannot allocate %zu bytes", room);
        buffer->data = larger;
        buffer->room = room;
    }
    if (n > 0)
        memcpy(buffer->data + buffer->n, bytes, n);
    buffer->n += n;
    buffer->data[buffer->n] = '\0';
    return QWEN3_OK;
}

void text_drop(text_buffer *buffer, size_t n)
{
    if (n == 0)
        return;
    memmove(buffer->data, buffer->data + n, buffer->n - n + 1);
    buffer->n -= n;
}

void text_clear(text_buffer *buffer)
{
    text_drop(buffer, buffer->n);
}

void text_free(text_buffer *buffer)
{
    free(buffer->data);
    *buffer = (text_buffer){0};
}
