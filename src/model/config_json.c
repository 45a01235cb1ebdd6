/* config_json.c - reads config.json. Nothing is guessed: the defaults that the reference implementation
 * falls back to differ from every published checkpoint, so a missing key is an error. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "model/config.h"
#include "model/quantised.h"

qwen3_status config_require_off(const json_section *s, const char *key)
{
    const json_t *value = json_value_of(s, key);
    if (!value || json_is_false(value))
        return QWEN3_OK;
    return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, key, value, "false (nothing else is supported)");
}

/* Everything that would make the computation another one than ours. */
static qwen3_status check_features(const json_section *s)
{
    const json_t *activation = json_object_get(s->object, "hidden_act");
    if (!json_is_text(activation, "silu"))
        return json_fail_value(s, json_is_string(activation) ? QWEN3_ERR_UNSUPPORTED : QWEN3_ERR_CONFIG, "hidden_act",
                               activation, "\"silu\"");
    quantization ignored;
    const qwen3_status status = config_require_off(s, "use_sliding_window");
    return status ? status : quantization_read(s, &ignored);
}

static qwen3_status check_layer_types(const json_section *s, int64_t layers)
{
    const json_t *types = json_value_of(s, "layer_types");
    if (!types)
        return QWEN3_OK;
    if (!json_is_array(types))
        return json_fail_value(s, QWEN3_ERR_CONFIG, "layer_types", types, "an array with the type of each layer");
    size_t layer;
    json_t *type;
    json_array_foreach(types, layer, type)
    {
        if (!json_is_text(type, "full_attention"))
            return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "layer_types", type, "\"full_attention\" in every layer");
    }
    if ((int64_t)json_array_size(types) != layers)
        return fail(s->err, QWEN3_ERR_CONFIG,
                    "%s: layer_types: has %zu entries, expected num_hidden_layers = %" PRId64 " of them", s->path,
                    json_array_size(types), layers);
    return QWEN3_OK;
}

/* ---- Rotation ---------------------------------------------------------------------------------- */

/* What rope_parameters, or rope_theta + rope_scaling, say. factor 0: no scaling. */
typedef struct rope {
    double theta; /* 0: not said here */
    double factor, beta_fast, beta_slow, attention_factor;
    int64_t original_positions; /* before: those of the model, max_position_embeddings */
} rope;

/* The type is under "rope_type" or, in older files, "type". */
static qwen3_status read_rope_type(const json_section *s, bool *yarn)
{
    const json_t *type = json_value_of(s, "rope_type"), *older = json_value_of(s, "type");
    if (type && older && !json_equal(type, older))
        return json_fail_value(s, QWEN3_ERR_CONFIG, "type", older, "the same as rope_type");
    if (!type)
        type = older;
    if (!type && json_value_of(s, "factor"))
        return json_fail_value(s, QWEN3_ERR_CONFIG, "rope_type", NULL, "\"default\" or \"yarn\"");
    *yarn = json_is_text(type, "yarn");
    if (type && !*yarn && !json_is_text(type, "default"))
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "rope_type", type, "\"default\" or \"yarn\"");
    return QWEN3_OK;
}

/* (Peng et al. 2023): the paper's constants hold where the file does not say others. */
static qwen3_status read_yarn(const json_section *s, rope *r)
{
    static const char *const unsupported[] = {"mscale", "mscale_all_dim"};
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (json_value_of(s, unsupported[i]))
            return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, unsupported[i], json_value_of(s, unsupported[i]),
                                   "no such key (use attention_factor)");
    const json_t *truncate = json_value_of(s, "truncate");
    if (truncate && !json_is_true(truncate))
        return json_fail_value(s, QWEN3_ERR_UNSUPPORTED, "truncate", truncate, "true");
    r->beta_fast = 32;
    r->beta_slow = 1;
    qwen3_status status;
    if (json_value_of(s, "original_max_position_embeddings") &&
        (status = json_read_integer(s, "original_max_position_embeddings", &r->original_positions)))
        return status;
    if ((status = json_read_number(s, "factor", &r->factor)) ||
        (status = json_read_optional_number(s, "beta_fast", &r->beta_fast)) ||
        (status = json_read_optional_number(s, "beta_slow", &r->beta_slow)))
        return status;
    if (!(r->factor >= 1)) /* 0 means "off" from here on */
        return json_fail_value(s, QWEN3_ERR_CONFIG, "factor", json_value_of(s, "factor"), "at least 1");
    r->attention_factor = 0.1 * log(r->factor) + 1;
    return json_read_optional_number(s, "attention_factor", &r->attention_factor);
}

/* One of the two objects; absent or null leaves *r as it is and *found false. */
static qwen3_status read_rope_object(const json_section *root, const char *key, const char *prefix, rope *r,
                                     bool *found)
{
    const json_t *object = json_value_of(root, key);
    *found = object != NULL;
    if (!object)
        return QWEN3_OK;
    if (!json_is_object(object))
        return json_fail_value(root, QWEN3_ERR_CONFIG, key, object, "an object");
    json_section s = {root->path, prefix, object, root->err};
    bool yarn = false;
    qwen3_status status;
    if ((status = json_read_optional_number(&s, "rope_theta", &r->theta)) || (status = read_rope_type(&s, &yarn)))
        return status;
    return yarn ? read_yarn(&s, r) : QWEN3_OK;
}

static bool rope_scaling_equal(const rope *a, const rope *b)
{
    return a->factor == b->factor && a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow &&
           a->attention_factor == b->attention_factor && a->original_positions == b->original_positions;
}

static qwen3_status read_rope(const json_section *root, qwen3_config *c)
{
    rope newer = {.original_positions = c->max_positions}, older = newer;
    bool has_newer, has_older;
    double top = 0;
    qwen3_status status;
    if ((status = read_rope_object(root, "rope_parameters", "rope_parameters.", &newer, &has_newer)) ||
        (status = read_rope_object(root, "rope_scaling", "rope_scaling.", &older, &has_older)) ||
        (status = json_read_optional_number(root, "rope_theta", &top)))
        return status;
    const bool added = older.factor != 0 && newer.factor == 0; /* to a newer file, by who wants a longer context */
    if (has_newer && has_older && !added && !rope_scaling_equal(&newer, &older))
        return fail(root->err, QWEN3_ERR_CONFIG, "%s: rope_parameters and rope_scaling contradict each other",
                    root->path);
    const double thetas[] = {newer.theta, older.theta, top};
    for (size_t i = 0; i < 3; i++) {
        if (thetas[i] != 0 && c->rope_theta != 0 && thetas[i] != c->rope_theta)
            return fail(root->err, QWEN3_ERR_CONFIG, "%s: rope_theta: got both %g and %g", root->path, c->rope_theta,
                        thetas[i]);
        if (thetas[i] != 0)
            c->rope_theta = thetas[i];
    }
    if (c->rope_theta == 0)
        return json_fail_value(root, QWEN3_ERR_CONFIG, "rope_theta", json_object_get(root->object, "rope_theta"),
                               "a number, here or in rope_parameters");
    const rope *r = has_newer && !added ? &newer : &older;
    c->yarn_factor = r->factor;
    c->yarn_beta_fast = r->beta_fast;
    c->yarn_beta_slow = r->beta_slow;
    c->yarn_attention_factor = r->attention_factor;
    c->yarn_original_positions = r->factor != 0 ? r->original_positions : 0;
    return QWEN3_OK;
}

/* ---- The output head --------------------------------------------------------------------------- */

/* Published files of the same architecture have both values, so that there is no default. A file that leaves the key
 * out is known by what is stored beside it. */
static qwen3_status read_tied(const json_section *s, stored_head head, bool *tied)
{
    if (json_value_of(s, "tie_word_embeddings") || head == STORED_HEAD_UNKNOWN)
        return json_read_bool(s, "tie_word_embeddings", tied);
    *tied = head == STORED_HEAD_NO;
    return QWEN3_OK;
}

/* ---- The whole file ---------------------------------------------------------------------------- */

qwen3_status config_read_json(const json_section *s, config_reader *read, stored_head head, qwen3_config *c)
{
    const struct {
        const char *key;
        int64_t *value;
    } integers[] = {
        {"vocab_size", &c->vocab_size},
        {"hidden_size", &c->hidden_size},
        {"intermediate_size", &c->intermediate_size},
        {"num_hidden_layers", &c->num_layers},
        {"num_attention_heads", &c->num_heads},
        {"num_key_value_heads", &c->num_kv_heads},
        {"max_position_embeddings", &c->max_positions},
    };
    qwen3_status status = check_features(s);
    for (size_t i = 0; i < sizeof integers / sizeof *integers && !status; i++)
        status = json_read_integer(s, integers[i].key, integers[i].value);
    if (status || (status = check_layer_types(s, c->num_layers)) ||
        (status = json_read_number(s, "rms_norm_eps", &c->rms_norm_eps)) || (status = read_rope(s, c)) ||
        (status = read_tied(s, head, &c->tie_word_embeddings)) || (status = read(s, c)))
        return status;
    return config_finish(c, s->path, NULL, s->err);
}
