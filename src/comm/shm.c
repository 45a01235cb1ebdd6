/* shm.c - collectives through memory that all ranks of a communicator share.
 *
 * The ranks go through numbered synchronisations: each posts the number in its own cache line and waits until
 * all have. Every rank has two slots, one for even and one for odd numbers. One synchronisation per chunk is
 * enough: what a rank writes into its slot of number e before it posts e, the others read after e and before
 * they post e + 1. The rank writes into that slot again before e + 2, when it has seen all post e + 1, so
 * nobody reads it any more. This holds across calls of any kind.
 *
 * Longer data is split into chunks of a slot, which stays in the caches.
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

/* Half of a slot: contributions; the other half: sums. */
#define CHUNK_BYTES ((size_t)128 << 10)
#define CHUNK_FLOATS (CHUNK_BYTES / sizeof(float))
#define SLOT_BYTES (2 * CHUNK_BYTES)
/* Sums up to this length are read whole by everyone: one synchronisation instead of two. */
#define WHOLE_FLOATS ((size_t)4096)
/* Polls before the CPU is yielded: longer than ranks differ in arrival, short enough where they share CPUs. */
#define SPINS 256
/* A rank that has waited this long sleeps between polls: waiting for a person to type must not keep a CPU busy. It
 * sleeps for this part of the time that it has waited, so it notices the end not much later. */
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

/* *begin: when the wait first called this, 0 before. */
static void yield_cpu(double *begin)
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
                yield_cpu(&begin);
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

/* Where slice r of a chunk of len floats begins. */
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

/* Sums this rank's slice of a chunk whose contributions are in the slots of number - 1. */
static void sum_own_slice(comm *c, float *x, size_t len, uint64_t number)
{
    size_t begin = slice_begin(c, len, c->rank), n = slice_begin(c, len, c->rank + 1) - begin;
    float *sum = (float *)(slot(c, c->rank, number) + CHUNK_BYTES);
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
            memcpy(x + begin, slot(c, r, number) + CHUNK_BYTES, (end - begin) * sizeof *x);
    }
}

/* The contributions to a chunk are exchanged together with the sums of the chunk before: chunks + 1
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
        size_t len = at_most(n - done, CHUNK_FLOATS);
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
