/* request_responses.c - see request_responses.h.
 *
 * Input items become messages: reasoning, the text of the assistant and its calls that follow each other are one
 * message of the assistant, as the model wrote them. */
#include "request_responses.h"

#include <stdio.h>
#include <string.h>

#include "fields.h"
#include "request.h"

/* Members that a chat has with the same name and meaning. */
#define PASSED                                                                                                         \
    "model", "stream", "seed", "logit_bias", "frequency_penalty", "presence_penalty", "temperature", "top_p", "top_k", \
        "min_p", "repetition_penalty", "parallel_tool_calls", "enable_thinking", "chat_template_kwargs", "user",       \
        "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"

static const char *const passed[] = {PASSED, NULL};
static const char *const known[] = {PASSED,           "input",   "instructions",         "max_output_tokens",
                                    "tools",          "text",    "tool_choice",          "reasoning",
                                    "top_logprobs",   "include", "previous_response_id", "store",
                                    "conversation",   "prompt",  "background",           "truncation",
                                    "stream_options", NULL};

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* Sets a member, or appends to an array where name is NULL; the value is owned from here on, NULL = out of memory. */
static bool put(json_t *into, const char *name, json_t *value, api_error *e)
{
    const int failed = name ? json_object_set_new(into, name, value) : json_array_append_new(into, value);
    return failed == 0 || api_fail(e, 503, "out of memory");
}

/* ---- Input -------------------------------------------------------------------------------------- */

/* The text of a content: a string, or parts with a text; NULL on failure. */
static json_t *take_content(const json_t *content, const char *where, api_error *e)
{
    static const char *const types[] = {"input_text", "output_text", "reasoning_text", "text"};
    size_t i;
    json_t *part, *parts = json_array();
    if (json_is_string(content)) {
        json_decref(parts);
        return json_incref((json_t *)content);
    }
    if (!json_is_array(content))
        api_refuse(e, "input", "%s: expected a string or an array of parts", where);
    json_array_foreach(content, i, part)
    {
        const json_t *type = json_object_get(part, "type");
        size_t t = 0;
        while (t < sizeof types / sizeof *types && !is_text(type, types[t]))
            t++;
        if (t == sizeof types / sizeof *types || !json_is_string(json_object_get(part, "text")))
            api_refuse(e, "input", "%s[%zu]: this server takes texts: expected an \"input_text\" or \"output_text\"",
                       where, i);
        else
            put(parts, NULL, json_pack("{ss,sO}", "type", "text", "text", json_object_get(part, "text")), e);
    }
    if (!e->http)
        return parts;
    json_decref(parts);
    return NULL;
}

/* The message of the assistant that an item goes on with, if the last message is one and has none of the members that
 * would have to follow; otherwise a new one. Borrowed; NULL = out of memory. */
static json_t *assistant_turn(json_t *messages, const char *const *later, api_error *e)
{
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    bool fits = is_text(json_object_get(last, "role"), "assistant");
    for (; *later; later++) {
        const json_t *member = json_object_get(last, *later);
        fits = fits && !json_is_array(member) && json_string_length(member) == 0;
    }
    if (fits)
        return last;
    last = json_pack("{ss,ss}", "role", "assistant", "content", "");
    return put(messages, NULL, last, e) ? last : NULL;
}

static bool add_message(json_t *messages, const json_t *item, const char *where, api_error *e)
{
    static const char *const later[] = {"content", "tool_calls", NULL};
    char place[64];
    const json_t *role = json_object_get(item, "role");
    if (!is_text(role, "user") && !is_text(role, "assistant") && !is_text(role, "system") &&
        !is_text(role, "developer"))
        return api_refuse(e, "input", "%s.role: expected \"user\", \"assistant\", \"system\" or \"developer\"", where);
    snprintf(place, sizeof place, "%s.content", where);
    json_t *content = take_content(json_object_get(item, "content"), place, e);
    if (!content)
        return false;
    if (is_text(role, "assistant"))
        return put(assistant_turn(messages, later, e), "content", content, e);
    return put(messages, NULL, json_pack("{sO,so}", "role", role, "content", content), e);
}

/* Parts of reasoning are joined by line breaks, as a template wants one text. */
static bool add_reasoning(json_t *messages, const json_t *item, const char *where, api_error *e)
{
    static const char *const later[] = {"reasoning_content", "content", "tool_calls", NULL};
    size_t i;
    json_t *part, *text = json_string("");
    json_array_foreach(json_object_get(item, "content"), i, part)
    {
        const char *piece = json_string_value(json_object_get(part, "text"));
        if (!piece)
            api_refuse(e, "input", "%s.content[%zu]: expected a \"reasoning_text\"", where, i);
        json_t *longer = json_pack("s++", json_string_value(text), i ? "\n" : "", piece ? piece : "");
        json_decref(text);
        text = longer;
    }
    if (!e->http && json_string_length(text) > 0)
        return put(assistant_turn(messages, later, e), "reasoning_content", text, e);
    json_decref(text);
    return !e->http;
}

static bool add_call(json_t *messages, const json_t *item, const char *where, api_error *e)
{
    static const char *const later[] = {NULL};
    json_t *name = json_object_get(item, "name"), *id = json_object_get(item, "call_id");
    json_t *arguments = json_object_get(item, "arguments");
    if (!json_is_string(name) || !json_is_string(id) || !json_is_string(arguments))
        return api_refuse(e, "input", "%s: expected strings \"call_id\", \"name\" and \"arguments\"", where);
    json_t *turn = assistant_turn(messages, later, e);
    if (!json_object_get(turn, "tool_calls") && !put(turn, "tool_calls", json_array(), e))
        return false;
    json_t *function = json_pack("{sO,sO}", "name", name, "arguments", arguments);
    return put(json_object_get(turn, "tool_calls"), NULL,
               json_pack("{sO,ss,so}", "id", id, "type", "function", "function", function), e);
}

static bool add_output(json_t *messages, const json_t *item, const char *where, api_error *e)
{
    char place[64];
    json_t *id = json_object_get(item, "call_id");
    if (!json_is_string(id))
        return api_refuse(e, "input", "%s: expected a string \"call_id\"", where);
    snprintf(place, sizeof place, "%s.output", where);
    json_t *content = take_content(json_object_get(item, "output"), place, e);
    return content &&
           put(messages, NULL, json_pack("{ss,sO,so}", "role", "tool", "tool_call_id", id, "content", content), e);
}

static bool add_item(json_t *messages, const json_t *item, const char *where, api_error *e)
{
    static const struct {
        const char *type;
        bool (*add)(json_t *messages, const json_t *item, const char *where, api_error *e);
    } kinds[] = {{"message", add_message},
                 {"reasoning", add_reasoning},
                 {"function_call", add_call},
                 {"function_call_output", add_output}};
    const json_t *type = field_get(item, "type");
    if (json_is_object(item) && !type)
        return add_message(messages, item, where, e);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (is_text(type, kinds[k].type))
            return kinds[k].add(messages, item, where, e);
    return api_refuse(e, "input",
                      "%s: expected an item of type message, function_call, function_call_output or reasoning "
                      "(this server stores none that could be referred to)",
                      where);
}

/* Sets "messages" of the chat. */
static bool take_input(const json_t *body, json_t *chat, api_error *e)
{
    size_t i;
    char where[32];
    const char *instructions = NULL;
    json_t *item, *messages = json_array(), *input = field_get(body, "input");
    if (!put(chat, "messages", messages, e) || !field_string(body, "instructions", &instructions, e))
        return false;
    if (instructions && !put(messages, NULL, json_pack("{ss,ss}", "role", "system", "content", instructions), e))
        return false;
    if (json_is_string(input))
        return put(messages, NULL, json_pack("{ss,sO}", "role", "user", "content", input), e);
    if (json_array_size(input) == 0)
        return api_refuse(e, "input", "input: expected a string, or an array with at least one item");
    json_array_foreach(input, i, item)
    {
        snprintf(where, sizeof where, "input[%zu]", i);
        if (!add_item(messages, item, where, e))
            return false;
    }
    return true;
}

/* ---- Tools, formats, reasoning ------------------------------------------------------------------ */

static bool take_tools(const json_t *body, json_t *chat, api_error *e)
{
    size_t i;
    json_t *tool, *tools = NULL, *wrapped = json_array(), *choice = field_get(body, "tool_choice");
    if (!put(chat, "tools", wrapped, e) || !field_of_type(body, "tools", JSON_ARRAY, &tools, e))
        return false;
    json_array_foreach(tools, i, tool)
    {
        static const char *const names[] = {"type", "name", "description", "parameters", "strict", NULL};
        if (!is_text(json_object_get(tool, "type"), "function"))
            return api_refuse(e, "tools", "tools[%zu]: expected \"type\": \"function\"", i);
        if (!request_check_names(tool, names, e))
            return false;
        json_t *function = json_copy(tool);
        json_object_del(function, "type");
        if (!put(wrapped, NULL, json_pack("{ss,so}", "type", "function", "function", function), e))
            return false;
    }
    if (is_text(json_object_get(choice, "type"), "function"))
        return put(chat, "tool_choice",
                   json_pack("{ss,s{sO*}}", "type", "function", "function", "name", json_object_get(choice, "name")),
                   e);
    if (choice && !json_is_string(choice))
        return api_refuse(e, "tool_choice",
                          "tool_choice: expected \"auto\", \"none\", \"required\", or "
                          "{\"type\": \"function\", \"name\": ...}");
    return !choice || put(chat, "tool_choice", json_incref(choice), e);
}

/* {"format": {"type": ..., "schema": ...}}: what the format of a chat has inside "json_schema" is beside its type. */
static bool take_text(const json_t *body, json_t *chat, api_error *e)
{
    static const char *const names[] = {"format", "verbosity", NULL};
    json_t *text = NULL, *format = NULL;
    const char *verbosity = "medium";
    if (!field_of_type(body, "text", JSON_OBJECT, &text, e) || !text)
        return !e->http;
    if (!request_check_names(text, names, e) || !field_string(text, "verbosity", &verbosity, e))
        return false;
    if (strcmp(verbosity, "medium") != 0)
        return api_refuse(e, "text.verbosity", "text.verbosity: this model has no degrees of it, only \"medium\"");
    if (!field_of_type(text, "format", JSON_OBJECT, &format, e) || !format)
        return !e->http;
    if (!is_text(json_object_get(format, "type"), "json_schema"))
        return put(chat, "response_format", json_incref(format), e);
    json_t *schema = json_copy(format);
    json_object_del(schema, "type");
    return put(chat, "response_format", json_pack("{ss,so}", "type", "json_schema", "json_schema", schema), e);
}

/* "auto" leaves it to the model whether there is a summary; this one makes none. */
static bool take_reasoning(const json_t *body, json_t *chat, api_error *e)
{
    static const char *const names[] = {"effort", "summary", "generate_summary", NULL};
    json_t *reasoning = NULL, *effort;
    const char *summary = "auto";
    if (!field_of_type(body, "reasoning", JSON_OBJECT, &reasoning, e) || !reasoning)
        return !e->http;
    if (!request_check_names(reasoning, names, e) || !field_string(reasoning, "generate_summary", &summary, e) ||
        !field_string(reasoning, "summary", &summary, e))
        return false;
    if (strcmp(summary, "auto") != 0)
        return api_refuse(e, "reasoning.summary", "reasoning.summary: only \"auto\": reasoning comes as it is");
    effort = field_get(reasoning, "effort");
    return !effort || put(chat, "reasoning_effort", json_incref(effort), e);
}

/* ---- The rest ----------------------------------------------------------------------------------- */

/* Encrypted reasoning is for servers that do not show it: here items have its text, which may be sent again. */
static bool take_include(const json_t *body, json_t *chat, api_error *e)
{
    size_t i;
    json_t *one, *include = NULL;
    int64_t top = 0;
    field_of_type(body, "include", JSON_ARRAY, &include, e);
    field_int(body, "top_logprobs", 0, REQUEST_MOST_TOP_LOGPROBS, &top, e);
    bool logprobs = top > 0;
    json_array_foreach(include, i, one)
    {
        if (is_text(one, "message.output_text.logprobs"))
            logprobs = true;
        else if (!is_text(one, "reasoning.encrypted_content"))
            return api_refuse(e, "include",
                              "include[%zu]: expected \"message.output_text.logprobs\" or "
                              "\"reasoning.encrypted_content\"",
                              i);
    }
    return !e->http && put(chat, "logprobs", json_boolean(logprobs), e) &&
           put(chat, "top_logprobs", json_integer(top), e);
}

/* This server keeps nothing between requests. */
static bool check_stateless(const json_t *body, api_error *e)
{
    static const char *const absent[] = {"previous_response_id", "conversation", "prompt"};
    bool store = false, background = false;
    const char *truncation = "disabled";
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (field_get(body, absent[i]))
            return api_refuse(e, absent[i], "%s: this server stores nothing; send the whole conversation as input",
                              absent[i]);
    field_bool(body, "store", &store, e);
    field_bool(body, "background", &background, e);
    field_string(body, "truncation", &truncation, e);
    if (store)
        return api_refuse(e, "store", "store: this server stores no responses, only false is supported");
    if (background)
        return api_refuse(e, "background", "background: this server stores no responses, only false is supported");
    if (strcmp(truncation, "disabled") != 0)
        return api_refuse(e, "truncation", "truncation: only \"disabled\": a prompt that is too long is refused");
    return !e->http;
}

static bool take_limits(const json_t *body, json_t *chat, api_error *e)
{
    static const char *const names[] = {"include_obfuscation", NULL};
    int64_t most = 0;
    bool obfuscation = false;
    json_t *options = NULL;
    if (field_int(body, "max_output_tokens", 1, INT32_MAX, &most, e) && most)
        put(chat, "max_tokens", json_integer(most), e);
    if (field_of_type(body, "stream_options", JSON_OBJECT, &options, e) && options &&
        request_check_names(options, names, e))
        field_bool(options, "include_obfuscation", &obfuscation, e);
    return !e->http &&
           (!obfuscation || api_refuse(e, "stream_options", "include_obfuscation: only false is supported"));
}

json_t *request_of_responses(const json_t *body, api_error *e)
{
    json_t *chat = json_object();
    for (size_t i = 0; passed[i]; i++)
        if (field_get(body, passed[i]))
            put(chat, passed[i], json_incref(json_object_get(body, passed[i])), e);
    if (!e->http && request_check_names(body, known, e) && check_stateless(body, e) && take_limits(body, chat, e) &&
        take_include(body, chat, e) && take_reasoning(body, chat, e) && take_text(body, chat, e) &&
        take_tools(body, chat, e) && take_input(body, chat, e))
        return chat;
    json_decref(chat);
    return NULL;
}

void request_rename_fault(api_error *e)
{
    static const char *const names[][2] = {
        {"messages", "input"}, {"response_format", "text.format"}, {"reasoning_effort", "reasoning.effort"}};
    const api_error found = *e;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i][0]);
        if (strcmp(found.param, names[i][0]) != 0)
            continue;
        snprintf(e->param, sizeof e->param, "%s", names[i][1]);
        if (strncmp(found.message, names[i][0], n) == 0)
            snprintf(e->message, sizeof e->message, "%s%.700s", names[i][1], found.message + n);
    }
}
