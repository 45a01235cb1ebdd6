/* choice.h - one answer of a request: tokens become reasoning, content and calls of tools. Whole and streamed replies
 * are made of the same texts: a stream sends what has been added since. */
#ifndef CHOICE_H
#define CHOICE_H

#include <jansson.h>

#include "event_queue.h"
#include "qwen3/generation.h"
#include "qwen3/stop_strings.h"
#include "request.h"
#include "tool_calls.h"

typedef struct choice {
    const generation *text; /* tokenizer and marks of reasoning */
    const generation_request *request;
    int index;
    text_buffer reasoning, content;
    tool_calls calls;
    json_t *logprobs; /* entries of tokens that are content; NULL = not wanted */
    int64_t generated, reasoned;
    const char *finish; /* "stop", "length", "tool_calls"; NULL = it goes on */
    /* While it comes: */
    qwen3_text_stream *stream;
    stop_strings stop;
    bool thinking; /* what comes next is reasoning */
    bool at_edge;  /* line breaks that come next belong to a mark */
    /* What a stream has sent: */
    bool begun;
    size_t sent_reasoning, sent_content, sent_calls, sent_logprobs, sent_characters;
} choice;

/* thinking: the prompt ends inside reasoning. choice_close must follow, also on failure. */
qwen3_status choice_open(choice *c, const generation *text, const generation_request *request, int index, bool thinking,
                         qwen3_error *err);
void choice_close(choice *c);
/* Takes the next token. Where that sets c->finish, no more tokens are taken. */
qwen3_status choice_take(choice *c, const engine_event *event, qwen3_error *err);
/* What a stream may send of the texts so far: white space at an end is kept back, for a mark may follow. */
size_t choice_ready(const choice *c, const text_buffer *text);

#endif
