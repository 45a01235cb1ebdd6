/* chat.h - the state of a chat, and its commands. */
#ifndef CHAT_H
#define CHAT_H

#include "conversation.h"
#include "input.h"

/* What rank 0 lets all ranks do next. */
typedef enum order_kind {
    ORDER_NONE = 0,
    ORDER_ANSWER,
    ORDER_SAMPLING, /* sample with other options */
    ORDER_END,
    ORDER_FAIL, /* rank 0's error ends the program */
} order_kind;

typedef struct order {
    order_kind kind;
    qwen3_sampling_options sampling; /* of ORDER_SAMPLING; each rank has its own array of biases */
} order;

typedef struct chat {
    generation_arguments arguments;
    int overflow; /* enum overflow */
    bool no_editing;
    generation g;
    /* rank 0 */
    output out;
    input in;
    conversation conversation;
    text_buffer line;                    /* what the user said last */
    token_prompt prompt;                 /* of an answer */
    bool asked_to_end;                   /* Ctrl-C was pressed at the prompt, and nothing said since */
    size_t answers, computed, generated; /* all answers together: tokens of prompts, and of answers */
    double seconds;
} chat;

/* chat_commands.c: carries out the command in c->line, which begins with '/'. What goes wrong is said to the user; an
 * error is returned where the program cannot go on. */
qwen3_status chat_command(chat *c, order *next, qwen3_error *err);
/* The name of a file, a message: says what went wrong, and forgets it. */
qwen3_status chat_say_error(chat *c, qwen3_error *fault, qwen3_error *err);

#endif
