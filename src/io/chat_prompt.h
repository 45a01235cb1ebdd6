/* chat_prompt.h - builds a prompt: text with the kinds of its segments. */
#ifndef QWEN3_IO_CHAT_PROMPT_H
#define QWEN3_IO_CHAT_PROMPT_H

#include "io/chat_conversation.h"

/* Zeroed = empty. `failed`: memory ran out, and nothing more is added. */
typedef struct chat_builder {
    qwen3_chat_prompt prompt;
    size_t room, segments_room;
    bool failed;
} chat_builder;

/* Text of the template. */
void chat_add(chat_builder *builder, const char *text);
/* Text of the conversation: added tokens must not be matched in it. */
void chat_add_content(chat_builder *builder, chat_text content);
void chat_add_json(chat_builder *builder, const json_t *value);
/* Python's str(value). */
void chat_add_str(chat_builder *builder, const json_t *value);

#endif
