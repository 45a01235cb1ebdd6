/* choice.c - see choice.h. */
#include "choice.h"

#include <string.h>

#include "logprobs.h"

qwen3_status choice_open(choice *c, const generation *text, const generation_request *request, int index, bool thinking,
                         qwen3_error *err)
{
    *c = (choice){.text = text, .request = request, .index = index, .thinking = thinking, .at_edge = thinking};
    c->stop.strings = &request->stop;
    c->calls.tools = request->tools;
    if (request->logprobs && !(c->logprobs = json_array()))
        return set_error(err, QWEN3_ERR_MEMORY, "answer: out of memory");
    return qwen3_text_stream_open(text->tokenizer, true, &c->stream, err);
}

void choice_close(choice *c)
{
    qwen3_text_stream_close(c->stream);
    text_free(&c->stop.held);
    text_free(&c->reasoning);
    text_free(&c->content);
    tool_calls_free(&c->calls);
    json_decref(c->logprobs);
}

static qwen3_status add_text(choice *c, const char *text, size_t n, bool last, qwen3_error *err)
{
    if (c->thinking)
        return text_append(&c->reasoning, text, n, err);
    if (c->request->tools)
        return tool_calls_take(&c->calls, text, n, last, &c->content, err);
    return text_append(&c->content, text, n, err);
}

/* last: no more text of this part follows, so what was held back is released. Line breaks that belong to a mark are not
 * looked at: "\n" as a stop string does not end an answer before it begins. */
static qwen3_status take_text(choice *c, const char *text, size_t n, bool last, qwen3_error *err)
{
    size_t released;
    int found;
    while (c->at_edge && n > 0 && *text == '\n') {
        text++;
        n--;
    }
    c->at_edge &= n == 0;
    qwen3_status status = stop_strings_take(&c->stop, text, n, last, &released, &found, err);
    if (status == QWEN3_OK)
        status = add_text(c, c->stop.held.data, released, last || found >= 0, err);
    text_drop(&c->stop.held, released);
    if (found >= 0) {
        text_clear(&c->stop.held);
        c->finish = "stop";
    }
    return status;
}

/* <think> or </think>: reasoning loses the white space at its end, and what follows the line breaks at its beginning.
 */
static qwen3_status take_mark(choice *c, bool thinking, qwen3_error *err)
{
    qwen3_status status = take_text(c, "", 0, true, err);
    if (c->reasoning.n > 0) {
        c->reasoning.n = trimmed_length(&c->reasoning);
        c->reasoning.data[c->reasoning.n] = '\0';
    }
    c->thinking = thinking;
    c->at_edge = true;
    return status;
}

static bool is_end_token(const choice *c, const engine_event *event)
{
    return event->token < 0 || qwen3_generation_config_ends(&c->text->config, event->token);
}

static qwen3_status take_token(choice *c, const engine_event *event, qwen3_error *err)
{
    const bool chat = c->request->chat, opens = chat && event->token == c->text->think;
    const char *text;
    size_t n;
    c->reasoned += c->thinking;
    qwen3_status status = qwen3_text_stream_push(c->stream, event->token, &text, &n, err);
    if (status == QWEN3_OK && (opens || (chat && event->token == c->text->think_end)))
        return take_mark(c, opens, err);
    if (status == QWEN3_OK && c->logprobs && !c->thinking)
        status = logprobs_add(c->logprobs, c->text->tokenizer, event, c->request->chat, err);
    return status == QWEN3_OK ? take_text(c, text, n, false, err) : status;
}

/* An incomplete character, and text that was held back. */
static qwen3_status finish(choice *c, const char *why, qwen3_error *err)
{
    const char *text;
    size_t n;
    qwen3_text_stream_finish(c->stream, &text, &n);
    qwen3_status status = c->finish ? QWEN3_OK : take_text(c, text, n, true, err);
    if (!c->finish)
        c->finish = why;
    if (c->calls.n > 0)
        c->finish = "tool_calls";
    return status;
}

qwen3_status choice_take(choice *c, const engine_event *event, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    c->generated += event->token >= 0;
    if (!is_end_token(c, event))
        status = take_token(c, event, err);
    if (status != QWEN3_OK)
        return status;
    if (event->finish == QWEN3_FINISH_STOP || event->finish == QWEN3_FINISH_LENGTH)
        return finish(c, event->finish == QWEN3_FINISH_LENGTH ? "length" : "stop", err);
    if (c->finish || (c->calls.n > 0 && !c->request->parallel_tool_calls))
        return finish(c, "stop", err);
    return QWEN3_OK;
}

size_t choice_ready(const choice *c, const text_buffer *text)
{
    return c->finish || !c->request->chat ? text->n : trimmed_length(text);
}
