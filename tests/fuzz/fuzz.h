/* fuzz.h - what the libFuzzer targets share: what must hold, and the files that an input stands for. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for every input. */
static inline void demand(bool condition)
{
    if (!condition)
        abort();
}

/* A call succeeded without a word, or failed with the status that it returned and a message. */
static inline bool succeeded(qwen3_status status, const qwen3_error *err)
{
    demand(err->status == status && (status != QWEN3_OK) == (err->message[0] != '\0'));
    return status == QWEN3_OK;
}

/* ---- Inputs of several parts ------------------------------------------------------------------- */

#define FUZZ_SEPARATOR "\n%%\n"

typedef struct fuzz_part {
    const uint8_t *data;
    size_t size;
} fuzz_part;

/* Takes the part before the next separator, or all that is left, out of *rest. The part after the last is empty. */
static inline fuzz_part next_part(fuzz_part *rest)
{
    const size_t length = strlen(FUZZ_SEPARATOR);
    const uint8_t *end = rest->size ? memmem(rest->data, rest->size, FUZZ_SEPARATOR, length) : NULL;
    fuzz_part part = *rest;
    if (end)
        part.size = (size_t)(end - rest->data);
    const size_t taken = part.size + (end ? length : 0);
    *rest = (fuzz_part){rest->data + taken, rest->size - taken};
    return part;
}

/* ---- Files ------------------------------------------------------------------------------------- */

/* A file without a name, and a path to open it by. Free with close(file.descriptor). */
typedef struct fuzz_file {
    int descriptor;
    char path[32];
} fuzz_file;

static inline void write_all(int descriptor, const void *data, size_t size)
{
    demand(write(descriptor, data, size) == (ssize_t)size);
}

static inline fuzz_file open_memory_file(const void *data, size_t size)
{
    fuzz_file file = {.descriptor = memfd_create("fuzz", 0)};
    demand(file.descriptor >= 0);
    snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.descriptor);
    write_all(file.descriptor, data, size);
    return file;
}

/* A safetensors file. The first two bytes of the part are the length of its header, modulo what the file has, because
 * mutations of all eight would hardly ever leave it right. */
static inline void write_safetensors(int descriptor, fuzz_part part)
{
    if (part.size < 2)
        return;
    const uint64_t length = ((uint64_t)part.data[0] | (uint64_t)part.data[1] << 8) % (part.size - 1);
    write_all(descriptor, &length, sizeof length);
    write_all(descriptor, part.data + 2, part.size - 2);
}

static char fuzz_directory[32];

static inline int remove_entry(const char *path, const struct stat *info, int flag, struct FTW *walk)
{
    (void)info, (void)flag, (void)walk;
    return remove(path);
}

static inline void remove_directory(void)
{
    nftw(fuzz_directory, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
}

/* The directory of this process, in memory; made at the first call, removed at the end. */
static inline const char *directory(void)
{
    if (!fuzz_directory[0]) {
        snprintf(fuzz_directory, sizeof fuzz_directory, "/dev/shm/qwen3-fuzz-XXXXXX");
        demand(mkdtemp(fuzz_directory) != NULL && atexit(remove_directory) == 0);
    }
    return fuzz_directory;
}

typedef struct fuzz_path {
    char text[96];
} fuzz_path;

static inline fuzz_path path_of(const char *name)
{
    fuzz_path path;
    snprintf(path.text, sizeof path.text, "%s/%s", directory(), name);
    return path;
}

static inline FILE *create_file(const char *name)
{
    FILE *file = fopen(path_of(name).text, "w");
    demand(file != NULL);
    return file;
}

static inline void write_file(const char *name, fuzz_part part)
{
    FILE *file = create_file(name);
    write_all(fileno(file), part.data, part.size);
    fclose(file);
}

#endif
