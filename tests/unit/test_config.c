/* config.json: the published forms, and every way to be incomplete or contradictory. */
#include "support/temp_files.h"

#include <math.h>

#include "model/config.h"

/* As published for the 0.6B model. */
static const char published[] =
    "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"bos_token_id\":151643,\"eos_token_id\":151645,\"head_dim\":128,\"hidden_act\":\"silu\",\"hidden_size\":1024,"
    "\"initializer_range\":0.02,\"intermediate_size\":3072,\"max_position_embeddings\":40960,"
    "\"max_window_layers\":28,\"model_type\":\"qwen3\",\"num_attention_heads\":16,\"num_hidden_layers\":28,"
    "\"num_key_value_heads\":8,\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":1000000,"
    "\"sliding_window\":null,\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":151936}";

/* As published for Qwen2.5 0.5B, and in the form of Llama 2 and 3. */
static const char published_qwen2[] =
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"attention_dropout\":0.0,\"bos_token_id\":151643,"
    "\"eos_token_id\":151643,\"hidden_act\":\"silu\",\"hidden_size\":896,\"initializer_range\":0.02,"
    "\"intermediate_size\":4864,\"max_position_embeddings\":32768,\"max_window_layers\":24,\"model_type\":\"qwen2\","
    "\"num_attention_heads\":14,\"num_hidden_layers\":24,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":1000000.0,\"sliding_window\":32768,\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\","
    "\"use_cache\":true,\"use_mrope\":false,\"use_sliding_window\":false,\"vocab_size\":151936}";
static const char published_llama[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"bos_token_id\":128000,\"eos_token_id\":128001,\"hidden_act\":\"silu\",\"hidden_size\":4096,"
    "\"initializer_range\":0.02,\"intermediate_size\":14336,\"max_position_embeddings\":8192,\"mlp_bias\":false,"
    "\"model_type\":\"llama\",\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
    "\"pretraining_tp\":1,\"rms_norm_eps\":1e-05,\"rope_scaling\":null,\"rope_theta\":500000.0,"
    "\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,\"vocab_size\":128256}";

/* As published for 30B-A3B. */
static const char published_moe[] =
    "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"attention_bias\":false,\"attention_dropout\":0.0,"
    "\"bos_token_id\":151643,\"decoder_sparse_step\":1,\"eos_token_id\":151645,\"head_dim\":128,"
    "\"hidden_act\":\"silu\",\"hidden_size\":2048,\"initializer_range\":0.02,\"intermediate_size\":6144,"
    "\"max_position_embeddings\":40960,\"max_window_layers\":48,\"mlp_only_layers\":[],\"model_type\":\"qwen3_moe\","
    "\"moe_intermediate_size\":768,\"norm_topk_prob\":true,\"num_attention_heads\":32,\"num_experts\":128,"
    "\"num_experts_per_tok\":8,\"num_hidden_layers\":48,\"num_key_value_heads\":4,\"output_router_logits\":false,"
    "\"rms_norm_eps\":1e-06,\"rope_scaling\":null,\"rope_theta\":1000000.0,\"router_aux_loss_coef\":0.001,"
    "\"sliding_window\":null,\"tie_word_embeddings\":false,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":151936}";

/* Sets the members of `change` (JSON object text) in a published file; a member of value "-" is removed. */
static qwen3_status read_changed_from(const char *original, const temp_dir *dir, const char *change,
                                      qwen3_config *config, qwen3_error *err)
{
    json_t *root = json_loads(original, 0, NULL), *changes = json_loads(change, 0, NULL);
    assert_non_null(root);
    assert_non_null(changes);
    const char *key;
    json_t *value;
    json_object_foreach(changes, key, value)
    {
        if (json_is_string(value) && strcmp(json_string_value(value), "-") == 0)
            json_object_del(root, key);
        else
            json_object_set(root, key, value);
    }
    write_json(temp_join(dir, "config.json").text, root);
    json_decref(root);
    json_decref(changes);
    error_clear(err);
    return qwen3_config_read(dir->path, config, err);
}

static qwen3_status read_changed(const temp_dir *dir, const char *change, qwen3_config *config, qwen3_error *err)
{
    return read_changed_from(published, dir, change, config, err);
}

static void expect_config(const temp_dir *dir, const char *change, qwen3_config *config)
{
    qwen3_error err;
    if (read_changed(dir, change, config, &err))
        fail_msg("%s: %s", change, err.message);
}

static void test_published(void **state)
{
    qwen3_config c;
    expect_config(*state, "{}", &c);
    assert_int_equal(c.vocab_size, 151936);
    assert_int_equal(c.hidden_size, 1024);
    assert_int_equal(c.intermediate_size, 3072);
    assert_int_equal(c.num_layers, 28);
    assert_int_equal(c.num_heads, 16);
    assert_int_equal(c.num_kv_heads, 8);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.max_positions, 40960);
    assert_true(c.rms_norm_eps == 1e-6);
    assert_true(c.rope_theta == 1e6);
    assert_true(c.yarn_factor == 0);
    assert_true(c.tie_word_embeddings);
    assert_string_equal(c.architecture, "qwen3");
    assert_true(c.qk_norm && !c.attention_bias);
}

/* Other architectures: heads of hidden / heads values unless the file says otherwise, biases always or never. */
static void test_other_architectures(void **state)
{
    static const struct {
        const char *original, *change, *architecture;
        int64_t head_dim;
        bool bias;
    } cases[] = {
        {published_qwen2, "{}", "qwen2", 64, true},
        {published_qwen2, "{\"head_dim\":128,\"model_type\":\"-\"}", "qwen2", 128, true},
        {published_qwen2, "{\"architectures\":\"-\",\"sliding_window\":null}", "qwen2", 64, true},
        {published_llama, "{}", "llama", 128, false},
        {published_llama, "{\"head_dim\":null,\"pretraining_tp\":\"-\",\"mlp_bias\":\"-\"}", "llama", 128, false},
        {published_llama, "{\"head_dim\":64}", "llama", 64, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config c;
        qwen3_error err;
        if (read_changed_from(cases[i].original, *state, cases[i].change, &c, &err))
            fail_msg("%s: %s", cases[i].change, err.message);
        assert_string_equal(c.architecture, cases[i].architecture);
        assert_int_equal(c.head_dim, cases[i].head_dim);
        assert_true(!c.qk_norm && c.attention_bias == cases[i].bias);
    }
}

static void test_other_architectures_refused(void **state)
{
    static const struct {
        const char *original, *change;
        qwen3_status status;
        const char *word, *word2;
    } cases[] = {
        {published_qwen2, "{\"use_sliding_window\":true}", QWEN3_ERR_UNSUPPORTED, "use_sliding_window", "true"},
        {published_qwen2, "{\"model_type\":\"qwen3\"}", QWEN3_ERR_UNSUPPORTED, "model_type", "qwen2"},
        {published_qwen2, "{\"num_attention_heads\":10}", QWEN3_ERR_CONFIG, "num_attention_heads", "divisor"},
        {published_qwen2, "{\"num_attention_heads\":0}", QWEN3_ERR_CONFIG, "num_attention_heads", "divisor"},
        {published_qwen2, "{\"head_dim\":\"64\"}", QWEN3_ERR_CONFIG, "head_dim", "64"},
        {published_llama, "{\"attention_bias\":true}", QWEN3_ERR_UNSUPPORTED, "attention_bias", "true"},
        {published_llama, "{\"mlp_bias\":true}", QWEN3_ERR_UNSUPPORTED, "mlp_bias", "true"},
        {published_llama, "{\"pretraining_tp\":2}", QWEN3_ERR_UNSUPPORTED, "pretraining_tp", "got 2"},
        {published_llama, "{\"hidden_act\":\"gelu\"}", QWEN3_ERR_UNSUPPORTED, "hidden_act", "gelu"},
        {published_llama, "{\"num_key_value_heads\":\"-\"}", QWEN3_ERR_CONFIG, "num_key_value_heads", "missing"},
        {published_llama,
         "{\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
         "\"original_max_position_embeddings\":8192,\"rope_type\":\"llama3\"}}",
         QWEN3_ERR_UNSUPPORTED, "rope_scaling.rope_type", "llama3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config c;
        qwen3_error err;
        qwen3_status status = read_changed_from(cases[i].original, *state, cases[i].change, &c, &err);
        assert_refused(cases[i].change, status, cases[i].status, &err, cases[i].word, cases[i].word2);
        assert_null(c.architecture);
    }
}

/* Which layers have experts: `layers` of the first six, as digits. */
static void test_experts(void **state)
{
    static const struct {
        const char *change, *layers;
        int64_t experts;
        bool normalised;
    } cases[] = {
        {"{}", "111111", 128, true},
        {"{\"num_experts\":\"-\",\"num_local_experts\":64}", "111111", 64, true},
        {"{\"num_experts\":null,\"num_local_experts\":8}", "111111", 8, true},
        {"{\"num_local_experts\":128,\"norm_topk_prob\":false}", "111111", 128, false},
        {"{\"decoder_sparse_step\":2}", "010101", 128, true},
        {"{\"decoder_sparse_step\":3,\"mlp_only_layers\":[5]}", "001000", 128, true},
        {"{\"mlp_only_layers\":[0,4,9999999]}", "011101", 128, true},
        {"{\"mlp_only_layers\":\"-\",\"decoder_sparse_step\":\"-\"}", "111111", 128, true},
        {"{\"mlp_only_layers\":null,\"decoder_sparse_step\":null}", "111111", 128, true},
        {"{\"num_experts_per_tok\":128,\"architectures\":\"-\"}", "111111", 128, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config c;
        qwen3_error err;
        if (read_changed_from(published_moe, *state, cases[i].change, &c, &err))
            fail_msg("%s: %s", cases[i].change, err.message);
        assert_string_equal(c.architecture, "qwen3_moe");
        assert_int_equal(c.num_experts, cases[i].experts);
        assert_int_equal(c.norm_topk_prob, cases[i].normalised);
        for (int layer = 0; layer < 6; layer++)
            if (qwen3_config_has_experts(&c, layer) != (cases[i].layers[layer] == '1'))
                fail_msg("%s: layer %d", cases[i].change, layer);
        assert_false(qwen3_config_has_experts(&c, -1) || qwen3_config_has_experts(&c, 48));
        assert_true(c.qk_norm && c.moe_intermediate_size == 768 && c.intermediate_size == 6144);
    }
    qwen3_config dense;
    expect_config(*state, "{\"num_experts\":8}", &dense); /* not looked at */
    assert_false(dense.num_experts || qwen3_config_has_experts(&dense, 0) || qwen3_config_has_experts(NULL, 0));
}

static void test_experts_refused(void **state)
{
    static const struct {
        const char *change, *word, *word2;
    } cases[] = {
        {"{\"num_experts\":\"-\"}", "num_experts", "missing"},
        {"{\"num_experts\":\"128\"}", "num_experts", "an integer"},
        {"{\"num_experts\":0}", "num_experts", "got 0"},
        {"{\"num_experts\":-5}", "num_experts", "got -5"},
        {"{\"num_experts\":5000}", "num_experts", "4096"},
        {"{\"num_experts\":9223372036854775807}", "num_experts", "4096"},
        {"{\"num_experts\":4096}", "num_hidden_layers * num_experts", "131072"},
        {"{\"num_local_experts\":64}", "num_local_experts", "same as num_experts"},
        {"{\"num_experts_per_tok\":\"-\"}", "num_experts_per_tok", "missing"},
        {"{\"num_experts_per_tok\":0}", "num_experts_per_tok", "got 0"},
        {"{\"num_experts_per_tok\":129}", "num_experts_per_tok", "1 to 128"},
        {"{\"moe_intermediate_size\":\"-\"}", "moe_intermediate_size", "missing"},
        {"{\"moe_intermediate_size\":0}", "moe_intermediate_size", "got 0"},
        {"{\"moe_intermediate_size\":1048577}", "moe_intermediate_size", "1048576"},
        {"{\"moe_intermediate_size\":1048576,\"num_experts_per_tok\":100}", "num_experts_per_tok * moe", "16777216"},
        {"{\"norm_topk_prob\":\"-\"}", "norm_topk_prob", "missing"},
        {"{\"norm_topk_prob\":1}", "norm_topk_prob", "true or false"},
        {"{\"decoder_sparse_step\":0}", "decoder_sparse_step", "at least 1"},
        {"{\"decoder_sparse_step\":\"1\"}", "decoder_sparse_step", "an integer"},
        {"{\"mlp_only_layers\":3}", "mlp_only_layers", "an array"},
        {"{\"mlp_only_layers\":[-1]}", "mlp_only_layers", "got -1"},
        {"{\"mlp_only_layers\":[1.5]}", "mlp_only_layers", "1.5"},
        {"{\"num_hidden_layers\":99999}", "num_hidden_layers", "4096"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config c;
        qwen3_error err;
        qwen3_status status = read_changed_from(published_moe, *state, cases[i].change, &c, &err);
        assert_refused(cases[i].change, status, QWEN3_ERR_CONFIG, &err, cases[i].word, cases[i].word2);
        assert_int_equal(c.num_experts, 0);
    }
}

static void test_accepted_forms(void **state)
{
    static const struct {
        const char *change;
        double theta, factor;
    } cases[] = {
        {"{\"rope_theta\":5000000.0}", 5e6, 0},
        {"{\"rope_theta\":\"-\",\"rope_parameters\":{\"rope_theta\":5000000,\"rope_type\":\"default\"}}", 5e6, 0},
        {"{\"rope_theta\":\"-\",\"rope_scaling\":\"-\",\"rope_parameters\":{\"rope_theta\":10000.0}}", 1e4, 0},
        {"{\"rope_parameters\":{\"rope_theta\":1000000,\"rope_type\":\"default\"}}", 1e6, 0},
        {"{\"rope_scaling\":{\"type\":\"default\"}}", 1e6, 0},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768}}", 1e6, 4},
        {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"type\":\"yarn\",\"factor\":4.0,"
         "\"original_max_position_embeddings\":32768,\"attention_factor\":null}}",
         1e6, 4},
        {"{\"rope_theta\":\"-\",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1e6,\"factor\":2.0,"
         "\"original_max_position_embeddings\":32768,\"truncate\":true}}",
         1e6, 2},
        {"{\"use_sliding_window\":\"-\",\"attention_bias\":\"-\",\"sliding_window\":4096}", 1e6, 0},
        {"{\"model_type\":\"-\",\"num_hidden_layers\":2,\"layer_types\":[\"full_attention\",\"full_attention\"]}", 1e6,
         0},
        {"{\"architectures\":\"-\",\"quantization_config\":null}", 1e6, 0},
        {"{\"architectures\":[\"Qwen3Model\"]}", 1e6, 0},
        {"{\"quantization_config\":{\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\",\"quant_method\":\"fp8\","
         "\"modules_to_not_convert\":[\"lm_head\"],\"weight_block_size\":[128,128]}}",
         1e6, 0},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":-1,\"desc_act\":true,"
         "\"checkpoint_format\":\"gptq_v2\",\"pack_dtype\":\"int32\",\"sym\":true}}",
         1e6, 0},
        {"{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128,\"version\":\"GEMM\","
         "\"zero_point\":true,\"modules_to_not_convert\":null}}",
         1e6, 0},
        /* YaRN that somebody added to a newer file */
        {"{\"rope_theta\":\"-\",\"rope_parameters\":{\"rope_theta\":1000000,\"rope_type\":\"default\"},"
         "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}}",
         1e6, 4},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768},"
         "\"rope_parameters\":{\"rope_theta\":1e6}}",
         1e6, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config c;
        expect_config(*state, cases[i].change, &c);
        if (c.rope_theta != cases[i].theta || c.yarn_factor != cases[i].factor)
            fail_msg("%s: theta %g, factor %g", cases[i].change, c.rope_theta, c.yarn_factor);
    }
}

static void test_yarn(void **state)
{
    qwen3_config c;
    expect_config(
        *state, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}}", &c);
    assert_true(c.yarn_beta_fast == 32 && c.yarn_beta_slow == 1);
    assert_int_equal(c.yarn_original_positions, 32768);
    assert_true(fabs(c.yarn_attention_factor - 1.1386294361119891) < 1e-15); /* 0.1 ln 4 + 1 */
    assert_int_equal(c.max_positions, 131072);
    expect_config(*state,
                  "{\"max_position_embeddings\":262144,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2,"
                  "\"original_max_position_embeddings\":1000,\"beta_fast\":30,\"beta_slow\":2.5,"
                  "\"attention_factor\":1.25}}",
                  &c);
    assert_true(c.yarn_beta_fast == 30 && c.yarn_beta_slow == 2.5 && c.yarn_attention_factor == 1.25);
    assert_int_equal(c.max_positions, 262144);
    /* without its own, the model's positions are the original ones, as in the reference */
    expect_config(*state, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0}}", &c);
    assert_int_equal(c.yarn_original_positions, 40960);
    assert_int_equal(c.max_positions, 163840);
    expect_config(*state, "{\"rope_scaling\":{\"type\":\"default\"}}", &c);
    assert_int_equal(c.yarn_original_positions, 0);
}

/* What a file may leave out: head_dim, which all published models and the reference's default have alike; and
 * tie_word_embeddings where weights lie beside it. */
static void test_absent_keys(void **state)
{
    static const struct {
        const char *header;
        bool tied;
    } weights[] = {
        {"{\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", true},
        {"{\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", false},
    };
    static const char *const absent[] = {"{\"tie_word_embeddings\":\"-\"}", "{\"tie_word_embeddings\":null}"};
    const temp_dir *dir = *state;
    qwen3_config c;
    expect_config(dir, "{\"head_dim\":\"-\"}", &c);
    assert_int_equal(c.head_dim, 128);
    expect_config(dir, "{\"head_dim\":null}", &c);
    assert_int_equal(c.head_dim, 128);
    for (size_t i = 0; i < 4; i++) {
        write_safetensors(temp_join(dir, "model.safetensors").text, weights[i / 2].header, "\0\0\0", 4);
        expect_config(dir, absent[i % 2], &c);
        assert_true(c.tie_word_embeddings == weights[i / 2].tied);
    }
    /* what the file says goes before what is stored */
    expect_config(dir, "{}", &c);
    assert_true(c.tie_word_embeddings);
}

/* Each key that a computation depends on: missing, null, of the wrong kind. */
static void test_required_keys(void **state)
{
    static const struct {
        const char *key, *wrong;
    } keys[] = {
        {"vocab_size", "\"151936\""},
        {"vocab_size", "151936.0"},
        {"hidden_size", "true"},
        {"intermediate_size", "[3072]"},
        {"num_hidden_layers", "{}"},
        {"num_attention_heads", "16.5"},
        {"num_key_value_heads", "\"8\""},
        {"max_position_embeddings", "\"x\""},
        {"rms_norm_eps", "\"1e-6\""},
        {"rope_theta", "\"1e6\""},
        {"tie_word_embeddings", "1"},
        {"tie_word_embeddings", "\"true\""},
        {"hidden_act", "7"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *const values[] = {"\"-\"", "null", keys[i].wrong};
        for (size_t v = 0; v < 3; v++) {
            char change[128];
            qwen3_config c;
            qwen3_error err;
            snprintf(change, sizeof change, "{\"%s\":%s}", keys[i].key, values[v]);
            qwen3_status status = read_changed(*state, change, &c, &err);
            assert_refused(change, status, QWEN3_ERR_CONFIG, &err, keys[i].key, "config.json");
            assert_int_equal(c.vocab_size, 0);
        }
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *change;
        qwen3_status status;
        const char *word, *word2;
    } cases[] = {
        {"{\"architectures\":[\"MistralForCausalLM\"]}", QWEN3_ERR_UNSUPPORTED, "MistralForCausalLM",
         "[\"Qwen3ForCausalLM\"], [\"Qwen3MoeForCausalLM\"], [\"Qwen2ForCausalLM\"], [\"LlamaForCausalLM\"]"},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", QWEN3_ERR_UNSUPPORTED, "model_type", "llama"},
        {"{\"architectures\":[\"Qwen3ForCausalLM\",\"Qwen2ForCausalLM\"]}", QWEN3_ERR_UNSUPPORTED, "architectures",
         "one of"},
        {"{\"architectures\":\"-\",\"model_type\":\"mistral\"}", QWEN3_ERR_UNSUPPORTED, "model_type", "mistral"},
        {"{\"architectures\":[\"Qwen3MoeForCausalLM\"]}", QWEN3_ERR_UNSUPPORTED, "model_type", "qwen3_moe"},
        {"{\"architectures\":\"-\",\"model_type\":\"qwen3_moe\"}", QWEN3_ERR_CONFIG, "num_experts", "missing"},
        {"{\"model_type\":\"llama\"}", QWEN3_ERR_UNSUPPORTED, "model_type", "llama"},
        {"{\"architectures\":[]}", QWEN3_ERR_UNSUPPORTED, "architectures", "Qwen3ForCausalLM"},
        {"{\"architectures\":\"Qwen3ForCausalLM\"}", QWEN3_ERR_UNSUPPORTED, "architectures", "[\"Qwen3ForCausalLM\"]"},
        {"{\"architectures\":\"-\",\"model_type\":\"-\"}", QWEN3_ERR_CONFIG, "architectures", "missing"},
        {"{\"hidden_act\":\"gelu\"}", QWEN3_ERR_UNSUPPORTED, "hidden_act", "gelu"},
        {"{\"attention_bias\":true}", QWEN3_ERR_UNSUPPORTED, "attention_bias", "true"},
        {"{\"use_sliding_window\":true}", QWEN3_ERR_UNSUPPORTED, "use_sliding_window", "true"},
        {"{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", QWEN3_ERR_UNSUPPORTED, "layer_types",
         "sliding_attention"},
        {"{\"layer_types\":[\"full_attention\"]}", QWEN3_ERR_CONFIG, "layer_types", "28"},
        {"{\"layer_types\":\"full_attention\"}", QWEN3_ERR_CONFIG, "layer_types", "an array"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\"}}", QWEN3_ERR_UNSUPPORTED,
         "quantization_config.weight_block_size", "[128, 128]"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[64,128]}}", QWEN3_ERR_UNSUPPORTED,
         "weight_block_size", "[64,128]"},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\",\"weight_block_size\":[128,128]}}",
         QWEN3_ERR_UNSUPPORTED, "quantization_config.fmt", "e5m2"},
        {"{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"bits\":4}}", QWEN3_ERR_UNSUPPORTED,
         "quantization_config", "bitsandbytes"},
        {"{\"quantization_config\":7}", QWEN3_ERR_UNSUPPORTED, "quantization_config", "\"gptq\" or \"awq\""},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}", QWEN3_ERR_CONFIG,
         "quantization_config.group_size", "missing"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":128}}", QWEN3_ERR_UNSUPPORTED,
         "quantization_config.bits", "4 or 8"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":0}}", QWEN3_ERR_CONFIG,
         "quantization_config.group_size", "got 0"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"checkpoint_format\":"
         "\"marlin\"}}",
         QWEN3_ERR_UNSUPPORTED, "quantization_config.checkpoint_format", "marlin"},
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"pack_dtype\":\"int16\"}}",
         QWEN3_ERR_UNSUPPORTED, "quantization_config.pack_dtype", "int16"},
        {"{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":8,\"group_size\":128}}", QWEN3_ERR_UNSUPPORTED,
         "quantization_config.bits", "got 8"},
        {"{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128,\"version\":\"gemv\"}}",
         QWEN3_ERR_UNSUPPORTED, "quantization_config.version", "gemv"},
        {"{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128,\"zero_point\":false}}",
         QWEN3_ERR_UNSUPPORTED, "quantization_config.zero_point", "false"},
        {"{\"num_key_value_heads\":5}", QWEN3_ERR_CONFIG, "num_attention_heads", "multiple"},
        {"{\"num_key_value_heads\":0}", QWEN3_ERR_CONFIG, "num_key_value_heads", "got 0"},
        {"{\"num_key_value_heads\":32}", QWEN3_ERR_CONFIG, "num_attention_heads", "multiple"},
        {"{\"num_hidden_layers\":-1}", QWEN3_ERR_CONFIG, "num_hidden_layers", "got -1"},
        {"{\"vocab_size\":4611686018427387904}", QWEN3_ERR_CONFIG, "vocab_size", "expected 1 to"},
        {"{\"hidden_size\":0}", QWEN3_ERR_CONFIG, "hidden_size", "got 0"},
        {"{\"head_dim\":127}", QWEN3_ERR_CONFIG, "head_dim", "even"},
        {"{\"head_dim\":1e2}", QWEN3_ERR_CONFIG, "head_dim", "an integer"},
        {"{\"head_dim\":4096,\"num_attention_heads\":16384}", QWEN3_ERR_CONFIG, "num_attention_heads * head_dim",
         "expected 1 to"},
        {"{\"rms_norm_eps\":0}", QWEN3_ERR_CONFIG, "rms_norm_eps", "got 0"},
        {"{\"rms_norm_eps\":-1e-6}", QWEN3_ERR_CONFIG, "rms_norm_eps", "between"},
        {"{\"rope_theta\":-1}", QWEN3_ERR_CONFIG, "rope_theta", "got -1"},
        {"{\"rope_theta\":0}", QWEN3_ERR_CONFIG, "rope_theta", "got 0"},
        {"{\"rope_parameters\":{\"rope_theta\":5e6}}", QWEN3_ERR_CONFIG, "rope_theta", "both"},
        {"{\"rope_parameters\":7}", QWEN3_ERR_CONFIG, "rope_parameters", "an object"},
        {"{\"rope_scaling\":\"yarn\"}", QWEN3_ERR_CONFIG, "rope_scaling", "an object"},
        {"{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}", QWEN3_ERR_UNSUPPORTED, "rope_scaling.rope_type",
         "linear"},
        {"{\"rope_scaling\":{\"type\":7}}", QWEN3_ERR_UNSUPPORTED, "rope_type", "7"},
        {"{\"rope_scaling\":{\"factor\":2}}", QWEN3_ERR_CONFIG, "rope_scaling.rope_type", "missing"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"rope_type\":\"default\"}}", QWEN3_ERR_CONFIG, "rope_scaling.type",
         "same"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"original_max_position_embeddings\":32768}}", QWEN3_ERR_CONFIG,
         "rope_scaling.factor", "missing"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":\"x\"}}",
         QWEN3_ERR_CONFIG, "rope_scaling.original_max_position_embeddings", "an integer"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0,\"original_max_position_embeddings\":32768}}",
         QWEN3_ERR_CONFIG, "rope_scaling.factor", "at least 1"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":1e300,\"original_max_position_embeddings\":32768}}",
         QWEN3_ERR_CONFIG, "factor", "1e6"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":1e6,\"original_max_position_embeddings\":32768}}",
         QWEN3_ERR_CONFIG, "max_position_embeddings", "expected 1 to"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768,"
         "\"beta_fast\":1}}",
         QWEN3_ERR_CONFIG, "beta_fast", "beta_slow"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768,"
         "\"attention_factor\":-1}}",
         QWEN3_ERR_CONFIG, "attention_factor", "0.01 to 100"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768,"
         "\"attention_factor\":1e20}}",
         QWEN3_ERR_CONFIG, "attention_factor", "0.01 to 100"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768,"
         "\"mscale\":1}}",
         QWEN3_ERR_UNSUPPORTED, "rope_scaling.mscale", "attention_factor"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32768,"
         "\"truncate\":false}}",
         QWEN3_ERR_UNSUPPORTED, "rope_scaling.truncate", "true"},
        {"{\"rope_scaling\":{\"type\":\"default\"},\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1e6,"
         "\"factor\":4,\"original_max_position_embeddings\":32768}}",
         QWEN3_ERR_CONFIG, "rope_parameters", "contradict"},
        {"{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2},\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_"
         "theta\":1e6,"
         "\"factor\":4}}",
         QWEN3_ERR_CONFIG, "rope_parameters", "contradict"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_config c;
        qwen3_error err;
        qwen3_status status = read_changed(*state, cases[i].change, &c, &err);
        assert_refused(cases[i].change, status, cases[i].status, &err, cases[i].word, cases[i].word2);
        assert_non_null(strstr(err.message, "config.json"));
    }
}

static void test_bad_files(void **state)
{
    temp_dir *dir = *state;
    temp_path path = temp_join(dir, "config.json");
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"{\n\n\"a\": }", "line 3"},
        {"[]", "object"},
        {"{\"vocab_size\":1,\"vocab_size\":2}", "duplicate"},
        {"", "empty"},
        {"{} {}", "line 1"},
        {"{\"a\":1e999}", "line 1"},
        {"{\"a\":NaN}", "line 1"},
    };
    qwen3_config c;
    qwen3_error err = {0};
    assert_refused("missing", qwen3_config_read(dir->path, &c, &err), QWEN3_ERR_IO, &err, path.text, "No such file");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(path.text, cases[i].text);
        assert_refused(cases[i].text, qwen3_config_read(dir->path, &c, &err), QWEN3_ERR_FORMAT, &err, path.text,
                       cases[i].word);
    }
    assert_refused("no directory", qwen3_config_read(path.text, &c, &err), QWEN3_ERR_IO, &err, path.text,
                   "Not a directory");
    assert_refused("NULL", qwen3_config_read(NULL, &c, &err), QWEN3_ERR_ARGUMENT, &err, "spec", "NULL");
    assert_int_equal(qwen3_config_read(path.text, &c, NULL), QWEN3_ERR_IO);
}

static void test_synthetic(void **state)
{
    (void)state;
    /* parameters, tied matrices counted once, as the model cards round them */
    static const struct {
        const char *spec;
        double billions;
    } sizes[] = {
        {"synthetic:0.6B", 0.596},        {"synthetic:1.7b", 1.721},          {"synthetic:4B", 4.022},
        {"synthetic:8B", 8.191},          {"synthetic:14B", 14.768},          {"synthetic:32B", 32.762},
        {"synthetic:TINY", 0.000199},     {"synthetic:30b-A3B", 30.532},      {"synthetic:235B-A22B", 235.094},
        {"synthetic:tiny-moe", 0.000526}, {"synthetic:0.6B:layers=1", 0.171}, {"synthetic:30B-A3B:layers=48", 30.532},
    };
    qwen3_config c;
    qwen3_error err = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(qwen3_config_read(sizes[i].spec, &c, &err), QWEN3_OK);
        assert_int_equal(config_check(&c, sizes[i].spec, &err), QWEN3_OK);
        int64_t attention = (c.num_heads + c.num_kv_heads) * c.head_dim * 2;
        int64_t network = 3 * c.intermediate_size;
        if (c.num_experts)
            network = c.num_experts * (3 * c.moe_intermediate_size + 1);
        assert_int_equal(config_expert_layers(&c), c.num_experts ? c.num_layers : 0);
        int64_t layer = c.hidden_size * (attention + network + 2) + 2 * c.head_dim;
        int64_t all = c.vocab_size * c.hidden_size * (c.tie_word_embeddings ? 1 : 2) + c.num_layers * layer;
        if (fabs((double)all / 1e9 - sizes[i].billions) > fmin(0.0006, 0.01 * sizes[i].billions))
            fail_msg("%s: %.4g billion parameters", sizes[i].spec, (double)all / 1e9);
    }
    assert_refused("size", qwen3_config_read("synthetic:7B", &c, &err), QWEN3_ERR_ARGUMENT, &err, "7B", "0.6B");
    assert_refused("size", qwen3_config_read("synthetic:", &c, &err), QWEN3_ERR_ARGUMENT, &err, "tiny", "235B-A22B");
    assert_int_equal(qwen3_config_read("synthetic:tiny:layers=2:yarn=4", &c, &err), QWEN3_OK);
    assert_int_equal(c.num_layers, 2);
    assert_int_equal(c.max_positions, 131072);
    assert_true(c.yarn_factor == 4 && c.yarn_original_positions == 32768);
    assert_int_equal(qwen3_config_read("synthetic:30B-A3B:layers=3", &c, &err), QWEN3_OK);
    assert_int_equal(c.num_layers, 3);
    static const struct {
        const char *spec, *word;
    } refused[] = {
        {"synthetic:tiny:", "expected :layers=N"},
        {"synthetic:tiny:layer=3", "expected :layers=N"},
        {"synthetic:tiny:layers=", "1 to 4096"},
        {"synthetic:tiny:layers=0", "got \"0\""},
        {"synthetic:tiny:layers=-1", "1 to 4096"},
        {"synthetic:tiny:layers=4097", "1 to 4096"},
        {"synthetic:tiny:layers=3:layers=4", "expected :layers=N"},
        {"synthetic:tiny:layers=1x", "got \"1x\""},
        {"synthetic:tin:layers=3", "unknown size"},
        {"synthetic:tiny:layers= 3", "1 to 4096"},
        {"synthetic:30B-A3B:layers=4000", "131072"},
        {"synthetic:tiny:yarn=33", "1 to 32"},
        {"synthetic:tiny:yarn=4:layers=2", "after the size"},
        {"synthetic:tiny:yarn=", "yarn: got \"\""},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const qwen3_status status = qwen3_config_read(refused[i].spec, &c, &err);
        assert_refused(refused[i].spec, status, status, &err, refused[i].word, "synthetic:");
        assert_true(status == QWEN3_ERR_ARGUMENT || status == QWEN3_ERR_CONFIG);
        assert_int_equal(c.vocab_size, 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temp_dir_setup, temp_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_published), TEST(test_other_architectures), TEST(test_other_architectures_refused),
        TEST(test_experts),   TEST(test_experts_refused),     TEST(test_accepted_forms),
        TEST(test_yarn),      TEST(test_absent_keys),         TEST(test_required_keys),
        TEST(test_refused),   TEST(test_bad_files),           TEST(test_synthetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
