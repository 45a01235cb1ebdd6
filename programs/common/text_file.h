/* text_file.h - files and streams read whole. */
#ifndef TEXT_FILE_H
#define TEXT_FILE_H

#include <stdio.h>

#include "common/error.h"

/* All bytes of the file, or of the stream to its end, with a zero byte behind them; NULL on failure. `option` and
 * the name stand in the error. Freed with free(). */
char *text_file_read(const char *path, const char *option, size_t *size, qwen3_error *err);
char *text_stream_read(FILE *stream, const char *name, const char *option, size_t *size, qwen3_error *err);

#endif
