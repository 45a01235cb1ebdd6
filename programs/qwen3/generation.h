/* generation.h - what run and chat share: their options, and a model with tokenizer, template and sampler. */
#ifndef GENERATION_H
#define GENERATION_H

#include "common/model_arguments.h"

typedef struct generation_arguments {
    model_arguments model;
    char *system;         /* NULL = not given */
    char *chat_template;  /* a name or a file; NULL = that of the model */
    int64_t max_tokens;   /* of an answer; 0 = as many as fit the context */
    int64_t context;      /* tokens of prompt and answer; 0 = the model's maximum */
    text_list stop, bias; /* bias: "ID=VALUE" */
    bool thinking, no_thinking, hide_thinking, json, stats;
    qwen3_sampling_options sampling; /* as far as given */
} generation_arguments;

/* ---- generation_options.c */

generation_arguments generation_arguments_default(void);
/* Adds the options that fill *a. */
void generation_options(generation_arguments *a, option_table *table);
/* Of these only how tokens are drawn: temperature, top_k, top_p, min_p and penalties. */
void generation_sampling_options(generation_arguments *a, option_table *table);
/* Checks that concern more than one option. */
qwen3_status generation_check(generation_arguments *a, const command_line *line, int ranks, qwen3_error *err);
/* Puts the given options into *sampling, which points to bias [MAX_TEXTS]. */
qwen3_status generation_sampling(const generation_arguments *a, const command_line *line, qwen3_logit_bias *bias,
                                 qwen3_sampling_options *sampling, qwen3_error *err);
/* Changes one option of sampling: "temperature 0.7", "top-k 20". qwen3_sampler_open checks its range. */
qwen3_status generation_set(qwen3_sampling_options *sampling, const char *text, qwen3_error *err);

/* ---- generation.c */

/* One on every rank, with the same values except for the part of rank 0. */
typedef struct generation {
    qwen3_comm *world;
    int rank;
    const generation_arguments *arguments;
    qwen3_generation_config config; /* with the options of the command line */
    qwen3_logit_bias bias[MAX_TEXTS];
    int32_t n_tokens; /* ids below are tokens */
    int64_t context;  /* tokens that the session can hold */
    int64_t most;     /* positions of the model */
    qwen3_model *model;
    qwen3_session *session;
    qwen3_sampler *sampler;
    int32_t *held; /* [context] [n_held] are the tokens of the session */
    size_t n_held;
    /* rank 0 */
    qwen3_tokenizer *tokenizer;
    qwen3_chat_template *chat; /* NULL with raw */
    int32_t think, think_end;  /* <think> and </think>; -1 = there is none */
} generation;

/* Opens tokenizer and chat template (raw: no template). generation_close must follow, also on failure. Collective. */
qwen3_status generation_open_text(generation *g, qwen3_comm *world, const generation_arguments *arguments,
                                  const command_line *line, bool raw, qwen3_error *err);
/* Opens model, session and sampler. Collective. */
qwen3_status generation_open_model(generation *g, qwen3_error *err);
/* Changes the sampling options; on failure they stay. Not collective, but every rank must make the same call. */
qwen3_status generation_set_sampling(generation *g, const qwen3_sampling_options *sampling, qwen3_error *err);
/* A hint for messages about a context that is too short: whether it can be longer. */
const char *generation_context_hint(const generation *g);
/* Collective. */
void generation_close(generation *g);

#endif
