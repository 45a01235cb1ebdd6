/* replies.h - what is sent back, in the form of the OpenAI interface. NULL = out of memory. */
#ifndef REPLIES_H
#define REPLIES_H

#include "choice.h"

/* What all replies of a job have. */
typedef struct reply_head {
    char id[48];
    int64_t created; /* seconds since 1970 */
    const char *model;
    bool chat;
} reply_head;

typedef struct reply_usage {
    int64_t prompt, cached, generated, reasoned;
} reply_usage;

void reply_head_make(reply_head *head, request_form form, const char *model);
/* A new id: the prefix, and 16 digits. */
void reply_id(char *id, size_t room, const char *prefix);
/* The whole reply of a job that does not stream. echoes [n]: the prompts in front of the texts; NULL = none. */
json_t *reply_whole(const reply_head *head, choice *choices, size_t n, const char *const *echoes,
                    const reply_usage *usage);
/* What has been added to a choice since the last chunk; NULL where that is nothing (and *failed is false). */
json_t *reply_chunk(const reply_head *head, choice *c, const char *echo, bool with_usage, bool *failed);
/* The chunk with the usage alone. */
json_t *reply_usage_chunk(const reply_head *head, const reply_usage *usage);
json_t *reply_embeddings(const char *model, float *const *embeddings, size_t n, size_t dimensions, bool base64,
                         int64_t tokens);
json_t *reply_models(const char *model, int64_t created, int64_t context);
json_t *reply_model(const char *model, int64_t created, int64_t context);

#endif
