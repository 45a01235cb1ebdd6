/* levels.c - collectives of ranks on several nodes in two levels.
 *
 * Inside a node ranks share memory. Between nodes the leaders, the lowest rank of each node, exchange messages; in a
 * long sum every rank of a node exchanges a slice with the ranks of its own index on the other nodes.
 *
 * A sum is taken in rank order inside each node, then in the order of nodes, which is that of their leaders:
 * (x0 + x1 + x2) + (x3 + x4 + x5) with three ranks on each. It depends on where ranks are, not on lengths or on what
 * arrives first, and all ranks get the same bits.
 */
#include "comm/levels.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

/* Sums from this length on are sliced between nodes: below it another synchronisation costs more than it saves. */
#define SLICED_BYTES ((size_t)256 << 10)

struct levels {
    comm *node;      /* ranks of this node */
    comm *peers;     /* ranks of this index in their nodes; those of index 0 are the leaders */
    int *node_of;    /* [size] node of each rank, numbered in the order of leaders */
    int nodes;       /* number of nodes */
    bool contiguous; /* the ranks of each node follow each other */
    bool even;       /* every node has as many ranks */
    size_t *bytes;   /* [size] of the collective in progress: of each node, or of each rank of this node */
};

static void levels_free(struct levels *l)
{
    if (!l)
        return;
    comm_free(l->peers);
    comm_free(l->node);
    free(l->node_of);
    free(l->bytes);
    free(l);
}

/* From the leader's rank of each rank. */
static void number_nodes(struct levels *l, const int *leader, int size)
{
    int ranks_of_first = 0;
    l->contiguous = l->even = true;
    for (int r = 0; r < size; r++) {
        l->node_of[r] = leader[r] == r ? l->nodes++ : l->node_of[leader[r]];
        l->contiguous &= r == 0 || leader[r] == leader[r - 1] || leader[r] == r;
        ranks_of_first += l->node_of[r] == 0;
    }
    for (int node = 0; node < l->nodes; node++) {
        int ranks = 0;
        for (int r = 0; r < size; r++)
            ranks += l->node_of[r] == node;
        l->even &= ranks == ranks_of_first;
    }
}

void levels_attach(comm *c, comm *node)
{
    const size_t size = (size_t)c->size;
    qwen3_error err = {0};
    struct levels *l = calloc(1, sizeof *l);
    int *leader = malloc(size * sizeof *leader), own = c->rank;
    if (l) {
        l->node_of = malloc(size * sizeof *l->node_of);
        l->bytes = malloc(size * sizeof *l->bytes);
    }
    if (!leader || !l || !l->node_of || !l->bytes)
        fail(&err, QWEN3_ERR_MEMORY, "out of memory");
    bool made = qwen3_comm_agree(c, &err) == QWEN3_OK;
    if (made) {
        node->backend->broadcast(node, &own, sizeof own, 0);
        for (size_t r = 0; r < size; r++)
            l->bytes[r] = sizeof own;
        c->backend->allgather(c, &own, leader, l->bytes);
        number_nodes(l, leader, c->size);
        made = comm_split(c, node->rank, l->node_of[c->rank], &l->peers, &err) == QWEN3_OK;
    }
    if (made) {
        comm_use_messages(l->peers); /* where nodes are pretended */
        l->node = node;
        c->levels = l;
        c->backend = c->backend->levels;
    } else {
        levels_free(l);
        comm_free(node);
    }
    free(leader);
}

void levels_detach(comm *c)
{
    levels_free(c->levels);
    c->levels = NULL;
}

/* ---- Moving bytes ------------------------------------------------------------------------------ */

void levels_barrier(comm *c)
{
    comm *node = c->levels->node, *peers = c->levels->peers;
    node->backend->barrier(node);
    if (node->rank == 0)
        peers->backend->barrier(peers);
    node->backend->barrier(node);
}

void levels_broadcast(comm *c, void *data, size_t bytes, int root)
{
    const struct levels *l = c->levels;
    const int root_node = l->node_of[root];
    int index = 0; /* of the root in its node */
    for (int r = 0; r < root; r++)
        index += l->node_of[r] == root_node;
    const bool here = l->node_of[c->rank] == root_node;
    if (here)
        l->node->backend->broadcast(l->node, data, bytes, index);
    if (l->node->rank == 0)
        l->peers->backend->broadcast(l->peers, data, bytes, root_node);
    if (!here)
        l->node->backend->broadcast(l->node, data, bytes, 0);
}

/* Each node gathers its pieces, the leaders gather those of the nodes, and each node gets those of the others from its
 * leader. Ranks that are dealt out to the nodes in turns exchange messages: their pieces are not together. */
void levels_allgather(comm *c, const void *send, void *recv, const size_t *bytes)
{
    const struct levels *l = c->levels;
    comm *node = l->node, *peers = l->peers;
    if (!l->contiguous) {
        c->backend->messages->allgather(c, send, recv, bytes);
        return;
    }
    unsigned char *to = recv;
    size_t before = 0, own = 0, after = 0;
    memset(l->bytes, 0, (size_t)l->nodes * sizeof *l->bytes);
    for (int r = 0; r < c->size; r++) {
        const int its = l->node_of[r], mine = l->node_of[c->rank];
        *(its < mine ? &before : its > mine ? &after : &own) += bytes[r];
        l->bytes[its] += bytes[r];
    }
    node->backend->allgather(node, send, to + before, bytes + (c->rank - node->rank));
    if (node->rank == 0)
        peers->backend->allgather(peers, to + before, recv, l->bytes);
    node->backend->broadcast(node, recv, before, 0);
    node->backend->broadcast(node, to + before + own, after, 0);
}

/* ---- Sums -------------------------------------------------------------------------------------- */

static size_t sum_of(comm *c, float *x, size_t n)
{
    return c->size > 1 ? c->backend->sum(c, x, n) : 0;
}

/* The sums of all nodes' sums x[n], by the leaders. Returns the bytes that this rank sent. */
static size_t sum_by_leaders(const struct levels *l, float *x, size_t n)
{
    size_t sent = 0;
    if (l->node->rank == 0) {
        sent = sum_of(l->peers, x, n);
        sent += n * sizeof *x * (size_t)(l->node->size - 1);
    }
    l->node->backend->broadcast(l->node, x, n * sizeof *x, 0);
    return sent;
}

/* The same, each rank of a node doing a slice. */
static size_t sum_by_slices(const struct levels *l, float *x, size_t n)
{
    const size_t ranks = (size_t)l->node->size, index = (size_t)l->node->rank;
    const size_t begin = n * index / ranks, len = n * (index + 1) / ranks - begin;
    const size_t sent = sum_of(l->peers, x + begin, len);
    for (size_t r = 0; r < ranks; r++)
        l->bytes[r] = (n * (r + 1) / ranks - n * r / ranks) * sizeof *x;
    l->node->backend->allgather(l->node, x + begin, x, l->bytes);
    return sent + len * sizeof *x * (ranks - 1);
}

size_t levels_sum(comm *c, float *x, size_t n)
{
    const struct levels *l = c->levels;
    const size_t sent = sum_of(l->node, x, n);
    if (l->even && n * sizeof *x >= SLICED_BYTES)
        return sent + sum_by_slices(l, x, n);
    return sent + sum_by_leaders(l, x, n);
}
