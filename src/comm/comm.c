/* comm.c - what is the same for all backends: counters, sums in rank order, agreement on failures.
 *
 * Sums. A small vector is gathered whole by everyone and summed locally: one exchange, (R - 1) n sent per
 * rank. A large one is split into one slice a rank: each rank receives all contributions to its slice and sums
 * them, then the sums are gathered: two exchanges, 2 (R - 1)/R n sent per rank. Both add in rank order,
 * ((x0 + x1) + x2) + ..., so both give the same bits.
 */
#include "comm/comm.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "comm/comm_backend.h"
#include "comm/levels.h"
#include "comm/shm.h"

/* Floats that are summed per pass: bounds the scratch memory and keeps a pass within the caches. */
#define SUM_BLOCK ((size_t)1 << 20)

/* ---- Communicators ----------------------------------------------------------------------------- */

static void free_buffers(comm *c)
{
    free(c->scratch);
    free(c->counts);
    free(c->parts);
    free(c->messages);
}

qwen3_status comm_create(const comm_backend *backend, int rank, int size, comm *parent, comm **out, qwen3_error *err)
{
    *out = NULL;
    comm *c = calloc(1, sizeof *c);
    if (!c)
        return fail(err, QWEN3_ERR_MEMORY, "communicator of %d ranks: out of memory", size);
    *c = (comm){.backend = backend, .rank = rank, .size = size, .one_node = size == 1, .users = 1};
    c->root_rank = parent ? parent->root_rank : rank;
    c->stats = parent ? parent->stats : &c->own_stats;
    c->root = parent ? parent->root : c;
    c->by_messages = parent && parent->by_messages;
    c->shares_cpus = parent && parent->shares_cpus;
    c->counts = malloc(2 * (size_t)size * sizeof *c->counts);
    c->parts = malloc((size_t)size * sizeof *c->parts);
    if (size > 1)
        c->scratch = malloc((SUM_BLOCK + (size_t)size) * sizeof *c->scratch);
    c->messages = malloc(2 * (size_t)size * sizeof *c->messages);
    if (!c->counts || !c->parts || !c->messages || (size > 1 && !c->scratch)) {
        free_buffers(c);
        free(c);
        return fail(err, QWEN3_ERR_MEMORY, "communicator of %d ranks: out of memory", size);
    }
    *out = c;
    return QWEN3_OK;
}

void comm_free(comm *c)
{
    if (!c || c == qwen3_comm_self() || --c->users > 0)
        return;
    shm_detach(c);
    levels_detach(c);
    c->backend->release(c);
    free_buffers(c);
    free(c);
}

comm *comm_share(comm *c)
{
    if (c != qwen3_comm_self())
        c->users++;
    return c;
}

qwen3_status comm_split(comm *c, int color, int key, comm **out, qwen3_error *err)
{
    return c->backend->split(c, color, key, out, err);
}

qwen3_status comm_split_node(comm *c, comm **out, qwen3_error *err)
{
    return c->backend->split_node(c, out, err);
}

void comm_use_messages(comm *c)
{
    if (c->backend->messages)
        c->backend = c->backend->messages;
    c->by_messages = true;
    shm_detach(c);
    levels_detach(c);
}

qwen3_status comm_use_nodes(comm *c, int node, qwen3_error *err)
{
    comm *ranks = NULL;
    if (c->size == 1)
        return QWEN3_OK;
    if (comm_split(c, node, c->rank, &ranks, err) != QWEN3_OK)
        return err->status;
    comm_use_messages(c);
    levels_attach(c, ranks);
    return QWEN3_OK;
}

int qwen3_comm_rank(const qwen3_comm *c)
{
    return c ? c->rank : 0;
}

int qwen3_comm_size(const qwen3_comm *c)
{
    return c ? c->size : 0;
}

/* ---- Counters ---------------------------------------------------------------------------------- */

const char *qwen3_comm_kind_name(qwen3_comm_kind kind)
{
    static const char *const names[QWEN3_COMM_KINDS] = {"reduce", "kv", "query", "partial", "logits", "control"};
    return (unsigned)kind < QWEN3_COMM_KINDS ? names[kind] : "unknown";
}

qwen3_comm_stats *comm_stats(comm *c)
{
    return c->stats;
}

void qwen3_comm_get_stats(const qwen3_comm *c, qwen3_comm_stats *stats)
{
    if (stats)
        *stats = c ? *c->stats : (qwen3_comm_stats){0};
}

void comm_count(comm *c, qwen3_comm_kind kind, uint64_t calls, size_t bytes, double begin)
{
    if (c->size == 1)
        return;
    c->stats->calls[kind] += calls;
    c->stats->bytes[kind] += bytes;
    c->stats->seconds[kind] += seconds_now() - begin;
}

/* Of a call that does all at once. */
static void count(comm *c, qwen3_comm_kind kind, uint64_t calls, size_t bytes, double begin)
{
    const double before = c->stats->seconds[kind];
    comm_count(c, kind, calls, bytes, begin);
    c->stats->under_way[kind] += c->stats->seconds[kind] - before;
}

/* ---- Moving bytes ------------------------------------------------------------------------------ */

void qwen3_comm_barrier(qwen3_comm *c)
{
    if (!c)
        return;
    double start = seconds_now();
    c->backend->barrier(c);
    count(c, QWEN3_COMM_CONTROL, 1, 0, start);
}

void comm_allgather(comm *c, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind)
{
    double start = seconds_now();
    c->backend->allgather(c, send, recv, bytes);
    count(c, kind, 1, bytes[c->rank] * (size_t)(c->size - 1), start);
}

void comm_alltoall(comm *c, const void *send, const size_t *send_bytes, void *recv, const size_t *recv_bytes,
                   qwen3_comm_kind kind)
{
    double start = seconds_now();
    c->backend->alltoall(c, send, send_bytes, recv, recv_bytes);
    size_t sent = 0;
    for (int r = 0; r < c->size; r++)
        sent += r == c->rank ? 0 : send_bytes[r];
    count(c, kind, 1, sent, start);
}

void comm_gather(comm *c, const void *send, void *recv, const size_t *bytes, qwen3_comm_kind kind)
{
    double start = seconds_now();
    c->backend->gather(c, send, recv, bytes);
    count(c, kind, 1, c->rank == 0 ? 0 : bytes[c->rank], start);
}

void comm_broadcast(comm *c, void *data, size_t bytes, int root, qwen3_comm_kind kind)
{
    double start = seconds_now();
    c->backend->broadcast(c, data, bytes, root);
    count(c, kind, 1, c->rank == root ? bytes * (size_t)(c->size - 1) : 0, start);
}

static size_t *equal_counts(comm *c, size_t bytes)
{
    for (int r = 0; r < c->size; r++)
        c->counts[r] = bytes;
    return c->counts;
}

void qwen3_comm_broadcast(qwen3_comm *c, void *data, size_t bytes)
{
    if (c && (data || bytes == 0))
        comm_broadcast(c, data, bytes, 0, QWEN3_COMM_CONTROL);
}

void qwen3_comm_gather(qwen3_comm *c, const void *send, size_t bytes, void *recv)
{
    if (c && ((send && (recv || c->rank > 0)) || bytes == 0))
        comm_gather(c, send, recv, equal_counts(c, bytes), QWEN3_COMM_CONTROL);
}

/* ---- Reductions -------------------------------------------------------------------------------- */

void sum_in_rank_order(float *restrict out, const float *const *parts, int ranks, size_t n)
{
    const size_t block = 2048; /* stays in the first-level cache while the ranks are added to it */
    for (size_t begin = 0; begin < n; begin += block) {
        size_t end = n - begin < block ? n : begin + block;
        const float *a = parts[0], *b = parts[1];
        for (size_t i = begin; i < end; i++)
            out[i] = a[i] + b[i];
        for (int r = 2; r < ranks; r++) {
            const float *x = parts[r];
            for (size_t i = begin; i < end; i++)
                out[i] += x[i];
        }
    }
}

/* x = sum of the contributions in the scratch memory, n floats each, one after the other. */
static void sum_scratch(comm *c, float *x, size_t n)
{
    for (int r = 0; r < c->size; r++)
        c->parts[r] = c->scratch + (size_t)r * n;
    sum_in_rank_order(x, c->parts, c->size, n);
}

/* This and sum_sliced return the bytes that this rank sent. */
static size_t sum_gathered(comm *c, float *x, size_t n)
{
    c->backend->allgather(c, x, c->scratch, equal_counts(c, n * sizeof *x));
    sum_scratch(c, x, n);
    return n * sizeof *x * (size_t)(c->size - 1);
}

static size_t sum_sliced(comm *c, float *x, size_t n)
{
    size_t ranks = (size_t)c->size, rank = (size_t)c->rank;
    size_t begin = n * rank / ranks, len = n * (rank + 1) / ranks - begin;
    size_t *slices = c->counts, *own = c->counts + ranks;
    for (size_t r = 0; r < ranks; r++) {
        slices[r] = (n * (r + 1) / ranks - n * r / ranks) * sizeof *x;
        own[r] = len * sizeof *x;
    }
    c->backend->alltoall(c, x, slices, c->scratch, own);
    sum_scratch(c, x + begin, len);
    c->backend->allgather(c, x + begin, x, slices);
    return (n - len + len * (ranks - 1)) * sizeof *x;
}

size_t sum_by_messages(comm *c, float *x, size_t n)
{
    size_t sent = 0;
    for (size_t done = 0, len; done < n; done += len) {
        len = n - done < SUM_BLOCK ? n - done : SUM_BLOCK;
        bool small = len * sizeof *x * (size_t)c->size <= GATHER_SUM_BYTES;
        sent += small ? sum_gathered(c, x + done, len) : sum_sliced(c, x + done, len);
    }
    return sent;
}

void comm_allreduce(comm *c, float *x, size_t n, qwen3_comm_kind kind)
{
    if (c->size == 1)
        return;
    double start = seconds_now();
    size_t sent = c->backend->sum(c, x, n);
    count(c, kind, 1, sent, start);
}

void qwen3_comm_max(qwen3_comm *c, double *values, size_t n)
{
    if (!c || !values || c->size == 1)
        return;
    double start = seconds_now();
    double *all = (double *)c->scratch;
    size_t room = SUM_BLOCK * sizeof *c->scratch / sizeof *all / (size_t)c->size;
    for (size_t done = 0, len; done < n; done += len) {
        len = n - done < room ? n - done : room;
        c->backend->allgather(c, values + done, all, equal_counts(c, len * sizeof *all));
        for (size_t r = 0; r < (size_t)c->size; r++)
            for (size_t i = 0; i < len; i++)
                if (r == 0 || all[r * len + i] > values[done + i])
                    values[done + i] = all[r * len + i];
    }
    count(c, QWEN3_COMM_CONTROL, 1, n * sizeof *values * (size_t)(c->size - 1), start);
}

void error_name_rank(qwen3_error *err, int root_rank)
{
    err->rank = root_rank;
    if (gethostname(err->host, sizeof err->host - 1) != 0)
        err->host[0] = '\0';
}

/* failed: 0, or more the lower the rank; largest: of all ranks. */
static qwen3_status share_failure(comm *c, double failed, double largest, qwen3_error *err)
{
    if (largest == 0)
        return QWEN3_OK;
    /* A failure that was agreed on before, perhaps by some of the ranks, keeps the rank that it names. */
    if (failed == largest && err->rank < 0)
        error_name_rank(err, c->root_rank);
    comm_broadcast(c, err, sizeof *err, c->size - (int)largest, QWEN3_COMM_CONTROL);
    return err->status;
}

static double failed_value(const comm *c, const qwen3_error *err)
{
    return err->status == QWEN3_OK ? 0 : c->size - c->rank; /* the lowest rank has the largest value */
}

qwen3_status comm_check(const comm *c, qwen3_error *err)
{
    if (c->backend->ended && c->backend->ended())
        return fail(err, QWEN3_ERR_ARGUMENT, "the communicator was used after message passing had ended");
    return QWEN3_OK;
}

qwen3_status qwen3_comm_agree(qwen3_comm *c, qwen3_error *err)
{
    qwen3_error local = {0};
    if (missing(err, "err", &local))
        err = &local;
    if (missing(c, "comm", err))
        return err->status;
    if (comm_check(c, err))
        return err->status;
    const double failed = failed_value(c, err);
    double largest = failed;
    qwen3_comm_max(c, &largest, 1);
    return share_failure(c, failed, largest, err);
}

qwen3_status comm_agree_on(comm *c, const char *what, uint64_t digest, qwen3_error *err)
{
    if (comm_check(c, err))
        return err->status;
    const double failed = failed_value(c, err), high = (double)(digest >> 32), low = (double)(uint32_t)digest;
    double largest[] = {failed, high, -high, low, -low};
    qwen3_comm_max(c, largest, 5);
    if (largest[0] == 0 && (largest[1] != -largest[2] || largest[3] != -largest[4]))
        return fail(err, QWEN3_ERR_COMM, "%s: the ranks have different ones; expected the same on all", what);
    return share_failure(c, failed, largest[0], err);
}
