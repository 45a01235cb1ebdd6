/* model_arguments.h - the options of every program that runs a model: which one, and how. */
#ifndef MODEL_ARGUMENTS_H
#define MODEL_ARGUMENTS_H

#include "common/options.h"

typedef struct model_arguments {
    char *spec; /* --model; NULL = not given */
    qwen3_model_options model;
    qwen3_session_options session;
    int grid[2]; /* S, H; 0, 0 = not given */
} model_arguments;

model_arguments model_arguments_default(void);
/* --model alone, for programs that need no more. */
option model_spec_option(char **spec);
/* Adds the options that fill *a; the last one is --seed, which programs that sample put another in the place of. */
void model_arguments_options(model_arguments *a, option_table *table);
/* What cannot be said of one option alone: the grid against the strategy and the number of ranks. Completes
 * a->model. */
qwen3_status model_arguments_check(model_arguments *a, const command_line *line, int ranks, qwen3_error *err);

#endif
