/* answer.h - one answer of the model: takes the tokens of a prompt and writes text until something ends it. */
#ifndef ANSWER_H
#define ANSWER_H

#include "generation.h"
#include "output.h"

/* What ended an answer. */
typedef enum answer_end {
    ANSWER_END_TOKEN = 0, /* the model chose an end token */
    ANSWER_STOP_STRING,
    ANSWER_MAX_TOKENS,
    ANSWER_CONTEXT_FULL,
    ANSWER_INTERRUPTED,
} answer_end;

typedef struct answer_request {
    const int32_t *prompt; /* [n_prompt], 1 <= n_prompt <= context */
    size_t n_prompt;
    bool raw;      /* reasoning is not recognised */
    bool thinking; /* the prompt ends inside reasoning */
    output *out;
    bool (*interrupted)(void *context); /* called at every decode step; NULL = never */
    void *context;
} answer_request;

/* All zero = empty. */
typedef struct answer {
    text_buffer text, reasoning; /* without the marks between them */
    int32_t *tokens;             /* [generated], the end token included */
    size_t prompt, reused, generated, room;
    answer_end end;
    int stop;                                       /* index of the stop string that ended it, -1 = none did */
    double prefill_seconds, first_seconds, seconds; /* of the prompt; until the first token; of everything */
} answer;

/* Computes the part of the prompt that the session does not hold, and generates. Only rank 0 uses request and *a, and
 * shows the text. The tokens stay in the session. On failure the session must not be used any more. *a must be empty,
 * and is freed with answer_free also on failure. Collective. */
qwen3_status answer_generate(generation *g, const answer_request *request, answer *a, qwen3_error *err);
void answer_free(answer *a);

/* On rank 0: the event "done", and the line of --stats. */
json_t *answer_event(const generation *g, const answer *a);
void answer_describe(const generation *g, const answer *a, char *text, size_t size);

#endif
