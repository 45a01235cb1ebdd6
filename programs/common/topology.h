/* topology.h - prints where the ranks run and what each of them does. */
#ifndef TOPOLOGY_H
#define TOPOLOGY_H

#include <stdio.h>

#include "qwen3.h"

/* Collects a record of `size` bytes of every rank on rank 0; *all is NULL elsewhere and on failure, free with
 * free(). Collective. */
qwen3_status topology_collect(qwen3_comm *world, const void *own, size_t size, void **all, qwen3_error *err);
/* Ranks, nodes and binding. Rank 0 prints to `out`, at most max_ranks lines for ranks. Collective. */
qwen3_status topology_print(qwen3_comm *world, int max_ranks, FILE *out, qwen3_error *err);
/* Where so many ranks on so many nodes are to be predicted: on one node where they do not divide evenly. */
void scenario_place(qwen3_scenario *s, int ranks, int nodes);
/* "bf16"; "stored" where matrices have the types of a file. */
const char *plan_dtype_name(const qwen3_plan *plan);
/* The warning of the plan, if there is one, on rank 0 and to stderr. */
void plan_warn(const qwen3_comm *world, const qwen3_model *model);
/* What was decided when the model was opened: strategy, grid, types, threads, and each rank's share; and the
 * warning. Collective. */
qwen3_status plan_print(qwen3_comm *world, const qwen3_model *model, int max_ranks, FILE *out, qwen3_error *err);
/* On which NUMA nodes each rank's CPUs and weights are. Collective. */
qwen3_status placement_print(qwen3_comm *world, const qwen3_model *model, FILE *out, qwen3_error *err);

#endif
