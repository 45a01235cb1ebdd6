/* pass_q.c - queries travel: every rank attends the queries of all ranks to the keys that it holds; partial results go
 * back to the ranks whose queries they are and are merged there in rank order.
 * (Yang et al. 2024, context parallelism, "pass-Q")
 */
#include "attention/movement.h"

enum { QUERIES, RECEIVED }; /* buffers: the queries of all ranks; [ranks] runs of own partials */

static bool applies(const attention_problem *p)
{
    return comm_size(p->comm) > 1 && !p->replicated && !p->queries_stay && !p->shape->pagewise;
}

static size_t pairs_of(const attention_problem *p, int r)
{
    return problem_rows(p, r) * problem_heads(p);
}

/* Each rank's queries go to all others, and partials of them come back from each. */
static movement_cost cost(const attention_problem *p)
{
    const int ranks = comm_size(p->comm);
    double bytes = 0;
    for (int r = 0; r < ranks; r++) {
        const size_t there = problem_rows(p, r) * problem_query_bytes(p);
        const size_t back = partial_floats(pairs_of(p, r), p->shape->head_dim) * sizeof(float);
        bytes += (double)(there + back) * (ranks - 1);
    }
    return (movement_cost){bytes, 2, false};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm), attend = x->phases.attend;
    const size_t run = partial_floats(pairs_of(p, rank), p->shape->head_dim) * sizeof(float);
    size_t query_bytes = 0, partials = 0;
    exchange_size_jobs(x, 0, ranks);
    for (int r = 0; r < ranks; r++) {
        query_bytes += problem_rows(p, r) * problem_query_bytes(p);
        partials += partial_floats(pairs_of(p, r), p->shape->head_dim);
    }
    memory_plan_add(m, &x->partials, partials * sizeof(float), x->phases.queries, attend);
    exchange_buffer(x, m, QUERIES, query_bytes, attend, attend);
    exchange_buffer(x, m, RECEIVED, (size_t)ranks * run, attend, x->phases.collect);
}

static void plan(const team *t, exchange *x)
{
    exchange_bind_jobs(x, 0, comm_size(x->problem->comm), x->buffers[QUERIES]);
    exchange_plan_jobs(t, x);
}

static void run(team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    if (t->tid == 0) {
        for (int r = 0; r < comm_size(p->comm); r++) {
            x->send_bytes[r] = problem_rows(p, r) * problem_query_bytes(p);
            x->pairs[r] = pairs_of(p, r);
        }
        comm_allgather(p->comm, x->q, x->buffers[QUERIES], x->send_bytes, QWEN3_COMM_QUERY);
    }
    team_barrier(t);
    attention_run(t, &x->workspace);
    exchange_return(t, x, x->partials, x->buffers[RECEIVED]);
}

const movement movement_pass_q = {
    .name = "pass_q",
    .applies = applies,
    .cost = cost,
    .layout = layout,
    .plan = plan,
    .run = run,
};
