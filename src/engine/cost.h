/* cost.h - the cost model: how long a forward pass takes on a machine (qwen3_predict), and what AUTO makes of it. Pure
 * functions.
 */
#ifndef QWEN3_ENGINE_COST_H
#define QWEN3_ENGINE_COST_H

#include "attention/movement.h"
#include "engine/machine.h"

/* Prices of movements among the ranks of a sequence group. */
movement_prices cost_movement_prices(const qwen3_scenario *s);

/* What AUTO plans for. */
typedef struct cost_phases {
    int64_t prompt;   /* tokens of one prefill; 0 = none */
    int64_t generate; /* decode steps after it */
} cost_phases;

/* Seconds of both phases, or infinity where the scenario is not possible. */
double cost_seconds(const qwen3_scenario *s, cost_phases phases);

/* The fewest rows of a rank from which on a prefill is predicted to be faster in two parts; INT32_MAX: never. */
int64_t cost_overlap_min_rows(const qwen3_scenario *s);

#endif
