/* config.c - the bounds of a model's shape, and the shapes of the synthetic models. */
#include "model/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Far above every published model, and small enough that no product of sizes below overflows 63 bits: the
 * KV cache of one sequence is 2 * max_positions * layers * kv_heads * head_dim * 4 <= 2^62 bytes. */
#define VOCAB_MAX (INT64_C(1) << 30) /* ids are int32_t */
#define HIDDEN_MAX (INT64_C(1) << 18)
#define INTERMEDIATE_MAX (INT64_C(1) << 20)
#define LAYERS_MAX ((int64_t)QWEN3_MAX_LAYERS)
#define HEADS_MAX (INT64_C(1) << 14)
#define HEAD_DIM_MAX (INT64_C(1) << 12)
#define ATTENTION_MAX (INT64_C(1) << 20) /* heads * head_dim */
#define POSITIONS_MAX (INT64_C(1) << 27)
#define EXPERTS_MAX (INT64_C(1) << 12)
#define ALL_EXPERTS_MAX (INT64_C(1) << 17)  /* layers * experts; each has three tensors */
#define GATED_VALUES_MAX (INT64_C(1) << 24) /* experts per token * their intermediate size */

bool qwen3_config_has_experts(const qwen3_config *c, int64_t layer)
{
    return c && c->num_experts > 0 && layer >= 0 && layer < c->num_layers && layer < QWEN3_MAX_LAYERS &&
           (c->expert_layers[layer / 64] >> (layer % 64) & 1);
}

void config_set_experts(qwen3_config *c, int64_t layer, bool has)
{
    const uint64_t bit = UINT64_C(1) << (layer % 64);
    c->expert_layers[layer / 64] = has ? c->expert_layers[layer / 64] | bit : c->expert_layers[layer / 64] & ~bit;
}

int64_t config_expert_layers(const qwen3_config *c)
{
    int64_t n = 0;
    for (int64_t layer = 0; layer < c->num_layers; layer++)
        n += qwen3_config_has_experts(c, layer);
    return n;
}

double config_active_experts(const qwen3_config *c, double rows)
{
    const double experts = (double)c->num_experts;
    return experts * (1 - pow(1 - (double)c->num_experts_per_token / experts, rows));
}

/* What messages call the values: where they are from, and by keys of config.json or of a GGUF file. */
typedef struct key_names {
    const char *where, *prefix; /* prefix: of the keys of a GGUF file, "qwen3."; NULL: keys of config.json */
} key_names;

typedef struct key_name {
    char text[64];
} key_name;

static key_name name_of(const key_names *names, const char *key)
{
    static const struct {
        const char *json, *gguf;
    } pairs[] = {
        {"vocab_size", "vocab_size"},
        {"hidden_size", "embedding_length"},
        {"intermediate_size", "feed_forward_length"},
        {"num_hidden_layers", "block_count"},
        {"num_attention_heads", "attention.head_count"},
        {"num_key_value_heads", "attention.head_count_kv"},
        {"head_dim", "attention.key_length"},
        {"max_position_embeddings", "context_length"},
        {"num_experts", "expert_count"},
        {"num_experts_per_tok", "expert_used_count"},
        {"moe_intermediate_size", "expert_feed_forward_length"},
        {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
        {"rope_theta", "rope.freq_base"},
        {"rope factor", "rope.scaling.factor"},
        {"original_max_position_embeddings", "rope.scaling.original_context_length"},
        {"beta_fast", "rope.scaling.yarn_beta_fast"},
        {"beta_slow", "rope.scaling.yarn_beta_slow"},
        {"attention_factor", "rope.scaling.attn_factor"},
    };
    key_name name;
    snprintf(name.text, sizeof name.text, "%s", key);
    for (size_t i = 0; names->prefix && i < sizeof pairs / sizeof *pairs; i++)
        if (strcmp(pairs[i].json, key) == 0)
            snprintf(name.text, sizeof name.text, "%.16s%s", names->prefix, pairs[i].gguf);
    return name;
}

/* A size, or the product of two, by keys of config.json. */
typedef struct size_limit {
    const char *key, *other; /* other: NULL, or that of the second factor */
    int64_t value, max;
} size_limit;

static qwen3_status check_limits(const size_limit *sizes, size_t n, const key_names *names, qwen3_error *err)
{
    for (const size_limit *s = sizes; s < sizes + n; s++)
        if (s->value < 1 || s->value > s->max)
            return fail(err, QWEN3_ERR_CONFIG, "%s: %s%s%s: got %" PRId64 ", expected 1 to %" PRId64, names->where,
                        name_of(names, s->key).text, s->other ? " * " : "",
                        s->other ? name_of(names, s->other).text : "", s->value, s->max);
    return QWEN3_OK;
}

/* Once the other sizes have been checked. */
static qwen3_status check_experts(const qwen3_config *c, const key_names *names, qwen3_error *err)
{
    const size_limit sizes[] = {
        {"num_experts", NULL, c->num_experts, EXPERTS_MAX},
        {"num_experts_per_tok", NULL, c->num_experts_per_token, c->num_experts},
        {"moe_intermediate_size", NULL, c->moe_intermediate_size, INTERMEDIATE_MAX},
    };
    qwen3_status status = check_limits(sizes, sizeof sizes / sizeof *sizes, names, err);
    if (status)
        return status;
    const size_limit products[] = {
        {"num_hidden_layers", "num_experts", c->num_layers * c->num_experts, ALL_EXPERTS_MAX},
        {"num_experts_per_tok", "moe_intermediate_size", c->num_experts_per_token * c->moe_intermediate_size,
         GATED_VALUES_MAX},
    };
    return check_limits(products, sizeof products / sizeof *products, names, err);
}

static qwen3_status check_sizes(const qwen3_config *c, const key_names *names, qwen3_error *err)
{
    const size_limit sizes[] = {
        {"vocab_size", NULL, c->vocab_size, VOCAB_MAX},
        {"hidden_size", NULL, c->hidden_size, HIDDEN_MAX},
        {"intermediate_size", NULL, c->intermediate_size, INTERMEDIATE_MAX},
        {"num_hidden_layers", NULL, c->num_layers, LAYERS_MAX},
        {"num_attention_heads", NULL, c->num_heads, HEADS_MAX},
        {"num_key_value_heads", NULL, c->num_kv_heads, HEADS_MAX},
        {"head_dim", NULL, c->head_dim, HEAD_DIM_MAX},
        {"max_position_embeddings", NULL, c->max_positions, POSITIONS_MAX},
    };
    const size_limit attention = {"num_attention_heads", "head_dim", c->num_heads * c->head_dim, ATTENTION_MAX};
    qwen3_status status = check_limits(sizes, sizeof sizes / sizeof *sizes, names, err);
    if (status)
        return status;
    if (c->num_heads % c->num_kv_heads != 0)
        return fail(err, QWEN3_ERR_CONFIG, "%s: %s: got %" PRId64 ", expected a multiple of %s = %" PRId64,
                    names->where, name_of(names, "num_attention_heads").text, c->num_heads,
                    name_of(names, "num_key_value_heads").text, c->num_kv_heads);
    if (c->head_dim % 2 != 0)
        return fail(err, QWEN3_ERR_CONFIG, "%s: %s: got %" PRId64 ", expected an even number", names->where,
                    name_of(names, "head_dim").text, c->head_dim);
    return check_limits(&attention, 1, names, err);
}

/* Scores grow with the square of YaRN's attention factor; published ones are from 1 to 2. So it cannot be what makes
 * scores overflow. */
#define YARN_ATTENTION_MIN 0.01
#define YARN_ATTENTION_MAX 100

static qwen3_status check_yarn(const qwen3_config *c, const key_names *names, qwen3_error *err)
{
    const size_limit original = {"original_max_position_embeddings", NULL, c->yarn_original_positions, POSITIONS_MAX};
    if (!(c->yarn_factor >= 1 && c->yarn_factor <= 1e6))
        return fail(err, QWEN3_ERR_CONFIG, "%s: %s: got %g, expected 1 to 1e6", names->where,
                    name_of(names, "rope factor").text, c->yarn_factor);
    qwen3_status status = check_limits(&original, 1, names, err);
    if (status)
        return status;
    if (!(c->yarn_beta_slow > 0 && c->yarn_beta_fast > c->yarn_beta_slow && isfinite(c->yarn_beta_fast)))
        return fail(err, QWEN3_ERR_CONFIG, "%s: %s, %s: got %g, %g, expected beta_fast > beta_slow > 0", names->where,
                    name_of(names, "beta_fast").text, name_of(names, "beta_slow").text, c->yarn_beta_fast,
                    c->yarn_beta_slow);
    if (!(c->yarn_attention_factor >= YARN_ATTENTION_MIN && c->yarn_attention_factor <= YARN_ATTENTION_MAX))
        return fail(err, QWEN3_ERR_CONFIG, "%s: %s: got %g, expected %g to %g", names->where,
                    name_of(names, "attention_factor").text, c->yarn_attention_factor, YARN_ATTENTION_MIN,
                    (double)YARN_ATTENTION_MAX);
    return QWEN3_OK;
}

static qwen3_status check(const qwen3_config *c, const key_names *names, qwen3_error *err)
{
    qwen3_status status = check_sizes(c, names, err);
    if (!status && c->num_experts != 0)
        status = check_experts(c, names, err);
    if (status)
        return status;
    if (!(c->rms_norm_eps > 0 && c->rms_norm_eps < 1))
        return fail(err, QWEN3_ERR_CONFIG, "%s: %s: got %g, expected between 0 and 1", names->where,
                    name_of(names, "rms_norm_eps").text, c->rms_norm_eps);
    if (!(c->rope_theta > 1 && c->rope_theta <= 1e12))
        return fail(err, QWEN3_ERR_CONFIG, "%s: %s: got %g, expected above 1, at most 1e12", names->where,
                    name_of(names, "rope_theta").text, c->rope_theta);
    return c->yarn_factor == 0 ? QWEN3_OK : check_yarn(c, names, err);
}

qwen3_status config_check(const qwen3_config *c, const char *where, qwen3_error *err)
{
    return check(c, &(key_names){where, NULL}, err);
}

qwen3_status config_finish(qwen3_config *c, const char *where, const char *prefix, qwen3_error *err)
{
    const key_names names = {where, prefix};
    const qwen3_status status = check(c, &names, err);
    if (status)
        return status;
    const int64_t extended = (int64_t)(c->yarn_factor * (double)c->yarn_original_positions);
    if (extended > c->max_positions)
        c->max_positions = extended;
    return check(c, &names, err);
}

/* The published models, and two small enough for tests. */
static const struct synthetic_size {
    const char *name;
    int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
    bool tied;
    int64_t experts, chosen, moe_intermediate; /* 0: dense */
} synthetic_sizes[] = {
    {"tiny", 512, 64, 160, 3, 4, 2, 32, true, 0, 0, 0},
    {"0.6B", 151936, 1024, 3072, 28, 16, 8, 128, true, 0, 0, 0},
    {"1.7B", 151936, 2048, 6144, 28, 16, 8, 128, true, 0, 0, 0},
    {"4B", 151936, 2560, 9728, 36, 32, 8, 128, true, 0, 0, 0},
    {"8B", 151936, 4096, 12288, 36, 32, 8, 128, false, 0, 0, 0},
    {"14B", 151936, 5120, 17408, 40, 40, 8, 128, false, 0, 0, 0},
    {"32B", 151936, 5120, 25600, 64, 64, 8, 128, false, 0, 0, 0},
    {"tiny-moe", 512, 64, 160, 3, 4, 2, 32, true, 10, 3, 72},
    {"30B-A3B", 151936, 2048, 6144, 48, 32, 4, 128, false, 128, 8, 768},
    {"235B-A22B", 151936, 4096, 12288, 94, 64, 4, 128, false, 128, 8, 1536},
};

enum { SYNTHETIC_SIZES = sizeof synthetic_sizes / sizeof *synthetic_sizes };

#define LAYERS_SUFFIX ":layers="
#define YARN_SUFFIX ":yarn="
#define YARN_MOST 32

static qwen3_status fail_size(const char *spec, qwen3_error *err)
{
    char names[160] = "";
    for (size_t i = 0, n = 0; i < SYNTHETIC_SIZES; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", synthetic_sizes[i].name);
    return fail(err, QWEN3_ERR_ARGUMENT, "%s%s: unknown size, expected one of %s, and perhaps %sN or %sN after it",
                SYNTHETIC_PREFIX, spec, names, LAYERS_SUFFIX, YARN_SUFFIX);
}

/* If *at begins with a suffix, takes its number, 1 to most, and goes on behind it. */
static qwen3_status read_suffix(const char *spec, const char **at, const char *suffix, int64_t most, int64_t *value,
                                qwen3_error *err)
{
    if (strncmp(*at, suffix, strlen(suffix)) != 0)
        return QWEN3_OK;
    const char *digits = *at + strlen(suffix);
    const size_t length = strcspn(digits, ":");
    const bool number = length > 0 && length <= 4 && strspn(digits, "0123456789") == length;
    *value = number ? strtol(digits, NULL, 10) : 0;
    *at = digits + length;
    if (*value < 1 || *value > most)
        return fail(err, QWEN3_ERR_ARGUMENT, "%s%s: %.*s: got \"%.*s\", expected 1 to %" PRId64, SYNTHETIC_PREFIX, spec,
                    (int)strlen(suffix) - 2, suffix + 1, (int)length, digits, most);
    return QWEN3_OK;
}

/* What follows the name of a size: the two suffixes, in this order, or one of them, or nothing. */
static qwen3_status read_suffixes(const char *spec, const char *at, int64_t *layers, int64_t *yarn, qwen3_error *err)
{
    qwen3_status status = read_suffix(spec, &at, LAYERS_SUFFIX, LAYERS_MAX, layers, err);
    if (!status)
        status = read_suffix(spec, &at, YARN_SUFFIX, YARN_MOST, yarn, err);
    if (status || !*at)
        return status;
    return fail(err, QWEN3_ERR_ARGUMENT, "%s%s: got \"%s\" after the size, expected %sN or %sN", SYNTHETIC_PREFIX, spec,
                at, LAYERS_SUFFIX, YARN_SUFFIX);
}

/* As the published models are extended. */
static void set_yarn(qwen3_config *c, int64_t factor)
{
    c->yarn_factor = (double)factor;
    c->yarn_beta_fast = 32;
    c->yarn_beta_slow = 1;
    c->yarn_attention_factor = 0.1 * log((double)factor) + 1;
    c->yarn_original_positions = 32768;
}

qwen3_status config_synthetic(const char *spec, qwen3_config *config, qwen3_error *err)
{
    memset(config, 0, sizeof *config);
    const size_t length = strcspn(spec, ":");
    const struct synthetic_size *s = synthetic_sizes, *end = s + SYNTHETIC_SIZES;
    while (s < end && (strlen(s->name) != length || strncasecmp(s->name, spec, length) != 0))
        s++;
    if (s == end)
        return fail_size(spec, err);
    int64_t layers = s->layers, yarn = 0;
    qwen3_status status = read_suffixes(spec, spec + length, &layers, &yarn, err);
    if (status)
        return status;
    qwen3_config c = {.architecture = s->experts ? "qwen3_moe" : "qwen3",
                      .qk_norm = true,
                      .vocab_size = s->vocab,
                      .hidden_size = s->hidden,
                      .intermediate_size = s->intermediate,
                      .num_layers = layers,
                      .num_heads = s->heads,
                      .num_kv_heads = s->kv_heads,
                      .head_dim = s->head_dim,
                      .max_positions = 40960,
                      .rms_norm_eps = 1e-6,
                      .rope_theta = 1e6,
                      .tie_word_embeddings = s->tied,
                      .num_experts = s->experts,
                      .num_experts_per_token = s->chosen,
                      .moe_intermediate_size = s->moe_intermediate,
                      .norm_topk_prob = s->experts > 0};
    for (int64_t i = 0; i < layers && s->experts; i++)
        config_set_experts(&c, i, true);
    if (yarn)
        set_yarn(&c, yarn);
    char where[64];
    snprintf(where, sizeof where, "%s%s", SYNTHETIC_PREFIX, spec);
    status = config_finish(&c, where, NULL, err); /* so many layers may have too many experts */
    if (!status)
        *config = c;
    return status;
}
