/* prompt.c - see prompt.h. */
#include "prompt.h"

#include <stdlib.h>
#include <string.h>

#include "common/program.h"

static qwen3_status encode(const generation *g, const qwen3_chat_prompt *prompt, token_prompt *out, qwen3_error *err)
{
    size_t n_plain = 0;
    qwen3_text_range *plain = allocate(prompt->n_segments, sizeof *plain, "prompt", err);
    if (!plain)
        return err->status;
    for (size_t i = 0; i < prompt->n_segments; i++)
        if (prompt->segments[i].is_content)
            plain[n_plain++] = (qwen3_text_range){prompt->segments[i].begin, prompt->segments[i].end};
    const qwen3_encode_args args = {.text = prompt->text, .length = prompt->length, .plain = plain, .n_plain = n_plain};
    qwen3_status status = qwen3_tokenizer_encode(g->tokenizer, &args, &out->tokens, &out->n, err);
    free(plain);
    return status;
}

/* Reasoning is open if <think> follows the last </think>; neither is ever content. */
static bool is_open(const generation *g, const token_prompt *p)
{
    size_t n = p->n;
    while (n > 0 && p->tokens[n - 1] != g->think && p->tokens[n - 1] != g->think_end)
        n--;
    return n > 0 && p->tokens[n - 1] == g->think;
}

qwen3_status prompt_of_conversation(const generation *g, const json_t *conversation, bool enable_thinking,
                                    token_prompt *prompt, qwen3_error *err)
{
    const qwen3_chat_options options = {.enable_thinking = enable_thinking, .add_generation_prompt = true};
    qwen3_chat_prompt rendered = {0};
    char *text = json_dumps(conversation, JSON_COMPACT);
    *prompt = (token_prompt){0};
    if (!text)
        return set_error(err, QWEN3_ERR_MEMORY, "conversation: out of memory");
    const qwen3_render_args args = {.conversation = text, .conversation_bytes = strlen(text), .options = &options};
    qwen3_status status = qwen3_chat_template_render(g->chat, &args, &rendered, err);
    if (status == QWEN3_OK)
        status = encode(g, &rendered, prompt, err);
    prompt->ends_in_thinking = status == QWEN3_OK && is_open(g, prompt);
    qwen3_chat_prompt_free(&rendered);
    free(text);
    return status;
}
