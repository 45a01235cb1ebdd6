/* model_arguments.h - the options of every program that runs a model. */
#ifndef MODEL_ARGUMENTS_H
#define MODEL_ARGUMENTS_H

#include "common/options.h"

typedef struct model_arguments {
    char *spec; /* --model; NULL = not given */
    qwen3_model_options model;
    qwen3_session_options session;
    int grid[2];           /* S, H; 0, 0 = not given */
    char *machine_file;    /* --machine; NULL = not given */
    qwen3_machine machine; /* what it holds; model.machine points to it then */
    int bind;              /* --bind, a bind_choice */
} model_arguments;

#define MODEL_SPEC_HELP                                                                                                \
    "Checkpoint directory, packed model, GGUF file, or seeded random weights of size tiny, 0.6B, 1.7B, 4B, 8B, 14B, "  \
    "32B, tiny-moe, 30B-A3B or 235B-A22B, with :layers=N or :yarn=N after it if wanted"

model_arguments model_arguments_default(void);
/* --model alone, for programs that need nothing else. */
option model_spec_option(char **spec);
/* Adds the options that fill *a. The first is --model and the last --seed; a program that needs others replaces them.
 */
void model_arguments_options(model_arguments *a, option_table *table);
/* Checks that --model was given and that what it names exists; the error says how to get the model. expected: what
 * --model may be. A file of a checkpoint is replaced, in place, by its directory. */
qwen3_status model_spec_check(char *spec, const char *expected, qwen3_error *err);
/* The same where --model may be a file. */
qwen3_status model_file_check(const char *spec, const char *expected, qwen3_error *err);
/* Whether --model names a GGUF file. */
bool model_spec_is_gguf(const char *spec);
/* Says on standard error, on rank 0, which types of weights AUTO rounds or expands. model: opened from spec, or NULL,
 * where it was packed from it. */
void model_conversion_note(const qwen3_comm *world, const char *spec, const qwen3_model *model, qwen3_dtype dtype);
/* Checks the grid against the strategy and the number of ranks, reads --machine, and completes a->model, which then is
 * valid as long as *a is where it is. */
qwen3_status model_arguments_check(model_arguments *a, const command_line *line, int ranks, qwen3_error *err);

#endif
