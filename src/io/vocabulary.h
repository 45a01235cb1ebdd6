/* vocabulary.h - ordinary tokens, sorted by their bytes: neighbours share prefixes, so a walk over the list with the
 * number of bytes that each shares with the one before is a walk over their tree. */
#ifndef QWEN3_IO_VOCABULARY_H
#define QWEN3_IO_VOCABULARY_H

#include "base/status.h"
#include "qwen3_grammar.h"

typedef struct vocabulary_token {
    const unsigned char *bytes; /* [n] of the tokenizer */
    uint32_t n;
    uint32_t shared; /* bytes at the beginning that are those of the token before */
    int32_t id;
} vocabulary_token;

struct qwen3_vocabulary {
    vocabulary_token *tokens; /* [n] sorted */
    int32_t n;
    int32_t n_ids;
    int32_t *places;    /* [n_ids] in tokens; -1 = no ordinary token */
    int32_t first[257]; /* of each first byte */
    uint32_t longest;
};

/* NULL if there is no ordinary token of this id. */
const vocabulary_token *vocabulary_find_token(const qwen3_vocabulary *v, int32_t id);

#endif
