/* text_file.h - reads whole files and streams. */
#ifndef TEXT_FILE_H
#define TEXT_FILE_H

#include <stdio.h>

#include "common/error.h"

/* All bytes of the file, or of the stream up to its end, followed by a zero byte. Freed with free(); NULL on failure.
 * `option` and the name are in the error. */
char *text_file_read(const char *path, const char *option, size_t *size, qwen3_error *err);
char *text_stream_read(FILE *stream, const char *name, const char *option, size_t *size, qwen3_error *err);

#endif
