/* fuzz_chat_template.c - libFuzzer target: any bytes as a conversation, or as a template. What is rendered must be
 * covered by alternating segments; what is refused must be described.
 *
 *   cmake -B build-fuzz -DCMAKE_C_COMPILER=clang -DQWEN3_FUZZ=ON -DQWEN3_MPI=OFF
 *   cmake --build build-fuzz --target fuzz_chat_template
 *   build-fuzz/bin/fuzz_chat_template -max_len=4096 -dict=tests/fuzz/chat_template.dict -max_total_time=300 CORPUS
 *
 * The first byte says which template renders, and whether the rest is a template itself. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const qwen3_chat_prompt *p)
{
    size_t at = 0;
    for (size_t i = 0; i < p->n_segments; i++) {
        const qwen3_chat_segment *s = &p->segments[i];
        if (s->begin != at || s->end <= at || (i > 0 && s->is_content == s[-1].is_content))
            abort();
        at = s->end;
    }
    if (at != p->length || p->length == 0 || p->text[at] != '\0')
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    qwen3_chat_template chat = {(qwen3_chat_thinking)((data[0] & 3) % 3), (chat_null_content)(data[0] >> 2 & 1)};
    qwen3_chat_options options = {data[0] & 8, data[0] & 16};
    qwen3_chat_prompt prompt;
    qwen3_error err;
    if (data[0] & 32) {
        chat_template_recognise(text, size - 1);
        return 0;
    }
    const qwen3_render_args args = {.conversation = text, .conversation_bytes = size - 1, .options = &options};
    qwen3_status status = qwen3_chat_template_render(&chat, &args, &prompt, &err);
    if (status == QWEN3_OK) {
        check(&prompt);
        qwen3_chat_prompt_free(&prompt);
    } else if (err.status != status || err.message[0] == '\0' || prompt.text || prompt.segments) {
        abort();
    }
    return 0;
}
