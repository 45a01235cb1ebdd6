/* new_dir.c - see new_dir.h. */
#include "io/new_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

/* One call of write takes no more than 2 GiB. */
#define WRITE_MAX ((size_t)1 << 30)

static bool is_empty(const char *path)
{
    size_t n = 0;
    DIR *list = opendir(path);
    bool readable = list != NULL;
    for (const struct dirent *entry; list && (entry = readdir(list));)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (list)
        closedir(list);
    return readable && n == 0;
}

qwen3_status new_dir_begin(const char *path, new_dir *dir, qwen3_error *err)
{
    *dir = (new_dir){.path = strdup(path)};
    qwen3_status status = QWEN3_OK;
    if (!dir->path)
        status = fail(err, QWEN3_ERR_MEMORY, "%s: no memory for its name", path);
    else if (mkdir(path, 0777) == 0)
        dir->made = true;
    else if (errno != EEXIST)
        status = fail(err, QWEN3_ERR_IO, "%s: cannot make a directory there: %s", path, strerror(errno));
    else if (!is_empty(path))
        status = fail(err, QWEN3_ERR_IO, "%s: exists; expected the name of a new directory, or an empty one", path);
    if (status) {
        free(dir->path);
        *dir = (new_dir){0};
    }
    return status;
}

static qwen3_status fail_file(const char *name, const char *what, qwen3_error *err)
{
    return fail(err, QWEN3_ERR_IO, "%s: cannot %s: %s", name, what, strerror(errno));
}

qwen3_status new_dir_file(const new_dir *dir, const char *name, int *descriptor, qwen3_error *err)
{
    char *path;
    if (asprintf(&path, "%s/%s", dir->path, name) < 0)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for its name", name);
    *descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    qwen3_status status = *descriptor < 0 ? fail_file(path, "create", err) : QWEN3_OK;
    free(path);
    return status;
}

qwen3_status new_dir_write(int descriptor, const char *name, const void *data, size_t bytes, qwen3_error *err)
{
    for (const unsigned char *at = data; bytes > 0;) {
        ssize_t written = write(descriptor, at, bytes < WRITE_MAX ? bytes : WRITE_MAX);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail_file(name, "write", err);
        at += written;
        bytes -= (size_t)written;
    }
    return QWEN3_OK;
}

qwen3_status new_dir_rewind(int descriptor, const char *name, qwen3_error *err)
{
    return lseek(descriptor, 0, SEEK_SET) == 0 ? QWEN3_OK : fail_file(name, "write", err);
}

qwen3_status new_dir_close(int descriptor, const char *name, qwen3_error *err)
{
    qwen3_status status = fsync(descriptor) == 0 ? QWEN3_OK : fail_file(name, "write", err);
    if (close(descriptor) != 0 && !status)
        status = fail_file(name, "write", err);
    return status;
}

qwen3_status new_dir_put(const new_dir *dir, const char *name, const void *data, size_t bytes, qwen3_error *err)
{
    int descriptor = -1;
    qwen3_status status = new_dir_file(dir, name, &descriptor, err);
    if (status)
        return status;
    status = new_dir_write(descriptor, name, data, bytes, err);
    qwen3_status closed = new_dir_close(descriptor, name, err);
    return status ? status : closed;
}

qwen3_status new_dir_copy(const new_dir *dir, const char *from, const char *name, qwen3_error *err)
{
    char *path;
    struct stat info;
    if (asprintf(&path, "%s/%s", from, name) < 0)
        return fail(err, QWEN3_ERR_MEMORY, "%s: no memory for its name", name);
    void *data = NULL;
    size_t bytes = 0;
    qwen3_status status = QWEN3_OK;
    if (file_exists(path)) {
        bool empty = stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_size == 0;
        status = empty ? QWEN3_OK : file_map(path, &data, &bytes, err);
        if (!status)
            status = new_dir_put(dir, name, data, bytes, err);
        file_unmap(data, bytes);
    }
    free(path);
    return status;
}

static void remove_files(const char *path)
{
    DIR *list = opendir(path);
    for (const struct dirent *entry; list && (entry = readdir(list));)
        unlinkat(dirfd(list), entry->d_name, 0); /* fails for "." and ".." */
    if (list)
        closedir(list);
}

/* The name of a file is on the disk only when its directory is. */
static void sync_dir(const char *path)
{
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    fsync(descriptor);
    close(descriptor);
}

qwen3_status new_dir_finish(new_dir *dir, qwen3_status status)
{
    if (status)
        remove_files(dir->path);
    else
        sync_dir(dir->path);
    if (status && dir->made)
        rmdir(dir->path);
    free(dir->path);
    *dir = (new_dir){0};
    return status;
}
