/* embed.c - qwen3 embed: a vector for each text, the hidden state of its last token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "common/program.h"
#include "text_batch.h"

typedef struct embed_job {
    text_model m;
    char *instruct;     /* NULL = none */
    int64_t dimensions; /* 0 = all */
    line_reader input;  /* rank 0 */
    text_batch batch;
    float *embeddings; /* [batch][dimensions] */
    size_t written;    /* lines of output, on rank 0 */
} embed_job;

static void describe_options(embed_job *job, option_table *table)
{
    const option own[] = {
        {.name = "instruct",
         .kind = OPTION_TEXT,
         .value = &job->instruct,
         .argument = "TEXT",
         .utf8 = true,
         .help = "What the texts are searched for with, for queries: \"Given a question, find passages that answer "
                 "it\" (default: none, for documents)"},
        {.name = "dimensions",
         .kind = OPTION_INT64,
         .value = &job->dimensions,
         .min = 1,
         .max = INT32_MAX,
         .help = "The first N values of each vector, normalised again (default: all)"},
    };
    option_table_add(table, sizeof own / sizeof *own, own);
    text_model_options(&job->m, table);
}

/* The text of a line, "..." or {"text": "...", "instruct": "..."}, as the model takes it. On rank 0. */
static qwen3_status add_line(embed_job *job, const json_t *line, qwen3_error *err)
{
    const json_t *text = json_is_string(line) ? line : json_object_get(line, "text");
    const json_t *own = json_object_get(line, "instruct");
    const char *instruct = job->instruct;
    if (!json_is_string(text))
        return set_error(err, QWEN3_ERR_ARGUMENT, "expected a string, or an object with \"text\"");
    if (own && !json_is_null(own) && !json_is_string(own))
        return set_error(err, QWEN3_ERR_ARGUMENT, "instruct: expected a string or null");
    if (own)
        instruct = json_string_value(own);
    const text_piece user = {json_string_value(text), json_string_length(text), true};
    const text_piece query[] = {{"Instruct: ", strlen("Instruct: "), false},
                                {instruct ? instruct : "", instruct ? strlen(instruct) : 0, true},
                                {"\nQuery:", strlen("\nQuery:"), false},
                                user};
    const int32_t end = qwen3_tokenizer_end(job->m.tokenizer);
    return instruct ? text_batch_add(&job->batch, &job->m, query, 4, end, err)
                    : text_batch_add(&job->batch, &job->m, &user, 1, end, err);
}

/* Lines of standard input until the batch is full. On rank 0. */
static qwen3_status read_batch(embed_job *job, qwen3_error *err)
{
    qwen3_status status = QWEN3_OK;
    while (job->batch.n_texts < (size_t)job->m.batch && status == QWEN3_OK) {
        json_t *line;
        qwen3_error fault = {0};
        if (read_json_line(&job->input, &line, &fault) == QWEN3_OK && !line)
            break;
        if (fault.status != QWEN3_OK || add_line(job, line, &fault) != QWEN3_OK)
            status = fail_line(&job->input, &fault, err);
        json_decref(line);
    }
    return status;
}

static qwen3_status take(void *context, qwen3_session *session, size_t first, size_t rows, qwen3_error *err)
{
    embed_job *job = context;
    (void)rows;
    qwen3_embeddings(session, job->dimensions, job->embeddings + first * (size_t)job->dimensions, err);
    return qwen3_comm_agree(job->m.world, err);
}

/* One batch; *more is false where there was none. A line that is wrong ends the input; those before it are written.
 * Collective. */
static qwen3_status run_batch(embed_job *job, bool *more, qwen3_error *err)
{
    const bool first_rank = qwen3_comm_rank(job->m.world) == 0;
    qwen3_error input = {0};
    if (first_rank)
        read_batch(job, &input);
    const size_t n = job->batch.n_texts;
    qwen3_status status = text_batch_run(&job->m, &job->batch, take, job, err);
    for (size_t i = 0; first_rank && status == QWEN3_OK && i < n; i++) {
        printf("{\"index\": %zu, \"embedding\":", job->written++);
        print_numbers(job->embeddings + i * (size_t)job->dimensions, (size_t)job->dimensions);
        printf("}\n");
    }
    if (first_rank && status == QWEN3_OK && flush_output(stdout, "standard output", err) == QWEN3_OK && input.status)
        *err = input;
    *more = n == (size_t)job->m.batch;
    qwen3_comm_broadcast(job->m.world, more, sizeof *more);
    return status == QWEN3_OK ? qwen3_comm_agree(job->m.world, err) : status;
}

/* The first files of the embedding models left it to the user to add the token. On rank 0. */
static void warn_end(const embed_job *job)
{
    if (qwen3_tokenizer_end(job->m.tokenizer) < 0)
        fprintf(stderr,
                "qwen3: warning: %s: the tokenizer puts no token at the end of a text; Qwen3-Embedding was trained "
                "with <|endoftext|> there, which newer files of it say\n",
                job->m.arguments.spec);
}

static qwen3_status run_job(embed_job *job, qwen3_error *err)
{
    bool more = true;
    job->m.arguments.model.no_output_head = true;
    qwen3_status status = text_model_open(&job->m, err);
    if (status != QWEN3_OK)
        return status;
    if (qwen3_comm_rank(job->m.world) == 0)
        warn_end(job);
    const int64_t hidden = qwen3_model_config(job->m.model)->hidden_size;
    if (job->dimensions > hidden)
        set_error(err, QWEN3_ERR_ARGUMENT, "--dimensions: got %lld, expected at most hidden_size, %lld",
                  (long long)job->dimensions, (long long)hidden);
    job->dimensions = job->dimensions ? job->dimensions : hidden;
    job->embeddings =
        allocate((size_t)job->m.batch * (size_t)job->dimensions, sizeof *job->embeddings, "embeddings", err);
    status = qwen3_comm_agree(job->m.world, err);
    while (status == QWEN3_OK && more)
        status = run_batch(job, &more, err);
    return status;
}

qwen3_status command_embed(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    embed_job job = {.m = {.world = world, .arguments = model_arguments_default()}};
    option_table table = {0};
    describe_options(&job, &table);
    command_line line = {"qwen3 embed", self->summary, table.options, table.n, argc, argv};
    bool finished = false;

    if (options_parse(&line, qwen3_comm_rank(world) == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished)
        text_model_check(&job.m, &line, qwen3_comm_size(world), err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished)
        status = run_job(&job, err);
    text_model_close(&job.m);
    text_batch_free(&job.batch);
    free(job.embeddings);
    free(job.input.line);
    options_free(table.options, table.n);
    return status;
}
