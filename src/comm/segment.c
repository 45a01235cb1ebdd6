/* segment.c - memory that the ranks of a node share.
 *
 * Rank 0 makes an anonymous file in memory (memfd_create), the others open it through rank 0's entry in
 * /proc, and all map it. Unlike MPI_Win_allocate_shared and shm_open, this is not limited by the size of
 * /dev/shm (64 MB in many containers, where touching more kills the process), leaves nothing behind when a
 * job dies, and works with every MPI. A page is placed near the thread that first touches it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/status.h"
#include "comm/comm_backend.h"

struct comm_segment {
    comm *ranks;
    void *base;
    size_t bytes;
};

/* How the others find rank 0's file. Ranks in different containers see different processes: device and inode show
 * whether the process of this number is rank 0. */
typedef struct memory_file {
    pid_t pid;
    int fd; /* -1: rank 0 has failed */
    dev_t device;
    ino_t inode;
} memory_file;

static qwen3_status create_file(size_t bytes, memory_file *file, qwen3_error *err)
{
    struct stat info;
    if (bytes > memory_available())
        return fail(err, QWEN3_ERR_MEMORY, "shared segment: %zu bytes wanted, %zu available", bytes,
                    memory_available());
    file->fd = memfd_create("qwen3", MFD_CLOEXEC);
    if (file->fd >= 0 && ftruncate(file->fd, (off_t)round_up(bytes, HUGE_PAGE)) == 0 && fstat(file->fd, &info) == 0) {
        file->pid = getpid();
        file->device = info.st_dev;
        file->inode = info.st_ino;
        return QWEN3_OK;
    }
    fail(err, QWEN3_ERR_MEMORY, "shared segment of %zu bytes: %s", bytes, strerror(errno));
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
    return QWEN3_ERR_MEMORY;
}

/* Returns a descriptor of rank 0's file, -1 on failure. */
static int open_file(const memory_file *file, qwen3_error *err)
{
    char path[64];
    struct stat info;
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)file->pid, file->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fail(err, QWEN3_ERR_MEMORY, "shared segment: %s: %s", path, strerror(errno));
        return -1;
    }
    if (fstat(fd, &info) == 0 && info.st_dev == file->device && info.st_ino == file->inode)
        return fd;
    fail(err, QWEN3_ERR_MEMORY, "shared segment: %s is not rank 0's file: the ranks see different processes", path);
    close(fd);
    return -1;
}

static qwen3_status map_file(comm_segment *segment, qwen3_error *err)
{
    memory_file file = {.fd = -1};
    int fd = -1;
    if (segment->ranks->rank == 0)
        create_file(segment->bytes, &file, err);
    comm_broadcast(segment->ranks, &file, sizeof file, 0, QWEN3_COMM_CONTROL);
    if (file.fd >= 0)
        fd = segment->ranks->rank == 0 ? file.fd : open_file(&file, err);
    if (fd >= 0) {
        segment->base = memory_map(segment->bytes, fd);
        if (!segment->base)
            fail(err, QWEN3_ERR_MEMORY, "shared segment of %zu bytes: %s", segment->bytes, strerror(errno));
    }
    qwen3_status status = qwen3_comm_agree(segment->ranks, err); /* rank 0 keeps its entry in /proc until here */
    if (fd >= 0)
        close(fd);
    if (status != QWEN3_OK && segment->base) {
        memory_unmap(segment->base, segment->bytes);
        segment->base = NULL;
    }
    return status;
}

qwen3_status comm_shared_alloc(comm *c, size_t bytes, comm_segment **out, void **base, qwen3_error *err)
{
    qwen3_error local = {0};
    *out = NULL;
    *base = NULL;
    comm_segment *segment = calloc(1, sizeof *segment);
    if (!segment)
        fail(&local, QWEN3_ERR_MEMORY, "shared segment: out of memory");
    else if (!c->one_node)
        fail(&local, QWEN3_ERR_ARGUMENT, "shared segment: the %d ranks are on several nodes", c->size);
    else
        *segment = (comm_segment){.ranks = c, .bytes = bytes};
    if (qwen3_comm_agree(c, &local) == QWEN3_OK && bytes > 0) {
        if (c->size == 1)
            memory_alloc(&segment->base, bytes, "shared segment", &local);
        else
            map_file(segment, &local);
    }
    if (local.status != QWEN3_OK) {
        free(segment);
        if (err)
            *err = local;
        return local.status;
    }
    *out = segment;
    *base = segment->base;
    return QWEN3_OK;
}

void comm_shared_sync(comm *c, comm_segment *segment)
{
    (void)segment;
    atomic_thread_fence(memory_order_seq_cst);
    c->backend->barrier(c);
    atomic_thread_fence(memory_order_seq_cst);
}

void comm_shared_free(comm_segment *segment)
{
    if (!segment)
        return;
    if (segment->ranks->size == 1)
        memory_free(segment->base, segment->bytes);
    else
        memory_unmap(segment->base, segment->bytes);
    free(segment);
}
