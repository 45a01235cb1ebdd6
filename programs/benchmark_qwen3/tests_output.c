/* tests_output.c - results of a list of tests: names of fields and columns are those of llama-bench where the meaning
 * is the same, so that what reads its results reads these, and rows can stand below its rows. */
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"
#include "common/statistics.h"

#define AT(member) offsetof(test_result, member)
#define HIDDEN NULL, 1, NULL

static const field fields[] = {
    {"version", NULL, AT(version), TEXT, HIDDEN},
    {"cpu_info", NULL, AT(cpu_info), TEXT, HIDDEN},
    {"backends", NULL, AT(backend), TEXT, HIDDEN},
    {"model_filename", NULL, AT(model_filename), TEXT, HIDDEN},
    {"model_type", NULL, AT(model_type), TEXT, NULL, 1, "model"},
    {"model_size", NULL, AT(model_size), NUMBER, HIDDEN},
    {NULL, NULL, AT(size_text), TEXT, NULL, 1, "size"},
    {"model_n_params", NULL, AT(model_parameters), NUMBER, HIDDEN},
    {NULL, NULL, AT(parameters_text), TEXT, NULL, 1, "params"},
    {NULL, NULL, AT(backend), TEXT, NULL, 1, "backend"},
    {"n_ranks", NULL, AT(ranks), NUMBER, HIDDEN},
    {"n_nodes", NULL, AT(nodes), NUMBER, HIDDEN},
    {"n_threads", NULL, AT(threads), NUMBER, "%.0f", 1, "threads"},
    {"strategy", NULL, AT(strategy), TEXT, HIDDEN},
    {"grid", NULL, AT(grid), TEXT, HIDDEN},
    {"algorithm", NULL, AT(algorithm), TEXT, HIDDEN},
    {"dtype", NULL, AT(dtype), TEXT, HIDDEN},
    {"isa", NULL, AT(isa), TEXT, HIDDEN},
    {"type_k", NULL, AT(type_kv), TEXT, HIDDEN},
    {"type_v", NULL, AT(type_kv), TEXT, HIDDEN},
    {"seed", NULL, AT(seed), TEXT, HIDDEN},
    {"batch_size", NULL, AT(batch), NUMBER, HIDDEN},
    {"n_prompt", NULL, AT(prompt), NUMBER, HIDDEN},
    {"n_gen", NULL, AT(generate), NUMBER, HIDDEN},
    {"n_depth", NULL, AT(depth), NUMBER, HIDDEN},
    {"test", NULL, AT(test), TEXT, NULL, 1, "test"},
    {"test_time", NULL, AT(test_time), TEXT, HIDDEN},
    {"repetitions", NULL, AT(repetitions), NUMBER, HIDDEN},
    {"warmup", NULL, AT(warmup), NUMBER, HIDDEN},
    {"avg_ns", NULL, AT(avg_ns), NUMBER, HIDDEN},
    {"stddev_ns", NULL, AT(stddev_ns), NUMBER, HIDDEN},
    {"avg_ts", NULL, AT(avg_ts), NUMBER, HIDDEN},
    {"stddev_ts", NULL, AT(stddev_ts), NUMBER, HIDDEN},
    {NULL, NULL, AT(rate), TEXT, NULL, 1, "t/s"},
    {"samples_ns", NULL, AT(ns), SAMPLES, HIDDEN},
    {"samples_ts", NULL, AT(ts), SAMPLES, HIDDEN},
    {"read_bandwidth", NULL, AT(avg_bandwidth), NUMBER, HIDDEN},
    {"peak_flops", NULL, AT(avg_peak), NUMBER, HIDDEN},
    {"limit_ts", NULL, AT(avg_limit_ts), NUMBER, "%.2f", 1, "limit t/s"},
    {"limit_fraction", NULL, AT(fraction), NUMBER, "%.1f", 100, "% of limit"},
    {"samples_limit_ts", NULL, AT(limit_ts), SAMPLES, HIDDEN},
};
enum { FIELDS = sizeof fields / sizeof *fields };

void test_result_clear(test_result *r)
{
    record_clear(fields, FIELDS, r, sizeof *r);
}

void test_result_free(test_result *r)
{
    sample_list *const all[] = {&r->ns, &r->ts, &r->bandwidth, &r->peak, &r->limit_ts};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->values);
    test_result_clear(r);
}

/* "MPI 4 ranks, hybrid 2x2, online_softmax, avx512_bf16"; one rank has no strategy. */
static void name_backend(test_result *r)
{
    char ranks[64] = "1 rank";
    if (r->ranks > 1)
        snprintf(ranks, sizeof ranks, "MPI %.0f ranks, %s%s%s", r->ranks, r->strategy,
                 strcmp(r->strategy, "hybrid") == 0 ? " " : "", strcmp(r->strategy, "hybrid") == 0 ? r->grid : "");
    snprintf(r->backend, sizeof r->backend, "%s, %s, %s", ranks, r->algorithm, r->isa);
}

void test_result_complete(test_result *r)
{
    const double gib = 1073741824.0;
    r->avg_ns = mean(r->ns.values, r->ns.n);
    r->stddev_ns = standard_deviation(r->ns.values, r->ns.n);
    r->avg_ts = mean(r->ts.values, r->ts.n);
    r->stddev_ts = standard_deviation(r->ts.values, r->ts.n);
    if (r->limit_ts.n) {
        r->avg_bandwidth = mean(r->bandwidth.values, r->bandwidth.n);
        r->avg_peak = mean(r->peak.values, r->peak.n);
        r->avg_limit_ts = mean(r->limit_ts.values, r->limit_ts.n);
        r->fraction = r->avg_ts / r->avg_limit_ts;
    }
    name_backend(r);
    snprintf(r->size_text, sizeof r->size_text, r->model_size < gib ? "%.2f MiB" : "%.2f GiB",
             r->model_size / (r->model_size < gib ? gib / 1024 : gib));
    snprintf(r->parameters_text, sizeof r->parameters_text, r->model_parameters < 1e9 ? "%.2f M" : "%.2f B",
             r->model_parameters * (r->model_parameters < 1e9 ? 1e-6 : 1e-9));
    snprintf(r->rate, sizeof r->rate, "%.2f ± %.2f", r->avg_ts, r->stddev_ts);
}

static qwen3_status print_for_people(FILE *out, bool md, const record_list *list, qwen3_error *err)
{
    grid g;
    qwen3_status status = grid_rows(&g, list, err);
    if (status == QWEN3_OK) {
        for (size_t column = 0; column < g.columns; column++)
            if (strcmp(cell_at(&g, 0, column), "backend") == 0)
                g.left |= (uint64_t)1 << column;
        grid_print(out, &g, md);
    }
    grid_free(&g);
    return status;
}

qwen3_status test_results_print(FILE *out, output_format format, const test_result *results, size_t n, qwen3_error *err)
{
    const record_list list = {fields, FIELDS, results, sizeof *results, n};
    qwen3_status status = QWEN3_OK;
    if (format == OUTPUT_CSV)
        records_print_csv(out, &list);
    else if (format == OUTPUT_JSON || format == OUTPUT_JSONL)
        status = json_print(out, records_json(&list), format == OUTPUT_JSONL, err);
    else
        status = print_for_people(out, format == OUTPUT_MD, &list, err);
    return status == QWEN3_OK ? flush_output(out, "standard output", err) : status;
}
