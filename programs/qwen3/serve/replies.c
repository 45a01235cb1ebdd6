/* replies.c - see replies.h. */
#include "replies.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "logprobs.h"

#define FINGERPRINT "qwen3-mpi-" QWEN3_VERSION

static uint64_t random_number(void)
{
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        number = (uint64_t)time(NULL);
    return number;
}

void reply_id(char *id, size_t room, const char *prefix)
{
    snprintf(id, room, "%s%016" PRIx64, prefix, random_number());
}

void reply_head_make(reply_head *head, request_form form, const char *model)
{
    static const char *const prefixes[] = {
        [REQUEST_CHAT] = "chatcmpl-", [REQUEST_COMPLETION] = "cmpl-", [REQUEST_RESPONSE] = "resp_"};
    *head = (reply_head){.created = (int64_t)time(NULL), .model = model, .chat = form != REQUEST_COMPLETION};
    reply_id(head->id, sizeof head->id, prefixes[form]);
}

static json_t *text_from(const text_buffer *text, size_t begin, size_t end)
{
    return json_stringn(text->n ? text->data + begin : "", end - begin);
}

static json_t *usage_json(const reply_usage *u)
{
    return json_pack("{sI,sI,sI,s{sI},s{sI}}", "prompt_tokens", (json_int_t)u->prompt, "completion_tokens",
                     (json_int_t)u->generated, "total_tokens", (json_int_t)u->prompt + (json_int_t)u->generated,
                     "prompt_tokens_details", "cached_tokens", (json_int_t)u->cached, "completion_tokens_details",
                     "reasoning_tokens", (json_int_t)u->reasoned);
}

/* index: of the call in a stream, -1 in a whole reply. */
static json_t *call_json(const choice *c, size_t i, int index)
{
    char id[40];
    const tool_call *call = &c->calls.calls[i];
    reply_id(id, sizeof id, "call_");
    json_t *json = json_pack("{ss,ss,s{ss,ss}}", "id", id, "type", "function", "function", "name", call->name,
                             "arguments", call->arguments);
    if (index >= 0)
        json_object_set_new(json, "index", json_integer(index));
    return json;
}

static json_t *calls_json(const choice *c, size_t begin, bool stream)
{
    json_t *calls = json_array();
    for (size_t i = begin; i < c->calls.n; i++)
        json_array_append_new(calls, call_json(c, i, stream ? (int)i : -1));
    return calls;
}

static json_t *choice_logprobs(choice *c)
{
    json_t *json =
        c->logprobs ? logprobs_json(c->logprobs, c->sent_logprobs, c->request->chat, &c->sent_characters) : json_null();
    c->sent_logprobs = json_array_size(c->logprobs);
    return json;
}

/* ---- Whole replies ------------------------------------------------------------------------------ */

static json_t *message_json(const choice *c)
{
    json_t *message = json_pack(
        "{ss,so,sn}", "role", "assistant", "content",
        c->content.n == 0 && c->calls.n > 0 ? json_null() : text_from(&c->content, 0, c->content.n), "refusal");
    if (c->reasoning.n > 0)
        json_object_set_new(message, "reasoning_content", text_from(&c->reasoning, 0, c->reasoning.n));
    if (c->calls.n > 0)
        json_object_set_new(message, "tool_calls", calls_json(c, 0, false));
    return message;
}

static json_t *whole_choice(choice *c, const char *echo)
{
    json_t *json =
        json_pack("{si,so,ss}", "index", c->index, "logprobs", choice_logprobs(c), "finish_reason", c->finish);
    if (c->request->chat)
        json_object_set_new(json, "message", message_json(c));
    else
        json_object_set_new(json, "text",
                            json_pack("s+%", echo ? echo : "", c->content.n ? c->content.data : "", c->content.n));
    return json;
}

json_t *reply_whole(const reply_head *head, choice *choices, size_t n, const char *const *echoes,
                    const reply_usage *usage)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list,
                              whole_choice(&choices[i], echoes ? echoes[i / (size_t)choices[i].request->n] : NULL));
    return json_pack("{ss,ss,sI,ss,ss,so,so}", "id", head->id, "object",
                     head->chat ? "chat.completion" : "text_completion", "created", (json_int_t)head->created, "model",
                     head->model, "system_fingerprint", FINGERPRINT, "choices", list, "usage", usage_json(usage));
}

/* ---- Streams ------------------------------------------------------------------------------------ */

static json_t *chunk_json(const reply_head *head, json_t *choices)
{
    return json_pack("{ss,ss,sI,ss,ss,so}", "id", head->id, "object",
                     head->chat ? "chat.completion.chunk" : "text_completion", "created", (json_int_t)head->created,
                     "model", head->model, "system_fingerprint", FINGERPRINT, "choices", choices);
}

/* Sets the member to what can be sent of the text after *sent, if there is some. */
static void set_text(json_t *object, const char *name, const choice *c, const text_buffer *text, size_t *sent)
{
    const size_t ready = choice_ready(c, text);
    if (ready <= *sent)
        return;
    json_object_set_new(object, name, text_from(text, *sent, ready));
    *sent = ready;
}

static json_t *delta_json(choice *c)
{
    json_t *delta = json_object();
    if (!c->begun) {
        json_object_set_new(delta, "role", json_string("assistant"));
        json_object_set_new(delta, "content", json_string(""));
    }
    set_text(delta, "reasoning_content", c, &c->reasoning, &c->sent_reasoning);
    set_text(delta, "content", c, &c->content, &c->sent_content);
    if (c->sent_calls < c->calls.n)
        json_object_set_new(delta, "tool_calls", calls_json(c, c->sent_calls, true));
    c->sent_calls = c->calls.n;
    return delta;
}

json_t *reply_chunk(const reply_head *head, choice *c, const char *echo, bool with_usage, bool *failed)
{
    json_t *delta = json_object(), *text = NULL;
    const bool first = !c->begun;
    *failed = false;
    if (c->request->chat) {
        json_decref(delta);
        delta = delta_json(c);
    } else {
        set_text(delta, "text", c, &c->content, &c->sent_content);
        text = json_object_get(delta, "text");
    }
    if (!c->finish && !(first && c->request->chat) && json_object_size(delta) == 0) {
        json_decref(delta);
        return NULL;
    }
    c->begun = true;
    json_t *one =
        json_pack("{si,so,ss?}", "index", c->index, "logprobs", choice_logprobs(c), "finish_reason", c->finish);
    if (c->request->chat)
        json_object_set(one, "delta", delta);
    else
        json_object_set_new(
            one, "text",
            json_pack("s+%", first && echo ? echo : "", text ? json_string_value(text) : "", json_string_length(text)));
    json_decref(delta);
    json_t *chunk = chunk_json(head, json_pack("[o]", one));
    if (with_usage)
        json_object_set_new(chunk, "usage", json_null());
    *failed = !chunk;
    return chunk;
}

json_t *reply_usage_chunk(const reply_head *head, const reply_usage *usage)
{
    json_t *chunk = chunk_json(head, json_array());
    json_object_set_new(chunk, "usage", usage_json(usage));
    return chunk;
}

/* ---- Others ------------------------------------------------------------------------------------- */

/* Little-endian f32, as numpy reads them. */
static json_t *base64(const float *values, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *bytes = (const unsigned char *)values;
    const size_t size = n * sizeof *values;
    char *text = malloc(4 * (size / 3 + 1) + 1), *out = text;
    if (!text)
        return NULL;
    for (size_t i = 0; i < size; i += 3) {
        const size_t rest = size - i;
        const unsigned three =
            (unsigned)bytes[i] << 16 | (rest > 1 ? (unsigned)bytes[i + 1] << 8 : 0) | (rest > 2 ? bytes[i + 2] : 0);
        *out++ = digits[three >> 18];
        *out++ = digits[three >> 12 & 63];
        *out++ = rest > 1 ? digits[three >> 6 & 63] : '=';
        *out++ = rest > 2 ? digits[three & 63] : '=';
    }
    json_t *json = json_stringn(text, (size_t)(out - text));
    free(text);
    return json;
}

static json_t *numbers(const float *values, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_real((double)values[i]));
    return array;
}

json_t *reply_embeddings(const char *model, float *const *embeddings, size_t n, size_t dimensions, bool as_base64,
                         int64_t tokens)
{
    json_t *data = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            data, json_pack("{ss,sI,so}", "object", "embedding", "index", (json_int_t)i, "embedding",
                            as_base64 ? base64(embeddings[i], dimensions) : numbers(embeddings[i], dimensions)));
    return json_pack("{ss,so,ss,s{sI,sI}}", "object", "list", "data", data, "model", model, "usage", "prompt_tokens",
                     (json_int_t)tokens, "total_tokens", (json_int_t)tokens);
}

json_t *reply_model(const char *model, int64_t created, int64_t context)
{
    return json_pack("{ss,ss,sI,ss,sI}", "id", model, "object", "model", "created", (json_int_t)created, "owned_by",
                     "qwen3-mpi", "max_model_len", (json_int_t)context);
}

json_t *reply_models(const char *model, int64_t created, int64_t context)
{
    return json_pack("{ss,s[o]}", "object", "list", "data", reply_model(model, created, context));
}
