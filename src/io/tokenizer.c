/* tokenizer.c - opening, closing and looking up. */
#include "io/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/file.h"
#include "io/gguf.h"

enum { FILE_LONGEST = 100 << 20, PATH_LONGEST = 4096 };

static qwen3_status load_json(qwen3_tokenizer *t, const char *path, qwen3_error *err)
{
    void *text;
    size_t bytes;
    qwen3_status status = file_map(path, &text, &bytes, err);
    if (status)
        return status;
    if (bytes > FILE_LONGEST)
        status = fail(err, QWEN3_ERR_FORMAT, "%s: has %zu bytes, expected at most %d", path, bytes, FILE_LONGEST);
    else
        status = tokenizer_load(t, path, text, bytes, err);
    file_unmap(text, bytes);
    return status;
}

static qwen3_status load_gguf(qwen3_tokenizer *t, const char *path, qwen3_error *err)
{
    gguf_file file;
    qwen3_status status = gguf_file_open(path, &file, err);
    if (!status)
        status = tokenizer_load_gguf(t, &file, err);
    gguf_file_close(&file);
    return status;
}

/* path: a file of one of the two formats, or the directory of a model. */
static qwen3_status load_file(qwen3_tokenizer *t, const char *path, qwen3_error *err)
{
    char file[PATH_LONGEST], *metadata;
    struct stat info;
    bool directory = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    int length = snprintf(file, sizeof file, directory ? "%s/tokenizer.json" : "%s", path);
    if (length < 0 || (size_t)length >= sizeof file)
        return fail(err, QWEN3_ERR_ARGUMENT, "tokenizer: the path has %d bytes, expected less than %d", length,
                    PATH_LONGEST);
    qwen3_status status = gguf_metadata_path(path, &metadata, err);
    if (!status)
        status = metadata ? load_gguf(t, metadata, err) : load_json(t, file, err);
    free(metadata);
    if (!status && !(t->whole = calloc(t->n_tokens + 1, sizeof *t->whole)))
        status = fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %zu bytes", path, t->n_tokens);
    return status;
}

static void destroy(qwen3_tokenizer *t)
{
    free(t->bytes);
    free(t->tokens);
    free(t->vocabulary);
    free(t->merges);
    free(t->added);
    free(t->whole);
    free(t);
}

qwen3_status qwen3_tokenizer_open(const char *path, qwen3_tokenizer **tokenizer, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(tokenizer, "tokenizer", err))
        return err->status;
    *tokenizer = NULL;
    if (missing(path, "path", err))
        return err->status;
    qwen3_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return fail(err, QWEN3_ERR_MEMORY, "%s: cannot allocate the tokenizer", path);
    t->users = 1;
    t->end = NO_ID;
    qwen3_status status = load_file(t, path, err);
    if (status == QWEN3_OK)
        *tokenizer = t;
    else
        destroy(t);
    return status;
}

void qwen3_tokenizer_close(qwen3_tokenizer *t)
{
    if (t && --t->users == 0)
        destroy(t);
}

int32_t qwen3_tokenizer_vocab_size(const qwen3_tokenizer *t)
{
    return t ? (int32_t)t->n_tokens : 0;
}

int32_t qwen3_tokenizer_end(const qwen3_tokenizer *t)
{
    return t ? t->end : NO_ID;
}

qwen3_token_kind qwen3_tokenizer_kind(const qwen3_tokenizer *t, int32_t id)
{
    return t && id >= 0 && (size_t)id < t->n_tokens ? t->tokens[id].kind : QWEN3_TOKEN_NONE;
}

const char *qwen3_tokenizer_token(const qwen3_tokenizer *t, int32_t id, size_t *length)
{
    bool known = qwen3_tokenizer_kind(t, id) != QWEN3_TOKEN_NONE;
    if (length)
        *length = known ? t->tokens[id].bytes : 0;
    return known ? (const char *)t->bytes + t->tokens[id].begin : NULL;
}

int32_t qwen3_tokenizer_find(const qwen3_tokenizer *t, const char *bytes, size_t length)
{
    const unsigned char *text = (const unsigned char *)bytes;
    if (!t || !text)
        return NO_ID;
    int32_t added = added_match(t, text, length);
    if (added != NO_ID && t->tokens[added].bytes == length)
        return added;
    return vocabulary_find(t, text, length);
}
