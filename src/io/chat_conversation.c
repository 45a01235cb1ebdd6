/* chat_conversation.c - see chat_conversation.h. Every fault names the message and the member. */
#include "io/chat_conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json_file.h"
#include "io/utf8.h"

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
    static const struct {
        const char *name;
        chat_role role;
    } roles[] = {{"system", CHAT_SYSTEM},
                 {"developer", CHAT_SYSTEM}, /* its later name elsewhere; templates know the first */
                 {"user", CHAT_USER},
                 {"assistant", CHAT_ASSISTANT},
                 {"tool", CHAT_TOOL}};
    const json_t *value = json_object_get(object, "role");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (json_string_length(value) == strlen(roles[i].name) &&
            strcmp(json_string_value(value), roles[i].name) == 0) {
            *role = roles[i].role;
            return QWEN3_OK;
        }
    }
    return fail_member(err, where, "role", value, "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"");
}

static qwen3_status append_part(const json_t *part, const char *where, text_buffer *text, qwen3_error *err)
{
    const json_t *type = json_object_get(part, "type"), *value = json_object_get(part, "text");
    if (!json_is_object(part))
        return fail_member(err, where, "", part, "an object");
    if (json_string_length(type) != 4 || strcmp(json_string_value(type), "text") != 0)
        return fail_member(err, where, ".type", type, "\"text\": nothing else is rendered");
    if (!json_is_string(value))
        return fail_member(err, where, ".text", value, "a string");
    return text_buffer_append(text, json_string_value(value), json_string_length(value), err);
}

/* Text in parts is one text with line breaks between them. The message gets it in their place, and owns it. */
static qwen3_status join_parts(json_t *object, const char *where, const json_t *parts, qwen3_error *err)
{
    text_buffer text = {0};
    qwen3_status status = text_buffer_reserve(&text, 1, err);
    for (size_t i = 0; i < json_array_size(parts) && !status; i++) {
        char name[80];
        snprintf(name, sizeof name, "%scontent[%zu]", where, i);
        if (i > 0)
            status = text_buffer_append(&text, "\n", 1, err);
        if (!status)
            status = append_part(json_array_get(parts, i), name, &text, err);
    }
    if (!status && json_object_set_new(object, "content", json_stringn((const char *)text.data, text.n)))
        status = fail(err, QWEN3_ERR_MEMORY, "%scontent: out of memory", where);
    text_buffer_free(&text);
    return status;
}

static qwen3_status read_content(json_t *object, const char *where, bool null_allowed, bool missing_allowed,
                                 chat_message *message, qwen3_error *err)
{
    if (json_is_array(json_object_get(object, "content"))) {
        const qwen3_status status = join_parts(object, where, json_object_get(object, "content"), err);
        if (status)
            return status;
    }
    const json_t *value = json_object_get(object, "content");
    message->content = (chat_text){"", 0};
    if (json_is_string(value)) {
        message->has_content = true;
        message->content = text_of(value);
        return QWEN3_OK;
    }
    if (value ? json_is_null(value) && null_allowed : missing_allowed)
        return QWEN3_OK;
    return fail_member(err, where, "content", value,
                       null_allowed ? "a string, an array of parts or null" : "a string or an array of parts");
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

static qwen3_status read_message(json_t *object, size_t index, chat_null_content null_content, chat_message *message,
                                 qwen3_error *err)
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

static qwen3_status read_root(chat_conversation *c, const chat_null_content null_content[2], qwen3_error *err)
{
    const json_t *tools = json_object_get(c->root, "tools");
    if (c->tools_root && tools)
        return fail(err, QWEN3_ERR_ARGUMENT, "tools: got them both in the conversation and beside it, expected one");
    if (!json_is_array(c->root) && !json_is_object(c->root))
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "conversation: expected an array of messages, or an object that holds \"messages\"");
    const json_t *messages = json_is_array(c->root) ? c->root : json_object_get(c->root, "messages");
    qwen3_status status = read_tools(c->tools_root ? c->tools_root : tools, c, err);
    if (status || (status = read_messages(messages, null_content[c->tools != NULL], c, err)) ||
        (status = read_flag(c->root, "enable_thinking", &c->options.enable_thinking, err)))
        return status;
    return read_flag(c->root, "add_generation_prompt", &c->options.add_generation_prompt, err);
}

qwen3_status chat_conversation_read(const qwen3_render_args *args, const chat_null_content null_content[2],
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
