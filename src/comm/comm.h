/* comm.h - groups of ranks and what they exchange. Backends: mpi.c and self.c (one process, no MPI).
 *
 * All functions but rank/size/stats are collective over the group and are called by thread 0 of each
 * rank. Sums are taken in rank order whatever the arrival order, so the same number of ranks gives the
 * same bits; all ranks get identical bits. Byte counts are payload that leaves this rank for another one,
 * counted where it comes from, whichever way the MPI library takes it; groups of one rank count nothing.
 * Sizes are bytes and may exceed 2^31. Functions that return void cannot fail short of a broken machine,
 * in which case they end the job through MPI (a forward pass cannot continue on some ranks only). A rank
 * that died, or that made another collective call than the others, is found by the MPI library at best.
 */
#ifndef QWEN3_COMM_H
#define QWEN3_COMM_H

#include "qwen3.h"

typedef qwen3_comm comm; /* struct qwen3_comm is defined in comm_backend.h */

static inline int comm_rank(const comm *c)
{
    return qwen3_comm_rank(c);
}
static inline int comm_size(const comm *c)
{
    return qwen3_comm_size(c);
}

/* Sub-groups; owned by the caller, free with comm_free. Ranks of equal colour, ordered by key. */
qwen3_status comm_split(comm *c, int color, int key, comm **out, qwen3_error *err);
/* The ranks that share this rank's node. */
qwen3_status comm_split_node(comm *c, comm **out, qwen3_error *err);
void comm_free(comm *c);

/* x[i] = sum over ranks in rank order, in place, on all ranks. */
void comm_allreduce(comm *c, float *x, size_t n, qwen3_comm_kind kind);
/* recv = the ranks' contributions one after the other; bytes[size] on all ranks. Own part: send may be
 * its place in recv. */
void comm_allgather(comm *c, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind);
/* Sends send_bytes[r] to each rank r from consecutive pieces of `send`; receives recv_bytes[r] into
 * consecutive pieces of `recv`. */
void comm_alltoall(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes,
                   qwen3_comm_kind kind);
/* The same on rank 0 only (recv ignored elsewhere). */
void comm_gather(comm *c, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind);
void comm_broadcast(comm *c, void *data, size_t bytes, int root, qwen3_comm_kind kind);

/* A ring hop in the background: sends to rank + 1, receives from rank - 1. Both buffers are in use until
 * comm_ring_wait. One hop at a time. */
void comm_ring_start(comm *c, const void *send, size_t send_bytes, void *recv, size_t recv_bytes, qwen3_comm_kind kind);
void comm_ring_wait(comm *c);

/* One zero-filled memory segment that all ranks of a group on one node see (c from comm_split_node or a
 * split of it). *base differs in value, not in contents. Where the node cannot provide it, fails with
 * QWEN3_ERR_MEMORY on all ranks; callers then keep private copies. For size-1 groups it is plain memory.
 * comm_shared_free is collective. Stores become visible to the others by comm_shared_sync. */
typedef struct comm_segment comm_segment;
qwen3_status comm_shared_alloc(comm *c, size_t bytes, comm_segment **out, void **base, qwen3_error *err);
void comm_shared_sync(comm *c, comm_segment *segment);
void comm_shared_free(comm_segment *segment);

/* Counters, kept for the group and all groups split from it (the root of the tree owns them). */
qwen3_comm_stats *comm_stats(comm *c);

#endif
