/* hidden.c - the hidden states that a forward pass left, and embeddings made of them. Every rank has all rows. */
#include <math.h>

#include "engine/session.h"

static qwen3_status need_rows(const qwen3_session *s, const float *out, const char *name, qwen3_error *err)
{
    if (missing(s, "session", err) || missing(out, name, err))
        return err->status;
    if (!s->has_logits)
        return fail(err, QWEN3_ERR_ARGUMENT, "no hidden states: expected a successful qwen3_forward before");
    const size_t hidden = (size_t)s->model->config.hidden_size;
    for (size_t i = 0; i < s->n_out * hidden; i++)
        if (!isfinite(s->head.hidden[i]))
            return fail(err, QWEN3_ERR_FORMAT,
                        "row %zu: a hidden state is not a finite number; the weights or the input overflow",
                        (size_t)s->head.order[i / hidden]);
    return QWEN3_OK;
}

qwen3_status qwen3_hidden(const qwen3_session *s, float *hidden, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (need_rows(s, hidden, "hidden", err))
        return err->status;
    const size_t n = (size_t)s->model->config.hidden_size;
    for (size_t i = 0; i < s->n_out; i++)
        memcpy(hidden + (size_t)s->head.order[i] * n, s->head.hidden + i * n, n * sizeof *hidden);
    return QWEN3_OK;
}

qwen3_status qwen3_embeddings(const qwen3_session *s, int64_t dimensions, float *embeddings, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (need_rows(s, embeddings, "embeddings", err))
        return err->status;
    const int64_t hidden = s->model->config.hidden_size;
    if (dimensions < 0 || dimensions > hidden)
        return fail(err, QWEN3_ERR_ARGUMENT, "dimensions %lld: expected 1 to %lld, or 0 for all", (long long)dimensions,
                    (long long)hidden);
    const size_t n = (size_t)(dimensions ? dimensions : hidden);
    for (size_t i = 0; i < s->n_out; i++) {
        const float *x = s->head.hidden + i * (size_t)hidden;
        float *out = embeddings + (size_t)s->head.order[i] * n;
        double square = 0;
        for (size_t j = 0; j < n; j++)
            square += (double)x[j] * x[j];
        const double length = square > 0 ? sqrt(square) : 1;
        for (size_t j = 0; j < n; j++)
            out[j] = (float)(x[j] / length);
    }
    return QWEN3_OK;
}
