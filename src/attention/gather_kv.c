/* gather_kv.c - keys travel all at once: every rank gets the keys and values of all. There is one message and at most
 * two passes over the keys, where a ring has one for each hop.
 *
 * Between nodes the messages go on while the ranks compute: until the queries are there, and while they attend to own
 * keys. Then they attend to all others in one go. Inside a node all keys are here at once, and one pass attends to all.
 */
#include <stdlib.h>

#include "attention/movement.h"

/* Buffers: the shards of all ranks, rank after rank, of every other layer where the exchange is followed; blocks as
 * [job][kv_heads][blocks of ranks]. */
enum { EVEN_SHARDS, ODD_SHARDS, VIEWS };

/* Keys of all ranks are here at once: longer prompts take the ring. */
#define MOST_BYTES ((size_t)256 << 20)

static size_t bytes_of_shards(const attention_problem *p)
{
    size_t bytes = 0;
    for (int r = 0; r < comm_size(p->comm); r++)
        bytes += exchange_bytes_of_shard(p, r);
    return bytes;
}

static bool applies(const attention_problem *p)
{
    return comm_size(p->comm) > 1 && !p->replicated && (p->shape->pagewise || bytes_of_shards(p) <= MOST_BYTES);
}

/* Whether own keys are attended before the others have come, and not all in their order. */
static bool own_first(const attention_problem *p)
{
    return comm_overlaps(p->comm) && !p->shape->pagewise;
}

static movement_cost cost(const attention_problem *p)
{
    return (movement_cost){exchange_shard_traffic(p), 1, comm_overlaps(p->comm)};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm), attend = x->phases.attend;
    const int first = p->followed ? x->phases.first : x->phases.queries, last = p->followed ? x->phases.last : attend;
    const size_t bytes = bytes_of_shards(p);
    size_t blocks = 0;
    exchange_add_own_rows(x, m);
    for (int r = 0; r < comm_size(p->comm); r++)
        x->send_bytes[r] = exchange_bytes_of_shard(p, r);
    for (size_t j = 0; j < p->n_jobs; j++) {
        size_t others = 0;
        for (int r = 0; r < comm_size(p->comm); r++)
            others += r == rank ? 0 : problem_job_blocks(p, r, j);
        const size_t own = x->jobs[j].n_blocks;
        blocks += own + others;
        if (!own_first(p))
            x->jobs[j].n_blocks = own + others;
        else
            x->jobs[j].n_blocks = own > others ? own : others;
    }
    exchange_buffer(x, m, EVEN_SHARDS, bytes, first, last);
    exchange_buffer(x, m, ODD_SHARDS, p->followed ? bytes : 0, first, last);
    exchange_buffer(x, m, VIEWS, p->shape->kv_heads * blocks * sizeof(kv_block), attend, attend);
}

static void plan(const team *t, exchange *x)
{
    if (own_first(x->problem))
        exchange_plan_own_rows(t, x);
    else
        exchange_bind_own_rows(x); /* the work is planned when the keys are here */
}

static char *shard_of(const exchange *x, int turn, int r)
{
    char *shard = x->buffers[x->problem->followed && turn ? ODD_SHARDS : EVEN_SHARDS];
    for (int i = 0; i < r; i++)
        shard += x->send_bytes[i];
    return shard;
}

/* ---- Views ------------------------------------------------------------------------------------- */

/* Blocks of a job, as they are listed: [kv_heads][n], of which `at` are there. */
typedef struct view_list {
    kv_block *views;
    size_t n, at;
} view_list;

static void view_own(const exchange *x, size_t j, view_list *list)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    const size_t blocks = problem_job_blocks(p, rank, j);
    const kv_block *own = x->views;
    for (size_t i = 0; i < j; i++)
        own += p->shape->kv_heads * problem_job_blocks(p, rank, i);
    for (size_t h = 0; h < p->shape->kv_heads && blocks > 0; h++)
        memcpy(list->views + h * list->n + list->at, own + h * blocks, blocks * sizeof *own);
    list->at += blocks;
}

/* The first n blocks of job j in the shard of rank r. */
static void view_shard(const exchange *x, int turn, int r, size_t j, size_t n, view_list *list)
{
    const attention_problem *p = x->problem;
    size_t first = 0;
    for (size_t i = 0; i < j; i++)
        first += problem_blocks_sent(p, r, i);
    kv_shard_view(p->shape, shard_of(x, turn, r), first, n, list->views + list->at, list->n);
    list->at += n;
}

static int by_position(const void *a, const void *b)
{
    const kv_block *x = a, *y = b;
    return (x->min_position > y->min_position) - (x->min_position < y->min_position);
}

/* Each job sees its blocks of all ranks, or of all others, in rank order or that of positions. */
static void view_all(exchange *x, bool own)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm);
    kv_block *views = x->buffers[VIEWS];
    for (size_t j = 0; j < p->n_jobs; j++) {
        view_list list = {views, 0, 0};
        for (int r = 0; r < ranks; r++)
            list.n += r != rank || own ? problem_job_blocks(p, r, j) : 0;
        for (int r = 0; r < ranks; r++) {
            if (r == rank && own)
                view_own(x, j, &list);
            if (r == rank)
                continue;
            const size_t sent = problem_blocks_sent(p, r, j), before = problem_job_blocks(p, r, j) - sent;
            if (before > 0)
                view_shard(p->brought.by, x->turn, r, (size_t)p->brought.jobs[j], before, &list);
            view_shard(x, x->turn, r, j, sent, &list);
        }
        for (size_t h = 0; h < p->shape->kv_heads && p->shape->pagewise && list.n > 0; h++)
            qsort(views + h * list.n, list.n, sizeof *views, by_position);
        x->jobs[j].blocks = views;
        x->jobs[j].n_blocks = list.n;
        views += p->shape->kv_heads * list.n;
    }
}

/* ---- On its way -------------------------------------------------------------------------------- */

static void start(team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    char *own = shard_of(x, x->turn, comm_rank(p->comm));
    exchange_make_shard(t, x, own);
    if (t->tid != 0)
        return;
    comm_allgather_start(p->comm, x->slot, p->brings_shard ? x->shard : own, shard_of(x, x->turn, 0), x->send_bytes,
                         QWEN3_COMM_KV);
}

static void run(team *t, exchange *x)
{
    const bool apart = own_first(x->problem);
    if (apart)
        attention_run(t, &x->workspace);
    if (t->tid == 0) {
        comm_wait(x->problem->comm, x->slot);
        view_all(x, !apart);
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
    .start = start,
    .run = run,
};
