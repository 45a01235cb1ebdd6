#include "attention/pass_kv.h"

/* Points the jobs at the blocks of the shard that `owner` filled. */
static void view_shard(const pass_kv *p, const void *shard, int owner, attention_job *jobs)
{
    const size_t *blocks = p->blocks + (size_t)owner * p->n_jobs;
    size_t first = 0;
    for (size_t j = 0; j < p->n_jobs; j++) {
        kv_block *views = p->views + p->shape->kv_heads * first;
        kv_shard_view(p->shape, shard, first, blocks[j], views, blocks[j]);
        jobs[j].blocks = views;
        jobs[j].n_blocks = blocks[j];
        first += blocks[j];
    }
}

static size_t shard_bytes(const pass_kv *p, int owner)
{
    size_t n = 0;
    for (size_t j = 0; j < p->n_jobs; j++)
        n += p->blocks[(size_t)owner * p->n_jobs + j];
    return kv_shard_bytes(p->shape, n);
}

/* Hop `hop`: passes on what came in the hop before, receives what comes from `hop` ranks away. */
static void start_hop(const pass_kv *p, int hop)
{
    int ranks = comm_size(p->group), rank = comm_rank(p->group);
    int sent = (rank - hop + 1 + ranks) % ranks, received = (rank - hop + ranks) % ranks;
    comm_ring_start(p->group, p->buffers[(hop + 1) % 2], shard_bytes(p, sent), p->buffers[hop % 2],
                    shard_bytes(p, received), QWEN3_COMM_KV);
}

void pass_kv_run(team *t, const pass_kv *p, attention_job *jobs)
{
    int ranks = comm_size(p->group), rank = comm_rank(p->group);
    if (t->tid == 0) {
        if (ranks > 1)
            start_hop(p, 1);
        attention_plan(t, p->shape, p->algorithm, jobs, p->n_jobs, p->workspace);
    }
    team_barrier(t);
    attention_run(t, p->workspace);
    for (int hop = 1; hop < ranks; hop++) {
        if (t->tid == 0) {
            comm_ring_wait(p->group);
            /* The next transfer hides behind the attention to the shard in hand. */
            if (hop + 1 < ranks)
                start_hop(p, hop + 1);
            view_shard(p, p->buffers[hop % 2], (rank - hop + ranks) % ranks, jobs);
            attention_plan(t, p->shape, p->algorithm, jobs, p->n_jobs, p->workspace);
        }
        team_barrier(t);
        attention_run(t, p->workspace);
    }
}
