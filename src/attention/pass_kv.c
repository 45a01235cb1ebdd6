/* pass_kv.c - keys travel: each rank's keys and values go once around the ring of ranks, and every rank's queries
 * attend to them as they pass. The first transfer overlaps with what the caller does until the queries are there, and
 * each with the attention to the shard at hand.
 * (Liu et al. 2023, ring attention)
 */
#include "attention/movement.h"

enum { EVEN_SHARD, ODD_SHARD, VIEWS }; /* buffers: shards of even and odd hops; the blocks of the one that passes */

static bool applies(const attention_problem *p)
{
    return comm_size(p->comm) > 1 && !p->replicated && !p->brought.by && !p->shape->pagewise;
}

/* Every shard visits all other ranks. */
static movement_cost cost(const attention_problem *p)
{
    return (movement_cost){exchange_shard_traffic(p), comm_size(p->comm) - 1, true};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int queries = x->phases.queries, attend = x->phases.attend;
    const size_t shard_bytes = exchange_shard_bytes(p);
    size_t most = 0;
    exchange_add_own_rows(x, m);
    for (int r = 0; r < comm_size(p->comm); r++) {
        /* Any rank's part of a job may be its largest. */
        for (size_t j = 0; j < p->n_jobs; j++) {
            const size_t n = problem_job_blocks(p, r, j);
            x->jobs[j].n_blocks = n > x->jobs[j].n_blocks ? n : x->jobs[j].n_blocks;
        }
        const size_t n = problem_blocks(p, r);
        most = n > most ? n : most;
    }
    exchange_buffer(x, m, EVEN_SHARD, p->brings_shard ? 0 : shard_bytes, queries, attend);
    exchange_buffer(x, m, ODD_SHARD, shard_bytes, queries, attend);
    exchange_buffer(x, m, VIEWS, p->shape->kv_heads * most * sizeof(kv_block), attend, attend);
}

static void *shard_of_hop(const exchange *x, int hop)
{
    if (hop % 2)
        return x->buffers[ODD_SHARD];
    return x->problem->brings_shard ? x->shard : x->buffers[EVEN_SHARD];
}

/* Hop `hop`: passes on what came in the hop before, receives what began `hop` ranks away. */
static void start_hop(const exchange *x, int hop)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm);
    const int sent = (rank - hop + 1 + ranks) % ranks, received = (rank - hop + ranks) % ranks;
    comm_ring_start(p->comm, x->slot, shard_of_hop(x, hop - 1), exchange_bytes_of_shard(p, sent), shard_of_hop(x, hop),
                    exchange_bytes_of_shard(p, received), QWEN3_COMM_KV);
}

static void start(team *t, exchange *x)
{
    exchange_make_shard(t, x, x->buffers[EVEN_SHARD]);
    if (t->tid == 0)
        start_hop(x, 1);
}

static void run(team *t, exchange *x)
{
    comm *c = x->problem->comm;
    const int ranks = comm_size(c), rank = comm_rank(c);
    attention_run(t, &x->workspace);
    for (int hop = 1; hop < ranks; hop++) {
        if (t->tid == 0) {
            comm_wait(c, x->slot);
            if (hop + 1 < ranks)
                start_hop(x, hop + 1);
            exchange_view_shard(x, shard_of_hop(x, hop), (rank - hop + ranks) % ranks, x->buffers[VIEWS]);
            exchange_plan_jobs(t, x);
        }
        team_barrier(t);
        attention_run(t, &x->workspace);
    }
}

const movement movement_pass_kv = {
    .name = "pass_kv",
    .sends_keys = true,
    .applies = applies,
    .cost = cost,
    .layout = layout,
    .plan = exchange_plan_own_rows,
    .start = start,
    .run = run,
};
