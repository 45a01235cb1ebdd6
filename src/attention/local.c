/* local.c - nothing moves: all keys are on the rank that has the queries. */
#include "attention/movement.h"

static bool applies(const attention_problem *p)
{
    return comm_size(p->comm) == 1 && !p->replicated;
}

static movement_cost cost(const attention_problem *p)
{
    (void)p;
    return (movement_cost){0, 0, false};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const size_t pairs = problem_rows(p, 0) * problem_heads(p);
    exchange_size_jobs(x, 0, 1, p->blocks);
    memory_plan_add(m, &x->partials, partial_floats(pairs, p->shape->head_dim) * sizeof(float), x->phases.queries,
                    x->phases.collect);
}

static void plan(const team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    exchange_bind_jobs(x, 0, 1, x->q);
    exchange_plan_jobs(t, x);
    x->result = partial_at(x->partials, problem_rows(p, 0) * problem_heads(p), p->shape->head_dim);
}

static void run(team *t, exchange *x)
{
    attention_run(t, &x->workspace);
}

const movement movement_local = {
    .name = "local",
    .applies = applies,
    .cost = cost,
    .layout = layout,
    .plan = plan,
    .run = run,
};
