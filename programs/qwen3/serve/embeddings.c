/* embeddings.c - /v1/embeddings: a vector for each text, the hidden state of its last token. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fields.h"
#include "job.h"

enum {
    MOST_INPUTS = 2048,
    AT_ONCE = 16, /* texts of a job in the scheduler */
};

typedef struct embed_job {
    job j;
    json_t *body, *inputs;
    bool base64;
    size_t dimensions, submitted, done;
    float **embeddings; /* [parts] */
    int64_t tokens;
} embed_job;

static void release(job *j)
{
    embed_job *m = (embed_job *)j;
    for (size_t i = 0; m->embeddings && i < j->n_parts; i++)
        free(m->embeddings[i]);
    free(m->embeddings);
    json_decref(m->inputs);
    json_decref(m->body);
}

static bool parse(embed_job *m, service *s, http_exchange *x, api_error *e)
{
    static const char *const names[] = {"model", "input", "encoding_format", "dimensions", "user", NULL};
    size_t n;
    const char *body = http_body(x, &n), *format = "float";
    int64_t dimensions = (int64_t)s->hidden_size;
    if (!(m->body = fields_parse(body, n, e)) || !request_check_names(m->body, names, e) ||
        !request_check_model(m->body, s->defaults.model, e))
        return false;
    m->inputs = request_prompts(field_get(m->body, "input"), "input", s->defaults.n_tokens, e);
    if (json_array_size(m->inputs) > MOST_INPUTS)
        return api_refuse(e, "input", "input: expected at most %d texts", MOST_INPUTS);
    field_int(m->body, "dimensions", 1, (int64_t)s->hidden_size, &dimensions, e);
    field_string(m->body, "encoding_format", &format, e);
    m->base64 = strcmp(format, "base64") == 0;
    m->dimensions = (size_t)dimensions;
    return m->base64 || strcmp(format, "float") == 0 ||
           api_refuse(e, "encoding_format", "encoding_format: expected \"float\" or \"base64\"");
}

/* The ids of an input, [*n], freed with free(); of a text with the token that the tokenizer puts at its end. */
static int32_t *input_tokens(const embed_job *m, size_t i, size_t *n, api_error *e)
{
    const json_t *value = json_array_get(m->inputs, i);
    const qwen3_tokenizer *tokenizer = m->j.s->text->tokenizer;
    const int32_t end = qwen3_tokenizer_end(tokenizer);
    qwen3_error err = {0};
    int32_t *ids = NULL, *all;
    size_t length = json_string_length(value), k;
    json_t *id;
    const qwen3_text_range plain = {0, length};
    const qwen3_encode_args args = {json_string_value(value), length, &plain, 1};
    if (json_is_string(value) && qwen3_tokenizer_encode(tokenizer, &args, &ids, n, &err) != QWEN3_OK)
        api_fail_status(e, "input", &err);
    if (json_is_array(value))
        *n = json_array_size(value);
    all = e->http ? NULL : realloc(ids, (*n + 1) * sizeof *ids);
    if (!all) {
        free(ids);
        api_fail(e, 503, "out of memory");
        return NULL;
    }
    if (json_is_array(value)) {
        json_array_foreach(value, k, id)
        {
            all[k] = (int32_t)json_integer_value(id);
        }
    } else if (end >= 0) {
        all[(*n)++] = end;
    }
    return all;
}

static bool submit_next(embed_job *m, api_error *e)
{
    size_t n = 0;
    const int64_t context = m->j.s->text->context;
    int32_t *tokens = input_tokens(m, m->submitted, &n, e);
    if (tokens && n == 0)
        api_refuse(e, "input", "input[%zu]: the text is empty", m->submitted);
    if (tokens && (int64_t)n >= context)
        api_refuse(e, "input", "input[%zu]: has %zu tokens, expected fewer than %" PRId64, m->submitted, n, context);
    qwen3_scheduler_request request = {
        .prompt = tokens, .n_prompt = n, .sampling = qwen3_sampling_options_default(), .embedding = true};
    if (!e->http && job_submit(&m->j, m->submitted, &request, e)) {
        m->submitted++;
        m->tokens += (int64_t)n;
    }
    free(tokens);
    return !e->http;
}

/* Where the line is full, the others of this job make room. */
static bool submit_more(embed_job *m, api_error *e)
{
    while (!e->http && m->submitted < m->j.n_parts && m->j.open < AT_ONCE)
        submit_next(m, e);
    if (e->http == 429 && m->j.open > 0)
        *e = (api_error){0};
    return !e->http;
}

/* The first values, of length 1 again. */
static void shorten(float *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)values[i] * (double)values[i];
    for (size_t i = 0; i < n && sum > 0; i++)
        values[i] = (float)((double)values[i] / sqrt(sum));
}

static void take(job *j, job_part *part, engine_event *event)
{
    embed_job *m = (embed_job *)j;
    api_error e = {0};
    if (event->finish == QWEN3_FINISH_ERROR || !event->embedding) {
        if (event->error.status != QWEN3_OK)
            api_fail_status(&e, NULL, &event->error);
        api_fail(&e, 500, "the text has no embedding");
        job_fail(j, &e);
        return;
    }
    m->embeddings[part->index] = event->embedding;
    event->embedding = NULL;
    if (m->dimensions < j->s->hidden_size)
        shorten(m->embeddings[part->index], m->dimensions);
    m->done++;
    if (!submit_more(m, &e)) {
        job_fail(j, &e);
        return;
    }
    if (m->done < j->n_parts)
        return;
    service_reply(
        j->s, j->x, 200,
        reply_embeddings(j->s->defaults.model, m->embeddings, j->n_parts, m->dimensions, m->base64, m->tokens));
    job_end(j);
}

void embed_begin(service *s, http_exchange *x)
{
    api_error e = {0};
    embed_job *m = calloc(1, sizeof *m);
    if (!m) {
        api_fail(&e, 503, "out of memory");
        service_refuse(s, x, &e);
        return;
    }
    m->j.take = take;
    m->j.release = release;
    const bool good = parse(m, s, x, &e);
    if (!job_open(&m->j, s, x, good ? json_array_size(m->inputs) : 1) ||
        !(m->embeddings = calloc(m->j.n_parts, sizeof *m->embeddings)))
        api_fail(&e, 503, "out of memory");
    if (e.http || !submit_more(m, &e))
        job_fail(&m->j, &e);
}
