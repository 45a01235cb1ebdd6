/* prompt.h - text and conversations as tokens of a prompt. Rank 0. */
#ifndef PROMPT_H
#define PROMPT_H

#include <jansson.h>

#include "generation.h"

/* The tokens of a conversation (an object with "messages"), the assistant's turn opened: encoded as one text in
 * which what was handed in never becomes a control token. *ends_in_thinking: the prompt opened reasoning. *tokens [*n]
 * is freed with free(). */
qwen3_status prompt_of_conversation(const generation *g, const json_t *conversation, bool enable_thinking,
                                    int32_t **tokens, size_t *n, bool *ends_in_thinking, qwen3_error *err);

#endif
