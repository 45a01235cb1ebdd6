/* result.h - what a test yields. */
#ifndef RESULT_H
#define RESULT_H

#include "common/origin.h"
#include "qwen3.h"

typedef enum output_format { OUTPUT_TABLE, OUTPUT_MD, OUTPUT_CSV, OUTPUT_JSON, OUTPUT_JSONL } output_format;

/* How results are laid out in table and md: one row per test, with the columns of llama-bench or with those that
 * matter for the choice of a strategy and an algorithm; or one column per test, with everything. */
typedef enum result_layout { LAYOUT_LIST, LAYOUT_PAIRS, LAYOUT_DETAILS } result_layout;

/* Prefill or decode. Times are of the slowest rank. */
typedef struct phase_result {
    sample_list samples; /* ms of each repetition */
    double ms, ms_deviation;
    double tokens_per_second, ms_per_token;
    double comm_calls[QWEN3_COMM_KINDS];      /* collectives per repetition, of the rank with most */
    double comm_bytes[QWEN3_COMM_KINDS];      /* per repetition, sum over the ranks */
    double comm_seconds[QWEN3_COMM_KINDS];    /* per repetition, maximum over the ranks */
    double comm_overlapped[QWEN3_COMM_KINDS]; /* share of the time under way in which the ranks computed, 0 to 1 */
    double comm_bytes_total, comm_seconds_total;
} phase_result;

/* Numbers that do not apply are NAN, texts that do not are empty. Names of fields are in result.c. */
typedef struct benchmark_result {
    result_origin origin;
    char model_filename[256], model_type[32], strategy[16], grid[24], algorithm[24], dtype[8], isa[16], type_kv[8],
        deterministic[4], seed[24], test[64], phase[12], tokens[12], kv_cache[4];
    double ranks, nodes, threads; /* threads of each rank */
    double model_size;            /* bytes of all weights */
    double model_parameters;
    double prompt, generate, depth, batch, repetitions, warmup;

    sample_list ns, ts; /* of each repetition: duration, tokens per second; of the phases that are reported */
    double avg_ns, stddev_ns, avg_ts, stddev_ts;
    phase_result prefill, decode;
    sample_list first_token; /* ms from the start of the prompt to the choice of the first token */
    double first_token_ms, first_token_ms_deviation;
    double ms_per_step;      /* decode: one token of every sequence */
    double total_ms;         /* first token and decode */
    double kv_cache_speedup; /* time of decode without the KV cache over that with it */

    double predicted_prefill_ms, predicted_step_ms, predicted_ts; /* by the cost model */
    double over_predicted;                                        /* avg_ts / predicted_ts */

    double weight_bytes, kv_bytes, scratch_bytes, score_bytes; /* fullest rank */
    double expert_load; /* of a prompt: rows of the busiest expert over the mean, in the mean of the layers */

    double relative_l2, max_difference, top1_agreement, verified_rows, tolerance;
    char verified[8]; /* "pass", "fail", or "" without --verify */

    double prefill_flops, decode_bytes; /* work of the prefill; bytes of one decode step */
    sample_list bandwidth, peak; /* of the machine around each repetition; with --roofline, as all that follows */
    sample_list limit_ts;        /* tokens per second that these allow */
    double read_bandwidth, peak_flops, avg_limit_ts;
    double limit_fraction; /* avg_ts / avg_limit_ts */
    double prefill_fraction, decode_fraction;

    char size_text[24], parameters_text[24], backend[96], rate[48]; /* for people */
} benchmark_result;

void result_clear(benchmark_result *r);
/* Makes room for the repetitions' values. */
qwen3_status result_make_samples(benchmark_result *r, size_t n, bool roofline, qwen3_error *err);
/* Completes what follows from the repetitions, and what is written for people. A prompt may have been computed that is
 * not reported. */
void result_complete(benchmark_result *r, bool prompt_computed);
void result_free(benchmark_result *r);
qwen3_status results_print(FILE *out, output_format format, result_layout layout, const benchmark_result *results,
                           size_t n, qwen3_error *err);

#endif
