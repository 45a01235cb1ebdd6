/* answer.h - one answer of the model: tokens of a prompt in, text out as it comes, until something ends it. */
#ifndef ANSWER_H
#define ANSWER_H

#include "generation.h"
#include "output.h"

/* What ended an answer. */
typedef enum answer_end {
    ANSWER_END_TOKEN = 0, /* the model said so */
    ANSWER_STOP_STRING,
    ANSWER_MAX_TOKENS,
    ANSWER_CONTEXT_FULL,
    ANSWER_INTERRUPTED,
} answer_end;

typedef struct answer_request {
    const int32_t *prompt; /* [n_prompt], 1 <= n_prompt <= context */
    size_t n_prompt;
    bool raw;      /* no reasoning is told apart */
    bool thinking; /* the prompt ends inside reasoning */
    output *out;
    bool (*interrupted)(void *context); /* asked at every step; NULL = never */
    void *context;
} answer_request;

/* All zero = empty. */
typedef struct answer {
    text_buffer text, reasoning; /* without what separates them */
    int32_t *tokens;             /* [generated], the end token included */
    size_t prompt, reused, generated, room;
    answer_end end;
    int stop;                                       /* index of the stop string that ended it, -1 = none did */
    double prefill_seconds, first_seconds, seconds; /* of the computed prompt, until the first token, of all */
} answer;

/* Computes what the session does not hold of the prompt, and generates. request and *a count on rank 0, which shows
 * the text. Tokens computed stay in the session. On failure nothing may be asked of the session any more. *a, which
 * must be empty, is freed with answer_free either way. Collective. */
qwen3_status answer_generate(generation *g, const answer_request *request, answer *a, qwen3_error *err);
void answer_free(answer *a);

/* On rank 0, the event "done", and the line of --stats. */
json_t *answer_event(const generation *g, const answer *a);
void answer_describe(const generation *g, const answer *a, char *text, size_t size);

#endif
