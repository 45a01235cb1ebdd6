/* chat.h - the state of a chat, and its commands. */
#ifndef CHAT_H
#define CHAT_H

#include "conversation.h"
#include "input.h"

/* What rank 0 tells all ranks to do next. */
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
    text_buffer line;                    /* the last input of the user */
    token_prompt prompt;                 /* of an answer */
    bool asked_to_end;                   /* Ctrl-C was pressed at the prompt, with no input since */
    size_t answers, computed, generated; /* totals: answers, computed tokens of prompts, tokens of answers */
    double seconds;
} chat;

/* chat_commands.c: executes the command in c->line, which begins with '/'. The user is told what goes wrong; an error
 * is returned only if the program cannot continue. */
qwen3_status chat_command(chat *c, order *next, qwen3_error *err);
/* Tells the user about *fault. Returns an error only if that fails. */
qwen3_status chat_say_error(chat *c, qwen3_error *fault, qwen3_error *err);

#endif
