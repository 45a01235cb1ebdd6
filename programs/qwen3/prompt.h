/* prompt.h - conversations as tokens of a prompt. Rank 0. */
#ifndef PROMPT_H
#define PROMPT_H

#include <jansson.h>

#include "generation.h"

typedef struct token_prompt {
    int32_t *tokens; /* [n] owned; freed with free() */
    size_t n;
    bool ends_in_thinking; /* an answer goes on with reasoning */
} token_prompt;

/* The prompt of a conversation (an object with "messages") with the assistant's turn opened. It is encoded as one text,
 * and content never becomes a control token. *prompt is the caller's; zeroed on failure. */
qwen3_status prompt_of_conversation(const generation *g, const json_t *conversation, bool enable_thinking,
                                    token_prompt *prompt, qwen3_error *err);

#endif
