/* vocabulary.c - see vocabulary.h. */
#include "io/vocabulary.h"

#include <stdlib.h>
#include <string.h>

static int compare_tokens(const void *one, const void *other)
{
    const vocabulary_token *a = one, *b = other;
    const int order = memcmp(a->bytes, b->bytes, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

static uint32_t shared_bytes(const vocabulary_token *a, const vocabulary_token *b)
{
    uint32_t n = 0;
    while (n < a->n && n < b->n && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

static void fill(qwen3_vocabulary *v, const qwen3_tokenizer *tokenizer)
{
    for (int32_t id = 0; id < v->n_ids; id++) {
        size_t n;
        const char *bytes = qwen3_tokenizer_token(tokenizer, id, &n);
        v->places[id] = -1;
        if (qwen3_tokenizer_kind(tokenizer, id) == QWEN3_TOKEN_ORDINARY && n > 0)
            v->tokens[v->n++] = (vocabulary_token){.bytes = (const unsigned char *)bytes, .n = (uint32_t)n, .id = id};
    }
    qsort(v->tokens, (size_t)v->n, sizeof *v->tokens, compare_tokens);
    for (int32_t i = 0, byte = 0; i <= v->n; i++)
        for (; byte <= (i < v->n ? v->tokens[i].bytes[0] : 256); byte++)
            v->first[byte] = i;
    for (int32_t i = 0; i < v->n; i++) {
        v->places[v->tokens[i].id] = i;
        v->tokens[i].shared = i > 0 ? shared_bytes(&v->tokens[i - 1], &v->tokens[i]) : 0;
        v->longest = v->tokens[i].n > v->longest ? v->tokens[i].n : v->longest;
    }
}

qwen3_status qwen3_vocabulary_open(const qwen3_tokenizer *tokenizer, qwen3_vocabulary **vocabulary, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(vocabulary, "vocabulary", err))
        return err->status;
    *vocabulary = NULL;
    if (missing(tokenizer, "tokenizer", err))
        return err->status;
    qwen3_vocabulary *v = calloc(1, sizeof *v);
    const int32_t n = qwen3_tokenizer_vocab_size(tokenizer);
    if (v) {
        v->n_ids = n;
        v->tokens = malloc((size_t)(n + 1) * sizeof *v->tokens);
        v->places = malloc((size_t)(n + 1) * sizeof *v->places);
    }
    if (!v || !v->tokens || !v->places) {
        qwen3_vocabulary_close(v);
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a vocabulary of %d", n);
    }
    fill(v, tokenizer);
    *vocabulary = v;
    return QWEN3_OK;
}

void qwen3_vocabulary_close(qwen3_vocabulary *v)
{
    if (!v)
        return;
    free(v->tokens);
    free(v->places);
    free(v);
}

const vocabulary_token *vocabulary_find_token(const qwen3_vocabulary *v, int32_t id)
{
    return id >= 0 && id < v->n_ids && v->places[id] >= 0 ? &v->tokens[v->places[id]] : NULL;
}
