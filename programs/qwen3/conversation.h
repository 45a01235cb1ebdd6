/* conversation.h - the messages of a chat, and which of them are in the prompt. Rank 0. */
#ifndef CONVERSATION_H
#define CONVERSATION_H

#include "answer.h"
#include "prompt.h"

typedef struct conversation {
    json_t *messages; /* array; a system message can only be the first */
    json_t *tools;    /* array, NULL = none */
    size_t dropped;   /* messages after the system message that are no longer in the prompt */
    bool thinking;    /* the next answer may begin with reasoning */
} conversation;

typedef enum overflow {
    OVERFLOW_STOP = 0, /* a question that does not fit is refused */
    OVERFLOW_DROP,     /* the oldest turns are dropped until there is room for the prompt and an answer */
} overflow;

qwen3_status conversation_open(conversation *c, const char *system, bool thinking, qwen3_error *err);
void conversation_close(conversation *c);
/* Removes all messages but the system message. */
void conversation_reset(conversation *c);
/* text NULL: no system message. Here and below, text that is not well-formed UTF-8 is QWEN3_ERR_ARGUMENT. */
qwen3_status conversation_set_system(conversation *c, const char *text, size_t n, qwen3_error *err);
qwen3_status conversation_ask(conversation *c, const char *text, size_t n, qwen3_error *err);
/* Removes the last message. */
void conversation_withdraw(conversation *c);
qwen3_status conversation_answer(conversation *c, const answer *a, qwen3_error *err);

/* The prompt, as prompt_of_conversation gives it, made to fit the context; QWEN3_ERR_CAPACITY if it does not.
 * *newly_dropped: messages that were dropped for it. */
qwen3_status conversation_prompt(conversation *c, const generation *g, overflow policy, token_prompt *prompt,
                                 size_t *newly_dropped, qwen3_error *err);

/* The conversation as JSON for "qwen3 template", which is not written over files of the model. If loading fails, *c is
 * unchanged. */
qwen3_status conversation_save(const conversation *c, const char *path, const char *model, qwen3_error *err);
qwen3_status conversation_load(conversation *c, const generation *g, const char *path, qwen3_error *err);

#endif
