/* fuzz_request.c - libFuzzer target: what clients send to `qwen3 serve`, and calls of tools in what models answer.
 * Parts of the input: the body of a request, and the text of an answer unless it is empty. What is accepted must be
 * within the bounds that the rest relies on; what is refused has an error in OpenAI's form. Calls must not depend on
 * the pieces in which the text comes. */
#include "common/utf8.h"
#include "fuzz/fuzz.h"
#include "model/sampler.h"
#include "qwen3/serve/request.h"
#include "qwen3/serve/tool_calls.h"

enum { TOKENS = 1000 };

static void check_accepted(const generation_request *r)
{
    demand(sampling_options_check(&r->sampling, "", NULL) == QWEN3_OK);
    demand(r->n >= 1 && r->n <= REQUEST_MOST_CHOICES && r->max_tokens >= 0);
    demand(r->top_logprobs >= 0 && r->top_logprobs <= REQUEST_MOST_TOP_LOGPROBS && r->stop.n <= REQUEST_MOST_STOPS);
    demand(r->chat ? json_array_size(r->messages) > 0 : json_array_size(r->prompts) > 0);
    for (size_t i = 0; i < r->stop.n; i++)
        demand(r->stop.texts[i][0] != '\0');
    for (size_t i = 0; i < r->sampling.n_bias; i++)
        demand(r->sampling.bias[i].token >= 0 && r->sampling.bias[i].token < TOKENS);
}

static void check_refused(const api_error *e)
{
    json_t *json = api_error_json(e);
    char *text = json_dumps(json, JSON_COMPACT);
    demand(text && e->http >= 400 && e->http <= 503 && e->message[0] != '\0');
    free(text);
    json_decref(json);
}

static void check_request(fuzz_part body, request_form form, qwen3_chat_thinking thinking)
{
    const request_defaults defaults = {
        .model = "demo", .sampling = qwen3_sampling_options_default(), .n_tokens = TOKENS, .thinking = thinking};
    generation_request r;
    api_error e = {0};
    if (request_parse(&r, form, (const char *)body.data, body.size, &defaults, &e))
        check_accepted(&r);
    demand(!e.http == (r.body && (r.chat ? r.messages != NULL : r.prompts != NULL) && !e.message[0]));
    demand(r.response == NULL || form == REQUEST_RESPONSE);
    if (e.http)
        check_refused(&e);
    request_free(&r);
}

static void find_calls(fuzz_part text, size_t piece, tool_calls *calls, text_buffer *content)
{
    qwen3_error err = {0};
    for (size_t at = 0; at < text.size; at += piece) {
        const size_t n = text.size - at < piece ? text.size - at : piece;
        demand(tool_calls_take(calls, (const char *)text.data + at, n, false, content, &err) == QWEN3_OK);
    }
    demand(tool_calls_take(calls, "", 0, true, content, &err) == QWEN3_OK);
}

static void check_calls(fuzz_part text)
{
    tool_calls whole = {0}, pieces = {0};
    text_buffer one = {0}, other = {0};
    find_calls(text, text.size, &whole, &one);
    find_calls(text, 1 + text.size % 5, &pieces, &other);
    demand(whole.n == pieces.n && trimmed_length(&one) == trimmed_length(&other));
    demand(memcmp(one.data, other.data, trimmed_length(&one)) == 0);
    for (size_t i = 0; i < whole.n; i++)
        demand(strcmp(whole.calls[i].name, pieces.calls[i].name) == 0 &&
               strcmp(whole.calls[i].arguments, pieces.calls[i].arguments) == 0);
    tool_calls_free(&whole);
    tool_calls_free(&pieces);
    text_free(&one);
    text_free(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {data, size};
    const fuzz_part body = next_part(&rest);
    check_request(body, REQUEST_CHAT, QWEN3_THINKING_OPTIONAL);
    check_request(body, REQUEST_RESPONSE, QWEN3_THINKING_NEVER);
    check_request(body, REQUEST_COMPLETION, QWEN3_THINKING_NEVER);
    if (rest.size > 0 && is_utf8((const char *)rest.data, rest.size))
        check_calls(rest);
    return 0;
}
