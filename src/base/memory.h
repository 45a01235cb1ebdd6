/* memory.h - large aligned buffers. */
#ifndef QWEN3_BASE_MEMORY_H
#define QWEN3_BASE_MEMORY_H

#include <stddef.h>

#include "base/status.h"

#define CACHE_LINE 64

/* Zero-filled memory, aligned to a cache line, or from 2 MiB on to a huge page with huge pages advised. Large
 * buffers take up memory only where they are touched. bytes = 0 gives NULL and success. `what` names the buffer in
 * the error. Fails with QWEN3_ERR_MEMORY if a large buffer exceeds the memory available, as touching it would end
 * the process. */
qwen3_status memory_alloc(void **out, size_t bytes, const char *what, qwen3_error *err);
void memory_free(void *p, size_t bytes);

/* Bytes that this process may use, and what is available of them now. */
size_t memory_total(void);
size_t memory_available(void);

static inline size_t round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

#endif
