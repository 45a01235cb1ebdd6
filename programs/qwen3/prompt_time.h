/* prompt_time.h - says how long a long prompt should take, before it starts. */
#ifndef PROMPT_TIME_H
#define PROMPT_TIME_H

#include "qwen3.h"

typedef struct long_prompt {
    size_t held, end, chunk; /* tokens that the session holds, those at the end of the prompt, those of a pass */
} long_prompt;

/* On a terminal, for a prompt of many tokens: measures the machine and prints on rank 0, on standard error, the time
 * that is predicted. Collective. */
void prompt_time_note(qwen3_comm *world, const qwen3_model *model, const long_prompt *prompt);

#endif
