/* benchmark.h - the parts of benchmark_qwen3 and what passes between them.
 *
 *   options.c    command line -> benchmark_options
 *   test_list.c  benchmark_options -> the tests to run, and their names
 *   workload.c   the tokens of a test and the steps over them
 *   run.c        one test, timed
 *   describe.c   what was run: model, plan, machine
 *   verify.c     the same test, compared with one rank of plain C
 *   roofline.c   the work of a test against the limits of the machine
 *   predict.c    the times that the cost model predicts
 *   plan.c       --plan: predictions for every grid, without a run
 *   result.c     what a test yields, as a table of fields; records.c writes such tables in every format
 *   main.c       opens the models, runs the tests and reports
 */
#ifndef BENCHMARK_H
#define BENCHMARK_H

#include <stdio.h>

#include "common/model_arguments.h"
#include "result.h"

typedef enum benchmark_phase { PHASE_PREFILL, PHASE_DECODE, PHASE_BOTH } benchmark_phase;

typedef struct benchmark_options {
    model_arguments arguments;
    const char *spec;                                 /* of the model */
    int output;                                       /* output_format */
    int_list strategies, algorithms, dtypes, threads; /* every test with all of them */
    int_list batches, depths;
    bool lists; /* tests as those of llama-bench: */
    int_list prompts, generates, prompt_generate;
    bool phases; /* a test of --phase: a prompt and what is generated after it */
    int phase;   /* benchmark_phase */
    int_list prompt_lens, gen_lens;
    int repetitions, warmup;
    bool pairs;                /* several strategies or algorithms are compared */
    bool kv_cache;             /* false: decode computes the whole sequence again for every token */
    bool compare_kv_cache;     /* every test that generates, both ways */
    bool deprecated_attention; /* the old --attention was given */
    bool verify, roofline, verbose;
    bool plan;                 /* only predict: */
    int nodes, ranks_per_node; /* of the job that is predicted */
    bool network;              /* `across` is given */
    qwen3_link across;
    char *machine_save; /* NULL = not given */
} benchmark_options;

/* Reads and checks the command line; *finished after --help and --version. To be followed by
 * benchmark_options_free. */
qwen3_status benchmark_options_read(benchmark_options *o, int argc, const char **argv, int rank, int ranks,
                                    bool *finished, qwen3_error *err);
void benchmark_options_free(benchmark_options *o);

/* ---- The list of tests ------------------------------------------------------------------------- */

/* `prompt` tokens and then `generate` decode steps of `batch` sequences that hold `depth` tokens already. */
typedef struct benchmark_test {
    int batch, depth, prompt, generate;
    bool greedy;      /* each generated token is chosen from the logits before it; false: all are drawn by the seed */
    bool decode_only; /* the prompt is computed, but counts as depth */
    size_t shape;     /* index; the members above are the same in all tests of a shape */
    qwen3_parallel_strategy strategy;
    qwen3_attention_algorithm algorithm;
    qwen3_dtype dtype; /* of the weights */
    int threads;       /* of each rank; 0 = its share of the cores */
    bool kv_cache;
} benchmark_test;

typedef struct test_list {
    benchmark_test *tests; /* [n], those of a shape one after the other */
    size_t n, shapes;
} test_list;

qwen3_status test_list_make(test_list *list, const benchmark_options *o, qwen3_error *err);
/* Whether a model can hold every test. */
qwen3_status test_list_check(const test_list *list, const qwen3_config *config, qwen3_error *err);
/* Tells AUTO what the tests will compute. */
void test_list_plan(const test_list *list, qwen3_model_options *options);
void test_list_free(test_list *list);

/* "pp512", "tg128 x8 @ d2048", "pp128+tg32 no KV cache" */
void test_name(const benchmark_test *t, char *name, size_t size);
/* Tokens that each sequence holds in the end. */
static inline int64_t test_length(const benchmark_test *t)
{
    return (int64_t)t->depth + t->prompt + t->generate;
}
/* The prompt and the depth that a test counts. */
static inline int test_prompt(const benchmark_test *t)
{
    return t->decode_only ? 0 : t->prompt;
}
static inline int test_depth(const benchmark_test *t)
{
    return t->depth + t->prompt - test_prompt(t);
}

/* ---- Workload ---------------------------------------------------------------------------------- */

typedef struct workload {
    const benchmark_test *test;
    size_t capacity;    /* test_length + 1: the last greedy choice is not fed */
    int32_t *history;   /* [batch, capacity] tokens by position; those generated greedily as they are chosen */
    int32_t *next;      /* [rows of the largest step] argmax of the last step */
    int32_t *tokens;    /* [batch * capacity] the current step, as qwen3_batch wants it */
    int32_t *sequences; /* [batch * capacity] */
    uint8_t *wanted;    /* [batch * capacity] */
} workload;

qwen3_status workload_make(workload *w, const benchmark_test *t, uint64_t seed, int64_t vocab_size, qwen3_error *err);
void workload_free(workload *w);
/* Forgets all sequences and brings them to the depth of the test. Collective. */
qwen3_status workload_fill(workload *w, qwen3_session *session, qwen3_error *err);
/* Computes the prompts. Of each prompt the logits of `rows` positions are made, evenly spaced and ending in the last
 * one. Collective. */
qwen3_status workload_prefill(workload *w, qwen3_session *session, size_t rows, qwen3_error *err);
/* Takes the largest of the last logits, of which there are `rows` for each sequence. In a greedy test it becomes the
 * token of decode step `step`. Collective. */
qwen3_status workload_choose(workload *w, qwen3_session *session, size_t rows, size_t step, qwen3_error *err);
/* Feeds the token of `step`: from the KV cache, or by computing the whole sequences again. Collective. */
qwen3_status workload_decode(workload *w, qwen3_session *session, size_t step, bool kv_cache, qwen3_error *err);

/* ---- Running ----------------------------------------------------------------------------------- */

/* Logits of one rank of plain C kernels in f32. */
typedef struct reference {
    workload work;      /* its history is the same on all ranks */
    size_t prompt_rows; /* of each sequence */
    size_t steps;       /* decode steps */
    size_t rows, vocab; /* of all sequences, prompts and steps */
    float *logits;      /* rank 0 [rows, vocab] */
} reference;

typedef struct benchmark {
    qwen3_comm *world;
    benchmark_options o;
    FILE *notes;    /* topology and plan */
    bool described; /* the topology is in the notes */
    test_list list;
    benchmark_result *results; /* [list.n] */
    reference *references;     /* [list.shapes] with --verify, otherwise NULL */
    qwen3_config config;
    int64_t parameters;
    qwen3_rank_info machine; /* of this rank */
    qwen3_model *model;      /* the open one */
    qwen3_machine rates;     /* what predictions go by, where --machine is not given */
    bool measured;           /* they are known, for `measured_dtype` */
    qwen3_dtype measured_dtype;
} benchmark;

/* Parameters of the model; 0 where the error is set. */
int64_t count_parameters(const char *spec, const qwen3_config *config, qwen3_error *err);

/* Opens a session for the test. Collective. */
qwen3_status session_open(const benchmark *b, const benchmark_test *t, qwen3_session **session, qwen3_error *err);
/* Times the test with the open model; fills in the result on rank 0. Collective. */
qwen3_status run_test(const benchmark *b, const benchmark_test *t, benchmark_result *r, qwen3_error *err);

/* Fills in what was run, with which model on which machine. */
void describe_test(const benchmark *b, const benchmark_test *t, const qwen3_session *session, benchmark_result *r);

/* Computes the logits of every shape, which are kept to the end; rank 0 does it alone, before any other model is open,
 * so that the two are not in memory together. Collective. */
qwen3_status references_make(benchmark *b, qwen3_error *err);
void references_free(benchmark *b);
/* Compares the test with its reference; fills in the result on rank 0. Collective. */
qwen3_status verify_test(const benchmark *b, const benchmark_test *t, benchmark_result *r, qwen3_error *err);

/* ---- Predictions ------------------------------------------------------------------------------- */

/* Seconds of the prompt, and of one decode step in the middle of those of the test; 0 where it has none. */
typedef struct predicted_times {
    double prefill, step;
} predicted_times;

/* Fails as qwen3_predict does. With the details of the prompt, or else of the step, in *details. */
qwen3_status predict_times(const qwen3_scenario *s, const benchmark_test *t, predicted_times *times,
                           qwen3_prediction *details, qwen3_error *err);
/* Fills in what is predicted for the open model. */
void predict_test(const benchmark *b, const benchmark_test *t, benchmark_result *r);
/* Prints predictions for all tests with every grid and algorithm. Collective. */
qwen3_status plan_run(benchmark *b, qwen3_error *err);

/* ---- Limits of the machine --------------------------------------------------------------------- */

/* The multiply-add peak that products with weights of this type are held against. */
double roofline_peak(const qwen3_roofline *limits, qwen3_dtype dtype);
/* Of two measurements of the same limits. */
qwen3_roofline roofline_mean(const qwen3_roofline *a, const qwen3_roofline *b);
/* Tokens per second of the test that the machine's limits allow. */
double test_limit(const qwen3_model *model, const benchmark_test *t, const qwen3_roofline *limits);
/* Fractions of the limits that each phase reaches, from the work, the times and the limits in the result. */
void roofline_fractions(benchmark_result *r);

#endif
