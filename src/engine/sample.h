/* sample.h - choosing tokens from rows of logits that are distributed over the ranks, for qwen3_sample and the
 * scheduler. */
#ifndef QWEN3_ENGINE_SAMPLE_H
#define QWEN3_ENGINE_SAMPLE_H

#include "engine/session.h"
#include "qwen3_scheduler.h"

typedef enum choice_fault {
    CHOICE_GOOD,
    CHOICE_NOT_FINITE, /* a logit is NaN or +INFINITY */
    CHOICE_NO_TOKEN,   /* none may be chosen */
} choice_fault;

/* A token to be chosen. All ranks pass the same. */
typedef struct choice {
    size_t row;                   /* of the last forward pass */
    const qwen3_sampler *sampler; /* NULL: greedy, among all rows of the output head */
    uint64_t ahead;       /* tokens that are chosen after the history and before this one: it is drawn as if they
                             were in the history, but penalties do not see them */
    const uint64_t *mask; /* bit t % 64 of word t / 64: token t may be chosen; NULL: any */
    choice_fault fault;   /* out */
    int32_t token;        /* out: where there is no fault */
} choice;

/* Chooses a token for each of n different rows. Histories do not grow, and logits are as before. Fails only as a whole.
 * There must be logits (session_need_logits). Collective. */
qwen3_status choose_tokens(qwen3_session *s, choice *choices, size_t n, qwen3_error *err);

/* Logarithms of probabilities, by the softmax of the logits as they are. All ranks pass the same. */
typedef struct logprobs_row {
    size_t row;    /* of the last forward pass */
    int32_t token; /* whose is wanted */
    int most;      /* likeliest tokens that are wanted, at most QWEN3_MAX_TOP_LOGPROBS */
    float logprob; /* out */
    int n_top;     /* out */
    qwen3_token_logprob top[QWEN3_MAX_TOP_LOGPROBS];
} logprobs_row;

/* As choose_tokens, for finite rows. */
qwen3_status find_logprobs(qwen3_session *s, logprobs_row *rows, size_t n, qwen3_error *err);

#endif
