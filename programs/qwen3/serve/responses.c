/* responses.c - see responses.h.
 *
 * The order of events, as clients rely on it (https://platform.openai.com/docs/api-reference/responses-streaming):
 *
 *   response.created, response.in_progress
 *   response.output_item.added                          of each item: reasoning, message, function_call
 *     response.content_part.added                       reasoning and messages have one part
 *     response.reasoning_text.delta, ...                or response.output_text.delta, ...
 *     response.reasoning_text.done                      or response.output_text.done
 *     response.content_part.done
 *     response.function_call_arguments.delta, .done     calls come in one piece
 *   response.output_item.done
 *   response.completed                                  or response.incomplete, response.failed */
#include "responses.h"

#include <string.h>

#include "fields.h"

/* What tells texts of reasoning from those of messages. */
typedef struct text_kind {
    const char *item, *prefix, *part, *delta, *done;
} text_kind;

static const text_kind reasoning_kind = {"reasoning", "rs_", "reasoning_text", "response.reasoning_text.delta",
                                         "response.reasoning_text.done"};
static const text_kind message_kind = {"message", "msg_", "output_text", "response.output_text.delta",
                                       "response.output_text.done"};

qwen3_status response_open(response *r, const reply_head *head, const generation_request *request, qwen3_error *err)
{
    *r = (response){.head = head, .request = request, .output = json_array(), .events = json_array()};
    return r->output && r->events ? QWEN3_OK : set_error(err, QWEN3_ERR_MEMORY, "answer: out of memory");
}

void response_close(response *r)
{
    json_decref(r->output);
    json_decref(r->events);
}

json_t *response_events(response *r)
{
    json_t *events = r->events;
    r->events = json_array();
    if (!r->failed && r->events)
        return events;
    json_decref(events);
    return NULL;
}

/* ---- Parts of a reply --------------------------------------------------------------------------- */

/* A member that the client sent, as it came; otherwise the value that it stands for, which is released. */
static json_t *sent_or(const response *r, const char *name, json_t *value)
{
    json_t *sent = field_get(r->request->response, name);
    if (!sent)
        return value;
    json_decref(value);
    return json_incref(sent);
}

static json_t *usage_json(const reply_usage *u)
{
    return json_pack("{sI,s{sI},sI,s{sI},sI}", "input_tokens", (json_int_t)u->prompt, "input_tokens_details",
                     "cached_tokens", (json_int_t)u->cached, "output_tokens", (json_int_t)u->generated,
                     "output_tokens_details", "reasoning_tokens", (json_int_t)u->reasoned, "total_tokens",
                     (json_int_t)u->prompt + (json_int_t)u->generated);
}

/* The response as it is: a copy, as items go on. */
static json_t *response_json(const response *r, const char *status)
{
    const generation_request *q = r->request;
    json_t *json =
        json_pack("{ss,ss,sI,ss,sn,sn,ss,so,sn,sn,sb}", "id", r->head->id, "object", "response", "created_at",
                  (json_int_t)r->head->created, "status", status, "error", "incomplete_details", "model",
                  r->head->model, "output", json_deep_copy(r->output), "usage", "previous_response_id", "store", 0);
    json_t *asked = json_pack(
        "{so,so,so,so,so,so,so,sb,sb,sf,sf,si,ss}", "instructions", sent_or(r, "instructions", json_null()),
        "max_output_tokens", sent_or(r, "max_output_tokens", json_null()), "metadata",
        sent_or(r, "metadata", json_object()), "reasoning",
        sent_or(r, "reasoning", json_pack("{sn,sn}", "effort", "summary")), "text",
        sent_or(r, "text", json_pack("{s{ss}}", "format", "type", "text")), "tools", sent_or(r, "tools", json_array()),
        "tool_choice", sent_or(r, "tool_choice", json_string("auto")), "parallel_tool_calls", q->parallel_tool_calls,
        "background", 0, "temperature", q->sampling.temperature, "top_p", q->sampling.top_p, "top_logprobs",
        q->top_logprobs, "truncation", "disabled");
    const bool whole = json && asked && json_object_update(json, asked) == 0;
    json_decref(asked);
    if (whole)
        return json;
    json_decref(json);
    return NULL;
}

/* Takes the event over. Only streams keep them. */
static void emit(response *r, const char *type, json_t *event)
{
    json_t *named = json_pack("{ss,sI}", "type", type, "sequence_number", (json_int_t)r->sequence++);
    if (!named || !event || json_object_update(named, event) < 0 ||
        (r->request->stream && json_array_append(r->events, named) < 0))
        r->failed = true;
    json_decref(named);
    json_decref(event);
}

/* An event about the last item, with more members. */
static void emit_of_item(response *r, const char *type, const json_t *item, json_t *more)
{
    json_t *event = json_pack("{sO,sI}", "item_id", json_object_get(item, "id"), "output_index",
                              (json_int_t)json_array_size(r->output) - 1);
    if (!event || !more || json_object_update(event, more) < 0)
        r->failed = true;
    json_decref(more);
    emit(r, type, event);
}

static void emit_item(response *r, const char *type, const json_t *item)
{
    emit(
        r, type,
        json_pack("{sI,so}", "output_index", (json_int_t)json_array_size(r->output) - 1, "item", json_deep_copy(item)));
}

/* Appends an item, which is owned from here on. Returns it, borrowed; NULL = out of memory. */
static json_t *add_item(response *r, json_t *item)
{
    if (json_array_append_new(r->output, item) == 0)
        return item;
    r->failed = true;
    return NULL;
}

/* ---- Reasoning and messages --------------------------------------------------------------------- */

static const text_kind *kind_of(const json_t *item)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    return type && strcmp(type, "reasoning") == 0 ? &reasoning_kind : &message_kind;
}

static json_t *part_json(const text_kind *kind, json_t *text, json_t *logprobs)
{
    if (kind == &reasoning_kind) {
        json_decref(logprobs);
        return json_pack("{ss,so}", "type", kind->part, "text", text);
    }
    return json_pack("{ss,so,s[],so}", "type", kind->part, "text", text, "annotations", "logprobs", logprobs);
}

static void open_item(response *r, const text_kind *kind)
{
    char id[32];
    reply_id(id, sizeof id, kind->prefix);
    json_t *item = json_pack("{ss,ss,ss,s[]}", "id", id, "type", kind->item, "status", "in_progress", "content");
    if (kind == &reasoning_kind)
        json_object_set_new(item, "summary", json_array());
    else
        json_object_set_new(item, "role", json_string("assistant"));
    if (!(r->open = add_item(r, item)))
        return;
    emit_item(r, "response.output_item.added", item);
    emit_of_item(r, "response.content_part.added", item,
                 json_pack("{si,so}", "content_index", 0, "part", part_json(kind, json_string(""), json_array())));
}

/* The entries of log probabilities from `begin` on. */
static json_t *logprobs_from(const choice *c, size_t begin)
{
    json_t *array = json_array();
    for (size_t i = begin; i < json_array_size(c->logprobs); i++)
        json_array_append(array, json_array_get(c->logprobs, i));
    return array;
}

static json_t *text_of(const text_buffer *text, size_t begin, size_t end)
{
    return json_stringn(text->n ? text->data + begin : "", end - begin);
}

/* The open item has ended: its text is what was sent of it. */
static void close_item(response *r, choice *c, const char *status)
{
    if (!r->open)
        return;
    json_t *item = r->open;
    const text_kind *kind = kind_of(item);
    const bool reasons = kind == &reasoning_kind;
    json_t *part = part_json(kind,
                             reasons ? text_of(&c->reasoning, r->reasoning, c->sent_reasoning)
                                     : text_of(&c->content, r->content, c->sent_content),
                             logprobs_from(c, r->logprobs));
    json_t *done = json_pack("{si,sO}", "content_index", 0, "text", json_object_get(part, "text"));
    if (!reasons)
        json_object_set(done, "logprobs", json_object_get(part, "logprobs"));
    emit_of_item(r, kind->done, item, done);
    emit_of_item(r, "response.content_part.done", item, json_pack("{si,sO}", "content_index", 0, "part", part));
    if (json_array_append_new(json_object_get(item, "content"), part) < 0 ||
        json_object_set_new(item, "status", json_string(status)) < 0)
        r->failed = true;
    emit_item(r, "response.output_item.done", item);
    r->open = NULL;
}

/* Sends what can be sent of a text after *sent; opens an item for it if none of its kind is open. */
static void take_text(response *r, choice *c, const text_kind *kind, const text_buffer *text, size_t *sent)
{
    const size_t ready = choice_ready(c, text);
    if (ready <= *sent)
        return;
    if (r->open && kind_of(r->open) != kind)
        close_item(r, c, "completed");
    if (!r->open) {
        r->reasoning = c->sent_reasoning;
        r->content = c->sent_content;
        r->logprobs = c->sent_logprobs;
        open_item(r, kind);
    }
    json_t *delta = json_pack("{si,so}", "content_index", 0, "delta", text_of(text, *sent, ready));
    *sent = ready;
    if (kind == &message_kind) {
        json_object_set_new(delta, "logprobs", logprobs_from(c, c->sent_logprobs));
        c->sent_logprobs = json_array_size(c->logprobs);
    }
    emit_of_item(r, kind->delta, r->open, delta);
}

/* ---- Calls -------------------------------------------------------------------------------------- */

static void take_call(response *r, const tool_call *call)
{
    char id[32], call_id[32];
    reply_id(id, sizeof id, "fc_");
    reply_id(call_id, sizeof call_id, "call_");
    json_t *item = add_item(r, json_pack("{ss,ss,ss,ss,ss,ss}", "id", id, "type", "function_call", "status",
                                         "in_progress", "call_id", call_id, "name", call->name, "arguments", ""));
    emit_item(r, "response.output_item.added", item);
    emit_of_item(r, "response.function_call_arguments.delta", item, json_pack("{ss}", "delta", call->arguments));
    emit_of_item(r, "response.function_call_arguments.done", item,
                 json_pack("{ss,ss}", "name", call->name, "arguments", call->arguments));
    if (json_object_set_new(item, "arguments", json_string(call->arguments)) < 0 ||
        json_object_set_new(item, "status", json_string("completed")) < 0)
        r->failed = true;
    emit_item(r, "response.output_item.done", item);
}

static void take_calls(response *r, choice *c)
{
    if (c->sent_calls == c->calls.n)
        return;
    close_item(r, c, "completed");
    while (c->sent_calls < c->calls.n)
        take_call(r, &c->calls.calls[c->sent_calls++]);
    c->sent_logprobs = json_array_size(c->logprobs); /* tokens of calls have none */
}

/* ---- The whole ---------------------------------------------------------------------------------- */

void response_begin(response *r)
{
    emit(r, "response.created", json_pack("{so}", "response", response_json(r, "in_progress")));
    emit(r, "response.in_progress", json_pack("{so}", "response", response_json(r, "in_progress")));
}

void response_take(response *r, choice *c)
{
    take_text(r, c, &reasoning_kind, &c->reasoning, &c->sent_reasoning);
    take_text(r, c, &message_kind, &c->content, &c->sent_content);
    take_calls(r, c);
    if (c->finish)
        close_item(r, c, strcmp(c->finish, "length") == 0 ? "incomplete" : "completed");
}

json_t *response_end(response *r, const choice *c, const reply_usage *usage)
{
    const bool complete = strcmp(c->finish, "length") != 0;
    json_t *json = response_json(r, complete ? "completed" : "incomplete");
    if (json_object_set_new(json, "usage", usage_json(usage)) < 0)
        r->failed = true;
    if (!complete)
        json_object_set_new(json, "incomplete_details", json_pack("{ss}", "reason", "max_output_tokens"));
    emit(r, complete ? "response.completed" : "response.incomplete", json_pack("{sO}", "response", json));
    if (!r->failed)
        return json;
    json_decref(json);
    return NULL;
}

/* Clients look for "error" in the event of that name. */
void response_fail(response *r, const api_error *e)
{
    json_t *json = response_json(r, "failed"), *error = api_error_json(e);
    const json_t *message = json_object_get(json_object_get(error, "error"), "message");
    json_object_set_new(json, "error", json_pack("{ss,sO}", "code", e->code ? e->code : e->type, "message", message));
    emit(r, "error", error);
    emit(r, "response.failed", json_pack("{so}", "response", json));
}
