/* file.h - maps a whole file, read-only. */
#ifndef QWEN3_IO_FILE_H
#define QWEN3_IO_FILE_H

#include <stdbool.h>

#include "base/status.h"

/* Whether there is anything of this name. A link that leads nowhere is there, and a file that cannot be looked at too:
 * the one that then opens it says what is wrong. */
bool file_exists(const char *path);

/* Maps a regular file. Anything else (a directory, a pipe, a device) and an empty file are refused, without waiting.
 * *map is page-aligned and owned by the caller (file_unmap); NULL on failure. */
qwen3_status file_map(const char *path, void **map, size_t *bytes, qwen3_error *err);
void file_unmap(void *map, size_t bytes);

#endif
