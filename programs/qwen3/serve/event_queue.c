/* event_queue.c - see event_queue.h. */
#include "event_queue.h"

#include <stdlib.h>
#include <string.h>

void event_queue_open(event_queue *q)
{
    *q = (event_queue){0};
    pthread_mutex_init(&q->mutex, NULL);
}

void event_queue_close(event_queue *q)
{
    for (size_t i = 0; i < q->n; i++)
        free(q->events[i].embedding);
    free(q->events);
    pthread_mutex_destroy(&q->mutex);
}

static engine_event copy_event(const qwen3_scheduler_event *event, void *context)
{
    engine_event copy = {.context = context,
                         .answer = event->answer,
                         .token = event->token,
                         .logprob = event->logprob,
                         .n_top = event->n_top,
                         .finish = event->finish,
                         .prompt_tokens = event->prompt_tokens,
                         .cached_tokens = event->cached_tokens};
    for (int i = 0; i < event->n_top; i++)
        copy.top[i] = event->top[i];
    if (event->error)
        copy.error = *event->error;
    return copy;
}

bool event_queue_put(event_queue *q, const qwen3_scheduler_event *event, void *context, size_t hidden)
{
    engine_event copy = copy_event(event, context);
    if (event->embedding && (copy.embedding = malloc(hidden * sizeof *copy.embedding)))
        memcpy(copy.embedding, event->embedding, hidden * sizeof *copy.embedding);
    pthread_mutex_lock(&q->mutex);
    const bool was_empty = q->n == 0;
    if (q->n == q->room) {
        const size_t room = 2 * q->room + 64;
        engine_event *larger = realloc(q->events, room * sizeof *larger);
        if (larger) {
            q->events = larger;
            q->room = room;
        }
    }
    q->broken |= q->n == q->room || (event->embedding && !copy.embedding);
    if (q->n < q->room)
        q->events[q->n++] = copy;
    else
        free(copy.embedding);
    pthread_mutex_unlock(&q->mutex);
    return was_empty;
}

bool event_queue_take(event_queue *q, engine_event **events, size_t *n)
{
    pthread_mutex_lock(&q->mutex);
    *events = q->events;
    *n = q->n;
    q->events = NULL;
    q->n = q->room = 0;
    const bool whole = !q->broken;
    pthread_mutex_unlock(&q->mutex);
    return whole;
}
