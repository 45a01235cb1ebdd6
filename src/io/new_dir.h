/* new_dir.h - a directory that is filled, and left as it was if that fails. */
#ifndef QWEN3_IO_NEW_DIR_H
#define QWEN3_IO_NEW_DIR_H

#include "base/status.h"

typedef struct new_dir {
    char *path;
    bool made; /* it did not exist */
} new_dir;

/* `path` must not exist, or be an empty directory. On failure *dir is zeroed and nothing is kept; otherwise
 * new_dir_finish must follow. */
qwen3_status new_dir_begin(const char *path, new_dir *dir, qwen3_error *err);
/* Makes a file in it. *descriptor is the caller's (new_dir_close). */
qwen3_status new_dir_file(const new_dir *dir, const char *name, int *descriptor, qwen3_error *err);
/* Writes all of data. new_dir_close waits until the disk has the file. Errors name the file. */
qwen3_status new_dir_write(int descriptor, const char *name, const void *data, size_t bytes, qwen3_error *err);
/* What is written next replaces the beginning of the file. */
qwen3_status new_dir_rewind(int descriptor, const char *name, qwen3_error *err);
qwen3_status new_dir_close(int descriptor, const char *name, qwen3_error *err);
/* Makes a file in it that holds the data. */
qwen3_status new_dir_put(const new_dir *dir, const char *name, const void *data, size_t bytes, qwen3_error *err);
/* Copies a regular file of directory `from`, if there is one of this name; one that cannot be read is an error. */
qwen3_status new_dir_copy(const new_dir *dir, const char *from, const char *name, qwen3_error *err);
/* status QWEN3_OK: waits until the disk has the names; otherwise removes all files. Returns status. *dir is zeroed. */
qwen3_status new_dir_finish(new_dir *dir, qwen3_status status);

#endif
