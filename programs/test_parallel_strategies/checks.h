/* checks.h - the two parts of test_parallel_strategies and their counts. */
#ifndef TEST_PARALLEL_STRATEGIES_CHECKS_H
#define TEST_PARALLEL_STRATEGIES_CHECKS_H

#include "test_parallel_strategies/report.h"

typedef struct check_options {
    uint64_t seed;
    int cases;          /* random cases per class */
    bool verbose;       /* a line per case */
    bool deterministic; /* the model with that option, and its bits compared */
} check_options;

/* The attention operators against a float64 reference. Collective. */
void check_operators(qwen3_comm *world, const check_options *options, check_report *report);
/* The model over all ranks against the same model on one rank. Collective. */
void check_model(qwen3_comm *world, const check_options *options, check_report *report);

#endif
