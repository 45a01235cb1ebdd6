/* session.c - opening, stepping and reading a session. */
#include "engine/session.h"

#include <stdlib.h>

#include "base/memory.h"

enum {
    DEFAULT_MAX_TOKENS = 4096,
    MAX_BLOCK = 1 << 20,
    /* A step with fewer rows reads the weights more often than it computes with them: split the weights. */
    DEFAULT_SPLIT_MIN = 16,
};

qwen3_session_options qwen3_session_options_default(void)
{
    return (qwen3_session_options){.max_sequences = 1};
}

static qwen3_status check_options(const qwen3_session_options *o, const qwen3_config *config, qwen3_error *err)
{
    if (o->max_sequences < 1 || o->max_sequences > 1 << 20)
        return fail(err, QWEN3_ERR_ARGUMENT, "max_sequences %d: expected 1..%d", o->max_sequences, 1 << 20);
    if (o->max_tokens < 0 || o->max_tokens > config->max_positions)
        return fail(err, QWEN3_ERR_ARGUMENT, "max_tokens %lld: the model has %lld positions (max_position_embeddings)",
                    (long long)o->max_tokens, (long long)config->max_positions);
    if (o->q_block_size < 0 || o->q_block_size > MAX_BLOCK)
        return fail(err, QWEN3_ERR_ARGUMENT, "q_block_size %d: expected 1..%d, or 0 for the default", o->q_block_size,
                    MAX_BLOCK);
    if (o->kv_block_size < 0 || o->kv_block_size > MAX_BLOCK)
        return fail(err, QWEN3_ERR_ARGUMENT, "kv_block_size %d: expected 1..%d, or 0 for the default", o->kv_block_size,
                    MAX_BLOCK);
    if (o->token_split_min < 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "token_split_min %lld: expected a positive number, or 0 for the default",
                    (long long)o->token_split_min);
    return QWEN3_OK;
}

static void apply_options(qwen3_session *s)
{
    const qwen3_model *m = s->model;
    qwen3_session_options *o = &s->options;
    if (o->max_tokens == 0)
        o->max_tokens = m->config.max_positions < DEFAULT_MAX_TOKENS ? m->config.max_positions : DEFAULT_MAX_TOKENS;
    if (o->token_split_min == 0) {
        int64_t two_each = 2 * (int64_t)m->plan.grid_sequence;
        o->token_split_min = two_each > DEFAULT_SPLIT_MIN ? two_each : DEFAULT_SPLIT_MIN;
    }
    if (o->algorithm == QWEN3_ATTENTION_AUTO)
        o->algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX;
    s->algorithm = attention_algorithm_get(o->algorithm);
    int64_t kv_heads = m->plan.num_kv_heads;
    int keys = o->kv_block_size ? o->kv_block_size : ATTENTION_KV_BLOCK;
    s->shape = (attention_shape){.kernels = m->kernels,
                                 .kv_type = m->plan.kv_dtype,
                                 .head_dim = (size_t)m->config.head_dim,
                                 .kv_heads = (size_t)kv_heads,
                                 .group = kv_heads ? (size_t)(m->plan.num_heads / kv_heads) : 1,
                                 .causal = true,
                                 .q_block_size = o->q_block_size ? o->q_block_size : ATTENTION_Q_BLOCK,
                                 .kv_block_size = (int)round_up((size_t)keys, KV_BLOCK)};
}

static qwen3_status open_session(qwen3_session *s, const qwen3_session_options *options, qwen3_error *err)
{
    const qwen3_model *m = s->model;
    s->options = options ? *options : qwen3_session_options_default();
    qwen3_status status = check_options(&s->options, &m->config, err);
    if (status)
        return status;
    apply_options(s);
    if (!s->algorithm)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention algorithm %d is unknown", (int)s->options.algorithm);
    status = kv_cache_open(&s->cache, &s->shape, m->config.num_layers, m->plan.grid_sequence, m->plan.sequence_index,
                           s->options.max_sequences, s->options.max_tokens, err);
    if (!status)
        status = step_open(&s->step, &s->cache, err);
    return status;
}

qwen3_status qwen3_session_open(qwen3_model *model, const qwen3_session_options *options, qwen3_session **session,
                                qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    *session = NULL;
    qwen3_session *s = calloc(1, sizeof *s);
    if (s) {
        s->model = model;
        open_session(s, options, err);
    } else {
        fail(err, QWEN3_ERR_MEMORY, "no memory for a session");
    }
    qwen3_status status = qwen3_comm_agree(model->world, err);
    if (status) {
        qwen3_session_close(s);
        return status;
    }
    qwen3_session_reset_stats(s);
    *session = s;
    return QWEN3_OK;
}

void qwen3_session_close(qwen3_session *s)
{
    if (!s)
        return;
    session_free_buffers(s);
    step_close(&s->step);
    kv_cache_close(&s->cache);
    free(s);
}

qwen3_status qwen3_session_reset(qwen3_session *s, int sequence, qwen3_error *err)
{
    error_clear(err);
    if (sequence < -1 || sequence >= s->options.max_sequences)
        return fail(err, QWEN3_ERR_ARGUMENT, "sequence %d: expected 0..%d, or -1 for all", sequence,
                    s->options.max_sequences - 1);
    for (int i = 0; i < s->options.max_sequences; i++)
        if (sequence == -1 || sequence == i)
            kv_cache_reset(&s->cache, i);
    return QWEN3_OK;
}

qwen3_status qwen3_session_truncate(qwen3_session *s, int sequence, int64_t length, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    kv_cache *c = &s->cache;
    size_t groups = (size_t)c->groups;
    int64_t *owned = malloc(groups * sizeof *owned);
    size_t *bytes = malloc(groups * sizeof *bytes);
    if (sequence < 0 || sequence >= s->options.max_sequences)
        fail(err, QWEN3_ERR_ARGUMENT, "sequence %d: expected 0..%d", sequence, s->options.max_sequences - 1);
    else if (length < 0 || length > c->sequences[sequence].length)
        fail(err, QWEN3_ERR_ARGUMENT, "length %lld: expected 0..%lld, the tokens of sequence %d", (long long)length,
             (long long)c->sequences[sequence].length, sequence);
    else if (!owned || !bytes)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %zu ranks", groups);
    if (!qwen3_comm_agree(s->model->world, err)) {
        for (size_t g = 0; g < groups; g++)
            bytes[g] = sizeof *owned;
        int64_t mine = kv_cache_owned_below(c, sequence, length);
        comm_allgather(s->model->sequence_group, &mine, owned, bytes, QWEN3_COMM_CONTROL);
        kv_cache_truncate(c, sequence, length, owned);
    }
    free(owned);
    free(bytes);
    return err->status;
}

int64_t qwen3_session_length(const qwen3_session *s, int sequence)
{
    return sequence >= 0 && sequence < s->options.max_sequences ? s->cache.sequences[sequence].length : 0;
}

/* Weights are checked when they are packed. An embedding matrix of its own is not packed but read row by row, so
 * its rows are checked when they are used. */
static qwen3_status check_embeddings(const qwen3_session *s, qwen3_error *err)
{
    const qwen3_config *c = &s->model->config;
    if (c->tie_word_embeddings)
        return QWEN3_OK;
    float *scratch = malloc((size_t)c->hidden_size * sizeof *scratch);
    if (!scratch)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a row of %lld values", (long long)c->hidden_size);
    size_t first, n = session_rows(s, &first);
    bool finite = true;
    for (size_t i = first; i < first + n && finite; i++) {
        const int64_t token = s->step.rows[i].token;
        const tensor_part row = {MODEL_EMBEDDING, {token, token + 1}, {0, c->hidden_size}};
        const tensor_view v = source_part(s->model->source, &row, scratch);
        for (int64_t j = 0; j < c->hidden_size; j++)
            finite &= isfinite(view_value(&v, (size_t)j)) != 0;
        if (!finite)
            fail(err, QWEN3_ERR_FORMAT,
                 "tensor model.embed_tokens.weight: NaN or infinite value in row %d; expected finite weights",
                 s->step.rows[i].token);
    }
    free(scratch);
    return err->status;
}

qwen3_status qwen3_forward(qwen3_session *s, const qwen3_batch *batch, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    s->has_logits = false;
    qwen3_status status = step_plan(&s->step, &s->cache, &s->model->config, batch, s->options.token_split_min, err);
    if (!status)
        status = step_reserve(&s->step, &s->cache, err);
    if (!status)
        status = check_embeddings(s, err);
    if (!status)
        session_prepare(s, err);
    /* One rank out of memory must not leave the others waiting in the middle of a layer. */
    status = qwen3_comm_agree(s->model->world, err);
    if (status)
        return status;
    step_commit(&s->step, &s->cache);
    session_run(s);
    s->has_logits = true;
    return QWEN3_OK;
}

void qwen3_session_get_info(const qwen3_session *s, qwen3_session_info *info)
{
    *info = (qwen3_session_info){.algorithm = s->options.algorithm,
                                 .kv_bytes = s->cache.total_pages * s->cache.page_bytes,
                                 .kv_bytes_used = s->cache.used_pages * s->cache.page_bytes,
                                 .scratch_bytes = s->arena_bytes,
                                 .score_bytes = s->b.workspace.score_bytes,
                                 .comm = *comm_stats(s->model->world)};
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        info->comm.calls[kind] -= s->stats_base.calls[kind];
        info->comm.bytes[kind] -= s->stats_base.bytes[kind];
        info->comm.seconds[kind] -= s->stats_base.seconds[kind];
    }
}

void qwen3_session_reset_stats(qwen3_session *s)
{
    s->stats_base = *comm_stats(s->model->world);
}
