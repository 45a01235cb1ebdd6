/* file.h - maps a whole file, read-only. */
#ifndef QWEN3_IO_FILE_H
#define QWEN3_IO_FILE_H

#include "base/status.h"

/* Maps a regular file. Anything else (a directory, a pipe, a device) and an empty file are refused, without waiting.
 * *map is page-aligned and owned by the caller (file_unmap); NULL on failure. */
qwen3_status file_map(const char *path, void **map, size_t *bytes, qwen3_error *err);
void file_unmap(void *map, size_t bytes);

#endif
