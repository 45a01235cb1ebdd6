/* chat_template_option.c - see chat_template_option.h. */
#include "chat_template_option.h"

#include <stdio.h>

option chat_template_option(char **name)
{
    return (option){.name = "chat-template",
                    .kind = OPTION_TEXT,
                    .value = name,
                    .argument = "NAME|FILE",
                    .help = "Chat template instead of the model's: a file, or qwen3, qwen3-revised, "
                            "qwen3-thinking-2507, qwen3-instruct-2507, qwen3-coder or qwen3-coder-revised"};
}

qwen3_status chat_template_choose(const char *name, const char *dir, qwen3_chat_template **chat, qwen3_error *err)
{
    qwen3_status status = name ? qwen3_chat_template_load(name, chat, err) : qwen3_chat_template_open(dir, chat, err);
    const char *warning = status ? "" : qwen3_chat_template_warning(*chat);
    if (*warning)
        fprintf(stderr, "qwen3: warning: %s (--chat-template chooses another)\n", warning);
    return status;
}
