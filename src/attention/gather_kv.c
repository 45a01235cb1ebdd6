/* gather_kv.c - keys travel all at once: every rank gets the keys and values of all, and attends its queries to them
 * in one go. There is one message, one plan of work and one pass over the keys instead of one for each hop of a ring,
 * but nothing overlaps with attention: for short prompts.
 */
#include "attention/movement.h"

enum { SHARDS, VIEWS }; /* buffers: the shards of all ranks, rank after rank; [job][kv_heads][blocks of all ranks] */

static bool applies(const attention_problem *p)
{
    return comm_size(p->comm) > 1 && !p->replicated;
}

static movement_cost cost(const attention_problem *p)
{
    return (movement_cost){exchange_shard_traffic(p), 1, false};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm), attend = x->phases.attend;
    size_t bytes = 0, blocks = 0;
    exchange_add_own_rows(x, m);
    for (int r = 0; r < comm_size(p->comm); r++) {
        for (size_t j = 0; j < p->n_jobs && r != rank; j++)
            x->jobs[j].n_blocks += p->blocks[(size_t)r * p->n_jobs + j];
        bytes += exchange_bytes_of_shard(p, r);
        blocks += problem_blocks(p, r);
    }
    exchange_buffer(x, m, SHARDS, bytes, attend, attend);
    exchange_buffer(x, m, VIEWS, p->shape->kv_heads * blocks * sizeof(kv_block), attend, attend);
}

/* The work is planned when the keys are here. */
static void plan(const team *t, exchange *x)
{
    (void)t;
    exchange_bind_own_rows(x);
}

static char *shard_of(const exchange *x, int r)
{
    char *shard = x->buffers[SHARDS];
    for (int i = 0; i < r; i++)
        shard += exchange_bytes_of_shard(x->problem, i);
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
    char *own = shard_of(x, comm_rank(p->comm));
    exchange_make_shard(t, x, own);
    if (t->tid == 0) {
        for (int r = 0; r < comm_size(p->comm); r++)
            x->send_bytes[r] = exchange_bytes_of_shard(p, r);
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
