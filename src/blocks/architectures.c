#include "blocks/architectures.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks/attention.h"
#include "blocks/experts.h"
#include "blocks/gated_mlp.h"
#include "io/checkpoint.h"
#include "model/config.h"

typedef struct architecture {
    const char *name;       /* in "architectures" of config.json */
    const char *model_type; /* and under that key */
    config_reader *read;
    /* As architecture_blocks. */
    const block *const *(*blocks)(const qwen3_config *config, int64_t layer, int *n);
    const char *prefix; /* of the names of tensors */
    const char *gguf;   /* "general.architecture" of a GGUF file; NULL: not read from one */
    config_gguf_reader *read_gguf;
} architecture;

/* ---- What they read and consist of ------------------------------------------------------------- */

static qwen3_status read_qwen3(const json_section *s, qwen3_config *c)
{
    c->qk_norm = true;
    qwen3_status status = config_require_off(s, "attention_bias");
    c->head_dim = 128; /* of every published model, and the reference's own default */
    if (!status && json_value_of(s, "head_dim"))
        status = json_read_integer(s, "head_dim", &c->head_dim);
    return status;
}

/* Newer files call it num_local_experts. */
static qwen3_status read_expert_count(const json_section *s, qwen3_config *c)
{
    static const char *const keys[] = {"num_experts", "num_local_experts"};
    const json_t *values[] = {json_value_of(s, keys[0]), json_value_of(s, keys[1])};
    if (values[0] && values[1] && !json_equal(values[0], values[1]))
        return json_fail_value(s, QWEN3_ERR_CONFIG, keys[1], values[1], "the same as num_experts");
    qwen3_status status = json_read_integer(s, keys[!values[0] && values[1]], &c->num_experts);
    if (!status && c->num_experts < 1)
        return fail(s->err, QWEN3_ERR_CONFIG, "%s: num_experts: got %" PRId64 ", expected at least 1", s->path,
                    c->num_experts);
    return status;
}

/* Layer i has experts where i + 1 is a multiple of decoder_sparse_step, unless mlp_only_layers lists it. A file that
 * lacks these keys has experts in all layers; if it does not, their tensors are missing. */
static qwen3_status read_expert_layers(const json_section *s, qwen3_config *c)
{
    int64_t sparse_step = 1;
    const json_t *dense = json_value_of(s, "mlp_only_layers"), *layer;
    if (json_value_of(s, "decoder_sparse_step")) {
        qwen3_status status = json_read_integer(s, "decoder_sparse_step", &sparse_step);
        if (status)
            return status;
        if (sparse_step < 1)
            return json_fail_value(s, QWEN3_ERR_CONFIG, "decoder_sparse_step", json_value_of(s, "decoder_sparse_step"),
                                   "at least 1");
    }
    if (dense && !json_is_array(dense))
        return json_fail_value(s, QWEN3_ERR_CONFIG, "mlp_only_layers", dense, "an array of layers");
    for (int64_t i = 0; i < c->num_layers && i < QWEN3_MAX_LAYERS; i++)
        config_set_experts(c, i, (i + 1) % sparse_step == 0);
    for (size_t i = 0; i < json_array_size(dense); i++) {
        layer = json_array_get(dense, i);
        if (!json_is_integer(layer) || json_integer_value(layer) < 0)
            return json_fail_value(s, QWEN3_ERR_CONFIG, "mlp_only_layers", layer, "layers, from 0 on");
        if (json_integer_value(layer) < QWEN3_MAX_LAYERS) /* of a model that has been shortened */
            config_set_experts(c, json_integer_value(layer), false);
    }
    return QWEN3_OK;
}

static qwen3_status read_qwen3_moe(const json_section *s, qwen3_config *c)
{
    qwen3_status status;
    if ((status = read_qwen3(s, c)) || (status = read_expert_count(s, c)) ||
        (status = json_read_integer(s, "num_experts_per_tok", &c->num_experts_per_token)) ||
        (status = json_read_integer(s, "moe_intermediate_size", &c->moe_intermediate_size)) ||
        (status = json_read_bool(s, "norm_topk_prob", &c->norm_topk_prob)))
        return status;
    return read_expert_layers(s, c);
}

static qwen3_status read_qwen3_gguf(const gguf_section *s, qwen3_config *c)
{
    c->qk_norm = true;
    return gguf_read_integer(s, "attention.key_length", &c->head_dim);
}

/* All layers have experts, and the weights of those that are chosen are normalised unless the file says otherwise. */
static qwen3_status read_qwen3_moe_gguf(const gguf_section *s, qwen3_config *c)
{
    qwen3_status status;
    c->norm_topk_prob = true;
    if ((status = read_qwen3_gguf(s, c)) || (status = gguf_read_integer(s, "expert_count", &c->num_experts)) ||
        (status = gguf_read_integer(s, "expert_used_count", &c->num_experts_per_token)) ||
        (status = gguf_read_integer(s, "expert_feed_forward_length", &c->moe_intermediate_size)) ||
        (gguf_find(s, "expert_weights_norm") &&
         (status = gguf_read_bool(s, "expert_weights_norm", &c->norm_topk_prob))))
        return status;
    if (c->num_experts < 1)
        return fail(s->err, QWEN3_ERR_CONFIG, "%s: key %sexpert_count: got %" PRId64 ", expected at least 1",
                    s->file->path, s->prefix, c->num_experts);
    for (int64_t i = 0; i < c->num_layers && i < QWEN3_MAX_LAYERS; i++)
        config_set_experts(c, i, true);
    return QWEN3_OK;
}

/* Heads share the hidden size where the file does not say how large they are. */
static qwen3_status read_head_dim(const json_section *s, qwen3_config *c)
{
    if (json_value_of(s, "head_dim"))
        return json_read_integer(s, "head_dim", &c->head_dim);
    if (c->num_heads < 1 || c->hidden_size % c->num_heads != 0)
        return json_fail_value(s, QWEN3_ERR_CONFIG, "num_attention_heads", json_value_of(s, "num_attention_heads"),
                               "a divisor of hidden_size, or head_dim");
    c->head_dim = c->hidden_size / c->num_heads;
    return QWEN3_OK;
}

static qwen3_status read_qwen2(const json_section *s, qwen3_config *c)
{
    c->attention_bias = true;
    return read_head_dim(s, c);
}

static qwen3_status read_qwen2_gguf(const gguf_section *s, qwen3_config *c)
{
    (void)s;
    c->attention_bias = true;
    return QWEN3_OK;
}

/* Its attention_bias is one of the projection back, too. */
static qwen3_status read_llama(const json_section *s, qwen3_config *c)
{
    qwen3_status status;
    if ((status = config_require_off(s, "attention_bias")) || (status = config_require_off(s, "mlp_bias")))
        return status;
    const json_t *slices = json_value_of(s, "pretraining_tp"); /* > 1: another order of sums */
    if (slices && json_integer_value(slices) != 1)
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "pretraining_tp", slices, "1");
    return read_head_dim(s, c);
}

static const block *const *dense_blocks(const qwen3_config *config, int64_t layer, int *n)
{
    static const block *const blocks[] = {&block_attention, &block_gated_mlp};
    (void)config, (void)layer;
    *n = sizeof blocks / sizeof *blocks;
    return blocks;
}

static const block *const *expert_blocks(const qwen3_config *config, int64_t layer, int *n)
{
    static const block *const blocks[] = {&block_attention, &block_experts};
    if (!qwen3_config_has_experts(config, layer))
        return dense_blocks(config, layer, n);
    *n = sizeof blocks / sizeof *blocks;
    return blocks;
}

/* ---- The table --------------------------------------------------------------------------------- */

static const architecture architectures[] = {
    {"Qwen3ForCausalLM", "qwen3", read_qwen3, dense_blocks, "model.", "qwen3", read_qwen3_gguf},
    {"Qwen3MoeForCausalLM", "qwen3_moe", read_qwen3_moe, expert_blocks, "model.", "qwen3moe", read_qwen3_moe_gguf},
    {"Qwen2ForCausalLM", "qwen2", read_qwen2, dense_blocks, "model.", "qwen2", read_qwen2_gguf},
    {"LlamaForCausalLM", "llama", read_llama, dense_blocks, "model.", NULL, NULL},
    /* Without an output head: embeddings. */
    {"Qwen3Model", "qwen3", read_qwen3, dense_blocks, "model.", NULL, NULL},
};

enum { ARCHITECTURES = sizeof architectures / sizeof *architectures };

/* NULL where there is none. A configuration made by hand need not say that it is Qwen3. */
static const architecture *architecture_of(const qwen3_config *config)
{
    for (const architecture *a = architectures; a < architectures + ARCHITECTURES; a++)
        if (!config->architecture || strcmp(a->model_type, config->architecture) == 0)
            return a;
    return NULL;
}

const block *const *architecture_blocks(const qwen3_config *config, int64_t layer, int *n)
{
    return architecture_of(config)->blocks(config, layer, n);
}

/* ---- Configuration ----------------------------------------------------------------------------- */

static qwen3_status fail_architecture(const json_section *s, qwen3_status status, const char *key, const json_t *value)
{
    char expected[256] = "one of";
    for (size_t i = 0, n = strlen(expected); i < ARCHITECTURES && n < sizeof expected; i++)
        n += (size_t)snprintf(expected + n, sizeof expected - n, "%s [\"%s\"]", i ? "," : "", architectures[i].name);
    return json_fail_value(s, status, key, value, expected);
}

/* The line of the table that fits every name by which the file calls its architecture. */
static qwen3_status find_architecture(const json_section *s, const architecture **out)
{
    const json_t *list = json_value_of(s, "architectures"), *type = json_value_of(s, "model_type");
    const json_t *name = json_array_size(list) == 1 ? json_array_get(list, 0) : NULL;
    if (!list && !type)
        return fail_architecture(s, QWEN3_ERR_CONFIG, "architectures", NULL);
    for (const architecture *a = architectures; a < architectures + ARCHITECTURES; a++) {
        if (list ? !json_is_text(name, a->name) : !json_is_text(type, a->model_type))
            continue;
        *out = a;
        if (type && !json_is_text(type, a->model_type))
            return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "model_type", type, a->model_type);
        return QWEN3_OK;
    }
    return fail_architecture(s, QWEN3_ERR_UNSUPPORTED, list ? "architectures" : "model_type", list ? list : type);
}

/* What a directory's weights say of the output head; unknown where there are none, or damaged ones. */
static stored_head find_head(const char *dir)
{
    checkpoint c;
    if (checkpoint_open(dir, &c, NULL))
        return STORED_HEAD_UNKNOWN;
    const stored_head head = checkpoint_find(&c, "lm_head.weight") ? STORED_HEAD_YES : STORED_HEAD_NO;
    checkpoint_close(&c);
    return head;
}

static qwen3_status read_file(const char *dir, qwen3_config *config, qwen3_error *err)
{
    char *path;
    if (asprintf(&path, "%s/config.json", dir) < 0)
        return fail(err, QWEN3_ERR_MEMORY, "%s: out of memory", dir);
    json_t *root = NULL;
    const architecture *a = NULL;
    qwen3_status status = json_file_load(path, &root, err);
    const json_section s = {path, "", root, err};
    if (!status)
        status = find_architecture(&s, &a);
    if (!status) {
        config->architecture = a->model_type;
        const bool said = json_value_of(&s, "tie_word_embeddings");
        status = config_read_json(&s, a->read, said ? STORED_HEAD_UNKNOWN : find_head(dir), config);
    }
    json_decref(root);
    free(path);
    return status;
}

static qwen3_status find_gguf_architecture(const gguf_file *file, const architecture **out, qwen3_error *err)
{
    const gguf_section general = {file, "general.", err};
    char expected[128] = "";
    size_t n = 0;
    gguf_text name;
    const qwen3_status status = gguf_read_text(&general, "architecture", &name);
    if (status)
        return status;
    for (const architecture *a = architectures; a < architectures + ARCHITECTURES; a++) {
        *out = a;
        if (a->gguf && gguf_text_is(name, a->gguf))
            return QWEN3_OK;
        if (a->gguf && n < sizeof expected)
            n += (size_t)snprintf(expected + n, sizeof expected - n, "%s%s", n ? " or " : "", a->gguf);
    }
    return fail(err, QWEN3_ERR_UNSUPPORTED, "%s: key general.architecture: got \"%.*s\", expected %s", file->path,
                (int)(name.bytes < 40 ? name.bytes : 40), name.data, expected);
}

static qwen3_status read_gguf(const char *path, qwen3_config *config, qwen3_error *err)
{
    gguf g;
    char prefix[32];
    const architecture *a = NULL;
    qwen3_status status = gguf_open(path, &g, err);
    if (status)
        return status;
    status = find_gguf_architecture(&g.files[0], &a, err);
    if (!status) {
        config->architecture = a->model_type;
        snprintf(prefix, sizeof prefix, "%s.", a->gguf);
        status = config_read_gguf(&g, prefix, a->read_gguf, config, err);
    }
    gguf_close(&g);
    return status;
}

qwen3_status config_read(const char *spec, qwen3_config *config, qwen3_error *err)
{
    if (strncmp(spec, SYNTHETIC_PREFIX, strlen(SYNTHETIC_PREFIX)) == 0)
        return config_synthetic(spec + strlen(SYNTHETIC_PREFIX), config, err);
    *config = (qwen3_config){0};
    char *path;
    qwen3_status status = gguf_metadata_path(spec, &path, err);
    if (!status)
        status = path ? read_gguf(path, config, err) : read_file(spec, config, err);
    free(path);
    if (status)
        *config = (qwen3_config){0};
    return status;
}

qwen3_status qwen3_config_read(const char *spec, qwen3_config *config, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(config, "config", err))
        return err->status;
    *config = (qwen3_config){0};
    if (missing(spec, "spec", err))
        return err->status;
    return config_read(spec, config, err);
}

/* ---- Declarations ------------------------------------------------------------------------------ */

range model_vocabulary(const qwen3_config *config, const weight_format *format, grid_place place)
{
    if (config->no_output_head)
        return (range){0, 0};
    return partition(config->vocab_size, format->grain, (int64_t)place.s_groups * place.h_groups,
                     (int64_t)place.s * place.h_groups + place.h);
}

/* Embedding, output head and final norm. */
static void declare_ends(declaration *d)
{
    const qwen3_config *c = d->config;
    snprintf(d->prefix, sizeof d->prefix, "%s", d->model_prefix);
    const size_t embedding = declare_tensor(d, TENSOR_EMBEDDING, "embed_tokens.weight", c->vocab_size, c->hidden_size);
    d->prefix[0] = '\0';
    const size_t head = declare_tensor(d, TENSOR_HEAD, "lm_head.weight", c->vocab_size, c->hidden_size);
    if (c->tie_word_embeddings)
        declare_same(d, head, embedding);
    declare_matrix(d, (matrix_declaration){
                          .parts = {{head, model_vocabulary(c, &d->format, d->place), {0, c->hidden_size}}},
                          .n_parts = 1,
                          .grain = d->format.nr,
                          .own = true,
                      });
    snprintf(d->prefix, sizeof d->prefix, "%s", d->model_prefix);
    declare_norm(d, "norm.weight", c->hidden_size);
}

static void declare_layer(declaration *d, int64_t layer)
{
    int n;
    const block *const *blocks = architecture_blocks(d->config, layer, &n);
    snprintf(d->prefix, sizeof d->prefix, "%slayers.%" PRId64 ".", d->model_prefix, layer);
    for (int i = 0; i < n; i++) {
        d->blocks[layer * LAYER_BLOCKS + i] = (block_declaration){d->n_matrices, d->n_vectors};
        blocks[i]->declare(d);
    }
}

qwen3_status model_declare(const qwen3_config *config, grid_place place, const weight_format *format, declaration *out,
                           qwen3_error *err)
{
    const architecture *a = architecture_of(config);
    *out = (declaration){0};
    if (!a)
        return fail(err, QWEN3_ERR_CONFIG, "architecture \"%s\" is unknown", config->architecture);
    declaration d = {.config = config, .place = place, .model_prefix = a->prefix};
    d.format = format ? *format : weight_format_of(kernels_get(QWEN3_ISA_C), QWEN3_DTYPE_F32);
    d.blocks = calloc((size_t)config->num_layers * LAYER_BLOCKS + 1, sizeof *d.blocks);
    d.failed = d.blocks == NULL;
    declare_ends(&d);
    for (int64_t layer = 0; layer < config->num_layers && !d.failed; layer++)
        declare_layer(&d, layer);
    if (d.failed) {
        declaration_free(&d);
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the list of the tensors of %lld layers",
                    (long long)config->num_layers);
    }
    *out = d;
    return QWEN3_OK;
}

/* ---- Sources ----------------------------------------------------------------------------------- */

qwen3_status model_source_open(const char *spec, uint64_t seed, source **out, qwen3_config *config, qwen3_error *err)
{
    *out = NULL;
    declaration d = {0};
    qwen3_status status = config_read(spec, config, err);
    if (!status)
        status = model_declare(config, (grid_place){1, 1, 0, 0, false}, NULL, &d, err);
    if (!status)
        status = source_open(spec, seed, &d, out, err);
    declaration_free(&d);
    if (!status)
        *config = *source_config(*out);
    if (status)
        *config = (qwen3_config){0};
    return status;
}
