/* output.c - results of configurations: which fields they have, and how they are laid out. */
#include <stddef.h>

#include "benchmark.h"
#include "common/program.h"

#define AT(member) offsetof(benchmark_result, member)
#define COMM_FIELD(phase, kind, index, quantity, unit, factor)                                                         \
    {                                                                                                                  \
        .key = #phase "_" kind "_" #quantity, .title = #phase ", " kind " " #quantity,                                 \
        .offset = AT(phase.comm_##quantity[index]), .type = COUNTER, .format = unit, .scale = factor                   \
    }
#define COMM_FIELDS(phase, kind, index)                                                                                \
    COMM_FIELD(phase, kind, index, bytes, "%.1f KiB", 1 / 1024.0),                                                     \
        COMM_FIELD(phase, kind, index, seconds, "%.3f ms", 1e3)
#define PHASE_COMM_FIELDS(phase)                                                                                       \
    COMM_FIELDS(phase, "reduce", QWEN3_COMM_REDUCE), COMM_FIELDS(phase, "kv", QWEN3_COMM_KV),                          \
        COMM_FIELDS(phase, "query", QWEN3_COMM_QUERY), COMM_FIELDS(phase, "partial", QWEN3_COMM_PARTIAL),              \
        COMM_FIELDS(phase, "logits", QWEN3_COMM_LOGITS), COMM_FIELDS(phase, "control", QWEN3_COMM_CONTROL)

static const field fields[] = {
    {"model", "model", AT(model), TEXT, "%s", 0, NULL},
    {"strategy", "strategy", AT(strategy), TEXT, "%s", 0, "strategy"},
    {"grid", "grid (S x H)", AT(grid), TEXT, "%s", 0, "grid"},
    {"algorithm", "algorithm", AT(algorithm), TEXT, "%s", 0, "algorithm"},
    {"dtype", "dtype", AT(dtype), TEXT, "%s", 0, NULL},
    {"isa", "kernels", AT(isa), TEXT, "%s", 0, NULL},
    {"phase", "phase", AT(phase), TEXT, NULL, 0, NULL},
    {"ranks", "ranks", AT(ranks), NUMBER, "%.0f", 1, NULL},
    {"nodes", "nodes", AT(nodes), NUMBER, NULL, 1, NULL},
    {"threads", "threads per rank", AT(threads), NUMBER, "%.0f", 1, NULL},
    {"batch_size", "sequences", AT(batch), NUMBER, "%.0f", 1, NULL},
    {"prompt_len", "prompt tokens each", AT(prompt), NUMBER, "%.0f", 1, NULL},
    {"gen_len", "generated tokens each", AT(generate), NUMBER, "%.0f", 1, NULL},
    {"kv_cache", "KV cache", AT(kv_cache), TEXT, "%s", 0, NULL},
    {"iters", "iterations", AT(iterations), NUMBER, "%.0f", 1, NULL},
    {"warmup", "warmup", AT(warmup), NUMBER, NULL, 1, NULL},
    {"seed", "seed", AT(seed), TEXT, NULL, 0, NULL},

    {"prefill_ms", "prefill", AT(prefill.ms), NUMBER, "%.2f ms", 1, "prefill ms"},
    {"prefill_ms_deviation", "prefill deviation", AT(prefill.ms_deviation), NUMBER, "%.2f ms", 1, NULL},
    {"prefill_ms_per_token", "prefill per token", AT(prefill.ms_per_token), NUMBER, "%.3f ms", 1, NULL},
    {"prefill_tokens_per_second", "prompt tokens/s", AT(prefill.tokens_per_second), NUMBER, "%.1f", 1, "prompt tok/s"},
    {"first_token_ms", "time to first token", AT(first_token_ms), NUMBER, "%.2f ms", 1, NULL},
    {"first_token_ms_deviation", "time to first token deviation", AT(first_token_ms_deviation), NUMBER, "%.2f ms", 1,
     NULL},
    {"decode_ms", "decode", AT(decode.ms), NUMBER, "%.2f ms", 1, NULL},
    {"decode_ms_deviation", "decode deviation", AT(decode.ms_deviation), NUMBER, "%.2f ms", 1, NULL},
    {"decode_ms_per_step", "decode per step", AT(ms_per_step), NUMBER, "%.3f ms", 1, NULL},
    {"decode_ms_per_token", "decode per token", AT(decode.ms_per_token), NUMBER, "%.3f ms", 1, "decode ms/token"},
    {"decode_tokens_per_second", "generated tokens/s", AT(decode.tokens_per_second), NUMBER, "%.2f", 1, "gen tok/s"},
    {"total_ms", "total", AT(total_ms), NUMBER, "%.2f ms", 1, "total ms"},
    {"kv_cache_speedup", "speed-up of decode by the KV cache", AT(kv_cache_speedup), NUMBER, "%.2f x", 1, NULL},

    {"prefill_comm_bytes", "prefill, communicated by all ranks", AT(prefill.comm_bytes_total), NUMBER, "%.1f KiB",
     1 / 1024.0, "prefill KiB sent"},
    {"prefill_comm_seconds", "prefill, communicating, slowest rank", AT(prefill.comm_seconds_total), NUMBER, "%.3f ms",
     1e3, NULL},
    PHASE_COMM_FIELDS(prefill),
    {"decode_comm_bytes", "decode, communicated by all ranks", AT(decode.comm_bytes_total), NUMBER, "%.1f KiB",
     1 / 1024.0, "decode KiB sent"},
    {"decode_comm_seconds", "decode, communicating, slowest rank", AT(decode.comm_seconds_total), NUMBER, "%.3f ms",
     1e3, NULL},
    PHASE_COMM_FIELDS(decode),

    {"weight_bytes", "weights (fullest rank)", AT(weight_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL},
    {"kv_bytes", "KV cache (fullest rank)", AT(kv_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL},
    {"scratch_bytes", "scratch (fullest rank)", AT(scratch_bytes), NUMBER, "%.2f MiB", 1 / 1048576.0, NULL},
    {"score_bytes", "thereof scores (fullest rank)", AT(score_bytes), NUMBER, "%.1f KiB", 1 / 1024.0, "scores KiB"},

    {"relative_l2", "relative L2 of the logits (worst row)", AT(relative_l2), NUMBER, "%.2e", 1, "rel. L2"},
    {"max_difference", "largest difference of a logit", AT(max_difference), NUMBER, "%.2e", 1, NULL},
    {"top1_agreement", "top-1 agreement", AT(top1_agreement), NUMBER, "%.1f %%", 100, "top-1 %"},
    {"verified_rows", "rows of logits compared", AT(verified_rows), NUMBER, "%.0f", 1, NULL},
    {"tolerance", "tolerance", AT(tolerance), NUMBER, "%.0e", 1, NULL},
    {"verified", "verified", AT(verified), TEXT, "%s", 0, "verified"},

    {"prefill_flops", "prefill work", AT(prefill_flops), NUMBER, "%.1f GFLOP", 1e-9, NULL},
    {"decode_bytes_per_step", "decode reads per step", AT(decode_bytes), NUMBER, "%.1f MB", 1e-6, NULL},
    {"peak_flops", "multiply-add peak", AT(peak_flops), NUMBER, "%.1f GFLOP/s", 1e-9, NULL},
    {"read_bandwidth", "read bandwidth", AT(read_bandwidth), NUMBER, "%.2f GB/s", 1e-9, NULL},
    {"prefill_fraction", "prefill, fraction of the peak", AT(prefill_fraction), NUMBER, "%.1f %%", 100,
     "prefill % of peak"},
    {"decode_fraction", "decode, fraction of the bandwidth", AT(decode_fraction), NUMBER, "%.1f %%", 100,
     "decode % of bandwidth"},
};
enum { FIELDS = sizeof fields / sizeof *fields };

void result_clear(benchmark_result *r)
{
    record_clear(fields, FIELDS, r, sizeof *r);
}

static qwen3_status print_for_people(FILE *out, bool md, const record_list *list, bool comparison, qwen3_error *err)
{
    grid g;
    qwen3_status status = comparison ? grid_rows(&g, list, err) : grid_columns(&g, list, err);
    if (status == QWEN3_OK)
        grid_print(out, &g, md);
    grid_free(&g);
    return status;
}

qwen3_status results_print(FILE *out, output_format format, const benchmark_result *results, size_t n, bool comparison,
                           qwen3_error *err)
{
    const record_list list = {fields, FIELDS, results, sizeof *results, n};
    qwen3_status status = QWEN3_OK;
    switch (format) {
    case OUTPUT_TABLE:
    case OUTPUT_MD:
        status = print_for_people(out, format == OUTPUT_MD, &list, comparison, err);
        break;
    case OUTPUT_CSV:
        records_print_csv(out, &list);
        break;
    case OUTPUT_JSON:
        status = json_print(out,
                            json_pack("{s:s, s:s, s:o}", "program", "benchmark_qwen3", "version", QWEN3_VERSION,
                                      "results", records_json(&list)),
                            false, err);
        break;
    case OUTPUT_JSONL:
        status = json_print(out, records_json(&list), true, err);
        break;
    }
    return status == QWEN3_OK ? flush_output(out, "standard output", err) : status;
}
