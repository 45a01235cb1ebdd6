/* chat_template.h - the published chat templates of the family. */
#ifndef QWEN3_IO_CHAT_TEMPLATE_H
#define QWEN3_IO_CHAT_TEMPLATE_H

#include "io/chat_conversation.h"
#include "io/chat_prompt.h"

/* What the templates differ in. */
struct qwen3_chat_template {
    qwen3_chat_thinking thinking;
    chat_null_content null_content;
};

/* The template with this text, or NULL. */
const qwen3_chat_template *chat_template_recognise(const char *text, size_t length);

/* Appends the conversation. */
void chat_template_write(const qwen3_chat_template *chat, const chat_conversation *conversation, chat_builder *builder);

#endif
