/* text_batch.c - see text_batch.h. */
#include "text_batch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loading.h"
#include "common/program.h"
#include "common/thread_warning.h"
#include "common/topology.h"

/* Tokens of one forward pass; more of them would only need more memory. */
#define PASS_TOKENS 2048
#define MOST_PIECES 16

/* ---- The model --------------------------------------------------------------------------------- */

void text_model_options(text_model *m, option_table *table)
{
    const option own[] = {
        {.name = "batch",
         .kind = OPTION_INT,
         .value = &m->batch,
         .min = 1,
         .max = 4096,
         .help = "Texts that are computed together (default 16)"},
        {.name = "context",
         .short_name = 'c',
         .kind = OPTION_INT64,
         .value = &m->context,
         .min = 1,
         .max = INT32_MAX,
         .help = "Tokens that a text may have (default: as many as the model has positions)"},
    };
    m->batch = 16;
    option_table_add(table, sizeof own / sizeof *own, own);
    option *model = &table->options[table->n];
    model_arguments_options(&m->arguments, table);
    model->argument = "DIR";
    model->help = "Directory with weights, configuration and tokenizer, or packed model";
}

qwen3_status text_model_check(text_model *m, const command_line *line, int ranks, qwen3_error *err)
{
    if (model_spec_check(m->arguments.spec, "DIR", err) != QWEN3_OK)
        return err->status;
    if (strncmp(m->arguments.spec, "synthetic:", strlen("synthetic:")) == 0)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--model: %s has no tokenizer, expected DIR", m->arguments.spec);
    return model_arguments_check(&m->arguments, line, ranks, err);
}

/* On rank 0. */
static qwen3_status open_tokenizer(text_model *m, const qwen3_config *config, qwen3_error *err)
{
    const char *dir = m->arguments.spec;
    if (qwen3_tokenizer_open(dir, &m->tokenizer, err) != QWEN3_OK)
        return err->status;
    const int32_t n = qwen3_tokenizer_vocab_size(m->tokenizer);
    if (n > config->vocab_size)
        return set_error(err, QWEN3_ERR_CONFIG, "%s: the tokenizer has ids up to %d, vocab_size of config.json is %lld",
                         dir, (int)n - 1, (long long)config->vocab_size);
    return QWEN3_OK;
}

qwen3_status text_model_open(text_model *m, qwen3_error *err)
{
    qwen3_config config;
    const char *dir = m->arguments.spec;
    if (qwen3_config_read(dir, &config, err) == QWEN3_OK) {
        if (m->context > config.max_positions)
            set_error(err, QWEN3_ERR_ARGUMENT, "--context: got %lld, expected at most max_position_embeddings, %lld",
                      (long long)m->context, (long long)config.max_positions);
        else if (qwen3_comm_rank(m->world) == 0)
            open_tokenizer(m, &config, err);
    }
    qwen3_status status = qwen3_comm_agree(m->world, err);
    if (status != QWEN3_OK)
        return status;
    m->context = m->context ? m->context : config.max_positions;
    status = threads_settle(m->world, m->arguments.model.threads, m->arguments.bind, err);
    if (status == QWEN3_OK)
        status = load_model(m->world, dir, &m->arguments.model, &m->model, err);
    if (status != QWEN3_OK)
        return status;
    plan_warn(m->world, m->model);
    m->arguments.session.max_sequences = m->batch;
    m->arguments.session.max_tokens = m->context;
    return qwen3_session_open(m->model, &m->arguments.session, &m->session, err);
}

void text_model_close(text_model *m)
{
    qwen3_session_close(m->session);
    qwen3_model_close(m->model);
    qwen3_tokenizer_close(m->tokenizer);
}

/* ---- A batch ----------------------------------------------------------------------------------- */

/* Room for `tokens` tokens and `texts` texts in all. */
static qwen3_status reserve(text_batch *b, size_t tokens, size_t texts, qwen3_error *err)
{
    if (tokens > b->room) {
        const size_t room = tokens > 2 * b->room ? tokens : 2 * b->room;
        int32_t *larger = realloc(b->tokens, room * sizeof *larger);
        if (!larger)
            return set_error(err, QWEN3_ERR_MEMORY, "texts: cannot allocate %zu tokens", room);
        b->tokens = larger;
        b->room = room;
    }
    if (texts > b->texts_room) {
        const size_t room = 2 * texts;
        size_t *larger = realloc(b->ends, room * sizeof *larger);
        if (!larger)
            return set_error(err, QWEN3_ERR_MEMORY, "texts: cannot allocate a table of %zu", room);
        b->ends = larger;
        b->texts_room = room;
    }
    return QWEN3_OK;
}

static qwen3_status append(text_batch *b, const text_model *m, const int32_t *ids, size_t n, int32_t end,
                           qwen3_error *err)
{
    const size_t all = n + (end >= 0);
    if (all == 0)
        return set_error(err, QWEN3_ERR_ARGUMENT, "the text has no tokens");
    if (all > (size_t)m->context)
        return set_error(err, QWEN3_ERR_ARGUMENT, "the text has %zu tokens, expected at most %lld (--context)", all,
                         (long long)m->context);
    if (reserve(b, b->n_tokens + all, b->n_texts + 1, err) != QWEN3_OK)
        return err->status;
    memcpy(b->tokens + b->n_tokens, ids, n * sizeof *ids);
    if (end >= 0)
        b->tokens[b->n_tokens + n] = end;
    b->n_tokens += all;
    b->ends[b->n_texts++] = b->n_tokens;
    return QWEN3_OK;
}

qwen3_status text_batch_add(text_batch *b, const text_model *m, const text_piece *pieces, size_t n, int32_t end,
                            qwen3_error *err)
{
    text_buffer text = {0};
    qwen3_text_range plain[MOST_PIECES];
    size_t n_plain = 0, n_ids;
    int32_t *ids = NULL;
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < n && status == QWEN3_OK; i++) {
        if (pieces[i].user)
            plain[n_plain++] = (qwen3_text_range){text.n, text.n + pieces[i].bytes};
        status = text_append(&text, pieces[i].text, pieces[i].bytes, err);
    }
    if (status == QWEN3_OK)
        status = qwen3_tokenizer_encode(m->tokenizer, &(qwen3_encode_args){text.data, text.n, plain, n_plain}, &ids,
                                        &n_ids, err);
    if (status == QWEN3_OK)
        status = append(b, m, ids, n_ids, end, err);
    free(ids);
    text_free(&text);
    return status;
}

void text_batch_free(text_batch *b)
{
    free(b->tokens);
    free(b->ends);
    *b = (text_batch){0};
}

/* ---- Through the model ------------------------------------------------------------------------- */

/* Collective. */
static qwen3_status share(text_model *m, text_batch *b, qwen3_error *err)
{
    size_t counts[] = {b->n_tokens, b->n_texts};
    qwen3_comm_broadcast(m->world, counts, sizeof counts);
    if (reserve(b, counts[0], counts[1], err) == QWEN3_OK) {
        b->n_tokens = counts[0];
        b->n_texts = counts[1];
    }
    qwen3_status status = qwen3_comm_agree(m->world, err);
    if (status != QWEN3_OK)
        return status;
    qwen3_comm_broadcast(m->world, b->tokens, b->n_tokens * sizeof *b->tokens);
    qwen3_comm_broadcast(m->world, b->ends, b->n_texts * sizeof *b->ends);
    return QWEN3_OK;
}

/* Passes of at most PASS_TOKENS tokens; the last token of each text has a result. */
static qwen3_status compute(text_model *m, const text_batch *b, text_taker take, void *context, qwen3_error *err)
{
    int32_t sequences[PASS_TOKENS];
    uint8_t wanted[PASS_TOKENS];
    size_t text = 0;
    qwen3_status status = QWEN3_OK;
    for (size_t at = 0, n; at < b->n_tokens && status == QWEN3_OK; at += n) {
        const size_t first = text;
        n = b->n_tokens - at < PASS_TOKENS ? b->n_tokens - at : PASS_TOKENS;
        for (size_t i = 0; i < n; i++) {
            sequences[i] = (int32_t)text;
            wanted[i] = at + i + 1 == b->ends[text];
            text += wanted[i];
        }
        const qwen3_batch batch = {n, b->tokens + at, sequences, NULL, wanted};
        status = qwen3_forward(m->session, &batch, err);
        if (status == QWEN3_OK && text > first)
            status = take(context, m->session, first, text - first, err);
    }
    return status;
}

qwen3_status text_batch_run(text_model *m, text_batch *b, text_taker take, void *context, qwen3_error *err)
{
    qwen3_status status = share(m, b, err);
    if (status == QWEN3_OK)
        status = compute(m, b, take, context, err);
    if (status == QWEN3_OK)
        status = qwen3_session_reset(m->session, -1, err);
    b->n_tokens = b->n_texts = 0;
    return status;
}

/* ---- Lines ------------------------------------------------------------------------------------- */

qwen3_status read_json_line(line_reader *r, json_t **value, qwen3_error *err)
{
    json_error_t fault;
    *value = NULL;
    errno = 0;
    const ssize_t bytes = getline(&r->line, &r->room, stdin);
    if (bytes < 0)
        return feof(stdin) ? QWEN3_OK : set_error(err, QWEN3_ERR_IO, "cannot read standard input: %s", strerror(errno));
    r->number++;
    *value = json_loadb(r->line, (size_t)bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &fault);
    return *value ? QWEN3_OK : set_error(err, QWEN3_ERR_FORMAT, "column %d: %s", fault.column, fault.text);
}

qwen3_status fail_line(const line_reader *r, const qwen3_error *fault, qwen3_error *err)
{
    return set_error(err, fault->status, "standard input: line %zu: %.900s", r->number, fault->message);
}

void print_numbers(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%s%.9g", i ? ", " : " [", (double)values[i]);
    printf(n ? "]" : " []");
}
