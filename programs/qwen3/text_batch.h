/* text_batch.h - what embed and rerank share: many texts go through a model as sequences of ragged batches. */
#ifndef TEXT_BATCH_H
#define TEXT_BATCH_H

#include <jansson.h>

#include "common/model_arguments.h"
#include "common/text_buffer.h"

typedef struct text_model {
    qwen3_comm *world;
    model_arguments arguments;
    int batch;       /* most texts at once */
    int64_t context; /* most tokens of a text; 0 = the model's positions */
    qwen3_model *model;
    qwen3_session *session;
    qwen3_tokenizer *tokenizer; /* rank 0 */
} text_model;

/* Texts that go through the model together. Zeroed = empty. On rank 0 until text_batch_run shares it. */
typedef struct text_batch {
    int32_t *tokens; /* [n_tokens] of all texts */
    size_t n_tokens, room;
    size_t *ends; /* [n_texts] of each, in tokens */
    size_t n_texts, texts_room;
} text_batch;

/* Adds --batch and --context, and those of a model. */
void text_model_options(text_model *m, option_table *table);
qwen3_status text_model_check(text_model *m, const command_line *line, int ranks, qwen3_error *err);
/* Opens tokenizer, model and session. text_model_close must follow, also on failure. Collective. */
qwen3_status text_model_open(text_model *m, qwen3_error *err);
void text_model_close(text_model *m);

/* A piece of a prompt; user: no token of it becomes a control token. */
typedef struct text_piece {
    const char *text;
    size_t bytes;
    bool user;
} text_piece;

/* Appends a text of n pieces, at most 16, and then the token `end`, if it is not negative. On rank 0. */
qwen3_status text_batch_add(text_batch *b, const text_model *m, const text_piece *pieces, size_t n, int32_t end,
                            qwen3_error *err);
void text_batch_free(text_batch *b);

/* Takes the results of texts [first, first + rows) from the session, on all ranks. Collective. */
typedef qwen3_status (*text_taker)(void *context, qwen3_session *session, size_t first, size_t rows, qwen3_error *err);
/* Shares the batch of rank 0, computes it, lets `take` take the results, and empties batch and session. Collective. */
qwen3_status text_batch_run(text_model *m, text_batch *b, text_taker take, void *context, qwen3_error *err);

/* The next line of standard input as JSON; *value NULL: there is none. On rank 0. */
typedef struct line_reader {
    char *line;
    size_t room, number;
} line_reader;
qwen3_status read_json_line(line_reader *r, json_t **value, qwen3_error *err);
/* A fault of the line that was read last. */
qwen3_status fail_line(const line_reader *r, const qwen3_error *fault, qwen3_error *err);

/* Writes " [x, y, ...]" with the digits of a float. */
void print_numbers(const float *values, size_t n);

#endif
