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

static void plan(const team *t, exchange *x)
{
    exchange_bind_own_rows(x);
    exchange_plan_jobs(t, x);
}

static void run(team *t, exchange *x)
{
    attention_run(t, &x->workspace);
}

const movement movement_local = {
    .name = "local",
    .applies = applies,
    .cost = cost,
    .layout = exchange_add_own_rows,
    .plan = plan,
    .run = run,
};
