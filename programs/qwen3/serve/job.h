/* job.h - a request that the scheduler works on: its prompts are the parts, each of which has one or more answers.
 *
 * A job lives until the last event of its last answer has come, also after its client went away. */
#ifndef JOB_H
#define JOB_H

#include "service.h"

typedef struct job job;

typedef struct job_part {
    job *owner;
    size_t index;
    uint64_t id;                   /* of the request in the scheduler; 0 = not submitted */
    atomic_uint_least64_t stopped; /* bit i: answer i needs no more tokens */
} job_part;

/* The first member of a job of a certain kind. */
struct job {
    service *s;
    http_exchange *x; /* NULL = nobody waits for it any more */
    job *next, **link;
    job_part *parts;      /* [n_parts] */
    size_t n_parts, open; /* open: answers that were submitted, and whose last event has not come */
    double begin, last_write;
    bool streaming, first_came;
    void (*take)(job *j, job_part *part, engine_event *event); /* while x is not NULL */
    void (*fault)(job *j, const api_error *e); /* ends a stream with an error; NULL = by an event with nothing else */
    void (*release)(job *j);                   /* frees what the kind has beside the job */
};

/* Takes the exchange over. False = out of memory, and the exchange has been refused. */
bool job_open(job *j, service *s, http_exchange *x, size_t n_parts);
/* Submits a part. request->event and context are set here. False: *e says why. */
bool job_submit(job *j, size_t part, qwen3_scheduler_request *request, api_error *e);
/* The reply has ended: what still runs is cancelled. Frees the job if nothing does. */
void job_end(job *j);
/* Ends the reply with an error. */
void job_fail(job *j, const api_error *e);
/* Begins a stream, and sends an event, which is released. One that has a type is named by it. */
void job_stream_begin(job *j);
void job_stream(job *j, json_t *json, bool failed);
/* Gives an event to the job that it belongs to. */
void job_dispatch(engine_event *event);

/* Frees it, whatever still runs: the scheduler is closed. */
void job_free(job *j);

/* What starts jobs. */
void generate_begin(service *s, http_exchange *x, request_form form);
void embed_begin(service *s, http_exchange *x);

#endif
