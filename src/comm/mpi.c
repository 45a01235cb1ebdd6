/* mpi.c - the backend over MPI.
 *
 * Every communicator has its own MPI communicator. Calls of MPI take int counts; longer messages are split into
 * chunks, which sender and receiver derive from the length that both know. An error of MPI in a collective that
 * cannot fail (comm.h) ends the job: the other ranks could not continue.
 */
#include <build_commit.h>
#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "comm/comm_backend.h"
#include "comm/comm_mpi.h"
#include "comm/levels.h"
#include "comm/shm.h"
#include "qwen3_mpi.h"

#define CHUNK ((size_t)1 << 30)
/* Up to this much, exchanges are written here, in few rounds. Longer ones are the MPI library's own collectives, which
 * divide the work better but may poll without ever yielding the CPU. */
#define SMALL_BYTES ((size_t)64 << 10)
#define SMALL_RADIX 4

enum { TAG_TRANSFER, TAG_STARTED }; /* TAG_STARTED + slot */

/* The messages of a slot. */
typedef struct started_messages {
    comm_message *messages; /* [2 * size] what is still to be posted of each */
    MPI_Request *requests;  /* [2 * size] */
    int n, tag;
} started_messages;

typedef struct mpi_state {
    MPI_Comm mpi;
    int *lengths, *offsets; /* [size] of the MPI_Allgatherv in progress */
    comm_message *messages; /* [2 * size] of the transfer in progress */
    MPI_Request *requests;  /* [2 * size] */
    started_messages started[COMM_SLOTS];
    size_t *starts;       /* [size + 1] of the pieces of a small allgather in `small` */
    unsigned char *small; /* [SMALL_BYTES] */
} mpi_state;

static struct {
    comm *all;
    bool started; /* qwen3_init called MPI_Init_thread */
    bool ended;   /* mpi_end was called */
} world;

static const comm_backend comm_backend_mpi, comm_backend_node, comm_backend_levels;

static void mpi_end_job(comm *c)
{
    MPI_Abort(((mpi_state *)c->state)->mpi, EXIT_FAILURE);
}

static void must(comm *c, int code)
{
    if (code != MPI_SUCCESS)
        mpi_end_job(c);
}

/* ---- Communicators ----------------------------------------------------------------------------- */

static bool mpi_ended(void)
{
    int finalised = 0;
    MPI_Finalized(&finalised);
    return finalised != 0 || world.ended;
}

static void state_free(mpi_state *s)
{
    if (s->mpi != MPI_COMM_NULL && !mpi_ended())
        MPI_Comm_free(&s->mpi);
    free(s->lengths);
    free(s->offsets);
    free(s->messages);
    free(s->requests);
    for (int i = 0; i < COMM_SLOTS; i++) {
        free(s->started[i].messages);
        free(s->started[i].requests);
    }
    free(s->starts);
    free(s->small);
    free(s);
}

static void mpi_release(comm *c)
{
    state_free(c->state);
}

static mpi_state *state_create(size_t size)
{
    mpi_state *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->mpi = MPI_COMM_NULL;
    s->lengths = malloc(size * sizeof *s->lengths);
    s->offsets = malloc(size * sizeof *s->offsets);
    s->messages = malloc(2 * size * sizeof *s->messages);
    s->requests = malloc(2 * size * sizeof *s->requests);
    s->starts = malloc((size + 1) * sizeof *s->starts);
    s->small = malloc(SMALL_BYTES);
    bool complete = s->lengths && s->offsets && s->messages && s->requests && s->starts && s->small;
    for (int i = 0; i < COMM_SLOTS; i++) {
        s->started[i].messages = malloc(2 * size * sizeof *s->messages);
        s->started[i].requests = malloc(2 * size * sizeof *s->requests);
        complete &= s->started[i].messages && s->started[i].requests;
    }
    if (complete)
        return s;
    state_free(s);
    return NULL;
}

static bool shares_cpus(MPI_Comm node, int ranks)
{
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) /* there are more than the set can hold */
        CPU_ZERO(&cpus);
    MPI_Allreduce(MPI_IN_PLACE, &cpus, sizeof cpus, MPI_BYTE, MPI_BOR, node);
    return CPU_COUNT(&cpus) > 0 && CPU_COUNT(&cpus) < ranks;
}

static qwen3_status mpi_create(MPI_Comm mpi, comm *parent, comm **out, qwen3_error *err);

/* Finds out which ranks are on a node, and has them share memory. Collective; without memory, messages remain. */
static void use_nodes(comm *c, bool is_root)
{
    MPI_Comm mpi = ((mpi_state *)c->state)->mpi, ranks;
    comm *node = NULL;
    qwen3_error err = {0};
    int n = 0, most = 0;
    must(c, MPI_Comm_split_type(mpi, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &ranks));
    MPI_Comm_size(ranks, &n);
    must(c, MPI_Allreduce(&n, &most, 1, MPI_INT, MPI_MAX, mpi));
    if (is_root)
        c->shares_cpus = shares_cpus(ranks, n);
    c->one_node = n == c->size;
    if (c->one_node || most == 1 || c->by_messages) {
        MPI_Comm_free(&ranks);
        if (c->one_node && !c->by_messages)
            shm_attach(c);
        if (c->shm)
            c->backend = &comm_backend_node;
        return;
    }
    mpi_create(ranks, c, &node, &err);
    if (qwen3_comm_agree(c, &err) == QWEN3_OK)
        levels_attach(c, node);
    else
        comm_free(node);
}

/* Makes a communicator of `mpi`, which it owns from then on, also on failure. Collective over mpi; a failure of one
 * rank is a failure of all. */
static qwen3_status mpi_create(MPI_Comm mpi, comm *parent, comm **out, qwen3_error *err)
{
    int rank, size;
    qwen3_error local = {0};
    *out = NULL;
    MPI_Comm_set_errhandler(mpi, MPI_ERRORS_RETURN);
    MPI_Comm_rank(mpi, &rank);
    MPI_Comm_size(mpi, &size);
    if (size == 1) {
        MPI_Comm_free(&mpi);
        return comm_create(&comm_backend_self, 0, 1, parent, out, err);
    }
    mpi_state *s = state_create((size_t)size);
    comm *c = NULL;
    if (!s)
        fail(&local, QWEN3_ERR_MEMORY, "communicator of %d ranks: out of memory", size);
    else
        comm_create(&comm_backend_mpi, rank, size, parent, &c, &local);
    /* qwen3_comm_agree needs a communicator on every rank, and this one may have failed to make it. */
    int failed = c ? size : rank, lowest = size;
    int code = MPI_Allreduce(&failed, &lowest, 1, MPI_INT, MPI_MIN, mpi);
    if (code == MPI_SUCCESS && lowest == size) {
        s->mpi = mpi;
        c->state = s;
        use_nodes(c, !parent);
        *out = c;
        return QWEN3_OK;
    }
    if (!c)
        error_name_rank(&local, parent ? parent->root_rank : rank);
    if (code == MPI_SUCCESS)
        code = MPI_Bcast(&local, sizeof local, MPI_BYTE, lowest, mpi);
    if (code != MPI_SUCCESS)
        fail(&local, QWEN3_ERR_COMM, "communicator of %d ranks: MPI failed", size);
    if (c) {
        c->state = s;
        comm_free(c);
    } else if (s) {
        state_free(s);
    }
    MPI_Comm_free(&mpi);
    if (err)
        *err = local;
    return local.status;
}

static qwen3_status mpi_split(comm *c, int color, int key, comm **out, qwen3_error *err)
{
    mpi_state *s = c->state;
    MPI_Comm part;
    qwen3_error local = {0};
    *out = NULL;
    if (MPI_Comm_split(s->mpi, color, key, &part) != MPI_SUCCESS)
        fail(&local, QWEN3_ERR_COMM, "MPI_Comm_split of %d ranks failed", c->size);
    else
        mpi_create(part, c, out, &local);
    if (qwen3_comm_agree(c, &local) == QWEN3_OK)
        return QWEN3_OK;
    comm_free(*out);
    *out = NULL;
    if (err)
        *err = local;
    return local.status;
}

static qwen3_status mpi_split_node(comm *c, comm **out, qwen3_error *err)
{
    mpi_state *s = c->state;
    MPI_Comm node;
    int first = c->rank;
    *out = NULL;
    if (MPI_Comm_split_type(s->mpi, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &node) != MPI_SUCCESS ||
        MPI_Bcast(&first, 1, MPI_INT, 0, node) != MPI_SUCCESS)
        must(c, MPI_ERR_OTHER);
    MPI_Comm_free(&node);
    return mpi_split(c, first, c->rank, out, err);
}

qwen3_status qwen3_comm_from_mpi(MPI_Comm mpi, qwen3_comm **out, qwen3_error *err)
{
    qwen3_error local;
    int initialised = 0, provided, between_groups = 0;
    MPI_Comm copy;
    err = error_begin(err, &local);
    if (missing(out, "comm", err))
        return err->status;
    *out = NULL;
    MPI_Initialized(&initialised);
    if (!initialised || mpi_ended())
        return fail(err, QWEN3_ERR_ARGUMENT, "MPI is not initialised; expected MPI_Init_thread before");
    if (mpi == MPI_COMM_NULL)
        return fail(err, QWEN3_ERR_ARGUMENT, "mpi is MPI_COMM_NULL; expected a communicator");
    MPI_Comm_test_inter(mpi, &between_groups);
    if (between_groups)
        return fail(err, QWEN3_ERR_ARGUMENT, "mpi is an intercommunicator; expected one of a single group");
    MPI_Query_thread(&provided);
    if (provided < MPI_THREAD_FUNNELED)
        return fail(err, QWEN3_ERR_COMM, "MPI was initialised without thread support; MPI_THREAD_FUNNELED is needed");
    if (MPI_Comm_dup(mpi, &copy) != MPI_SUCCESS)
        return fail(err, QWEN3_ERR_COMM, "MPI_Comm_dup failed");
    return mpi_create(copy, NULL, out, err);
}

void qwen3_comm_free(qwen3_comm *c)
{
    if (c != world.all)
        comm_free(c);
}

/* ---- Messages ---------------------------------------------------------------------------------- */

/* Posts the next chunk of a message; MPI_REQUEST_NULL if nothing is left. */
static void post(comm *c, comm_message *m, int tag, MPI_Request *request)
{
    mpi_state *s = c->state;
    int len = (int)(m->bytes < CHUNK ? m->bytes : CHUNK);
    *request = MPI_REQUEST_NULL;
    if (len == 0)
        return;
    if (m->receive)
        must(c, MPI_Irecv(m->data, len, MPI_BYTE, m->peer, tag, s->mpi, request));
    else
        must(c, MPI_Isend(m->data, len, MPI_BYTE, m->peer, tag, s->mpi, request));
    m->data += len;
    m->bytes -= (size_t)len;
}

/* Waits for all requests that are not MPI_REQUEST_NULL. The MPI libraries' own waits may poll without ever yielding
 * the CPU, which costs milliseconds a message where ranks share CPUs. */
static void complete(comm *c, int n, MPI_Request *requests)
{
    long_wait wait = {.shared = c->shares_cpus};
    for (int polls = 0;; polls++) {
        int pending = 0;
        for (int i = 0; i < n; i++) {
            int done = 1;
            if (requests[i] != MPI_REQUEST_NULL)
                must(c, MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE));
            pending += !done;
        }
        if (pending == 0)
            return;
        if (polls >= MESSAGE_POLLS || c->shares_cpus)
            leave_cpu(&wait, false);
    }
}

/* Moves the first n entries of s->messages, in rounds: chunk i of a message is sent and received in round i. A rank
 * without more chunks waits for nobody. */
static void transfer(comm *c, int n)
{
    mpi_state *s = c->state;
    for (;;) {
        bool any = false;
        for (int i = 0; i < n; i++) {
            post(c, &s->messages[i], TAG_TRANSFER, &s->requests[i]);
            any |= s->requests[i] != MPI_REQUEST_NULL;
        }
        if (!any)
            return;
        complete(c, n, s->requests);
    }
}

static void copy_own(void *to, const void *from, size_t bytes)
{
    if (bytes && to != from)
        memmove(to, from, bytes);
}

/* Dissemination of radix SMALL_RADIX: rank r collects the pieces of ranks r, r + 1, ... in `small`, in this order. In
 * the round of `distance` it has that many of them, and gets as many from each of ranks r + j distance (Bruck et al.
 * 1997).
 */
static void collect_small(comm *c, const void *send, const size_t *bytes)
{
    mpi_state *s = c->state;
    const int size = c->size;
    size_t *starts = s->starts;
    starts[0] = 0;
    for (int i = 0; i < size; i++)
        starts[i + 1] = starts[i] + bytes[(c->rank + i) % size];
    copy_own(s->small, send, bytes[c->rank]);
    for (int distance = 1; distance < size; distance *= SMALL_RADIX) {
        int n = 0;
        for (int d = distance; d < SMALL_RADIX * distance && d < size; d += distance) {
            const int pieces = distance < size - d ? distance : size - d;
            s->messages[n++] = receive_from((c->rank + d) % size, s->small + starts[d], starts[d + pieces] - starts[d]);
            s->messages[n++] = send_to((c->rank + size - d) % size, s->small, starts[pieces]);
        }
        transfer(c, n);
    }
}

static void mpi_barrier(comm *c)
{
    if (c->size > (int)SMALL_BYTES) {
        must(c, MPI_Barrier(((mpi_state *)c->state)->mpi));
        return;
    }
    for (int r = 0; r < c->size; r++)
        c->counts[r] = 1;
    collect_small(c, "", c->counts);
}

static void gather_small(comm *c, const void *send, unsigned char *recv, const size_t *bytes)
{
    const mpi_state *s = c->state;
    collect_small(c, send, bytes);
    for (int r = 0; r < c->size; recv += bytes[r], r++)
        copy_own(recv, s->small + s->starts[(r + c->size - c->rank) % c->size], bytes[r]);
}

static void mpi_allgather(comm *c, const void *send, void *recv, const size_t *bytes)
{
    mpi_state *s = c->state;
    unsigned char *to = recv;
    size_t total = 0;
    for (int r = 0; r < c->size; r++)
        total += bytes[r];
    if (total <= SMALL_BYTES) {
        gather_small(c, send, recv, bytes);
        return;
    }
    total = 0;
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank)
            copy_own(to + total, send, bytes[r]);
        s->lengths[r] = (int)(bytes[r] <= INT_MAX ? bytes[r] : INT_MAX);
        s->offsets[r] = (int)(total <= INT_MAX ? total : INT_MAX);
        total += bytes[r];
    }
    if (total <= INT_MAX) {
        must(c, MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_BYTE, recv, s->lengths, s->offsets, MPI_BYTE, s->mpi));
        return;
    }
    int n = 0;
    for (int r = 0; r < c->size; to += bytes[r], r++) {
        if (r == c->rank)
            continue;
        s->messages[n++] = receive_from(r, to, bytes[r]);
        s->messages[n++] = send_to(r, send, bytes[c->rank]);
    }
    transfer(c, n);
}

static void mpi_alltoall(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes)
{
    mpi_state *s = c->state;
    const unsigned char *from = send;
    unsigned char *to = recv;
    int n = 0;
    for (int r = 0; r < c->size; to += recv_bytes[r], r++) {
        if (r != c->rank)
            s->messages[n++] = receive_from(r, to, recv_bytes[r]);
    }
    to = recv;
    for (int r = 0; r < c->size; from += send_bytes[r], to += recv_bytes[r], r++) {
        if (r == c->rank)
            copy_own(to, from, send_bytes[r]);
        else
            s->messages[n++] = send_to(r, from, send_bytes[r]);
    }
    transfer(c, n);
}

static void mpi_gather(comm *c, const void *send, void *recv, const size_t *bytes)
{
    mpi_state *s = c->state;
    unsigned char *to = recv;
    int n = 0;
    if (c->rank != 0) {
        s->messages[n++] = send_to(0, send, bytes[c->rank]);
    } else {
        copy_own(to, send, bytes[0]);
        to += bytes[0];
        for (int r = 1; r < c->size; to += bytes[r], r++)
            s->messages[n++] = receive_from(r, to, bytes[r]);
    }
    transfer(c, n);
}

/* A binomial tree: with ranks counted from the root, v receives from v without its lowest bit, and sends to v plus each
 * lower one, the farthest first. */
static void broadcast_small(comm *c, void *data, size_t bytes, int root)
{
    mpi_state *s = c->state;
    const int size = c->size, v = (c->rank - root + size) % size;
    int bit = 1, n = 0;
    while (bit < size && !(v & bit))
        bit *= 2;
    if (v != 0) {
        s->messages[0] = receive_from((v - bit + root) % size, data, bytes);
        transfer(c, 1);
    }
    for (bit /= 2; bit > 0; bit /= 2)
        if (v + bit < size)
            s->messages[n++] = send_to((v + bit + root) % size, data, bytes);
    transfer(c, n);
}

static void mpi_broadcast(comm *c, void *data, size_t bytes, int root)
{
    mpi_state *s = c->state;
    unsigned char *at = data;
    if (bytes <= SMALL_BYTES) {
        broadcast_small(c, data, bytes, root);
        return;
    }
    for (size_t len; bytes > 0; at += len, bytes -= len) {
        len = bytes < CHUNK ? bytes : CHUNK;
        must(c, MPI_Bcast(at, (int)len, MPI_BYTE, root, s->mpi));
    }
}

static void mpi_start(comm *c, int slot, const comm_message *messages, int n)
{
    started_messages *started = &((mpi_state *)c->state)->started[slot];
    started->n = n;
    started->tag = TAG_STARTED + slot;
    for (int i = 0; i < n; i++) {
        started->messages[i] = messages[i];
        post(c, &started->messages[i], started->tag, &started->requests[i]);
    }
}

static bool mpi_test(comm *c, int slot, int n)
{
    started_messages *started = &((mpi_state *)c->state)->started[slot];
    bool complete = true;
    for (int i = 0; i < started->n; i++) {
        int done = 1;
        if (started->requests[i] == MPI_REQUEST_NULL)
            continue;
        must(c, MPI_Test(&started->requests[i], &done, MPI_STATUS_IGNORE));
        if (done)
            post(c, &started->messages[i], started->tag, &started->requests[i]);
        if (i < n)
            complete &= started->requests[i] == MPI_REQUEST_NULL;
    }
    return complete;
}

/* The second table is for ranks of one node, which share memory, the third for those of several with more than one
 * somewhere. */
#define COMMON_ENTRIES                                                                                                 \
    .start = mpi_start, .test = mpi_test, .split = mpi_split, .split_node = mpi_split_node, .release = mpi_release,    \
    .end_job = mpi_end_job, .ended = mpi_ended

static const comm_backend comm_backend_mpi = {
    .barrier = mpi_barrier,
    .allgather = mpi_allgather,
    .alltoall = mpi_alltoall,
    .gather = mpi_gather,
    .broadcast = mpi_broadcast,
    .sum = sum_by_messages,
    .levels = &comm_backend_levels,
    COMMON_ENTRIES,
};

static const comm_backend comm_backend_node = {
    .barrier = shm_barrier,
    .allgather = shm_allgather,
    .alltoall = shm_alltoall,
    .gather = shm_gather,
    .broadcast = shm_broadcast,
    .sum = shm_sum,
    .messages = &comm_backend_mpi,
    COMMON_ENTRIES,
};

static const comm_backend comm_backend_levels = {
    .barrier = levels_barrier,
    .allgather = levels_allgather,
    .alltoall = mpi_alltoall,
    .gather = mpi_gather,
    .broadcast = levels_broadcast,
    .sum = levels_sum,
    .messages = &comm_backend_mpi,
    COMMON_ENTRIES,
};

/* ---- Start and end ----------------------------------------------------------------------------- */

static const char build[64] = QWEN3_VERSION " (" QWEN3_BUILD_COMMIT ")";

/* Ranks of different builds may not understand each other: this comes before anything else. */
static qwen3_status agree_on_build(int rank, int size, qwen3_error *err)
{
    char first[sizeof build], other[sizeof build];
    memcpy(first, build, sizeof build);
    memcpy(other, build, sizeof build);
    MPI_Bcast(first, (int)sizeof first, MPI_CHAR, 0, MPI_COMM_WORLD);
    int mine = strcmp(first, build) ? rank : size, lowest = mine;
    MPI_Allreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (lowest == size)
        return QWEN3_OK;
    MPI_Bcast(other, (int)sizeof other, MPI_CHAR, lowest, MPI_COMM_WORLD);
    return fail(err, QWEN3_ERR_COMM, "rank %d runs qwen3 %s, rank 0 %s; start all ranks with the same build", lowest,
                other, first);
}

qwen3_status qwen3_init(int *argc, char ***argv, qwen3_comm **out, qwen3_error *err)
{
    int initialised = 0, provided, rank, size;
    qwen3_status status = QWEN3_OK;
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(out, "world", err))
        return err->status;
    *out = world.all;
    if (world.all)
        return QWEN3_OK;
    if (mpi_ended())
        return fail(err, QWEN3_ERR_ARGUMENT, "message passing has ended, and cannot begin again in this process");
    MPI_Initialized(&initialised);
    if (!initialised) {
        /* Started without a launcher, Open MPI would start a daemon to be able to spawn more processes. */
        setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
        if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
            return fail(err, QWEN3_ERR_COMM, "MPI_Init_thread failed");
        world.started = true;
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size == 1)
        status = launcher_check(err);
    else
        status = agree_on_build(rank, size, err);
    if (status == QWEN3_OK)
        status = qwen3_comm_from_mpi(MPI_COMM_WORLD, &world.all, err);
    if (status != QWEN3_OK)
        qwen3_finalize();
    if (status != QWEN3_OK && size > 1 && err)
        err->rank = rank;
    *out = world.all;
    return status;
}

void qwen3_finalize(void)
{
    comm_free(world.all);
    world.all = NULL;
    if (world.started && !mpi_ended()) {
        mpi_end();
        world.ended = true;
    }
    world.started = false;
}

bool comm_matches_mpi(const comm *c, MPI_Comm mpi)
{
    MPI_Comm mine = c->size > 1 ? ((const mpi_state *)c->state)->mpi : MPI_COMM_SELF;
    int result = MPI_UNEQUAL;
    MPI_Comm_compare(mine, mpi, &result);
    return result == MPI_IDENT || result == MPI_CONGRUENT;
}
