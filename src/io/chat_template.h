/* chat_template.h - the published chat templates of the family. */
#ifndef QWEN3_IO_CHAT_TEMPLATE_H
#define QWEN3_IO_CHAT_TEMPLATE_H

#include "io/chat_conversation.h"
#include "io/chat_prompt.h"

/* How tools are described and called. */
typedef enum chat_tools {
    CHAT_TOOLS_JSON,
    CHAT_TOOLS_XML,         /* Qwen3-Coder, as first published */
    CHAT_TOOLS_XML_REVISED, /* lists are written as JSON, and there is a heading */
} chat_tools;

/* What the templates differ in. */
typedef struct chat_form {
    qwen3_chat_thinking thinking;
    chat_null_content null_content;
    chat_tools tools;
} chat_form;

enum { CHAT_WARNING = 640 };

struct qwen3_chat_template {
    chat_form form, with_tools; /* differ where a file has a template of its own for tools */
    char warning[CHAT_WARNING];
};

typedef struct known_template {
    const char *name;
    chat_form form;
    const uint32_t *pieces; /* [n], hashes of its tags */
    size_t n;
} known_template;

/* ---- chat_template_known.c */

/* The template of this name or with this text, or NULL. */
const known_template *chat_template_named(const char *name);
const known_template *chat_template_recognise(const char *text, size_t length);
/* The known template that has most in common with a text. *warning [CHAT_WARNING] says where they differ first; `where`
 * names the text. One with other control tokens than those of the family is refused. */
qwen3_status chat_template_nearest(const char *where, const char *text, size_t length, const known_template **nearest,
                                   char *warning, qwen3_error *err);
/* "qwen3, qwen3-revised, ..." */
void chat_template_names(char *text, size_t size);

/* ---- chat_template_write.c, chat_template_coder.c */

/* Appends the conversation. */
void chat_template_write(const chat_form *form, const chat_conversation *conversation, chat_builder *builder);
/* The parts of Qwen3-Coder's templates that are its own: the system turn, an assistant's turn that calls tools, and the
 * answer of a tool. Arguments are objects (chat_coder_read_arguments). */
void chat_coder_write_system(chat_tools tools, const chat_conversation *conversation, chat_builder *builder);
void chat_coder_write_calls(chat_tools tools, const chat_message *message, chat_builder *builder);
void chat_coder_write_answer(const chat_conversation *conversation, size_t i, chat_builder *builder);
/* Arguments that are JSON in a string become what it says; those that are no object are refused. */
qwen3_status chat_coder_read_arguments(chat_conversation *conversation, qwen3_error *err);

#endif
