/* chat_conversation.h - a conversation read from JSON and checked, before any template looks at it. */
#ifndef QWEN3_IO_CHAT_CONVERSATION_H
#define QWEN3_IO_CHAT_CONVERSATION_H

#include <jansson.h>

#include "base/status.h"

/* Bytes of UTF-8 that belong to someone else; may hold zero bytes. */
typedef struct chat_text {
    const char *data;
    size_t length;
} chat_text;

typedef enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL } chat_role;

typedef struct chat_message {
    chat_role role;
    bool has_content; /* else it is null or missing, and `content` empty */
    chat_text content;
    bool has_reasoning;
    chat_text reasoning;
    const json_t *tool_calls; /* array, not empty; NULL = none */
} chat_message;

typedef struct chat_conversation {
    json_t *root, *tools_root; /* hold what the others point to */
    chat_message *messages;    /* [n], n >= 1 */
    size_t n;
    const json_t *tools; /* array of objects, not empty; NULL = none */
    qwen3_chat_options options;
} chat_conversation;

/* Which content may be null or missing. */
typedef enum chat_null_content {
    CHAT_NULL_WITH_TOOL_CALLS, /* that of an assistant which calls tools */
    CHAT_NULL_ALLOWED,         /* null: any but that of the first message where this is the system's */
} chat_null_content;

/* *conversation keeps nothing of args. Zeroed on failure; free with chat_conversation_free. */
qwen3_status chat_conversation_read(const qwen3_render_args *args, chat_null_content null_content,
                                    chat_conversation *conversation, qwen3_error *err);
void chat_conversation_free(chat_conversation *conversation);

/* Of an element of tool_calls: the object that holds "name" and "arguments". */
const json_t *chat_called_function(const json_t *tool_call);

#endif
