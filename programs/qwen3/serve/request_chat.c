/* request_chat.c - see request_chat.h. */
#include "request_chat.h"

#include <string.h>

#include "fields.h"
#include "request_grammar.h"

static bool is_one_of(const char *text, const char *const *names)
{
    while (*names && strcmp(*names, text) != 0)
        names++;
    return *names != NULL;
}

/* enable_thinking, at the top or in chat_template_kwargs as other servers have it, and reasoning_effort. */
static bool take_thinking(generation_request *r, const request_defaults *defaults, api_error *e)
{
    static const char *const efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", NULL};
    static const char *const known[] = {"enable_thinking", NULL};
    bool on = defaults->thinking == QWEN3_THINKING_ALWAYS ||
              (defaults->thinking == QWEN3_THINKING_OPTIONAL && !defaults->no_thinking);
    const char *effort = NULL;
    json_t *arguments = NULL;
    if (field_string(r->body, "reasoning_effort", &effort, e) && effort) {
        if (!is_one_of(effort, efforts))
            return api_refuse(e, "reasoning_effort",
                              "reasoning_effort: expected none, minimal, low, medium, high or xhigh");
        on = strcmp(effort, "none") != 0;
    }
    field_bool(r->body, "enable_thinking", &on, e);
    if (field_of_type(r->body, "chat_template_kwargs", JSON_OBJECT, &arguments, e) && arguments &&
        request_check_names(arguments, known, e))
        field_bool(arguments, "enable_thinking", &on, e);
    if (e->http)
        return false;
    if (!on && defaults->thinking == QWEN3_THINKING_ALWAYS)
        return api_refuse(e, "enable_thinking", "this model always reasons");
    if (on && defaults->thinking == QWEN3_THINKING_NEVER)
        return api_refuse(e, "enable_thinking", "this model never reasons");
    r->thinking = on;
    return true;
}

/* Tools must be what their definitions are, because calls are read by them. */
static bool check_tools(const json_t *tools, api_error *e)
{
    size_t i;
    json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        const char *type = json_string_value(json_object_get(tool, "type"));
        const json_t *function = json_object_get(tool, "function");
        if (!type || strcmp(type, "function") != 0)
            return api_refuse(e, "tools", "tools[%zu]: expected \"type\": \"function\"", i);
        if (!json_is_string(json_object_get(function, "name")))
            return api_refuse(e, "tools", "tools[%zu]: expected a \"function\" with a \"name\"", i);
        const json_t *strict = json_object_get(function, "strict");
        if (strict && !json_is_boolean(strict) && !json_is_null(strict))
            return api_refuse(e, "tools", "tools[%zu]: strict: expected true or false", i);
    }
    return true;
}

static const json_t *find_tool(const json_t *tools, const char *name)
{
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function");
        if (strcmp(json_string_value(json_object_get(function, "name")), name) == 0)
            return tool;
    }
    return NULL;
}

/* *mode: "auto", "none" or "required"; *name: of the function that must be called, NULL = any. */
static bool take_choice(generation_request *r, const json_t *tools, const char **mode, const char **name, api_error *e)
{
    static const char *const modes[] = {"auto", "none", "required", NULL};
    const json_t *choice = field_get(r->body, "tool_choice");
    const char *type = json_string_value(json_object_get(choice, "type"));
    *mode = json_is_string(choice) ? json_string_value(choice) : "auto";
    *name = NULL;
    if (json_is_object(choice) && type && strcmp(type, "function") == 0) {
        *mode = "required";
        *name = json_string_value(json_object_get(json_object_get(choice, "function"), "name"));
    }
    if (!is_one_of(*mode, modes) || (choice && !json_is_string(choice) && !*name))
        return api_refuse(e, "tool_choice",
                          "tool_choice: expected \"auto\", \"none\", \"required\", or "
                          "{\"type\": \"function\", \"function\": {\"name\": ...}}");
    if (*name && !find_tool(tools, *name))
        return api_refuse(e, "tool_choice", "tool_choice: there is no function %.100s among the tools", *name);
    if (strcmp(*mode, "required") == 0 && json_array_size(tools) == 0)
        return api_refuse(e, "tool_choice", "tool_choice: \"required\" needs tools");
    return true;
}

static bool some_strict(const json_t *tools)
{
    size_t i;
    json_t *tool;
    json_array_foreach((json_t *)tools, i, tool)
    {
        if (json_is_true(json_object_get(json_object_get(tool, "function"), "strict")))
            return true;
    }
    return false;
}

/* After the format of content: where that has a grammar, calls have one too. */
static bool take_tools(generation_request *r, api_error *e)
{
    json_t *tools = NULL;
    const char *mode, *name;
    if (!field_of_type(r->body, "tools", JSON_ARRAY, &tools, e) || !check_tools(tools, e) ||
        !take_choice(r, tools, &mode, &name, e))
        return false;
    field_bool(r->body, "parallel_tool_calls", &r->parallel_tool_calls, e);
    if (e->http || json_array_size(tools) == 0 || strcmp(mode, "none") == 0)
        return !e->http;
    r->tools = tools;
    r->must_call = strcmp(mode, "required") == 0;
    if (!r->must_call && !r->content_grammar && !some_strict(tools))
        return true;
    return request_call_grammar(r, name, r->must_call, e);
}

static bool take_schema(generation_request *r, const json_t *format, api_error *e)
{
    static const char *const known[] = {"name", "description", "schema", "strict", NULL};
    json_t *schema = json_object_get(format, "json_schema");
    if (!json_is_object(schema) || !json_is_object(json_object_get(schema, "schema")))
        return api_refuse(e, "response_format", "response_format: expected \"json_schema\" with a \"schema\"");
    return request_check_names(schema, known, e) &&
           request_content_grammar(r, json_object_get(schema, "schema"), "response_format.json_schema.schema", e);
}

static bool take_json(generation_request *r, api_error *e)
{
    json_t *any = json_pack("{ss}", "type", "object");
    const bool done = request_content_grammar(r, any, "response_format", e);
    json_decref(any);
    return done;
}

static bool take_format(generation_request *r, api_error *e)
{
    static const char *const types[] = {"text", "json_object", "json_schema", NULL};
    json_t *format = NULL, *modalities = NULL;
    if (!field_of_type(r->body, "response_format", JSON_OBJECT, &format, e) ||
        !field_of_type(r->body, "modalities", JSON_ARRAY, &modalities, e))
        return false;
    const char *modality = json_string_value(json_array_get(modalities, 0));
    if (modalities && (json_array_size(modalities) != 1 || !modality || strcmp(modality, "text") != 0))
        return api_refuse(e, "modalities", "modalities: this server supports [\"text\"]");
    if (!format)
        return true;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (!type || !is_one_of(type, types))
        return api_refuse(e, "response_format",
                          "response_format: expected a \"type\", \"text\", \"json_object\" or \"json_schema\"");
    if (strcmp(type, "json_schema") == 0)
        return take_schema(r, format, e);
    return strcmp(type, "text") == 0 || take_json(r, e);
}

bool request_take_chat(generation_request *r, const request_defaults *defaults, api_error *e)
{
    int64_t top = 0;
    if (!field_of_type(r->body, "messages", JSON_ARRAY, &r->messages, e))
        return false;
    if (json_array_size(r->messages) == 0)
        return api_refuse(e, "messages", "messages: expected an array with at least one message");
    field_bool(r->body, "logprobs", &r->logprobs, e);
    field_int(r->body, "top_logprobs", 0, REQUEST_MOST_TOP_LOGPROBS, &top, e);
    if (top > 0 && !r->logprobs)
        return api_refuse(e, "top_logprobs", "top_logprobs: only with \"logprobs\": true");
    r->top_logprobs = (int)top;
    return take_thinking(r, defaults, e) && take_format(r, e) && take_tools(r, e) && !e->http;
}
