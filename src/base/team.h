/* team.h - the threads of one rank inside a parallel region.
 *
 * A forward pass is one parallel region. Each operation in it is a function that all threads of the team call
 * with the same arguments and that splits its work by tid. Thread 0 is the thread that entered the library and
 * the only one that passes messages (MPI_THREAD_FUNNELED).
 */
#ifndef QWEN3_BASE_TEAM_H
#define QWEN3_BASE_TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "qwen3.h"

enum { MOST_THREADS = 4096 }; /* of a rank */

/* Shared by the threads of a team; lives as long as the region. Zero-initialise, then set size. */
typedef struct team_shared {
    int size;
    /* Next item of a dynamic loop; successive loops use the counters in turn. */
    struct {
        _Alignas(64) atomic_size_t item;
    } next[4];
    /* What thread 0 calls before each item of a loop, or NULL: messages go on while it computes. */
    void (*poll)(void *arg);
    void *poll_arg;
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

/* This thread's part [*begin, *end) of n items, in multiples of `grain`. */
void team_part(const team *t, size_t n, size_t grain, size_t *begin, size_t *end);

/* Contiguous pieces of n units, for work that is bound by reading memory in order. A thread's first piece is the first
 * three quarters of its share (team_part). The last quarters of all shares are then handed out in smaller pieces: a
 * thread that is slowed down does not hold up the others. All threads begin, then call next until it is false. It needs
 * barriers as a loop of items does, see below. */
typedef struct team_pieces {
    size_t n, grain;
    bool own_done;
} team_pieces;

team_pieces team_pieces_begin(team *t, size_t n, size_t grain);
bool team_pieces_next(team *t, team_pieces *p, size_t *begin, size_t *end);

/* From now on in this region thread 0 calls poll(arg) before it takes an item of a loop: messages go on while it
 * computes. To be called by thread 0. */
static inline void team_poll(team *t, void (*poll)(void *), void *arg)
{
    t->shared->poll = poll;
    t->shared->poll_arg = arg;
}

/* Checks a number of threads that a caller gives: 0 = as many as a rank gets by default. */
qwen3_status team_check_threads(int threads, qwen3_error *err);

/* Fails where a thread has too small a stack for the kernels, which keep what they work on there. Starts the threads of
 * the regions to come. */
qwen3_status team_check_stacks(int threads, qwen3_error *err);

/* Runs body(t, arg) on `threads` threads as one parallel region. */
void team_run(int threads, void (*body)(team *t, void *arg), void *arg);

/* A loop whose items are taken one by one. All threads call team_loop_begin, then team_loop_next until it returns
 * >= n. It needs a barrier before it if it reads what other threads wrote, and one between it and the next loop: each
 * loop zeroes the counter of the loop after the next, which nobody uses then. */
static inline void team_loop_begin(team *t)
{
    t->loop++;
    if (t->tid == 0)
        atomic_store_explicit(&t->shared->next[(t->loop + 2) % 4].item, 0, memory_order_relaxed);
}
static inline size_t team_loop_next(team *t)
{
    if (t->tid == 0 && t->shared->poll)
        t->shared->poll(t->shared->poll_arg);
    return atomic_fetch_add_explicit(&t->shared->next[t->loop % 4].item, 1, memory_order_relaxed);
}

#endif
