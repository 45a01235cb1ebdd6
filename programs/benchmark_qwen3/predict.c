/* predict.c - what the cost model says of a test: its prompt as one pass, and a decode step in the middle of its
 * generation. */
#include "benchmark.h"
#include "common/topology.h"

static bool predicts_steps(const benchmark_test *t)
{
    return t->generate && t->kv_cache;
}

qwen3_status predict_times(const qwen3_scenario *s, const benchmark_test *t, predicted_times *times,
                           qwen3_prediction *details, qwen3_error *err)
{
    const qwen3_forward_shape prompt = {t->batch, t->prompt, t->depth};
    const qwen3_forward_shape next = {t->batch, 1, (int64_t)t->depth + t->prompt + t->generate / 2};
    *times = (predicted_times){0};
    if (predicts_steps(t)) {
        if (qwen3_predict(s, &next, details, err) != QWEN3_OK)
            return err->status;
        times->step = details->seconds;
    }
    if (test_prompt(t)) {
        if (qwen3_predict(s, &prompt, details, err) != QWEN3_OK)
            return err->status;
        times->prefill = details->seconds;
    }
    return QWEN3_OK;
}

void predict_test(const benchmark *b, const benchmark_test *t, benchmark_result *r)
{
    const qwen3_plan *plan = qwen3_model_plan(b->model);
    const qwen3_machine *machine = b->o.arguments.model.machine;
    const int64_t rows = b->o.arguments.session.overlap_min_rows;
    const bool known = machine || t->strategy == QWEN3_STRATEGY_AUTO; /* to the engine */
    qwen3_scenario s = {.config = &b->config,
                        .machine = machine ? machine : &b->rates,
                        .grid_sequence = plan->grid_sequence,
                        .grid_heads = plan->grid_heads,
                        .dtype = plan->dtype,
                        .kv_dtype = plan->kv_dtype,
                        .algorithm = t->algorithm,
                        .priced = machine != NULL,
                        .overlap_min_rows = rows    ? rows
                                            : known ? -1
                                                    : 0};
    predicted_times times;
    qwen3_prediction details;
    qwen3_error err = {0};
    scenario_place(&s, qwen3_comm_size(b->world), b->machine.nodes);
    /* Without the rates of its types, a test has no prediction; neither has one without the KV cache. */
    if ((t->generate && !t->kv_cache) || predict_times(&s, t, &times, &details, &err) != QWEN3_OK)
        return;
    if (test_prompt(t))
        r->predicted_prefill_ms = 1e3 * times.prefill;
    if (t->generate)
        r->predicted_step_ms = 1e3 * times.step;
    r->predicted_ts = t->batch * ((double)test_prompt(t) + t->generate) / (times.prefill + t->generate * times.step);
}
