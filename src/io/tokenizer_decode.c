/* tokenizer_decode.c - from ids to text, whole or token by token. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer.h"

enum { WAITING = 3 }; /* longest incomplete character, in bytes */

struct qwen3_text_stream {
    qwen3_tokenizer *t; /* shared */
    bool skip_special;
    unsigned char *bytes; /* [WAITING + longest token], n_waiting of them set */
    size_t n_waiting;
    text_buffer text; /* room for 3 times as many and a zero byte: a push does not allocate */
};

/* The token of an id, NULL if there is none; `index` is for the message. */
static const token *find_token(const qwen3_tokenizer *t, int32_t id, size_t index, qwen3_error *err)
{
    if (qwen3_tokenizer_kind(t, id) != QWEN3_TOKEN_NONE)
        return &t->tokens[id];
    fail(err, QWEN3_ERR_ARGUMENT, "token id %d at index %zu: no token has this id, expected 0 to %zu", (int)id, index,
         t->n_tokens - 1);
    return NULL;
}

/* The bytes of all tokens. */
static qwen3_status join(const qwen3_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, text_buffer *out,
                         qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < n && status == QWEN3_OK; i++) {
        const token *found = find_token(t, ids[i], i, err);
        if (!found)
            return QWEN3_ERR_ARGUMENT;
        if (!skip_special || found->kind != QWEN3_TOKEN_SPECIAL)
            status = text_buffer_append(out, t->bytes + found->begin, found->bytes, err);
    }
    return status;
}

qwen3_status qwen3_tokenizer_decode(const qwen3_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                                    char **text, size_t *length, qwen3_error *err)
{
    qwen3_error local;
    text_buffer bytes = {0}, valid = {0};
    err = error_begin(err, &local);
    if (missing(text, "text", err) || missing(length, "length", err))
        return err->status;
    *text = NULL;
    *length = 0;
    if (missing(tokenizer, "tokenizer", err) || (n > 0 && missing(ids, "ids", err)))
        return err->status;
    qwen3_status status = join(tokenizer, ids, n, skip_special, &bytes, err);
    if (status == QWEN3_OK)
        status = text_buffer_reserve(&valid, bytes.n + 1, err);
    if (status == QWEN3_OK)
        status = utf8_append_valid(&valid, bytes.data, bytes.n, NULL, err);
    if (status == QWEN3_OK)
        status = text_buffer_append(&valid, "", 1, err);
    text_buffer_free(&bytes);
    if (status) {
        text_buffer_free(&valid);
        return status;
    }
    *text = (char *)valid.data;
    *length = valid.n - 1;
    return QWEN3_OK;
}

qwen3_status qwen3_text_stream_open(const qwen3_tokenizer *tokenizer, bool skip_special, qwen3_text_stream **stream,
                                    qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(stream, "stream", err))
        return err->status;
    *stream = NULL;
    if (missing(tokenizer, "tokenizer", err))
        return err->status;
    const size_t longest = WAITING + tokenizer->longest;
    qwen3_text_stream *s = calloc(1, sizeof *s);
    if (!s || !(s->bytes = malloc(longest)) || text_buffer_reserve(&s->text, 3 * longest + 1, err)) {
        qwen3_text_stream_close(s);
        return fail(err, QWEN3_ERR_MEMORY, "text stream: cannot allocate %zu bytes", 4 * longest);
    }
    s->t = (qwen3_tokenizer *)tokenizer; /* only its count of users changes */
    s->t->users++;
    s->skip_special = skip_special;
    *stream = s;
    return QWEN3_OK;
}

/* Puts a zero byte after the text of the buffer. */
static void give_text(qwen3_text_stream *stream, const char **text, size_t *length)
{
    stream->text.data[stream->text.n] = '\0';
    *text = (const char *)stream->text.data;
    *length = stream->text.n;
}

qwen3_status qwen3_text_stream_push(qwen3_text_stream *stream, int32_t id, const char **text, size_t *length,
                                    qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(stream, "stream", err) || missing(text, "text", err) || missing(length, "length", err))
        return err->status;
    stream->text.n = 0;
    give_text(stream, text, length);
    const token *found = find_token(stream->t, id, 0, err);
    if (!found)
        return QWEN3_ERR_ARGUMENT;
    if (stream->skip_special && found->kind == QWEN3_TOKEN_SPECIAL)
        return QWEN3_OK;
    memcpy(stream->bytes + stream->n_waiting, stream->t->bytes + found->begin, found->bytes);
    size_t n = stream->n_waiting + found->bytes;
    qwen3_status status = utf8_append_valid(&stream->text, stream->bytes, n, &stream->n_waiting, err);
    memmove(stream->bytes, stream->bytes + n - stream->n_waiting, stream->n_waiting);
    give_text(stream, text, length);
    return status;
}

void qwen3_text_stream_finish(qwen3_text_stream *stream, const char **text, size_t *length)
{
    if (!stream || !text || !length)
        return;
    stream->text.n = 0;
    /* At most three bytes are left, which become one U+FFFD: there is room for it. */
    utf8_append_valid(&stream->text, stream->bytes, stream->n_waiting, NULL, NULL);
    stream->n_waiting = 0;
    give_text(stream, text, length);
}

void qwen3_text_stream_close(qwen3_text_stream *stream)
{
    if (!stream)
        return;
    free(stream->bytes);
    qwen3_tokenizer_close(stream->t);
    text_buffer_free(&stream->text);
    free(stream);
}
