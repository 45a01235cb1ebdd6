/* file.c - see file.h. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_name(mode_t mode)
{
    return S_ISDIR(mode) ? "a directory" : S_ISFIFO(mode) ? "a pipe" : S_ISSOCK(mode) ? "a socket" : "a device";
}

bool file_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

qwen3_status file_map(const char *path, void **map, size_t *bytes, qwen3_error *err)
{
    *map = NULL;
    *bytes = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe must not wait for a writer */
    if (descriptor < 0)
        return fail(err, QWEN3_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    qwen3_status status = QWEN3_OK;
    struct stat info;
    if (fstat(descriptor, &info) != 0) {
        status = fail(err, QWEN3_ERR_IO, "%s: cannot inspect: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        status = fail(err, QWEN3_ERR_IO, "%s: is %s, expected a regular file", path, kind_name(info.st_mode));
    } else if (info.st_size == 0) {
        status = fail(err, QWEN3_ERR_FORMAT, "%s: is empty", path);
    } else {
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (p == MAP_FAILED) {
            status = fail(err, QWEN3_ERR_IO, "%s: cannot map %lld bytes: %s", path, (long long)info.st_size,
                          strerror(errno));
        } else {
            *map = p;
            *bytes = (size_t)info.st_size;
        }
    }
    close(descriptor);
    return status;
}

void file_unmap(void *map, size_t bytes)
{
    if (map)
        munmap(map, bytes);
}
