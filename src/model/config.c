/* config.c - the bounds of a model's shape, and the shapes of the synthetic models. */
#include "model/config.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <strings.h>

/* Far above every published model, and small enough that no product of sizes below overflows 63 bits: the
 * KV cache of one sequence is 2 * max_positions * layers * kv_heads * head_dim * 4 <= 2^62 bytes. */
#define VOCAB_MAX (INT64_C(1) << 30) /* ids are int32_t */
#define HIDDEN_MAX (INT64_C(1) << 18)
#define INTERMEDIATE_MAX (INT64_C(1) << 20)
#define LAYERS_MAX (INT64_C(1) << 12)
#define HEADS_MAX (INT64_C(1) << 14)
#define HEAD_DIM_MAX (INT64_C(1) << 12)
#define ATTENTION_MAX (INT64_C(1) << 20) /* heads * head_dim */
#define POSITIONS_MAX (INT64_C(1) << 27)

static qwen3_status check_sizes(const qwen3_config *c, const char *where, qwen3_error *err)
{
    const struct {
        const char *key;
        int64_t value, max;
    } sizes[] = {
        {"vocab_size", c->vocab_size, VOCAB_MAX},
        {"hidden_size", c->hidden_size, HIDDEN_MAX},
        {"intermediate_size", c->intermediate_size, INTERMEDIATE_MAX},
        {"num_hidden_layers", c->num_layers, LAYERS_MAX},
        {"num_attention_heads", c->num_heads, HEADS_MAX},
        {"num_key_value_heads", c->num_kv_heads, HEADS_MAX},
        {"head_dim", c->head_dim, HEAD_DIM_MAX},
        {"max_position_embeddings", c->max_positions, POSITIONS_MAX},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].max)
            return fail(err, QWEN3_ERR_CONFIG, "%s: %s: got %" PRId64 ", expected 1 to %" PRId64, where, sizes[i].key,
                        sizes[i].value, sizes[i].max);
    if (c->num_heads % c->num_kv_heads != 0)
        return fail(err, QWEN3_ERR_CONFIG,
                    "%s: num_attention_heads: got %" PRId64 ", expected a multiple of num_key_value_heads = %" PRId64,
                    where, c->num_heads, c->num_kv_heads);
    if (c->head_dim % 2 != 0)
        return fail(err, QWEN3_ERR_CONFIG, "%s: head_dim: got %" PRId64 ", expected an even number", where,
                    c->head_dim);
    if (c->num_heads * c->head_dim > ATTENTION_MAX)
        return fail(err, QWEN3_ERR_CONFIG,
                    "%s: num_attention_heads * head_dim: got %" PRId64 ", expected at most %" PRId64, where,
                    c->num_heads * c->head_dim, ATTENTION_MAX);
    return QWEN3_OK;
}

/* Scores grow with the square of YaRN's attention factor; published ones are from 1 to 2. So it cannot be what makes
 * scores overflow. */
#define YARN_ATTENTION_MIN 0.01
#define YARN_ATTENTION_MAX 100

static qwen3_status check_yarn(const qwen3_config *c, const char *where, qwen3_error *err)
{
    if (!(c->yarn_factor >= 1 && c->yarn_factor <= 1e6))
        return fail(err, QWEN3_ERR_CONFIG, "%s: rope factor: got %g, expected 1 to 1e6", where, c->yarn_factor);
    if (c->yarn_original_positions < 1 || c->yarn_original_positions > POSITIONS_MAX)
        return fail(err, QWEN3_ERR_CONFIG,
                    "%s: original_max_position_embeddings: got %" PRId64 ", expected 1 to %" PRId64, where,
                    c->yarn_original_positions, POSITIONS_MAX);
    if (!(c->yarn_beta_slow > 0 && c->yarn_beta_fast > c->yarn_beta_slow && isfinite(c->yarn_beta_fast)))
        return fail(err, QWEN3_ERR_CONFIG, "%s: beta_fast, beta_slow: got %g, %g, expected beta_fast > beta_slow > 0",
                    where, c->yarn_beta_fast, c->yarn_beta_slow);
    if (!(c->yarn_attention_factor >= YARN_ATTENTION_MIN && c->yarn_attention_factor <= YARN_ATTENTION_MAX))
        return fail(err, QWEN3_ERR_CONFIG, "%s: attention_factor: got %g, expected %g to %g", where,
                    c->yarn_attention_factor, YARN_ATTENTION_MIN, (double)YARN_ATTENTION_MAX);
    return QWEN3_OK;
}

qwen3_status config_check(const qwen3_config *c, const char *where, qwen3_error *err)
{
    qwen3_status status = check_sizes(c, where, err);
    if (status)
        return status;
    if (!(c->rms_norm_eps > 0 && c->rms_norm_eps < 1))
        return fail(err, QWEN3_ERR_CONFIG, "%s: rms_norm_eps: got %g, expected between 0 and 1", where,
                    c->rms_norm_eps);
    if (!(c->rope_theta > 1 && c->rope_theta <= 1e12))
        return fail(err, QWEN3_ERR_CONFIG, "%s: rope_theta: got %g, expected above 1, at most 1e12", where,
                    c->rope_theta);
    return c->yarn_factor == 0 ? QWEN3_OK : check_yarn(c, where, err);
}

qwen3_status config_finish(qwen3_config *c, const char *where, qwen3_error *err)
{
    const qwen3_status status = config_check(c, where, err);
    if (status)
        return status;
    const int64_t extended = (int64_t)(c->yarn_factor * (double)c->yarn_original_positions);
    if (extended > c->max_positions)
        c->max_positions = extended;
    return config_check(c, where, err);
}

/* The published dense models, and one small enough for tests. */
static const struct synthetic_size {
    const char *name;
    int64_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
    bool tied;
} synthetic_sizes[] = {
    {"tiny", 512, 64, 160, 3, 4, 2, 32, true},           {"0.6B", 151936, 1024, 3072, 28, 16, 8, 128, true},
    {"1.7B", 151936, 2048, 6144, 28, 16, 8, 128, true},  {"4B", 151936, 2560, 9728, 36, 32, 8, 128, true},
    {"8B", 151936, 4096, 12288, 36, 32, 8, 128, false},  {"14B", 151936, 5120, 17408, 40, 40, 8, 128, false},
    {"32B", 151936, 5120, 25600, 64, 64, 8, 128, false},
};

qwen3_status config_synthetic(const char *size, qwen3_config *config, qwen3_error *err)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < sizeof synthetic_sizes / sizeof *synthetic_sizes; i++) {
        const struct synthetic_size *s = &synthetic_sizes[i];
        if (strcasecmp(s->name, size) != 0)
            continue;
        *config = (qwen3_config){.architecture = "qwen3",
                                 .qk_norm = true,
                                 .vocab_size = s->vocab,
                                 .hidden_size = s->hidden,
                                 .intermediate_size = s->intermediate,
                                 .num_layers = s->layers,
                                 .num_heads = s->heads,
                                 .num_kv_heads = s->kv_heads,
                                 .head_dim = s->head_dim,
                                 .max_positions = 40960,
                                 .rms_norm_eps = 1e-6,
                                 .rope_theta = 1e6,
                                 .tie_word_embeddings = s->tied};
        return QWEN3_OK;
    }
    return fail(err, QWEN3_ERR_ARGUMENT, "%s%s: unknown size, expected one of tiny, 0.6B, 1.7B, 4B, 8B, 14B, 32B",
                SYNTHETIC_PREFIX, size);
}
