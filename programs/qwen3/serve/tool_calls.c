/* tool_calls.c - see tool_calls.h. */
#include "tool_calls.h"

#include <stdlib.h>
#include <string.h>

#include "tool_call_forms.h"

#define OPENING "<tool_call>"
#define CLOSING "</tool_call>"

size_t trimmed_length(const text_buffer *text)
{
    size_t n = text->n;
    while (n > 0 && strchr(" \n\r\t", text->data[n - 1]))
        n--;
    return n;
}

static void trim(text_buffer *text)
{
    if (text->room == 0)
        return;
    text->n = trimmed_length(text);
    text->data[text->n] = '\0';
}

static const char *find(const text_buffer *text, const char *tag)
{
    return text->n ? memmem(text->data, text->n, tag, strlen(tag)) : NULL;
}

/* The bytes at the end of the text that may be the beginning of the tag. */
static size_t unfinished(const text_buffer *text, const char *tag)
{
    size_t n = strlen(tag) - 1;
    n = n < text->n ? n : text->n;
    while (n > 0 && memcmp(text->data + text->n - n, tag, n) != 0)
        n--;
    return n;
}

static qwen3_status add_call(tool_calls *t, tool_call call, qwen3_error *err)
{
    if (t->n == t->room) {
        const size_t room = 2 * t->room + 4;
        tool_call *larger = realloc(t->calls, room * sizeof *larger);
        if (!larger) {
            free(call.name);
            free(call.arguments);
            return set_error(err, QWEN3_ERR_MEMORY, "tool calls: cannot allocate %zu", room);
        }
        t->calls = larger;
        t->room = room;
    }
    t->calls[t->n++] = call;
    return QWEN3_OK;
}

/* The text between the tags, [n] bytes of held. It leaves with the closing tag, if that has come. */
static qwen3_status end_call(tool_calls *t, size_t n, bool closed, text_buffer *content, qwen3_error *err)
{
    tool_call call = {0};
    qwen3_status status = tool_call_parse(t->held.data, n, t->tools, &call, err);
    const size_t all = n + (closed ? strlen(CLOSING) : 0);
    if (status == QWEN3_OK && call.name) {
        trim(content);
        status = add_call(t, call, err);
    } else if (status == QWEN3_OK) {
        status = text_append(content, OPENING, strlen(OPENING), err);
        if (status == QWEN3_OK)
            status = text_append(content, t->held.data, all, err);
    }
    text_drop(&t->held, all);
    t->inside = false;
    return status;
}

qwen3_status tool_calls_take(tool_calls *t, const char *text, size_t n, bool last, text_buffer *content,
                             qwen3_error *err)
{
    qwen3_status status = text_append(&t->held, text, n, err);
    const char *tag = NULL;
    while (status == QWEN3_OK && (tag = find(&t->held, t->inside ? CLOSING : OPENING))) {
        const size_t before = (size_t)(tag - t->held.data);
        if (t->inside) {
            status = end_call(t, before, true, content, err);
        } else {
            status = text_append(content, t->held.data, before, err);
            text_drop(&t->held, before + strlen(OPENING));
            t->inside = true;
        }
    }
    if (status != QWEN3_OK || (t->inside && !last))
        return status;
    if (t->inside)
        return end_call(t, t->held.n, false, content, err);
    const size_t free_text = t->held.n - (last ? 0 : unfinished(&t->held, OPENING));
    status = text_append(content, t->held.data, free_text, err);
    text_drop(&t->held, free_text);
    if (last && t->n > 0)
        trim(content);
    return status;
}

void tool_calls_free(tool_calls *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->calls[i].name);
        free(t->calls[i].arguments);
    }
    free(t->calls);
    text_free(&t->held);
    *t = (tool_calls){0};
}
