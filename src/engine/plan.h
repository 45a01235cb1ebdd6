/* plan.h - which grid of ranks, before anything is loaded. Pure functions. */
#ifndef QWEN3_ENGINE_PLAN_H
#define QWEN3_ENGINE_PLAN_H

#include "base/status.h"
#include "model/partition.h"

typedef struct grid {
    qwen3_parallel_strategy strategy; /* never AUTO */
    int s, h;                         /* sequence groups, head groups; s * h = ranks */
    bool deterministic;               /* of grid_place */
    char reason[256], warning[256];   /* of qwen3_plan */
    int64_t overlap_min_rows;         /* of qwen3_session_options, by the machine; 0 = nothing is known */
} grid;

/* The ranks of a job. */
typedef struct plan_ranks {
    int ranks, nodes;
    const qwen3_machine *machine; /* NULL = nothing is known: the default one, and no warning */
} plan_ranks;

/* Turns the options into a grid, or says what does not fit. AUTO, and HYBRID without a grid, take the grid with the
 * least predicted time (cost.h; docs/PARALLEL_STRATEGIES.md). */
qwen3_status plan_grid(const qwen3_config *config, const qwen3_model_options *options, const plan_ranks *ranks,
                       grid *out, qwen3_error *err);

static inline grid_place plan_place(const grid *g, int rank)
{
    return (grid_place){g->s, g->h, rank / g->h, rank % g->h, g->deterministic};
}

#endif
