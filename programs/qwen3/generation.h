/* generation.h - what run and chat share: their options, and a model with all that turns text into text. */
#ifndef GENERATION_H
#define GENERATION_H

#include "common/model_arguments.h"

typedef struct generation_arguments {
    model_arguments model;
    char *system;         /* NULL = not given */
    int64_t max_tokens;   /* of an answer; 0 = as many as the context holds */
    int64_t context;      /* tokens of prompt and answer; 0 = all that the model has positions for */
    text_list stop, bias; /* bias: "ID=VALUE" */
    bool thinking, no_thinking, hide_thinking, json, stats;
    qwen3_sampling_options sampling; /* where given */
} generation_arguments;

/* ---- generation_options.c */

generation_arguments generation_arguments_default(void);
/* Adds the options that fill *a. */
void generation_options(generation_arguments *a, option_table *table);
/* What cannot be said of one option alone. */
qwen3_status generation_check(generation_arguments *a, const command_line *line, int ranks, qwen3_error *err);
/* Puts what was given into *sampling; bias [MAX_TEXTS] must live as long as it. */
qwen3_status generation_sampling(const generation_arguments *a, const command_line *line, qwen3_logit_bias *bias,
                                 qwen3_sampling_options *sampling, qwen3_error *err);
/* Changes one option of sampling: "temperature 0.7", "top-k 20". Its range is checked where a sampler is opened. */
qwen3_status generation_set(qwen3_sampling_options *sampling, const char *text, qwen3_error *err);

/* ---- generation.c */

/* Every rank holds one, with the same values but for what belongs to rank 0. */
typedef struct generation {
    qwen3_comm *world;
    int rank;
    const generation_arguments *arguments;
    qwen3_generation_config config; /* with the options of the command line */
    qwen3_logit_bias bias[MAX_TEXTS];
    int32_t n_tokens; /* ids that stand for tokens */
    int64_t context;  /* tokens that the session can hold, */
    int64_t most;     /* and that the model has positions for */
    qwen3_model *model;
    qwen3_session *session;
    qwen3_sampler *sampler;
    int32_t *held; /* [context] the tokens of the session, n_held of them */
    size_t n_held;
    /* rank 0 */
    qwen3_tokenizer *tokenizer;
    qwen3_chat_template *chat; /* NULL with raw */
    int32_t think, think_end;  /* <think> and </think>; -1 = there is none */
} generation;

/* Opens what text needs; raw: without a chat template. Whether it fails or not, generation_close must follow.
 * Collective. */
qwen3_status generation_open_text(generation *g, qwen3_comm *world, const generation_arguments *arguments,
                                  const command_line *line, bool raw, qwen3_error *err);
/* Opens model, session and sampler. Collective. */
qwen3_status generation_open_model(generation *g, qwen3_error *err);
/* Samples with other options from now on; where these are refused, with those before. Not collective, but the same
 * on all ranks. */
qwen3_status generation_set_sampling(generation *g, const qwen3_sampling_options *sampling, qwen3_error *err);
/* What a message adds that says the context is too short: whether a longer one can be had. */
const char *generation_context_hint(const generation *g);
/* Collective. */
void generation_close(generation *g);

#endif
