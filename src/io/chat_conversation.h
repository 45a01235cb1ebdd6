/* chat_conversation.h - a conversation read from JSON and checked, before any template looks at it. */
#ifndef QWEN3_IO_CHAT_CONVERSATION_H
#define QWEN3_IO_CHAT_CONVERSATION_H

#include <jansson.h>

#include "base/status.h"

/* A view of UTF-8, which may hold zero bytes. */
typedef struct chat_text {
    const char *data;
    size_t length;
} chat_text;

typedef enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL } chat_role;

typedef struct chat_message {
    chat_role role;
    bool has_content; /* false: it is null or missing, and `content` is empty */
    chat_text content;
    bool has_reasoning;
    chat_text reasoning;
    const json_t *tool_calls; /* array, not empty; NULL = none */
} chat_message;

typedef struct chat_conversation {
    json_t *root, *tools_root; /* own what the others point to */
    chat_message *messages;    /* [n], n >= 1 */
    size_t n;
    const json_t *tools; /* array of objects, not empty; NULL = none */
    qwen3_chat_options options;
} chat_conversation;

/* Which content may be null or missing. */
typedef enum chat_null_content {
    CHAT_NULL_WITH_TOOL_CALLS, /* only in an assistant's message that calls tools */
    CHAT_NULL_ALLOWED,         /* also null in any message but a system message that is the first */
} chat_null_content;

/* null_content: without tools, and with them. *conversation keeps nothing of args. Zeroed on failure; free with
 * chat_conversation_free. */
qwen3_status chat_conversation_read(const qwen3_render_args *args, const chat_null_content null_content[2],
                                    chat_conversation *conversation, qwen3_error *err);
void chat_conversation_free(chat_conversation *conversation);

/* The object with "name" and "arguments" of an element of tool_calls. */
const json_t *chat_called_function(const json_t *tool_call);

#endif
