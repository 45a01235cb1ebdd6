/* tokenizer_loader.c - see tokenizer_loader.h. */
#include "io/tokenizer_loader.h"

#include <stdlib.h>
#include <string.h>

static void set_alphabet(int16_t *byte_of)
{
    int16_t other = 0x100;
    memset(byte_of, 0xFF, ALPHABET_END * sizeof *byte_of);
    for (int16_t b = 0; b < 256; b++) {
        bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        byte_of[itself ? b : other++] = b;
    }
}

qwen3_status loader_reserve(tokenizer_loader *l, size_t bytes, size_t added, qwen3_error *err)
{
    set_alphabet(l->byte_of);
    l->t->bytes = malloc(bytes + 1);
    l->t->added = malloc((added + 1) * sizeof *l->t->added);
    if (!l->t->bytes || !l->t->added)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %zu bytes and %zu added tokens", l->path, bytes, added);
    return QWEN3_OK;
}

/* ---- Vocabulary */

/* Characters of the alphabet to bytes; out has room for n. False if another character is among them. */
static bool to_bytes(const tokenizer_loader *l, const char *string, size_t n, unsigned char *out, size_t *n_out)
{
    const unsigned char *text = (const unsigned char *)string;
    size_t length;
    *n_out = 0;
    for (size_t at = 0; at < n; at += length) {
        int32_t c = utf8_decode(text + at, n - at, &length);
        if (c < 0 || c >= ALPHABET_END || l->byte_of[c] < 0)
            return false;
        out[(*n_out)++] = (unsigned char)l->byte_of[c];
    }
    return true;
}

bool loader_put(tokenizer_loader *l, token_text text, size_t *bytes)
{
    return to_bytes(l, text.data, text.n, l->t->bytes + l->used, bytes);
}

/* The entry of an id, which may be new; NULL if there is no memory. */
static token *token_entry(tokenizer_loader *l, int32_t id)
{
    qwen3_tokenizer *t = l->t;
    size_t needed = (size_t)id + 1;
    if (needed > l->room) {
        size_t room = needed > 2 * l->room ? needed : 2 * l->room;
        token *tokens = realloc(t->tokens, room * sizeof *tokens);
        if (!tokens)
            return NULL;
        memset(tokens + l->room, 0, (room - l->room) * sizeof *tokens);
        t->tokens = tokens;
        l->room = room;
    }
    if (needed > t->n_tokens)
        t->n_tokens = needed;
    return &t->tokens[id];
}

qwen3_status loader_add(tokenizer_loader *l, int32_t id, size_t n, qwen3_token_kind kind, qwen3_error *err)
{
    if (id >= TOKEN_IDS)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: token id %d, expected at most %d", l->path, (int)id,
                    TOKEN_IDS - 1);
    if (n == 0 || n > TOKEN_LONGEST)
        return fail(err, QWEN3_ERR_FORMAT, "%s: the token of id %d has %zu bytes, expected 1 to %d", l->path, (int)id,
                    n, TOKEN_LONGEST);
    token *entry = token_entry(l, id);
    if (!entry)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate the table of tokens", l->path);
    if (entry->kind != QWEN3_TOKEN_NONE)
        return fail(err, QWEN3_ERR_FORMAT, "%s: two tokens have the id %d", l->path, (int)id);
    *entry = (token){(uint32_t)l->used, (uint32_t)n, kind};
    l->used += n;
    if (n > l->t->longest)
        l->t->longest = n;
    return QWEN3_OK;
}

/* Every byte must have a token, so that any text can be encoded. */
static qwen3_status find_bytes(tokenizer_loader *l, qwen3_error *err)
{
    for (int b = 0; b < 256; b++) {
        unsigned char byte = (unsigned char)b;
        l->t->byte_ids[b] = vocabulary_find(l->t, &byte, 1);
        if (l->t->byte_ids[b] == NO_ID)
            return fail(err, QWEN3_ERR_FORMAT, "%s: %s: no token for the byte 0x%02X", l->path, l->vocabulary, b);
    }
    return QWEN3_OK;
}

qwen3_status loader_end_vocabulary(tokenizer_loader *l, qwen3_error *err)
{
    const qwen3_status status = vocabulary_build(l->t, l->path, l->vocabulary, err);
    return status ? status : find_bytes(l, err);
}

/* ---- Merges */

bool loader_split_pair(token_text pair, token_text *left, token_text *right)
{
    const char *space = memchr(pair.data, ' ', pair.n);
    if (!space)
        return false;
    *left = (token_text){pair.data, (size_t)(space - pair.data)};
    *right = (token_text){space + 1, pair.n - left->n - 1};
    return true;
}

/* The token of these bytes. Training gives ids in the order of merges, so the guess is mostly right. Checking it is
 * cheaper than a look-up. */
static int32_t find_merged(const qwen3_tokenizer *t, int32_t guess, const unsigned char *bytes, size_t n)
{
    const token *entry = (size_t)guess < t->n_tokens ? &t->tokens[guess] : NULL;
    bool right =
        entry && entry->kind != QWEN3_TOKEN_NONE && entry->bytes == n && memcmp(t->bytes + entry->begin, bytes, n) == 0;
    return right ? guess : vocabulary_find(t, bytes, n);
}

merge_fault loader_find_merge(const tokenizer_loader *l, token_text left, token_text right, int32_t guess, triple *out)
{
    unsigned char bytes[2 * TOKEN_LONGEST];
    size_t n_left, n_right;
    if (left.n > TOKEN_LONGEST || right.n > TOKEN_LONGEST || !to_bytes(l, left.data, left.n, bytes, &n_left) ||
        !to_bytes(l, right.data, right.n, bytes + n_left, &n_right))
        return MERGE_NOT_BYTES;
    out->left = vocabulary_find(l->t, bytes, n_left);
    out->right = vocabulary_find(l->t, bytes + n_left, n_right);
    out->id = find_merged(l->t, guess, bytes, n_left + n_right);
    return out->left == NO_ID || out->right == NO_ID || out->id == NO_ID ? MERGE_NO_TOKEN : MERGE_GOOD;
}

/* No merge may use a token that a later one makes: tokenizer_merge.c visits ranks once, in ascending order. Trained
 * merges are like that. */
static qwen3_status check_order(const tokenizer_loader *l, const triple *merges, size_t n, qwen3_error *err)
{
    int32_t *maker = malloc((l->t->n_tokens + 1) * sizeof *maker); /* the last merge that makes the token */
    if (!maker)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate the table of merges", l->path);
    memset(maker, 0xFF, l->t->n_tokens * sizeof *maker);
    for (size_t i = 0; i < n; i++)
        maker[merges[i].id] = (int32_t)i;
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < n && status == QWEN3_OK; i++) {
        int32_t last = maker[merges[i].left] > maker[merges[i].right] ? maker[merges[i].left] : maker[merges[i].right];
        if (last >= (int32_t)i)
            status = fail(err, QWEN3_ERR_UNSUPPORTED,
                          "%s: %s: merge %zu uses what merge %d makes, expected them in the order of use", l->path,
                          l->merges, i, (int)last);
    }
    free(maker);
    return status;
}

qwen3_status loader_add_merges(tokenizer_loader *l, const triple *merges, size_t n, qwen3_error *err)
{
    qwen3_status status = check_order(l, merges, n, err);
    if (status == QWEN3_OK)
        status = merges_reserve(l->t, n, err);
    for (size_t i = 0; i < n && status == QWEN3_OK; i++)
        if (!merges_insert(l->t, (merge){merges[i].left, merges[i].right, (int32_t)i, merges[i].id}))
            status = fail(err, QWEN3_ERR_FORMAT, "%s: %s: merge %zu is there twice", l->path, l->merges, i);
    l->t->n_merges = n;
    return status;
}

/* ---- Added tokens */

qwen3_status loader_add_added(tokenizer_loader *l, int32_t id, token_text content, qwen3_token_kind kind,
                              qwen3_error *err)
{
    qwen3_tokenizer *t = l->t;
    qwen3_status status = QWEN3_OK;
    token *known = (size_t)id < t->n_tokens ? &t->tokens[id] : NULL;
    if (known && known->kind == QWEN3_TOKEN_ORDINARY && known->bytes == content.n &&
        memcmp(t->bytes + known->begin, content.data, content.n) == 0) {
        known->kind = kind;
    } else {
        memcpy(t->bytes + l->used, content.data, content.n);
        status = loader_add(l, id, content.n, kind, err);
    }
    t->added[t->n_added++] = id;
    return status;
}

qwen3_status loader_end_added(tokenizer_loader *l, qwen3_error *err)
{
    const qwen3_tokenizer *t = l->t;
    added_sort(l->t);
    for (size_t i = 1; i < t->n_added; i++) {
        const token *a = &t->tokens[t->added[i - 1]], *b = &t->tokens[t->added[i]];
        if (a->bytes == b->bytes && memcmp(t->bytes + a->begin, t->bytes + b->begin, a->bytes) == 0)
            return fail(err, QWEN3_ERR_FORMAT, "%s: %s: ids %d and %d are the same token", l->path, l->added,
                        (int)t->added[i - 1], (int)t->added[i]);
    }
    return QWEN3_OK;
}
