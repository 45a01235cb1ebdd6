/* generation_config.c - how a model is meant to be sampled, as its directory says. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json_section.h"
#include "model/config.h"
#include "model/sampler.h"

static qwen3_status add_end_token(const json_section *s, const json_t *value, qwen3_generation_config *c)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id > INT32_MAX)
        return json_fail_value(s, QWEN3_ERR_CONFIG, "eos_token_id", value, "the id of a token, or an array of ids");
    if (!qwen3_generation_config_ends(c, (int32_t)id)) {
        if (c->n_end_tokens == QWEN3_MAX_END_TOKENS)
            return fail(s->err, QWEN3_ERR_UNSUPPORTED, "%s: eos_token_id: has more than %d ids", s->path,
                        QWEN3_MAX_END_TOKENS);
        c->end_tokens[c->n_end_tokens++] = (int32_t)id;
    }
    return QWEN3_OK;
}

static qwen3_status read_end_tokens(const json_section *s, qwen3_generation_config *c)
{
    const json_t *value = json_value_of(s, "eos_token_id");
    if (!json_is_array(value))
        return value ? add_end_token(s, value, c) : QWEN3_OK;
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < json_array_size(value) && !status; i++)
        status = add_end_token(s, json_array_get(value, i), c);
    return status;
}

/* Some files write -1 for all tokens, or 20.0. */
static qwen3_status read_top_k(const json_section *s, qwen3_sampling_options *o)
{
    double k = 0;
    qwen3_status status = json_read_optional_number(s, "top_k", &k);
    if (!status && (k < -1 || k > INT32_MAX || k != floor(k)))
        return json_fail_value(s, QWEN3_ERR_CONFIG, "top_k", json_value_of(s, "top_k"),
                               "an integer, 0 or -1 for all tokens");
    o->top_k = k > 0 ? (int)k : 0;
    return status;
}

static qwen3_status read_sampling(const json_section *s, qwen3_generation_config *c)
{
    qwen3_sampling_options *o = &c->sampling;
    bool sample = false;
    char where[4096];
    c->greedy_by_default = !json_value_of(s, "do_sample");
    qwen3_status status = c->greedy_by_default ? QWEN3_OK : json_read_bool(s, "do_sample", &sample);
    o->temperature = 1;
    if (status || (status = json_read_optional_number(s, "temperature", &o->temperature)) ||
        (status = read_top_k(s, o)) || (status = json_read_optional_number(s, "top_p", &o->top_p)) ||
        (status = json_read_optional_number(s, "min_p", &o->min_p)) ||
        (status = json_read_optional_number(s, "repetition_penalty", &o->repetition_penalty)) ||
        (status = read_end_tokens(s, c)))
        return status;
    snprintf(where, sizeof where, "%s: ", s->path);
    if (sampling_options_check(o, where, s->err))
        return s->err ? s->err->status = QWEN3_ERR_CONFIG : QWEN3_ERR_CONFIG;
    if (!sample)
        o->temperature = 0;
    return QWEN3_OK;
}

/* Reads one file of the directory with `read`. optional: a file that is not there leaves *config as it is. */
static qwen3_status read_file(const char *dir, const char *name, bool optional,
                              qwen3_status (*read)(const json_section *s, qwen3_generation_config *c),
                              qwen3_generation_config *config, qwen3_error *err)
{
    char *path;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", dir);
    json_t *root = NULL;
    qwen3_status status = QWEN3_OK;
    if (!optional || file_exists(path))
        status = json_file_load(path, &root, err);
    if (root) {
        json_section s = {path, "", root, err};
        status = read(&s, config);
    }
    json_decref(root);
    free(path);
    return status;
}

/* ---- GGUF files --------------------------------------------------------------------------------- */

static qwen3_status add_gguf_end(const gguf_section *s, const char *key, int64_t tokens, qwen3_generation_config *c)
{
    int64_t id = 0;
    qwen3_status status = gguf_find(s, key) ? gguf_read_integer(s, key, &id) : QWEN3_OK;
    if (status || !gguf_find(s, key))
        return status;
    if (id < 0 || id >= tokens)
        return fail(s->err, QWEN3_ERR_CONFIG, "%s: key %s%s: got %lld, expected the id of one of %lld tokens",
                    s->file->path, s->prefix, key, (long long)id, (long long)tokens);
    if (!qwen3_generation_config_ends(c, (int32_t)id))
        c->end_tokens[c->n_end_tokens++] = (int32_t)id;
    return QWEN3_OK;
}

/* The published models end a turn with <|im_end|> and a text with <|endoftext|>. A file has one key for the end that
 * its model was trained for, so the other one is found by its text, as by other readers of the format. */
static void add_known_ends(const gguf_value *tokens, qwen3_generation_config *c)
{
    const unsigned char *at = tokens->data;
    for (uint64_t id = 0; id < tokens->n && id < INT32_MAX; id++) {
        const gguf_text text = gguf_next_text(&at);
        if ((gguf_text_is(text, "<|im_end|>") || gguf_text_is(text, "<|endoftext|>")) &&
            !qwen3_generation_config_ends(c, (int32_t)id) && c->n_end_tokens < QWEN3_MAX_END_TOKENS)
            c->end_tokens[c->n_end_tokens++] = (int32_t)id;
    }
}

/* What the authors recommend, in newer files. Without a temperature decoding is greedy, as without
 * generation_config.json. */
static qwen3_status read_gguf_sampling(const gguf_section *s, qwen3_sampling_options *o)
{
    const struct {
        const char *key;
        double *value;
    } numbers[] = {{"temp", &o->temperature},
                   {"top_p", &o->top_p},
                   {"min_p", &o->min_p},
                   {"penalty_repeat", &o->repetition_penalty}};
    int64_t k = 0;
    char where[4096];
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !status; i++)
        if (gguf_find(s, numbers[i].key))
            status = gguf_read_number(s, numbers[i].key, numbers[i].value);
    if (!status && gguf_find(s, "top_k"))
        status = gguf_read_integer(s, "top_k", &k);
    if (status)
        return status;
    o->top_k = k < 0 ? 0 : k > INT32_MAX ? INT32_MAX : (int)k; /* negative: all tokens, as 0 */
    snprintf(where, sizeof where, "%s: key %s", s->file->path, s->prefix);
    if (sampling_options_check(o, where, s->err))
        return s->err ? s->err->status = QWEN3_ERR_CONFIG : QWEN3_ERR_CONFIG;
    return QWEN3_OK;
}

static qwen3_status read_gguf(const char *path, qwen3_generation_config *c, qwen3_error *err)
{
    static const char *const keys[] = {"eos_token_id", "eot_token_id", "eom_token_id"};
    gguf_file file;
    const gguf_value *tokens = NULL;
    qwen3_status status = gguf_file_open(path, &file, err);
    const gguf_section s = {&file, "tokenizer.ggml.", err}, sampling = {&file, "general.sampling.", err};
    if (!status)
        status = read_gguf_sampling(&sampling, &c->sampling);
    c->greedy_by_default = !status && !gguf_find(&sampling, "temp");
    if (!status)
        status = gguf_read_array(&s, "tokens", GGUF_STRING, &tokens);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !status; i++)
        status = add_gguf_end(&s, keys[i], (int64_t)tokens->n, c);
    if (!status)
        add_known_ends(tokens, c);
    gguf_file_close(&file);
    return status;
}

qwen3_status qwen3_generation_config_read(const char *spec, qwen3_generation_config *config, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(config, "config", err))
        return err->status;
    *config = (qwen3_generation_config){0};
    if (missing(spec, "spec", err))
        return err->status;
    *config = (qwen3_generation_config){.sampling = qwen3_sampling_options_default()};
    if (strncmp(spec, SYNTHETIC_PREFIX, strlen(SYNTHETIC_PREFIX)) == 0)
        return QWEN3_OK;
    char *metadata;
    qwen3_status status = gguf_metadata_path(spec, &metadata, err);
    if (!status)
        status = metadata ? read_gguf(metadata, config, err)
                          : read_file(spec, "generation_config.json", true, read_sampling, config, err);
    if (!status && !metadata && config->n_end_tokens == 0)
        status = read_file(spec, "config.json", false, read_end_tokens, config, err);
    free(metadata);
    if (status)
        *config = (qwen3_generation_config){0};
    return status;
}

bool qwen3_generation_config_ends(const qwen3_generation_config *config, int32_t token)
{
    for (int i = 0; config && i < config->n_end_tokens && i < QWEN3_MAX_END_TOKENS; i++)
        if (config->end_tokens[i] == token)
            return true;
    return false;
}
