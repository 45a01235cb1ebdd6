/* scheduler_plan.c - what rank 0 decides before a step.
 *
 * Waiting answers of different clients take turns. One begins when an answer less than max_running runs and its prompt
 * fits: pages for it, and one more for every running answer, must be free or become free by forgetting prefixes. It
 * begins with the longest prefix that any sequence holds, in a fork of it. If an answer that runs is about to compute a
 * longer one, it waits for that, so that what many requests have in common is computed once. Pages that an answer will
 * need later are not reserved. Where they run out, the answer that began last goes back to the front of its line, with
 * the tokens that it has, and goes on as if nothing had happened when it begins again.
 *
 * A step has one token of each answer that decodes, and as many of the prompts as step_tokens has room for. If answers
 * decode, fewer: so many that by the times of earlier steps it takes no longer than longest_wait. Prompts that are
 * computed at the same time share these tokens equally. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/scheduler.h"

/* A prefix of fewer tokens is not worth a fork, nor is it worth waiting for so few more. */
enum { LEAST_PREFIX = 16 };

/* Tokens of prompts beside decoding answers: before it is known how long they take, and at least. A step of a few more
 * rows takes hardly longer: it reads the same weights. */
enum { FIRST_CHUNK = 32, LEAST_CHUNK = 16 };

/* Of longest_wait, for steps that take longer than expected. */
#define MARGIN 0.8

/* How much a new measurement counts. The time of a token grows with the positions before it: a longer one soon. */
#define WEIGHT_LONGER 0.7
#define WEIGHT_SHORTER 0.2

/* ---- Lines ------------------------------------------------------------------------------------- */

static client_line *line_of(qwen3_scheduler *s, uint64_t client)
{
    for (client_line *l = s->lines; l; l = l->next)
        if (l->client == client)
            return l;
    client_line *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    *l = (client_line){.next = s->lines, .client = client, .last = &l->first, .turn = ++s->turn};
    s->lines = l;
    return l;
}

/* Removes the first answer, and the line if it was the last. */
static void line_pop(qwen3_scheduler *s, client_line *l)
{
    l->first = l->first->next;
    l->turn = ++s->turn;
    if (l->first)
        return;
    client_line **at = &s->lines;
    while (*at != l)
        at = &(*at)->next;
    *at = l->next;
    free(l);
}

static void fail_answer(qwen3_scheduler *s, answer *a, const char *what)
{
    qwen3_error err = {0};
    fail(&err, QWEN3_ERR_MEMORY, "no memory for %s", what);
    events_error(s, a, &err);
}

bool plan_take_in(qwen3_scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    const bool cancelled = s->to_cancel;
    answer *a = s->incoming, *next;
    s->to_cancel = false;
    s->incoming = NULL;
    s->incoming_end = &s->incoming;
    pthread_mutex_unlock(&s->mutex);
    for (; a; a = next) {
        client_line *l = line_of(s, a->request->given.client);
        next = a->next;
        a->next = NULL;
        if (!l) {
            fail_answer(s, a, "a waiting line");
            continue;
        }
        *l->last = a;
        l->last = &a->next;
    }
    return cancelled;
}

/* Removes an answer of a cancelled request, if there is one. */
static answer *take_cancelled(qwen3_scheduler *s)
{
    for (client_line *l = s->lines; l; l = l->next)
        for (answer **at = &l->first; *at; at = &(*at)->next) {
            answer *a = *at;
            if (!a->request->cancelled)
                continue;
            if (a == l->first) {
                line_pop(s, l);
                return a;
            }
            *at = a->next;
            if (!a->next)
                l->last = at;
            return a;
        }
    return NULL;
}

answer *plan_cancelled(qwen3_scheduler *s)
{
    answer *a = take_cancelled(s);
    for (int i = 0; i < s->n_sequences && !a; i++)
        if (s->held[i].answer && s->held[i].answer->request->cancelled)
            a = s->held[i].answer;
    return a;
}

/* ---- Sequences --------------------------------------------------------------------------------- */

static bool is_cached(const held_sequence *h)
{
    return !h->answer && h->length > 0;
}

static const int32_t *tokens_of(const held_sequence *h)
{
    return h->answer ? h->answer->tokens : h->tokens;
}

static void forget(qwen3_scheduler *s, int sequence)
{
    held_sequence *h = &s->held[sequence];
    free(h->tokens);
    *h = (held_sequence){0};
    orders_add(&s->orders, ORDER_RESET, sequence, 0, 0);
    qwen3_session_reset(s->session, sequence, NULL); /* now: pages are counted while a step is planned */
}

/* The prefix that was used longest ago and is not about to be forked, except `but`; -1: there is none. */
static int oldest_prefix(const qwen3_scheduler *s, int but)
{
    int oldest = -1;
    for (int i = 0; i < s->n_sequences; i++)
        if (i != but && is_cached(&s->held[i]) && s->held[i].pinned != s->plan &&
            (oldest < 0 || s->held[i].used < s->held[oldest].used))
            oldest = i;
    return oldest;
}

static int64_t common_prefix(const int32_t *a, const int32_t *b, int64_t n)
{
    int64_t i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* Where an answer can begin. */
typedef struct beginning {
    int source;     /* sequence; -1: none */
    int64_t length; /* tokens that it has in common */
    bool coming;    /* a longer one is being computed */
} beginning;

static beginning find_beginning(const qwen3_scheduler *s, const answer *a)
{
    beginning best = {.source = -1};
    int64_t coming = 0;
    for (int i = 0; i < s->n_sequences; i++) {
        const held_sequence *h = &s->held[i];
        const int64_t most = a->n_tokens - 1; /* the last token is computed: its logits are wanted */
        if (h->length == 0 && !h->answer)
            continue;
        const int64_t there = h->answer ? h->answer->n_tokens : h->length;
        const int64_t n = common_prefix(tokens_of(h), a->tokens, there < most ? there : most);
        const int64_t held = n < h->length ? n : h->length;
        if (held > best.length) {
            best.length = held;
            best.source = i;
        }
        if (n > coming)
            coming = n;
    }
    best.coming = coming >= best.length + LEAST_PREFIX;
    if (best.length < LEAST_PREFIX)
        return (beginning){.source = -1, .coming = best.coming};
    return best;
}

void plan_release(qwen3_scheduler *s, answer *a)
{
    const int sequence = a->sequence;
    held_sequence *h = &s->held[sequence];
    h->answer = NULL;
    h->tokens = a->tokens;
    h->length = h->length < a->n_tokens ? h->length : a->n_tokens; /* guesses after its end */
    h->used = s->plan;
    a->tokens = NULL;
    a->sequence = -1;
    s->crowded = false;
    orders_add(&s->orders, ORDER_CLOSE, sequence, 0, 0);
    if (h->length < LEAST_PREFIX || s->options.max_cached == 0) {
        forget(s, sequence);
        return;
    }
    int cached = 0;
    for (int i = 0; i < s->n_sequences; i++) {
        held_sequence *other = &s->held[i];
        /* One that this one begins with is of no more use. */
        if (i != sequence && is_cached(other) && other->length <= h->length &&
            common_prefix(other->tokens, h->tokens, other->length) == other->length)
            forget(s, i);
        cached += is_cached(other);
    }
    if (cached > s->options.max_cached)
        forget(s, oldest_prefix(s, sequence));
}

/* ---- Beginning --------------------------------------------------------------------------------- */

/* Pages that so many more tokens of a sequence may need here. */
static int64_t pages_for_more(const qwen3_scheduler *s, int64_t tokens)
{
    return tokens / (QWEN3_KV_PAGE * (int64_t)s->model->place.s_groups) + 2;
}

/* Whether there are pages for the rest of the prompts that run and of this one; prefixes are forgotten for it, but not
 * the one it begins with. What runs alone always has room. */
static bool make_room_for(qwen3_scheduler *s, const answer *a, const beginning *b)
{
    int64_t need = pages_for_more(s, a->n_tokens - b->length);
    bool alone = true;
    for (int i = 0; i < s->n_sequences; i++)
        if (s->held[i].answer) {
            need += pages_for_more(s, s->held[i].answer->n_tokens - s->held[i].length) - 1;
            alone = false;
        }
    for (;;) {
        qwen3_session_info info;
        qwen3_session_get_info(s->session, &info);
        if (info.kv_pages - info.kv_pages_used >= need)
            return true;
        const int oldest = oldest_prefix(s, b->source);
        if (oldest < 0)
            return alone;
        forget(s, oldest);
    }
}

/* A free sequence: there are max_running and max_cached of them, and fewer than max_running run. */
static int free_sequence(const qwen3_scheduler *s)
{
    int i = 0;
    while (s->held[i].answer || s->held[i].length > 0)
        i++;
    return i;
}

/* The sampler of an answer on all ranks, with its history. */
static void order_sampler(qwen3_scheduler *s, const answer *a)
{
    const request *r = a->request;
    qwen3_sampling_options o = r->given.sampling;
    const int64_t generated = a->n_tokens - a->n_prompt;
    o.seed += (uint64_t)a->index;
    orders_add(&s->orders, ORDER_OPEN, a->sequence, a->n_tokens, generated);
    orders_put(&s->orders, &o, sizeof o);
    orders_put(&s->orders, o.bias, o.n_bias * sizeof *o.bias);
    orders_put(&s->orders, a->tokens, (size_t)a->n_tokens * sizeof *a->tokens);
}

static void begin_answer(qwen3_scheduler *s, answer *a, const beginning *b, int sequence)
{
    held_sequence *h = &s->held[sequence];
    *h = (held_sequence){.answer = a, .used = s->plan};
    a->sequence = sequence;
    a->next = NULL;
    if (b->source >= 0) {
        s->held[b->source].used = s->held[b->source].pinned = s->plan;
        orders_add(&s->orders, ORDER_FORK, b->source, sequence, b->length);
        h->length = b->length;
    }
    if (!a->request->given.embedding)
        order_sampler(s, a);
    pthread_mutex_lock(&s->mutex);
    s->n_waiting--;
    s->n_running++;
    if (a->begun == 0) {
        a->cached = b->length;
        s->stats.prompt_tokens += (uint64_t)a->n_prompt;
        s->stats.cached_tokens += (uint64_t)a->cached;
    }
    pthread_mutex_unlock(&s->mutex);
    a->begun = ++s->admissions;
}

/* The line whose turn it is among those with a later turn than `after`. */
static client_line *next_line(const qwen3_scheduler *s, uint64_t after)
{
    client_line *next = NULL;
    for (client_line *l = s->lines; l; l = l->next)
        if (l->turn > after && (!next || l->turn < next->turn))
            next = l;
    return next;
}

static void admit(qwen3_scheduler *s)
{
    uint64_t after = 0;
    for (client_line *l; s->n_running < s->options.max_running && (l = next_line(s, after));) {
        answer *a = l->first;
        const beginning b = find_beginning(s, a);
        if (b.coming) { /* others need not wait for it */
            after = l->turn;
            continue;
        }
        if ((s->crowded && s->n_running > 0) || !make_room_for(s, a, &b))
            return;
        line_pop(s, l);
        begin_answer(s, a, &b, free_sequence(s));
    }
}

/* ---- A step ------------------------------------------------------------------------------------ */

/* Tokens of an answer that are not computed yet. */
static int64_t left_of(const held_sequence *h)
{
    return h->answer->n_tokens - h->length;
}

/* Of the row of logits that comes next. */
static void add_choice(qwen3_scheduler *s, const answer *a, int64_t ahead)
{
    const qwen3_scheduler_request *r = &a->request->given;
    planned_choice *c = &s->planned[s->n_batch_choices++];
    c->sequence = a->sequence;
    c->row = (int32_t)s->n_rows++;
    c->logprobs = r->top_logprobs > 0 ? r->top_logprobs : r->logprobs ? 0 : -1;
    c->ahead = (int32_t)ahead;
    s->filtered |= r->filter != NULL;
}

static void add_tokens(qwen3_scheduler *s, held_sequence *h, int64_t n)
{
    answer *a = h->answer;
    for (int64_t i = 0; i < n; i++) {
        s->batch_tokens[s->n_batch] = a->tokens[h->length + i];
        s->batch_sequences[s->n_batch] = a->sequence;
        s->batch_logits[s->n_batch++] = h->length + i + 1 == a->n_tokens;
    }
    a->step_rows = n;
    h->used = s->plan;
    if (n < left_of(h))
        return;
    if (a->request->given.embedding) {
        s->wants_embedding = true;
        s->n_rows++;
    } else {
        add_choice(s, a, 0);
    }
}

/* Guesses after the last token of an answer, which has been added. */
static void add_drafts(qwen3_scheduler *s, answer *a)
{
    const int32_t *tokens;
    const int64_t room = s->options.step_tokens - s->options.max_running - s->step_drafts;
    const int64_t found = draft_tokens(s, a, &tokens), n = found < room ? found : room;
    for (int64_t i = 0; i < n; i++) {
        s->batch_tokens[s->n_batch] = tokens[i];
        s->batch_sequences[s->n_batch] = a->sequence;
        s->batch_logits[s->n_batch++] = 1;
        add_choice(s, a, i + 1);
        a->step_rows++;
        s->step_drafts++;
    }
}

/* Tokens of prompts that a step may have beside n that are decoded. */
static int64_t prompt_tokens(const qwen3_scheduler *s, int64_t n)
{
    const int64_t room = s->options.step_tokens - n;
    if (n == 0 || room < 1)
        return room;
    double most = FIRST_CHUNK;
    if (s->times.token > 0)
        most = (s->options.longest_wait * MARGIN - s->times.decode) / s->times.token;
    most = most < LEAST_CHUNK ? LEAST_CHUNK : most;
    return most < (double)room ? (int64_t)most : room;
}

/* The running answer whose prompt is not computed, and that began first after `begun`; NULL: there is none. */
static held_sequence *next_prompt(const qwen3_scheduler *s, uint64_t begun)
{
    held_sequence *next = NULL;
    for (int i = 0; i < s->n_sequences; i++) {
        held_sequence *h = &s->held[i];
        if (h->answer && left_of(h) > 1 && h->answer->begun > begun &&
            (!next || h->answer->begun < next->answer->begun))
            next = h;
    }
    return next;
}

static void put_step_together(qwen3_scheduler *s)
{
    int64_t prompts = 0, decodes = 0;
    s->step_drafts = 0;
    s->n_batch = s->n_batch_choices = s->n_rows = 0;
    s->wants_embedding = s->filtered = false;
    for (int i = 0; i < s->n_sequences; i++) {
        held_sequence *h = &s->held[i];
        if (!h->answer)
            continue;
        h->answer->step_rows = 0;
        prompts += left_of(h) > 1;
        if (left_of(h) == 1) {
            add_tokens(s, h, 1);
            decodes++;
            if (s->options.draft_tokens > 0)
                add_drafts(s, h->answer);
        }
    }
    int64_t left = prompts > 0 ? prompt_tokens(s, decodes + s->step_drafts) : 0;
    s->step_decodes = decodes;
    s->step_prompt_tokens = 0;
    uint64_t begun = 0;
    for (held_sequence *h; left > 0 && (h = next_prompt(s, begun)); prompts--) {
        const int64_t share = (left + prompts - 1) / prompts, n = left_of(h) < share ? left_of(h) : share;
        begun = h->answer->begun;
        add_tokens(s, h, n);
        left -= n;
        s->step_prompt_tokens += n;
    }
}

bool plan_step(qwen3_scheduler *s)
{
    s->plan++;
    s->step_begin = seconds_now();
    admit(s);
    put_step_together(s);
    if (s->n_batch == 0)
        return false;
    orders_add(&s->orders, ORDER_FORWARD, (int64_t)s->n_batch, (int64_t)s->n_batch_choices, s->filtered);
    orders_put(&s->orders, s->batch_tokens, s->n_batch * sizeof *s->batch_tokens);
    orders_put(&s->orders, s->batch_sequences, s->n_batch * sizeof *s->batch_sequences);
    orders_put(&s->orders, s->batch_logits, s->n_batch * sizeof *s->batch_logits);
    orders_put(&s->orders, s->planned, s->n_batch_choices * sizeof *s->planned);
    return true;
}

void plan_done(qwen3_scheduler *s)
{
    s->plan++; /* nothing is pinned: forks have been made */
}

static void learn(double *known, double measured)
{
    const double weight = *known == 0 ? 1 : measured > *known ? WEIGHT_LONGER : WEIGHT_SHORTER;
    if (measured > 0)
        *known += weight * (measured - *known);
}

void plan_measure(qwen3_scheduler *s, double seconds)
{
    step_times *t = &s->times;
    const int64_t prompts = s->step_prompt_tokens;
    if (prompts == 0 && s->step_drafts == 0)
        learn(&t->decode, seconds);
    else if (prompts == 0 && t->decode > 0)
        learn(&t->draft, (seconds > t->decode ? seconds - t->decode : 0.01 * t->decode) / (double)s->step_drafts);
    else if (prompts > 0 && s->step_decodes > 0) /* in long steps alone a token takes less */
        learn(&t->token, (seconds > t->decode ? seconds - t->decode : 0.01 * t->decode) / (double)prompts);
    pthread_mutex_lock(&s->mutex);
    s->stats.steps++;
    s->stats.step_seconds += seconds;
    s->stats.last_step = seconds;
    pthread_mutex_unlock(&s->mutex);
}

/* ---- Want of pages ----------------------------------------------------------------------------- */

/* Back to the front of its line, with the tokens that it has. */
static void postpone(qwen3_scheduler *s, answer *a)
{
    client_line *l = line_of(s, a->request->given.client);
    if (!l) {
        fail_answer(s, a, "a waiting line");
        return;
    }
    orders_add(&s->orders, ORDER_CLOSE, a->sequence, 0, 0);
    s->held[a->sequence].answer = NULL;
    forget(s, a->sequence);
    a->sequence = -1;
    a->next = l->first;
    if (!l->first)
        l->last = &a->next;
    l->first = a;
    s->crowded = true;
    pthread_mutex_lock(&s->mutex);
    s->n_running--;
    s->n_waiting++;
    s->stats.postponed++;
    pthread_mutex_unlock(&s->mutex);
}

bool plan_make_room(qwen3_scheduler *s)
{
    answer *youngest = NULL;
    const int oldest = oldest_prefix(s, -1);
    if (oldest >= 0) {
        forget(s, oldest);
        return true;
    }
    for (int i = 0; i < s->n_sequences; i++) {
        answer *a = s->held[i].answer;
        if (a && (!youngest || a->begun > youngest->begun))
            youngest = a;
    }
    if (s->n_running < 2)
        return false;
    postpone(s, youngest);
    return true;
}

void plan_close(qwen3_scheduler *s)
{
    while (s->lines) {
        answer *a = s->lines->first;
        line_pop(s, s->lines);
        answer_free(s, a);
    }
    for (int i = 0; i < s->n_sequences; i++) {
        if (s->held[i].answer)
            answer_free(s, s->held[i].answer);
        free(s->held[i].tokens);
    }
}
