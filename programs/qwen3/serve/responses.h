/* responses.h - replies of /v1/responses: output items, and the events of a stream. A reply that does not stream is
 * made by the same steps, so that both have the same items; its events are not kept. */
#ifndef RESPONSES_H
#define RESPONSES_H

#include "replies.h"

/* Out of memory sets `failed`, and the reply must not be sent. */
typedef struct response {
    const reply_head *head;
    const generation_request *request;
    json_t *output; /* owned; items, the last of which may be open */
    json_t *events; /* owned; that wait to be sent */
    int64_t sequence;
    bool failed;
    json_t *open;              /* borrowed; the item that goes on, reasoning or a message; NULL = none */
    size_t reasoning, content; /* where the text of the open item begins in that of the choice */
    size_t logprobs;           /* the same of log probabilities */
} response;

/* What is given must live longer. response_close must follow, also on failure. */
qwen3_status response_open(response *r, const reply_head *head, const generation_request *request, qwen3_error *err);
void response_close(response *r);
/* The events that a stream begins with. */
void response_begin(response *r);
/* Takes what has been added to the choice since the last time. */
void response_take(response *r, choice *c);
/* All has been taken: the whole reply, and the event that ends a stream. NULL = out of memory. */
json_t *response_end(response *r, const choice *c, const reply_usage *usage);
/* The events that end a stream with a fault. */
void response_fail(response *r, const api_error *e);
/* The events since the last time, owned by the caller; NULL = out of memory. */
json_t *response_events(response *r);

#endif
