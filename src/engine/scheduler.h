/* scheduler.h - many requests over one session.
 *
 *   scheduler.c          opening, requests from any thread, waiting, statistics
 *   scheduler_plan.c     what rank 0 decides before a step: who begins, in which sequence, which tokens are computed
 *   scheduler_draft.c    tokens that are guessed
 *   scheduler_run.c      what all ranks do with it: orders, one forward pass, tokens
 *   scheduler_events.c   what rank 0 does with the tokens: answers go on or end, callbacks
 *
 * Every rank has the session and a sampler for each running answer. Only rank 0 knows requests, answers and what the
 * sequences hold.
 */
#ifndef QWEN3_ENGINE_SCHEDULER_H
#define QWEN3_ENGINE_SCHEDULER_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/orders.h"
#include "engine/sample.h"
#include "engine/session.h"
#include "qwen3_scheduler.h"

enum { MOST_RUNNING = 1024, MOST_DRAFT = 64 };

/* Of the tokens that are guessed, the part that is right, before it is known. */
#define DRAFT_RATE 0.7

/* What was submitted. Lives until its last answer has ended. */
typedef struct request {
    struct request *next;
    qwen3_scheduler_request given; /* what it points to is the request's */
    qwen3_token_filter filter;
    uint64_t id;
    int unfinished;        /* answers */
    atomic_bool cancelled; /* set in any thread */
} request;

/* One answer of a request: a list of tokens, of which some have been computed. */
typedef struct answer {
    struct answer *next; /* in its line */
    request *request;
    int index;
    int sequence;    /* -1 while it waits */
    int32_t *tokens; /* [n_tokens] prompt and what was generated */
    int64_t n_prompt, n_tokens, room;
    int64_t most;        /* tokens, at the end */
    int64_t cached;      /* of the prompt, not computed */
    int64_t step_rows;   /* tokens that are computed in the step at hand */
    uint64_t begun;      /* number of its admission; 0: never */
    double last_token;   /* when it came; 0: none yet */
    int64_t draft_from;  /* tokens from which on some are guessed */
    int64_t draft_pause; /* tokens without guesses, the next time that they do not pay */
    double draft_rate;   /* the part of them that is right, lately */
} answer;

/* What a sequence of the session holds: tokens of a running answer, or of one that has ended. */
typedef struct held_sequence {
    answer *answer;  /* NULL: it has ended */
    int32_t *tokens; /* [length] then */
    int64_t length;  /* tokens with keys and values; 0 and no answer: free */
    uint64_t used;   /* when: number of the step */
    uint64_t pinned; /* number of the plan in which another one begins with it */
} held_sequence;

/* Answers of one client that wait. */
typedef struct client_line {
    struct client_line *next;
    uint64_t client;
    answer *first, **last;
    uint64_t turn; /* lines with a lower one come first */
} client_line;

/* A token to be chosen in a step. */
typedef struct planned_choice {
    int32_t sequence, row;
    int32_t logprobs; /* likeliest tokens that are wanted; -1: not even the logarithm */
    int32_t ahead;    /* guessed tokens before it, the last of which is that of its row */
} planned_choice;

/* How long steps take, from those before. */
typedef struct step_times {
    double decode; /* seconds of a step without prompts; 0: not known */
    double token;  /* seconds more for each token of a prompt; 0: not known */
    double draft;  /* seconds more for each token that is guessed; 0: not known */
} step_times;

struct qwen3_scheduler {
    qwen3_scheduler_options options; /* without defaults left open */
    qwen3_model *model;
    comm *world;
    int rank;
    qwen3_session *session;
    int n_sequences;
    qwen3_sampler **samplers; /* [n_sequences] */
    order_list orders;
    bool ended;          /* no more orders come */
    bool no_room;        /* the last step was refused for want of pages or memory, and everything is as before it */
    qwen3_error failure; /* of the job; status QWEN3_OK: none */

    /* The step at hand. */
    planned_choice *planned; /* [step_tokens] */
    choice *choices;         /* [step_tokens] */
    bool *taken;             /* [step_tokens] of the choices: follows the ones before, and is a token of the answer */
    logprobs_row *logprobs;  /* [step_tokens] of those that want them */
    size_t n_choices, n_logprobs;
    uint64_t *masks; /* [max_running][mask_words] */
    size_t mask_words;
    choice *again; /* [max_running] those that a filter has refused */

    /* ---- Rank 0 ---- */
    pthread_mutex_t mutex; /* guards what follows, until the next line */
    pthread_cond_t wakes;
    request *requests; /* all that have not ended */
    answer *incoming;  /* in the order of submission */
    answer **incoming_end;
    int n_waiting, n_running;
    bool woken, to_cancel;
    uint64_t last_id;
    qwen3_scheduler_stats stats;

    held_sequence *held; /* [n_sequences] */
    client_line *lines;
    uint64_t plan, turn, admissions; /* counters */
    bool crowded;                    /* pages ran out: nobody begins until an answer ends */
    step_times times;
    double step_begin;
    int64_t step_prompt_tokens, step_decodes, step_drafts; /* of the step at hand */
    /* The batch that is being put together. */
    int32_t *batch_tokens, *batch_sequences; /* [step_tokens] */
    uint8_t *batch_logits;                   /* [step_tokens] */
    size_t n_batch, n_batch_choices, n_rows; /* n_rows: of logits */
    float *embeddings;                       /* [n_rows, hidden_size] where one is wanted */
    bool wants_embedding, filtered;
};

/* ---- scheduler_plan.c: rank 0 ---- */

/* Takes in what was submitted. Whether any request has been cancelled. */
bool plan_take_in(qwen3_scheduler *s);
/* Lets waiting answers begin, and puts a step together. False: nothing is to be computed. */
bool plan_step(qwen3_scheduler *s);
/* Its orders have been carried out. */
void plan_done(qwen3_scheduler *s);
/* An answer of a cancelled request, which waits no more or still runs; NULL: there is none. */
answer *plan_cancelled(qwen3_scheduler *s);
/* Pages ran out, or memory: forgets a prefix, or sends an answer back to its line. False: there is nothing to give up
 * but the only answer. */
bool plan_make_room(qwen3_scheduler *s);
/* Learns from a step. */
void plan_measure(qwen3_scheduler *s, double seconds);
/* The sequence of an answer that has ended is kept as a prefix, or forgotten. */
void plan_release(qwen3_scheduler *s, answer *a);
void plan_close(qwen3_scheduler *s);

/* ---- scheduler_draft.c: rank 0 ---- */

/* Guesses for the tokens of an answer that come next; returns how many. */
int64_t draft_tokens(const qwen3_scheduler *s, const answer *a, const int32_t **tokens);
/* How many of them were right. */
void draft_learn(qwen3_scheduler *s, answer *a, int64_t drafted, int64_t kept);

/* ---- scheduler_run.c: all ranks ---- */

/* Shares the orders of rank 0 and carries them out. A failure is one of the job, unless no_room is set. */
qwen3_status run_orders(qwen3_scheduler *s, qwen3_error *err);

/* ---- scheduler_events.c: rank 0 ---- */

/* Whether the filter of an answer, if it has one, allows the token; otherwise what it does allow. */
bool filter_allows(const answer *a, int32_t token);
bool filter_mask(const qwen3_scheduler *s, const answer *a, uint64_t *mask);
/* Ends the answers of cancelled requests. */
void events_cancelled(qwen3_scheduler *s);
/* The tokens and embeddings of the step. */
void events_of_step(qwen3_scheduler *s);
/* Ends one answer with an error. */
void events_error(qwen3_scheduler *s, answer *a, const qwen3_error *error);
/* An answer is no more; its request neither, if it is the last. */
void answer_free(qwen3_scheduler *s, answer *a);

#endif
