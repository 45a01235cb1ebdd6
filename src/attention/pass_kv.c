/* pass_kv.c - keys travel: each rank's keys and values go once around the ring of ranks, and every rank's queries
 * attend to them as they pass. A transfer overlaps with the attention to the shard at hand.
 * (Liu et al. 2023, ring attention)
 */
#include "attention/movement.h"

enum { EVEN_SHARD, ODD_SHARD, VIEWS }; /* buffers: shards of even and odd hops; the blocks of the one that passes */

static bool applies(const attention_problem *p)
{
    return comm_size(p->comm) > 1 && !p->replicated;
}

/* Every shard visits all other ranks. */
static movement_cost cost(const attention_problem *p)
{
    const int ranks = comm_size(p->comm);
    double bytes = 0;
    for (int r = 0; r < ranks; r++)
        bytes += (double)kv_shard_bytes(p->shape, problem_blocks(p, r)) * (ranks - 1);
    return (movement_cost){bytes, ranks - 1, true};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm), attend = x->phases.attend;
    const size_t shard_bytes = exchange_shard_bytes(p), pairs = problem_rows(p, rank) * problem_heads(p);
    size_t most = 0;
    /* Any rank's part of a job may be its largest. */
    exchange_size_jobs(x, rank, rank + 1, p->blocks);
    for (int r = 0; r < ranks; r++) {
        for (size_t j = 0; j < p->n_jobs; j++) {
            const size_t n = p->blocks[(size_t)r * p->n_jobs + j];
            x->jobs[j].n_blocks = n > x->jobs[j].n_blocks ? n : x->jobs[j].n_blocks;
        }
        const size_t n = problem_blocks(p, r);
        most = n > most ? n : most;
    }
    memory_plan_add(m, &x->partials, partial_floats(pairs, p->shape->head_dim) * sizeof(float), x->phases.queries,
                    x->phases.collect);
    exchange_buffer(x, m, EVEN_SHARD, p->brings_shard ? 0 : shard_bytes, attend, attend);
    exchange_buffer(x, m, ODD_SHARD, shard_bytes, attend, attend);
    exchange_buffer(x, m, VIEWS, p->shape->kv_heads * most * sizeof(kv_block), attend, attend);
}

static void plan(const team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    exchange_bind_jobs(x, rank, rank + 1, x->q);
    exchange_plan_jobs(t, x);
    x->result = partial_at(x->partials, problem_rows(p, rank) * problem_heads(p), p->shape->head_dim);
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
    comm_ring_start(p->comm, shard_of_hop(x, hop - 1), kv_shard_bytes(p->shape, problem_blocks(p, sent)),
                    shard_of_hop(x, hop), kv_shard_bytes(p->shape, problem_blocks(p, received)), QWEN3_COMM_KV);
}

/* The own keys as a shard that can be sent. */
static void make_own_shard(team *t, const exchange *x)
{
    if (x->problem->brings_shard)
        return;
    if (t->tid == 0)
        kv_shard_init(x->buffers[EVEN_SHARD], problem_blocks(x->problem, comm_rank(x->problem->comm)));
    team_barrier(t);
    exchange_fill_shard(t, x, x->buffers[EVEN_SHARD]);
    team_barrier(t);
}

static void run(team *t, exchange *x)
{
    comm *c = x->problem->comm;
    const int ranks = comm_size(c), rank = comm_rank(c);
    make_own_shard(t, x);
    if (t->tid == 0)
        start_hop(x, 1);
    attention_run(t, &x->workspace);
    for (int hop = 1; hop < ranks; hop++) {
        if (t->tid == 0) {
            comm_ring_wait(c);
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
    .plan = plan,
    .run = run,
};
