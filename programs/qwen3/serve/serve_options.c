/* serve_options.c - see serve_options.h. */
#include "serve_options.h"

#include <stdlib.h>
#include <string.h>

#include "common/text_file.h"
#include "qwen3/chat_template_option.h"

serve_options serve_options_default(void)
{
    return (serve_options){.arguments = generation_arguments_default(),
                           .http = {.port = 8080, .connections = 512, .timeout = 120},
                           .scheduler = qwen3_scheduler_options_default(),
                           .header_kib = 32,
                           .body_kib = 8192,
                           .grace = 10,
                           .wait_ms = 250};
}

static void http_options(serve_options *o, option_table *table)
{
    const option options[] = {
        {.name = "host",
         .kind = OPTION_TEXT,
         .value = &o->host,
         .argument = "ADDRESS",
         .help = "Where to listen (default 127.0.0.1, which other machines cannot reach; 0.0.0.0 or :: for all)"},
        {.name = "port",
         .short_name = 'p',
         .kind = OPTION_INT,
         .value = &o->http.port,
         .max = 65535,
         .help = "Port to listen on, 0 = one that is free (default 8080)"},
        {.name = "socket",
         .kind = OPTION_TEXT,
         .value = &o->socket,
         .argument = "PATH",
         .help = "Listen on a Unix socket in place of host and port"},
        {.name = "api-key-file",
         .kind = OPTION_TEXT,
         .value = &o->key_file,
         .argument = "FILE",
         .help = "Keys of clients, one a line (default: the environment variable QWEN3_API_KEY, or nobody needs one)"},
        {.name = "cors-origin",
         .kind = OPTION_TEXT,
         .value = &o->cors_origin,
         .argument = "ORIGIN",
         .help = "Origin whose pages may use the server, such as https://example.org, or * (default: its own page "
                 "alone)"},
        {.name = "model-name",
         .kind = OPTION_TEXT,
         .value = &o->model_name,
         .argument = "NAME",
         .utf8 = true,
         .help = "Name of the model for clients (default: that of its directory or file)"},
        {.name = "connections",
         .kind = OPTION_INT,
         .value = &o->http.connections,
         .min = 1,
         .max = 65536,
         .help = "Most connections at once (default 512)"},
        {.name = "header-size",
         .kind = OPTION_INT64,
         .value = &o->header_kib,
         .min = 4,
         .max = 1024,
         .help = "KiB that the head of a request may have, about (default 32)"},
        {.name = "body-size",
         .kind = OPTION_INT64,
         .value = &o->body_kib,
         .min = 1,
         .max = 1048576,
         .help = "KiB that the body of a request may have (default 8192)"},
        {.name = "timeout",
         .kind = OPTION_INT,
         .value = &o->http.timeout,
         .min = 1,
         .max = 86400,
         .help = "Seconds without a byte from or to a client, after which its connection is closed (default 120)"},
        {.name = "grace",
         .kind = OPTION_INT,
         .value = &o->grace,
         .max = 86400,
         .help = "Seconds that answers have to end after SIGTERM or SIGINT (default 10)"},
    };
    option_table_add(table, sizeof options / sizeof *options, options);
}

static void engine_options(serve_options *o, option_table *table)
{
    qwen3_scheduler_options *s = &o->scheduler;
    const option options[] = {
        {.name = "context",
         .short_name = 'c',
         .kind = OPTION_INT64,
         .value = &o->arguments.context,
         .min = 1,
         .max = INT32_MAX,
         .help = "Tokens of a prompt and its answer together (default: as many as the model has positions; memory is "
                 "taken as it is needed)"},
        {.name = "running",
         .kind = OPTION_INT,
         .value = &s->max_running,
         .min = 1,
         .max = 1024,
         .help = "Answers that are computed at once (default 16)"},
        {.name = "waiting",
         .kind = OPTION_INT,
         .value = &s->max_waiting,
         .min = 1,
         .max = 1048576,
         .help = "Answers in the waiting line; more are refused with 429 (default 256)"},
        {.name = "prefixes",
         .kind = OPTION_INT,
         .value = &s->max_cached,
         .max = 65536,
         .help = "Ended answers whose keys and values are kept for prompts that begin alike (default 64)"},
        {.name = "longest-wait",
         .kind = OPTION_INT,
         .value = &o->wait_ms,
         .min = 1,
         .max = 3600000,
         .help = "Milliseconds that running answers may wait for a token while prompts are computed (default 250)"},
        {.name = "step-tokens",
         .kind = OPTION_INT64,
         .value = &s->step_tokens,
         .min = 1,
         .max = 65536,
         .help = "Most tokens of one step, at least --running (default 512)"},
        {.name = "draft-tokens",
         .kind = OPTION_INT,
         .value = &s->draft_tokens,
         .max = 64,
         .help = "Most tokens of an answer that are guessed at once from the text before, for texts that repeat "
                 "(default 0: none)"},
        {.name = "kv-pages",
         .kind = OPTION_INT64,
         .value = &s->kv_pages,
         .min = 1,
         .max = INT32_MAX,
         .help = "Pages of 128 positions of keys and values that a rank may keep (default: what fits in half of the "
                 "memory that is free)"},
        chat_template_option(&o->arguments.chat_template),
        {.name = "no-thinking",
         .kind = OPTION_FLAG,
         .value = &o->arguments.no_thinking,
         .help = "Requests that do not say whether to reason are answered without"},
    };
    option_table_add(table, sizeof options / sizeof *options, options);
}

void serve_options_describe(serve_options *o, option_table *table)
{
    http_options(o, table);
    engine_options(o, table);
    generation_sampling_options(&o->arguments, table);
    option *model = &table->options[table->n];
    model_arguments_options(&o->arguments.model, table);
    model->argument = "DIR";
    model->help = "Directory with weights, configuration, tokenizer and chat template, or packed model, or FILE.gguf";
    table->options[table->n - 1] = (option){.name = "seed",
                                            .kind = OPTION_UINT64,
                                            .value = &o->arguments.sampling.seed,
                                            .help = "Seed of requests that give none (default: another one each time)"};
}

/* The last part of the path of a model. */
static const char *base_name(char *spec)
{
    size_t n = strlen(spec);
    while (n > 1 && spec[n - 1] == '/')
        spec[--n] = '\0';
    const char *slash = strrchr(spec, '/');
    return slash && slash[1] ? slash + 1 : spec;
}

qwen3_status serve_options_check(serve_options *o, const command_line *line, int ranks, qwen3_error *err)
{
    if (generation_check(&o->arguments, line, ranks, err) != QWEN3_OK)
        return err->status;
    if (o->socket && (option_given(line, "host") || option_given(line, "port")))
        return set_error(err, QWEN3_ERR_ARGUMENT, "--socket contradicts --host and --port");
    if (o->scheduler.step_tokens && o->scheduler.step_tokens < o->scheduler.max_running)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--step-tokens: got %lld, expected at least --running, %d",
                         (long long)o->scheduler.step_tokens, o->scheduler.max_running);
    o->http.host = o->host ? o->host : "127.0.0.1";
    o->http.socket = o->socket;
    o->http.cors_origin = o->cors_origin;
    o->http.header_bytes = (size_t)o->header_kib << 10;
    o->http.body_bytes = (size_t)o->body_kib << 10;
    o->scheduler.longest_wait = o->wait_ms * 1e-3;
    o->service.grace = o->grace;
    o->service.model = o->model_name ? o->model_name : base_name(o->arguments.model.spec);
    return QWEN3_OK;
}

/* Splits o->keys by lines; empty ones are none. */
static qwen3_status split_keys(serve_options *o, qwen3_error *err)
{
    char *rest = NULL;
    for (char *key = strtok_r(o->keys, " \t\r\n", &rest); key; key = strtok_r(NULL, " \t\r\n", &rest)) {
        if (o->service.keys.n == MAX_TEXTS)
            return set_error(err, QWEN3_ERR_ARGUMENT, "--api-key-file: expected at most %d keys", MAX_TEXTS);
        o->service.keys.texts[o->service.keys.n++] = key;
    }
    if (o->service.keys.n == 0)
        return set_error(err, QWEN3_ERR_ARGUMENT, "%s: holds no key", o->key_file ? o->key_file : "QWEN3_API_KEY");
    return QWEN3_OK;
}

qwen3_status serve_options_keys(serve_options *o, qwen3_error *err)
{
    const char *given = getenv("QWEN3_API_KEY");
    size_t n;
    if (o->key_file)
        o->keys = text_file_read(o->key_file, "--api-key-file", &n, err);
    else if (given && !(o->keys = strdup(given)))
        return set_error(err, QWEN3_ERR_MEMORY, "QWEN3_API_KEY: out of memory");
    return o->keys ? split_keys(o, err) : err->status;
}

void serve_options_free(serve_options *o)
{
    free(o->keys);
}
