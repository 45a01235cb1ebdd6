/* tool_calls.h - finds calls of tools in the text of an answer, while it comes. Two forms, by what is in the tag:
 *
 *   Qwen3        <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>
 *   Qwen3-Coder  <tool_call><function=f><parameter=x>1</parameter></function></tool_call>
 *
 * What is in the tag and is neither is text of the answer. */
#ifndef TOOL_CALLS_H
#define TOOL_CALLS_H

#include <jansson.h>

#include "common/text_buffer.h"

typedef struct tool_call {
    char *name, *arguments; /* arguments: JSON */
} tool_call;

/* All zero = empty, without definitions. */
typedef struct tool_calls {
    const json_t *tools; /* definitions, as a request has them; parameters of Qwen3-Coder have their types */
    tool_call *calls;    /* [n] */
    size_t n, room;
    text_buffer held; /* text that may become a call */
    bool inside;      /* held follows <tool_call> */
} tool_calls;

/* Takes text of an answer; last: no more follows. Appends what is no call to *content. White space before a call is
 * removed from there. */
qwen3_status tool_calls_take(tool_calls *t, const char *text, size_t n, bool last, text_buffer *content,
                             qwen3_error *err);
void tool_calls_free(tool_calls *t);

/* The length of the text without white space at its end. */
size_t trimmed_length(const text_buffer *text);

#endif
