/* chat_conversation.c - see chat_conversation.h. Every fault names the message and the member. */
#include "io/chat_conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"

/* The member `key` of `where` ("messages[2]." or "") is not what was expected; value NULL: it is missing. */
static qwen3_status fail_member(qwen3_error *err, const char *where, const char *key, const json_t *value,
                                const char *expected)
{
    if (!value)
        return fail(err, QWEN3_ERR_ARGUMENT, "%s%s is missing, expected %s", where, key, expected);
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    fail(err, QWEN3_ERR_ARGUMENT, "%s%s: got %.80s, expected %s", where, key, text ? text : "?", expected);
    free(text);
    return QWEN3_ERR_ARGUMENT;
}

static chat_text text_of(const json_t *string)
{
    return (chat_text){json_string_value(string), json_string_length(string)};
}

/* ---- One message ------------------------------------------------------------------------------- */

static qwen3_status read_role(const json_t *object, const char *where, chat_role *role, qwen3_error *err)
{
    static const char *const names[] = {"system", "user", "assistant", "tool"};
    const json_t *value = json_object_get(object, "role");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (json_string_length(value) == strlen(names[i]) && strcmp(json_string_value(value), names[i]) == 0) {
            *role = (chat_role)i;
            return QWEN3_OK;
        }
    }
    return fail_member(err, where, "role", value, "\"system\", \"user\", \"assistant\" or \"tool\"");
}

static qwen3_status read_content(const json_t *object, const char *where, bool null_allowed, bool missing_allowed,
                                 chat_message *message, qwen3_error *err)
{
    const json_t *value = json_object_get(object, "content");
    message->content = (chat_text){"", 0};
    if (json_is_string(value)) {
        message->has_content = true;
        message->content = text_of(value);
        return QWEN3_OK;
    }
    if (value ? json_is_null(value) && null_allowed : missing_allowed)
        return QWEN3_OK;
    return fail_member(err, where, "content", value, null_allowed ? "a string or null" : "a string");
}

static qwen3_status check_tool_call(const json_t *call, const char *where, qwen3_error *err)
{
    if (!json_is_object(call))
        return fail_member(err, where, "", call, "an object");
    const json_t *function = json_object_get(call, "function"), *called = chat_called_function(call);
    if (function && !json_is_null(function) && !json_is_object(function))
        return fail_member(err, where, ".function", function, "an object");
    const json_t *name = json_object_get(called, "name"), *arguments = json_object_get(called, "arguments");
    const char *inside = called == call ? "" : ".function";
    char prefix[112];
    snprintf(prefix, sizeof prefix, "%s%s.", where, inside);
    if (!json_is_string(name))
        return fail_member(err, prefix, "name", name, "a string");
    if (!arguments)
        return fail_member(err, prefix, "arguments", NULL, "an object or a string");
    return QWEN3_OK;
}

static qwen3_status read_tool_calls(const json_t *object, size_t index, const json_t **tool_calls, qwen3_error *err)
{
    const json_t *calls = json_object_get(object, "tool_calls");
    char where[80];
    *tool_calls = json_array_size(calls) > 0 ? calls : NULL;
    if (!calls || json_is_null(calls))
        return QWEN3_OK;
    snprintf(where, sizeof where, "messages[%zu].", index);
    if (!json_is_array(calls))
        return fail_member(err, where, "tool_calls", calls, "an array of objects");
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call)
    {
        snprintf(where, sizeof where, "messages[%zu].tool_calls[%zu]", index, i);
        qwen3_status status = check_tool_call(call, where, err);
        if (status)
            return status;
    }
    return QWEN3_OK;
}

static qwen3_status read_message(const json_t *object, size_t index, chat_null_content null_content,
                                 chat_message *message, qwen3_error *err)
{
    char where[48];
    snprintf(where, sizeof where, "messages[%zu]", index);
    if (!json_is_object(object))
        return fail_member(err, where, "", object, "an object");
    snprintf(where, sizeof where, "messages[%zu].", index);
    qwen3_status status = read_role(object, where, &message->role, err);
    if (status)
        return status;
    if (message->role == CHAT_ASSISTANT) {
        const json_t *reasoning = json_object_get(object, "reasoning_content");
        message->has_reasoning = json_is_string(reasoning);
        if (message->has_reasoning)
            message->reasoning = text_of(reasoning);
        else if (reasoning && !json_is_null(reasoning))
            return fail_member(err, where, "reasoning_content", reasoning, "a string or null");
        if ((status = read_tool_calls(object, index, &message->tool_calls, err)))
            return status;
    }
    bool null_allowed =
        message->tool_calls || (null_content == CHAT_NULL_ALLOWED && !(index == 0 && message->role == CHAT_SYSTEM));
    return read_content(object, where, null_allowed, message->tool_calls != NULL, message, err);
}

const json_t *chat_called_function(const json_t *tool_call)
{
    const json_t *function = json_object_get(tool_call, "function");
    return json_object_size(function) > 0 ? function : tool_call;
}

/* ---- The whole --------------------------------------------------------------------------------- */

static qwen3_status read_messages(const json_t *array, chat_null_content null_content, chat_conversation *c,
                                  qwen3_error *err)
{
    size_t i;
    json_t *object;
    if (!json_is_array(array))
        return fail_member(err, "", "messages", array, "an array of messages");
    if (json_array_size(array) == 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "messages: the array is empty, expected at least one message");
    c->messages = calloc(json_array_size(array), sizeof *c->messages);
    if (!c->messages)
        return fail(err, QWEN3_ERR_MEMORY, "messages: out of memory");
    json_array_foreach(array, i, object)
    {
        qwen3_status status = read_message(object, i, null_content, &c->messages[c->n++], err);
        if (status)
            return status;
    }
    return QWEN3_OK;
}

static qwen3_status read_tools(const json_t *array, chat_conversation *c, qwen3_error *err)
{
    size_t i;
    json_t *tool;
    if (!array || json_is_null(array))
        return QWEN3_OK;
    if (!json_is_array(array))
        return fail_member(err, "", "tools", array, "an array of objects");
    json_array_foreach(array, i, tool)
    {
        char where[32];
        snprintf(where, sizeof where, "tools[%zu]", i);
        if (!json_is_object(tool))
            return fail_member(err, where, "", tool, "an object");
    }
    c->tools = json_array_size(array) > 0 ? array : NULL;
    return QWEN3_OK;
}

static qwen3_status read_flag(const json_t *root, const char *key, bool *flag, qwen3_error *err)
{
    const json_t *value = json_object_get(root, key);
    if (!value)
        return QWEN3_OK;
    if (!json_is_boolean(value))
        return fail_member(err, "", key, value, "true or false");
    *flag = json_is_true(value);
    return QWEN3_OK;
}

static qwen3_status read_root(chat_conversation *c, chat_null_content null_content, qwen3_error *err)
{
    const json_t *tools = json_object_get(c->root, "tools");
    if (c->tools_root && tools)
        return fail(err, QWEN3_ERR_ARGUMENT, "tools: got them both in the conversation and beside it, expected one");
    if (!json_is_array(c->root) && !json_is_object(c->root))
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "conversation: expected an array of messages, or an object that holds \"messages\"");
    qwen3_status status =
        read_messages(json_is_array(c->root) ? c->root : json_object_get(c->root, "messages"), null_content, c, err);
    if (status || (status = read_tools(c->tools_root ? c->tools_root : tools, c, err)) ||
        (status = read_flag(c->root, "enable_thinking", &c->options.enable_thinking, err)))
        return status;
    return read_flag(c->root, "add_generation_prompt", &c->options.add_generation_prompt, err);
}

qwen3_status chat_conversation_read(const qwen3_render_args *args, chat_null_content null_content,
                                    chat_conversation *conversation, qwen3_error *err)
{
    enum { FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL };
    chat_conversation *c = conversation;
    *c = (chat_conversation){.options = args->options ? *args->options : qwen3_chat_options_default()};
    qwen3_status status =
        json_value_load("conversation", args->conversation, args->conversation_bytes, FLAGS, &c->root, err);
    if (!status && args->tools)
        status = json_value_load("tools", args->tools, args->tools_bytes, FLAGS, &c->tools_root, err);
    if (!status)
        status = read_root(c, null_content, err);
    if (status)
        chat_conversation_free(c);
    return status;
}

void chat_conversation_free(chat_conversation *conversation)
{
    free(conversation->messages);
    json_decref(conversation->tools_root);
    json_decref(conversation->root);
    *conversation = (chat_conversation){0};
}
