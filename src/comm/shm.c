/* shm.c - collectives through memory that all ranks of a group share.
 *
 * The group goes through numbered synchronisations: each rank posts the number in its own cache line and
 * waits until all have. Every rank has two slots, one for even and one for odd numbers. The rule that makes
 * one synchronisation per step enough: what is written into the slots of number e before posting e is read
 * by the others after e and before they post e + 1. A rank that writes into the same slots again, before
 * e + 2, has seen everybody post e + 1, so nobody reads any more. The rule holds across calls, whatever
 * their kinds.
 *
 * Longer data goes in steps of a slot, which then stays in the caches.
 */
#include "comm/shm.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/spin.h"
#include "base/status.h"

/* Half of a slot: contributions; the other half: sums, or the table of sizes of an all-to-all. */
#define STEP_BYTES ((size_t)128 << 10)
#define STEP_FLOATS (STEP_BYTES / sizeof(float))
#define SLOT_BYTES (2 * STEP_BYTES)
/* Sums up to this length are read whole by everyone: one synchronisation instead of two. */
#define WHOLE_FLOATS ((size_t)4096)
/* Polls before the CPU is given away: the spread of ranks that run; short where they share CPUs. */
#define SPINS 256
/* A rank that has waited this long sleeps between polls, for this part of the time that it has waited, so that what it
 * waits for is not noticed much later: who waits for a person to type must not keep a CPU busy. */
#define WAIT_SECONDS 5e-3
#define SLEEP_PART 0.05
#define LONGEST_SLEEP 1e-3

struct shm {
    comm_segment *segment;
    unsigned char *base;
    uint64_t number; /* of the last synchronisation */
};

typedef struct post {
    _Alignas(CACHE_LINE) _Atomic uint64_t number; /* last posted */
} post;

void shm_attach(comm *c)
{
    void *base;
    size_t size = (size_t)c->size;
    qwen3_error err = {0};
    struct shm *s = calloc(1, sizeof *s);
    if (!s)
        fail(&err, QWEN3_ERR_MEMORY, "out of memory");
    if (qwen3_comm_agree(c, &err) == QWEN3_OK &&
        comm_shared_alloc(c, size * (sizeof(post) + 2 * SLOT_BYTES), &s->segment, &base, &err) == QWEN3_OK) {
        s->base = base;
        c->shm = s;
        return;
    }
    free(s);
}

void shm_detach(comm *c)
{
    if (!c->shm)
        return;
    comm_shared_free(c->shm->segment);
    free(c->shm);
    c->shm = NULL;
}

/* The slot of `rank` for the synchronisation of that number. */
static unsigned char *slot(const comm *c, int rank, uint64_t number)
{
    return c->shm->base + (size_t)c->size * sizeof(post) + (2 * (size_t)rank + (number & 1)) * SLOT_BYTES;
}

/* *begin: when this was first called in a wait, 0 before. */
static void give_cpu_away(double *begin)
{
    double now = seconds_now(), sleep;
    if (*begin == 0)
        *begin = now;
    if (now - *begin < WAIT_SECONDS) {
        sched_yield();
        return;
    }
    sleep = SLEEP_PART * (now - *begin);
    usleep((useconds_t)(1e6 * (sleep < LONGEST_SLEEP ? sleep : LONGEST_SLEEP)));
}

void shm_barrier(comm *c)
{
    struct shm *s = c->shm;
    post *posts = (post *)s->base;
    uint64_t number = ++s->number;
    atomic_store_explicit(&posts[c->rank].number, number, memory_order_release);
    double begin = 0;
    for (int r = 0; r < c->size; r++) {
        for (int i = 0; atomic_load_explicit(&posts[r].number, memory_order_acquire) < number;) {
            if (i < SPINS) {
                cpu_relax();
                i++;
            } else {
                give_cpu_away(&begin);
            }
        }
    }
}

static size_t at_most(size_t n, size_t limit)
{
    return n < limit ? n : limit;
}

void shm_allgather(comm *c, const void *send, void *recv, const size_t *bytes)
{
    size_t longest = 0, place = 0;
    unsigned char *to = recv;
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank && bytes[r] && to + place != send)
            memmove(to + place, send, bytes[r]);
        if (r == c->rank)
            send = to + place;
        place += bytes[r];
        longest = bytes[r] > longest ? bytes[r] : longest;
    }
    for (size_t done = 0; done < longest; done += SLOT_BYTES) {
        uint64_t number = c->shm->number + 1;
        if (done < bytes[c->rank])
            memcpy(slot(c, c->rank, number), (const unsigned char *)send + done,
                   at_most(bytes[c->rank] - done, SLOT_BYTES));
        shm_barrier(c);
        to = recv;
        for (int r = 0; r < c->size; to += bytes[r], r++) {
            if (r != c->rank && done < bytes[r])
                memcpy(to + done, slot(c, r, number), at_most(bytes[r] - done, SLOT_BYTES));
        }
    }
}

void shm_broadcast(comm *c, void *data, size_t bytes, int root)
{
    unsigned char *at = data;
    for (size_t done = 0; done < bytes; done += SLOT_BYTES) {
        uint64_t number = c->shm->number + 1;
        size_t len = at_most(bytes - done, SLOT_BYTES);
        if (c->rank == root)
            memcpy(slot(c, root, number), at + done, len);
        shm_barrier(c);
        if (c->rank != root)
            memcpy(at + done, slot(c, root, number), len);
    }
}

/* ---- Sums -------------------------------------------------------------------------------------- */

static void sum_whole(comm *c, float *x, size_t n)
{
    uint64_t number = c->shm->number + 1;
    memcpy(slot(c, c->rank, number), x, n * sizeof *x);
    shm_barrier(c);
    for (int r = 0; r < c->size; r++)
        c->parts[r] = (const float *)slot(c, r, number);
    sum_in_rank_order(x, c->parts, c->size, n);
}

/* Where slice r of a step of len floats begins. */
static size_t slice_begin(const comm *c, size_t len, int r)
{
    return len * (size_t)r / (size_t)c->size;
}

static void copy_in_contributions(comm *c, const float *x, size_t len, uint64_t number)
{
    size_t begin = slice_begin(c, len, c->rank), end = slice_begin(c, len, c->rank + 1);
    float *to = (float *)slot(c, c->rank, number);
    memcpy(to, x, begin * sizeof *x);
    memcpy(to + end, x + end, (len - end) * sizeof *x);
}

/* Sums this rank's slice of a step, whose contributions are in the slots of number - 1. */
static void sum_own_slice(comm *c, float *x, size_t len, uint64_t number)
{
    size_t begin = slice_begin(c, len, c->rank), n = slice_begin(c, len, c->rank + 1) - begin;
    float *sum = (float *)(slot(c, c->rank, number) + STEP_BYTES);
    for (int r = 0; r < c->size; r++)
        c->parts[r] = r == c->rank ? x + begin : (const float *)slot(c, r, number - 1) + begin;
    sum_in_rank_order(sum, c->parts, c->size, n);
    memcpy(x + begin, sum, n * sizeof *x);
}

static void copy_out_sums(comm *c, float *x, size_t len, uint64_t number)
{
    for (int r = 0; r < c->size; r++) {
        size_t begin = slice_begin(c, len, r), end = slice_begin(c, len, r + 1);
        if (r != c->rank)
            memcpy(x + begin, slot(c, r, number) + STEP_BYTES, (end - begin) * sizeof *x);
    }
}

/* The contributions to a step travel together with the sums of the step before: steps + 1
 * synchronisations in all. */
size_t shm_sum(comm *c, float *x, size_t n)
{
    size_t sent = 0, others = (size_t)c->size - 1, before = 0;
    if (n == 0)
        return 0;
    if (n <= WHOLE_FLOATS) {
        sum_whole(c, x, n);
        return n * sizeof *x * others;
    }
    for (size_t done = 0; done < n || before > 0;) {
        uint64_t number = c->shm->number + 1;
        size_t len = at_most(n - done, STEP_FLOATS);
        if (before > 0)
            sum_own_slice(c, x + done - before, before, number);
        copy_in_contributions(c, x + done, len, number);
        shm_barrier(c);
        if (before > 0)
            copy_out_sums(c, x + done - before, before, number);
        size_t own = slice_begin(c, len, c->rank + 1) - slice_begin(c, len, c->rank);
        sent += (len - own + own * others) * sizeof *x;
        done += len;
        before = len;
    }
    return sent;
}
