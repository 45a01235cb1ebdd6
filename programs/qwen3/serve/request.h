/* request.h - what a client wants generated: the body of /v1/chat/completions, /v1/completions and /v1/responses,
 * checked. Nothing of it is ignored in silence: a parameter that is not known, or that cannot be met, refuses the
 * request. */
#ifndef REQUEST_H
#define REQUEST_H

#include "api_error.h"
#include "common/options.h"
#include "qwen3_grammar.h"

enum {
    REQUEST_MOST_CHOICES = 64, /* of a request, over all its prompts */
    REQUEST_MOST_STOPS = 16,
    REQUEST_MOST_TOP_LOGPROBS = 20,
};

typedef enum request_form {
    REQUEST_CHAT,
    REQUEST_COMPLETION,
    REQUEST_RESPONSE, /* of /v1/responses: a chat in another form */
} request_form;

/* What the server brings to a request. */
typedef struct request_defaults {
    const char *model;               /* its name */
    qwen3_sampling_options sampling; /* of the model */
    bool seeded;                     /* requests without a seed have that of sampling */
    int32_t n_tokens;                /* ids below are tokens */
    qwen3_chat_thinking thinking;    /* of its chat template */
    bool no_thinking;                /* where it is optional, requests begin without */
} request_defaults;

/* Strings belong to the body. */
typedef struct generation_request {
    json_t *body;             /* owned; of a response that of the chat that it is */
    json_t *response;         /* owned; the body of a response as it came; NULL = another form */
    bool chat;                /* messages, and not a text that goes on */
    json_t *messages, *tools; /* of a chat; tools NULL = none may be called */
    json_t *prompts;          /* otherwise: an array of strings and arrays of ids, owned */
    bool thinking, parallel_tool_calls;
    bool must_call;                 /* the answer is one or more calls of tools */
    qwen3_grammar *content_grammar; /* owned; NULL = any text */
    qwen3_grammar *call_grammar;    /* owned; NULL = calls are what the model writes */
    bool stream, include_usage, echo, logprobs;
    int top_logprobs, n;
    int64_t max_tokens; /* 0 = as many as the context holds */
    qwen3_sampling_options sampling;
    bool seeded;
    qwen3_logit_bias *bias; /* owned */
    text_list stop;
} generation_request;

/* request_free must follow, also on failure. */
bool request_parse(generation_request *r, request_form form, const char *text, size_t n,
                   const request_defaults *defaults, api_error *e);
void request_free(generation_request *r);
/* The model that a request names, if it does, is the one that is served. */
bool request_check_model(const json_t *body, const char *model, api_error *e);
/* Refuses members that are not in the list, which NULL ends. */
bool request_check_names(const json_t *body, const char *const *names, api_error *e);
/* An array of strings and arrays of ids, from one of them or an array of them; NULL on failure. */
json_t *request_prompts(json_t *value, const char *name, int32_t n_tokens, api_error *e);

#endif
