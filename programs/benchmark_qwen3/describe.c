/* describe.c - what was run: the test, the model and its plan, the machine. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/topology.h"

int64_t count_parameters(const char *spec, const qwen3_config *config, qwen3_error *err)
{
    qwen3_tensor_info *tensors = NULL;
    size_t n = 0;
    int64_t count = 0;
    if (qwen3_model_tensors(spec, &tensors, &n, err) != QWEN3_OK)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (!(config->tie_word_embeddings && strcmp(tensors[i].name, "lm_head.weight") == 0))
            count += tensors[i].rows * tensors[i].cols;
    free(tensors);
    return count;
}

/* "qwen3 0.6B BF16": the published size of the same shape, otherwise the number of parameters. */
static void name_model(const benchmark *b, const char *dtype, char *name, size_t size)
{
    static const char *const published[] = {"0.6B", "1.7B", "4B", "8B", "14B", "32B", "30B-A3B", "235B-A22B"};
    char shape[16], spec[32];
    snprintf(shape, sizeof shape, "%.1fM", 1e-6 * (double)b->parameters);
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        qwen3_config other;
        snprintf(spec, sizeof spec, "synthetic:%s", published[i]);
        if (qwen3_config_read(spec, &other, NULL) == QWEN3_OK && other.hidden_size == b->config.hidden_size &&
            other.num_layers == b->config.num_layers && other.intermediate_size == b->config.intermediate_size)
            snprintf(shape, sizeof shape, "%s", published[i]);
    }
    snprintf(name, size, "qwen3 %s %s", shape, dtype);
    for (char *letter = strrchr(name, ' '); *letter; letter++)
        *letter = (char)toupper((unsigned char)*letter);
}

static void describe_work(const benchmark *b, const benchmark_test *t, const qwen3_plan *plan, benchmark_result *r)
{
    const int prompt = test_prompt(t);
    test_name(t, r->test, sizeof r->test);
    snprintf(r->phase, sizeof r->phase, "%s", !t->generate ? "prefill" : prompt ? "both" : "decode");
    snprintf(r->tokens, sizeof r->tokens, "%s", t->greedy ? "greedy" : "drawn");
    snprintf(r->kv_cache, sizeof r->kv_cache, "%s", !t->generate ? "" : t->kv_cache ? "yes" : "no");
    r->prompt = prompt;
    r->generate = t->generate;
    r->depth = test_depth(t);
    r->batch = t->batch;
    r->repetitions = b->o.repetitions;
    r->warmup = b->o.warmup;
    if (prompt)
        r->prefill_flops = qwen3_forward_flops(&b->config, &(qwen3_forward_shape){t->batch, prompt, t->depth});
    if (t->generate && t->kv_cache) {
        const double held = (double)t->depth + t->prompt + (t->generate + 1) / 2.0; /* on average over the steps */
        r->decode_bytes = qwen3_model_bytes_per_step(b->model, t->batch) +
                          t->batch * qwen3_kv_bytes_per_token(&b->config, plan->kv_dtype) * held;
    }
}

void describe_test(const benchmark *b, const benchmark_test *t, const qwen3_session *session, benchmark_result *r)
{
    const qwen3_plan *plan = qwen3_model_plan(b->model);
    qwen3_session_info info;

    qwen3_session_get_info(session, &info);
    origin_describe(&r->origin, &b->machine);
    snprintf(r->model_filename, sizeof r->model_filename, "%s", b->o.spec);
    name_model(b, plan_dtype_name(plan), r->model_type, sizeof r->model_type);
    snprintf(r->strategy, sizeof r->strategy, "%s", qwen3_strategy_name(plan->strategy));
    snprintf(r->grid, sizeof r->grid, "%dx%d", plan->grid_sequence, plan->grid_heads);
    snprintf(r->algorithm, sizeof r->algorithm, "%s", qwen3_algorithm_name(info.algorithm));
    snprintf(r->dtype, sizeof r->dtype, "%s", plan_dtype_name(plan));
    snprintf(r->isa, sizeof r->isa, "%s", qwen3_isa_name(plan->isa));
    snprintf(r->type_kv, sizeof r->type_kv, "%s", qwen3_dtype_name(plan->kv_dtype));
    snprintf(r->deterministic, sizeof r->deterministic, "%s", b->o.arguments.model.deterministic ? "yes" : "no");
    snprintf(r->seed, sizeof r->seed, "%llu", (unsigned long long)b->o.arguments.model.seed);
    r->ranks = qwen3_comm_size(b->world);
    r->nodes = b->machine.nodes;
    r->threads = plan->threads;
    r->model_size = qwen3_model_bytes_per_step(b->model, INFINITY);
    r->model_parameters = (double)b->parameters;
    describe_work(b, t, plan, r);
    if ((b->o.arguments.model.machine || b->measured) && !b->o.arguments.model.deterministic)
        predict_test(b, t, r);
}
