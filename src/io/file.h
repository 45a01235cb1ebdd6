/* file.h - a file mapped read-only and whole. */
#ifndef QWEN3_IO_FILE_H
#define QWEN3_IO_FILE_H

#include "base/status.h"

/* Maps a regular file; anything else (a directory, a pipe, a device, an empty file) is refused without
 * waiting for it. *map is page-aligned, owned by the caller and given back with file_unmap; NULL on failure. */
qwen3_status file_map(const char *path, void **map, size_t *bytes, qwen3_error *err);
void file_unmap(void *map, size_t bytes);

#endif
