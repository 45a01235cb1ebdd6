/* request_chat.c - see request_chat.h. */
#include "request_chat.h"

#include <string.h>

#include "fields.h"

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
        if (json_is_true(json_object_get(function, "strict")))
            return api_refuse(e, "tools",
                              "tools[%zu]: strict: only false is supported, arguments are what the model "
                              "writes",
                              i);
    }
    return true;
}

static bool take_tools(generation_request *r, api_error *e)
{
    json_t *tools = NULL, *choice = field_get(r->body, "tool_choice");
    const char *chosen = json_string_value(choice);
    if (!field_of_type(r->body, "tools", JSON_ARRAY, &tools, e) || !check_tools(tools, e))
        return false;
    field_bool(r->body, "parallel_tool_calls", &r->parallel_tool_calls, e);
    if (choice && (!chosen || (strcmp(chosen, "auto") != 0 && strcmp(chosen, "none") != 0)))
        return api_refuse(e, "tool_choice", "tool_choice: this server supports \"auto\" and \"none\"");
    if (json_array_size(tools) > 0 && (!chosen || strcmp(chosen, "auto") == 0))
        r->tools = tools;
    return !e->http;
}

static bool take_format(generation_request *r, api_error *e)
{
    json_t *format = NULL, *modalities = NULL;
    if (!field_of_type(r->body, "response_format", JSON_OBJECT, &format, e) ||
        !field_of_type(r->body, "modalities", JSON_ARRAY, &modalities, e))
        return false;
    const char *type = json_string_value(json_object_get(format, "type"));
    if (format && (!type || strcmp(type, "text") != 0))
        return api_refuse(e, "response_format", "response_format: this server supports {\"type\": \"text\"}");
    const char *modality = json_string_value(json_array_get(modalities, 0));
    if (modalities && (json_array_size(modalities) != 1 || !modality || strcmp(modality, "text") != 0))
        return api_refuse(e, "modalities", "modalities: this server supports [\"text\"]");
    return true;
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
    return take_thinking(r, defaults, e) && take_tools(r, e) && take_format(r, e) && !e->http;
}
