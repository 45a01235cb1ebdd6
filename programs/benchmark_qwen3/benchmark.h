/* benchmark.h - the parts of benchmark_qwen3 and what passes between them.
 *
 *   options.c   command line -> benchmark_options
 *   workload.c  seeded prompts and the steps over them
 *   tests.c     a list of tests, timed                 -> test_result
 *   measure.c   one configuration, timed               -> benchmark_result
 *   verify.c    the same configuration, compared with one rank of plain C
 *   roofline.c  work done per second against the limits of the machine
 *   records.c   records as table, md, csv, json, jsonl; output.c and tests_output.c: which fields they have
 *   main.c      which configurations run, in which order
 */
#ifndef BENCHMARK_H
#define BENCHMARK_H

#include <stdio.h>

#include "common/model_arguments.h"
#include "records.h"

typedef enum benchmark_phase { PHASE_PREFILL, PHASE_DECODE, PHASE_BOTH } benchmark_phase;
typedef enum benchmark_method {
    METHOD_AUTO,
    METHOD_BASELINE,
    METHOD_AVX2,
    METHOD_MPI,
    METHOD_MPI_AVX2
} benchmark_method;
typedef enum output_format { OUTPUT_TABLE, OUTPUT_MD, OUTPUT_CSV, OUTPUT_JSON, OUTPUT_JSONL } output_format;

typedef struct benchmark_options {
    model_arguments arguments;
    const char *spec; /* of the model */
    int phase;        /* benchmark_phase */
    int method;       /* benchmark_method */
    int output;       /* output_format */
    int batch, prompt, generate, iterations, warmup;
    bool tests; /* a list of tests is asked for, by the members that follow and `warmup` */
    int_list batches, depths, prompts, generates, prompt_generate;
    int repetitions;
    bool kv_cache;         /* false: decode recomputes the whole sequence for every token */
    bool compare_kv_cache; /* both, one after the other */
    bool pairs;            /* every strategy with every algorithm */
    bool verify, roofline, verbose;
} benchmark_options;

/* Reads and checks the command line; *finished after --help and --version, *attention_given where the old
 * --attention was used. To be followed by benchmark_options_free. */
qwen3_status benchmark_options_read(benchmark_options *o, int argc, const char **argv, int rank, int ranks,
                                    bool *finished, bool *attention_given, qwen3_error *err);
void benchmark_options_free(benchmark_options *o);

static inline bool has_prefill(const benchmark_options *o)
{
    return o->phase != PHASE_DECODE;
}
static inline bool has_decode(const benchmark_options *o)
{
    return o->phase != PHASE_PREFILL;
}

/* ---- Workload ---------------------------------------------------------------------------------- */

/* `batch` sequences: prompts of `prompt` tokens, drawn by the seed, and what is generated after them. */
typedef struct workload {
    size_t batch, prompt, generate;
    size_t capacity;    /* prompt + generate + 1 */
    int32_t *history;   /* [batch, capacity] prompt, then the token fed at each decode step */
    int32_t *next;      /* [rows of the largest step] argmax of the last step */
    int32_t *tokens;    /* [batch * capacity] the step in hand, as qwen3_batch wants it */
    int32_t *sequences; /* [batch * capacity] */
    uint8_t *wanted;    /* [batch * capacity] */
} workload;

qwen3_status workload_make(workload *w, size_t batch, size_t prompt, size_t generate, uint64_t seed, int64_t vocab_size,
                           qwen3_error *err);
void workload_free(workload *w);
/* Tokens [begin, end) of every sequence as one batch; logits of `rows` evenly spaced ones of each. Collective. */
qwen3_status workload_feed(workload *w, qwen3_session *session, size_t begin, size_t end, size_t rows,
                           qwen3_error *err);
/* Forgets all sequences and computes the prompts. Of each prompt the logits of `rows` positions are made,
 * evenly spaced and ending in the last one. Collective. */
qwen3_status workload_prefill(workload *w, qwen3_session *session, size_t rows, qwen3_error *err);
/* Takes the token after the prompt (step 0), or after decode step - 1, greedily from the last logits, of which
 * there are `rows` for each sequence. Collective. */
qwen3_status workload_choose(workload *w, qwen3_session *session, size_t rows, size_t step, qwen3_error *err);
/* Feeds the token chosen for `step`: from the KV cache, or by computing the whole sequences again. Collective. */
qwen3_status workload_decode(workload *w, qwen3_session *session, size_t step, bool kv_cache, qwen3_error *err);

/* ---- Results ----------------------------------------------------------------------------------- */

/* Numbers that do not apply are NAN. Sums and maxima are over ranks. */
typedef struct phase_result {
    double ms, ms_deviation; /* per iteration, the slowest rank */
    double tokens_per_second;
    double ms_per_token;
    double comm_bytes[QWEN3_COMM_KINDS];   /* per iteration, sum */
    double comm_seconds[QWEN3_COMM_KINDS]; /* per iteration, max */
    double comm_bytes_total, comm_seconds_total;
} phase_result;

typedef struct benchmark_result {
    char model[256], strategy[16], grid[24], algorithm[24], dtype[8], isa[16], phase[12], kv_cache[4], seed[24];
    double ranks, nodes, threads, batch, prompt, generate, iterations, warmup;
    phase_result prefill, decode;
    double first_token_ms, first_token_ms_deviation;           /* prefill and the choice of the first token */
    double ms_per_step;                                        /* decode: one token of every sequence */
    double total_ms;                                           /* prefill, first token, decode */
    double kv_cache_speedup;                                   /* decode without the KV cache / with it */
    double weight_bytes, kv_bytes, scratch_bytes, score_bytes; /* fullest rank */
    double relative_l2, max_difference, top1_agreement, verified_rows, tolerance;
    char verified[8];                   /* "pass", "fail", or "" where not asked for */
    double prefill_flops, decode_bytes; /* work of one iteration; bytes of one decode step */
    double read_bandwidth, peak_flops;
    double prefill_fraction, decode_fraction;
} benchmark_result;

/* All numbers NAN, all texts empty. */
void result_clear(benchmark_result *r);

/* What a rank keeps in memory. */
typedef struct rank_memory {
    uint64_t weights, kv, scratch, scores;
} rank_memory;

/* ---- The list of tests --------------------------------------------------------------------------- */

/* `prompt` tokens and then `generate` decode steps of `batch` sequences that hold `depth` tokens already. */
typedef struct benchmark_test {
    int batch, depth, prompt, generate;
} benchmark_test;

/* Named as by llama-bench where it has the same. */
typedef struct test_result {
    char version[16], cpu_info[128], model_filename[256], model_type[32], strategy[16], grid[24], algorithm[24],
        dtype[8], isa[16], type_kv[8], test[64], test_time[24], seed[24];
    double ranks, nodes, threads; /* threads of each rank */
    double model_size;            /* bytes of weights that a step reads */
    double model_parameters;
    double prompt, generate, depth, batch, repetitions, warmup;
    sample_list ns, ts;          /* of each repetition: duration, tokens per second */
    sample_list bandwidth, peak; /* of the machine around each repetition; with --roofline, as all that follows */
    sample_list limit_ts;        /* tokens per second that these allow */
    double avg_ns, stddev_ns, avg_ts, stddev_ts;
    double avg_bandwidth, avg_peak, avg_limit_ts, fraction;         /* avg_ts / avg_limit_ts */
    char size_text[24], parameters_text[24], backend[96], rate[48]; /* for people */
} test_result;

/* Runs the tests and prints their results on rank 0. Collective. */
qwen3_status tests_run(qwen3_comm *world, const benchmark_options *o, qwen3_error *err);
/* Completes what follows from the repetitions, and what is written for people. */
void test_result_complete(test_result *r);
void test_result_clear(test_result *r);
void test_result_free(test_result *r);
qwen3_status test_results_print(FILE *out, output_format format, const test_result *results, size_t n,
                                qwen3_error *err);

/* ---- Parts ------------------------------------------------------------------------------------- */

/* Times one configuration; progress and memory per rank go to `progress` with --verbose. Fills in the result on
 * rank 0. Collective. */
qwen3_status measure(qwen3_comm *world, qwen3_model *model, const qwen3_session_options *session,
                     const benchmark_options *o, bool kv_cache, workload *w, FILE *progress, benchmark_result *r,
                     qwen3_error *err);

/* Logits of one rank of plain C kernels in f32: the yardstick. */
typedef struct reference {
    workload work;       /* its history holds the greedy continuation, the same on all ranks */
    size_t prefill_rows; /* of each sequence */
    size_t steps;        /* decode steps */
    size_t rows, vocab;
    float *logits; /* rank 0 [rows, vocab] */
} reference;

/* Collective; rank 0 computes. */
qwen3_status reference_make(reference *ref, qwen3_comm *world, const benchmark_options *o, qwen3_error *err);
void reference_free(reference *ref);
/* Compares; fills in the result on rank 0. Collective. */
qwen3_status verify(reference *ref, qwen3_comm *world, qwen3_model *model, const qwen3_session_options *session,
                    bool kv_cache, benchmark_result *r, qwen3_error *err);

/* Floating-point operations of a prefill that makes one row of logits per sequence, after `depth` cached tokens. */
double prefill_flops(const qwen3_config *c, double batch, double depth, double prompt);
/* Bytes of KV cache that a decode step reads, on average over the steps. */
double decode_kv_bytes(const qwen3_config *c, qwen3_dtype dtype, double batch, double prompt, double generate);
/* Tokens per second of a test that the machine's limits allow. */
double test_limit(const qwen3_model *model, const benchmark_test *t, const qwen3_roofline *limits);
/* The multiply-add peak that products with weights of this type are held against. */
double roofline_peak(const qwen3_roofline *limits, qwen3_dtype dtype);
/* Of two measurements of the same limits. */
qwen3_roofline roofline_mean(const qwen3_roofline *a, const qwen3_roofline *b);
/* Completes a result whose dtype is that of the model that was open, not that asked for. */
void roofline_fractions(benchmark_result *r, const qwen3_roofline *limits);

/* Results on `out`. comparison: in table and md, one line per result with the columns that matter for the choice
 * of a pair, instead of one column per result. */
qwen3_status results_print(FILE *out, output_format format, const benchmark_result *results, size_t n, bool comparison,
                           qwen3_error *err);

#endif
