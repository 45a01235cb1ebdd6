#include "base/team.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#include "base/spin.h"
#include "base/status.h"

/* Polls before the CPU is yielded: longer than the threads of one operation differ in arrival, short enough not to
 * occupy a CPU that another thread needs. */
#define POLLS 4000
/* The same where there are more threads than CPUs: one that waits most likely keeps another from arriving. */
#define POLLS_CROWDED 20

/* Whether this is the last of `of` to arrive. */
static bool arrives_last(atomic_int *arrived, int of)
{
    if (of == 1)
        return true;
    if (atomic_fetch_add_explicit(arrived, 1, memory_order_acq_rel) != of - 1)
        return false;
    atomic_store_explicit(arrived, 0, memory_order_relaxed);
    return true;
}

/* A combining tree of two levels (Yew, Tzeng & Lawrie 1987), so that no line is written to or waited for by more than
 * about the square root of all threads: the last thread of a group arrives for it, and the last of these lets all
 * groups go. Nobody waits on the way up. So threads may arrive in any order, as they do where they share CPUs. */
void team_barrier(team *t)
{
    team_shared *s = t->shared;
    if (t->size == 1)
        return;
    const int number = t->tid / s->group_size, groups = (t->size + s->group_size - 1) / s->group_size;
    const int behind = t->size - number * s->group_size, members = behind < s->group_size ? behind : s->group_size;
    team_group *group = &s->groups[number];
    const unsigned phase = ++t->phase;
    if (arrives_last(&group->arrived, members) && arrives_last(&s->groups_arrived, groups)) {
        for (int i = 0; i < groups; i++)
            atomic_store_explicit(&s->groups[i].phase, phase, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&group->phase, memory_order_acquire) != phase; i++) {
        if (i < s->polls)
            cpu_relax();
        else
            sched_yield();
    }
}

/* The share of thread `tid`. */
static void part_of(const team *t, size_t tid, size_t n, size_t grain, size_t *begin, size_t *end)
{
    size_t units = (n + grain - 1) / grain;
    size_t b = units * tid / (size_t)t->size * grain;
    size_t e = units * (tid + 1) / (size_t)t->size * grain;
    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

void team_part(const team *t, size_t n, size_t grain, size_t *begin, size_t *end)
{
    part_of(t, (size_t)t->tid, n, grain, begin, end);
}

team_pieces team_pieces_begin(team *t, size_t n, size_t grain)
{
    team_loop_begin(t);
    return (team_pieces){n, grain, false, 0};
}

/* Pieces of the last quarter of a share. */
#define TAIL_PIECES ((size_t)4)

/* Where the tail of a share begins. */
static size_t tail_of(size_t begin, size_t end, size_t grain)
{
    return begin + ((end - begin) / grain * 3 + 3) / 4 * grain;
}

/* Takes a piece of the tail of thread `owner`; false where there is none left. */
static bool take_tail(team *t, const team_pieces *p, size_t owner, size_t *begin, size_t *end)
{
    atomic_size_t *taken = &t->shared->threads[owner]->tail[t->loop % 4];
    size_t first, last;
    part_of(t, owner, p->n, p->grain, &first, &last);
    first = tail_of(first, last, p->grain);
    const size_t units = first < last ? (last - first + p->grain - 1) / p->grain : 0;
    /* Who only looks does not take the line from others. */
    while (units > 0 && atomic_load_explicit(taken, memory_order_relaxed) < TAIL_PIECES) {
        const size_t piece = atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
        *begin = first + units * piece / TAIL_PIECES * p->grain;
        *end = first + units * (piece + 1) / TAIL_PIECES * p->grain;
        *end = *end < last ? *end : last;
        if (piece < TAIL_PIECES && *begin < *end)
            return true;
    }
    return false;
}

bool team_pieces_next(team *t, team_pieces *p, size_t *begin, size_t *end)
{
    team_progress(t);
    if (!p->begun) {
        p->begun = true;
        team_part(t, p->n, p->grain, begin, end);
        const size_t tail = tail_of(*begin, *end, p->grain);
        *end = tail < *end ? tail : *end;
        if (*begin < *end)
            return true;
    }
    for (; p->distance < t->size; p->distance = p->distance ? 2 * p->distance : 1)
        if (take_tail(t, p, (size_t)(t->tid + p->distance) % (size_t)t->size, begin, end))
            return true;
    return false;
}

qwen3_status team_check_threads(int threads, qwen3_error *err)
{
    if (threads >= 0 && threads <= MOST_THREADS)
        return QWEN3_OK;
    return fail(err, QWEN3_ERR_ARGUMENT, "threads %d: expected 1 to %d, or 0 to choose", threads, MOST_THREADS);
}

/* The largest frames of kernels have 82 KiB (gemm.c), and those below and above them a few more. */
#define STACK_LEAST ((size_t)192 * 1024)

static size_t stack_bytes(void)
{
    pthread_attr_t attributes;
    size_t bytes = SIZE_MAX;
    if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
        pthread_attr_getstacksize(&attributes, &bytes);
        pthread_attr_destroy(&attributes);
    }
    return bytes;
}

qwen3_status team_check_stacks(int threads, qwen3_error *err)
{
    size_t least = SIZE_MAX;
#pragma omp parallel num_threads(threads) reduction(min : least)
    least = stack_bytes();
    if (least >= STACK_LEAST)
        return QWEN3_OK;
    return fail(err, QWEN3_ERR_MEMORY,
                "a thread has %zu KiB of stack, expected at least %zu (ulimit -s, and OMP_STACKSIZE for all but the "
                "first)",
                least / 1024, STACK_LEAST / 1024);
}

/* Up to this many threads are one group. */
#define FEW_THREADS 4

static int group_size_of(int threads)
{
    if (threads <= FEW_THREADS)
        return threads;
    int size = 1;
    while (size * size < threads)
        size++;
    return size;
}

void team_run(int threads, void (*body)(team *t, void *arg), void *arg)
{
    team_shared shared = {.size = threads,
                          .group_size = group_size_of(threads),
                          .polls = threads > omp_get_num_procs() ? POLLS_CROWDED : POLLS};
    if (threads == 1) {
        team t = {.shared = &shared, .size = 1};
        shared.threads[0] = &t;
        body(&t, arg);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        /* The run-time may grant fewer threads than `threads`. */
        team t = {.shared = &shared, .tid = omp_get_thread_num(), .size = omp_get_num_threads()};
        shared.threads[t.tid] = &t;
        team_barrier(&t);
        body(&t, arg);
        team_barrier(&t); /* others may still look at what it has */
    }
}
