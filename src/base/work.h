/* work.h - how far a long task is, for a caller who wants to know (qwen3_progress). */
#ifndef QWEN3_BASE_WORK_H
#define QWEN3_BASE_WORK_H

#include <stdatomic.h>

#include "qwen3.h"

/* Set report and context; the rest is of the stage that was begun last. */
typedef struct work {
    qwen3_progress *report; /* NULL: nobody wants to know */
    void *context;
    qwen3_stage stage;
    uint64_t total; /* bytes */
    atomic_uint_least64_t done;
    double told; /* time of seconds_now: of the last report */
} work;

/* All of them allow NULL. Begin, tell and end are for the thread that entered the library. */
void work_begin(work *w, qwen3_stage stage, uint64_t total);
/* So many bytes more are done. Any thread. */
static inline void work_done(work *w, uint64_t bytes)
{
    if (w)
        atomic_fetch_add_explicit(&w->done, bytes, memory_order_relaxed);
}
/* Reports, unless the last report was a moment ago. */
void work_tell(work *w);
/* Reports that the stage is done; without work, nothing. */
void work_end(work *w);

#endif
