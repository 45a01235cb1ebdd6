/* serve_options.h - the command line of qwen3 serve. */
#ifndef SERVE_OPTIONS_H
#define SERVE_OPTIONS_H

#include "http.h"
#include "qwen3/generation.h"
#include "service.h"

typedef struct serve_options {
    generation_arguments arguments;
    http_settings http;
    service_settings service;
    qwen3_scheduler_options scheduler;
    char *host, *socket, *model_name, *key_file, *cors_origin;
    int64_t header_kib, body_kib;
    int grace, wait_ms;
    char *keys; /* what --api-key-file holds; service.keys points there */
} serve_options;

serve_options serve_options_default(void);
/* Adds the options that fill *o, which must stay where it is. */
void serve_options_describe(serve_options *o, option_table *table);
qwen3_status serve_options_check(serve_options *o, const command_line *line, int ranks, qwen3_error *err);
/* On rank 0, where alone the file needs to be: the keys of clients, from --api-key-file or QWEN3_API_KEY. */
qwen3_status serve_options_keys(serve_options *o, qwen3_error *err);
/* What is not freed with the table. */
void serve_options_free(serve_options *o);

#endif
