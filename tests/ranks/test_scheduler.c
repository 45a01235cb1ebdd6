/* test_scheduler.c - requests to a scheduler on any number of ranks: every answer is the one that its request gets
 * alone, from a session and a sampler, whatever runs beside it, when it came, what is cached, and whether pages ran out
 * meanwhile.
 */
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "qwen3_scheduler.h"

enum { MOST_ANSWER = 190, MOST_PROMPT = 330, REQUESTS = 24, MOST_N = 3, CONTEXT = 400, TOKENS = 500 };

/* What came of one answer. */
typedef struct record {
    int32_t tokens[MOST_ANSWER];
    float logprobs[MOST_ANSWER];
    qwen3_token_logprob top[MOST_ANSWER][QWEN3_MAX_TOP_LOGPROBS];
    int n, n_top;
    int64_t cached;
    qwen3_finish finish;
    qwen3_status status;
    int began; /* its place among the answers, by their first tokens */
    bool enough;
} record;

typedef struct asked {
    qwen3_scheduler_request request;
    int32_t prompt[MOST_PROMPT];
    qwen3_logit_bias bias[2];
    int32_t stop;
    uint64_t id;
    record records[MOST_N];
    int end_after; /* the callback ends the answer; 0: it does not */
    float *embedding;
} asked;

static int began;     /* answers */
static uint64_t kept; /* guesses, in all settings; whether they are made depends on measured times */

static bool on_event(void *context, const qwen3_scheduler_event *e)
{
    asked *a = context;
    record *r = &a->records[e->answer];
    check(e->request == a->id || a->id == 0, "request %" PRIu64 ", not %" PRIu64, e->request, a->id);
    check(!r->finish && !r->enough, "an event after the end");
    check(e->prompt_tokens == (int64_t)a->request.n_prompt, "%lld tokens of prompt", (long long)e->prompt_tokens);
    if (e->token >= 0) {
        if (r->n == 0)
            r->began = ++began;
        r->tokens[r->n] = e->token;
        r->logprobs[r->n] = e->logprob;
        r->n_top = e->n_top;
        if (e->n_top > 0)
            memcpy(r->top[r->n], e->top, (size_t)e->n_top * sizeof *e->top);
        r->n++;
    }
    check(e->generated_tokens == r->n, "%lld tokens, not %d", (long long)e->generated_tokens, r->n);
    if (e->embedding && a->embedding)
        memcpy(a->embedding, e->embedding, 64 * sizeof(float));
    r->cached = e->cached_tokens;
    r->finish = e->finish;
    r->status = e->error ? e->error->status : QWEN3_OK;
    r->enough = a->end_after > 0 && r->n >= a->end_after;
    return !r->enough;
}

/* ---- Alone ------------------------------------------------------------------------------------- */

typedef struct setting {
    qwen3_comm *world;
    qwen3_model *model;
    qwen3_session *alone; /* rank 0 of its own model: a comm of one rank */
    qwen3_model *alone_model;
    int64_t vocab;
    char label[120];
} setting;

/* Tokens of a filter: those that leave a remainder by 7, which changes with the token before. */
typedef struct remainder_filter {
    int next[MOST_N];
    int masks;
} remainder_filter;

static bool allows(void *context, int answer, int32_t token)
{
    const remainder_filter *f = context;
    return token % 7 == f->next[answer];
}

static bool mask_allowed(void *context, int answer, uint64_t *mask)
{
    remainder_filter *f = context;
    f->masks++;
    for (int32_t t = f->next[answer]; t < TOKENS; t += 7)
        mask[t / 64] |= UINT64_C(1) << t % 64;
    return true;
}

static void accept(void *context, int answer, int32_t token)
{
    remainder_filter *f = context;
    f->next[answer] = (token / 7 + 1) % 7;
}

static float logprob_of(const float *logits, int64_t vocab, int32_t token)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < vocab; i++)
        largest = logits[i] > largest ? (double)logits[i] : largest;
    for (int64_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - largest);
    return (float)((double)logits[token] - largest - log(sum));
}

/* The answer of a request alone. Filters are biases here. On rank 0. */
static void answer_alone(const setting *t, const asked *a, int index, record *r)
{
    const qwen3_scheduler_request *q = &a->request;
    static qwen3_logit_bias bias[TOKENS];
    qwen3_sampling_options sampling = q->sampling;
    qwen3_error err = {0};
    float *logits = malloc((size_t)t->vocab * sizeof *logits);
    remainder_filter filter = {.next = {0}};
    int32_t token = 0;
    sampling.seed += (uint64_t)index;
    *r = (record){.n = 0};
    qwen3_session_reset(t->alone, -1, NULL);
    const qwen3_batch prompt = {.n_tokens = q->n_prompt, .tokens = a->prompt};
    check(!qwen3_forward(t->alone, &prompt, &err), "%s", err.message);
    while (!r->finish) {
        qwen3_sampler *sampler;
        if (q->filter) {
            sampling.bias = bias;
            sampling.n_bias = TOKENS;
            for (int32_t i = 0; i < TOKENS; i++)
                bias[i] = (qwen3_logit_bias){i, i % 7 == filter.next[0] ? 0 : -INFINITY};
        }
        check(!qwen3_sampler_open(qwen3_model_config(t->alone_model), TOKENS, &sampling, &sampler, &err), "%s",
              err.message);
        qwen3_sampler_accept(sampler, a->prompt, q->n_prompt, false, NULL);
        qwen3_sampler_accept(sampler, r->tokens, (size_t)r->n, true, NULL);
        check(!qwen3_logits(t->alone, logits, &err), "%s", err.message);
        check(!qwen3_sample(t->alone, &sampler, &token, &err), "%s", err.message);
        qwen3_sampler_close(sampler);
        r->logprobs[r->n] = logprob_of(logits, t->vocab, token);
        r->tokens[r->n++] = token;
        accept(&filter, 0, token);
        if (q->n_stop_tokens > 0 && token == a->stop)
            r->finish = QWEN3_FINISH_STOP;
        else if (r->n == q->max_tokens || r->n + (int)q->n_prompt == CONTEXT)
            r->finish = QWEN3_FINISH_LENGTH;
        if (a->end_after > 0 && r->n >= a->end_after)
            break;
        const qwen3_batch next = {.n_tokens = 1, .tokens = &token};
        if (!r->finish)
            check(!qwen3_forward(t->alone, &next, &err), "%s", err.message);
    }
    free(logits);
}

static void compare(const setting *t, const asked *a, int index, bool exact)
{
    record expected;
    const record *r = &a->records[index];
    answer_alone(t, a, index, &expected);
    check(r->finish == expected.finish, "%s: finish %s, expected %s", t->label, qwen3_finish_name(r->finish),
          qwen3_finish_name(expected.finish));
    if (!exact)
        return;
    check(r->n == expected.n && memcmp(r->tokens, expected.tokens, (size_t)r->n * sizeof *r->tokens) == 0,
          "%s: %d tokens, expected %d, temperature %g", t->label, r->n, expected.n, a->request.sampling.temperature);
    for (int i = 0; i < r->n && r->n == expected.n && a->request.logprobs; i++) {
        check(fabsf(r->logprobs[i] - expected.logprobs[i]) < 1e-4f, "%s: logprob %g, expected %g", t->label,
              (double)r->logprobs[i], (double)expected.logprobs[i]);
        check(r->n_top == a->request.top_logprobs, "%s: %d alternatives", t->label, r->n_top);
        for (int k = 1; k < r->n_top; k++)
            check(r->top[i][k].logprob <= r->top[i][k - 1].logprob, "%s: not in order", t->label);
        check(r->n_top == 0 || r->top[i][0].logprob >= r->logprobs[i], "%s: not the largest", t->label);
    }
}

/* ---- Requests ---------------------------------------------------------------------------------- */

/* Prompts that begin as one of three texts do, and then differ. */
static void make_request(asked *a, int64_t vocab, uint64_t *random)
{
    static int32_t texts[3][MOST_PROMPT];
    qwen3_scheduler_request *q = &a->request;
    *a = (asked){.stop = -1};
    q->sampling = qwen3_sampling_options_default();
    const int text = (int)(check_random(random) % 3);
    if (texts[text][0] == 0)
        for (int i = 0; i < MOST_PROMPT; i++)
            texts[text][i] = 1 + (int32_t)(check_random(random) % (uint64_t)(vocab - 1));
    q->n_prompt = 1 + check_random(random) % MOST_PROMPT;
    const size_t same = check_random(random) % 4 ? q->n_prompt * (check_random(random) % 8) / 7 : 0;
    for (size_t i = 0; i < q->n_prompt; i++)
        a->prompt[i] = i < same ? texts[text][i] : (int32_t)(check_random(random) % (uint64_t)vocab);
    q->prompt = a->prompt;
    q->max_tokens = 1 + (int64_t)(check_random(random) % 50);
    q->n = (int)(check_random(random) % (MOST_N + 1));
    q->client = check_random(random) % 3;
    q->sampling.seed = check_random(random);
    switch (check_random(random) % 5) {
    case 0:
        break;
    case 1:
        q->sampling.temperature = 0.9;
        q->sampling.top_p = 0.8;
        break;
    case 2:
        q->sampling.temperature = 1.5;
        q->sampling.top_k = 20;
        q->sampling.min_p = 0.01;
        break;
    case 3:
        q->sampling.repetition_penalty = 1.3;
        q->sampling.frequency_penalty = 0.5;
        break;
    default:
        q->sampling.temperature = 1;
        a->bias[0] = (qwen3_logit_bias){3, -INFINITY};
        a->bias[1] = (qwen3_logit_bias){5, 2};
        q->sampling.bias = a->bias;
        q->sampling.n_bias = 2;
    }
    if (check_random(random) % 3 == 0) {
        a->stop = (int32_t)(check_random(random) % 8);
        q->stop_tokens = &a->stop;
        q->n_stop_tokens = 1;
        q->sampling.bias = NULL;
        q->sampling.n_bias = 0;
    }
    if (check_random(random) % 3 == 0) {
        q->logprobs = true;
        q->top_logprobs = (int)(check_random(random) % 6);
    }
    if (check_random(random) % 6 == 0)
        a->end_after = 1 + (int)(check_random(random) % 5);
    q->event = on_event;
    q->context = a;
}

static int answers_of(const asked *a)
{
    return a->request.n > 0 ? a->request.n : 1;
}

static bool submit(qwen3_scheduler *s, asked *a)
{
    qwen3_error err = {0};
    const qwen3_status status = qwen3_scheduler_submit(s, &a->request, &a->id, &err);
    check(!status || (status == QWEN3_ERR_CAPACITY && a->id == 0), "%s", err.message);
    return !status;
}

static void run_to_end(qwen3_scheduler *s)
{
    qwen3_error err = {0};
    while (qwen3_scheduler_wait(s, 0))
        if (qwen3_scheduler_step(s, &err)) {
            check(false, "%s", err.message);
            return;
        }
}

/* ---- Checks, on rank 0 ------------------------------------------------------------------------- */

static void check_many(const setting *t, qwen3_scheduler *s, bool exact, uint64_t *random)
{
    static asked all[REQUESTS];
    qwen3_scheduler_stats stats;
    qwen3_error err = {0};
    uint64_t answers = 0;
    int64_t cached = 0;
    began = 0;
    for (int i = 0; i < REQUESTS;) {
        if (check_random(random) % 2) {
            make_request(&all[i], t->vocab, random);
            if (submit(s, &all[i]))
                answers += (uint64_t)answers_of(&all[i++]);
        }
        check(!qwen3_scheduler_step(s, &err), "%s: %s", t->label, err.message);
    }
    run_to_end(s);
    for (int i = 0; i < REQUESTS; i++)
        for (int k = 0; k < answers_of(&all[i]); k++) {
            compare(t, &all[i], k, exact);
            cached += all[i].records[k].cached;
        }
    qwen3_scheduler_get_stats(s, &stats);
    check(stats.running == 0 && stats.waiting == 0, "%s: %d run, %d wait", t->label, stats.running, stats.waiting);
    check(stats.finished == answers && stats.failed == 0, "%s: %" PRIu64 " of %" PRIu64 " finished", t->label,
          stats.finished, answers);
    check(stats.cached_tokens == (uint64_t)cached && cached > 0, "%s: %lld tokens cached", t->label, (long long)cached);
    check(stats.kv_pages_used <= stats.kv_pages, "%s: %lld pages", t->label, (long long)stats.kv_pages_used);
}

/* A prefix is computed once: of requests that come together, and of those that come later. */
static void check_prefixes(const setting *t, qwen3_scheduler *s, uint64_t *random)
{
    static asked all[4];
    make_request(&all[0], t->vocab, random);
    all[0].request.n_prompt = 300;
    for (int i = 0; i < 300; i++)
        all[0].prompt[i] = (int32_t)(check_random(random) % (uint64_t)t->vocab);
    all[0].request.n = 1;
    for (int i = 1; i < 4; i++) {
        all[i] = all[0];
        all[i].request.prompt = all[i].prompt;
        all[i].request.context = &all[i];
        all[i].request.stop_tokens = NULL;
        all[i].request.n_stop_tokens = 0;
        all[i].prompt[260] ^= i;
        if (i < 3)
            submit(s, &all[i]);
    }
    run_to_end(s);
    submit(s, &all[3]);
    run_to_end(s);
    const int64_t both = all[1].records[0].cached + all[2].records[0].cached; /* a few more are not waited for */
    check(both > 260 - 16 && both <= 260, "%s: %lld tokens are cached", t->label, (long long)both);
    check(all[3].records[0].cached == 260, "%s: %lld tokens are cached", t->label, (long long)all[3].records[0].cached);
}

static void check_filter(const setting *t, qwen3_scheduler *s, bool exact, uint64_t *random)
{
    for (int i = 0; i < 4; i++) {
        static asked a;
        remainder_filter filter = {.next = {0}};
        const qwen3_token_filter f = {allows, mask_allowed, accept, &filter};
        make_request(&a, t->vocab, random);
        a.request.filter = &f;
        a.request.n = 1;
        a.end_after = 0;
        a.request.n_stop_tokens = 0;
        a.request.sampling = qwen3_sampling_options_default();
        a.request.sampling.temperature = i % 2;
        a.request.sampling.seed = check_random(random);
        a.request.sampling.presence_penalty = i / 2;
        submit(s, &a);
        a.request.filter = &f;
        run_to_end(s);
        compare(t, &a, 0, exact);
        check(filter.masks > 0 || a.records[0].n < 4, "%s: no mask was needed", t->label);
    }
}

static bool mask_nothing(void *context, int answer, uint64_t *mask)
{
    (void)context, (void)answer;
    mask[0] = 0;
    return true;
}

static bool allow_nothing(void *context, int answer, int32_t token)
{
    (void)context, (void)answer, (void)token;
    return false;
}

static void check_ends(const setting *t, qwen3_scheduler *s, uint64_t *random)
{
    static asked a, b, c;
    qwen3_scheduler_stats before, after;
    remainder_filter filter;
    const qwen3_token_filter f = {allow_nothing, mask_nothing, accept, &filter};
    qwen3_scheduler_get_stats(s, &before);
    make_request(&a, t->vocab, random);
    a.request.n = 2;
    a.request.n_stop_tokens = 0;
    a.request.max_tokens = MOST_ANSWER;
    a.end_after = 0;
    b = c = a;
    b.request.context = &b;
    c.request.context = &c;
    c.request.filter = &f;
    submit(s, &a);
    submit(s, &b);
    submit(s, &c);
    qwen3_scheduler_cancel(s, b.id); /* before it begins */
    for (int i = 0; i < 20; i++)
        check(!qwen3_scheduler_step(s, NULL), "no step");
    qwen3_scheduler_cancel(s, a.id);
    qwen3_scheduler_cancel(s, a.id + 100);
    run_to_end(s);
    qwen3_scheduler_cancel(s, a.id);
    for (int k = 0; k < 2; k++) {
        check(a.records[k].finish == QWEN3_FINISH_CANCELLED && a.records[k].n < MOST_ANSWER, "%s: %s after %d",
              t->label, qwen3_finish_name(a.records[k].finish), a.records[k].n);
        check(b.records[k].finish == QWEN3_FINISH_CANCELLED && b.records[k].n == 0, "%s: not cancelled", t->label);
        check(c.records[k].finish == QWEN3_FINISH_ERROR && c.records[k].status == QWEN3_ERR_ARGUMENT,
              "%s: a filter that allows nothing: %s", t->label, qwen3_finish_name(c.records[k].finish));
    }
    qwen3_scheduler_get_stats(s, &after);
    check(after.cancelled - before.cancelled == 4 && after.failed - before.failed == 2, "%s: wrong counts", t->label);
}

/* Answers that need more pages than there are when they have grown: some go back to the line and go on later. */
static void check_crowded(const setting *t, qwen3_scheduler *s, bool exact, uint64_t *random)
{
    static asked all[4];
    qwen3_scheduler_stats before, after;
    qwen3_scheduler_get_stats(s, &before);
    for (int i = 0; i < 4; i++) {
        make_request(&all[i], t->vocab, random);
        all[i].request.n = 1;
        all[i].request.n_prompt = 90;
        all[i].request.max_tokens = MOST_ANSWER;
        all[i].request.n_stop_tokens = 0;
        all[i].end_after = 0;
        submit(s, &all[i]);
    }
    run_to_end(s);
    for (int i = 0; i < 4; i++)
        compare(t, &all[i], 0, exact);
    qwen3_scheduler_get_stats(s, &after);
    /* In several groups the least that is allowed may have room for all. */
    check(after.postponed > before.postponed || qwen3_model_plan(t->model)->grid_sequence > 1,
          "%s: pages never ran out", t->label);
}

/* A prompt that repeats itself, and an answer that does: logits that favour few tokens. */
static void check_drafts(const setting *t, qwen3_scheduler *s, bool exact, uint64_t *random)
{
    static asked all[3];
    qwen3_scheduler_stats after;
    for (int i = 0; i < 3; i++) {
        make_request(&all[i], t->vocab, random);
        qwen3_scheduler_request *r = &all[i].request;
        r->n = 1;
        r->n_prompt = 60;
        for (int k = 0; k < 60; k++)
            all[i].prompt[k] = k % (5 + i);
        r->max_tokens = 60;
        r->sampling = qwen3_sampling_options_default();
        r->sampling.temperature = i == 2 ? 0.8 : 0;
        all[i].bias[0] = (qwen3_logit_bias){3, 30};
        all[i].bias[1] = (qwen3_logit_bias){4, i == 0 ? 20 : 30};
        r->sampling.bias = all[i].bias;
        r->sampling.n_bias = 2;
        r->logprobs = true;
        all[i].stop = 4;
        submit(s, &all[i]);
    }
    run_to_end(s);
    for (int i = 0; i < 3; i++)
        compare(t, &all[i], 0, exact);
    qwen3_scheduler_get_stats(s, &after);
    check(after.kept_tokens <= after.drafted_tokens, "%s: %" PRIu64 " of %" PRIu64 " guesses kept", t->label,
          after.kept_tokens, after.drafted_tokens);
    kept += after.kept_tokens;
}

/* One client with many requests does not keep another one waiting. */
static void check_turns(const setting *t, qwen3_scheduler *s, uint64_t *random)
{
    static asked all[10];
    began = 0;
    for (int i = 0; i < 10; i++) {
        make_request(&all[i], t->vocab, random);
        all[i].request.n = 1;
        all[i].request.client = i < 9 ? 77 : 78;
        all[i].request.max_tokens = 12;
        all[i].request.n_stop_tokens = 0;
        all[i].request.n_prompt = 5;
        all[i].end_after = 0;
        submit(s, &all[i]);
    }
    run_to_end(s);
    check(all[9].records[0].began < 6, "%s: the other client was number %d", t->label, all[9].records[0].began);
    for (int i = 1; i < 9; i++)
        check(all[i].records[0].began > all[i - 1].records[0].began, "%s: out of order", t->label);
}

/* Threads that submit and cancel while steps are computed. */
enum { THREADS = 3, EACH = 8 };

typedef struct submitter {
    pthread_t thread;
    qwen3_scheduler *scheduler;
    asked all[EACH];
    int taken;
} submitter;

static void *submit_all(void *context)
{
    submitter *t = context;
    for (int i = 0; i < EACH; i++) {
        if (qwen3_scheduler_submit(t->scheduler, &t->all[i].request, &t->all[i].id, NULL))
            continue;
        t->taken++;
        if (i % 3 == 0)
            qwen3_scheduler_cancel(t->scheduler, t->all[i].id);
    }
    qwen3_scheduler_wake(t->scheduler);
    return NULL;
}

static bool count_only(void *context, const qwen3_scheduler_event *e)
{
    *(int *)context += e->finish != QWEN3_FINISH_NONE;
    return true;
}

static void check_threads(const setting *t, qwen3_scheduler *s, uint64_t *random)
{
    static submitter threads[THREADS];
    qwen3_scheduler_stats before, after;
    int ended = 0;
    uint64_t taken = 0;
    qwen3_scheduler_get_stats(s, &before);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = (submitter){.scheduler = s};
        for (int k = 0; k < EACH; k++) {
            make_request(&threads[i].all[k], t->vocab, random);
            threads[i].all[k].request.n = 1;
            threads[i].all[k].request.event = count_only;
            threads[i].all[k].request.context = &ended;
        }
        check(pthread_create(&threads[i].thread, NULL, submit_all, &threads[i]) == 0, "no thread");
    }
    for (int i = 0; i < 10; i++) {
        qwen3_scheduler_wait(s, 0.01);
        check(!qwen3_scheduler_step(s, NULL), "%s: no step", t->label);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i].thread, NULL);
        taken += (uint64_t)threads[i].taken;
    }
    run_to_end(s);
    qwen3_scheduler_get_stats(s, &after);
    check(after.accepted - before.accepted == taken && ended == (int)taken, "%s: %d of %" PRIu64 " ended", t->label,
          ended, taken);
    check(after.refused - before.refused == THREADS * EACH - taken, "%s: refusals", t->label);
}

static void check_embedding(const setting *t, qwen3_scheduler *s, bool exact, uint64_t *random)
{
    static asked a, b;
    float got[64], expected[64];
    qwen3_error err = {0};
    make_request(&a, t->vocab, random);
    make_request(&b, t->vocab, random);
    a.request.embedding = true;
    a.embedding = got;
    submit(s, &b);
    submit(s, &a);
    run_to_end(s);
    const qwen3_batch batch = {.n_tokens = a.request.n_prompt, .tokens = a.prompt};
    qwen3_session_reset(t->alone, -1, NULL);
    check(!qwen3_forward(t->alone, &batch, &err) && !qwen3_embeddings(t->alone, 0, expected, &err), "%s", err.message);
    double difference = 0;
    for (int i = 0; i < 64; i++)
        difference += pow((double)got[i] - expected[i], 2);
    check(exact ? memcmp(got, expected, sizeof got) == 0 : difference < 1e-3, "%s: embedding differs by %g", t->label,
          difference);
    check(a.records[0].finish == QWEN3_FINISH_STOP, "%s: %s", t->label, qwen3_finish_name(a.records[0].finish));
    compare(t, &b, 0, exact);
}

/* ---- Settings ---------------------------------------------------------------------------------- */

static void check_setting(qwen3_comm *world, const qwen3_model_options *options, int64_t kv_pages, int drafts,
                          uint64_t *random)
{
    setting t = {.world = world};
    qwen3_scheduler_options scheduling = qwen3_scheduler_options_default();
    qwen3_scheduler *s = NULL;
    qwen3_error err = {0};
    const bool root = qwen3_comm_rank(world) == 0;
    snprintf(t.label, sizeof t.label, "grid %dx%d%s, %lld pages", options->grid_sequence, options->grid_heads,
             options->deterministic ? ", deterministic" : "", (long long)kv_pages);
    scheduling.max_running = 4;
    scheduling.max_waiting = 12;
    scheduling.max_cached = 3;
    scheduling.max_tokens = CONTEXT;
    scheduling.step_tokens = 70;
    scheduling.kv_pages = kv_pages;
    scheduling.draft_tokens = drafts;
    scheduling.n_tokens = TOKENS;
    check(!qwen3_model_open(world, "synthetic:tiny", options, &t.model, &err), "%s", err.message);
    check(!qwen3_scheduler_open(t.model, &scheduling, &s, &err), "%s: %s", t.label, err.message);
    if (root) {
        qwen3_model_options own = *options;
        qwen3_session_options session = qwen3_session_options_default();
        own.grid_sequence = own.grid_heads = 1;
        session.max_tokens = CONTEXT;
        check(!qwen3_model_open(qwen3_comm_self(), "synthetic:tiny", &own, &t.alone_model, &err), "%s", err.message);
        check(!qwen3_session_open(t.alone_model, &session, &t.alone, &err), "%s", err.message);
        t.vocab = qwen3_model_config(t.model)->vocab_size;
        const bool exact = options->deterministic;
        check_many(&t, s, exact, random);
        if (kv_pages == 0)
            check_prefixes(&t, s, random);
        else
            check_crowded(&t, s, exact, random);
        if (drafts > 0)
            check_drafts(&t, s, exact, random);
        check_filter(&t, s, exact, random);
        check_ends(&t, s, random);
        check_turns(&t, s, random);
        check_embedding(&t, s, exact, random);
        check_threads(&t, s, random);
    }
    check(!qwen3_scheduler_follow(s, &err), "%s: %s", t.label, err.message);
    qwen3_scheduler_close(s);
    qwen3_session_close(t.alone);
    qwen3_model_close(t.alone_model);
    qwen3_model_close(t.model);
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Ranks that have nothing to do sleep. */
static void check_idle(qwen3_comm *world)
{
    qwen3_model *model = NULL;
    qwen3_scheduler *s = NULL;
    check(!qwen3_model_open(world, "synthetic:tiny", NULL, &model, NULL), "no model");
    check(!qwen3_scheduler_open(model, NULL, &s, NULL), "no scheduler");
    const double before = cpu_seconds();
    if (qwen3_comm_rank(world) == 0)
        check(!qwen3_scheduler_wait(s, 0.5), "there is something to do");
    check(!qwen3_scheduler_follow(s, NULL), "the others do not follow");
    qwen3_scheduler_close(s);
    check(cpu_seconds() - before < 0.25, "%g seconds of CPU time", cpu_seconds() - before);
    qwen3_model_close(model);
}

int main(int argc, char **argv)
{
    uint64_t random;
    qwen3_comm *world = check_begin(argc, argv, 20261127, &random);
    const int ranks = qwen3_comm_size(world);
    check_idle(world);
    for (int heads = 1, i = 0; heads <= ranks; heads++) {
        if (ranks % heads)
            continue;
        for (int tight = 0; tight < 2; tight++, i++) {
            qwen3_model_options options = qwen3_model_options_default();
            options.strategy = QWEN3_STRATEGY_HYBRID;
            options.grid_sequence = ranks / heads;
            options.grid_heads = heads;
            options.threads = 1;
            options.deterministic = i % 3 != 2;
            const int groups = ranks / heads, least = (4 + groups - 1) / groups + 1; /* pages of a request */
            check_setting(world, &options, tight ? least : 0, i % 4 < 2 ? 5 : 0, &random);
        }
    }
    check(kept > 0 || qwen3_comm_rank(world) > 0, "no guess was right");
    return check_end(world);
}
