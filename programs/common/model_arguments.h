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

#define MODEL_SPEC_HELP                                                                                                \
    "Checkpoint directory, packed model, or seeded random weights of size tiny, 0.6B, 1.7B, 4B, 8B, 14B or 32B"

model_arguments model_arguments_default(void);
/* --model alone, for programs that need no more. */
option model_spec_option(char **spec);
/* Adds the options that fill *a. The first one is --model, the last one --seed: programs for which they mean something
 * else put others in their place. */
void model_arguments_options(model_arguments *a, option_table *table);
/* Whether --model was given and is there, where it is the name of a directory or file; the error says how to get it.
 * expected: what --model may be. */
qwen3_status model_spec_check(const char *spec, const char *expected, qwen3_error *err);
/* What cannot be said of one option alone: the grid against the strategy and the number of ranks. Completes
 * a->model. */
qwen3_status model_arguments_check(model_arguments *a, const command_line *line, int ranks, qwen3_error *err);

#endif
