/* service.h - the OpenAI interface over a scheduler: what the routes share.
 *
 * All of it runs in the thread of HTTP, on rank 0. The thread of the scheduler puts events into the queue, and calls
 * service_over and service_fail. */
#ifndef SERVICE_H
#define SERVICE_H

#include <signal.h>
#include <stdatomic.h>

#include "event_queue.h"
#include "http.h"
#include "metrics.h"
#include "qwen3/generation.h"
#include "replies.h"

typedef struct service_settings {
    const char *model; /* its name */
    text_list keys;    /* of clients; none = everybody may ask */
    double grace;      /* seconds that answers have at the end */
} service_settings;

typedef struct service {
    const service_settings *settings;
    const generation *text;       /* tokenizer, chat template, configuration */
    qwen3_vocabulary *vocabulary; /* of its tokenizer */
    qwen3_scheduler *scheduler;
    http_server *http;
    request_defaults defaults;
    int64_t created;    /* seconds since 1970 */
    size_t hidden_size; /* values of an embedding */
    bool no_output_head;
    event_queue events;
    struct job *jobs; /* list of all */
    metrics metrics;
    const volatile sig_atomic_t *stop; /* set by a signal */
    bool draining;                     /* no new requests; until `deadline` those that run go on */
    double deadline;
    atomic_bool over;   /* nothing is served any more */
    atomic_bool failed; /* the engine has; `fault` is set before */
    qwen3_error fault;
} service;

/* The handler of the server (http.h). */
http_handler service_handler(service *s);
/* Frees jobs and events that are left; the scheduler must be closed before. */
void service_close(service *s);
/* Ends all jobs with an error. From the thread of the scheduler. */
void service_fail(service *s, const qwen3_error *err);

/* Replies with JSON, which is released; NULL = out of memory. */
void service_reply(service *s, http_exchange *x, int status, json_t *json);
void service_refuse(service *s, http_exchange *x, const api_error *e);

#endif
