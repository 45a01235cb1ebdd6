/* shm.c - the shared segment of a communicator, its synchronisations, and copies between memories of ranks.
 *
 * Synchronisation. With up to BARRIER_RADIX ranks each tells all others that it has arrived. With more it is a
 * dissemination barrier of that radix: in round k rank r tells ranks r + j RADIX^k, j = 1 ... RADIX - 1, and hears from
 * r - j RADIX^k, and after the last round it has heard from all, through others (Hensgen, Finkel, Manber 1988; n-way:
 * Hoefler et al. 2006). Each flag has a cache line of its own, one writer and one reader, so that a synchronisation of
 * R ranks moves R log R lines and not R^2.
 */
#include "comm/shm.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/spin.h"
#include "base/status.h"

#define BARRIER_RADIX 4
/* Polls before a wait leaves the CPU, about 0.1 ms: longer than ranks differ in arrival, as others may then have the
 * CPU for milliseconds. */
#define SPINS 2000

typedef struct flag {
    _Alignas(CACHE_LINE) _Atomic uint64_t number; /* last synchronisation that the writer told of */
} flag;

/* Of ranks that share CPUs. */
typedef struct counter {
    _Alignas(CACHE_LINE) _Atomic int arrived;     /* at the synchronisation in progress */
    _Alignas(CACHE_LINE) _Atomic uint32_t number; /* of the last one that all have arrived at, modulo 2^32 */
} counter;

struct shm {
    comm_segment *segment;
    unsigned char *base; /* a counter, [size][flags] flags, then [size][2] slots with their notes */
    size_t flags;        /* that a rank reads */
    size_t notes_bytes;  /* of a slot */
    uint64_t number;     /* of the last synchronisation */
    shm_note *received;  /* [size] */
    pid_t *processes;    /* [size]; NULL: the ranks do not read each other's memory */
};

/* ---- The segment ------------------------------------------------------------------------------- */

static size_t flags_of_rank(int size)
{
    size_t flags = 0;
    for (int distance = 1; distance < size; distance *= BARRIER_RADIX)
        flags += BARRIER_RADIX - 1;
    return flags;
}

static flag *flags_of(const comm *c, int rank)
{
    return (flag *)(c->shm->base + sizeof(counter)) + (size_t)rank * c->shm->flags;
}

shm_note *shm_notes(const comm *c, int rank, uint64_t number)
{
    const struct shm *s = c->shm;
    unsigned char *slots = s->base + sizeof(counter) + (size_t)c->size * s->flags * sizeof(flag);
    return (shm_note *)(slots + (2 * (size_t)rank + (number & 1)) * (s->notes_bytes + SLOT_BYTES));
}

unsigned char *shm_slot(const comm *c, int rank, uint64_t number)
{
    return (unsigned char *)shm_notes(c, rank, number) + c->shm->notes_bytes;
}

shm_note *shm_received(const comm *c)
{
    return c->shm->received;
}

uint64_t shm_next(const comm *c)
{
    return c->shm->number + 1;
}

static void shm_free(struct shm *s)
{
    if (!s)
        return;
    free(s->received);
    free(s->processes);
    free(s);
}

/* ---- The memory of other ranks ----------------------------------------------------------------- */

static bool copy_all(ssize_t (*copy)(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long,
                                     unsigned long),
                     pid_t process, uint64_t address, void *own, size_t bytes)
{
    for (size_t done = 0; done < bytes;) { /* a call copies at most 2 GiB */
        struct iovec here = {(char *)own + done, bytes - done};
        struct iovec there = {(void *)(uintptr_t)(address + done), bytes - done};
        ssize_t n = copy(process, &here, 1, &there, 1, 0);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

void shm_read(comm *c, int rank, uint64_t address, void *to, size_t bytes)
{
    if (!copy_all(process_vm_readv, c->shm->processes[rank], address, to, bytes))
        c->backend->end_job(c);
}

void shm_write(comm *c, int rank, uint64_t address, const void *from, size_t bytes)
{
    if (!copy_all(process_vm_writev, c->shm->processes[rank], address, (void *)(uintptr_t)from, bytes))
        c->backend->end_job(c);
}

bool shm_reads(const comm *c)
{
    return c->shm->processes;
}

void shm_use_slots(comm *c)
{
    if (!c->shm)
        return;
    free(c->shm->processes);
    c->shm->processes = NULL;
}

/* What ranks tell each other when they attach. */
typedef struct identity {
    pid_t process;
    uint64_t address, word; /* of a word, and what it is */
} identity;

/* Whether this rank can read a word of every other. Ranks in different containers see different processes, of which
 * one may have the number of a rank: the words say who it is. */
static bool reads_all(const comm *c, const identity *all)
{
    for (int r = 0; r < c->size; r++) {
        uint64_t word = 0;
        if (!copy_all(process_vm_readv, all[r].process, all[r].address, &word, sizeof word) || word != all[r].word)
            return false;
    }
    return true;
}

/* Finds out whether all ranks may read each other's memory (process_vm_readv: the same user, and neither Yama nor a
 * container forbids it). Collective. */
static void meet(comm *c)
{
    const size_t size = (size_t)c->size;
    const uint64_t word = (uint64_t)(1e9 * seconds_now());
    identity own = {.process = getpid(), .address = (uintptr_t)&word, .word = word}, *all = calloc(size, sizeof *all);
    pid_t *processes = malloc(size * sizeof *processes);
    double failed = !all || !processes;
    qwen3_comm_max(c, &failed, 1);
    if (failed == 0) {
        for (size_t r = 0; r < size; r++)
            c->counts[r] = sizeof own;
        shm_allgather(c, &own, all, c->counts);
        failed = !reads_all(c, all);
        qwen3_comm_max(c, &failed, 1); /* nobody leaves, with the word, before all have read */
    }
    for (size_t r = 0; r < size && failed == 0; r++)
        processes[r] = all[r].process;
    free(all);
    if (failed == 0)
        c->shm->processes = processes;
    else
        free(processes);
}

void shm_attach(comm *c)
{
    void *base;
    const size_t size = (size_t)c->size;
    qwen3_error err = {0};
    struct shm *s = calloc(1, sizeof *s);
    if (s)
        s->received = malloc(size * sizeof *s->received);
    if (!s || !s->received)
        fail(&err, QWEN3_ERR_MEMORY, "out of memory");
    else
        *s = (struct shm){.flags = flags_of_rank(c->size),
                          .notes_bytes = round_up(size * sizeof(shm_note), CACHE_LINE),
                          .received = s->received};
    if (qwen3_comm_agree(c, &err) != QWEN3_OK ||
        comm_shared_alloc(c, sizeof(counter) + size * (s->flags * sizeof(flag) + 2 * (s->notes_bytes + SLOT_BYTES)),
                          &s->segment, &base, &err) != QWEN3_OK) {
        shm_free(s);
        return;
    }
    s->base = base;
    c->shm = s;
    meet(c);
}

void shm_detach(comm *c)
{
    if (!c->shm)
        return;
    comm_shared_free(c->shm->segment);
    shm_free(c->shm);
    c->shm = NULL;
}

/* ---- Synchronisation --------------------------------------------------------------------------- */

static void wait_for(const flag *f, uint64_t number, long_wait *wait)
{
    for (int i = 0; atomic_load_explicit(&f->number, memory_order_acquire) < number;) {
        if (i < SPINS) {
            cpu_relax();
            i++;
        } else {
            leave_cpu(wait, true);
        }
    }
}

static void disseminate(comm *c, uint64_t number)
{
    size_t round = 0; /* its first flag */
    long_wait wait = {0};
    for (int distance = 1; distance < c->size; distance *= BARRIER_RADIX, round += BARRIER_RADIX - 1) {
        for (int j = 1; j < BARRIER_RADIX && j * distance < c->size; j++) {
            flag *f = flags_of(c, (c->rank + j * distance) % c->size) + round + j - 1;
            atomic_store_explicit(&f->number, number, memory_order_release);
        }
        for (int j = 1; j < BARRIER_RADIX && j * distance < c->size; j++)
            wait_for(flags_of(c, c->rank) + round + j - 1, number, &wait);
    }
}

static void sleep_until_all(comm *c, uint32_t number)
{
    counter *m = (counter *)c->shm->base;
    if (atomic_fetch_add_explicit(&m->arrived, 1, memory_order_acq_rel) == c->size - 1) {
        atomic_store_explicit(&m->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&m->number, number, memory_order_release);
        syscall(SYS_futex, &m->number, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
        return;
    }
    while (atomic_load_explicit(&m->number, memory_order_acquire) != number)
        syscall(SYS_futex, &m->number, FUTEX_WAIT, number - 1, NULL, NULL, 0);
}

void shm_barrier(comm *c)
{
    const uint64_t number = ++c->shm->number;
    if (c->shares_cpus)
        sleep_until_all(c, (uint32_t)number);
    else
        disseminate(c, number);
}
