/* qwen3_scheduler.h - many requests over one model: continuous batching with shared prefixes.
 *
 * Rank 0 takes requests, in any of its threads, and decides before each step which tokens are computed in it. Requests
 * come and go between steps: a step has the next token of every running answer, and parts of the prompts of those that
 * have begun. The other ranks follow (qwen3_scheduler_follow).
 *
 *     rank 0:                                              the other ranks:
 *         qwen3_scheduler_open                                 qwen3_scheduler_open
 *         while (...) {                                        qwen3_scheduler_follow
 *             qwen3_scheduler_wait
 *             qwen3_scheduler_step     -> events
 *         }
 *         qwen3_scheduler_close                                qwen3_scheduler_close
 *
 * What is guaranteed of an answer. Its tokens depend on the logits and on its own request: draws depend on the seed and
 * the number of tokens before, not on what else runs, on when it came, or on whether a prefix was cached. The logits of
 * a deterministic model (qwen3_model_options) have the same bits in every batch and on any number of ranks, so there an
 * answer is the same alone and among others. Otherwise the last bits of logits may differ with the batch, and a draw or
 * a choice between equals may with them.
 */
#ifndef QWEN3_SCHEDULER_H
#define QWEN3_SCHEDULER_H

#include "qwen3.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qwen3_scheduler_options {
    int max_running;     /* answers that are computed at once, 1..1024 */
    int max_waiting;     /* answers in the waiting line, 1..1048576; more are refused */
    int max_cached;      /* ended sequences whose keys and values are kept as prefixes, 0..65536 */
    int64_t max_tokens;  /* most tokens of a prompt and its answer together; 0 = as many as the model has positions */
    int64_t step_tokens; /* most tokens of one step, at least max_running; 0 = default, 512 */
    double longest_wait; /* seconds that a running answer may wait for its next token because prompts are computed: they
                            are split so that steps are shorter, by the times of steps before. A few tokens of prompts
                            are computed in every step. INFINITY: prompts are computed as fast as possible */
    int64_t kv_pages;    /* pages of QWEN3_KV_PAGE positions that a rank keeps, at least what one request of max_tokens
                            needs; 0 = what fits in half of the memory that is available when the scheduler is opened */
    int draft_tokens;    /* most tokens of an answer that are guessed at once from its text before, and kept if they are
                            those that are drawn, 0..64: answers are the same and may come sooner. It stops by itself
                            where it does not pay. 0: no guesses. None are made for answers with a filter or with
                            penalties */
    int32_t n_tokens;    /* only ids below are chosen (qwen3_tokenizer_vocab_size); 0 = vocab_size */
    qwen3_session_options session; /* max_sequences, max_tokens and kv_pages of it are not looked at */
} qwen3_scheduler_options;

/* 16 running, 256 waiting, 64 cached, 0.25 seconds. */
QWEN3_API qwen3_scheduler_options qwen3_scheduler_options_default(void);

typedef struct qwen3_scheduler qwen3_scheduler;

/* Opens a session of the model for the scheduler alone. options NULL = defaults; they are those of rank 0. On failure
 * *scheduler is NULL. Collective. */
QWEN3_API qwen3_status qwen3_scheduler_open(qwen3_model *model, const qwen3_scheduler_options *options,
                                            qwen3_scheduler **scheduler, qwen3_error *err);
/* Requests that are not finished are dropped without an event. NULL is allowed. On rank 0 it lets the other ranks
 * return from qwen3_scheduler_follow; no thread may be in another call on the scheduler. Collective. */
QWEN3_API void qwen3_scheduler_close(qwen3_scheduler *scheduler);

/* Why an answer ended. */
typedef enum qwen3_finish {
    QWEN3_FINISH_NONE = 0,  /* it goes on */
    QWEN3_FINISH_STOP,      /* its last token is one of stop_tokens, or the callback ended it */
    QWEN3_FINISH_LENGTH,    /* max_tokens of the request or of the scheduler is reached */
    QWEN3_FINISH_CANCELLED, /* qwen3_scheduler_cancel */
    QWEN3_FINISH_ERROR,     /* `error` of the event says why */
} qwen3_finish;

QWEN3_API const char *qwen3_finish_name(qwen3_finish finish);

/* A token and the logarithm of its probability by the model: softmax of the logits, before bias, penalties,
 * temperature, top_k, top_p, min_p and filter. */
typedef struct qwen3_token_logprob {
    int32_t token;
    float logprob;
} qwen3_token_logprob;

#define QWEN3_MAX_TOP_LOGPROBS 20

/* What happened to an answer. Plain data and pointers that are valid during the callback. */
typedef struct qwen3_scheduler_event {
    uint64_t request;
    int answer;    /* 0..n - 1 of the request */
    int32_t token; /* the next one; -1: none, where it ends without one (cancelled, error, embedding) */
    float logprob; /* of token; only where logprobs of the request is set */
    const qwen3_token_logprob *top; /* [n_top] the likeliest tokens, the likeliest first */
    int n_top;
    qwen3_finish finish; /* after this token; the last event of an answer has one */
    int64_t prompt_tokens;
    int64_t cached_tokens;    /* of the prompt, whose keys and values were there already */
    int64_t generated_tokens; /* so far, with this one */
    const float *embedding;   /* [hidden_size] of the last token of the prompt, divided by its L2 norm, where
                                 embedding of the request is set */
    const qwen3_error *error; /* where finish is QWEN3_FINISH_ERROR */
} qwen3_scheduler_event;

/* Restricts the tokens of an answer, for instance to a grammar. Called in qwen3_scheduler_step, on rank 0. A token is
 * drawn first and checked; only where it is not allowed `mask` is called, and a token is drawn among those in it. All
 * is as if tokens that are not in the mask had no probability, but that top_p, top_k and min_p may have been applied
 * before. */
typedef struct qwen3_token_filter {
    /* Whether the token may be the next one of the answer. */
    bool (*allows)(void *context, int answer, int32_t token);
    /* Writes which tokens may be: bit t % 64 of mask[t / 64], (tokens + 63) / 64 words, zeroed before, of ids below
     * n_tokens of the scheduler. False, or an empty mask: none, and the answer ends with QWEN3_FINISH_ERROR. */
    bool (*mask)(void *context, int answer, uint64_t *mask);
    /* The token was chosen. Before the event. */
    void (*accept)(void *context, int answer, int32_t token);
    void *context;
} qwen3_token_filter;

/* Members that are left zero have their defaults, but sampling, which comes from qwen3_sampling_options_default. What
 * they point to is copied, except for the contexts, which must live until the last event of the last answer. */
typedef struct qwen3_scheduler_request {
    const int32_t *prompt; /* [n_prompt] at least one */
    size_t n_prompt;
    int64_t max_tokens; /* of an answer; 0 = as many as fit in max_tokens of the scheduler */
    int n;              /* answers, at most max_waiting of the scheduler; 0 = 1 */
    qwen3_sampling_options
        sampling;               /* answer i has the seed + i: it is the answer of a request of one with that seed */
    const int32_t *stop_tokens; /* [n_stop_tokens] any of them ends an answer, and is its last token */
    size_t n_stop_tokens;
    bool logprobs;                    /* events have logprob */
    int top_logprobs;                 /* and so many alternatives, at most QWEN3_MAX_TOP_LOGPROBS */
    bool embedding;                   /* no answer: one event with the embedding of the prompt. n and what concerns
                                         generation is not looked at */
    const qwen3_token_filter *filter; /* NULL: all tokens */
    uint64_t client;                  /* answers of different clients take turns in leaving the waiting line */
    /* Called in qwen3_scheduler_step for every token and for the end, in the thread that calls it. False ends the
     * answer, as a stop string does, and no more events of it follow. May call qwen3_scheduler_submit and _cancel. */
    bool (*event)(void *context, const qwen3_scheduler_event *event);
    void *context;
} qwen3_scheduler_request;

/* Puts the answers of a request into the waiting line. *id is its number, at least 1; no two requests have the same.
 * QWEN3_ERR_CAPACITY: the line is full, try later. QWEN3_ERR_ARGUMENT: what is wrong with the request. In both cases
 * there will be no event. On rank 0, in any thread. */
QWEN3_API qwen3_status qwen3_scheduler_submit(qwen3_scheduler *scheduler, const qwen3_scheduler_request *request,
                                              uint64_t *id, qwen3_error *err);
/* Ends the answers of a request before the next step, with events. Nothing happens where it has ended. On rank 0, in
 * any thread. */
QWEN3_API void qwen3_scheduler_cancel(qwen3_scheduler *scheduler, uint64_t id);

/* Waits until there is something to do for qwen3_scheduler_step, for at most so many seconds (INFINITY: no limit), or
 * until qwen3_scheduler_wake. Returns whether there is something to do. On rank 0. */
QWEN3_API bool qwen3_scheduler_wait(qwen3_scheduler *scheduler, double seconds);
/* Ends a wait that is under way, or else the next one. On rank 0, in any thread. */
QWEN3_API void qwen3_scheduler_wake(qwen3_scheduler *scheduler);

/* Does what is to be done next: one forward pass at most, and the callbacks. Returns at once where there is nothing.
 * A failure is one of the whole job, after which only qwen3_scheduler_close may be called. What concerns one answer is
 * an event. On rank 0, in the thread that opened the scheduler. */
QWEN3_API qwen3_status qwen3_scheduler_step(qwen3_scheduler *scheduler, qwen3_error *err);
/* Takes part in the steps of rank 0 until it closes the scheduler, or until one fails. Returns at once on rank 0. It
 * sleeps while nothing is computed. */
QWEN3_API qwen3_status qwen3_scheduler_follow(qwen3_scheduler *scheduler, qwen3_error *err);

typedef struct qwen3_scheduler_stats {
    int running, waiting;   /* answers */
    int cached;             /* sequences that are kept as prefixes */
    uint64_t accepted;      /* requests, since the scheduler was opened, as all below */
    uint64_t refused;       /* because the line was full */
    uint64_t finished;      /* answers that ended by a stop, by length, with an embedding */
    uint64_t cancelled;     /* answers */
    uint64_t failed;        /* answers that ended with an error */
    uint64_t postponed;     /* times that a running answer went back to the line because pages ran out */
    uint64_t steps;         /* forward passes */
    double step_seconds;    /* of all of them */
    double last_step;       /* seconds of the last one */
    double longest_gap;     /* seconds between two tokens of an answer, at most */
    uint64_t prompt_tokens; /* of answers that have begun */
    uint64_t cached_tokens; /* of these, not computed */
    uint64_t generated_tokens;
    uint64_t drafted_tokens; /* guessed */
    uint64_t kept_tokens;    /* of these, those that were right */
    int64_t kv_pages;        /* of rank 0: that it may keep, and that hold tokens */
    int64_t kv_pages_used;   /* by running answers and cached prefixes; shared pages once */
} qwen3_scheduler_stats;

/* On rank 0, in any thread. */
QWEN3_API void qwen3_scheduler_get_stats(qwen3_scheduler *scheduler, qwen3_scheduler_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
