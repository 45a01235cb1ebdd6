#include "base/team.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#include "base/spin.h"
#include "base/status.h"

/* Polls before the CPU is yielded: longer than the threads of one operation differ in arrival, short enough not to
 * occupy a CPU that another thread needs. */
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
    return (team_pieces){n, grain, false};
}

/* Pieces of the last quarter of a share. */
#define TAIL_PIECES ((size_t)4)

/* Where the tail of a share begins. */
static size_t tail_of(size_t begin, size_t end, size_t grain)
{
    return begin + ((end - begin) / grain * 3 + 3) / 4 * grain;
}

bool team_pieces_next(team *t, team_pieces *p, size_t *begin, size_t *end)
{
    if (!p->own_done) {
        p->own_done = true;
        team_part(t, p->n, p->grain, begin, end);
        const size_t tail = tail_of(*begin, *end, p->grain);
        *end = tail < *end ? tail : *end;
        if (*begin < *end)
            return true;
    }
    /* Item i is piece i / size of the tail of thread i % size. */
    for (size_t i; (i = team_loop_next(t)) < TAIL_PIECES * (size_t)t->size;) {
        size_t first, last;
        part_of(t, i % (size_t)t->size, p->n, p->grain, &first, &last);
        first = tail_of(first, last, p->grain);
        if (first >= last)
            continue;
        const size_t units = (last - first + p->grain - 1) / p->grain, piece = i / (size_t)t->size;
        *begin = first + units * piece / TAIL_PIECES * p->grain;
        *end = first + units * (piece + 1) / TAIL_PIECES * p->grain;
        *end = *end < last ? *end : last;
        if (*begin < *end)
            return true;
    }
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
        /* The run-time may grant fewer threads than `threads`. */
        team t = {&shared, omp_get_thread_num(), omp_get_num_threads(), 0};
        body(&t, arg);
    }
}
