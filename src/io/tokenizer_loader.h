/* tokenizer_loader.h - filling the tables of a tokenizer, whatever file they are read from: first all ordinary tokens,
 * then the merges, then the added tokens. */
#ifndef QWEN3_IO_TOKENIZER_LOADER_H
#define QWEN3_IO_TOKENIZER_LOADER_H

#include "io/tokenizer.h"

/* The alphabet of byte-level vocabularies: a byte that is a printable character of Latin-1 is written as itself, the
 * others, in order, as U+0100 and following. */
enum { ALPHABET_END = 0x144 };

typedef struct tokenizer_loader {
    qwen3_tokenizer *t;
    const char *path;
    const char *vocabulary, *merges, *added; /* what messages call them */
    int16_t byte_of[ALPHABET_END];           /* -1: not in the alphabet */
    size_t used;                             /* of t->bytes */
    size_t room;                             /* of t->tokens */
} tokenizer_loader;

/* A merge as read; its rank is its index. */
typedef struct triple {
    int32_t left, right, id;
} triple;

/* Text in the alphabet. */
typedef struct token_text {
    const char *data;
    size_t n;
} token_text;

/* Room for the bytes of all tokens and for `added` added tokens. */
qwen3_status loader_reserve(tokenizer_loader *l, size_t bytes, size_t added, qwen3_error *err);

/* Puts the bytes of a text where the next token is made; false where a character is not in the alphabet. */
bool loader_put(tokenizer_loader *l, token_text text, size_t *bytes);
/* Makes the n bytes that were put last the token `id`. */
qwen3_status loader_add(tokenizer_loader *l, int32_t id, size_t n, qwen3_token_kind kind, qwen3_error *err);
/* After the last ordinary token. */
qwen3_status loader_end_vocabulary(tokenizer_loader *l, qwen3_error *err);

/* "left right" in two; false where there is no space. */
bool loader_split_pair(token_text pair, token_text *left, token_text *right);

typedef enum merge_fault { MERGE_GOOD, MERGE_NOT_BYTES, MERGE_NO_TOKEN } merge_fault;
/* guess: the id that the merge probably makes; any id that is not negative is allowed. */
merge_fault loader_find_merge(const tokenizer_loader *l, token_text left, token_text right, int32_t guess, triple *out);
/* All merges, in the order of their ranks. */
qwen3_status loader_add_merges(tokenizer_loader *l, const triple *merges, size_t n, qwen3_error *err);

/* A token that is found in text as it is. `id` may be that of an ordinary token of the same text. */
qwen3_status loader_add_added(tokenizer_loader *l, int32_t id, token_text content, qwen3_token_kind kind,
                              qwen3_error *err);
/* After the last of them. */
qwen3_status loader_end_added(tokenizer_loader *l, qwen3_error *err);

#endif
