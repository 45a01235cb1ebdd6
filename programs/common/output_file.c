/* output_file.c - see output_file.h. */
#include "common/output_file.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/program.h"
#include "common/signals.h"

/* The temporary; empty = there is none. A signal may come at any time, so it is not allocated. */
static char temporary[PATH_MAX];

/* ---- Removing the temporary: only calls that are safe in a signal handler ------------------------ */

static void empty_directory(const char *path)
{
    _Alignas(struct dirent64) char entries[2048];
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0 && (n = getdents64(fd, entries, sizeof entries)) > 0)
        for (ssize_t at = 0; at < n; at += ((struct dirent64 *)(entries + at))->d_reclen)
            unlinkat(fd, ((struct dirent64 *)(entries + at))->d_name, 0); /* fails for "." and ".." */
    if (fd >= 0)
        close(fd);
}

/* A thread that still writes may make a file in between. */
static void remove_temporary(void)
{
    int error = errno;
    if (temporary[0] && unlink(temporary) != 0 && errno == EISDIR)
        for (int i = 0; i < 3 && rmdir(temporary) != 0; i++)
            empty_directory(temporary);
    errno = error;
}

/* ---- Names ---------------------------------------------------------------------------------------- */

static qwen3_status fail_output(const output_file *o, const char *what, const char *path, qwen3_error *err)
{
    return set_error(err, QWEN3_ERR_IO, "%s: cannot %s %s: %s", o->option, what, path, strerror(errno));
}

/* The real path of the directory that has the name in it, freed with free(); NULL on failure. */
static char *parent_of(const char *path)
{
    char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
    if (slash)
        slash[slash == copy] = '\0'; /* of "/name" the slash stays */
    char *real = copy ? realpath(slash ? copy : ".", NULL) : NULL;
    free(copy);
    return real;
}

/* Whether a regular file is one of a directory, by whatever name. The name there is the caller's, with free(). */
static char *find_file(const char *directory, const struct stat *file)
{
    char *found = NULL;
    DIR *list = opendir(directory);
    for (const struct dirent *entry; list && !found && (entry = readdir(list));) {
        struct stat info;
        if (fstatat(dirfd(list), entry->d_name, &info, 0) == 0 && info.st_dev == file->st_dev &&
            info.st_ino == file->st_ino)
            found = strdup(entry->d_name);
    }
    if (list)
        closedir(list);
    return found;
}

static bool is_inside(const char *path, const char *directory)
{
    size_t n = strlen(directory);
    return strncmp(path, directory, n) == 0 && (path[n] == '/' || path[n] == '\0' || directory[n - 1] == '/');
}

/* existing: what has the name now, NULL = nothing. */
static qwen3_status check_model(const output_file *o, const struct stat *existing, const char *model, qwen3_error *err)
{
    struct stat info;
    if (!model || stat(model, &info) != 0 || !S_ISDIR(info.st_mode))
        return QWEN3_OK;
    char *parent = parent_of(o->path), *directory = realpath(model, NULL);
    char *file = existing ? find_file(model, existing) : NULL;
    if (file)
        set_error(err, QWEN3_ERR_ARGUMENT, "%s: %s is %s of the model %s, expected another file", o->option, o->path,
                  file, model);
    else if (parent && directory && is_inside(parent, directory))
        set_error(err, QWEN3_ERR_ARGUMENT, "%s: %s is inside the model %s, expected a place outside it", o->option,
                  o->path, model);
    free(parent);
    free(directory);
    free(file);
    return err->status;
}

/* ---- Beginning ------------------------------------------------------------------------------------ */

static mode_t creation_mode(mode_t wanted)
{
    mode_t mask = umask(0);
    umask(mask);
    return wanted & ~mask;
}

static qwen3_status fail_begin(output_file *o, qwen3_error *err)
{
    temporary[0] = '\0';
    free(o->path);
    *o = (output_file){0};
    return err->status;
}

/* The pattern of the temporary's name. */
static qwen3_status name_temporary(output_file *o, qwen3_error *err)
{
    assert(!temporary[0]);
    int n = snprintf(temporary, sizeof temporary, "%s.partial-XXXXXX", o->path);
    if (n < 0 || (size_t)n >= sizeof temporary)
        return set_error(err, QWEN3_ERR_ARGUMENT, "%s: the name is too long", o->option);
    o->name = temporary;
    signals_undo(remove_temporary);
    return QWEN3_OK;
}

static qwen3_status make_file(output_file *o, mode_t mode, qwen3_error *err)
{
    if (name_temporary(o, err) != QWEN3_OK)
        return err->status;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return fail_output(o, "create a file beside", o->path, err);
    if (fchmod(fd, mode) == 0 && (o->stream = fdopen(fd, "wb")))
        return QWEN3_OK;
    fail_output(o, "create a file beside", o->path, err);
    close(fd);
    remove_temporary();
    return err->status;
}

/* A path that names an open descriptor of this process is that descriptor, with its position; -1 = it is none. */
static int own_descriptor(const char *path)
{
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    char *end;
    if (strcmp(path, "/dev/stdout") == 0)
        return STDOUT_FILENO;
    if (strcmp(path, "/dev/stderr") == 0)
        return STDERR_FILENO;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (strncmp(path, folders[i], strlen(folders[i])) == 0) {
            long fd = strtol(path + strlen(folders[i]), &end, 10);
            return *end || end == path + strlen(folders[i]) || fd > INT_MAX ? -1 : (int)fd;
        }
    return -1;
}

/* Standard output is one stream, whoever writes to it. */
static qwen3_status open_directly(output_file *o, const char *path, qwen3_error *err)
{
    int fd = own_descriptor(path), copy = fd >= 0 && fd != STDOUT_FILENO ? dup(fd) : -1;
    o->name = path;
    o->stream = fd == STDOUT_FILENO ? stdout : copy >= 0 ? fdopen(copy, "wb") : fd < 0 ? fopen(path, "wbe") : NULL;
    return o->stream ? QWEN3_OK : fail_output(o, "open", path, err);
}

/* A link is followed: what it leads to is replaced. */
static qwen3_status resolve(output_file *o, const char *path, const struct stat *existing, qwen3_error *err)
{
    struct stat link;
    if (existing && S_ISDIR(existing->st_mode)) {
        errno = EISDIR;
        return fail_output(o, "write", path, err);
    }
    if (!existing && lstat(path, &link) == 0)
        return set_error(err, QWEN3_ERR_IO, "%s: %s is a link that leads nowhere, expected the name of a file",
                         o->option, path);
    if (existing && access(path, W_OK) != 0)
        return fail_output(o, "write", path, err);
    if (!(o->path = existing ? realpath(path, NULL) : strdup(path)))
        return fail_output(o, "write", path, err);
    return QWEN3_OK;
}

qwen3_status output_file_begin(output_file *o, const char *option, const char *path, const char *model,
                               qwen3_error *err)
{
    struct stat info;
    bool exists = stat(path, &info) == 0;
    *o = (output_file){.option = option};
    if (!exists && errno != ENOENT)
        fail_output(o, "write", path, err);
    else if (own_descriptor(path) >= 0 || (exists && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)))
        open_directly(o, path, err);
    else if (resolve(o, path, exists ? &info : NULL, err) == QWEN3_OK &&
             check_model(o, exists ? &info : NULL, model, err) == QWEN3_OK)
        make_file(o, exists ? info.st_mode & 0777 : creation_mode(0666), err);
    return err->status == QWEN3_OK ? QWEN3_OK : fail_begin(o, err);
}

qwen3_status output_directory_begin(output_file *o, const char *option, const char *path, const char *model,
                                    qwen3_error *err)
{
    struct stat info;
    *o = (output_file){.option = option, .path = strdup(path)};
    for (size_t n = strlen(path); o->path && n > 1 && o->path[n - 1] == '/'; n--)
        o->path[n - 1] = '\0';
    if (!o->path)
        fail_output(o, "write", path, err);
    else if (lstat(o->path, &info) == 0)
        set_error(err, QWEN3_ERR_IO, "%s: %s exists, expected the name of a new directory", option, path);
    else if (check_model(o, NULL, model, err) == QWEN3_OK && name_temporary(o, err) == QWEN3_OK) {
        if (!mkdtemp(temporary))
            fail_output(o, "create a directory beside", o->path, err);
        else if (chmod(temporary, creation_mode(0777)) != 0) {
            fail_output(o, "create", temporary, err);
            remove_temporary();
        }
    }
    return err->status == QWEN3_OK ? QWEN3_OK : fail_begin(o, err);
}

/* ---- Ending --------------------------------------------------------------------------------------- */

static qwen3_status close_stream(output_file *o, qwen3_status status, qwen3_error *err)
{
    if (!o->stream)
        return status;
    const char *path = o->path ? o->path : o->name;
    errno = 0;
    bool written = fflush(o->stream) == 0 && !ferror(o->stream) && (!o->path || fsync(fileno(o->stream)) == 0);
    int error = errno;
    if (o->stream != stdout && fclose(o->stream) != 0 && written) {
        written = false;
        error = errno;
    }
    if (written || status != QWEN3_OK)
        return status;
    return set_error(err, QWEN3_ERR_IO, "%s: cannot write %s: %s", o->option, path,
                     error ? strerror(error) : "write error");
}

/* The name of a file is on the disk only when its directory is. */
static void sync_parent(const char *path)
{
    char *parent = parent_of(path);
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(parent);
}

/* rename replaces no directory but an empty one: no file system needs to know RENAME_NOREPLACE. Work that is done is
 * kept, if only under the temporary name. */
static qwen3_status give_name(output_file *o, qwen3_error *err)
{
    if (rename(temporary, o->path) != 0)
        return set_error(err, QWEN3_ERR_IO, "%s: cannot rename %s to %s: %s; it is complete and kept", o->option,
                         temporary, o->path, strerror(errno));
    sync_parent(o->path);
    return QWEN3_OK;
}

qwen3_status output_file_finish(output_file *o, qwen3_status status, qwen3_error *err)
{
    status = close_stream(o, status, err);
    if (o->path && status == QWEN3_OK)
        status = give_name(o, err);
    else if (o->path)
        remove_temporary();
    if (o->path)
        temporary[0] = '\0';
    free(o->path);
    *o = (output_file){0};
    return status;
}
