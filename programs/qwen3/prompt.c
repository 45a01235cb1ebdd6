/* prompt.c - see prompt.h. */
#include "prompt.h"

#include <stdlib.h>
#include <string.h>

#include "common/program.h"

static qwen3_status encode(const generation *g, const qwen3_chat_prompt *prompt, int32_t **tokens, size_t *n,
                           qwen3_error *err)
{
    size_t n_plain = 0;
    qwen3_text_range *plain = allocate(prompt->n_segments, sizeof *plain, "prompt", err);
    if (!plain)
        return err->status;
    for (size_t i = 0; i < prompt->n_segments; i++)
        if (prompt->segments[i].is_content)
            plain[n_plain++] = (qwen3_text_range){prompt->segments[i].begin, prompt->segments[i].end};
    qwen3_status status =
        qwen3_tokenizer_encode(g->tokenizer, prompt->text, prompt->length, plain, n_plain, tokens, n, err);
    free(plain);
    return status;
}

/* Reasoning is open where <think> stands behind the last </think>; neither is ever content. */
static bool is_open(const generation *g, const int32_t *tokens, size_t n)
{
    while (n > 0 && tokens[n - 1] != g->think && tokens[n - 1] != g->think_end)
        n--;
    return n > 0 && tokens[n - 1] == g->think;
}

qwen3_status prompt_of_conversation(const generation *g, const json_t *conversation, bool enable_thinking,
                                    int32_t **tokens, size_t *n, bool *ends_in_thinking, qwen3_error *err)
{
    qwen3_chat_options options = {.enable_thinking = enable_thinking, .add_generation_prompt = true};
    qwen3_chat_prompt prompt = {0};
    char *text = json_dumps(conversation, JSON_COMPACT);
    *tokens = NULL;
    *n = 0;
    if (!text)
        return set_error(err, QWEN3_ERR_MEMORY, "conversation: out of memory");
    qwen3_status status = qwen3_chat_template_render(g->chat, text, strlen(text), NULL, 0, &options, &prompt, err);
    if (status == QWEN3_OK)
        status = encode(g, &prompt, tokens, n, err);
    *ends_in_thinking = status == QWEN3_OK && is_open(g, *tokens, *n);
    qwen3_chat_prompt_free(&prompt);
    free(text);
    return status;
}
