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

static void run(team *t, exchange *x)
{
    attention_run(t, &x->workspace);
}

const movement movement_local = {
    .name = "local",
    .applies = applies,
    .cost = cost,
    .layout = exchange_add_own_rows,
    .plan = exchange_plan_own_rows,
    .run = run,
};
