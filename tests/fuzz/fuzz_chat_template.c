/* fuzz_chat_template.c - libFuzzer target: any bytes as chat_template.jinja or, where they begin with '{', as
 * tokenizer_config.json. What is accepted is one of the published templates. */
#include "fuzz/fuzz.h"
#include "io/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *name = size > 0 && data[0] == '{' ? "tokenizer_config.json" : "chat_template.jinja";
    write_file(name, (fuzz_part){data, size});
    qwen3_chat_template *chat;
    qwen3_error err = {0};
    if (succeeded(qwen3_chat_template_open(directory(), &chat, &err), &err))
        demand(chat && qwen3_chat_template_thinking(chat) <= QWEN3_THINKING_NEVER);
    else
        demand(!chat);
    qwen3_chat_template_close(chat);
    unlink(path_of(name).text);
    return 0;
}
