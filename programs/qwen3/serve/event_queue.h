/* event_queue.h - what happened to answers, from the thread of the scheduler to that of HTTP. */
#ifndef EVENT_QUEUE_H
#define EVENT_QUEUE_H

#include <pthread.h>

#include "qwen3_scheduler.h"

/* A copy of qwen3_scheduler_event. */
typedef struct engine_event {
    void *context; /* of the request */
    int answer;
    int32_t token; /* -1 = none */
    float logprob;
    qwen3_token_logprob top[QWEN3_MAX_TOP_LOGPROBS];
    int n_top;
    qwen3_finish finish;
    int64_t prompt_tokens, cached_tokens;
    float *embedding; /* [hidden_size], owned by who takes the event; NULL = none */
    qwen3_error error;
} engine_event;

typedef struct event_queue {
    pthread_mutex_t mutex;
    engine_event *events; /* [n] */
    size_t n, room;
    bool broken; /* an event was lost: out of memory */
} event_queue;

void event_queue_open(event_queue *q);
void event_queue_close(event_queue *q);
/* Returns whether the queue was empty. hidden: values of an embedding. */
bool event_queue_put(event_queue *q, const qwen3_scheduler_event *event, void *context, size_t hidden);
/* All events, in order; *events [*n] is freed with free(). False: events were lost, and all answers with them. */
bool event_queue_take(event_queue *q, engine_event **events, size_t *n);

#endif
