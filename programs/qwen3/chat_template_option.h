/* chat_template_option.h - --chat-template, and the template of a model. */
#ifndef CHAT_TEMPLATE_OPTION_H
#define CHAT_TEMPLATE_OPTION_H

#include "common/options.h"

option chat_template_option(char **name);
/* Opens the template of this name or file, or with name NULL that of the directory; says on standard error in what it
 * differs from what is used in its place. */
qwen3_status chat_template_choose(const char *name, const char *dir, qwen3_chat_template **chat, qwen3_error *err);

#endif
