/* config_gguf.c - the configuration of a model from the keys of its GGUF file. Nothing is guessed: a missing key is an
 * error, except where the format says what its absence means. */
#include <inttypes.h>
#include <math.h>

#include "model/config.h"

static qwen3_status fail_value(const gguf_section *s, const char *name, int64_t got, const char *expected)
{
    return fail(s->err, QWEN3_ERR_UNSUPPORTED, "%s: key %s%s: got %" PRId64 ", expected %s", s->file->path, s->prefix,
                name, got, expected);
}

static qwen3_status read_optional_integer(const gguf_section *s, const char *name, int64_t *value)
{
    return gguf_find(s, name) ? gguf_read_integer(s, name, value) : QWEN3_OK;
}

static qwen3_status read_optional_number(const gguf_section *s, const char *name, double *value)
{
    return gguf_find(s, name) ? gguf_read_number(s, name, value) : QWEN3_OK;
}

/* Everything that would make the computation another one than ours. */
static qwen3_status check_features(const gguf_section *s, const qwen3_config *c)
{
    int64_t window = 0, values = c->head_dim, rotated = c->head_dim;
    bool causal = true;
    qwen3_status status;
    if ((status = read_optional_integer(s, "attention.sliding_window", &window)) ||
        (status = read_optional_integer(s, "attention.value_length", &values)) ||
        (status = read_optional_integer(s, "rope.dimension_count", &rotated)) ||
        (gguf_find(s, "attention.causal") && (status = gguf_read_bool(s, "attention.causal", &causal))))
        return status;
    if (window != 0)
        return fail_value(s, "attention.sliding_window", window, "0 (nothing else is supported)");
    if (values != c->head_dim)
        return fail_value(s, "attention.value_length", values, "attention.key_length");
    if (rotated != c->head_dim)
        return fail_value(s, "rope.dimension_count", rotated, "attention.key_length");
    return causal ? QWEN3_OK : fail_value(s, "attention.causal", 0, "true");
}

/* (Peng et al. 2023): the paper's constants hold where the file does not say others. */
static qwen3_status read_yarn(const gguf_section *s, qwen3_config *c)
{
    double multiplier = 1;
    qwen3_status status;
    c->yarn_beta_fast = 32;
    c->yarn_beta_slow = 1;
    if ((status = gguf_read_number(s, "rope.scaling.factor", &c->yarn_factor)) ||
        (status = gguf_read_integer(s, "rope.scaling.original_context_length", &c->yarn_original_positions)) ||
        (status = read_optional_number(s, "rope.scaling.yarn_beta_fast", &c->yarn_beta_fast)) ||
        (status = read_optional_number(s, "rope.scaling.yarn_beta_slow", &c->yarn_beta_slow)) ||
        (status = read_optional_number(s, "rope.scaling.attn_factor", &multiplier)))
        return status;
    if (!(c->yarn_factor >= 1)) /* 0 means "off" from here on */
        return fail(s->err, QWEN3_ERR_CONFIG, "%s: key %srope.scaling.factor: got %g, expected at least 1",
                    s->file->path, s->prefix, c->yarn_factor);
    c->yarn_attention_factor = (0.1 * log(c->yarn_factor) + 1) * multiplier;
    return QWEN3_OK;
}

static qwen3_status read_rope(const gguf_section *s, qwen3_config *c)
{
    gguf_text type = {"none", 4};
    qwen3_status status = gguf_read_number(s, "rope.freq_base", &c->rope_theta);
    if (!status && gguf_find(s, "rope.scaling.type"))
        status = gguf_read_text(s, "rope.scaling.type", &type);
    if (status || gguf_text_is(type, "none"))
        return status;
    if (gguf_text_is(type, "yarn"))
        return read_yarn(s, c);
    return fail(s->err, QWEN3_ERR_UNSUPPORTED, "%s: key %srope.scaling.type: got \"%.*s\", expected none or yarn",
                s->file->path, s->prefix, (int)(type.bytes < 40 ? type.bytes : 40), type.data);
}

/* A packed model has no list of tensors, and says whether there was output.weight. */
static qwen3_status read_ends(const gguf *g, const gguf_section *s, qwen3_config *c)
{
    const gguf_section tokenizer = {s->file, "tokenizer.ggml.", s->err};
    const gguf_value *tokens;
    qwen3_status status;
    c->tie_word_embeddings = !gguf_find_tensor(g, "output.weight");
    if (gguf_find(s, "tie_word_embeddings") &&
        (status = gguf_read_bool(s, "tie_word_embeddings", &c->tie_word_embeddings)))
        return status;
    if (gguf_find(s, "vocab_size"))
        return gguf_read_integer(s, "vocab_size", &c->vocab_size);
    if ((status = gguf_read_array(&tokenizer, "tokens", GGUF_STRING, &tokens)))
        return status;
    c->vocab_size = (int64_t)tokens->n;
    return QWEN3_OK;
}

qwen3_status config_read_gguf(const gguf *g, const char *prefix, config_gguf_reader *read, qwen3_config *c,
                              qwen3_error *err)
{
    const gguf_section s = {&g->files[0], prefix, err};
    const struct {
        const char *name;
        int64_t *value;
    } integers[] = {
        {"block_count", &c->num_layers},
        {"embedding_length", &c->hidden_size},
        {"feed_forward_length", &c->intermediate_size},
        {"attention.head_count", &c->num_heads},
        {"context_length", &c->max_positions},
    };
    qwen3_status status = QWEN3_OK;
    for (size_t i = 0; i < sizeof integers / sizeof *integers && !status; i++)
        status = gguf_read_integer(&s, integers[i].name, integers[i].value);
    c->num_kv_heads = c->num_heads;
    c->head_dim = c->num_heads > 0 ? c->hidden_size / c->num_heads : 0;
    if (status || (status = read_optional_integer(&s, "attention.head_count_kv", &c->num_kv_heads)) ||
        (status = read_optional_integer(&s, "attention.key_length", &c->head_dim)) ||
        (status = gguf_read_number(&s, "attention.layer_norm_rms_epsilon", &c->rms_norm_eps)) ||
        (status = read_rope(&s, c)) || (status = read_ends(g, &s, c)) || (status = read(&s, c)) ||
        (status = check_features(&s, c)))
        return status;
    return config_finish(c, g->files[0].path, prefix, err);
}
