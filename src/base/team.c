#include "base/team.h"

#include <omp.h>
#include <sched.h>

#include "base/spin.h"

/* Spins this often before giving the CPU away: long enough for the spread between threads of one step,
 * short enough not to steal a CPU where there are more threads than CPUs. */
#define SPINS 4000

void team_barrier(team *t)
{
    team_shared *s = t->shared;
    if (t->size == 1)
        return;
    unsigned phase = atomic_load_explicit(&s->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&s->arrived, 1, memory_order_acq_rel) == t->size - 1) {
        atomic_store_explicit(&s->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&s->phase, phase + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&s->phase, memory_order_acquire) == phase; i++) {
        if (i < SPINS)
            cpu_relax();
        else
            sched_yield();
    }
}

void team_part(const team *t, size_t n, size_t grain, size_t *begin, size_t *end)
{
    size_t units = (n + grain - 1) / grain;
    size_t b = units * (size_t)t->tid / (size_t)t->size * grain;
    size_t e = units * ((size_t)t->tid + 1) / (size_t)t->size * grain;
    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

void team_run(int threads, void (*body)(team *t, void *arg), void *arg)
{
    team_shared shared = {.size = threads};
    if (threads == 1) {
        team t = {&shared, 0, 1, 0};
        body(&t, arg);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        /* The run-time may grant fewer threads than asked for. */
        team t = {&shared, omp_get_thread_num(), omp_get_num_threads(), 0};
        body(&t, arg);
    }
}
