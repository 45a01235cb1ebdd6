/* logprobs.c - see logprobs.h. */
#include "logprobs.h"

#include <stdlib.h>

#define LEAST -9999.0 /* JSON has no infinity */

static json_t *number(float logprob)
{
    return json_real(logprob > LEAST ? logprob : LEAST);
}

/* Bytes that are no character by themselves are U+FFFD in "token"; "bytes" has them. */
static json_t *token_text(const qwen3_tokenizer *tokenizer, int32_t token)
{
    char *text;
    size_t n;
    if (qwen3_tokenizer_decode(tokenizer, &token, 1, false, &text, &n, NULL) != QWEN3_OK)
        return NULL;
    json_t *string = json_stringn(text, n);
    free(text);
    return string;
}

static json_t *token_bytes(const qwen3_tokenizer *tokenizer, int32_t token)
{
    size_t n = 0;
    const char *bytes = qwen3_tokenizer_token(tokenizer, token, &n);
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer((unsigned char)bytes[i]));
    return array;
}

static json_t *entry(const qwen3_tokenizer *tokenizer, int32_t token, float logprob)
{
    return json_pack("{so,so,so}", "token", token_text(tokenizer, token), "logprob", number(logprob), "bytes",
                     token_bytes(tokenizer, token));
}

qwen3_status logprobs_add(json_t *entries, const qwen3_tokenizer *tokenizer, const engine_event *event, bool chat,
                          qwen3_error *err)
{
    json_t *top = chat ? json_array() : json_object(), *own = entry(tokenizer, event->token, event->logprob);
    bool complete = true;
    for (int i = 0; i < event->n_top && complete; i++) {
        json_t *other = entry(tokenizer, event->top[i].token, event->top[i].logprob);
        if (chat)
            complete = json_array_append(top, other) == 0;
        else
            complete = json_object_set(top, json_string_value(json_object_get(other, "token")),
                                       json_object_get(other, "logprob")) == 0;
        json_decref(other);
    }
    complete = json_object_set_new(own, "top_logprobs", top) == 0 && complete;
    if (json_array_append_new(entries, own) != 0 || !complete)
        return set_error(err, QWEN3_ERR_MEMORY, "log probabilities: out of memory");
    return QWEN3_OK;
}

static size_t count_characters(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

json_t *logprobs_json(const json_t *entries, size_t begin, bool chat, size_t *characters)
{
    json_t *tokens = json_array(), *logprobs = json_array(), *top = json_array(), *offsets = json_array();
    bool complete = true;
    for (size_t i = begin; i < json_array_size(entries) && complete; i++) {
        json_t *one = json_array_get(entries, i), *token = json_object_get(one, "token");
        complete = json_array_append(tokens, chat ? one : token) == 0 &&
                   json_array_append(logprobs, json_object_get(one, "logprob")) == 0 &&
                   json_array_append(top, json_object_get(one, "top_logprobs")) == 0 &&
                   json_array_append_new(offsets, json_integer((json_int_t)*characters)) == 0;
        *characters += count_characters(json_string_value(token));
    }
    json_t *object = NULL;
    if (complete && chat)
        object = json_pack("{sO,sn}", "content", tokens, "refusal");
    else if (complete)
        object = json_pack("{sO,sO,sO,sO}", "tokens", tokens, "token_logprobs", logprobs, "top_logprobs", top,
                           "text_offset", offsets);
    json_decref(tokens);
    json_decref(logprobs);
    json_decref(top);
    json_decref(offsets);
    return object;
}
