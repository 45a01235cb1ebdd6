/* chat_template_coder.c - what the templates of Qwen3-Coder have of their own: tools are described, and called, in
 * tags. Names and order follow the templates. */
#include <stdio.h>
#include <string.h>

#include "io/chat_template.h"
#include "io/json_file.h"
#include "io/utf8.h"

/* ---- Values ------------------------------------------------------------------------------------ */

/* str.isspace of Python. */
static bool is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Without white space at both ends. */
static chat_text trim(chat_text text)
{
    size_t begin = text.length, end = 0, length;
    for (size_t at = 0; at < text.length; at += length) {
        if (is_space(utf8_decode((const unsigned char *)text.data + at, text.length - at, &length)))
            continue;
        begin = begin < at ? begin : at;
        end = at + length;
    }
    return end > begin ? (chat_text){text.data + begin, end - begin} : (chat_text){text.data, 0};
}

/* Objects are written as JSON, in the revised form lists too, anything else as Python does. */
static void add_value(chat_tools tools, const json_t *value, chat_builder *b)
{
    if (json_is_object(value) || (json_is_array(value) && tools == CHAT_TOOLS_XML_REVISED))
        chat_add_json(b, value);
    else
        chat_add_str(b, value);
}

static void add_name(const char *name, chat_builder *b)
{
    chat_add_content(b, (chat_text){name, strlen(name)});
}

/* ---- Definitions of tools ---------------------------------------------------------------------- */

static bool is_among(const char *key, const char *const *keys)
{
    while (*keys && strcmp(*keys, key) != 0)
        keys++;
    return *keys;
}

/* The members of an object that are not among `handled`, which ends with NULL. */
static void add_extra_keys(chat_tools tools, const json_t *object, const char *const *handled, chat_builder *b)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        if (is_among(key, handled))
            continue;
        chat_add(b, "\n<");
        add_name(key, b);
        chat_add(b, ">");
        add_value(tools, value, b);
        chat_add(b, "</");
        add_name(key, b);
        chat_add(b, ">");
    }
}

static void add_description(const json_t *object, chat_builder *b)
{
    const json_t *text = json_object_get(object, "description");
    if (!text)
        return;
    chat_add(b, "\n<description>");
    if (json_is_string(text))
        chat_add_content(b, trim((chat_text){json_string_value(text), json_string_length(text)}));
    else
        chat_add_str(b, text);
    chat_add(b, "</description>");
}

static void add_parameters(chat_tools tools, const json_t *parameters, chat_builder *b)
{
    static const char *const of_parameter[] = {"name", "type", "description", NULL};
    static const char *const of_parameters[] = {"type", "properties", NULL};
    const char *name;
    json_t *fields;
    chat_add(b, "\n<parameters>");
    json_object_foreach((json_t *)json_object_get(parameters, "properties"), name, fields)
    {
        chat_add(b, "\n<parameter>\n<name>");
        add_name(name, b);
        chat_add(b, "</name>");
        const json_t *type = json_object_get(fields, "type");
        if (type) {
            chat_add(b, "\n<type>");
            chat_add_str(b, type);
            chat_add(b, "</type>");
        }
        add_description(fields, b);
        add_extra_keys(tools, fields, of_parameter, b);
        chat_add(b, "\n</parameter>");
    }
    add_extra_keys(tools, parameters, of_parameters, b);
    chat_add(b, "\n</parameters>");
}

static void add_tool(chat_tools tools, const json_t *tool, chat_builder *b)
{
    static const char *const handled[] = {"type", "name", "description", "parameters", NULL};
    if (json_object_get(tool, "function"))
        tool = json_object_get(tool, "function");
    chat_add(b, "\n<function>\n<name>");
    if (json_object_get(tool, "name"))
        chat_add_str(b, json_object_get(tool, "name"));
    chat_add(b, "</name>");
    add_description(tool, b);
    add_parameters(tools, json_object_get(tool, "parameters"), b);
    add_extra_keys(tools, tool, handled, b);
    chat_add(b, "\n</function>");
}

void chat_coder_write_system(chat_tools tools, const chat_conversation *conversation, chat_builder *builder)
{
    chat_builder *b = builder;
    const chat_message *first = &conversation->messages[0];
    if (first->role != CHAT_SYSTEM && !conversation->tools)
        return;
    chat_add(b, "<|im_start|>system\n");
    if (first->role == CHAT_SYSTEM)
        chat_add_content(b, first->content);
    else
        chat_add(b, "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks.");
    if (conversation->tools) {
        chat_add(b, tools == CHAT_TOOLS_XML_REVISED ? "\n\n# Tools" : "");
        chat_add(b, "\n\nYou have access to the following functions:\n\n<tools>");
        for (size_t i = 0; i < json_array_size(conversation->tools); i++)
            add_tool(tools, json_array_get(conversation->tools, i), b);
        chat_add(b, "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:"
                    "\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n"
                    "</parameter>\n<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat "
                    "can span\nmultiple lines\n</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
                    "- Function calls MUST follow the specified format: an inner <function=...></function> block must "
                    "be nested within <tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n"
                    "- You may provide optional reasoning for your function call in natural language BEFORE the "
                    "function call, but NOT after\n- If there is no function call available, answer the question like "
                    "normal with your current knowledge and do not tell the user about function calls\n</IMPORTANT>");
    }
    chat_add(b, "<|im_end|>\n");
}

/* ---- Turns ------------------------------------------------------------------------------------- */

void chat_coder_write_calls(chat_tools tools, const chat_message *message, chat_builder *builder)
{
    chat_builder *b = builder;
    const chat_text content = trim(message->content);
    size_t i;
    json_t *call, *value;
    const char *name;
    chat_add(b, "<|im_start|>assistant");
    if (content.length > 0) {
        chat_add(b, "\n");
        chat_add_content(b, content);
        chat_add(b, "\n");
    }
    json_array_foreach(message->tool_calls, i, call)
    {
        const json_t *function = chat_called_function(call);
        chat_add(b, "\n<tool_call>\n<function=");
        chat_add_str(b, json_object_get(function, "name"));
        chat_add(b, ">\n");
        json_object_foreach(json_object_get(function, "arguments"), name, value)
        {
            chat_add(b, "<parameter=");
            add_name(name, b);
            chat_add(b, ">\n");
            add_value(tools, value, b);
            chat_add(b, "\n</parameter>\n");
        }
        chat_add(b, "</function>\n</tool_call>");
    }
    chat_add(b, "<|im_end|>\n");
}

/* Consecutive answers share one turn of the user, which an answer that is the first message does not open. */
void chat_coder_write_answer(const chat_conversation *conversation, size_t i, chat_builder *builder)
{
    const chat_conversation *c = conversation;
    const size_t first = c->messages[0].role == CHAT_SYSTEM;
    if (i > first && c->messages[i - 1].role != CHAT_TOOL)
        chat_add(builder, "<|im_start|>user\n");
    chat_add(builder, "<tool_response>\n");
    chat_add_content(builder, c->messages[i].content);
    chat_add(builder, "\n</tool_response>\n");
    if (i + 1 == c->n || c->messages[i + 1].role != CHAT_TOOL)
        chat_add(builder, "<|im_end|>\n");
}

/* ---- Arguments --------------------------------------------------------------------------------- */

static qwen3_status read_arguments(json_t *function, const char *where, qwen3_error *err)
{
    const json_t *arguments = json_object_get(function, "arguments");
    json_t *object = NULL;
    if (json_is_object(arguments))
        return QWEN3_OK;
    if (json_is_string(arguments)) {
        qwen3_status status = json_value_load(where, json_string_value(arguments), json_string_length(arguments),
                                              JSON_DECODE_ANY | JSON_ALLOW_NUL, &object, err);
        if (status)
            return status;
    }
    if (!json_is_object(object)) {
        json_decref(object);
        return fail(err, QWEN3_ERR_ARGUMENT, "%s: expected an object, or a string that holds one in JSON", where);
    }
    if (json_object_set_new(function, "arguments", object))
        return fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", where);
    return QWEN3_OK;
}

qwen3_status chat_coder_read_arguments(chat_conversation *conversation, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    for (size_t m = 0; m < conversation->n && !status; m++) {
        const json_t *calls = conversation->messages[m].tool_calls;
        for (size_t i = 0; i < json_array_size(calls) && !status; i++) {
            char where[96];
            snprintf(where, sizeof where, "messages[%zu].tool_calls[%zu].arguments", m, i);
            status = read_arguments((json_t *)chat_called_function(json_array_get(calls, i)), where, err);
        }
    }
    return status;
}
