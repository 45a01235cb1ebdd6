/* comm.h - communicators and what their ranks exchange. Backends: mpi.c and self.c (one process, no MPI).
 *
 * All functions but rank, size and stats are collective over the communicator and are called by thread 0 of
 * each rank. Sums are taken in rank order, whatever arrives first; on several nodes in rank order inside each node,
 * then in the order of nodes, which is that of their lowest ranks. All ranks get the same bits, and the same ranks on
 * the same nodes always give the same bits. Byte counts are the payload that this rank sends to other
 * ranks, whichever way the MPI library takes it; a communicator of one rank counts nothing. Sizes are bytes
 * and may exceed 2^31. Functions that return void fail only if the machine does; they then end the job
 * through MPI, as a forward pass cannot continue on some ranks only. If a rank dies or makes another
 * collective call than the others, only the MPI library can notice it.
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

/* One communicator for the ranks of each colour, ordered by key. Owned by the caller, free with comm_free. */
qwen3_status comm_split(comm *c, int color, int key, comm **out, qwen3_error *err);
/* The ranks that share this rank's node. */
qwen3_status comm_split_node(comm *c, comm **out, qwen3_error *err);
/* Frees c when its last user does. NULL is allowed. */
void comm_free(comm *c);
/* One more user of c, who frees it too. */
comm *comm_share(comm *c);

/* x[i] = sum over ranks in the order above, in place, on all ranks. */
void comm_allreduce(comm *c, float *x, size_t n, qwen3_comm_kind kind);
/* recv = the contributions of all ranks in rank order; bytes [size], the same on all ranks. send may be this
 * rank's place in recv. */
void comm_allgather(comm *c, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind);
/* Sends send_bytes[r] to each rank r from consecutive parts of `send`; receives recv_bytes[r] into
 * consecutive parts of `recv`. */
void comm_alltoall(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes,
                   qwen3_comm_kind kind);
/* As comm_allgather, but on rank 0 only (recv is ignored elsewhere). */
void comm_gather(comm *c, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind);
void comm_broadcast(comm *c, void *data, size_t bytes, int root, qwen3_comm_kind kind);

/* Fails where message passing has ended. Not collective. */
qwen3_status comm_check(const comm *c, qwen3_error *err);
/* As qwen3_comm_agree. If all is well, but a rank has another digest of `what` than rank 0, all return QWEN3_ERR_COMM.
 */
qwen3_status comm_agree_on(comm *c, const char *what, uint64_t digest, qwen3_error *err);

/* ---- Messages that go on while the ranks compute ----
 *
 * What is started in a slot is ended by comm_wait on the same slot, which must be called before the slot is used again;
 * all ranks use the same slot for the same operation. Until then the buffers belong to the operation. Operations in
 * different slots may be under way together. They move when comm_progress, or any wait, is called. Ranks of one node
 * that share memory may do all of it at the start. */
enum { COMM_SLOTS = 4 };

/* Whether a rank can compute while messages that it started go on. */
bool comm_overlaps(const comm *c);

/* A ring hop: sends to rank + 1, receives from rank - 1. */
void comm_ring_start(comm *c, int slot, const void *send, size_t send_bytes, void *recv, size_t recv_bytes,
                     qwen3_comm_kind kind);
/* As comm_allgather. Here the parts can be waited for one by one, in the order rank - 1, rank - 2, ... */
void comm_allgather_start(comm *c, int slot, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind);
/* Waits for the part of rank - hop (modulo size), hop in [1, size). */
void comm_wait_part(comm *c, int slot, int hop);

/* How the values of a sum travel: rounded to fewer bits, some together. */
typedef struct comm_codec {
    size_t values, bytes; /* of a block of values that are coded together */
    void (*encode)(const struct comm_codec *codec, size_t n, const float *x, void *coded);
    void (*decode)(const struct comm_codec *codec, size_t n, const void *coded, float *x);
    const void *arg; /* the owner's */
} comm_codec;

/* x[i] = sum over ranks. `room` has comm_sum_room bytes, aligned to a cache line. codec NULL: as floats, with the
 * result of comm_allreduce. Otherwise contributions are rounded by the codec, and so are the sums, on all ranks alike.
 * The codec is not used for sums that are short or stay in a node. */
typedef struct comm_sum {
    float *x;
    size_t n;
    void *room;
    const comm_codec *codec;
} comm_sum;
void comm_allreduce_start(comm *c, int slot, const comm_sum *sum, qwen3_comm_kind kind);
size_t comm_sum_room(const comm *c, size_t n, const comm_codec *codec);
/* Waits for what was started in the slot, if anything was. */
void comm_wait(comm *c, int slot);
/* Lets everything that is under way in c, and in all that was split from the same communicator, go on. Never waits.
 * Not collective. */
void comm_progress(comm *c);

/* A zero-filled memory segment that the ranks of one node share (c from comm_split_node or a split of it).
 * *base may differ between ranks. If the node cannot provide it, all ranks get QWEN3_ERR_MEMORY; callers then
 * keep private copies. With one rank it is plain memory. Stores are visible to the other ranks after
 * comm_shared_sync. comm_shared_free is collective. */
typedef struct comm_segment comm_segment;
qwen3_status comm_shared_alloc(comm *c, size_t bytes, comm_segment **out, void **base, qwen3_error *err);
void comm_shared_sync(comm *c, comm_segment *segment);
void comm_shared_free(comm_segment *segment);

/* Counters, kept together for a communicator and all that are split from it; the first one owns them. */
qwen3_comm_stats *comm_stats(comm *c);

#endif
