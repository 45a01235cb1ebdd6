/* rerank.c - qwen3 rerank: how well documents answer a query, by the model's "yes" or "no". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "common/program.h"
#include "text_batch.h"

/* The prompt with which the reranker models were trained. */
#define PROMPT_BEGIN                                                                                                   \
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "       \
    "provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: "
#define PROMPT_END "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
#define DEFAULT_INSTRUCT "Given a web search query, retrieve relevant passages that answer the query"

typedef struct rerank_job {
    text_model m;
    char *instruct; /* NULL = DEFAULT_INSTRUCT */
    line_reader input;
    text_batch batch;
    /* rank 0 */
    int32_t yes, no;
    float *logits; /* [batch][vocab_size] */
    float *scores; /* [documents of a line], n_scores of them known */
    size_t n_scores, written;
} rerank_job;

static void describe_options(rerank_job *job, option_table *table)
{
    const option own[] = {
        {.name = "instruct",
         .kind = OPTION_TEXT,
         .value = &job->instruct,
         .argument = "TEXT",
         .utf8 = true,
         .help = "What a document is to do for a query (default: \"" DEFAULT_INSTRUCT "\")"},
    };
    option_table_add(table, sizeof own / sizeof *own, own);
    text_model_options(&job->m, table);
}

/* ---- Lines, on rank 0 -------------------------------------------------------------------------- */

static qwen3_status check_line(const json_t *line, qwen3_error *err)
{
    const json_t *instruct = json_object_get(line, "instruct"), *documents = json_object_get(line, "documents");
    if (!json_is_string(json_object_get(line, "query")))
        return set_error(err, QWEN3_ERR_ARGUMENT, "query: expected a string, in an object {\"query\", \"documents\"}");
    if (!json_is_array(documents))
        return set_error(err, QWEN3_ERR_ARGUMENT, "documents: expected an array of strings");
    for (size_t i = 0; i < json_array_size(documents); i++)
        if (!json_is_string(json_array_get(documents, i)))
            return set_error(err, QWEN3_ERR_ARGUMENT, "documents[%zu]: expected a string", i);
    if (instruct && !json_is_string(instruct))
        return set_error(err, QWEN3_ERR_ARGUMENT, "instruct: expected a string");
    return QWEN3_OK;
}

static qwen3_status add_document(rerank_job *job, const json_t *line, size_t i, qwen3_error *err)
{
    const json_t *query = json_object_get(line, "query"), *own = json_object_get(line, "instruct");
    const json_t *document = json_array_get(json_object_get(line, "documents"), i);
    const char *instruct = own ? json_string_value(own) : job->instruct ? job->instruct : DEFAULT_INSTRUCT;
    const text_piece pieces[] = {{PROMPT_BEGIN, strlen(PROMPT_BEGIN), false},
                                 {instruct, strlen(instruct), true},
                                 {"\n<Query>: ", strlen("\n<Query>: "), false},
                                 {json_string_value(query), json_string_length(query), true},
                                 {"\n<Document>: ", strlen("\n<Document>: "), false},
                                 {json_string_value(document), json_string_length(document), true},
                                 {PROMPT_END, strlen(PROMPT_END), false}};
    qwen3_error fault = {0};
    if (text_batch_add(&job->batch, &job->m, pieces, sizeof pieces / sizeof *pieces, -1, &fault) != QWEN3_OK)
        return set_error(err, fault.status, "documents[%zu]: %.900s", i, fault.message);
    return QWEN3_OK;
}

/* Documents [first, ...) of a line, as many as a batch has. */
static qwen3_status fill(rerank_job *job, const json_t *line, size_t first, qwen3_error *err)
{
    const size_t n = json_array_size(json_object_get(line, "documents"));
    for (size_t i = first; i < n && job->batch.n_texts < (size_t)job->m.batch; i++)
        if (add_document(job, line, i, err) != QWEN3_OK)
            return err->status;
    return QWEN3_OK;
}

static qwen3_status reserve_scores(rerank_job *job, size_t n, qwen3_error *err)
{
    free(job->scores);
    job->n_scores = 0;
    return (job->scores = allocate(n, sizeof *job->scores, "scores", err)) ? QWEN3_OK : err->status;
}

/* ---- The model --------------------------------------------------------------------------------- */

/* Of the logits of "no" and "yes" the softmax, its second part. */
static float score_of(float no, float yes)
{
    return (float)(1 / (1 + exp((double)no - yes)));
}

static qwen3_status take(void *context, qwen3_session *session, size_t first, size_t rows, qwen3_error *err)
{
    rerank_job *job = context;
    (void)first;
    const qwen3_status status = qwen3_logits(session, job->logits, err);
    const size_t vocabulary = (size_t)qwen3_model_config(job->m.model)->vocab_size;
    for (size_t i = 0; status == QWEN3_OK && job->logits && i < rows; i++) {
        const float *row = job->logits + i * vocabulary;
        job->scores[job->n_scores++] = score_of(row[job->no], row[job->yes]);
    }
    return status;
}

/* The documents of a line, which is NULL except on rank 0. Collective. */
static qwen3_status run_documents(rerank_job *job, const json_t *line, qwen3_error *err)
{
    uint64_t n = json_array_size(json_object_get(line, "documents"));
    qwen3_status status = QWEN3_OK;
    qwen3_comm_broadcast(job->m.world, &n, sizeof n);
    for (uint64_t first = 0; first < n && status == QWEN3_OK; first += (uint64_t)job->m.batch) {
        if (line)
            fill(job, line, first, err);
        status = qwen3_comm_agree(job->m.world, err);
        if (status == QWEN3_OK)
            status = text_batch_run(&job->m, &job->batch, take, job, err);
    }
    return status;
}

/* Collective. */
static qwen3_status run_line(rerank_job *job, const json_t *line, qwen3_error *err)
{
    qwen3_status status = run_documents(job, line, err);
    if (status != QWEN3_OK)
        return status;
    if (line) {
        printf("{\"index\": %zu, \"scores\":", job->written++);
        print_numbers(job->scores, job->n_scores);
        printf("}\n");
        flush_output(stdout, "standard output", err);
    }
    return qwen3_comm_agree(job->m.world, err);
}

/* One line of input and of output; *more is false at the end. Collective. */
static qwen3_status next_line(rerank_job *job, bool *more, qwen3_error *err)
{
    json_t *line = NULL;
    qwen3_error fault = {0};
    if (qwen3_comm_rank(job->m.world) == 0 && read_json_line(&job->input, &line, &fault) == QWEN3_OK && line &&
        check_line(line, &fault) == QWEN3_OK)
        reserve_scores(job, json_array_size(json_object_get(line, "documents")), &fault);
    *more = line != NULL;
    qwen3_status status = qwen3_comm_agree(job->m.world, &fault);
    qwen3_comm_broadcast(job->m.world, more, sizeof *more);
    if (status == QWEN3_OK && *more)
        status = run_line(job, line, &fault);
    json_decref(line);
    return status == QWEN3_OK ? QWEN3_OK : fail_line(&job->input, &fault, err);
}

/* On rank 0. */
static qwen3_status find_tokens(rerank_job *job, qwen3_error *err)
{
    job->yes = qwen3_tokenizer_find(job->m.tokenizer, "yes", 3);
    job->no = qwen3_tokenizer_find(job->m.tokenizer, "no", 2);
    if (job->yes < 0 || job->no < 0)
        return set_error(err, QWEN3_ERR_CONFIG, "%s: the tokenizer has no token \"%s\", which a reranker answers with",
                         job->m.arguments.spec, job->yes < 0 ? "yes" : "no");
    const size_t vocabulary = (size_t)qwen3_model_config(job->m.model)->vocab_size;
    job->logits = allocate((size_t)job->m.batch * vocabulary, sizeof *job->logits, "logits", err);
    return err->status;
}

static qwen3_status run_job(rerank_job *job, qwen3_error *err)
{
    bool more = true;
    qwen3_status status = text_model_open(&job->m, err);
    if (status != QWEN3_OK)
        return status;
    if (qwen3_comm_rank(job->m.world) == 0)
        find_tokens(job, err);
    status = qwen3_comm_agree(job->m.world, err);
    while (status == QWEN3_OK && more)
        status = next_line(job, &more, err);
    return status;
}

qwen3_status command_rerank(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    rerank_job job = {.m = {.world = world, .arguments = model_arguments_default()}};
    option_table table = {0};
    describe_options(&job, &table);
    command_line line = {"qwen3 rerank", self->summary, table.options, table.n, argc, argv};
    bool finished = false;

    if (options_parse(&line, qwen3_comm_rank(world) == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished)
        text_model_check(&job.m, &line, qwen3_comm_size(world), err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished)
        status = run_job(&job, err);
    text_model_close(&job.m);
    text_batch_free(&job.batch);
    free(job.logits);
    free(job.scores);
    free(job.input.line);
    options_free(table.options, table.n);
    return status;
}
