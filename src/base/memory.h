/* memory.h - large aligned buffers. */
#ifndef QWEN3_BASE_MEMORY_H
#define QWEN3_BASE_MEMORY_H

#include <stddef.h>

#include "base/status.h"

#define CACHE_LINE 64
#define HUGE_PAGE ((size_t)2 << 20)

/* Zero-filled memory, aligned to a cache line, or from 2 MiB on to a huge page with huge pages advised. Large
 * buffers take up memory only where they are touched. bytes = 0 gives NULL and success. `what` names the buffer in
 * the error. Fails with QWEN3_ERR_MEMORY if a large buffer exceeds the memory available, as touching it would end
 * the process. */
qwen3_status memory_alloc(void **out, size_t bytes, const char *what, qwen3_error *err);
void memory_free(void *p, size_t bytes);

/* Maps `bytes` of the file fd, shared, or private memory if fd is -1; begins at a huge page, huge pages advised. NULL
 * on failure, errno says why. The mapping ends with a huge page. */
void *memory_map(size_t bytes, int fd);
void memory_unmap(void *p, size_t bytes);

/* Makes the memory that begins with the first huge page in [p, p + bytes) huge pages near the calling thread: of files
 * in memory advice alone makes none on most systems (shmem_enabled). Costs no copy before the memory is written, and
 * does nothing where the kernel cannot. */
void memory_collapse(const void *p, size_t bytes);

/* Bytes that this process may use, and what is available of them now. */
size_t memory_total(void);
size_t memory_available(void);

static inline size_t round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

#endif
