/* team.h - the threads of one rank inside a parallel region.
 *
 * A forward pass is one parallel region; each step of it is a function that all threads of the team call
 * with the same arguments and that splits its work by tid. Thread 0 is the thread that entered the
 * library, the only one that passes messages (MPI_THREAD_FUNNELED).
 */
#ifndef QWEN3_BASE_TEAM_H
#define QWEN3_BASE_TEAM_H

#include <stdatomic.h>
#include <stddef.h>

/* Shared by the threads of a team; lives as long as the region. Zero-initialise, then set size. */
typedef struct team_shared {
    int size;
    _Alignas(64) atomic_size_t next; /* next work item of the dynamic loop in progress */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase;
} team_shared;

/* One thread's view. */
typedef struct team {
    team_shared *shared;
    int tid;
    int size;
} team;

/* All threads wait for each other. */
void team_barrier(team *t);

/* The half-open part [*begin, *end) of n items that is this thread's, in multiples of `grain`. */
void team_part(const team *t, size_t n, size_t grain, size_t *begin, size_t *end);

/* Runs body(t, arg) on `threads` threads as one parallel region. */
void team_run(int threads, void (*body)(team *t, void *arg), void *arg);

/* A loop whose items are taken one by one: all threads call team_loop_begin (a barrier), then
 * team_loop_next until it returns >= n. The next barrier ends the loop. */
void team_loop_begin(team *t);
static inline size_t team_loop_next(team *t)
{
    return atomic_fetch_add_explicit(&t->shared->next, 1, memory_order_relaxed);
}

#endif
