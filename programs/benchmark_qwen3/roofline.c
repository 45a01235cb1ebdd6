/* roofline.c - what a test must do at the least, and the fraction of the machine's limits reached with it.
 *
 * Prefill is bound by multiply-adds: the linear layers of every token, causal attention, the output head for the
 * rows whose logits are made. Decode is bound by reads: the weights once per step, and every sequence's keys and
 * values. A test as a whole is held against whichever of the two each of its steps meets first: many sequences decoded
 * at once are bound like a prefill, a very short prompt like a decode. (Williams, Waterman & Patterson 2009) */
#include <math.h>

#include "benchmark.h"

double roofline_peak(const qwen3_roofline *limits, qwen3_dtype dtype)
{
    return dtype == QWEN3_DTYPE_F32 ? limits->f32_flops : limits->bf16_flops;
}

/* Of this much work, by the limit that it meets first. */
static double least_seconds(const qwen3_roofline *limits, qwen3_dtype dtype, double flops, double bytes)
{
    return fmax(flops / roofline_peak(limits, dtype), bytes / limits->read_bytes_per_second);
}

double test_limit(const qwen3_model *model, const benchmark_test *t, const qwen3_roofline *limits)
{
    const qwen3_config *c = qwen3_model_config(model);
    const qwen3_plan *plan = qwen3_model_plan(model);
    const double kv = t->batch * qwen3_kv_bytes_per_token(c, plan->kv_dtype); /* of one position */
    const int prompt = test_prompt(t);
    double seconds = 0;
    if (prompt)
        seconds += least_seconds(limits, plan->dtype,
                                 qwen3_forward_flops(c, &(qwen3_forward_shape){t->batch, prompt, t->depth}),
                                 qwen3_model_bytes_per_step(model, (double)t->batch * prompt) + kv * t->depth);
    for (int step = 0; step < t->generate; step++) {
        const int64_t held = (int64_t)t->depth + t->prompt + step;
        const qwen3_forward_shape next = {t->batch, 1, held}, again = {t->batch, held + 1, 0};
        const double rows = t->batch * (t->kv_cache ? 1.0 : (double)held + 1);
        const double weights = qwen3_model_bytes_per_step(model, rows);
        seconds += t->kv_cache ? least_seconds(limits, plan->dtype, qwen3_forward_flops(c, &next),
                                               weights + kv * (double)(held + 1))
                               : least_seconds(limits, plan->dtype, qwen3_forward_flops(c, &again), weights);
    }
    return t->batch * ((double)prompt + t->generate) / seconds;
}

qwen3_roofline roofline_mean(const qwen3_roofline *a, const qwen3_roofline *b)
{
    return (qwen3_roofline){.read_bytes_per_second = (a->read_bytes_per_second + b->read_bytes_per_second) / 2,
                            .f32_flops = (a->f32_flops + b->f32_flops) / 2,
                            .bf16_flops = (a->bf16_flops + b->bf16_flops) / 2};
}

void roofline_fractions(benchmark_result *r)
{
    r->prefill_fraction = r->prefill_flops / (1e-3 * r->prefill.ms) / r->peak_flops;
    r->decode_fraction = r->decode_bytes / (1e-3 * r->ms_per_step) / r->read_bandwidth;
}
