/* split_heads.c - every rank has all queries and attends them to the keys that it holds; the partials of each head go
 * to the rank that needs it and are merged there in rank order. Decoding is this with one row a sequence.
 */
#include "attention/movement.h"

enum { BY_HEAD, RECEIVED }; /* buffers: runs [rows, heads of rank r] for each rank r; [ranks] runs of own heads */

static bool applies(const attention_problem *p)
{
    return p->replicated;
}

static size_t heads_of(const attention_problem *p, int r)
{
    return p->head_first[r + 1] - p->head_first[r];
}

/* Each rank sends the partials of all heads but its own. */
static movement_cost cost(const attention_problem *p)
{
    const int ranks = comm_size(p->comm);
    double bytes = 0;
    for (int r = 0; r < ranks; r++)
        bytes += (double)partial_floats(problem_rows(p, 0) * heads_of(p, r), p->shape->head_dim) * sizeof(float) *
                 (ranks - 1);
    return (movement_cost){bytes, ranks > 1, false};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm), attend = x->phases.attend;
    const size_t d = p->shape->head_dim, rows = problem_rows(p, 0);
    const size_t all = partial_floats(rows * problem_heads(p), d) * sizeof(float);
    exchange_size_jobs(x, 0, 1);
    memory_plan_add(m, &x->partials, all, x->phases.queries, attend);
    exchange_buffer(x, m, BY_HEAD, all, attend, attend);
    exchange_buffer(x, m, RECEIVED, (size_t)ranks * partial_floats(rows * heads_of(p, rank), d) * sizeof(float), attend,
                    x->phases.collect);
}

static void plan(const team *t, exchange *x)
{
    exchange_bind_jobs(x, 0, 1, x->q);
    exchange_plan_jobs(t, x);
}

/* Partials of [kv_heads, rows, heads_per_kv] of each job to runs of [row, head] for the ranks that need them. */
static void sort_by_head(const team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    const size_t d = p->shape->head_dim, per_kv = p->shape->heads_per_kv, rows = problem_rows(p, 0);
    float *run = x->buffers[BY_HEAD];
    for (int r = 0; r < comm_size(p->comm); r++) {
        const size_t heads = heads_of(p, r), pairs = rows * heads;
        const partial_run to = partial_at(run, pairs, d);
        size_t begin, end, first = 0;
        team_part(t, pairs, 1, &begin, &end);
        const attention_job *job = x->jobs;
        for (size_t u = begin; u < end; u++) {
            const size_t row = u / heads, head = p->head_first[r] + u % heads;
            while (row - first >= job->rows)
                first += job++->rows;
            const size_t at = (head / per_kv * job->rows + row - first) * per_kv + head % per_kv;
            memcpy(to.o + u * d, job->o + at * d, d * sizeof(float));
            to.m[u] = job->m[at];
            to.l[u] = job->l[at];
        }
        if (t->tid == 0)
            x->pairs[r] = pairs;
        run += partial_floats(pairs, d);
    }
}

static void run(team *t, exchange *x)
{
    attention_run(t, &x->workspace);
    sort_by_head(t, x);
    team_barrier(t);
    exchange_return(t, x, x->buffers[BY_HEAD], x->buffers[RECEIVED]);
}

const movement movement_split_heads = {
    .name = "split_heads",
    .applies = applies,
    .cost = cost,
    .layout = layout,
    .plan = plan,
    .run = run,
};
