/* work.c - see work.h. */
#include "base/work.h"

#include "base/clock.h"

#define BETWEEN_SECONDS 0.1 /* two reports */

void work_begin(work *w, qwen3_stage stage, uint64_t total)
{
    if (!w)
        return;
    w->stage = stage;
    w->total = total;
    w->done = 0;
    w->told = seconds_now();
}

void work_tell(work *w)
{
    if (!w || !w->report)
        return;
    const double now = seconds_now();
    const uint64_t done = atomic_load_explicit(&w->done, memory_order_relaxed);
    if (now - w->told < BETWEEN_SECONDS || done >= w->total) /* the end is told once */
        return;
    w->told = now;
    w->report(w->context, w->stage, done, w->total);
}

void work_end(work *w)
{
    if (w && w->report && w->total > 0)
        w->report(w->context, w->stage, w->total, w->total);
}
