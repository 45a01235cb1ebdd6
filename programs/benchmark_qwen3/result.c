/* result.c - the one table of fields that every format of the results is written from. Names of fields and columns are
 * those of llama-bench where the meaning is the same, so that what reads its results reads these, and rows can follow
 * its rows. */
#include "result.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"
#include "common/statistics.h"

#define AT(member) offsetof(benchmark_result, member)
#define RAW NULL, 1, NULL, 0 /* for programs only */
#define LIST (1u << LAYOUT_LIST)
#define PAIRS (1u << LAYOUT_PAIRS)

#define COMM_FIELDS(phase, kind, index)                                                                                \
    {#phase "_" kind "_calls", NULL, AT(phase.comm_calls[index]), NUMBER, RAW},                                        \
        {#phase "_" kind "_bytes",                                                                                     \
         #phase ", " kind " bytes",                                                                                    \
         AT(phase.comm_bytes[index]),                                                                                  \
         COUNTER,                                                                                                      \
         "%.1f KiB",                                                                                                   \
         1 / 1024.0,                                                                                                   \
         NULL,                                                                                                         \
         0},                                                                                                           \
        {#phase "_" kind "_seconds",                                                                                   \
         #phase ", " kind " seconds",                                                                                  \
         AT(phase.comm_seconds[index]),                                                                                \
         COUNTER,                                                                                                      \
         "%.3f ms",                                                                                                    \
         1e3,                                                                                                          \
         NULL,                                                                                                         \
         0},                                                                                                           \
    {                                                                                                                  \
#phase "_" kind "_overlapped", #phase ", " kind " overlapped", AT(phase.comm_overlapped[index]), NUMBER,       \
            "%.0f %%", 100, NULL, 0                                                                                    \
    }
#define PHASE_COMM_FIELDS(phase)                                                                                       \
    {#phase "_comm_bytes",                                                                                             \
     #phase ", communicated by all ranks",                                                                             \
     AT(phase.comm_bytes_total),                                                                                       \
     NUMBER,                                                                                                           \
     "%.1f KiB",                                                                                                       \
     1 / 1024.0,                                                                                                       \
     #phase " KiB sent",                                                                                               \
     PAIRS},                                                                                                           \
        {#phase "_comm_seconds",                                                                                       \
         #phase ", communicating, slowest rank",                                                                       \
         AT(phase.comm_seconds_total),                                                                                 \
         NUMBER,                                                                                                       \
         "%.3f ms",                                                                                                    \
         1e3,                                                                                                          \
         NULL,                                                                                                         \
         0},                                                                                                           \
        COMM_FIELDS(phase, "reduce", QWEN3_COMM_REDUCE), COMM_FIELDS(phase, "kv", QWEN3_COMM_KV),                      \
        COMM_FIELDS(phase, "query", QWEN3_COMM_QUERY), COMM_FIELDS(phase, "partial", QWEN3_COMM_PARTIAL),              \
        COMM_FIELDS(phase, "logits", QWEN3_COMM_LOGITS), COMM_FIELDS(phase, "control", QWEN3_COMM_CONTROL)

static const field fields[] = {
    ORIGIN_FIELDS(AT(origin)),
    {"backends", NULL, AT(backend), TEXT, RAW},
    {"model_filename", "model", AT(model_filename), TEXT, "%s", 1, NULL, 0},
    {"model_type", NULL, AT(model_type), TEXT, NULL, 1, "model", LIST | ALIGN_LEFT},
    {"model_size", NULL, AT(model_size), NUMBER, RAW},
    {NULL, NULL, AT(size_text), TEXT, NULL, 1, "size", LIST},
    {"model_n_params", NULL, AT(model_parameters), NUMBER, RAW},
    {NULL, NULL, AT(parameters_text), TEXT, NULL, 1, "params", LIST},
    {NULL, NULL, AT(backend), TEXT, NULL, 1, "backend", LIST | ALIGN_LEFT},
    {"n_ranks", "ranks", AT(ranks), NUMBER, "%.0f", 1, NULL, 0},
    {"n_nodes", "nodes", AT(nodes), NUMBER, RAW},
    {"n_threads", "threads per rank", AT(threads), NUMBER, "%.0f", 1, "threads", LIST | PAIRS},
    {"strategy", "strategy", AT(strategy), TEXT, "%s", 1, "strategy", PAIRS | ALIGN_LEFT},
    {"grid", "grid (S x H)", AT(grid), TEXT, "%s", 1, "grid", PAIRS},
    {"algorithm", "algorithm", AT(algorithm), TEXT, "%s", 1, "algorithm", PAIRS},
    {"dtype", "dtype", AT(dtype), TEXT, "%s", 1, "dtype", PAIRS},
    {"isa", "kernels", AT(isa), TEXT, "%s", 1, NULL, 0},
    {"type_k", NULL, AT(type_kv), TEXT, RAW},
    {"type_v", NULL, AT(type_kv), TEXT, RAW},
    {"deterministic", NULL, AT(deterministic), TEXT, RAW},
    {"seed", NULL, AT(seed), TEXT, RAW},
    {"batch_size", "sequences", AT(batch), NUMBER, "%.0f", 1, NULL, 0},
    {"n_prompt", "prompt tokens each", AT(prompt), COUNTER, "%.0f", 1, NULL, 0},
    {"n_gen", "generated tokens each", AT(generate), COUNTER, "%.0f", 1, NULL, 0},
    {"n_depth", "tokens held before, each", AT(depth), COUNTER, "%.0f", 1, NULL, 0},
    {"tokens", "choice of tokens", AT(tokens), TEXT, "%s", 1, NULL, 0},
    {"kv_cache", "KV cache", AT(kv_cache), TEXT, "%s", 1, NULL, 0},
    {"phase", NULL, AT(phase), TEXT, RAW},
    {"test", "test", AT(test), TEXT, "%s", 1, "test", LIST | PAIRS},
    {"repetitions", "repetitions", AT(repetitions), NUMBER, "%.0f", 1, NULL, 0},
    {"warmup", NULL, AT(warmup), NUMBER, RAW},

    {"avg_ns", NULL, AT(avg_ns), NUMBER, RAW},
    {"stddev_ns", NULL, AT(stddev_ns), NUMBER, RAW},
    {"avg_ts", NULL, AT(avg_ts), NUMBER, RAW},
    {"stddev_ts", NULL, AT(stddev_ts), NUMBER, RAW},
    {NULL, "tokens/s", AT(rate), TEXT, "%s", 1, "t/s", LIST},
    {"samples_ns", NULL, AT(ns), SAMPLES, RAW},
    {"samples_ts", NULL, AT(ts), SAMPLES, RAW},
    {"samples_prefill_ms", NULL, AT(prefill.samples), SAMPLES, RAW},
    {"samples_first_token_ms", NULL, AT(first_token), SAMPLES, RAW},
    {"samples_decode_ms", NULL, AT(decode.samples), SAMPLES, RAW},
    {"prefill_ms", "prefill", AT(prefill.ms), NUMBER, "%.2f ms", 1, "prefill ms", PAIRS},
    {"prefill_ms_deviation", "prefill deviation", AT(prefill.ms_deviation), NUMBER, "%.2f ms", 1, NULL, 0},
    {"prefill_ms_per_token", "prefill per token", AT(prefill.ms_per_token), NUMBER, "%.3f ms", 1, NULL, 0},
    {"prefill_tokens_per_second", "prompt tokens/s", AT(prefill.tokens_per_second), NUMBER, "%.1f", 1, "prompt tok/s",
     PAIRS},
    {"first_token_ms", "time to first token", AT(first_token_ms), NUMBER, "%.2f ms", 1, NULL, 0},
    {"first_token_ms_deviation", "time to first token deviation", AT(first_token_ms_deviation), NUMBER, "%.2f ms", 1,
     NULL, 0},
    {"decode_ms", "decode", AT(decode.ms), NUMBER, "%.2f ms", 1, NULL, 0},
    {"decode_ms_deviation", "decode deviation", AT(decode.ms_deviation), NUMBER, "%.2f ms", 1, NULL, 0},
    {"decode_ms_per_step", "decode per step", AT(ms_per_step), NUMBER, "%.3f ms", 1, NULL, 0},
    {"decode_ms_per_token", "decode per token", AT(decode.ms_per_token), NUMBER, "%.3f ms", 1, "decode ms/token",
     PAIRS},
    {"decode_tokens_per_second", "generated tokens/s", AT(decode.tokens_per_second), NUMBER, "%.2f", 1, "gen tok/s",
     PAIRS},
    {"total_ms", "total", AT(total_ms), NUMBER, "%.2f ms", 1, "total ms", PAIRS},
    {"kv_cache_speedup", "speed-up of decode by the KV cache", AT(kv_cache_speedup), NUMBER, "%.2f x", 1,
     "KV cache speed-up", LIST | PAIRS},
    {"predicted_prefill_ms", "prefill, predicted", AT(predicted_prefill_ms), NUMBER, "%.2f ms", 1,
     "predicted prefill ms", PAIRS},
    {"predicted_step_ms", "decode per step, predicted", AT(predicted_step_ms), NUMBER, "%.3f ms", 1,
     "predicted step ms", PAIRS},
    {"predicted_ts", "tokens/s, predicted", AT(predicted_ts), NUMBER, "%.2f", 1, "predicted t/s", LIST},
    {"over_predicted", "tokens/s over predicted", AT(over_predicted), NUMBER, "%.2f x", 1, "over predicted",
     LIST | PAIRS},
    PHASE_COMM_FIELDS(prefill),
    PHASE_COMM_FIELDS(decode),

    {"weight_bytes", "weights (fullest rank)", AT(weight_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL, 0},
    {"kv_bytes", "KV cache (fullest rank)", AT(kv_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL, 0},
    {"scratch_bytes", "scratch (fullest rank)", AT(scratch_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL, 0},
    {"score_bytes", "scores in it (fullest rank)", AT(score_bytes), NUMBER, "%.1f KiB", 1 / 1024.0, "scores KiB",
     PAIRS},
    {"expert_load", "rows of the busiest expert over the mean", AT(expert_load), NUMBER, "%.2f x", 1, "expert load",
     LIST | PAIRS},

    {"relative_l2", "relative L2 of the logits (worst row)", AT(relative_l2), NUMBER, "%.2e", 1, "rel. L2",
     LIST | PAIRS},
    {"max_difference", "largest difference of a logit", AT(max_difference), NUMBER, "%.2e", 1, NULL, 0},
    {"top1_agreement", "top-1 agreement", AT(top1_agreement), NUMBER, "%.1f %%", 100, "top-1 %", LIST | PAIRS},
    {"verified_rows", "rows of logits compared", AT(verified_rows), NUMBER, "%.0f", 1, NULL, 0},
    {"tolerance", "tolerance", AT(tolerance), NUMBER, "%.0e", 1, NULL, 0},
    {"verified", "verified", AT(verified), TEXT, "%s", 1, "verified", LIST | PAIRS},

    {"prefill_flops", "prefill work", AT(prefill_flops), NUMBER, "%.1f GFLOP", 1e-9, NULL, 0},
    {"decode_bytes_per_step", "decode reads per step", AT(decode_bytes), NUMBER, "%.1f MB", 1e-6, NULL, 0},
    {"peak_flops", "multiply-add peak", AT(peak_flops), NUMBER, "%.1f GFLOP/s", 1e-9, NULL, 0},
    {"read_bandwidth", "read bandwidth", AT(read_bandwidth), NUMBER, "%.2f GB/s", 1e-9, NULL, 0},
    {"prefill_fraction", "prefill, fraction of the peak", AT(prefill_fraction), NUMBER, "%.1f %%", 100,
     "prefill % of peak", PAIRS},
    {"decode_fraction", "decode, fraction of the bandwidth", AT(decode_fraction), NUMBER, "%.1f %%", 100,
     "decode % of bandwidth", PAIRS},
    {"limit_ts", "limit, tokens/s", AT(avg_limit_ts), NUMBER, "%.2f", 1, "limit t/s", LIST | PAIRS},
    {"limit_fraction", "fraction of the limit", AT(limit_fraction), NUMBER, "%.1f %%", 100, "% of limit", LIST | PAIRS},
    {"samples_limit_ts", NULL, AT(limit_ts), SAMPLES, RAW},
};
enum { FIELDS = sizeof fields / sizeof *fields };

void result_clear(benchmark_result *r)
{
    record_clear(fields, FIELDS, r, sizeof *r);
}

/* ---- From the repetitions ---------------------------------------------------------------------- */

enum { TIMES = 5, LIMITS = 3 };

static void list_samples(benchmark_result *r, sample_list *all[TIMES + LIMITS])
{
    sample_list *const lists[] = {&r->ns,        &r->ts,   &r->prefill.samples, &r->first_token, &r->decode.samples,
                                  &r->bandwidth, &r->peak, &r->limit_ts};
    memcpy(all, lists, sizeof lists);
}

qwen3_status result_make_samples(benchmark_result *r, size_t n, bool roofline, qwen3_error *err)
{
    sample_list *all[TIMES + LIMITS];
    list_samples(r, all);
    for (size_t i = 0; i < TIMES + (roofline ? LIMITS : 0); i++) {
        if (!(all[i]->values = allocate(n, sizeof(double), "samples", err)))
            return err->status;
        all[i]->n = n;
    }
    return QWEN3_OK;
}

void result_free(benchmark_result *r)
{
    sample_list *all[TIMES + LIMITS];
    list_samples(r, all);
    for (size_t i = 0; i < TIMES + LIMITS; i++)
        free(all[i]->values);
    result_clear(r);
}

static void summarise(const sample_list *samples, double *average, double *deviation)
{
    *average = mean(samples->values, samples->n);
    *deviation = standard_deviation(samples->values, samples->n);
}

static void complete_phase(phase_result *p, double tokens)
{
    summarise(&p->samples, &p->ms, &p->ms_deviation);
    p->tokens_per_second = tokens / (1e-3 * p->ms);
    p->ms_per_token = p->ms / tokens;
}

static void complete_limits(benchmark_result *r)
{
    r->read_bandwidth = mean(r->bandwidth.values, r->bandwidth.n);
    r->peak_flops = mean(r->peak.values, r->peak.n);
    r->avg_limit_ts = mean(r->limit_ts.values, r->limit_ts.n);
    r->limit_fraction = r->avg_ts / r->avg_limit_ts;
    roofline_fractions(r);
}

/* Parts that were not timed have no samples. */
static void drop_samples(benchmark_result *r, bool prompt_computed)
{
    if (r->prompt == 0)
        r->prefill.samples.n = 0;
    if (!prompt_computed)
        r->first_token.n = 0;
    if (r->generate == 0)
        r->decode.samples.n = 0;
}

/* "MPI 4 ranks, hybrid 2x2, online_softmax, avx512_bf16"; one rank has no strategy. */
static void name_backend(benchmark_result *r)
{
    const bool hybrid = strcmp(r->strategy, "hybrid") == 0;
    char ranks[64] = "1 rank";
    if (r->ranks > 1)
        snprintf(ranks, sizeof ranks, "MPI %.0f ranks, %s%s%s", r->ranks, r->strategy, hybrid ? " " : "",
                 hybrid ? r->grid : "");
    snprintf(r->backend, sizeof r->backend, "%s, %s, %s", ranks, r->algorithm, r->isa);
}

void result_complete(benchmark_result *r, bool prompt_computed)
{
    const double gib = 1073741824.0;
    summarise(&r->ns, &r->avg_ns, &r->stddev_ns);
    summarise(&r->ts, &r->avg_ts, &r->stddev_ts);
    r->over_predicted = r->avg_ts / r->predicted_ts;
    r->total_ms = 0;
    if (r->prompt > 0)
        complete_phase(&r->prefill, r->batch * r->prompt);
    if (prompt_computed) {
        summarise(&r->first_token, &r->first_token_ms, &r->first_token_ms_deviation);
        r->total_ms = r->first_token_ms;
    }
    if (r->generate > 0) {
        complete_phase(&r->decode, r->batch * r->generate);
        r->ms_per_step = r->decode.ms / r->generate;
        r->total_ms += r->decode.ms;
    }
    if (r->limit_ts.n)
        complete_limits(r);
    drop_samples(r, prompt_computed);
    name_backend(r);
    snprintf(r->size_text, sizeof r->size_text, r->model_size < gib ? "%.2f MiB" : "%.2f GiB",
             r->model_size / (r->model_size < gib ? gib / 1024 : gib));
    snprintf(r->parameters_text, sizeof r->parameters_text, r->model_parameters < 1e9 ? "%.2f M" : "%.2f B",
             r->model_parameters * (r->model_parameters < 1e9 ? 1e-6 : 1e-9));
    snprintf(r->rate, sizeof r->rate, "%.2f ± %.2f", r->avg_ts, r->stddev_ts);
}

/* ---- Output ------------------------------------------------------------------------------------ */

static qwen3_status print_for_people(FILE *out, bool md, const record_list *list, result_layout layout,
                                     qwen3_error *err)
{
    grid g;
    qwen3_status status =
        layout == LAYOUT_DETAILS ? grid_columns(&g, list, err) : grid_rows(&g, list, 1u << layout, err);
    if (status == QWEN3_OK)
        grid_print(out, &g, md);
    grid_free(&g);
    return status;
}

qwen3_status results_print(FILE *out, output_format format, result_layout layout, const benchmark_result *results,
                           size_t n, qwen3_error *err)
{
    const record_list list = {fields, FIELDS, results, sizeof *results, n};
    qwen3_status status = QWEN3_OK;
    if (format == OUTPUT_CSV)
        records_print_csv(out, &list);
    else if (format == OUTPUT_JSON || format == OUTPUT_JSONL)
        status = json_print(out, records_json(&list), format == OUTPUT_JSONL, err);
    else
        status = print_for_people(out, format == OUTPUT_MD, &list, layout, err);
    return status == QWEN3_OK ? flush_output(out, "standard output", err) : status;
}
