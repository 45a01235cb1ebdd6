/* comm_backend.h - what a communicator is made of, and what a backend provides. Internal to comm/.
 *
 * comm.c counts, times, and builds sums and agreement; a backend only moves bytes and never sees the counters.
 * Backends: self.c (one process, no MPI) and mpi.c, which uses shm.c between ranks of one node, and levels.c between
 * those of several nodes where at least one node has more than one.
 */
#ifndef QWEN3_COMM_BACKEND_H
#define QWEN3_COMM_BACKEND_H

#include "comm/comm.h"

/* One message of those that are started together. */
typedef struct comm_message {
    unsigned char *data; /* written only where receive is set */
    size_t bytes;
    int peer;
    bool receive;
} comm_message;

static inline comm_message send_to(int peer, const void *data, size_t bytes)
{
    return (comm_message){.data = (unsigned char *)(uintptr_t)data, .bytes = bytes, .peer = peer};
}

static inline comm_message receive_from(int peer, void *data, size_t bytes)
{
    return (comm_message){.data = data, .bytes = bytes, .peer = peer, .receive = true};
}

typedef struct comm_backend {
    void (*barrier)(comm *c);
    /* Arguments as in comm.h. */
    void (*allgather)(comm *c, const void *send, void *recv, const size_t *bytes);
    void (*alltoall)(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes);
    void (*gather)(comm *c, const void *send, void *recv, const size_t *bytes);
    void (*broadcast)(comm *c, void *data, size_t bytes, int root);
    /* x[i] = sum over ranks in rank order; returns the bytes that this rank sent. NULL for one rank. */
    size_t (*sum)(comm *c, float *x, size_t n);
    /* Starts n <= 2 * size messages in a slot whose messages have all arrived. NULL for one rank, as the next. */
    void (*start)(comm *c, int slot, const comm_message *messages, int n);
    /* Lets the messages of a slot go on; whether the first n of them are complete. */
    bool (*test)(comm *c, int slot, int n);
    qwen3_status (*split)(comm *c, int color, int key, comm **out, qwen3_error *err);
    qwen3_status (*split_node)(comm *c, comm **out, qwen3_error *err);
    const struct comm_backend *messages; /* of a table that uses c->shm or c->levels: the one that does not */
    const struct comm_backend *levels;   /* of one that uses neither: the one that uses c->levels */
    void (*release)(comm *c);            /* frees state; not collective for one rank */
    void (*end_job)(comm *c);            /* ends the job: a collective failed that cannot. NULL for one rank */
    bool (*ended)(void);                 /* whether messages can no longer be passed. NULL for one rank */
} comm_backend;

/* What is under way in a slot. */
typedef struct comm_started {
    enum { SLOT_FREE, SLOT_MESSAGES, SLOT_SLICES, SLOT_SUMS } stage; /* a sum: of contributions, then of sums */
    qwen3_comm_kind kind;
    int messages; /* of this stage */
    double begin;
    comm_sum sum;
} comm_started;

struct qwen3_comm {
    const comm_backend *backend;
    int rank, size;
    int users;                  /* who made it, and the models that are open on it: the last of them frees it */
    int root_rank;              /* of this process in the root of the tree of splits, which errors name */
    bool one_node;              /* all ranks share memory */
    bool by_messages;           /* comm_use_messages was called for it or what it was split from */
    void *state;                /* the backend's */
    qwen3_comm_stats *stats;    /* those of the communicator that all this was split from */
    qwen3_comm_stats own_stats; /* used if this one was not split from another */
    float *scratch;             /* [SUM_BLOCK + size] contributions that wait to be summed */
    size_t *counts;             /* [2][size] byte counts of the collective in progress */
    const float **parts;        /* [size] contributions to the sum in progress */
    struct shm *shm;            /* shared memory of the ranks (shm.c), or NULL */
    comm *root;                 /* that this one was split from, perhaps itself */
    comm *first_busy;           /* in the root: the list of communicators that have something under way */
    comm *next_busy;
    int busy; /* slots with something under way */
    comm_started started[COMM_SLOTS];
    comm_message *messages; /* [2][size] of what is being started */
    struct levels *levels;  /* their nodes (levels.c), or NULL */
    bool shares_cpus;       /* the ranks of a node have fewer CPUs than they are: a wait yields at once */
};

extern const comm_backend comm_backend_self;

/* A communicator with everything but backend state. It shares the counters of parent; parent NULL: it owns its
 * own. Not collective. Fails with QWEN3_ERR_MEMORY. */
qwen3_status comm_create(const comm_backend *backend, int rank, int size, comm *parent, comm **out, qwen3_error *err);

/* A wait for other ranks that has polled in vain for long. Zero at its beginning. */
typedef struct long_wait {
    double begin; /* when it first left the CPU */
    bool shared;  /* somebody else wants the CPU */
} long_wait;

/* Polls of MPI's progress before a wait leaves the CPU: about 0.1 ms, longer than a message takes. */
enum { MESSAGE_POLLS = 300 };

/* Leaves the CPU to others: yields it, and if they then keep it for long sleeps instead. The scheduler gives the CPU at
 * once to who has slept, but to who has yielded only after the others have had their milliseconds. Where `idles` is
 * set, a wait of milliseconds sleeps ever longer, as one for a person to type. */
void leave_cpu(long_wait *w, bool idles);

/* Says that a fault is of this rank of the root, and of this host. */
void error_name_rank(qwen3_error *err, int root_rank);

/* out[i] = ((parts[0][i] + parts[1][i]) + parts[2][i]) + ... for at least two ranks; out overlaps none. */
void sum_in_rank_order(float *restrict out, const float *const *parts, int ranks, size_t n);

/* Adds what a call cost to the counters. */
void comm_count(comm *c, qwen3_comm_kind kind, uint64_t calls, size_t bytes, double begin);

/* A sum is gathered whole if the contributions of all ranks together have at most this size. Below it the latency of
 * a second exchange costs more than the bytes that it saves. */
#define GATHER_SUM_BYTES ((size_t)64 << 10)

/* The sum for a backend without a better one, by its allgather and alltoall. */
size_t sum_by_messages(comm *c, float *x, size_t n);

/* For tests and comparisons on one node. comm_use_messages turns shared memory off, also for what will be split
 * from c: the ranks exchange messages as if each were alone on its node. comm_use_nodes takes ranks of the same `node`
 * for those of a node. Collective. */
void comm_use_messages(comm *c);
qwen3_status comm_use_nodes(comm *c, int node, qwen3_error *err);

/* Checks that a process without other ranks was started alone: fails with QWEN3_ERR_COMM if the environment says
 * that a launcher started more. Not collective. */
qwen3_status launcher_check(qwen3_error *err);

#endif
