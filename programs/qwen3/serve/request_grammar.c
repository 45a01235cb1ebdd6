/* request_grammar.c - see request_grammar.h. */
#include "request_grammar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static qwen3_grammar *compile(const json_t *schema, const char *param, const char *where, api_error *e)
{
    qwen3_error err = {0};
    qwen3_grammar *grammar = NULL;
    char *text = schema ? json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (!text)
        api_fail(e, 503, "out of memory");
    else if (qwen3_grammar_open(text, strlen(text), &grammar, &err) != QWEN3_OK && err.status == QWEN3_ERR_MEMORY)
        api_fail_status(e, param, &err);
    else if (err.status != QWEN3_OK)
        api_refuse(e, param, "%s: %.600s", where, err.message);
    free(text);
    return grammar;
}

bool request_content_grammar(generation_request *r, json_t *schema, const char *where, api_error *e)
{
    r->content_grammar = compile(schema, "response_format", where, e);
    return r->content_grammar != NULL;
}

/* The schema of the arguments. It has an id, so that its references remain its own inside a larger schema; NULL = out
 * of memory. */
static json_t *arguments_schema(const json_t *function, size_t i, bool strict)
{
    char id[32];
    json_t *parameters = json_object_get(function, "parameters");
    if (!strict)
        return json_pack("{ss}", "type", "object");
    json_t *schema = json_is_object(parameters) ? json_copy(parameters)
                                                : json_pack("{ss,sb}", "type", "object", "additionalProperties", 0);
    snprintf(id, sizeof id, "tool-%zu", i);
    if (schema && !json_object_get(schema, "type"))
        json_object_set_new(schema, "type", json_string("object"));
    json_object_set_new(schema, "$id", json_string(id));
    return schema;
}

/* The schema of a call; NULL after a fault. */
static json_t *call_schema(const json_t *tool, size_t i, bool all_strict, api_error *e)
{
    const json_t *function = json_object_get(tool, "function");
    const bool strict = all_strict || json_is_true(json_object_get(function, "strict"));
    json_t *arguments = arguments_schema(function, i, strict);
    char where[64];
    snprintf(where, sizeof where, "tools[%zu].function.parameters", i);
    qwen3_grammar *alone = compile(arguments, "tools", where, e);
    qwen3_grammar_close(alone);
    json_t *call = alone ? json_pack("{ss,s{s{sO},sO},s[ss],sb}", "type", "object", "properties", "name", "const",
                                     json_object_get(function, "name"), "arguments", arguments, "required", "name",
                                     "arguments", "additionalProperties", 0)
                         : NULL;
    json_decref(arguments);
    return call;
}

bool request_call_grammar(generation_request *r, const char *only, bool all_strict, api_error *e)
{
    size_t i;
    json_t *tool, *calls = json_array();
    json_array_foreach(r->tools, i, tool)
    {
        const char *name = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (only && strcmp(name, only) != 0)
            continue;
        json_t *call = call_schema(tool, i, all_strict, e);
        if (!call || json_array_append_new(calls, call) < 0)
            break;
    }
    json_t *any = json_pack("{so}", "anyOf", calls);
    if (!e->http && i < json_array_size(r->tools))
        api_fail(e, 503, "out of memory");
    if (!e->http)
        r->call_grammar = compile(any, "tools", "tools", e);
    json_decref(any);
    return r->call_grammar != NULL;
}
