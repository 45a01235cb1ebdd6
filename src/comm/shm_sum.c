/* shm_sum.c - sums in rank order through the slots of shm.c. Where others' contributions are short, every rank reads
 * and sums them all; otherwise each sums a slice, and all read the sums.
 *
 * Unlike pieces that only move, contributions are never read from the other ranks' memory: they are in a slot where
 * they are added, one copy less than to read them into memory of the own.
 */
#include <string.h>

#include "comm/shm.h"

/* Half of a slot: contributions; the other half: sums. */
#define CHUNK_BYTES (SLOT_BYTES / 2)
#define CHUNK_FLOATS (CHUNK_BYTES / sizeof(float))
/* Everyone reads everything if that is at most this much: reading it takes as long as a second synchronisation and the
 * reading of sums. */
#define WHOLE_BYTES ((size_t)16 << 10)

static void sum_whole(comm *c, float *x, size_t n)
{
    const uint64_t number = shm_next(c);
    memcpy(shm_slot(c, c->rank, number), x, n * sizeof *x);
    shm_barrier(c);
    for (int r = 0; r < c->size; r++)
        c->parts[r] = (const float *)shm_slot(c, r, number);
    sum_in_rank_order(x, c->parts, c->size, n);
}

/* Where slice r of len floats begins. */
static size_t slice_begin(const comm *c, size_t len, int r)
{
    return len * (size_t)r / (size_t)c->size;
}

/* Bytes that this rank sends to the owners of the other slices, and of its own sums to all. */
static size_t bytes_of_slices(const comm *c, size_t len)
{
    const size_t own = slice_begin(c, len, c->rank + 1) - slice_begin(c, len, c->rank);
    return (len - own + own * ((size_t)c->size - 1)) * sizeof(float);
}

static void copy_in_contributions(comm *c, const float *x, size_t len, uint64_t number)
{
    size_t begin = slice_begin(c, len, c->rank), end = slice_begin(c, len, c->rank + 1);
    float *to = (float *)shm_slot(c, c->rank, number);
    memcpy(to, x, begin * sizeof *x);
    memcpy(to + end, x + end, (len - end) * sizeof *x);
}

/* Sums this rank's slice of a chunk whose contributions are in the slots of number - 1. */
static void sum_own_slice(comm *c, float *x, size_t len, uint64_t number)
{
    size_t begin = slice_begin(c, len, c->rank), n = slice_begin(c, len, c->rank + 1) - begin;
    float *sum = (float *)(shm_slot(c, c->rank, number) + CHUNK_BYTES);
    for (int r = 0; r < c->size; r++)
        c->parts[r] = r == c->rank ? x + begin : (const float *)shm_slot(c, r, number - 1) + begin;
    sum_in_rank_order(sum, c->parts, c->size, n);
    memcpy(x + begin, sum, n * sizeof *x);
}

static void copy_out_sums(comm *c, float *x, size_t len, uint64_t number)
{
    for (int r = 0; r < c->size; r++) {
        size_t begin = slice_begin(c, len, r), end = slice_begin(c, len, r + 1);
        if (r != c->rank)
            memcpy(x + begin, shm_slot(c, r, number) + CHUNK_BYTES, (end - begin) * sizeof *x);
    }
}

/* Rank r sums slice r of all. The contributions to a chunk are exchanged together with the sums of the chunk before:
 * chunks + 1 synchronisations in all. */
size_t shm_sum(comm *c, float *x, size_t n)
{
    size_t sent = 0, before = 0;
    const size_t others = (size_t)c->size - 1;
    if (n == 0)
        return 0;
    if (n * sizeof *x * others <= WHOLE_BYTES) {
        sum_whole(c, x, n);
        return n * sizeof *x * others;
    }
    for (size_t done = 0; done < n || before > 0;) {
        const uint64_t number = shm_next(c);
        const size_t len = at_most(n - done, CHUNK_FLOATS);
        if (before > 0)
            sum_own_slice(c, x + done - before, before, number);
        copy_in_contributions(c, x + done, len, number);
        shm_barrier(c);
        if (before > 0)
            copy_out_sums(c, x + done - before, before, number);
        sent += bytes_of_slices(c, len);
        done += len;
        before = len;
    }
    return sent;
}
