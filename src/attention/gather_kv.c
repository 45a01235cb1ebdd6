/* gather_kv.c - keys travel all at once: every rank gets the keys and values of all, and attends its queries to them
 * in one go. One message instead of one for each hop of a ring, but none of it overlaps with attention: for prompts so
 * short that latency counts more than bytes.
 */
#include "attention/movement.h"

enum { SHARDS, VIEWS }; /* buffers: the shards of all ranks, rank after rank; [job][kv_heads][blocks of all ranks] */

static bool applies(const attention_problem *p)
{
    return comm_size(p->comm) > 1 && !p->replicated;
}

static size_t shard_bytes(const attention_problem *p, int r)
{
    return kv_shard_bytes(p->shape, problem_blocks(p, r));
}

static movement_cost cost(const attention_problem *p)
{
    const int ranks = comm_size(p->comm);
    double bytes = 0;
    for (int r = 0; r < ranks; r++)
        bytes += (double)shard_bytes(p, r) * (ranks - 1);
    return (movement_cost){bytes, 1, false};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm), attend = x->phases.attend;
    const size_t pairs = problem_rows(p, rank) * problem_heads(p);
    size_t bytes = 0, blocks = 0;
    exchange_size_jobs(x, rank, rank + 1, p->blocks);
    for (int r = 0; r < ranks; r++) {
        for (size_t j = 0; j < p->n_jobs; j++)
            x->jobs[j].n_blocks = (r ? x->jobs[j].n_blocks : 0) + p->blocks[(size_t)r * p->n_jobs + j];
        bytes += shard_bytes(p, r);
        blocks += problem_blocks(p, r);
    }
    memory_plan_add(m, &x->partials, partial_floats(pairs, p->shape->head_dim) * sizeof(float), x->phases.queries,
                    x->phases.collect);
    exchange_buffer(x, m, SHARDS, bytes, attend, attend);
    exchange_buffer(x, m, VIEWS, p->shape->kv_heads * blocks * sizeof(kv_block), attend, attend);
}

/* Jobs are planned when the keys are here; until then they say where their results go. */
static void plan(const team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    (void)t;
    exchange_bind_jobs(x, rank, rank + 1, x->q);
    x->result = partial_at(x->partials, problem_rows(p, rank) * problem_heads(p), p->shape->head_dim);
}

static char *shard_of(const exchange *x, int r)
{
    char *shard = x->buffers[SHARDS];
    for (int i = 0; i < r; i++)
        shard += shard_bytes(x->problem, i);
    return shard;
}

/* Each job sees its blocks of all ranks, in rank order. */
static void view_all(exchange *x)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm);
    kv_block *views = x->buffers[VIEWS];
    for (size_t j = 0; j < p->n_jobs; j++) {
        size_t n = 0, at = 0;
        for (int r = 0; r < ranks; r++)
            n += p->blocks[(size_t)r * p->n_jobs + j];
        for (int r = 0; r < ranks; r++) {
            const size_t *blocks = p->blocks + (size_t)r * p->n_jobs;
            size_t first = 0;
            for (size_t i = 0; i < j; i++)
                first += blocks[i];
            kv_shard_view(p->shape, shard_of(x, r), first, blocks[j], views + at, n);
            at += blocks[j];
        }
        x->jobs[j].blocks = views;
        x->jobs[j].n_blocks = n;
        views += p->shape->kv_heads * n;
    }
}

static void run(team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm);
    char *own = shard_of(x, rank);
    if (!p->brings_shard) {
        if (t->tid == 0)
            kv_shard_init(own, problem_blocks(p, rank));
        team_barrier(t);
        exchange_fill_shard(t, x, own);
        team_barrier(t);
    }
    if (t->tid == 0) {
        for (int r = 0; r < ranks; r++)
            x->send_bytes[r] = shard_bytes(p, r);
        comm_allgather(p->comm, p->brings_shard ? x->shard : own, x->buffers[SHARDS], x->send_bytes, QWEN3_COMM_KV);
        view_all(x);
        exchange_plan_jobs(t, x);
    }
    team_barrier(t);
    attention_run(t, &x->workspace);
}

const movement movement_gather_kv = {
    .name = "gather_kv",
    .sends_keys = true,
    .applies = applies,
    .cost = cost,
    .layout = layout,
    .plan = plan,
    .run = run,
};
