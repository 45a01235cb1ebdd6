/* answer.c - see answer.h.
 *
 * Every rank computes and samples. Only rank 0 turns tokens into text and decides whether to continue; it tells the
 * others at every decode step. */
#include "answer.h"

#include <stdlib.h>
#include <string.h>

#include "common/program.h"
#include "common/progress.h"
#include "common/statistics.h"
#include "prompt_time.h"
#include "stop_strings.h"

/* Tokens of a prompt that are computed between two checks whether to continue. */
#define PREFILL_TOKENS 512

typedef enum action { GO_ON = 0, END, FAIL } action;

/* The state of an answer on rank 0. */
typedef struct answer_writer {
    const generation *g;
    const answer_request *request;
    answer *a;
    qwen3_text_stream *stream;
    stop_strings stop;
    part_kind kind; /* of the text that comes next: PART_TEXT or PART_THINKING */
    bool at_edge;   /* newlines that come next belong to the mark */
    bool empty;     /* nothing has followed <think>: the marks are held, and not shown if an answer follows */
    text_buffer marks;
    double begin;
} answer_writer;

static const char *end_name(answer_end end)
{
    static const char *const names[] = {"end", "stop", "length", "context", "interrupted"};
    return names[end];
}

/* ---- Text, on rank 0 ---------------------------------------------------------------------------- */

static qwen3_status show(answer_writer *w, part_kind kind, const char *text, size_t n, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    if (kind == PART_MARK && w->empty)
        return text_append(&w->marks, text, n, err);
    if (kind == PART_THINKING && w->marks.n > 0)
        status = output_part(w->request->out, PART_MARK, w->marks.data, w->marks.n, err);
    if (kind != PART_MARK) {
        text_clear(&w->marks);
        w->empty = false;
    }
    if (kind != PART_MARK && status == QWEN3_OK)
        status = text_append(kind == PART_TEXT ? &w->a->text : &w->a->reasoning, text, n, err);
    return status == QWEN3_OK ? output_part(w->request->out, kind, text, n, err) : status;
}

/* Shows text that is no part of a stop string. */
static qwen3_status release(answer_writer *w, size_t n, qwen3_error *err)
{
    const char *text = w->stop.held.data;
    size_t newlines = 0;
    qwen3_status status = QWEN3_OK;
    while (w->at_edge && newlines < n && text[newlines] == '\n')
        newlines++;
    if (newlines > 0)
        status = show(w, PART_MARK, text, newlines, err);
    if (newlines < n) {
        w->at_edge = false;
        if (status == QWEN3_OK)
            status = show(w, w->kind, text + newlines, n - newlines, err);
    }
    text_drop(&w->stop.held, n);
    return status;
}

/* last: no more text of this kind follows, so what is held back is shown. */
static qwen3_status take_text(answer_writer *w, const char *text, size_t n, bool last, action *next, qwen3_error *err)
{
    size_t released;
    int found;
    qwen3_status status = stop_strings_take(&w->stop, text, n, last, &released, &found, err);
    if (status == QWEN3_OK && released > 0)
        status = release(w, released, err);
    if (found >= 0) {
        text_clear(&w->stop.held);
        w->a->stop = found;
        w->a->end = ANSWER_STOP_STRING;
        *next = END;
    }
    return status;
}

/* Between reasoning and answer: a stop string does not extend over the marks. */
static qwen3_status take_mark(answer_writer *w, part_kind kind, const char *text, size_t n, action *next,
                              qwen3_error *err)
{
    qwen3_status status = take_text(w, "", 0, true, next, err);
    if (status != QWEN3_OK || *next == END)
        return status;
    w->kind = kind;
    w->at_edge = true;
    w->empty |= kind == PART_THINKING;
    return show(w, PART_MARK, text, n, err);
}

static qwen3_status add_token(answer *a, int32_t token, qwen3_error *err)
{
    if (a->generated == a->room) {
        size_t room = 2 * a->room + 64;
        int32_t *larger = realloc(a->tokens, room * sizeof *larger);
        if (!larger)
            return set_error(err, QWEN3_ERR_MEMORY, "answer: cannot allocate %zu tokens", room);
        a->tokens = larger;
        a->room = room;
    }
    a->tokens[a->generated++] = token;
    return QWEN3_OK;
}

/* Takes one more token: shows its text and says whether to continue. */
static action take_token(answer_writer *w, int32_t token, qwen3_error *err)
{
    const generation *g = w->g;
    const generation_arguments *arguments = g->arguments;
    answer *a = w->a;
    action next = GO_ON;
    const char *text;
    size_t n;
    if (a->generated == 0)
        a->first_seconds = seconds_now() - w->begin;
    if (add_token(a, token, err) != QWEN3_OK)
        return FAIL;
    if (qwen3_generation_config_ends(&g->config, token)) {
        a->end = ANSWER_END_TOKEN;
        return END;
    }
    if (qwen3_text_stream_push(w->stream, token, &text, &n, err) != QWEN3_OK)
        return FAIL;
    bool edge = !w->request->raw && (token == g->think || token == g->think_end);
    if (edge)
        take_mark(w, token == g->think ? PART_THINKING : PART_TEXT, text, n, &next, err);
    else
        take_text(w, text, n, false, &next, err);
    if (err->status != QWEN3_OK)
        return FAIL;
    if (next == END)
        return END;
    if (arguments->max_tokens && (int64_t)a->generated >= arguments->max_tokens)
        a->end = ANSWER_MAX_TOKENS;
    else if ((int64_t)g->n_held >= g->context)
        a->end = ANSWER_CONTEXT_FULL;
    else if (w->request->interrupted && w->request->interrupted(w->request->context))
        a->end = ANSWER_INTERRUPTED;
    else
        return GO_ON;
    return END;
}

static qwen3_status open_writer(answer_writer *w, qwen3_error *err)
{
    w->begin = seconds_now();
    w->kind = w->request->thinking ? PART_THINKING : PART_TEXT;
    w->at_edge = w->empty = w->request->thinking;
    w->stop.strings = &w->g->arguments->stop;
    w->a->stop = -1;
    w->a->prompt = w->request->n_prompt;
    return qwen3_text_stream_open(w->g->tokenizer, true, &w->stream, err);
}

/* Shows an incomplete character and text that was held back, unless a stop string ended the answer. */
static qwen3_status finish_writer(answer_writer *w, qwen3_error *err)
{
    const char *text;
    size_t n;
    action next = GO_ON;
    qwen3_text_stream_finish(w->stream, &text, &n);
    if (w->a->end != ANSWER_STOP_STRING)
        take_text(w, text, n, true, &next, err);
    w->a->seconds = seconds_now() - w->begin;
    return err->status == QWEN3_OK ? output_end(w->request->out, err) : err->status;
}

static void close_writer(answer_writer *w)
{
    qwen3_text_stream_close(w->stream);
    text_free(&w->stop.held);
    text_free(&w->marks);
}

/* ---- Tokens, on all ranks ----------------------------------------------------------------------- */

/* What rank 0 decided, or its failure. */
static qwen3_status agree_on(generation *g, action *next, qwen3_error *err)
{
    qwen3_comm_broadcast(g->world, next, sizeof *next);
    return *next == FAIL ? qwen3_comm_agree(g->world, err) : QWEN3_OK;
}

static qwen3_status forward(generation *g, const int32_t *tokens, size_t n, bool logits, qwen3_error *err)
{
    static const uint8_t none[PREFILL_TOKENS];
    qwen3_batch batch = {.n_tokens = n, .tokens = tokens, .logits = logits ? NULL : none};
    qwen3_status status = qwen3_forward(g->session, &batch, err);
    if (status == QWEN3_OK)
        g->n_held += n;
    return status;
}

/* Sends the prompt to all ranks. The session keeps the tokens that it has in common with the prompt and drops the rest;
 * at least the last token is computed. prompt [n] is freed with free(). */
static qwen3_status take_prompt(generation *g, const answer_request *request, int32_t **prompt, size_t *n,
                                qwen3_error *err)
{
    uint64_t length = g->rank == 0 ? request->n_prompt : 0;
    size_t common = 0;
    qwen3_comm_broadcast(g->world, &length, sizeof length);
    *n = length;
    if ((*prompt = allocate(length, sizeof **prompt, "prompt", err)) && g->rank == 0)
        memcpy(*prompt, request->prompt, length * sizeof **prompt);
    qwen3_status status = qwen3_comm_agree(g->world, err);
    if (status != QWEN3_OK)
        return status;
    qwen3_comm_broadcast(g->world, *prompt, length * sizeof **prompt);
    while (common < g->n_held && common + 1 < length && g->held[common] == (*prompt)[common])
        common++;
    status = qwen3_session_truncate(g->session, 0, (int64_t)common, err);
    if (status != QWEN3_OK)
        return status;
    g->n_held = common;
    qwen3_sampler_reset(g->sampler, g->config.sampling.seed);
    qwen3_sampler_accept(g->sampler, *prompt, length, false, err);
    return qwen3_comm_agree(g->world, err);
}

static action look_for_interrupt(answer_writer *w)
{
    const answer_request *r = w->request;
    if (!r->interrupted || !r->interrupted(r->context))
        return GO_ON;
    w->a->end = ANSWER_INTERRUPTED;
    return END;
}

/* w is NULL except on rank 0. *next is END if the prompt was not computed to its end. */
static qwen3_status prefill(generation *g, answer_writer *w, const int32_t *prompt, size_t n, action *next,
                            qwen3_error *err)
{
    const size_t reused = g->n_held;
    qwen3_status status = QWEN3_OK;
    prompt_time_note(g->world, g->model, &(long_prompt){reused, n, PREFILL_TOKENS});
    progress bar = progress_begin("Prompt", "tokens", (double)(n - reused));
    while (g->n_held < n && *next == GO_ON) {
        size_t rest = n - g->n_held, chunk = rest < PREFILL_TOKENS ? rest : PREFILL_TOKENS;
        memcpy(g->held + g->n_held, prompt + g->n_held, chunk * sizeof *prompt);
        status = forward(g, prompt + g->n_held, chunk, chunk == rest, err);
        if (status != QWEN3_OK)
            break;
        if (w)
            *next = look_for_interrupt(w);
        if (w)
            progress_update(&bar, (double)(g->n_held - reused));
        status = agree_on(g, next, err);
    }
    progress_end(&bar);
    if (w)
        w->a->prefill_seconds = seconds_now() - w->begin;
    return status;
}

static qwen3_status decode(generation *g, answer_writer *w, action *next, qwen3_error *err)
{
    while (*next == GO_ON) {
        int32_t token;
        qwen3_status status = qwen3_sample(g->session, &g->sampler, &token, err);
        if (status != QWEN3_OK)
            return status;
        if (w)
            *next = take_token(w, token, err);
        status = agree_on(g, next, err);
        if (status != QWEN3_OK || *next != GO_ON)
            return status;
        g->held[g->n_held] = token;
        status = forward(g, &token, 1, true, err);
        if (status != QWEN3_OK)
            return status;
    }
    return QWEN3_OK;
}

qwen3_status answer_generate(generation *g, const answer_request *request, answer *a, qwen3_error *err)
{
    answer_writer writer = {.g = g, .request = request, .a = a};
    answer_writer *w = g->rank == 0 ? &writer : NULL;
    int32_t *prompt = NULL;
    size_t n = 0;
    action next = GO_ON;

    if (w)
        open_writer(w, err);
    qwen3_status status = qwen3_comm_agree(g->world, err);
    if (status == QWEN3_OK)
        status = take_prompt(g, request, &prompt, &n, err);
    if (status == QWEN3_OK) {
        a->reused = g->n_held;
        status = prefill(g, w, prompt, n, &next, err);
    }
    if (status == QWEN3_OK)
        status = decode(g, w, &next, err);
    if (status == QWEN3_OK) {
        if (w)
            finish_writer(w, err);
        status = qwen3_comm_agree(g->world, err);
    }
    close_writer(&writer);
    free(prompt);
    return status;
}

void answer_free(answer *a)
{
    text_free(&a->text);
    text_free(&a->reasoning);
    free(a->tokens);
    *a = (answer){0};
}

/* ---- What is said about it ---------------------------------------------------------------------- */

static double rate(double n, double seconds)
{
    return n > 0 && seconds > 0 ? n / seconds : 0;
}

/* Tokens of the prompt that were computed, and decode steps after the first token. */
static double prefill_rate(const answer *a)
{
    return rate((double)(a->prompt - a->reused), a->prefill_seconds);
}

static double decode_rate(const answer *a)
{
    return a->generated > 1 ? rate((double)a->generated - 1, a->seconds - a->first_seconds) : 0;
}

json_t *answer_event(const generation *g, const answer *a)
{
    json_t *event =
        json_pack("{ss,ss,sI,sI,sI,sI,sI,sI,sf,sf,sf,sf,sf,so}", "event", "done", "reason", end_name(a->end),
                  "prompt_tokens", (json_int_t)a->prompt, "reused_tokens", (json_int_t)a->reused, "computed_tokens",
                  (json_int_t)(a->prompt - a->reused), "generated_tokens", (json_int_t)a->generated, "context_tokens",
                  (json_int_t)g->n_held, "context", (json_int_t)g->context, "prefill_seconds", a->prefill_seconds,
                  "first_token_seconds", a->first_seconds, "seconds", a->seconds, "prefill_tokens_per_second",
                  prefill_rate(a), "decode_tokens_per_second", decode_rate(a), "tokens", json_array());
    bool complete = event != NULL;
    for (size_t i = 0; i < a->generated && complete; i++)
        complete = json_array_append_new(json_object_get(event, "tokens"), json_integer(a->tokens[i])) == 0;
    if (a->stop >= 0 && complete)
        complete = json_object_set_new(event, "stop", json_string(g->arguments->stop.texts[a->stop])) == 0;
    if (complete)
        return event;
    json_decref(event);
    return NULL;
}

void answer_describe(const generation *g, const answer *a, char *text, size_t size)
{
    snprintf(text, size,
             "%zu tokens of prompt (%zu of them kept), %.1f tokens/s; %zu tokens generated, %.1f tokens/s; context "
             "%zu of %lld%s",
             a->prompt, a->reused, prefill_rate(a), a->generated, decode_rate(a), g->n_held, (long long)g->context,
             a->end == ANSWER_INTERRUPTED    ? "; interrupted"
             : a->end == ANSWER_CONTEXT_FULL ? "; the context is full"
             : a->end == ANSWER_MAX_TOKENS   ? "; ended by --max-tokens"
                                             : "");
}
