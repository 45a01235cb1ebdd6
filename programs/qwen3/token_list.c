/* token_list.c - see token_list.h. */
#include "token_list.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/program.h"
#include "common/text_file.h"

/* The text is freed with free(); NULL on failure. */
static char *read_file(const char *path, qwen3_error *err)
{
    size_t size;
    char *text = text_file_read(path, "--tokens", &size, err);
    if (text && memchr(text, '\0', size)) {
        set_error(err, QWEN3_ERR_FORMAT, "--tokens: %s is not a text file", path);
        free(text);
        text = NULL;
    }
    return text;
}

/* Reads the id at *at and advances *at. */
static bool next_token(const char **at, int32_t *token)
{
    char *end;
    if (!isdigit((unsigned char)**at))
        return false;
    errno = 0;
    long id = strtol(*at, &end, 10);
    if (errno || id > INT32_MAX || (*end && *end != ',' && !isspace((unsigned char)*end)))
        return false;
    *at = end;
    *token = (int32_t)id;
    return true;
}

static const char *skip_space(const char *at)
{
    while (isspace((unsigned char)*at))
        at++;
    return at;
}

static qwen3_status parse(const char *text, int32_t **tokens, size_t *n, qwen3_error *err)
{
    /* Every id but the last is followed by a separator. */
    size_t room = strlen(text) / 2 + 1;
    const char *at = skip_space(text);
    *n = 0;
    if (!(*tokens = allocate(room, sizeof **tokens, "--tokens", err)))
        return err->status;
    while (*at) {
        if (!next_token(&at, &(*tokens)[*n]))
            return set_error(err, QWEN3_ERR_ARGUMENT,
                             "--tokens: got \"%.20s\" after %zu ids, expected a token id (a non-negative integer)", at,
                             *n);
        ++*n;
        at = skip_space(at);
        if (*at == ',') {
            at = skip_space(at + 1);
            if (!*at)
                return set_error(err, QWEN3_ERR_ARGUMENT, "--tokens: ends in a comma after %zu ids", *n);
        }
    }
    if (*n == 0)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--tokens: no token ids, expected ID,ID,... or @FILE");
    return QWEN3_OK;
}

/* On rank 0. */
static qwen3_status read_list(const char *text, int32_t **tokens, size_t *n, qwen3_error *err)
{
    if (*text != '@')
        return parse(text, tokens, n, err);
    char *content = read_file(text + 1, err);
    qwen3_status status = content ? parse(content, tokens, n, err) : err->status;
    free(content);
    return status;
}

qwen3_status token_list_read(qwen3_comm *world, const char *text, int32_t **tokens, size_t *n, qwen3_error *err)
{
    int rank = qwen3_comm_rank(world);
    uint64_t count = 0;
    *tokens = NULL;
    *n = 0;
    if (rank == 0) {
        read_list(text, tokens, n, err);
        count = *n;
    }
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status != QWEN3_OK)
        goto done;
    qwen3_comm_broadcast(world, &count, sizeof count);
    *n = count;
    if (rank != 0)
        *tokens = allocate(count, sizeof **tokens, "--tokens", err);
    status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        qwen3_comm_broadcast(world, *tokens, count * sizeof **tokens);
done:
    if (status != QWEN3_OK) {
        free(*tokens);
        *tokens = NULL;
    }
    return status;
}
