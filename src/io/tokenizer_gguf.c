/* tokenizer_gguf.c - from the keys of a GGUF file to tables. */
#include <inttypes.h>
#include <stdlib.h>

#include "io/gguf.h"
#include "io/tokenizer_loader.h"

/* Kinds of tokens in tokenizer.ggml.token_type. The padding of a vocabulary to the rows of the output head is unused:
 * these ids are no tokens. */
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };

enum { TOKENS_LONGEST = 100 << 20 }; /* bytes of all tokens, as of tokenizer.json */

typedef struct token_lists {
    const gguf_value *tokens, *types, *merges;
} token_lists;

/* The value must be the one that is handled: another one means other ids. */
static qwen3_status check_text(const gguf_section *s, const char *name, const char *expected)
{
    gguf_text text;
    const qwen3_status status = gguf_read_text(s, name, &text);
    if (status || gguf_text_is(text, expected))
        return status;
    return fail(s->err, QWEN3_ERR_UNSUPPORTED, "%s: key %s%s: got \"%.*s\", expected %s", s->file->path, s->prefix,
                name, (int)(text.bytes < 40 ? text.bytes : 40), text.data, expected);
}

static qwen3_status find_lists(const gguf_section *s, token_lists *lists)
{
    qwen3_status status;
    if ((status = check_text(s, "model", "gpt2")) || (status = check_text(s, "pre", "qwen2")) ||
        (status = gguf_read_array(s, "tokens", GGUF_STRING, &lists->tokens)) ||
        (status = gguf_read_array(s, "token_type", GGUF_I32, &lists->types)) ||
        (status = gguf_read_array(s, "merges", GGUF_STRING, &lists->merges)))
        return status;
    const char *path = s->file->path;
    if (lists->tokens->n != lists->types->n)
        return fail(s->err, QWEN3_ERR_FORMAT,
                    "%s: key %stoken_type: has %" PRIu64 " elements, expected one for each of "
                    "%" PRIu64 " tokens",
                    path, s->prefix, lists->types->n, lists->tokens->n);
    if (lists->tokens->n > TOKEN_IDS || lists->tokens->bytes > TOKENS_LONGEST)
        return fail(s->err, QWEN3_ERR_UNSUPPORTED,
                    "%s: key %stokens: %" PRIu64 " tokens of %zu bytes, expected at most "
                    "%d and %d",
                    path, s->prefix, lists->tokens->n, lists->tokens->bytes, TOKEN_IDS, TOKENS_LONGEST);
    if (lists->merges->n > INT32_MAX)
        return fail(s->err, QWEN3_ERR_UNSUPPORTED, "%s: key %smerges: %" PRIu64 " merges, expected less than 2^31",
                    path, s->prefix, lists->merges->n);
    return QWEN3_OK;
}

/* *added: tokens that are not ordinary, at most. */
static qwen3_status check_types(const gguf_section *s, const gguf_value *types, size_t *added)
{
    *added = 0;
    for (uint64_t id = 0; id < types->n; id++) {
        const int32_t type = gguf_int32_at(types, id);
        if (type != TYPE_NORMAL && type != TYPE_CONTROL && type != TYPE_USER_DEFINED && type != TYPE_UNUSED)
            return fail(s->err, QWEN3_ERR_UNSUPPORTED,
                        "%s: key %stoken_type: token %" PRIu64 " has type %d, expected %d normal, %d control, %d "
                        "user-defined or %d unused",
                        s->file->path, s->prefix, id, (int)type, TYPE_NORMAL, TYPE_CONTROL, TYPE_USER_DEFINED,
                        TYPE_UNUSED);
        *added += type != TYPE_NORMAL;
    }
    return QWEN3_OK;
}

static token_text next_token(const unsigned char **at)
{
    const gguf_text text = gguf_next_text(at);
    return (token_text){text.data, text.bytes};
}

/* Ordinary tokens are in the byte-level alphabet, added ones are as in text. */
static qwen3_status add_tokens(tokenizer_loader *l, const token_lists *lists, bool ordinary, qwen3_error *err)
{
    const unsigned char *at = lists->tokens->data;
    qwen3_status status = QWEN3_OK;
    for (int32_t id = 0; id < (int32_t)lists->tokens->n && !status; id++) {
        const token_text text = next_token(&at);
        const int32_t type = gguf_int32_at(lists->types, (uint64_t)id);
        size_t n;
        if (type == TYPE_UNUSED || (type == TYPE_NORMAL) != ordinary)
            continue;
        if (!ordinary)
            status = loader_add_added(l, id, text, type == TYPE_CONTROL ? QWEN3_TOKEN_SPECIAL : QWEN3_TOKEN_ADDED, err);
        else if (!loader_put(l, text, &n))
            status = fail(err, QWEN3_ERR_FORMAT, "%s: %s: token %d is not in the byte-level alphabet", l->path,
                          l->vocabulary, (int)id);
        else
            status = loader_add(l, id, n, QWEN3_TOKEN_ORDINARY, err);
    }
    return status;
}

static qwen3_status add_merges(tokenizer_loader *l, const gguf_value *list, qwen3_error *err)
{
    triple *merges = calloc(list->n + 1, sizeof *merges);
    if (!merges)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %" PRIu64 " merges", l->path, list->n);
    const unsigned char *at = list->data;
    qwen3_status status = QWEN3_OK;
    for (uint64_t i = 0; i < list->n && !status; i++) {
        token_text left, right;
        if (!loader_split_pair(next_token(&at), &left, &right) ||
            loader_find_merge(l, left, right, i ? merges[i - 1].id + 1 : 0, &merges[i]) != MERGE_GOOD)
            status = fail(err, QWEN3_ERR_FORMAT,
                          "%s: %s: merge %" PRIu64 ": expected two tokens with a space between "
                          "them, that make a third",
                          l->path, l->merges, i);
    }
    if (!status)
        status = loader_add_merges(l, merges, (size_t)list->n, err);
    free(merges);
    return status;
}

qwen3_status tokenizer_load_gguf(qwen3_tokenizer *t, const gguf_file *file, qwen3_error *err)
{
    const gguf_section s = {file, "tokenizer.ggml.", err};
    tokenizer_loader l = {.t = t,
                          .path = file->path,
                          .vocabulary = "tokenizer.ggml.tokens",
                          .merges = "tokenizer.ggml.merges",
                          .added = "tokenizer.ggml.tokens"};
    token_lists lists;
    size_t added = 0;
    qwen3_status status = find_lists(&s, &lists);
    if (status)
        return status;
    if ((status = check_types(&s, lists.types, &added)) ||
        (status = loader_reserve(&l, lists.tokens->bytes, added, err)) ||
        (status = add_tokens(&l, &lists, true, err)) || (status = loader_end_vocabulary(&l, err)) ||
        (status = add_merges(&l, lists.merges, err)) || (status = add_tokens(&l, &lists, false, err)))
        return status;
    return loader_end_added(&l, err);
}
