/* output_file.h - files and directories that a program writes: whole under their names, or not there.
 *
 * They are written under a temporary name beside their own, NAME.partial-XXXXXX, and renamed at the end; what had the
 * name before stays until then. The temporary is removed on failure and when a signal ends the program; SIGKILL and a
 * crash leave it. What is no regular file (a pipe, a device, /dev/stdout) is written directly. A process writes one at
 * a time. */
#ifndef OUTPUT_FILE_H
#define OUTPUT_FILE_H

#include <stdio.h>

#include "common/error.h"

/* All zero = none. */
typedef struct output_file {
    const char *option; /* that gave the name, in messages */
    char *path;         /* the name in the end */
    const char *name;   /* where to write until then */
    FILE *stream;       /* there; NULL for a directory */
} output_file;

/* Checks the name and makes the temporary, so that a job fails before its work and not after it. What is inside the
 * model directory `model`, or a file of that model, is refused; NULL, or no directory = there is none. A file may exist
 * and is replaced; a directory must not. On failure *o is zeroed. */
qwen3_status output_file_begin(output_file *o, const char *option, const char *path, const char *model,
                               qwen3_error *err);
qwen3_status output_directory_begin(output_file *o, const char *option, const char *path, const char *model,
                                    qwen3_error *err);
/* status QWEN3_OK: the output gets its name. Otherwise it is removed. Returns the first failure and zeroes *o. */
qwen3_status output_file_finish(output_file *o, qwen3_status status, qwen3_error *err);

#endif
