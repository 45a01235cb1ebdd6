/* plan.h - which grid of ranks, before anything is loaded. Pure functions. */
#ifndef QWEN3_ENGINE_PLAN_H
#define QWEN3_ENGINE_PLAN_H

#include "base/status.h"

typedef struct grid {
    qwen3_parallel_strategy strategy; /* never AUTO */
    int s, h;                         /* sequence groups, head groups; s * h = ranks */
    char reason[256];
} grid;

/* Turns the options into a grid, or says what does not fit. The rule of AUTO is in the source and in
 * docs/PARALLEL_STRATEGIES.md. */
qwen3_status plan_grid(const qwen3_config *config, const qwen3_model_options *options, int ranks, grid *out,
                       qwen3_error *err);

#endif
