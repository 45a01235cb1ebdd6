/* job.c - see job.h. */
#include "job.h"

#include <stdlib.h>
#include <string.h>

#include "common/statistics.h"

bool job_open(job *j, service *s, http_exchange *x, size_t n_parts)
{
    j->parts = calloc(n_parts, sizeof *j->parts);
    j->s = s;
    j->x = x;
    j->n_parts = j->parts ? n_parts : 0;
    j->begin = j->last_write = seconds_now();
    for (size_t i = 0; i < j->n_parts; i++)
        j->parts[i] = (job_part){.owner = j, .index = i};
    j->next = s->jobs;
    j->link = &s->jobs;
    if (j->next)
        j->next->link = &j->next;
    s->jobs = j;
    http_set_user(x, j);
    return j->parts != NULL;
}

void job_free(job *j)
{
    *j->link = j->next;
    if (j->next)
        j->next->link = j->link;
    j->release(j);
    free(j->parts);
    free(j);
}

/* In the thread of the scheduler. An answer that needs no more tokens ends here, and this is its last event. */
static bool put_event(void *context, const qwen3_scheduler_event *event)
{
    job_part *part = context;
    service *s = part->owner->s;
    qwen3_scheduler_event last = *event;
    const bool stopped = atomic_load(&part->stopped) >> event->answer & 1;
    if (stopped && event->finish == QWEN3_FINISH_NONE)
        last.finish = QWEN3_FINISH_CANCELLED;
    if (event_queue_put(&s->events, &last, part, s->hidden_size))
        http_wake(s->http);
    return !stopped;
}

bool job_submit(job *j, size_t part, qwen3_scheduler_request *request, api_error *e)
{
    qwen3_error err = {0};
    request->event = put_event;
    request->context = &j->parts[part];
    request->client = http_client(j->x);
    const qwen3_status status = qwen3_scheduler_submit(j->s->scheduler, request, &j->parts[part].id, &err);
    if (status == QWEN3_OK)
        j->open += request->embedding || request->n == 0 ? 1 : (size_t)request->n;
    else if (status == QWEN3_ERR_CAPACITY)
        api_fail(e, 429, "the waiting line is full, try again later");
    else
        api_fail_status(e, NULL, &err);
    return status == QWEN3_OK;
}

void job_end(job *j)
{
    j->x = NULL;
    for (size_t i = 0; i < j->n_parts && j->open > 0; i++)
        if (j->parts[i].id)
            qwen3_scheduler_cancel(j->s->scheduler, j->parts[i].id);
    if (j->open == 0)
        job_free(j);
}

void job_fail(job *j, const api_error *e)
{
    http_exchange *x = j->x;
    if (x && j->streaming) {
        if (j->fault)
            j->fault(j, e);
        else
            job_stream(j, api_error_json(e), false);
        http_stream_end(x);
    } else if (x) {
        service_refuse(j->s, x, e);
    }
    job_end(j);
}

void job_stream_begin(job *j)
{
    j->streaming = true;
    metrics_count_reply(&j->s->metrics, 200);
    http_stream_begin(j->x);
}

void job_stream(job *j, json_t *json, bool failed)
{
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    const char *type = json_string_value(json_object_get(json, "type"));
    if (text && type) {
        http_stream_write(j->x, "event: ", strlen("event: "));
        http_stream_write(j->x, type, strlen(type));
        http_stream_write(j->x, "\n", 1);
    }
    if (text) {
        http_stream_write(j->x, "data: ", strlen("data: "));
        http_stream_write(j->x, text, strlen(text));
        http_stream_write(j->x, "\n\n", 2);
    } else if (json || failed) {
        http_stream_break(j->x);
    }
    j->last_write = seconds_now();
    free(text);
    json_decref(json);
}

void job_dispatch(engine_event *event)
{
    job_part *part = event->context;
    job *j = part->owner;
    const bool ends = event->finish != QWEN3_FINISH_NONE;
    j->open -= ends;
    if (!j->first_came && j->x && event->finish != QWEN3_FINISH_ERROR)
        metrics_add_time(&j->s->metrics.first_token, seconds_now() - j->begin);
    j->first_came = true;
    if (j->x)
        j->take(j, part, event);
    else if (j->open == 0)
        job_free(j);
    free(event->embedding);
}
