/* constraint.h - which tokens the answers of a request may have: reasoning is free, what follows it is a value of the
 * format that the request wants, or calls of tools. Between opening and closing it is used in the thread of the
 * scheduler alone. */
#ifndef CONSTRAINT_H
#define CONSTRAINT_H

#include "qwen3/generation.h"
#include "qwen3_grammar.h"
#include "qwen3_scheduler.h"
#include "request.h"

typedef struct constraint constraint;

/* Whether the request restricts its answers. */
bool constraint_is_needed(const generation_request *r);
/* thinking: the prompt ends inside reasoning. What is given must live longer. constraint_close must follow, also on
 * failure. */
qwen3_status constraint_open(const generation *text, const qwen3_vocabulary *vocabulary, const generation_request *r,
                             bool thinking, constraint **opened, qwen3_error *err);
void constraint_close(constraint *c);
qwen3_token_filter constraint_filter(constraint *c);

#endif
