/* chat_template_write.c - renders a conversation as the published templates do. Names and order follow them. */
#include <string.h>

#include "io/chat_template.h"

#define TEXT(literal) ((chat_text){literal, sizeof(literal) - 1})

static bool starts_with(chat_text text, chat_text prefix)
{
    return text.length >= prefix.length && memcmp(text.data, prefix.data, prefix.length) == 0;
}

static bool ends_with(chat_text text, chat_text suffix)
{
    return text.length >= suffix.length &&
           memcmp(text.data + text.length - suffix.length, suffix.data, suffix.length) == 0;
}

/* Without leading, and without trailing newlines. */
static chat_text strip_front(chat_text text)
{
    while (text.length > 0 && text.data[0] == '\n') {
        text.data++;
        text.length--;
    }
    return text;
}

static chat_text strip_back(chat_text text)
{
    while (text.length > 0 && text.data[text.length - 1] == '\n')
        text.length--;
    return text;
}

/* What is before the first `mark`; all of it if there is none. */
static chat_text before_first(chat_text text, chat_text mark)
{
    const char *found = memmem(text.data, text.length, mark.data, mark.length);
    return found ? (chat_text){text.data, (size_t)(found - text.data)} : text;
}

/* What follows the last `mark`; all of it if there is none. */
static chat_text behind_last(chat_text text, chat_text mark)
{
    const char *found, *end = text.data + text.length;
    while ((found = memmem(text.data, text.length, mark.data, mark.length))) {
        text.data = found + mark.length;
        text.length = (size_t)(end - text.data);
    }
    return text;
}

static bool contains(chat_text text, chat_text mark)
{
    return memmem(text.data, text.length, mark.data, mark.length) != NULL;
}

/* ---- Turns ------------------------------------------------------------------------------------- */

static void write_system(const chat_conversation *c, chat_builder *b)
{
    const chat_message *first = &c->messages[0];
    if (!c->tools) {
        if (first->role == CHAT_SYSTEM) {
            chat_add(b, "<|im_start|>system\n");
            chat_add_content(b, first->content);
            chat_add(b, "<|im_end|>\n");
        }
        return;
    }
    chat_add(b, "<|im_start|>system\n");
    if (first->role == CHAT_SYSTEM) {
        chat_add_content(b, first->content);
        chat_add(b, "\n\n");
    }
    chat_add(b, "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
                "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
    size_t i;
    json_t *tool;
    json_array_foreach(c->tools, i, tool)
    {
        chat_add(b, "\n");
        chat_add_json(b, tool);
    }
    chat_add(b, "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
                "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
                "<args-json-object>}\n</tool_call><|im_end|>\n");
}

static void write_tool_calls(const json_t *tool_calls, bool has_content, chat_builder *b)
{
    size_t i;
    json_t *tool_call;
    json_array_foreach(tool_calls, i, tool_call)
    {
        const json_t *function = chat_called_function(tool_call);
        const json_t *name = json_object_get(function, "name"), *arguments = json_object_get(function, "arguments");
        if (i > 0 || has_content)
            chat_add(b, "\n");
        chat_add(b, "<tool_call>\n{\"name\": \"");
        chat_add_content(b, (chat_text){json_string_value(name), json_string_length(name)});
        chat_add(b, "\", \"arguments\": ");
        if (json_is_string(arguments))
            chat_add_content(b, (chat_text){json_string_value(arguments), json_string_length(arguments)});
        else
            chat_add_json(b, arguments);
        chat_add(b, "}\n</tool_call>");
    }
}

/* after_query: the turn follows the user's last question, so its reasoning is kept. */
static void write_assistant(const chat_form *form, const chat_message *message, bool after_query, bool last,
                            chat_builder *b)
{
    chat_text content = message->content, reasoning = message->has_reasoning ? message->reasoning : TEXT("");
    bool thinks = form->thinking != QWEN3_THINKING_NEVER;
    if (message->tool_calls && form->tools != CHAT_TOOLS_JSON) {
        chat_coder_write_calls(form->tools, message, b);
        return;
    }
    if (thinks && !message->has_reasoning && contains(content, TEXT("</think>"))) {
        reasoning = strip_back(before_first(content, TEXT("</think>")));
        reasoning = strip_front(behind_last(reasoning, TEXT("<think>")));
        content = strip_front(behind_last(content, TEXT("</think>")));
    }
    chat_add(b, "<|im_start|>assistant\n");
    if (thinks && after_query && (last || reasoning.length > 0)) {
        chat_add(b, "<think>\n");
        chat_add_content(b, strip_back(strip_front(reasoning)));
        chat_add(b, "\n</think>\n\n");
        chat_add_content(b, strip_front(content));
    } else {
        chat_add_content(b, content);
    }
    if (message->tool_calls)
        write_tool_calls(message->tool_calls, content.length > 0, b);
    chat_add(b, "<|im_end|>\n");
}

/* Consecutive answers of tools share one turn of the user. */
static void write_tool_answer(const chat_conversation *c, size_t i, chat_builder *b)
{
    if (i == 0 || c->messages[i - 1].role != CHAT_TOOL)
        chat_add(b, "<|im_start|>user");
    chat_add(b, "\n<tool_response>\n");
    chat_add_content(b, c->messages[i].content);
    chat_add(b, "\n</tool_response>");
    if (i + 1 == c->n || c->messages[i + 1].role != CHAT_TOOL)
        chat_add(b, "<|im_end|>\n");
}

/* The user's last message that is not the answer of a tool in disguise; without one, the last message of all. */
static size_t last_query(const chat_conversation *c)
{
    for (size_t i = c->n; i-- > 0;) {
        const chat_message *m = &c->messages[i];
        if (m->role == CHAT_USER && m->has_content &&
            !(starts_with(m->content, TEXT("<tool_response>")) && ends_with(m->content, TEXT("</tool_response>"))))
            return i;
    }
    return c->n - 1;
}

static void write_generation_prompt(const chat_form *form, bool enable_thinking, chat_builder *b)
{
    chat_add(b, "<|im_start|>assistant\n");
    if (form->thinking == QWEN3_THINKING_ALWAYS)
        chat_add(b, "<think>\n");
    else if (form->thinking == QWEN3_THINKING_OPTIONAL && !enable_thinking)
        chat_add(b, "<think>\n\n</think>\n\n");
}

void chat_template_write(const chat_form *form, const chat_conversation *conversation, chat_builder *builder)
{
    const chat_conversation *c = conversation;
    const bool json_tools = form->tools == CHAT_TOOLS_JSON;
    size_t query = last_query(c);
    if (json_tools)
        write_system(c, builder);
    else
        chat_coder_write_system(form->tools, c, builder);
    for (size_t i = 0; i < c->n; i++) {
        const chat_message *m = &c->messages[i];
        if (m->role == CHAT_ASSISTANT) {
            write_assistant(form, m, i > query, i + 1 == c->n, builder);
        } else if (m->role == CHAT_TOOL && !json_tools) {
            chat_coder_write_answer(c, i, builder);
        } else if (m->role == CHAT_TOOL) {
            write_tool_answer(c, i, builder);
        } else if (m->role == CHAT_USER || i > 0) {
            chat_add(builder, m->role == CHAT_USER ? "<|im_start|>user\n" : "<|im_start|>system\n");
            chat_add_content(builder, m->content);
            chat_add(builder, "<|im_end|>\n");
        }
    }
    if (c->options.add_generation_prompt)
        write_generation_prompt(form, c->options.enable_thinking, builder);
}
