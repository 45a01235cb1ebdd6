/* scheduler.c - opening a scheduler, and what other threads do with it: requests, waiting, statistics. */
#include "engine/scheduler.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"

enum {
    DEFAULT_STEP_TOKENS = 512,
    MOST_WAITING = 1 << 20,
    MOST_CACHED = 1 << 16,
    MOST_STEP_TOKENS = 1 << 20,
};

/* Seconds; who waits longer waits without a limit. */
#define LONGEST_SLEEP 1e6

/* ---- Options ----------------------------------------------------------------------------------- */

qwen3_scheduler_options qwen3_scheduler_options_default(void)
{
    return (qwen3_scheduler_options){.max_running = 16,
                                     .max_waiting = 256,
                                     .max_cached = 64,
                                     .longest_wait = 0.25,
                                     .session = qwen3_session_options_default()};
}

const char *qwen3_finish_name(qwen3_finish finish)
{
    static const char *const names[] = {"none", "stop", "length", "cancelled", "error"};
    return (unsigned)finish < sizeof names / sizeof *names ? names[finish] : "unknown";
}

static qwen3_status check_range(const char *name, int64_t value, int64_t least, int64_t most, qwen3_error *err)
{
    if (value >= least && value <= most)
        return QWEN3_OK;
    return fail(err, QWEN3_ERR_ARGUMENT, "%s %lld: expected %lld..%lld", name, (long long)value, (long long)least,
                (long long)most);
}

/* Pages of a rank that keeps its part of a sequence: as many as any has, and one that is filled unevenly. */
static int64_t pages_of_sequence(const qwen3_model *m, int64_t tokens)
{
    const int64_t groups = m->place.s_groups, pages = (tokens + QWEN3_KV_PAGE - 1) / QWEN3_KV_PAGE;
    return (pages + groups - 1) / groups + 1;
}

/* Pages that half of the memory of the fullest node has room for. Collective. */
static int64_t pages_of_memory(qwen3_model *m)
{
    const qwen3_config *c = &m->config;
    const double bytes = QWEN3_KV_PAGE * qwen3_kv_bytes_per_token(c, m->plan.kv_dtype) * (double)m->plan.num_kv_heads /
                         (double)c->num_kv_heads;
    qwen3_rank_info info = {.ranks_on_node = 1};
    qwen3_comm_topology(m->world, &info, NULL);
    double pages = -(bytes > 0 ? (double)memory_available() / 2 / info.ranks_on_node / bytes : (double)INT32_MAX);
    qwen3_comm_max(m->world, &pages, 1);
    return -pages < INT32_MAX ? (int64_t)-pages : INT32_MAX;
}

static qwen3_status check_options(const qwen3_scheduler_options *o, const qwen3_config *config, qwen3_error *err)
{
    if (check_range("max_running", o->max_running, 1, MOST_RUNNING, err) ||
        check_range("max_waiting", o->max_waiting, 1, MOST_WAITING, err) ||
        check_range("max_cached", o->max_cached, 0, MOST_CACHED, err) ||
        check_range("max_tokens", o->max_tokens, 0, config->max_positions, err) ||
        check_range("draft_tokens", o->draft_tokens, 0, MOST_DRAFT, err) ||
        check_range("kv_pages", o->kv_pages, 0, INT32_MAX, err) ||
        check_range("n_tokens", o->n_tokens, 0, config->vocab_size, err))
        return err->status;
    if (o->step_tokens != 0)
        check_range("step_tokens", o->step_tokens, o->max_running, MOST_STEP_TOKENS, err);
    if (!(o->longest_wait > 0))
        fail(err, QWEN3_ERR_ARGUMENT, "longest_wait %g: expected seconds, more than 0", o->longest_wait);
    return err->status;
}

/* Fills in the defaults, the same on all ranks. Collective. */
static qwen3_status apply_options(qwen3_scheduler *s, qwen3_error *err)
{
    qwen3_scheduler_options *o = &s->options;
    qwen3_model *m = s->model;
    if (o->max_tokens == 0)
        o->max_tokens = m->config.max_positions;
    if (o->step_tokens == 0)
        o->step_tokens = o->max_running > DEFAULT_STEP_TOKENS ? o->max_running : DEFAULT_STEP_TOKENS;
    if (o->n_tokens == 0)
        o->n_tokens = (int32_t)m->config.vocab_size;
    const int64_t least = pages_of_sequence(m, o->max_tokens), memory = o->kv_pages == 0 ? pages_of_memory(m) : least;
    if (o->kv_pages == 0)
        o->kv_pages = memory > least ? memory : least;
    if (o->kv_pages < least)
        fail(err, QWEN3_ERR_ARGUMENT, "kv_pages %lld: expected at least %lld for a request of max_tokens, %lld",
             (long long)o->kv_pages, (long long)least, (long long)o->max_tokens);
    o->session.max_sequences = s->n_sequences = o->max_running + o->max_cached;
    o->session.max_tokens = o->max_tokens;
    o->session.kv_pages = o->kv_pages;
    s->mask_words = ((size_t)o->n_tokens + 63) / 64;
    return err->status;
}

/* ---- Opening and closing ----------------------------------------------------------------------- */

static void *table(size_t n, size_t size, qwen3_error *err)
{
    void *p = calloc(n, size);
    if (!p)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a table of the scheduler");
    return p;
}

static qwen3_status open_lines(qwen3_scheduler *s, qwen3_error *err)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    const bool ok = pthread_mutex_init(&s->mutex, NULL) == 0 && pthread_cond_init(&s->wakes, &attributes) == 0;
    pthread_condattr_destroy(&attributes);
    s->incoming_end = &s->incoming;
    return ok ? QWEN3_OK : fail(err, QWEN3_ERR_MEMORY, "no memory for a lock");
}

static qwen3_status open_tables(qwen3_scheduler *s, qwen3_error *err)
{
    const size_t rows = (size_t)s->options.step_tokens, running = (size_t)s->options.max_running;
    s->samplers = table((size_t)s->n_sequences, sizeof(qwen3_sampler *), err);
    s->choices = table(rows, sizeof *s->choices, err);
    s->taken = table(rows, sizeof *s->taken, err);
    s->logprobs = table(rows, sizeof *s->logprobs, err);
    s->again = table(running, sizeof *s->again, err);
    s->held = table((size_t)s->n_sequences, sizeof *s->held, err);
    s->batch_tokens = table(rows, sizeof *s->batch_tokens, err);
    s->batch_sequences = table(rows, sizeof *s->batch_sequences, err);
    s->batch_logits = table(rows, sizeof *s->batch_logits, err);
    s->planned = table(rows, sizeof *s->planned, err);
    return orders_open(&s->orders, err) ? err->status : open_lines(s, err);
}

qwen3_status qwen3_scheduler_open(qwen3_model *model, const qwen3_scheduler_options *options,
                                  qwen3_scheduler **scheduler, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (!missing(scheduler, "scheduler", err))
        *scheduler = NULL;
    if (missing(model, "model", err))
        return err->status;
    qwen3_scheduler *s = calloc(1, sizeof *s);
    qwen3_scheduler_options o = options ? *options : qwen3_scheduler_options_default();
    if (s) {
        s->model = model_share(model);
        s->world = model->world;
        s->rank = comm_rank(s->world);
        check_options(&o, &model->config, err);
    } else {
        fail(err, QWEN3_ERR_MEMORY, "no memory for a scheduler");
    }
    qwen3_status status = qwen3_comm_agree(model->world, err);
    if (!status) {
        qwen3_comm_broadcast(model->world, &o, sizeof o);
        s->options = o;
    }
    if (!status && !apply_options(s, err))
        open_tables(s, err);
    if (!status)
        status = qwen3_comm_agree(model->world, err);
    if (!status)
        status = qwen3_session_open(model, &s->options.session, &s->session, err);
    if (status) {
        if (s)
            s->ended = true; /* nobody follows */
        qwen3_scheduler_close(s);
        return status;
    }
    s->stats.kv_pages = s->options.kv_pages;
    *scheduler = s;
    return QWEN3_OK;
}

static void answers_free(qwen3_scheduler *s, answer *first)
{
    for (answer *next; first; first = next) {
        next = first->next;
        answer_free(s, first);
    }
}

static void drop_requests(qwen3_scheduler *s)
{
    answers_free(s, s->incoming);
    plan_close(s);
}

void qwen3_scheduler_close(qwen3_scheduler *s)
{
    if (!s)
        return;
    qwen3_error ignored = {0};
    if (!s->ended && s->rank == 0) {
        orders_clear(&s->orders);
        orders_add(&s->orders, ORDER_END, 0, 0, 0);
        orders_share(&s->orders, s->world, &ignored);
    } else if (!s->ended) {
        qwen3_scheduler_follow(s, &ignored);
    }
    if (s->held)
        drop_requests(s);
    for (int i = 0; s->samplers && i < s->n_sequences; i++)
        qwen3_sampler_close(s->samplers[i]);
    if (s->incoming_end) {
        pthread_mutex_destroy(&s->mutex);
        pthread_cond_destroy(&s->wakes);
    }
    orders_free(&s->orders);
    free(s->samplers);
    free(s->choices);
    free(s->taken);
    free(s->logprobs);
    free(s->again);
    free(s->masks);
    free(s->held);
    free(s->batch_tokens);
    free(s->batch_sequences);
    free(s->batch_logits);
    free(s->planned);
    free(s->embeddings);
    qwen3_session_close(s->session);
    qwen3_model_close(s->model);
    free(s);
}

/* ---- Requests ---------------------------------------------------------------------------------- */

static qwen3_status check_request(const qwen3_scheduler *s, const qwen3_scheduler_request *r, qwen3_error *err)
{
    const qwen3_scheduler_options *o = &s->options;
    const int64_t vocabulary = s->model->config.vocab_size, most = o->max_tokens - !r->embedding;
    if (missing(r->prompt, "prompt", err) || missing((const void *)(uintptr_t)r->event, "event", err))
        return err->status;
    if (r->n_prompt < 1 || r->n_prompt > (size_t)most)
        return fail(err, QWEN3_ERR_ARGUMENT, "the prompt has %zu tokens; expected 1..%lld", r->n_prompt,
                    (long long)most);
    for (size_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= vocabulary)
            return fail(err, QWEN3_ERR_ARGUMENT, "token %zu of the prompt: id %d is not in 0..%lld, the vocabulary", i,
                        r->prompt[i], (long long)vocabulary - 1);
    if (r->embedding)
        return QWEN3_OK;
    if (s->model->config.no_output_head)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "no answers: the model has no output head");
    if (r->max_tokens < 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "max_tokens %lld: expected a positive number, or 0 for all that fit",
                    (long long)r->max_tokens);
    if (check_range("n", r->n, 0, o->max_waiting, err) ||
        check_range("top_logprobs", r->top_logprobs, 0, QWEN3_MAX_TOP_LOGPROBS, err))
        return err->status;
    if (r->n_stop_tokens > 0 && missing(r->stop_tokens, "stop_tokens", err))
        return err->status;
    if (r->filter && (!r->filter->allows || !r->filter->mask || !r->filter->accept))
        return fail(err, QWEN3_ERR_ARGUMENT, "filter: a function is NULL; expected all three");
    qwen3_sampler *sampler; /* checks its options */
    if (!qwen3_sampler_open(&s->model->config, o->n_tokens, &r->sampling, &sampler, err))
        qwen3_sampler_close(sampler);
    return err->status;
}

static void *copy(const void *from, size_t n, size_t size, bool *ok)
{
    if (n == 0)
        return NULL;
    void *p = n <= SIZE_MAX / size ? malloc(n * size) : NULL;
    *ok &= p != NULL;
    return p ? memcpy(p, from, n * size) : NULL;
}

static void request_free(request *r)
{
    free((void *)r->given.sampling.bias);
    free((void *)r->given.stop_tokens);
    free(r);
}

static request *request_new(const qwen3_scheduler_request *given)
{
    request *r = calloc(1, sizeof *r);
    bool ok = r != NULL;
    if (!r)
        return NULL;
    r->given = *given;
    r->given.prompt = NULL; /* answers have it */
    r->given.n = given->embedding || given->n == 0 ? 1 : given->n;
    if (given->filter)
        r->filter = *given->filter;
    r->given.filter = given->filter && !given->embedding ? &r->filter : NULL;
    r->given.sampling.bias = copy(given->sampling.bias, given->sampling.n_bias, sizeof(qwen3_logit_bias), &ok);
    r->given.stop_tokens = copy(given->stop_tokens, given->n_stop_tokens, sizeof(int32_t), &ok);
    if (ok)
        return r;
    request_free(r);
    return NULL;
}

void answer_free(qwen3_scheduler *s, answer *a)
{
    request *r = a->request;
    free(a->tokens);
    free(a);
    if (--r->unfinished > 0)
        return;
    pthread_mutex_lock(&s->mutex);
    request **at = &s->requests;
    while (*at && *at != r)
        at = &(*at)->next;
    if (*at)
        *at = r->next;
    pthread_mutex_unlock(&s->mutex);
    request_free(r);
}

static answer *answer_new(request *r, int index, const qwen3_scheduler_request *given, int64_t most)
{
    answer *a = calloc(1, sizeof *a);
    bool ok = a != NULL;
    if (!a)
        return NULL;
    const int64_t n = (int64_t)given->n_prompt, fit = most - n;
    a->tokens = copy(given->prompt, given->n_prompt, sizeof *a->tokens, &ok);
    a->n_prompt = a->n_tokens = a->room = n;
    a->most = n + (given->max_tokens > 0 && given->max_tokens < fit ? given->max_tokens : fit);
    a->request = r;
    a->index = index;
    a->sequence = -1;
    a->draft_rate = DRAFT_RATE;
    if (ok)
        return a;
    free(a);
    return NULL;
}

/* The answers of a request as a list, none of them in a line yet; *end is the end of it. NULL where memory is short. */
static answer *answers_new(qwen3_scheduler *s, const qwen3_scheduler_request *given, answer ***end)
{
    answer *first = NULL;
    request *r = request_new(given);
    if (!r)
        return NULL;
    r->unfinished = 1; /* this function */
    for (int i = 0; i < r->given.n; i++) {
        answer *a = answer_new(r, r->given.n - 1 - i, given, s->options.max_tokens);
        if (!a)
            break;
        r->unfinished++;
        if (!first)
            *end = &a->next;
        a->next = first;
        first = a;
    }
    if (--r->unfinished == r->given.n)
        return first;
    if (first)
        answers_free(s, first);
    else
        request_free(r);
    return NULL;
}

static bool line_has_room(const qwen3_scheduler *s, int n)
{
    return s->n_waiting + n <= s->options.max_waiting;
}

qwen3_status qwen3_scheduler_submit(qwen3_scheduler *s, const qwen3_scheduler_request *given, uint64_t *id,
                                    qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "scheduler", err) || missing(given, "request", err) || missing(id, "id", err))
        return err->status;
    *id = 0;
    if (s->rank != 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "a request on rank %d; expected it on rank 0", s->rank);
    if (check_request(s, given, err))
        return err->status;
    answer **end, *first = answers_new(s, given, &end);
    if (!first)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a request of %zu tokens", given->n_prompt);
    request *r = first->request;
    const int n = r->given.n;
    pthread_mutex_lock(&s->mutex);
    const bool taken = line_has_room(s, n);
    if (taken) {
        *id = r->id = ++s->last_id;
        r->next = s->requests;
        s->requests = r;
        *s->incoming_end = first;
        s->incoming_end = end;
        s->n_waiting += n;
        s->stats.accepted++;
        pthread_cond_signal(&s->wakes);
    } else {
        s->stats.refused++;
    }
    pthread_mutex_unlock(&s->mutex);
    if (taken)
        return QWEN3_OK;
    answers_free(s, first);
    return fail(err, QWEN3_ERR_CAPACITY, "the waiting line of %d answers is full; try again later",
                s->options.max_waiting);
}

void qwen3_scheduler_cancel(qwen3_scheduler *s, uint64_t id)
{
    if (!s || s->rank != 0)
        return;
    pthread_mutex_lock(&s->mutex);
    for (request *r = s->requests; r; r = r->next)
        if (r->id == id) {
            r->cancelled = true;
            s->to_cancel = true;
            pthread_cond_signal(&s->wakes);
        }
    pthread_mutex_unlock(&s->mutex);
}

/* ---- Waiting, statistics ----------------------------------------------------------------------- */

bool qwen3_scheduler_wait(qwen3_scheduler *s, double seconds)
{
    if (!s || s->rank != 0 || !(seconds >= 0))
        return false;
    struct timespec until;
    const bool forever = seconds > LONGEST_SLEEP;
    const double whole = forever ? 0 : floor(seconds);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)whole;
    until.tv_nsec += forever ? 0 : (long)((seconds - whole) * 1e9);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&s->mutex);
    int ended = 0;
    while (!s->woken && s->n_waiting + s->n_running == 0 && ended != ETIMEDOUT)
        ended =
            forever ? pthread_cond_wait(&s->wakes, &s->mutex) : pthread_cond_timedwait(&s->wakes, &s->mutex, &until);
    s->woken = false;
    const bool ready = s->n_waiting + s->n_running > 0;
    pthread_mutex_unlock(&s->mutex);
    return ready;
}

void qwen3_scheduler_wake(qwen3_scheduler *s)
{
    if (!s || s->rank != 0)
        return;
    pthread_mutex_lock(&s->mutex);
    s->woken = true;
    pthread_cond_signal(&s->wakes);
    pthread_mutex_unlock(&s->mutex);
}

void qwen3_scheduler_get_stats(qwen3_scheduler *s, qwen3_scheduler_stats *stats)
{
    if (!stats)
        return;
    *stats = (qwen3_scheduler_stats){0};
    if (!s || s->rank != 0)
        return;
    pthread_mutex_lock(&s->mutex);
    *stats = s->stats;
    stats->running = s->n_running;
    stats->waiting = s->n_waiting;
    pthread_mutex_unlock(&s->mutex);
}

/* ---- Steps ------------------------------------------------------------------------------------- */

/* What has changed since the last one. */
static void update_stats(qwen3_scheduler *s)
{
    qwen3_session_info info;
    int cached = 0;
    qwen3_session_get_info(s->session, &info);
    for (int i = 0; i < s->n_sequences; i++)
        cached += !s->held[i].answer && s->held[i].length > 0;
    pthread_mutex_lock(&s->mutex);
    s->stats.cached = cached;
    s->stats.kv_pages_used = info.kv_pages_used;
    pthread_mutex_unlock(&s->mutex);
}

/* One forward pass, with room made where pages or memory ran out. */
static qwen3_status compute(qwen3_scheduler *s, qwen3_error *err)
{
    while (plan_step(s)) {
        qwen3_status status = run_orders(s, err);
        plan_done(s);
        if (!status) {
            const double seconds = seconds_now() - s->step_begin;
            plan_measure(s, seconds);
            events_of_step(s);
            return QWEN3_OK;
        }
        if (!s->no_room)
            return status;
        if (!plan_make_room(s))
            for (int i = 0; i < s->n_sequences; i++)
                if (s->held[i].answer)
                    events_error(s, s->held[i].answer, err);
        error_clear(err);
    }
    return QWEN3_OK;
}

static void fail_job(qwen3_scheduler *s, const qwen3_error *err)
{
    s->failure = *err;
    s->ended = true;
}

qwen3_status qwen3_scheduler_step(qwen3_scheduler *s, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "scheduler", err))
        return err->status;
    if (s->rank != 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "a step on rank %d; expected qwen3_scheduler_follow there", s->rank);
    if (s->failure.status) {
        *err = s->failure;
        return err->status;
    }
    if (plan_take_in(s))
        events_cancelled(s);
    if (compute(s, err))
        fail_job(s, err);
    update_stats(s);
    return err->status;
}

qwen3_status qwen3_scheduler_follow(qwen3_scheduler *s, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "scheduler", err))
        return err->status;
    while (s->rank != 0 && !s->ended) {
        run_orders(s, err);
        if (s->no_room)
            error_clear(err);
        else if (err->status)
            fail_job(s, err);
    }
    *err = s->failure;
    return err->status;
}
