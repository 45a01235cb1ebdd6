/* session.c - opening, stepping and reading a session. */
#include "engine/session.h"

#include <stdlib.h>

#include "attention/attention.h"
#include "base/digest.h"
#include "base/memory.h"
#include "blocks/architectures.h"
#include "engine/agree.h"
#include "engine/wire.h"
#include "kernels/row_limits.h"

enum {
    DEFAULT_MAX_TOKENS = 4096,
    MAX_BLOCK = 1 << 20,
};

qwen3_session_options qwen3_session_options_default(void)
{
    return (qwen3_session_options){.max_sequences = 1, .wire = QWEN3_DTYPE_AUTO};
}

static qwen3_status check_options(const qwen3_session_options *o, const qwen3_config *config, qwen3_error *err)
{
    if ((unsigned)o->algorithm > QWEN3_ATTENTION_ONLINE_SOFTMAX)
        return fail(err, QWEN3_ERR_ARGUMENT, "algorithm %d is unknown", (int)o->algorithm);
    if (o->max_sequences < 1 || o->max_sequences > 1 << 20)
        return fail(err, QWEN3_ERR_ARGUMENT, "max_sequences %d: expected 1..%d", o->max_sequences, 1 << 20);
    if (o->max_tokens < 0 || o->max_tokens > config->max_positions)
        return fail(err, QWEN3_ERR_ARGUMENT, "max_tokens %lld: the model has %lld positions (max_position_embeddings)",
                    (long long)o->max_tokens, (long long)config->max_positions);
    if (o->kv_pages < 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "kv_pages %lld: expected a positive number, or 0 for no limit",
                    (long long)o->kv_pages);
    if (o->q_block_size < 0 || o->q_block_size > MAX_BLOCK)
        return fail(err, QWEN3_ERR_ARGUMENT, "q_block_size %d: expected 1..%d, or 0 for the default", o->q_block_size,
                    MAX_BLOCK);
    if (o->kv_block_size < 0 || o->kv_block_size > MAX_BLOCK)
        return fail(err, QWEN3_ERR_ARGUMENT, "kv_block_size %d: expected 1..%d, or 0 for the default", o->kv_block_size,
                    MAX_BLOCK);
    if (o->overlap_min_rows < 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "overlap_min_rows %lld: expected a positive number, or 0 for the default",
                    (long long)o->overlap_min_rows);
    if (o->token_split_min < 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "token_split_min %lld: expected a positive number, or 0 for the default",
                    (long long)o->token_split_min);
    return QWEN3_OK;
}

/* Fills in the defaults. */
static void apply_options(qwen3_session *s)
{
    const qwen3_model *m = s->model;
    qwen3_session_options *o = &s->options;
    if (o->max_tokens == 0)
        o->max_tokens = m->config.max_positions < DEFAULT_MAX_TOKENS ? m->config.max_positions : DEFAULT_MAX_TOKENS;
    if (o->token_split_min == 0) {
        int64_t two_each = 2 * (int64_t)m->plan.grid_sequence;
        o->token_split_min = two_each > STEP_SPLIT_MIN_ROWS ? two_each : STEP_SPLIT_MIN_ROWS;
    }
    if (o->overlap_min_rows == 0)
        o->overlap_min_rows = m->overlap_min_rows;
    if (o->overlap_min_rows == 0)
        o->overlap_min_rows =
            comm_overlaps(m->head_comm) ? STEP_OVERLAP_MIN_ROWS_OF_SUMS : STEP_OVERLAP_MIN_ROWS_OF_KEYS;
    if (o->algorithm == QWEN3_ATTENTION_AUTO)
        o->algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX;
    if (o->q_block_size == 0)
        o->q_block_size = ATTENTION_Q_BLOCK;
    if (o->kv_block_size == 0)
        o->kv_block_size = ATTENTION_KV_BLOCK;
    s->decoder = (decoder){.config = &m->config,
                           .options = o,
                           .kernels = m->kernels,
                           .format = &m->format,
                           .kv_dtype = m->plan.kv_dtype,
                           .place = m->place,
                           .threads = m->plan.threads,
                           .world = m->world,
                           .sequence_comm = m->sequence_comm,
                           .head_comm = m->head_comm,
                           .prices = m->priced ? &m->prices : NULL,
                           .sequences = &s->sequences};
}

/* The place of a kind in the list, which is extended where it is new. */
static size_t kind_of(qwen3_session *s, const block *b)
{
    size_t k = 0;
    while (k < s->n_blocks && s->blocks[k].block != b)
        k++;
    if (k == s->n_blocks)
        s->blocks[s->n_blocks++].block = b;
    return k;
}

/* All blocks of all layers, and the kinds among them. */
static qwen3_status list_blocks(qwen3_session *s, qwen3_error *err)
{
    const qwen3_model *m = s->model;
    const size_t most = (size_t)m->config.num_layers * LAYER_BLOCKS;
    s->layers = calloc(most, sizeof *s->layers);
    s->blocks = calloc(most, sizeof *s->blocks);
    bool complete = s->layers && s->blocks;
    for (int i = 0; i < STEP_PARTS; i++)
        complete &= (s->parts[i].inputs = calloc(most, sizeof *s->parts[i].inputs)) != NULL;
    if (!complete)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the table of %lld layers", (long long)m->config.num_layers);
    for (int64_t i = 0; i < m->config.num_layers; i++) {
        int n;
        const block *const *blocks = architecture_blocks(&m->config, i, &n);
        for (int j = 0; j < n; j++) {
            const size_t k = kind_of(s, blocks[j]);
            s->layers[s->n_layers++] =
                (session_layer){k, {.weights = weights_of(&m->weights, i, j), .index = s->blocks[k].layers++}};
        }
    }
    return QWEN3_OK;
}

static qwen3_status open_session(qwen3_session *s, const qwen3_session_options *options, qwen3_error *err)
{
    const qwen3_model *m = s->model;
    s->options = options ? *options : qwen3_session_options_default();
    qwen3_status status = check_options(&s->options, &m->config, err);
    if (!status && m->place.deterministic && s->options.wire != QWEN3_DTYPE_AUTO && s->options.wire != QWEN3_DTYPE_F32)
        return fail(err, QWEN3_ERR_ARGUMENT, "wire %s: a deterministic model sends no sums; expected f32 or auto",
                    qwen3_dtype_name(s->options.wire));
    if (!status)
        status = wire_codec(s->options.wire, m->kernels, &s->wire, err);
    if (status)
        return status;
    apply_options(s);
    const sequence_table limits = {.groups = m->place.s_groups,
                                   .group = m->place.s,
                                   .max_sequences = s->options.max_sequences,
                                   .max_tokens = s->options.max_tokens,
                                   .whole_pages = m->place.deterministic};
    status = sequences_open(&s->sequences, &limits, err);
    if (!status)
        status = list_blocks(s, err);
    for (size_t k = 0; k < s->n_blocks && !status; k++)
        status = s->blocks[k].block->open(&s->decoder, s->blocks[k].layers, &s->blocks[k].state, err);
    const size_t groups = (size_t)m->place.s_groups;
    s->owned = calloc(groups, sizeof *s->owned);
    s->owned_bytes = calloc(groups, sizeof *s->owned_bytes);
    if (!status && (!s->owned || !s->owned_bytes))
        status = fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %d ranks", m->place.s_groups);
    return status;
}

qwen3_status qwen3_session_open(qwen3_model *model, const qwen3_session_options *options, qwen3_session **session,
                                qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (!missing(session, "session", err))
        *session = NULL;
    if (missing(model, "model", err))
        return err->status;
    qwen3_session *s = calloc(1, sizeof *s);
    if (s) {
        s->model = model_share(model);
        open_session(s, options, err);
    } else {
        fail(err, QWEN3_ERR_MEMORY, "no memory for a session");
    }
    const qwen3_session_options given = options ? *options : qwen3_session_options_default();
    qwen3_status status = agree_on_session(model, &given, err);
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
    for (size_t k = 0; k < s->n_blocks; k++)
        if (s->blocks[k].state)
            s->blocks[k].block->close(s->blocks[k].state);
    for (int i = 0; i < STEP_PARTS; i++) {
        memory_region_free(&s->parts[i].arena);
        memory_plan_free(&s->parts[i].plan);
        step_close(&s->parts[i].step);
        free(s->parts[i].inputs);
    }
    free(s->owned);
    free(s->owned_bytes);
    free(s->blocks);
    free(s->layers);
    sequences_close(&s->sequences);
    qwen3_model_close(s->model);
    free(s);
}

/* Forgets the positions of a sequence from `length` on; owned[groups]: what each group keeps of the others. */
static void truncate_sequence(qwen3_session *s, int sequence, int64_t length, const int64_t *owned)
{
    for (size_t k = 0; k < s->n_blocks; k++)
        if (s->blocks[k].block->truncate)
            s->blocks[k].block->truncate(s->blocks[k].state, sequence, owned[s->sequences.group]);
    sequences_truncate(&s->sequences, sequence, length, owned);
}

qwen3_status qwen3_session_reset(qwen3_session *s, int sequence, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "session", err))
        return err->status;
    if (sequence < -1 || sequence >= s->options.max_sequences)
        return fail(err, QWEN3_ERR_ARGUMENT, "sequence %d: expected 0..%d, or -1 for all", sequence,
                    s->options.max_sequences - 1);
    memset(s->owned, 0, (size_t)s->sequences.groups * sizeof *s->owned);
    for (int i = 0; i < s->options.max_sequences; i++)
        if (sequence == -1 || sequence == i)
            truncate_sequence(s, i, 0, s->owned);
    return QWEN3_OK;
}

/* s->owned[groups]: how many of the positions below `length` each group keeps. Collective. */
static void gather_owned(qwen3_session *s, int sequence, int64_t length)
{
    for (int g = 0; g < s->sequences.groups; g++)
        s->owned_bytes[g] = sizeof *s->owned;
    const int64_t mine = sequences_owned_below(&s->sequences, sequence, length);
    comm_allgather(s->model->sequence_comm, &mine, s->owned, s->owned_bytes, QWEN3_COMM_CONTROL);
}

qwen3_status qwen3_session_truncate(qwen3_session *s, int sequence, int64_t length, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "session", err))
        return err->status;
    const sequence_table *t = &s->sequences;
    if (sequence < 0 || sequence >= s->options.max_sequences)
        fail(err, QWEN3_ERR_ARGUMENT, "sequence %d: expected 0..%d", sequence, s->options.max_sequences - 1);
    else if (length < 0 || length > t->items[sequence].length)
        fail(err, QWEN3_ERR_ARGUMENT, "length %lld: expected 0..%lld, the tokens of sequence %d", (long long)length,
             (long long)t->items[sequence].length, sequence);
    if (qwen3_comm_agree(s->model->world, err))
        return err->status;
    gather_owned(s, sequence, length);
    truncate_sequence(s, sequence, length, s->owned);
    return QWEN3_OK;
}

static qwen3_status fork_sequence(qwen3_session *s, int from, int to, int64_t positions, qwen3_error *err)
{
    const int64_t kept = s->owned[s->sequences.group];
    qwen3_status status = sequences_fork(&s->sequences, from, to, positions, s->owned, err);
    for (size_t k = 0; k < s->n_blocks && !status; k++)
        if (s->blocks[k].block->fork)
            status = s->blocks[k].block->fork(s->blocks[k].state, from, to, kept, err);
    return status;
}

qwen3_status qwen3_session_fork(qwen3_session *s, int from, int to, int64_t positions, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "session", err))
        return err->status;
    const int most = s->options.max_sequences;
    if (from < 0 || from >= most || to < 0 || to >= most || from == to)
        fail(err, QWEN3_ERR_ARGUMENT, "sequences %d and %d: expected two of 0..%d", from, to, most - 1);
    else if (positions < 0 || positions > s->sequences.items[from].length)
        fail(err, QWEN3_ERR_ARGUMENT, "positions %lld: expected 0..%lld, the tokens of sequence %d",
             (long long)positions, (long long)s->sequences.items[from].length, from);
    else if (s->sequences.items[to].length > 0)
        fail(err, QWEN3_ERR_ARGUMENT, "sequence %d has %lld tokens; expected an empty one", to,
             (long long)s->sequences.items[to].length);
    if (qwen3_comm_agree(s->model->world, err))
        return err->status;
    gather_owned(s, from, positions);
    fork_sequence(s, from, to, positions, err);
    if (qwen3_comm_agree(s->model->world, err)) {
        memset(s->owned, 0, (size_t)s->sequences.groups * sizeof *s->owned);
        truncate_sequence(s, to, 0, s->owned);
    }
    return err->status;
}

int64_t qwen3_session_length(const qwen3_session *s, int sequence)
{
    return s && sequence >= 0 && sequence < s->options.max_sequences ? s->sequences.items[sequence].length : 0;
}

/* Weights are checked when they are packed. An embedding matrix that is not the output head too is not packed but read
 * row by row, so its rows are checked when they are used. */
static qwen3_status check_embeddings(const qwen3_session *s, const step *p, qwen3_error *err)
{
    const qwen3_config *c = &s->model->config;
    if (c->tie_word_embeddings && !c->no_output_head)
        return QWEN3_OK;
    float *scratch = malloc((size_t)c->hidden_size * sizeof *scratch);
    if (!scratch)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a row of %lld values", (long long)c->hidden_size);
    size_t first, n = step_rows_of(p, s->sequences.group, &first);
    bool finite = true;
    for (size_t i = first; i < first + n && finite; i++) {
        const int32_t token = p->rows[i].token;
        const tensor_part row = {MODEL_EMBEDDING, {token, token + 1}, {0, c->hidden_size}};
        const tensor_view view = source_part(s->model->source, &row, scratch);
        for (int64_t j = 0; j < c->hidden_size; j++)
            finite &= isfinite(view_value(&view, (size_t)j)) != 0;
        if (!finite)
            fail(err, QWEN3_ERR_FORMAT, "tensor %s: NaN or infinite value in row %d; expected finite weights",
                 source_tensor(s->model->source, MODEL_EMBEDDING)->name, token);
    }
    free(scratch);
    return err->status;
}

/* Room for the positions that the planned step gives this rank's group. */
static qwen3_status reserve(qwen3_session *s, const step *p, qwen3_error *err)
{
    sequence_table *t = &s->sequences;
    qwen3_status status = QWEN3_OK;
    for (size_t q = 0; q < p->n_sequences && !status; q++)
        status = sequences_reserve(t, p->sequences[q], step_new_owned(p, q, t->groups, t->group), err);
    for (size_t k = 0; k < s->n_blocks && !status; k++)
        if (s->blocks[k].block->reserve)
            status = s->blocks[k].block->reserve(s->blocks[k].state, p, err);
    return status;
}

static void commit(qwen3_session *s, session_part *part)
{
    step_commit(&part->step, &s->sequences);
    for (size_t k = 0; k < s->n_blocks; k++)
        if (s->blocks[k].block->append)
            s->blocks[k].block->append(s->blocks[k].state, &part->run);
}

/* Gives back what has been reserved for a step, and undoes its commit, the last one first. */
static void roll_back(qwen3_session *s, const step *p, bool committed)
{
    const int groups = s->sequences.groups;
    for (size_t q = 0; q < p->n_sequences; q++) {
        const sequence_entry *e = &s->sequences.items[p->sequences[q]];
        int64_t length = e->length;
        for (int g = 0; g < groups; g++) {
            const int64_t new = committed ? step_new_owned(p, q, groups, g) : 0;
            s->owned[g] = e->owned[g] - new;
            length -= new;
        }
        truncate_sequence(s, p->sequences[q], length, s->owned);
    }
}

/* Parts of a batch: two where messages between nodes can go on while enough rows are computed. */
static int parts_of(const qwen3_session *s, const qwen3_batch *batch)
{
    const size_t rows = batch->n_tokens / (size_t)s->sequences.groups;
    return comm_overlaps(s->model->world) && rows >= (size_t)s->options.overlap_min_rows ? STEP_PARTS : 1;
}

/* Plans a part and books its positions. Local; on failure it has changed nothing but what is reserved. */
static qwen3_status begin_part(qwen3_session *s, const qwen3_batch *batch, int part, qwen3_error *err)
{
    session_part *p = &s->parts[part];
    qwen3_status status = step_plan(&p->step, &s->sequences, &s->model->config, batch, (step_part){part, s->n_parts},
                                    s->options.token_split_min, err);
    if (!status)
        status = reserve(s, &p->step, err);
    if (!status)
        status = check_embeddings(s, &p->step, err);
    if (!status)
        status = forward_plan(s, part, err);
    if (!status)
        commit(s, p);
    return status;
}

/* What all ranks must have alike. */
static uint64_t digest_batch(const qwen3_batch *b)
{
    uint64_t digest = digest_bytes(0, b->tokens, b->n_tokens * sizeof *b->tokens);
    if (b->sequences)
        digest = digest_bytes(digest, b->sequences, b->n_tokens * sizeof *b->sequences);
    return b->logits ? digest_bytes(digest, b->logits, b->n_tokens) : digest;
}

qwen3_status qwen3_forward(qwen3_session *s, const qwen3_batch *batch, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "session", err))
        return err->status;
    s->has_logits = false;
    s->n_parts = missing(batch, "batch", err) ? 0 : parts_of(s, batch);
    int begun = 0;
    while (begun < s->n_parts && !begin_part(s, batch, begun, err))
        begun++;
    /* One rank out of memory, or with another batch, must not leave the others waiting in the middle of a layer. */
    qwen3_status status = comm_agree_on(s->model->world, "batch", err->status ? 0 : digest_batch(batch), err);
    if (!status)
        status = forward_run(s, err);
    if (status && begun < s->n_parts)
        roll_back(s, &s->parts[begun].step, false);
    while (status && begun > 0)
        roll_back(s, &s->parts[--begun].step, true);
    s->has_logits = !status;
    return status;
}

void qwen3_session_get_info(const qwen3_session *s, qwen3_session_info *info)
{
    if (!info)
        return;
    *info = (qwen3_session_info){0};
    if (!s)
        return;
    *info = (qwen3_session_info){
        .algorithm = s->options.algorithm, .kv_pages = s->options.kv_pages, .comm = *comm_stats(s->model->world)};
    for (int i = 0; i < STEP_PARTS; i++)
        info->scratch_bytes += s->parts[i].arena.bytes;
    for (size_t k = 0; k < s->n_blocks; k++) {
        block_usage usage;
        if (!s->blocks[k].block->usage)
            continue;
        s->blocks[k].block->usage(s->blocks[k].state, &usage);
        info->kv_bytes += usage.bytes;
        info->kv_bytes_used += usage.used;
        info->kv_pages_used += (int64_t)usage.pages;
        info->score_bytes += usage.score_bytes;
        info->expert_load += usage.expert_load;
    }
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        info->comm.calls[kind] -= s->stats_base.calls[kind];
        info->comm.bytes[kind] -= s->stats_base.bytes[kind];
        info->comm.seconds[kind] -= s->stats_base.seconds[kind];
        info->comm.under_way[kind] -= s->stats_base.under_way[kind];
    }
}

void qwen3_session_reset_stats(qwen3_session *s)
{
    if (s)
        s->stats_base = *comm_stats(s->model->world);
}
