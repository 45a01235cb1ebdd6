/* text_routes.c - see text_routes.h. */
#include "text_routes.h"

#include <stdlib.h>

#include "fields.h"
#include "qwen3/prompt.h"

/* The prompt of messages, or of a text; control tokens are recognised in a text unless parse_special is false. */
static bool encode(service *s, const json_t *body, token_prompt *prompt, api_error *e)
{
    qwen3_error err = {0};
    json_t *messages = NULL, *tools = NULL, *text = NULL;
    bool special = true, thinking = s->defaults.thinking != QWEN3_THINKING_NEVER;
    field_of_type(body, "messages", JSON_ARRAY, &messages, e);
    field_of_type(body, "tools", JSON_ARRAY, &tools, e);
    field_of_type(body, "prompt", JSON_STRING, &text, e);
    field_of_type(body, "content", JSON_STRING, &text, e);
    field_bool(body, "parse_special", &special, e);
    field_bool(body, "enable_thinking", &thinking, e);
    if (e->http || !messages == !text)
        return api_refuse(e, "content", "expected \"content\" (or \"prompt\"), a string, or \"messages\"");
    if (messages) {
        json_t *conversation = json_pack("{sO,sO*}", "messages", messages, "tools", tools);
        if (!conversation)
            return api_fail(e, 503, "out of memory");
        prompt_of_conversation(s->text, conversation, thinking, prompt, &err);
        json_decref(conversation);
    } else {
        const qwen3_text_range plain = {0, json_string_length(text)};
        const qwen3_encode_args args = {json_string_value(text), plain.end, &plain, !special && plain.end > 0};
        qwen3_tokenizer_encode(s->text->tokenizer, &args, &prompt->tokens, &prompt->n, &err);
    }
    return err.status == QWEN3_OK || api_fail_status(e, messages ? "messages" : "content", &err);
}

void tokenize_reply(service *s, http_exchange *x)
{
    static const char *const names[] = {"model", "content",       "prompt",          "messages",
                                        "tools", "parse_special", "enable_thinking", NULL};
    size_t n;
    const char *text = http_body(x, &n);
    api_error e = {0};
    token_prompt prompt = {0};
    json_t *body = fields_parse(text, n, &e);
    if (!body || !request_check_names(body, names, &e) || !request_check_model(body, s->defaults.model, &e) ||
        !encode(s, body, &prompt, &e)) {
        service_refuse(s, x, &e);
    } else {
        json_t *tokens = json_array();
        for (size_t i = 0; i < prompt.n; i++)
            json_array_append_new(tokens, json_integer(prompt.tokens[i]));
        service_reply(s, x, 200,
                      json_pack("{so,sI,sI}", "tokens", tokens, "count", (json_int_t)prompt.n, "max_model_len",
                                (json_int_t)s->text->context));
    }
    free(prompt.tokens);
    json_decref(body);
}

/* The text of the ids, with control tokens. */
static json_t *decode(const service *s, const json_t *ids, api_error *e)
{
    const size_t n = json_array_size(ids);
    int32_t *tokens = calloc(n + 1, sizeof *tokens);
    char *text = NULL;
    size_t length = 0, i;
    json_t *id, *string = NULL;
    qwen3_error err = {0};
    if (!tokens)
        api_fail(e, 503, "out of memory");
    json_array_foreach(ids, i, id)
    {
        const json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value >= s->defaults.n_tokens)
            api_refuse(e, "tokens", "tokens[%zu]: expected a token id below %d", i, s->defaults.n_tokens);
        else if (tokens)
            tokens[i] = (int32_t)value;
    }
    if (!e->http && qwen3_tokenizer_decode(s->text->tokenizer, tokens, n, false, &text, &length, &err) != QWEN3_OK)
        api_fail_status(e, "tokens", &err);
    if (!e->http)
        string = json_stringn(text, length);
    free(text);
    free(tokens);
    return string;
}

void detokenize_reply(service *s, http_exchange *x)
{
    static const char *const names[] = {"model", "tokens", NULL};
    size_t n;
    const char *text = http_body(x, &n);
    api_error e = {0};
    json_t *body = fields_parse(text, n, &e), *tokens = NULL, *content = NULL;
    if (body && request_check_names(body, names, &e) && request_check_model(body, s->defaults.model, &e) &&
        field_of_type(body, "tokens", JSON_ARRAY, &tokens, &e)) {
        if (!tokens)
            api_refuse(&e, "tokens", "tokens: expected an array of token ids");
        content = e.http ? NULL : decode(s, tokens, &e);
    }
    if (e.http)
        service_refuse(s, x, &e);
    else
        service_reply(s, x, 200, json_pack("{so}", "content", content));
    json_decref(body);
}
