/* scheduler_events.c - what becomes of the tokens of a step: answers go on or end, and their callbacks are told. Rank
 * 0; nothing is locked during a callback. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/scheduler.h"

/* ---- Filters ----------------------------------------------------------------------------------- */

bool filter_allows(const answer *a, int32_t token)
{
    const qwen3_token_filter *f = a->request->given.filter;
    return !f || f->allows(f->context, a->index, token);
}

bool filter_mask(const qwen3_scheduler *s, const answer *a, uint64_t *mask)
{
    const qwen3_token_filter *f = a->request->given.filter;
    memset(mask, 0, s->mask_words * sizeof *mask);
    return f->mask(f->context, a->index, mask);
}

/* ---- The end of an answer ---------------------------------------------------------------------- */

/* Counts it and frees it; its sequence stays as a prefix. */
static void end_answer(qwen3_scheduler *s, answer *a, qwen3_finish finish)
{
    const bool running = a->sequence >= 0;
    if (running)
        plan_release(s, a);
    pthread_mutex_lock(&s->mutex);
    s->n_running -= running;
    s->n_waiting -= !running;
    s->stats.finished += finish == QWEN3_FINISH_STOP || finish == QWEN3_FINISH_LENGTH;
    s->stats.cancelled += finish == QWEN3_FINISH_CANCELLED;
    s->stats.failed += finish == QWEN3_FINISH_ERROR;
    pthread_mutex_unlock(&s->mutex);
    answer_free(s, a);
}

static qwen3_scheduler_event event_of(const answer *a)
{
    return (qwen3_scheduler_event){.request = a->request->id,
                                   .answer = a->index,
                                   .token = -1,
                                   .prompt_tokens = a->n_prompt,
                                   .cached_tokens = a->cached,
                                   .generated_tokens = a->n_tokens - a->n_prompt};
}

/* Tells the callback, and ends the answer where either side wants that. */
static void tell(qwen3_scheduler *s, answer *a, qwen3_scheduler_event *event)
{
    const qwen3_scheduler_request *r = &a->request->given;
    const bool goes_on = r->event(r->context, event);
    if (event->finish || !goes_on)
        end_answer(s, a, event->finish ? event->finish : QWEN3_FINISH_STOP);
}

void events_error(qwen3_scheduler *s, answer *a, const qwen3_error *error)
{
    qwen3_scheduler_event event = event_of(a);
    event.finish = QWEN3_FINISH_ERROR;
    event.error = error;
    tell(s, a, &event);
}

void events_cancelled(qwen3_scheduler *s)
{
    for (answer *a; (a = plan_cancelled(s));) {
        qwen3_scheduler_event event = event_of(a);
        event.finish = QWEN3_FINISH_CANCELLED;
        tell(s, a, &event);
    }
}

/* ---- Tokens ------------------------------------------------------------------------------------ */

static bool append_token(answer *a, int32_t token)
{
    if (a->n_tokens == a->room) {
        const int64_t room = a->room + a->room / 2 + 64;
        int32_t *tokens = realloc(a->tokens, (size_t)room * sizeof *tokens);
        if (!tokens)
            return false;
        a->tokens = tokens;
        a->room = room;
    }
    a->tokens[a->n_tokens++] = token;
    return true;
}

static qwen3_finish finish_of(const answer *a, int32_t token)
{
    const qwen3_scheduler_request *r = &a->request->given;
    for (size_t i = 0; i < r->n_stop_tokens; i++)
        if (r->stop_tokens[i] == token)
            return QWEN3_FINISH_STOP;
    return a->n_tokens == a->most ? QWEN3_FINISH_LENGTH : QWEN3_FINISH_NONE;
}

static void count_token(qwen3_scheduler *s, answer *a)
{
    const double now = seconds_now(), gap = a->last_token > 0 ? now - a->last_token : 0;
    a->last_token = now;
    pthread_mutex_lock(&s->mutex);
    s->stats.generated_tokens++;
    s->stats.longest_gap = gap > s->stats.longest_gap ? gap : s->stats.longest_gap;
    pthread_mutex_unlock(&s->mutex);
}

/* p: its logarithm and alternatives, or NULL. */
static void take_token(qwen3_scheduler *s, answer *a, int32_t token, const logprobs_row *p)
{
    const qwen3_token_filter *f = a->request->given.filter;
    qwen3_error err = {0};
    if (!append_token(a, token)) {
        fail(&err, QWEN3_ERR_MEMORY, "no memory for the tokens of an answer");
        events_error(s, a, &err);
        return;
    }
    count_token(s, a);
    if (f)
        f->accept(f->context, a->index, token);
    qwen3_scheduler_event event = event_of(a);
    event.token = token;
    event.finish = finish_of(a, token);
    if (p) {
        event.logprob = p->logprob;
        event.top = p->top;
        event.n_top = p->n_top;
    }
    tell(s, a, &event);
}

static void fail_choice(qwen3_scheduler *s, answer *a, choice_fault fault)
{
    qwen3_error err = {0};
    if (fault == CHOICE_NOT_FINITE)
        fail(&err, QWEN3_ERR_FORMAT, "a logit is not a number, or infinite; the weights or the input overflow");
    else
        fail(&err, QWEN3_ERR_ARGUMENT, "no token may be chosen; expected a bias and a filter that leave one");
    events_error(s, a, &err);
}

/* ---- Embeddings -------------------------------------------------------------------------------- */

/* The row of logits of a sequence is that of its last token in the batch. */
static const float *embedding_of(const qwen3_scheduler *s, int sequence)
{
    size_t row = 0;
    for (size_t i = 0; i < s->n_batch; i++) {
        if (s->batch_logits[i] && s->batch_sequences[i] == sequence)
            break;
        row += s->batch_logits[i];
    }
    return s->embeddings + row * (size_t)s->model->config.hidden_size;
}

static bool has_embedding(const held_sequence *h)
{
    return h->answer && h->answer->request->given.embedding && h->answer->step_rows > 0 &&
           h->length == h->answer->n_tokens;
}

static void take_embeddings(qwen3_scheduler *s)
{
    const size_t bytes = s->n_rows * (size_t)s->model->config.hidden_size * sizeof(float);
    qwen3_error err = {0};
    float *larger = realloc(s->embeddings, bytes);
    if (larger) {
        s->embeddings = larger;
        qwen3_embeddings(s->session, 0, s->embeddings, &err);
    } else {
        fail(&err, QWEN3_ERR_MEMORY, "no memory for %zu embeddings", s->n_rows);
    }
    for (int i = 0; i < s->n_sequences; i++) {
        answer *a = s->held[i].answer;
        if (!has_embedding(&s->held[i]))
            continue;
        if (err.status) {
            events_error(s, a, &err);
            continue;
        }
        qwen3_scheduler_event event = event_of(a);
        event.finish = QWEN3_FINISH_STOP;
        event.embedding = embedding_of(s, i);
        tell(s, a, &event);
    }
}

/* What each sequence holds now, without guesses that were wrong. */
static void count_rows(qwen3_scheduler *s)
{
    for (size_t i = 0, n; i < s->n_choices; i += n) {
        answer *a = s->held[s->planned[i].sequence].answer;
        int64_t kept = 0;
        for (n = 0; i + n < s->n_choices && s->planned[i + n].sequence == a->sequence; n++)
            kept += s->taken[i + n];
        a->step_rows -= (int64_t)n - kept;
        draft_learn(s, a, (int64_t)n - 1, kept - 1);
    }
    for (int i = 0; i < s->n_sequences; i++)
        if (s->held[i].answer)
            s->held[i].length += s->held[i].answer->step_rows;
}

void events_of_step(qwen3_scheduler *s)
{
    const logprobs_row *p = s->logprobs;
    count_rows(s);
    for (size_t i = 0; i < s->n_choices; i++) {
        const planned_choice *planned = &s->planned[i];
        const choice *c = &s->choices[i];
        answer *a = s->held[planned->sequence].answer; /* NULL: it has ended with a token before */
        const logprobs_row *own = s->taken[i] && !c->fault && planned->logprobs >= 0 ? p++ : NULL;
        if (!a || !s->taken[i])
            continue;
        if (c->fault)
            fail_choice(s, a, c->fault);
        else
            take_token(s, a, c->token, own);
    }
    if (s->wants_embedding)
        take_embeddings(s);
}
