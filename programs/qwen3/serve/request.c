/* request.c - see request.h. */
#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fields.h"
#include "request_chat.h"
#include "request_responses.h"

#define COMPLETION_TOKENS 16 /* max_tokens of /v1/completions, as the interface has it */

/* Parameters that both have. The last line changes no answer: accepted and not looked at. */
#define COMMON                                                                                                         \
    "model", "stream", "stream_options", "stop", "n", "seed", "logprobs", "logit_bias", "frequency_penalty",           \
        "presence_penalty", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "user",      \
        "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",        \
        "prediction"

static const char *const chat_names[] = {COMMON,
                                         "messages",
                                         "max_completion_tokens",
                                         "top_logprobs",
                                         "tools",
                                         "tool_choice",
                                         "parallel_tool_calls",
                                         "response_format",
                                         "reasoning_effort",
                                         "enable_thinking",
                                         "chat_template_kwargs",
                                         "modalities",
                                         NULL};
static const char *const completion_names[] = {COMMON, "prompt", "echo", "suffix", "best_of", NULL};

bool request_check_names(const json_t *body, const char *const *names, api_error *e)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name, value)
    {
        size_t i = 0;
        while (names[i] && strcmp(names[i], name) != 0)
            i++;
        if (!names[i] && !json_is_null(value))
            return api_refuse(e, name, "%.64s: this server does not have this parameter (docs/SERVER.md lists all)",
                              name);
    }
    return true;
}

bool request_check_model(const json_t *body, const char *model, api_error *e)
{
    const char *wanted = model;
    if (!field_string(body, "model", &wanted, e) || strcmp(wanted, model) == 0)
        return !e->http;
    return api_fail(e, 404, "model: \"%.200s\" is not here, this server has \"%.200s\"", wanted, model);
}

/* ---- Sampling ----------------------------------------------------------------------------------- */

static bool take_sampling(generation_request *r, const request_defaults *defaults, api_error *e)
{
    qwen3_sampling_options *s = &r->sampling;
    const json_t *body = r->body;
    int64_t top_k = s->top_k, seed = (int64_t)s->seed;
    field_number(body, "temperature", 0, 2, &s->temperature, e);
    field_number(body, "top_p", 0, 1, &s->top_p, e);
    field_number(body, "min_p", 0, 1, &s->min_p, e);
    field_number(body, "frequency_penalty", -2, 2, &s->frequency_penalty, e);
    field_number(body, "presence_penalty", -2, 2, &s->presence_penalty, e);
    field_number(body, "repetition_penalty", 0.01, 100, &s->repetition_penalty, e);
    field_int(body, "top_k", -1, INT32_MAX, &top_k, e);
    r->seeded = defaults->seeded || field_get(body, "seed");
    field_int(body, "seed", INT64_MIN, INT64_MAX, &seed, e);
    if (s->temperature > 0 && s->temperature < 1e-6)
        s->temperature = 0;
    s->top_k = top_k < 0 ? 0 : (int)top_k;
    s->seed = (uint64_t)seed;
    return !e->http;
}

/* {"ID": bias, ...}, each from -100, which forbids the token, to 100. */
static bool take_bias(generation_request *r, int32_t n_tokens, api_error *e)
{
    json_t *object = NULL, *value;
    const char *name;
    if (!field_of_type(r->body, "logit_bias", JSON_OBJECT, &object, e) || !object)
        return !e->http;
    r->bias = calloc(json_object_size(object) + 1, sizeof *r->bias);
    if (!r->bias)
        return api_fail(e, 503, "out of memory");
    json_object_foreach(object, name, value)
    {
        char *end;
        const long id = *name >= '0' && *name <= '9' ? strtol(name, &end, 10) : -1;
        const double bias = json_number_value(value);
        if (id < 0 || *end || id >= n_tokens)
            return api_refuse(e, "logit_bias", "logit_bias: expected token ids from 0 to %d as names", n_tokens - 1);
        if (!json_is_number(value) || !(bias >= -100 && bias <= 100))
            return api_refuse(e, "logit_bias", "logit_bias: expected numbers from -100 to 100");
        for (size_t i = 0; i < r->sampling.n_bias; i++)
            if (r->bias[i].token == (int32_t)id)
                return api_refuse(e, "logit_bias", "logit_bias: token %ld is given twice", id);
        r->bias[r->sampling.n_bias++] = (qwen3_logit_bias){(int32_t)id, bias <= -100 ? -INFINITY : (float)bias};
    }
    r->sampling.bias = r->bias;
    return true;
}

/* ---- Limits of an answer ------------------------------------------------------------------------ */

static bool add_stop(generation_request *r, json_t *value, api_error *e)
{
    const char *text = json_string_value(value);
    if (!text || !*text || strlen(text) != json_string_length(value))
        return api_refuse(e, "stop", "stop: expected strings that are not empty and have no zero byte");
    if (r->stop.n == REQUEST_MOST_STOPS)
        return api_refuse(e, "stop", "stop: expected at most %d strings", REQUEST_MOST_STOPS);
    r->stop.texts[r->stop.n++] = (char *)text;
    return true;
}

static bool take_stop(generation_request *r, api_error *e)
{
    size_t i;
    json_t *value = field_get(r->body, "stop"), *one;
    if (!value || (json_is_string(value) && json_string_length(value) == 0))
        return !e->http;
    if (!json_is_array(value))
        return add_stop(r, value, e);
    json_array_foreach(value, i, one)
    {
        if (!add_stop(r, one, e))
            return false;
    }
    return true;
}

static bool take_limits(generation_request *r, api_error *e)
{
    int64_t n = 1, most = 0;
    json_t *options = NULL;
    field_int(r->body, "n", 1, REQUEST_MOST_CHOICES, &n, e);
    r->n = (int)n;
    r->max_tokens = r->chat ? 0 : COMPLETION_TOKENS;
    field_int(r->body, "max_tokens", 1, INT32_MAX, &r->max_tokens, e);
    if (field_int(r->body, "max_completion_tokens", 1, INT32_MAX, &most, e) && most)
        r->max_tokens = most;
    field_bool(r->body, "stream", &r->stream, e);
    if (field_of_type(r->body, "stream_options", JSON_OBJECT, &options, e) && options) {
        static const char *const names[] = {"include_usage", "include_obfuscation", NULL};
        bool obfuscation = false;
        request_check_names(options, names, e);
        field_bool(options, "include_usage", &r->include_usage, e);
        field_bool(options, "include_obfuscation", &obfuscation, e);
        if (obfuscation)
            return api_refuse(e, "stream_options", "include_obfuscation: only false is supported");
        if (!r->stream)
            return api_refuse(e, "stream_options", "stream_options: only with \"stream\": true");
    }
    return take_stop(r, e);
}

/* ---- /v1/completions ---------------------------------------------------------------------------- */

static bool is_ids(const json_t *value, int32_t n_tokens)
{
    size_t i;
    json_t *id;
    if (!json_is_array(value) || json_array_size(value) == 0)
        return false;
    json_array_foreach(value, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= n_tokens)
            return false;
    }
    return true;
}

json_t *request_prompts(json_t *value, const char *name, int32_t n_tokens, api_error *e)
{
    size_t i;
    json_t *one;
    if (json_is_string(value) || is_ids(value, n_tokens))
        return json_pack("[O]", value);
    if (json_array_size(value) == 0) {
        api_refuse(e, name, "%s: expected a string, an array of token ids, or an array of these", name);
        return NULL;
    }
    json_array_foreach(value, i, one)
    {
        if (!json_is_string(one) && !is_ids(one, n_tokens)) {
            api_refuse(e, name, "%s[%zu]: expected a string, or an array of token ids below %d", name, i, n_tokens);
            return NULL;
        }
    }
    return json_incref(value);
}

static bool take_completion(generation_request *r, const request_defaults *defaults, api_error *e)
{
    int64_t top = -1, best_of = r->n;
    const char *suffix = "";
    r->prompts = request_prompts(field_get(r->body, "prompt"), "prompt", defaults->n_tokens, e);
    field_bool(r->body, "echo", &r->echo, e);
    field_int(r->body, "logprobs", 0, 5, &top, e);
    field_string(r->body, "suffix", &suffix, e);
    field_int(r->body, "best_of", 1, REQUEST_MOST_CHOICES, &best_of, e);
    r->logprobs = top >= 0;
    r->top_logprobs = top > 0 ? (int)top : 0;
    if (*suffix)
        return api_refuse(e, "suffix", "suffix: this model completes text at its end only");
    if (best_of != r->n)
        return api_refuse(e, "best_of", "best_of: only the same as n is supported");
    if (r->echo && r->logprobs)
        return api_refuse(e, "echo", "echo: not together with logprobs, which tokens of the prompt do not have");
    if (json_array_size(r->prompts) * (size_t)r->n > REQUEST_MOST_CHOICES)
        return api_refuse(e, "prompt", "prompt: prompts times n is %zu, expected at most %d",
                          json_array_size(r->prompts) * (size_t)r->n, REQUEST_MOST_CHOICES);
    return !e->http;
}

static bool take_body(generation_request *r, const request_defaults *defaults, api_error *e)
{
    if (!r->body || !request_check_names(r->body, r->chat ? chat_names : completion_names, e) ||
        !request_check_model(r->body, defaults->model, e) || !take_sampling(r, defaults, e) ||
        !take_bias(r, defaults->n_tokens, e) || !take_limits(r, e))
        return false;
    return r->chat ? request_take_chat(r, defaults, e) : take_completion(r, defaults, e);
}

bool request_parse(generation_request *r, request_form form, const char *text, size_t n,
                   const request_defaults *defaults, api_error *e)
{
    *r = (generation_request){
        .chat = form != REQUEST_COMPLETION, .sampling = defaults->sampling, .parallel_tool_calls = true};
    json_t *body = fields_parse(text, n, e);
    if (form == REQUEST_RESPONSE) {
        r->response = body;
        r->body = body ? request_of_responses(body, e) : NULL;
    } else {
        r->body = body;
    }
    if (take_body(r, defaults, e))
        return true;
    if (r->response && r->body)
        request_rename_fault(e);
    return false;
}

void request_free(generation_request *r)
{
    json_decref(r->body);
    json_decref(r->response);
    json_decref(r->prompts);
    qwen3_grammar_close(r->content_grammar);
    qwen3_grammar_close(r->call_grammar);
    free(r->bias);
    *r = (generation_request){0};
}
