/* shm.h - collectives through memory that all ranks of a communicator share. Internal to comm/.
 *
 * The ranks go through numbered synchronisations. Every rank has two slots in the shared segment, one for even and one
 * for odd numbers. One synchronisation for each use of a slot is enough: what a rank writes into its slot of number e
 * before it enters e, the others read after e and before they enter e + 1. The rank writes into that slot again before
 * e + 2, when it has seen all enter e + 1, so nobody reads it any more. This holds across calls of any kind.
 *
 * Long pieces are not copied through slots where the system lets ranks read each other's memory: the slot carries the
 * address, the reader copies by itself, and another synchronisation says that the memory may change again.
 */
#ifndef QWEN3_COMM_SHM_H
#define QWEN3_COMM_SHM_H

#include "comm/comm_backend.h"

/* Data of a slot: stays in the caches together with what it is copied from. */
#define SLOT_BYTES ((size_t)256 << 10)

/* What the owner of a slot says to one rank, beside the data. */
typedef struct shm_note {
    uint64_t place;  /* of the rank's piece: address in the owner's memory, or offset in its slot */
    uint32_t window; /* bytes of the slot that belong to the piece */
    uint32_t syncs;  /* synchronisations until all pieces of the owner are read */
} shm_note;

/* Sets up c->shm, which stays NULL if the node has no shared memory left. Collective over c, whose ranks are on
 * one node. */
void shm_attach(comm *c);
void shm_detach(comm *c);

/* As in comm_backend; c->shm must be set. */
void shm_barrier(comm *c);
void shm_allgather(comm *c, const void *send, void *recv, const size_t *bytes);
void shm_alltoall(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes);
void shm_gather(comm *c, const void *send, void *recv, const size_t *bytes);
void shm_broadcast(comm *c, void *data, size_t bytes, int root);
size_t shm_sum(comm *c, float *x, size_t n);

/* Ranks no longer read each other's memory: all pieces go through slots, as where the system forbids it. For tests.
 * Collective. */
void shm_use_slots(comm *c);

/* ---- For the files that implement these ---- */

/* The number of the synchronisation that comes next. */
uint64_t shm_next(const comm *c);
/* The slot of `rank` for the synchronisation of that number, and its notes [size]. */
unsigned char *shm_slot(const comm *c, int rank, uint64_t number);
shm_note *shm_notes(const comm *c, int rank, uint64_t number);
/* [size] Room for notes that are needed after the next synchronisation, when their owners may write others. */
shm_note *shm_received(const comm *c);
/* Whether ranks can read and write each other's memory. The same on all ranks. */
bool shm_reads(const comm *c);
/* Copies from and to the memory of another rank. A failure ends the job. */
void shm_read(comm *c, int rank, uint64_t address, void *to, size_t bytes);
void shm_write(comm *c, int rank, uint64_t address, const void *from, size_t bytes);

static inline size_t at_most(size_t n, size_t limit)
{
    return n < limit ? n : limit;
}

#endif
