/* text_file.c - see text_file.h. */
#include "common/text_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Longer files cannot be a prompt. */
#define MAX_FILE_BYTES ((size_t)256 << 20)

char *text_stream_read(FILE *stream, const char *name, const char *option, size_t *size, qwen3_error *err)
{
    size_t room = 0;
    char *buffer = NULL;
    *size = 0;
    errno = 0;
    do {
        if (*size + 1 >= room) {
            room = room ? 2 * room : 4096;
            char *larger = room <= MAX_FILE_BYTES ? realloc(buffer, room) : NULL;
            if (!larger) {
                set_error(err, QWEN3_ERR_MEMORY, "%s: %s is too large", option, name);
                free(buffer);
                return NULL;
            }
            buffer = larger;
        }
        *size += fread(buffer + *size, 1, room - 1 - *size, stream);
    } while (!feof(stream) && !ferror(stream));
    if (ferror(stream)) {
        set_error(err, QWEN3_ERR_IO, "%s: cannot read %s: %s", option, name, strerror(errno));
        free(buffer);
        return NULL;
    }
    buffer[*size] = '\0';
    return buffer;
}

char *text_file_read(const char *path, const char *option, size_t *size, qwen3_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        set_error(err, QWEN3_ERR_IO, "%s: cannot open %s: %s", option, path, strerror(errno));
        return NULL;
    }
    char *text = text_stream_read(file, path, option, size, err);
    fclose(file);
    return text;
}
