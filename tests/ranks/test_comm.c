/* test_comm.c - every collective against what it must give, computed locally: each rank can generate every
 * rank's contribution from the seed. */
#include <math.h>
#include <omp.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "comm/comm_backend.h"
#include "comm/shm.h"
#include "ranks/check.h"

#define GUARD 64 /* bytes after a received piece that must stay as they were */

static uint64_t seed;
/* Node of a rank where several are pretended; NULL: all on one, or each alone on its own. */
static int (*node_of)(int rank);

/* Byte `i` of what `rank` contributes to the test number `test`. */
static unsigned char content(int test, int rank, size_t i)
{
    uint64_t state = seed + (uint64_t)test * 1000003 + (uint64_t)rank * 10007 + i / 8;
    return (unsigned char)(check_random(&state) >> i % 8 * 8);
}

static unsigned char *filled(int test, int rank, size_t bytes)
{
    unsigned char *data = malloc(bytes + GUARD);
    for (size_t i = 0; i < bytes; i++)
        data[i] = content(test, rank, i);
    return data;
}

static unsigned char *guarded(size_t bytes)
{
    unsigned char *data = malloc(bytes + GUARD);
    memset(data, 0xa5, bytes + GUARD);
    return data;
}

static bool guard_intact(const unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < GUARD; i++) {
        if (data[bytes + i] != 0xa5)
            return false;
    }
    return true;
}

/* Bytes [skip, skip + n) of the rank's contribution stand at `data`. */
static bool holds(const unsigned char *data, int test, int rank, size_t skip, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (data[i] != content(test, rank, skip + i))
            return false;
    }
    return true;
}

/* Sizes of pieces: equal, uneven, empty for some ranks, large for two ranks. */
static size_t piece(int shape, int from, int to)
{
    uint64_t state = seed + (uint64_t)(shape * 100 + from * 10 + to);
    switch (shape) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return 4099;
    case 3:
        return (size_t)(check_random(&state) % 50000);
    case 4:
        return from % 2 ? (size_t)(check_random(&state) % 1000) : 0;
    default:
        return from < 2 ? 3000017 : 13;
    }
}
#define SHAPES 6

static void check_sent(comm *c, qwen3_comm_kind kind, uint64_t calls, uint64_t bytes, const char *what)
{
    qwen3_comm_stats *stats = comm_stats(c);
    if (comm_size(c) == 1)
        calls = bytes = 0;
    for (int k = 0; k < QWEN3_COMM_KINDS; k++) {
        check(stats->calls[k] == (k == (int)kind ? calls : 0), "%s: %" PRIu64 " calls of kind %d", what,
              stats->calls[k], k);
        check(stats->bytes[k] == (k == (int)kind ? bytes : 0), "%s: %" PRIu64 " bytes of kind %d, expected %" PRIu64,
              what, stats->bytes[k], k, bytes);
        check(stats->seconds[k] >= 0 && (k == (int)kind || stats->seconds[k] == 0), "%s: %g s of kind %d", what,
              stats->seconds[k], k);
    }
    *stats = (qwen3_comm_stats){0};
}

static void test_allgather(comm *c, int shape, bool in_place)
{
    int rank = comm_rank(c), size = comm_size(c), test = 10 + shape;
    size_t bytes[64], total = 0, own = 0;
    for (int r = 0; r < size; total += bytes[r], r++) {
        bytes[r] = piece(shape, r, 0);
        own = r == rank ? total : own;
    }
    unsigned char *send = filled(test, rank, bytes[rank]), *recv = guarded(total);
    if (in_place)
        memcpy(recv + own, send, bytes[rank]);
    comm_allgather(c, in_place ? recv + own : send, recv, bytes, QWEN3_COMM_KV);
    check_sent(c, QWEN3_COMM_KV, 1, bytes[rank] * (size_t)(size - 1), "allgather");
    for (int r = 0, at = 0; r < size; at += (int)bytes[r], r++)
        check(holds(recv + at, test, r, 0, bytes[r]), "allgather shape %d: piece of rank %d", shape, r);
    check(guard_intact(recv, total), "allgather shape %d wrote beyond the end", shape);
    free(send);
    free(recv);
}

static void test_alltoall(comm *c, int shape)
{
    int rank = comm_rank(c), size = comm_size(c), test = 20 + shape;
    size_t send_bytes[64], recv_bytes[64], send_total = 0, recv_total = 0, sent = 0;
    for (int r = 0; r < size; r++) {
        send_bytes[r] = piece(shape, rank, r);
        recv_bytes[r] = piece(shape, r, rank);
        send_total += send_bytes[r];
        recv_total += recv_bytes[r];
        sent += r == rank ? 0 : send_bytes[r];
    }
    unsigned char *send = filled(test, rank, send_total), *recv = guarded(recv_total), *at = recv;
    comm_alltoall(c, send, send_bytes, recv, recv_bytes, QWEN3_COMM_QUERY);
    check_sent(c, QWEN3_COMM_QUERY, 1, sent, "alltoall");
    for (int r = 0; r < size; at += recv_bytes[r], r++) {
        size_t skip = 0;
        for (int to = 0; to < rank; to++)
            skip += piece(shape, r, to);
        check(holds(at, test, r, skip, recv_bytes[r]), "alltoall shape %d: piece of rank %d", shape, r);
    }
    check(guard_intact(recv, recv_total), "alltoall shape %d wrote beyond the end", shape);
    check(holds(send, test, rank, 0, send_total), "alltoall shape %d changed what it sent", shape);
    free(send);
    free(recv);
}

static void test_gather_broadcast(comm *c, int shape)
{
    int rank = comm_rank(c), size = comm_size(c), test = 30 + shape;
    size_t bytes[64], total = 0, at = 0;
    for (int r = 0; r < size; total += bytes[r], r++)
        bytes[r] = piece(shape, r, 0);
    unsigned char *send = filled(test, rank, bytes[rank]), *recv = guarded(total);
    comm_gather(c, send, rank == 0 ? recv : NULL, bytes, QWEN3_COMM_LOGITS);
    check_sent(c, QWEN3_COMM_LOGITS, 1, rank == 0 ? 0 : bytes[rank], "gather");
    for (int r = 0; rank == 0 && r < size; at += bytes[r], r++)
        check(holds(recv + at, test, r, 0, bytes[r]), "gather shape %d: piece of rank %d", shape, r);
    check(guard_intact(recv, total), "gather shape %d wrote beyond the end", shape);
    for (int root = 0; root < size; root++) {
        size_t n = bytes[0];
        unsigned char *data = rank == root ? filled(test, root, n) : guarded(n);
        comm_broadcast(c, data, n, root, QWEN3_COMM_PARTIAL);
        check_sent(c, QWEN3_COMM_PARTIAL, 1, rank == root ? n * (size_t)(size - 1) : 0, "broadcast");
        check(holds(data, test, root, 0, n), "broadcast of %zu bytes from rank %d", n, root);
        check(rank == root || guard_intact(data, n), "broadcast wrote beyond the end");
        free(data);
    }
    free(send);
    free(recv);
}

/* Sends every rank's piece round the whole ring, two buffers taking turns; another collective may run
 * between start and wait. */
static void test_ring(comm *c, int shape)
{
    int rank = comm_rank(c), size = comm_size(c), test = 40 + shape;
    size_t most = 0, sent = 0;
    for (int r = 0; r < size; r++)
        most = piece(shape, r, 0) > most ? piece(shape, r, 0) : most;
    unsigned char *buffers[2] = {guarded(most), guarded(most)};
    for (size_t i = 0; i < piece(shape, rank, 0); i++)
        buffers[0][i] = content(test, rank, i);
    for (int hop = 1; hop < size; hop++) {
        int holding = (rank - hop + 1 + size) % size, coming = (rank - hop + size) % size;
        unsigned char *recv = buffers[hop % 2];
        comm_ring_start(c, 0, buffers[(hop - 1) % 2], piece(shape, holding, 0), recv, piece(shape, coming, 0),
                        QWEN3_COMM_KV);
        qwen3_comm_barrier(c);
        comm_wait(c, 0);
        sent += piece(shape, holding, 0);
        check(holds(recv, test, coming, 0, piece(shape, coming, 0)), "ring shape %d hop %d: piece of rank %d", shape,
              hop, coming);
        check(guard_intact(recv, most), "ring wrote beyond the end");
    }
    comm_stats(c)->calls[QWEN3_COMM_CONTROL] = 0;
    comm_stats(c)->seconds[QWEN3_COMM_CONTROL] = 0;
    check_sent(c, QWEN3_COMM_KV, (uint64_t)(size - 1), sent, "ring");
    free(buffers[0]);
    free(buffers[1]);
}

/* Rank `rank`'s contribution: values of very different size, so that another order gives other bits. */
static float addend(int rank, size_t i)
{
    uint64_t state = seed ^ ((uint64_t)rank << 40) ^ i;
    float x = check_random_float(&state);
    return ldexpf(x, (int)(check_random(&state) % 24));
}

/* The sum of ranks first .. size - 1 on the node of `first`, in rank order, or of all if no nodes are pretended. */
static float sum_of_node(int first, int size, size_t i)
{
    float sum = addend(first, i);
    for (int r = first + 1; r < size; r++)
        if (!node_of || node_of(r) == node_of(first))
            sum += addend(r, i);
    return sum;
}

static bool is_leader(int rank)
{
    for (int r = 0; r < rank; r++)
        if (!node_of || node_of(r) == node_of(rank))
            return false;
    return true;
}

static void test_allreduce(comm *c, size_t n, qwen3_comm_kind kind)
{
    int rank = comm_rank(c), size = comm_size(c);
    float *x = malloc((n + 1) * sizeof *x), *expected = malloc((n + 1) * sizeof *x);
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        expected[i] = sum_of_node(0, size, i);
    for (int r = 1; r < size; r++)
        for (size_t i = 0; is_leader(r) && i < n; i++)
            expected[i] += sum_of_node(r, size, i);
    for (int repetition = 0; repetition < 2; repetition++) {
        for (size_t i = 0; i < n; i++)
            x[i] = addend(rank, i);
        x[n] = 42;
        comm_allreduce(c, x, n, kind);
        for (size_t i = 0; i < n; i++)
            wrong += memcmp(&x[i], &expected[i], sizeof *x) != 0;
        check(wrong == 0, "allreduce of %zu: %zu values are not the sum in the order of nodes and ranks", n, wrong);
        check(x[n] == 42, "allreduce of %zu wrote beyond the end", n);
    }
    size_t sent = comm_stats(c)->bytes[kind] / 2, least = n * sizeof *x, slice = n / (size_t)size + 1;
    /* Every rank sends at least the others' slices and its own sum; at most everything to everyone. With nodes, leaders
     * send more and others less. */
    check(size == 1 || node_of || sent + 4 * slice >= least, "allreduce of %zu sent only %zu bytes", n, sent);
    check(node_of || sent <= least * (size_t)(size - 1), "allreduce of %zu sent %zu bytes", n, sent);
    check(size == 1 || comm_stats(c)->calls[kind] == 2, "allreduce counted %" PRIu64 " calls",
          comm_stats(c)->calls[kind]);
    *comm_stats(c) = (qwen3_comm_stats){0};
    free(x);
    free(expected);
}

/* All ranks together send R (R - 1) n floats where everyone gets everything, and 2 (R - 1) n where each sums a slice.
 * With nodes, a short sum is no more: each node's whole, the leaders', and theirs to their nodes. */
static void test_allreduce_bytes(comm *c)
{
    const size_t lengths[] = {100, 1000003};
    uint64_t size = (uint64_t)comm_size(c), sums[2], *all = calloc(size, sizeof sums);
    float *x = calloc(lengths[1], sizeof *x);
    for (int i = 0; i < 2; i++) {
        comm_allreduce(c, x, lengths[i], QWEN3_COMM_REDUCE);
        sums[i] = comm_stats(c)->bytes[QWEN3_COMM_REDUCE];
        check_sent(c, QWEN3_COMM_REDUCE, 1, sums[i], "allreduce");
    }
    qwen3_comm_gather(c, sums, sizeof sums, all);
    *comm_stats(c) = (qwen3_comm_stats){0};
    for (uint64_t r = 1; r < size && comm_rank(c) == 0; r++) {
        all[0] += all[2 * r];
        all[1] += all[2 * r + 1];
    }
    check(node_of || sums[0] == (size - 1) * lengths[0] * 4, "small allreduce sent %" PRIu64 " bytes", sums[0]);
    check(comm_rank(c) != 0 || node_of || all[1] == 2 * (size - 1) * lengths[1] * 4,
          "large allreduce sent %" PRIu64 " bytes", all[1]);
    check(comm_rank(c) != 0 || size < 3 || all[0] <= size * (size - 1) * lengths[0] * 4,
          "small allreduce sent %" PRIu64 " bytes", all[0]);
    free(all);
    free(x);
}

static void test_public(comm *c)
{
    int rank = comm_rank(c), size = comm_size(c);
    double values[3] = {rank, -rank, rank == size / 2 ? 7e300 : -INFINITY};
    uint32_t word = rank == 0 ? 0xfeedu : 0, *all = calloc((size_t)size, sizeof *all);
    qwen3_comm_max(c, values, 3);
    check(values[0] == size - 1 && values[1] == 0 && values[2] == 7e300, "maximum is %g %g %g", values[0], values[1],
          values[2]);
    qwen3_comm_broadcast(c, &word, sizeof word);
    check(word == 0xfeedu, "broadcast gave %x", word);
    word = 100 + (uint32_t)rank;
    qwen3_comm_gather(c, &word, sizeof word, all);
    for (int r = 0; r < size; r++)
        check(all[r] == (rank == 0 ? 100 + (uint32_t)r : 0), "gathered %u from rank %d", all[r], r);
    free(all);
    check(strcmp(qwen3_comm_kind_name(QWEN3_COMM_KV), "kv") == 0, "name of kind kv");
    check(qwen3_comm_size(qwen3_comm_self()) == 1 && qwen3_comm_rank(qwen3_comm_self()) == 0, "self group");
    *comm_stats(c) = (qwen3_comm_stats){0};
}

/* Errors name the rank of the world (root: of this process), in whatever part of it they are agreed on. */
static void test_agree(comm *c, int root)
{
    int rank = comm_rank(c), size = comm_size(c), roots[64];
    size_t bytes[64];
    char host[64] = {0}, hosts[64][sizeof host], expected[64];
    gethostname(host, sizeof host - 1);
    for (int r = 0; r < size; r++)
        bytes[r] = sizeof root;
    comm_allgather(c, &root, roots, bytes, QWEN3_COMM_CONTROL);
    for (int r = 0; r < size; r++)
        bytes[r] = sizeof host;
    comm_allgather(c, host, hosts, bytes, QWEN3_COMM_CONTROL);
    for (int first = 0; first <= size; first++) { /* first == size: nobody fails */
        qwen3_error err = {0};
        if (rank >= first && (rank - first) % 2 == 0)
            fail(&err, rank % 2 ? QWEN3_ERR_IO : QWEN3_ERR_FORMAT, "rank %d says no", rank);
        qwen3_status status = qwen3_comm_agree(c, &err);
        qwen3_status wanted = first == size ? QWEN3_OK : first % 2 ? QWEN3_ERR_IO : QWEN3_ERR_FORMAT;
        check(status == wanted && err.status == wanted, "first failing rank %d: status %d, %d", first, status,
              err.status);
        if (first == size)
            continue;
        snprintf(expected, sizeof expected, "rank %d says no", first);
        check(err.rank == roots[first] && strcmp(err.host, hosts[first]) == 0,
              "first failing rank %d: rank %d on %s, not %d on %s", first, err.rank, err.host, roots[first],
              hosts[first]);
        check(strcmp(err.message, expected) == 0, "first failing rank %d: message \"%s\"", first, err.message);
        check(qwen3_comm_agree(c, &err) == wanted && err.rank == roots[first], "an agreed fault changed");
    }
    *comm_stats(c) = (qwen3_comm_stats){0};
}

static void test_segment(comm *c, size_t words)
{
    comm *node = NULL;
    comm_segment *segment = NULL;
    void *base = NULL;
    qwen3_error err = {0};
    check(comm_split_node(c, &node, &err) == QWEN3_OK, "split by node: %s", err.message);
    if (!node)
        return;
    size_t rank = (size_t)comm_rank(node), size = (size_t)comm_size(node), wrong = 0;
    qwen3_status status = comm_shared_alloc(node, words * 8, &segment, &base, &err);
    check(status == QWEN3_OK && segment, "shared segment of %zu words: %s", words, err.message);
    if (status == QWEN3_OK) {
        volatile uint64_t *at = base;
        for (size_t i = rank; i < words; i += size)
            wrong += at[i] != 0;
        comm_shared_sync(node, segment);
        for (uint64_t round = 1; round < 4; round++) { /* every word written by another rank in each round */
            for (size_t i = 0; i < words; i++) {
                if ((i + round) % size == rank)
                    at[i] = i * round;
            }
            comm_shared_sync(node, segment);
            for (size_t i = 0; i < words; i++)
                wrong += at[i] != i * round;
            comm_shared_sync(node, segment);
        }
        check(wrong == 0, "%zu words of the shared segment are wrong", wrong);
        comm_shared_free(segment);
    }
    err = (qwen3_error){0};
    status = comm_shared_alloc(node, (size_t)1 << 50, &segment, &base, &err);
    check(status == QWEN3_ERR_MEMORY && err.status == status && !segment && !base, "a segment of 1 PB: status %d",
          status);
    comm_free(node);
    *comm_stats(c) = (qwen3_comm_stats){0};
}

/* scripts/emulate_hosts.sh names its hosts host0, host1, ... and says how many there are. */
static void test_topology(comm *c)
{
    qwen3_rank_info info;
    qwen3_error err = {0};
    comm *ranks_here = NULL;
    const char *emulated = getenv("QWEN3_EMULATED_HOSTS");
    int nodes = emulated ? atoi(emulated) : 1, node = 0;
    unsetenv("OMP_NUM_THREADS");
    qwen3_status status = qwen3_comm_topology(c, &info, &err);
    check(status == QWEN3_OK, "topology: %s", err.message);
    if (emulated)
        check(sscanf(info.host, "host%d", &node) == 1, "host \"%s\"", info.host);
    check(info.nodes == nodes && info.node == node, "node %d of %d, not %d of %d", info.node, info.nodes, node, nodes);
    check(info.cpus_allowed >= 1 && info.cpus_allowed <= info.cpus_online, "%d of %d CPUs", info.cpus_allowed,
          info.cpus_online);
    check(info.cores_allowed >= 1 && info.cores_allowed <= info.cpus_allowed, "%d cores", info.cores_allowed);
    check(info.numa_nodes >= 1 && info.binding[0] && info.cpu[0] && info.host[0], "incomplete");
    check(info.numa[0] && strcmp(info.numa, "unknown") != 0, "NUMA nodes \"%s\"", info.numa);
    check(comm_split_node(c, &ranks_here, &err) == QWEN3_OK, "split by node: %s", err.message);
    const int ranks = ranks_here ? comm_size(ranks_here) : 1;
    comm_free(ranks_here);
    check(info.ranks_on_node == ranks, "%d ranks on the node, not %d", info.ranks_on_node, ranks);
    check(info.cpu_share > 0 && info.cpu_share <= info.cpus_allowed, "share of %.3f CPUs", info.cpu_share);
    check(info.cpu_share * ranks >= info.cpus_allowed - 1e-6 || info.cpus_allowed == info.cpus_online,
          "share of %.3f of %d CPUs", info.cpu_share, info.cpus_allowed);
    check(info.cores_idle >= 0 && info.cores_idle + info.cores_allowed <= info.cpus_online, "%d cores idle",
          info.cores_idle);
    const int threads = info.default_threads;
    check(threads >= 1 && threads <= info.cores_allowed, "%d threads", threads);
    check(info.cpu_quota == 0 || threads == 1 || threads <= info.cpu_quota, "%d threads, quota of %.3f CPUs", threads,
          info.cpu_quota);
    check(info.cpus_allowed < info.cpus_online || threads == 1 || threads <= info.cores_allowed / ranks,
          "%d threads on each of %d ranks that share %d cores", threads, ranks, info.cores_allowed);
    setenv("OMP_NUM_THREADS", "3", 1);
    omp_set_num_threads(3);
    status = qwen3_comm_topology(c, &info, &err);
    check(status == QWEN3_OK && info.default_threads == 3, "OMP_NUM_THREADS=3: %d threads", info.default_threads);
    *comm_stats(c) = (qwen3_comm_stats){0};
}

/* A codec that keeps the upper half of a float. */
static void halve(const comm_codec *codec, size_t n, const float *x, void *coded)
{
    (void)codec;
    for (size_t i = 0; i < n; i++)
        memcpy((char *)coded + 2 * i, (const char *)(x + i) + 2, 2);
}

static void restore(const comm_codec *codec, size_t n, const void *coded, float *x)
{
    (void)codec;
    for (size_t i = 0; i < n; i++) {
        memset(x + i, 0, 2);
        memcpy((char *)(x + i) + 2, (const char *)coded + 2 * i, 2);
    }
}

/* Two sums and a gather under way at once, started in one order and waited for in another. */
static void test_started(comm *c, size_t n, bool coded)
{
    static const comm_codec upper_half = {1, 2, halve, restore, NULL};
    const comm_codec *codec = coded ? &upper_half : NULL;
    const int rank = comm_rank(c), size = comm_size(c), test = 70;
    float *x[2], *expected[2];
    void *rooms[2];
    size_t bytes[64], own = 0, total = 0;
    for (int v = 0; v < 2; v++) {
        x[v] = malloc(n * sizeof(float));
        expected[v] = malloc(n * sizeof(float));
        rooms[v] = aligned_alloc(64, comm_sum_room(c, n, codec) + 64);
        for (size_t i = 0; i < n; i++)
            x[v][i] = expected[v][i] = addend(rank, i + (size_t)v);
        comm_allreduce(c, expected[v], n, QWEN3_COMM_REDUCE);
    }
    for (int r = 0; r < size; total += bytes[r], r++) {
        bytes[r] = piece(3, r, 0);
        own = r == rank ? total : own;
    }
    unsigned char *send = filled(test, rank, bytes[rank]), *recv = guarded(total);
    comm_allreduce_start(c, 2, &(comm_sum){x[0], n, rooms[0], codec}, QWEN3_COMM_REDUCE);
    comm_allgather_start(c, 0, send, recv, bytes, QWEN3_COMM_KV);
    comm_allreduce_start(c, 3, &(comm_sum){x[1], n, rooms[1], codec}, QWEN3_COMM_REDUCE);
    comm_progress(c);
    for (int hop = size - 1; hop >= 1; hop--) {
        const int from = (rank - hop + size) % size;
        size_t at = 0;
        comm_wait_part(c, 0, hop);
        for (int r = 0; r < from; r++)
            at += bytes[r];
        check(holds(recv + at, test, from, 0, bytes[from]), "started gather: piece of rank %d", from);
    }
    comm_wait(c, 3);
    comm_wait(c, 0);
    comm_wait(c, 2);
    comm_wait(c, 1); /* nothing is there */
    check(holds(recv + own, test, rank, 0, bytes[rank]) && guard_intact(recv, total), "started gather: own piece");
    for (int v = 0; v < 2; v++) {
        float *first = malloc(n * sizeof(float));
        size_t differ = 0, wrong = 0;
        memcpy(first, x[v], n * sizeof(float));
        comm_broadcast(c, first, n * sizeof(float), 0, QWEN3_COMM_CONTROL);
        for (size_t i = 0; i < n; i++) {
            double magnitude = 0;
            for (int r = 0; r < size; r++)
                magnitude += fabs((double)addend(r, i + (size_t)v));
            /* Each contribution and the sum lose less than 2^-7 of themselves. */
            const double most = coded ? 2 * 0x1p-7 * magnitude : 0;
            wrong += !(fabs((double)x[v][i] - expected[v][i]) <= most);
            differ += memcmp(&first[i], &x[v][i], sizeof(float)) != 0;
        }
        check(!wrong, "started sum of %zu: %zu values are not those of the sum%s", n, wrong, coded ? ", coded" : "");
        check(!differ, "started sum of %zu: %zu values differ between ranks", n, differ);
        free(first);
        free(x[v]);
        free(expected[v]);
        free(rooms[v]);
    }
    check(comm_stats(c)->under_way[QWEN3_COMM_KV] >= 0, "under way for a negative time");
    *comm_stats(c) = (qwen3_comm_stats){0};
    free(send);
    free(recv);
}

/* The nodes that the ranks of the group at hand really are on. */
static int real_nodes[64];

static int node_real(int rank)
{
    return real_nodes[rank];
}

static void find_nodes(comm *c)
{
    comm *node = NULL;
    qwen3_error err = {0};
    size_t bytes[64];
    int first = comm_rank(c);
    check(comm_split_node(c, &node, &err) == QWEN3_OK, "split by node: %s", err.message);
    comm_broadcast(node, &first, sizeof first, 0, QWEN3_COMM_CONTROL);
    for (int r = 0; r < comm_size(c); r++)
        bytes[r] = sizeof first;
    comm_allgather(c, &first, real_nodes, bytes, QWEN3_COMM_CONTROL);
    comm_free(node);
    node_of = node_real;
}

static void test_group(comm *c, int root)
{
    const size_t lengths[] = {0, 1, 2, 3, 7, 64, 1023, 8191, 40001, 1048577, 2500000};
    const bool pretended = node_of != NULL;
    if (!pretended && c->levels)
        find_nodes(c);
    *comm_stats(c) = (qwen3_comm_stats){0};
    for (int shape = 0; shape < SHAPES; shape++) {
        test_allgather(c, shape, false);
        test_allgather(c, shape, true);
        test_alltoall(c, shape);
        test_gather_broadcast(c, shape);
        test_ring(c, shape);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        test_allreduce(c, lengths[i], i % 2 ? QWEN3_COMM_REDUCE : QWEN3_COMM_PARTIAL);
    test_allreduce_bytes(c);
    for (int coded = 0; coded < 2; coded++) {
        test_started(c, 5, coded);
        test_started(c, 70001, coded);
    }
    test_public(c);
    test_agree(c, root);
    if (!pretended)
        node_of = NULL;
}

/* Splits into two colours with the order turned round, and again by twos. */
static void test_split(comm *c)
{
    comm *half = NULL, *pair = NULL;
    qwen3_error err = {0};
    int rank = comm_rank(c), size = comm_size(c), color = rank % 2;
    check(comm_split(c, color, -rank, &half, &err) == QWEN3_OK, "split: %s", err.message);
    if (!half)
        return;
    int members = (size + 1 - color) / 2;
    check(comm_size(half) == members, "split has %d ranks, expected %d", comm_size(half), members);
    check(comm_rank(half) == members - 1 - rank / 2, "rank %d of the split", comm_rank(half));
    check(comm_stats(half) == comm_stats(c), "a split counts for itself");
    check(comm_split(half, comm_rank(half) / 2, rank, &pair, &err) == QWEN3_OK, "split: %s", err.message);
    if (pair) {
        check(comm_size(pair) <= 2, "pair of %d ranks", comm_size(pair));
        test_group(pair, rank);
        comm_free(pair);
    }
    comm_free(half);
    comm_free(NULL);
}

static int node_of_pairs(int rank)
{
    return rank / 2;
}

static int node_in_turns(int rank)
{
    return rank % 3;
}

static int node_uneven(int rank)
{
    return rank == 0 ? 7 : rank < 4 ? 5 : 6;
}

static void use_nodes(comm *c)
{
    qwen3_error err = {0};
    check(comm_use_nodes(c, node_of(comm_rank(c)), &err) == QWEN3_OK, "nodes: %s", err.message);
    check(comm_size(c) == 1 || c->levels, "no levels");
}

/* The same again in another order of ranks, another way. */
static void test_again(comm *c, void (*use)(comm *c), int (*nodes)(int rank))
{
    comm *all = NULL;
    qwen3_error err = {0};
    check(comm_split(c, 0, comm_size(c) - comm_rank(c), &all, &err) == QWEN3_OK, "split: %s", err.message);
    if (!all)
        return;
    node_of = nodes;
    use(all);
    test_group(all, comm_rank(c));
    node_of = NULL;
    comm_free(all);
}

int main(int argc, char **argv)
{
    qwen3_comm *world = check_begin(argc, argv, 20250901, &seed);
    test_group(world, comm_rank(world));
    test_again(world, shm_use_slots, NULL);
    test_again(world, comm_use_messages, NULL);
    if (world->one_node) { /* ranks of a pretended node must share memory */
        test_again(world, use_nodes, node_of_pairs);
        test_again(world, use_nodes, node_in_turns);
        test_again(world, use_nodes, node_uneven);
    }
    test_split(world);
    test_segment(world, 0);
    test_segment(world, 1);
    test_segment(world, 100003);
    test_topology(world);
    test_group(qwen3_comm_self(), 0);
    return check_end(world);
}
