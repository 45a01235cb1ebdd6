/* team.h - the threads of one rank inside a parallel region.
 *
 * A forward pass is one parallel region; each step of it is a function that all threads of the team call
 * with the same arguments and that splits its work by tid. Thread 0 is the thread that entered the
 * library, the only one that passes messages (MPI_THREAD_FUNNELED).
 */
#ifndef QWEN3_BASE_TEAM_H
#define QWEN3_BASE_TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Shared by the threads of a team; lives as long as the region. Zero-initialise, then set size. */
typedef struct team_shared {
    int size;
    /* Next work item of a dynamic loop; loops take turns with the counters. */
    struct {
        _Alignas(64) atomic_size_t item;
    } next[4];
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase;
} team_shared;

/* One thread's view. */
typedef struct team {
    team_shared *shared;
    int tid;
    int size;
    unsigned loop; /* dynamic loops begun */
} team;

/* All threads wait for each other. */
void team_barrier(team *t);

/* The half-open part [*begin, *end) of n items that is this thread's, in multiples of `grain`. */
void team_part(const team *t, size_t n, size_t grain, size_t *begin, size_t *end);

/* Parts of n units, each contiguous, for work that is bound by reading memory in order: part 0 is this thread's own,
 * the first three quarters of its share (team_part); the last quarters of all shares are then handed out piece by
 * piece, so that a thread that is slowed down does not hold up the others. All threads begin, then call next until it
 * is false. Barriers as for a loop of items, of which this is one. */
typedef struct team_pieces {
    size_t n, grain;
    bool own_done;
} team_pieces;

team_pieces team_pieces_begin(team *t, size_t n, size_t grain);
bool team_pieces_next(team *t, team_pieces *p, size_t *begin, size_t *end);

/* Runs body(t, arg) on `threads` threads as one parallel region. */
void team_run(int threads, void (*body)(team *t, void *arg), void *arg);

/* A loop whose items are taken one by one: all threads call team_loop_begin, then team_loop_next until it returns
 * >= n. It needs a barrier before, if it reads what other threads wrote, and one after, before the next loop begins:
 * the counter of the loop after the next is set to zero in every loop, when nobody uses it any more or yet. */
static inline void team_loop_begin(team *t)
{
    t->loop++;
    if (t->tid == 0)
        atomic_store_explicit(&t->shared->next[(t->loop + 2) % 4].item, 0, memory_order_relaxed);
}
static inline size_t team_loop_next(team *t)
{
    return atomic_fetch_add_explicit(&t->shared->next[t->loop % 4].item, 1, memory_order_relaxed);
}

#endif
