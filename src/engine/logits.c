/* logits.c - reading the logits that a forward pass left distributed over the ranks. */
#include <stdlib.h>

#include "base/memory.h"
#include "blocks/architectures.h"
#include "engine/session.h"

/* Logits are collected in pieces of at most this many bytes, so that rank 0 needs little beside the result. */
#define COLLECT_BYTES (64u << 20)

qwen3_status session_need_logits(const qwen3_session *s, qwen3_error *err)
{
    if (missing(s, "session", err))
        return err->status;
    if (s->model->config.no_output_head)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "no logits: the model has no output head");
    if (s->has_logits)
        return QWEN3_OK;
    return fail(err, QWEN3_ERR_ARGUMENT, "no logits: expected a successful qwen3_forward before");
}

range session_vocabulary(const qwen3_model *m, int rank)
{
    grid_place place = m->place;
    place.s = rank / place.h_groups;
    place.h = rank % place.h_groups;
    return model_vocabulary(&m->config, &m->format, place);
}

size_t qwen3_logits_rows(const qwen3_session *s)
{
    return s && s->has_logits ? s->n_out : 0;
}

static qwen3_status fail_not_a_number(size_t row, qwen3_error *err)
{
    return fail(err, QWEN3_ERR_FORMAT, "row %zu: a logit is not a number; the weights or the input overflow", row);
}

/* Embedding rows are read as they are needed, so that a NaN in one is first seen here. */
static qwen3_status check_numbers(const qwen3_session *s, qwen3_error *err)
{
    size_t mine = s->model->weights.matrices[MODEL_HEAD].n;
    for (size_t i = 0; i < s->n_out * mine; i++)
        if (isnan(s->head.logits[i]))
            return fail_not_a_number(i / mine, err);
    return QWEN3_OK;
}

/* Rows [first, first + rows): parts of all ranks to rank 0, then to their columns. */
static void collect_rows(const qwen3_session *s, size_t first, size_t rows, float *parts, size_t *bytes, float *logits)
{
    const qwen3_model *m = s->model;
    size_t vocabulary = (size_t)m->config.vocab_size, mine = m->weights.matrices[MODEL_HEAD].n;
    int ranks = comm_size(m->world);
    for (int r = 0; r < ranks; r++)
        bytes[r] = rows * (size_t)range_size(session_vocabulary(m, r)) * sizeof(float);
    comm_gather(m->world, s->head.logits + first * mine, parts, bytes, QWEN3_COMM_LOGITS);
    if (comm_rank(m->world) != 0)
        return;
    for (int r = 0; r < ranks; r++) {
        range columns = session_vocabulary(m, r);
        size_t n = (size_t)range_size(columns);
        for (size_t i = 0; i < rows; i++)
            memcpy(logits + (first + i) * vocabulary + columns.begin, parts + i * n, n * sizeof(float));
        parts += rows * n;
    }
}

qwen3_status qwen3_logits(qwen3_session *s, float *logits, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (session_need_logits(s, err))
        return err->status;
    const qwen3_model *m = s->model;
    size_t row_bytes = (size_t)m->config.vocab_size * sizeof(float), n = s->n_out;
    size_t piece = row_bytes < COLLECT_BYTES ? COLLECT_BYTES / row_bytes : 1;
    piece = piece < n ? piece : n;
    bool root = comm_rank(m->world) == 0;
    size_t *bytes = malloc((size_t)comm_size(m->world) * sizeof *bytes);
    void *parts = NULL;
    check_numbers(s, err);
    if (!bytes)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a table of ranks");
    if (root && !logits)
        fail(err, QWEN3_ERR_ARGUMENT, "logits is NULL on rank 0; expected room for %zu rows", n);
    if (root && !err->status)
        memory_alloc(&parts, piece * row_bytes, "collected logits", err);
    qwen3_status status = qwen3_comm_agree(m->world, err);
    for (size_t first = 0; !status && first < n; first += piece)
        collect_rows(s, first, n - first < piece ? n - first : piece, parts, bytes, logits);
    if (root)
        memory_free(parts, piece * row_bytes);
    free(bytes);
    return status;
}
