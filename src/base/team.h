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

/* Some threads of a team at a barrier. They wait for another line than those that arrive write to. */
typedef struct team_group {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase;
} team_group;

enum { MOST_GROUPS = 64 }; /* the square root of MOST_THREADS */

/* Shared by the threads of a team; lives as long as the region. Zero-initialise, then set the first three. */
typedef struct team_shared {
    int size;
    int group_size; /* threads of a group, the last of which may be smaller */
    int polls;      /* of a thread that waits, before it yields the CPU */
    /* Next item of a dynamic loop; successive loops use the counters in turn. */
    struct {
        _Alignas(64) atomic_size_t item;
    } next[4];
    /* What thread 0 calls before each item of a loop, or NULL: messages go on while it computes. */
    void (*poll)(void *arg);
    void *poll_arg;
    _Alignas(64) atomic_int groups_arrived;
    team_group groups[MOST_GROUPS];
    struct team *threads[MOST_THREADS]; /* [size] set by team_run */
} team_shared;

/* One thread's view. */
typedef struct team {
    team_shared *shared;
    int tid;
    int size;
    unsigned loop;  /* dynamic loops begun */
    unsigned phase; /* barriers entered */
    /* Pieces of the last quarter of its share (team_pieces) that are taken; successive loops use them in turn. */
    _Alignas(64) atomic_size_t tail[4];
} team;

/* All threads wait for each other. */
void team_barrier(team *t);

/* This thread's part [*begin, *end) of n items, in multiples of `grain`. */
void team_part(const team *t, size_t n, size_t grain, size_t *begin, size_t *end);

/* Contiguous pieces of n units, for work that is bound by reading memory in order. A thread's first piece is the first
 * three quarters of its share (team_part). It then takes the last quarter in smaller pieces, and those that the threads
 * 1, 2, 4, ... after it have not begun: a thread that is slowed down does not hold up the others. No line is written to
 * by threads that are equally fast. All threads begin, then call next until it is false. It needs barriers as a loop of
 * items does, see below. */
typedef struct team_pieces {
    size_t n, grain;
    bool begun;
    int distance; /* to the thread whose pieces come next: 0 = own */
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

/* Thread 0: messages go on. */
static inline void team_progress(const team *t)
{
    if (t->tid == 0 && t->shared->poll)
        t->shared->poll(t->shared->poll_arg);
}

/* A loop whose items are taken one by one. All threads call team_loop_begin, then team_loop_next until it returns
 * >= n. It needs a barrier before it if it reads what other threads wrote, and one between it and the next loop: each
 * loop zeroes the counter of the loop after the next, which nobody uses then. */
static inline void team_loop_begin(team *t)
{
    t->loop++;
    atomic_store_explicit(&t->tail[(t->loop + 2) % 4], 0, memory_order_relaxed);
    if (t->tid == 0)
        atomic_store_explicit(&t->shared->next[(t->loop + 2) % 4].item, 0, memory_order_relaxed);
}
static inline size_t team_loop_next(team *t)
{
    team_progress(t);
    return atomic_fetch_add_explicit(&t->shared->next[t->loop % 4].item, 1, memory_order_relaxed);
}

#endif
