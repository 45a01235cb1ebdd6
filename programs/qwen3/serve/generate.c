/* generate.c - /v1/chat/completions, /v1/completions and /v1/responses. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/statistics.h"
#include "constraint.h"
#include "job.h"
#include "qwen3/prompt.h"
#include "responses.h"

typedef struct generate_job {
    job j;
    generation_request request;
    reply_head head;
    token_prompt *prompts; /* [parts] */
    const char **echoes;   /* [parts] texts of the prompts; NULL = not wanted */
    choice *choices;       /* [n_choices] */
    size_t n_choices;
    reply_usage usage;
    response response;      /* of /v1/responses */
    constraint *constraint; /* NULL = answers are free */
    qwen3_token_filter filter;
} generate_job;

static void release(job *j)
{
    generate_job *g = (generate_job *)j;
    for (size_t i = 0; i < g->n_choices; i++)
        choice_close(&g->choices[i]);
    for (size_t i = 0; g->prompts && i < j->n_parts; i++)
        free(g->prompts[i].tokens);
    free(g->choices);
    free(g->prompts);
    free(g->echoes);
    constraint_close(g->constraint);
    response_close(&g->response);
    request_free(&g->request);
}

/* ---- Prompts ------------------------------------------------------------------------------------ */

static bool chat_prompt(generate_job *g, api_error *e)
{
    qwen3_error err = {0};
    const generation_request *r = &g->request;
    json_t *conversation = json_pack("{sO,sO*}", "messages", r->messages, "tools", r->tools);
    qwen3_status status = conversation
                              ? prompt_of_conversation(g->j.s->text, conversation, r->thinking, g->prompts, &err)
                              : set_error(&err, QWEN3_ERR_MEMORY, "conversation: out of memory");
    json_decref(conversation);
    return status == QWEN3_OK || api_fail_status(e, "messages", &err);
}

static bool take_ids(const json_t *ids, token_prompt *prompt, api_error *e)
{
    size_t i;
    json_t *id;
    prompt->n = json_array_size(ids);
    if (!(prompt->tokens = calloc(prompt->n, sizeof *prompt->tokens)))
        return api_fail(e, 503, "out of memory");
    json_array_foreach(ids, i, id)
    {
        prompt->tokens[i] = (int32_t)json_integer_value(id);
    }
    return true;
}

static bool text_prompt(generate_job *g, size_t i, api_error *e)
{
    qwen3_error err = {0};
    const json_t *value = json_array_get(g->request.prompts, i);
    token_prompt *prompt = &g->prompts[i];
    if (json_is_array(value))
        return take_ids(value, prompt, e);
    const qwen3_encode_args args = {.text = json_string_value(value), .length = json_string_length(value)};
    if (g->request.echo)
        g->echoes[i] = args.text;
    if (qwen3_tokenizer_encode(g->j.s->text->tokenizer, &args, &prompt->tokens, &prompt->n, &err) != QWEN3_OK)
        return api_fail_status(e, "prompt", &err);
    return prompt->n > 0 || api_refuse(e, "prompt", "prompt: is empty");
}

/* The prompts as tokens, and room for the answer to each. */
static bool make_prompts(generate_job *g, api_error *e)
{
    const int64_t context = g->j.s->text->context;
    for (size_t i = 0; i < g->j.n_parts; i++) {
        if (!(g->request.chat ? chat_prompt(g, e) : text_prompt(g, i, e)))
            return false;
        if ((int64_t)g->prompts[i].n < context)
            continue;
        api_refuse(e,
                   g->request.response ? "input"
                   : g->request.chat   ? "messages"
                                       : "prompt",
                   "the prompt has %zu tokens, the context holds %" PRId64 " with the answer", g->prompts[i].n,
                   context);
        e->code = "context_length_exceeded";
        return false;
    }
    return true;
}

/* ---- Replies ------------------------------------------------------------------------------------ */

static const char *echo_of(const generate_job *g, const choice *c)
{
    return g->echoes ? g->echoes[c->index / g->request.n] : NULL;
}

static void stream_events(generate_job *g)
{
    size_t i;
    json_t *event, *events = response_events(&g->response);
    if (!events)
        http_stream_break(g->j.x);
    json_array_foreach(events, i, event)
    {
        job_stream(&g->j, json_incref(event), true);
    }
    json_decref(events);
}

static void stream_choice(generate_job *g, choice *c)
{
    bool failed;
    if (g->request.response) {
        stream_events(g);
        return;
    }
    json_t *chunk = reply_chunk(&g->head, c, echo_of(g, c), g->request.include_usage, &failed);
    job_stream(&g->j, chunk, failed);
}

static void end_stream(generate_job *g)
{
    if (g->request.response) {
        json_decref(response_end(&g->response, g->choices, &g->usage));
        stream_events(g);
        return;
    }
    if (g->request.include_usage)
        job_stream(&g->j, reply_usage_chunk(&g->head, &g->usage), true);
    http_stream_write(g->j.x, "data: [DONE]\n\n", strlen("data: [DONE]\n\n"));
}

static void end_response_stream(job *j, const api_error *e)
{
    generate_job *g = (generate_job *)j;
    response_fail(&g->response, e);
    stream_events(g);
}

/* All choices have ended. */
static void finish(generate_job *g)
{
    service *s = g->j.s;
    for (size_t i = 0; i < g->n_choices; i++) {
        g->usage.generated += g->choices[i].generated;
        g->usage.reasoned += g->choices[i].reasoned;
    }
    metrics_add_time(&s->metrics.whole, seconds_now() - g->j.begin);
    if (g->request.stream) {
        end_stream(g);
        http_stream_end(g->j.x);
    } else {
        service_reply(s, g->j.x, 200,
                      g->request.response ? response_end(&g->response, g->choices, &g->usage)
                                          : reply_whole(&g->head, g->choices, g->n_choices, g->echoes, &g->usage));
    }
    job_end(&g->j);
}

static bool all_finished(const generate_job *g)
{
    size_t i = 0;
    while (i < g->n_choices && g->choices[i].finish)
        i++;
    return i == g->n_choices;
}

static void take(job *j, job_part *part, engine_event *event)
{
    generate_job *g = (generate_job *)j;
    choice *c = &g->choices[part->index * (size_t)g->request.n + (size_t)event->answer];
    qwen3_error err = {0};
    api_error e = {0};
    if (c->finish) /* it ended by its text, before the scheduler knew */
        return;
    if (event->finish == QWEN3_FINISH_ERROR)
        err = event->error;
    else if (event->finish == QWEN3_FINISH_CANCELLED)
        set_error(&err, QWEN3_ERR_COMM, "the answer was cancelled");
    else
        choice_take(c, event, &err);
    if (err.status != QWEN3_OK) {
        api_fail_status(&e, NULL, &err);
        job_fail(j, &e);
        return;
    }
    if (event->answer == 0 && c->generated <= 1 && event->token >= 0)
        g->usage.cached += event->cached_tokens;
    if (g->request.response)
        response_take(&g->response, c);
    if (g->request.stream)
        stream_choice(g, c);
    if (c->finish && event->finish == QWEN3_FINISH_NONE)
        atomic_fetch_or(&part->stopped, (uint_least64_t)1 << event->answer);
    if (c->finish && all_finished(g))
        finish(g);
}

/* ---- Start -------------------------------------------------------------------------------------- */

static bool open_choices(generate_job *g, api_error *e)
{
    const size_t n = g->j.n_parts * (size_t)g->request.n;
    qwen3_error err = {0};
    g->choices = calloc(n, sizeof *g->choices);
    if (!g->choices)
        return api_fail(e, 503, "out of memory");
    for (size_t i = 0; i < n && err.status == QWEN3_OK; i++) {
        const token_prompt *prompt = &g->prompts[i / (size_t)g->request.n];
        choice_open(&g->choices[g->n_choices++], g->j.s->text, &g->request, (int)i,
                    g->request.chat && prompt->ends_in_thinking, &err);
    }
    return err.status == QWEN3_OK || api_fail_status(e, NULL, &err);
}

static bool open_constraint(generate_job *g, api_error *e)
{
    qwen3_error err = {0};
    const service *s = g->j.s;
    if (!constraint_is_needed(&g->request))
        return true;
    if (constraint_open(s->text, s->vocabulary, &g->request, g->prompts->ends_in_thinking, &g->constraint, &err) !=
        QWEN3_OK)
        return api_fail_status(e, NULL, &err);
    g->filter = constraint_filter(g->constraint);
    return true;
}

/* Answers of several prompts have different seeds, as those of one have. */
static bool submit(generate_job *g, api_error *e)
{
    const generation_request *r = &g->request;
    const qwen3_generation_config *config = &g->j.s->text->config;
    qwen3_scheduler_request request = {.max_tokens = r->max_tokens,
                                       .n = r->n,
                                       .sampling = r->sampling,
                                       .stop_tokens = config->end_tokens,
                                       .n_stop_tokens = (size_t)config->n_end_tokens,
                                       .logprobs = r->logprobs,
                                       .top_logprobs = r->top_logprobs,
                                       .filter = g->constraint ? &g->filter : NULL};
    if (!r->seeded && getrandom(&request.sampling.seed, sizeof request.sampling.seed, 0) < 0)
        request.sampling.seed = (uint64_t)g->head.created;
    for (size_t i = 0; i < g->j.n_parts; i++) {
        request.prompt = g->prompts[i].tokens;
        request.n_prompt = g->prompts[i].n;
        g->usage.prompt += (int64_t)request.n_prompt;
        if (!job_submit(&g->j, i, &request, e))
            return false;
        request.sampling.seed += (uint64_t)r->n;
    }
    return true;
}

static bool open_response(generate_job *g, api_error *e)
{
    qwen3_error err = {0};
    return !g->request.response || response_open(&g->response, &g->head, &g->request, &err) == QWEN3_OK ||
           api_fail_status(e, NULL, &err);
}

static bool start(generate_job *g, api_error *e)
{
    const size_t n = g->j.n_parts;
    g->prompts = calloc(n, sizeof *g->prompts);
    g->echoes = g->request.echo ? calloc(n, sizeof *g->echoes) : NULL;
    if (!g->prompts || (g->request.echo && !g->echoes))
        return api_fail(e, 503, "out of memory");
    return make_prompts(g, e) && open_choices(g, e) && open_response(g, e) && open_constraint(g, e) && submit(g, e);
}

static void begin_stream(generate_job *g)
{
    job_stream_begin(&g->j);
    if (g->request.response)
        response_begin(&g->response);
    for (size_t i = 0; g->request.chat && i < g->n_choices; i++)
        stream_choice(g, &g->choices[i]);
}

void generate_begin(service *s, http_exchange *x, request_form form)
{
    size_t n;
    const char *body = http_body(x, &n);
    api_error e = {0};
    generate_job *g = calloc(1, sizeof *g);
    if (!g) {
        api_fail(&e, 503, "out of memory");
        service_refuse(s, x, &e);
        return;
    }
    g->j.take = take;
    g->j.release = release;
    g->j.fault = form == REQUEST_RESPONSE ? end_response_stream : NULL;
    reply_head_make(&g->head, form, s->defaults.model);
    const bool good = request_parse(&g->request, form, body, n, &s->defaults, &e);
    if (s->no_output_head)
        api_refuse(&e, NULL, "this model makes embeddings, and no text");
    if (!job_open(&g->j, s, x, good && !g->request.chat ? json_array_size(g->request.prompts) : 1))
        api_fail(&e, 503, "out of memory");
    if (e.http || !start(g, &e)) {
        job_fail(&g->j, &e);
        return;
    }
    if (g->request.stream)
        begin_stream(g);
}
