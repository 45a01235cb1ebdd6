/* logprobs.h - the probabilities of tokens as replies have them. */
#ifndef LOGPROBS_H
#define LOGPROBS_H

#include <jansson.h>

#include "common/error.h"
#include "event_queue.h"

/* Appends the entry of a token: of a chat {"token", "logprob", "bytes", "top_logprobs"}, of a completion its parts. */
qwen3_status logprobs_add(json_t *entries, const qwen3_tokenizer *tokenizer, const engine_event *event, bool chat,
                          qwen3_error *err);
/* "logprobs" of a choice with the entries from `begin` on; NULL = out of memory. *characters is where their text
 * begins, and becomes where it ends. */
json_t *logprobs_json(const json_t *entries, size_t begin, bool chat, size_t *characters);

#endif
