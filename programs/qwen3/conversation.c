/* conversation.c - see conversation.h. */
#include "conversation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/output_file.h"

/* If turns are dropped, 1 / ANSWER_PART of the context is left for an answer. */
#define ANSWER_PART 4

static bool has_role(const json_t *messages, size_t i, const char *role)
{
    const char *found = json_string_value(json_object_get(json_array_get(messages, i), "role"));
    return found && strcmp(found, role) == 0;
}

/* The number of messages that are never dropped: the system message, if there is one. */
static size_t kept(const conversation *c)
{
    return has_role(c->messages, 0, "system") || has_role(c->messages, 0, "developer");
}

static qwen3_status out_of_memory(qwen3_error *err)
{
    return set_error(err, QWEN3_ERR_MEMORY, "conversation: out of memory");
}

/* {"role": role, "content": text} */
static json_t *make_message(const char *role, const char *text, size_t n, qwen3_error *err)
{
    json_t *content = json_stringn(text, n);
    if (!content) {
        set_error(err, QWEN3_ERR_ARGUMENT, "what was given is not well-formed UTF-8");
        return NULL;
    }
    json_t *message = json_pack("{ss,so}", "role", role, "content", content);
    if (!message)
        out_of_memory(err);
    return message;
}

qwen3_status conversation_open(conversation *c, const char *system, bool thinking, qwen3_error *err)
{
    *c = (conversation){.messages = json_array(), .thinking = thinking};
    if (!c->messages)
        return out_of_memory(err);
    return system ? conversation_set_system(c, system, strlen(system), err) : QWEN3_OK;
}

void conversation_close(conversation *c)
{
    json_decref(c->messages);
    json_decref(c->tools);
}

void conversation_reset(conversation *c)
{
    size_t n = kept(c);
    while (json_array_size(c->messages) > n)
        json_array_remove(c->messages, n);
    c->dropped = 0;
}

qwen3_status conversation_set_system(conversation *c, const char *text, size_t n, qwen3_error *err)
{
    json_t *message = text ? make_message("system", text, n, err) : NULL;
    if (text && !message)
        return err->status;
    if (kept(c))
        json_array_remove(c->messages, 0);
    if (message && json_array_insert_new(c->messages, 0, message) != 0)
        return out_of_memory(err);
    return QWEN3_OK;
}

qwen3_status conversation_ask(conversation *c, const char *text, size_t n, qwen3_error *err)
{
    json_t *message = make_message("user", text, n, err);
    if (message && json_array_append_new(c->messages, message) != 0)
        out_of_memory(err);
    return err->status;
}

void conversation_withdraw(conversation *c)
{
    size_t n = json_array_size(c->messages);
    if (n > 0)
        json_array_remove(c->messages, n - 1);
}

/* The message gets a reasoning_content, perhaps empty, also if its content could be taken for reasoning. */
qwen3_status conversation_answer(conversation *c, const answer *a, qwen3_error *err)
{
    json_t *message = make_message("assistant", a->text.n ? a->text.data : "", a->text.n, err);
    if (!message)
        return err->status;
    bool reasons = a->reasoning.n > 0 || (a->text.n > 0 && strstr(a->text.data, "</think>"));
    json_t *reasoning = reasons ? json_stringn(a->reasoning.n ? a->reasoning.data : "", a->reasoning.n) : NULL;
    if ((reasons && json_object_set_new(message, "reasoning_content", reasoning) != 0) ||
        json_array_append(c->messages, message) != 0)
        out_of_memory(err);
    json_decref(message);
    return err->status;
}

/* The conversation, whole or without the messages that were dropped; NULL = out of memory. */
static json_t *as_object(const conversation *c, bool whole)
{
    size_t i, skip = whole ? 0 : c->dropped;
    json_t *message, *messages = json_array(), *object = json_pack("{so}", "messages", messages);
    bool complete = object != NULL;
    json_array_foreach(c->messages, i, message)
    {
        if (complete && (i < kept(c) || i >= kept(c) + skip))
            complete = json_array_append(messages, message) == 0;
    }
    if (complete && c->tools)
        complete = json_object_set(object, "tools", c->tools) == 0;
    if (complete)
        return object;
    json_decref(object);
    return NULL;
}

static qwen3_status render(const conversation *c, const generation *g, token_prompt *prompt, qwen3_error *err)
{
    json_t *object = as_object(c, false);
    qwen3_status status = object ? prompt_of_conversation(g, object, c->thinking, prompt, err) : out_of_memory(err);
    json_decref(object);
    return status;
}

/* Drops the oldest turn, from a question up to the next one. False if there is no next one. */
static bool drop_turn(conversation *c)
{
    size_t n = json_array_size(c->messages), next = kept(c) + c->dropped + 1;
    while (next < n && !has_role(c->messages, next, "user"))
        next++;
    if (next >= n)
        return false;
    c->dropped = next - kept(c);
    return true;
}

static int64_t answer_room(const generation *g)
{
    int64_t part = g->context / ANSWER_PART, most = g->arguments->max_tokens;
    return most && most < part ? most : part;
}

qwen3_status conversation_prompt(conversation *c, const generation *g, overflow policy, token_prompt *prompt,
                                 size_t *newly_dropped, qwen3_error *err)
{
    size_t before = c->dropped;
    qwen3_status status = render(c, g, prompt, err);
    while (status == QWEN3_OK && policy == OVERFLOW_DROP && (int64_t)prompt->n + answer_room(g) > g->context &&
           drop_turn(c)) {
        free(prompt->tokens);
        *prompt = (token_prompt){0};
        status = render(c, g, prompt, err);
    }
    *newly_dropped = c->dropped - before;
    if (status != QWEN3_OK || (int64_t)prompt->n <= g->context)
        return status;
    size_t n = prompt->n;
    free(prompt->tokens);
    *prompt = (token_prompt){0};
    c->dropped = before;
    if (policy == OVERFLOW_DROP)
        return set_error(err, QWEN3_ERR_CAPACITY,
                         "the question alone makes a prompt of %zu tokens, the context holds %lld (%s)", n,
                         (long long)g->context, generation_context_hint(g));
    return set_error(err, QWEN3_ERR_CAPACITY,
                     "the conversation makes a prompt of %zu tokens, the context holds %lld (%s): /reset begins a new "
                     "one, --overflow drop leaves the oldest turns out",
                     n, (long long)g->context, generation_context_hint(g));
}

qwen3_status conversation_save(const conversation *c, const char *path, const char *model, qwen3_error *err)
{
    json_t *object = as_object(c, true);
    if (json_object_set_new(object, "enable_thinking", json_boolean(c->thinking)) != 0) {
        json_decref(object);
        return out_of_memory(err);
    }
    output_file file;
    qwen3_status status = output_file_begin(&file, "/save", path, model, err);
    errno = 0;
    if (status == QWEN3_OK && (json_dumpf(object, file.stream, JSON_INDENT(2)) != 0 || fputc('\n', file.stream) == EOF))
        status =
            set_error(err, QWEN3_ERR_IO, "/save: cannot write %s: %s", path, errno ? strerror(errno) : "out of memory");
    json_decref(object);
    return output_file_finish(&file, status, err);
}

/* The template checks the messages; the other members are checked here. */
static qwen3_status take_loaded(conversation *c, const generation *g, json_t *value, qwen3_error *err)
{
    json_t *messages = json_is_array(value) ? value : json_object_get(value, "messages");
    json_t *tools = json_object_get(value, "tools"), *thinking = json_object_get(value, "enable_thinking");
    conversation loaded = {.messages = json_copy(messages), .tools = json_incref(tools), .thinking = c->thinking};
    token_prompt prompt = {0};
    if (!json_is_array(messages))
        set_error(err, QWEN3_ERR_FORMAT, "expected an array of messages, or an object with \"messages\"");
    else if (thinking && !json_is_boolean(thinking))
        set_error(err, QWEN3_ERR_FORMAT, "enable_thinking: expected true or false");
    else if (thinking && qwen3_chat_template_thinking(g->chat) == QWEN3_THINKING_OPTIONAL)
        loaded.thinking = json_is_true(thinking);
    if (err->status == QWEN3_OK && json_array_size(messages) > 0)
        render(&loaded, g, &prompt, err);
    free(prompt.tokens);
    if (err->status != QWEN3_OK) {
        conversation_close(&loaded);
        return err->status;
    }
    conversation_close(c);
    *c = loaded;
    return QWEN3_OK;
}

qwen3_status conversation_load(conversation *c, const generation *g, const char *path, qwen3_error *err)
{
    json_error_t at;
    qwen3_error fault = {0};
    errno = 0;
    FILE *file = fopen(path, "r");
    if (!file)
        return set_error(err, QWEN3_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    json_t *value = json_loadf(file, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &at);
    fclose(file);
    if (!value)
        return set_error(err, QWEN3_ERR_FORMAT, "%s: line %d: %s", path, at.line, at.text);
    if (take_loaded(c, g, value, &fault) != QWEN3_OK)
        set_error(err, fault.status, "%s: %.900s", path, fault.message);
    json_decref(value);
    return err->status;
}
