/* logits.c - qwen3 logits: the logits of given tokens, for comparison with other implementations.
 *
 * The tokens before --decode-from (default: all) are one prefill, or several of --chunk tokens; the others are decoded
 * one by one with the KV cache.
 * Rank 0 writes [positions, vocab_size] float32, little-endian, after each pass. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "common/loading.h"
#include "common/model_arguments.h"
#include "common/output_file.h"
#include "common/program.h"
#include "common/progress.h"
#include "common/thread_warning.h"
#include "common/topology.h"
#include "prompt_time.h"
#include "token_list.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the output is written as it lies in memory");

typedef struct logits_job {
    model_arguments arguments;
    char *tokens_text, *output;
    bool all;
    int64_t decode_from; /* tokens of the prefill; 0 = all */
    int64_t chunk;       /* of them in one pass; 0 = all */
    int32_t *tokens;     /* [n] */
    size_t n;
    uint8_t *wanted;  /* [n] */
    output_file file; /* rank 0 */
    const qwen3_model *model;
    float *rows; /* rank 0: [rows of the largest step, vocab_size] */
} logits_job;

static void describe_options(logits_job *job, option_table *table)
{
    const option own[] = {
        {.name = "tokens",
         .kind = OPTION_TEXT,
         .value = &job->tokens_text,
         .argument = "ID,ID,...|@FILE",
         .help = "Token ids, or a text file of them (read on rank 0)"},
        {.name = "all", .kind = OPTION_FLAG, .value = &job->all, .help = "Logits of every position, not only the last"},
        {.name = "output",
         .kind = OPTION_TEXT,
         .value = &job->output,
         .argument = "FILE|-",
         .help = "Where the logits go: [positions, vocabulary] raw little-endian float32"},
        {.name = "decode-from",
         .kind = OPTION_INT64,
         .value = &job->decode_from,
         .min = 1,
         .max = INT32_MAX,
         .help = "Prefill the first N tokens, then feed the others one by one"},
        {.name = "chunk",
         .kind = OPTION_INT64,
         .value = &job->chunk,
         .min = 1,
         .max = INT32_MAX,
         .help = "Prefill in passes of N tokens, which long prompts need for memory (default: one pass)"},
    };
    model_arguments_options(&job->arguments, table);
    option_table_add(table, sizeof own / sizeof *own, own);
}

static qwen3_status check_options(logits_job *job, const command_line *line, int ranks, qwen3_error *err)
{
    if (model_spec_check(job->arguments.spec, "DIR, FILE.gguf or synthetic:SIZE", err) != QWEN3_OK)
        return err->status;
    if (!job->tokens_text)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--tokens is missing, expected ID,ID,... or @FILE");
    if (!job->output)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--output is missing, expected FILE or - for standard output");
    return model_arguments_check(&job->arguments, line, ranks, err);
}

/* After the tokens are known. */
static qwen3_status check_length(logits_job *job, const qwen3_config *config, qwen3_error *err)
{
    if (job->decode_from > (int64_t)job->n)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--decode-from: got %lld, expected at most the number of tokens, %zu",
                         (long long)job->decode_from, job->n);
    if ((int64_t)job->n > config->max_positions)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--tokens: got %zu, expected at most max_position_embeddings, %lld",
                         job->n, (long long)config->max_positions);
    for (size_t i = 0; i < job->n; i++)
        if (job->tokens[i] >= config->vocab_size)
            return set_error(err, QWEN3_ERR_ARGUMENT, "--tokens: got id %d at index %zu, expected 0 to %lld",
                             (int)job->tokens[i], i, (long long)config->vocab_size - 1);
    return QWEN3_OK;
}

/* One forward pass over tokens [begin, end) and its logits to the output. Collective. */
static qwen3_status step(logits_job *job, qwen3_comm *world, qwen3_session *session, size_t vocab, size_t begin,
                         size_t end, qwen3_error *err)
{
    qwen3_batch batch = {.n_tokens = end - begin, .tokens = job->tokens + begin, .logits = job->wanted + begin};
    qwen3_status status = qwen3_forward(session, &batch, err);
    if (status != QWEN3_OK)
        return status;
    size_t rows = qwen3_logits_rows(session);
    if (rows == 0)
        return QWEN3_OK;
    status = qwen3_logits(session, job->rows, err);
    if (status != QWEN3_OK)
        return status;
    if (job->file.stream) {
        errno = 0;
        if (fwrite(job->rows, vocab * sizeof *job->rows, rows, job->file.stream) != rows)
            set_error(err, QWEN3_ERR_IO, "--output: cannot write %s: %s", job->output, strerror(errno));
        else
            flush_output(job->file.stream, job->output, err);
    }
    return qwen3_comm_agree(world, err);
}

typedef struct token_passes {
    size_t vocab, n, chunk; /* n tokens, of which a pass has chunk */
} token_passes;

/* Collective. */
static qwen3_status run_prefill(logits_job *job, qwen3_comm *world, qwen3_session *session, token_passes p,
                                qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    prompt_time_note(world, job->model, &(long_prompt){0, p.n, p.chunk});
    progress line = progress_begin("Prompt", "tokens", (double)p.n);
    for (size_t at = 0; at < p.n && status == QWEN3_OK; at += p.chunk) {
        const size_t end = p.n - at < p.chunk ? p.n : at + p.chunk;
        status = step(job, world, session, p.vocab, at, end, err);
        if (qwen3_comm_rank(world) == 0)
            progress_update(&line, (double)end);
    }
    progress_end(&line);
    return status;
}

/* Collective. */
static qwen3_status run_steps(logits_job *job, qwen3_comm *world, qwen3_model *model, qwen3_error *err)
{
    size_t vocab = (size_t)qwen3_model_config(model)->vocab_size;
    const size_t prefill = job->decode_from ? (size_t)job->decode_from : job->n;
    const size_t chunk = job->chunk && (size_t)job->chunk < prefill ? (size_t)job->chunk : prefill;
    qwen3_session *session = NULL;

    if (qwen3_comm_rank(world) == 0)
        job->rows = allocate((job->all ? chunk : 1) * vocab, sizeof *job->rows, "logits", err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status != QWEN3_OK)
        return status;
    status = qwen3_session_open(model, &job->arguments.session, &session, err);
    if (status != QWEN3_OK)
        return status;
    status = run_prefill(job, world, session, (token_passes){vocab, prefill, chunk}, err);
    for (size_t i = prefill; i < job->n && status == QWEN3_OK; i++)
        status = step(job, world, session, vocab, i, i + 1, err);
    qwen3_session_close(session);
    return status;
}

/* Checks before the weights are loaded: tokens, configuration, output. Collective. */
static qwen3_status prepare(logits_job *job, qwen3_comm *world, qwen3_error *err)
{
    qwen3_config config;
    qwen3_status status = token_list_read(world, job->tokens_text, &job->tokens, &job->n, err);
    if (status != QWEN3_OK)
        return status;
    if (qwen3_config_read(job->arguments.spec, &config, err) == QWEN3_OK &&
        check_length(job, &config, err) == QWEN3_OK && (job->wanted = allocate(job->n, 1, "row mask", err))) {
        memset(job->wanted, job->all, job->n);
        job->wanted[job->n - 1] = 1;
    }
    status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && qwen3_comm_rank(world) == 0)
        output_file_begin(&job->file, "--output", strcmp(job->output, "-") == 0 ? "/dev/stdout" : job->output,
                          job->arguments.spec, err);
    return qwen3_comm_agree(world, err);
}

/* Collective. */
static qwen3_status run_job(logits_job *job, qwen3_comm *world, qwen3_error *err)
{
    qwen3_model *model = NULL;
    qwen3_status status = prepare(job, world, err);
    if (status != QWEN3_OK)
        return status;
    job->arguments.model.expected_tokens = (int64_t)job->n;
    job->arguments.model.expect_decode = job->decode_from > 0 && job->decode_from < (int64_t)job->n;
    job->arguments.session.max_sequences = 1;
    job->arguments.session.max_tokens = (int64_t)job->n;
    status = threads_settle(world, job->arguments.model.threads, job->arguments.bind, err);
    if (status == QWEN3_OK)
        status = load_model(world, job->arguments.spec, &job->arguments.model, &model, err);
    if (status != QWEN3_OK)
        return status;
    plan_warn(world, model);
    model_conversion_note(world, job->arguments.spec, model, job->arguments.model.dtype);
    job->model = model;
    status = run_steps(job, world, model, err);
    qwen3_model_close(model);
    return status;
}

qwen3_status command_logits(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    logits_job job = {.arguments = model_arguments_default()};
    option_table table = {0};
    describe_options(&job, &table);
    command_line line = {"qwen3 logits", self->summary, table.options, table.n, argc, argv};
    bool finished = false;

    if (options_parse(&line, qwen3_comm_rank(world) == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished)
        check_options(&job, &line, qwen3_comm_size(world), err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished) {
        status = run_job(&job, world, err);
        bool agreed = status != QWEN3_OK;
        output_file_finish(&job.file, status, err);
        if (!agreed)
            status = qwen3_comm_agree(world, err);
    }
    free(job.tokens);
    free(job.wanted);
    free(job.rows);
    options_free(table.options, table.n);
    return status;
}
