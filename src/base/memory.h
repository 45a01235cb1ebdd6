/* memory.h - large aligned buffers. */
#ifndef QWEN3_BASE_MEMORY_H
#define QWEN3_BASE_MEMORY_H

#include <stddef.h>

#include "base/status.h"

#define CACHE_LINE 64

/* Zero-filled, aligned to a cache line (to a huge page where large, with huge pages advised); pages are
 * only backed when touched. bytes = 0 gives NULL and success. `what` names the buffer in the error. Fails
 * with QWEN3_ERR_MEMORY where the request exceeds the machine's memory, rather than being killed later. */
qwen3_status memory_alloc(void **out, size_t bytes, const char *what, qwen3_error *err);
void memory_free(void *p, size_t bytes);

/* Bytes of memory of this machine, and what is available of it now. */
size_t memory_total(void);
size_t memory_available(void);

static inline size_t round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

#endif
