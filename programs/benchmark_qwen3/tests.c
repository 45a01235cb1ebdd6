/* tests.c - a list of tests in the manner of llama-bench: prompts, generation, or both, of one or more sequences, empty
 * or after tokens that they hold already.
 *
 * Every test has a session of its own. A repetition forgets all sequences, computes the tokens they are to hold, which
 * is not timed, and then times the prompt as one batch and the generation as one batch per step, between barriers of
 * all ranks. Tokens are drawn by the seed, prompts and generated ones alike: nothing is sampled in the timed part. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "benchmark.h"
#include "common/program.h"
#include "common/statistics.h"
#include "common/topology.h"

/* Tokens of each sequence that are computed together on the way to the depth of a test: bounds the memory. */
#define DEPTH_CHUNK 512
#define MAX_RANK_LINES 16

typedef struct test_list {
    qwen3_comm *world;
    const benchmark_options *o;
    FILE *notes; /* topology and progress */
    qwen3_model *model;
    benchmark_test *tests; /* [n] */
    test_result *results;  /* [n] */
    size_t n;
    int64_t parameters;
    qwen3_rank_info machine; /* of this rank */
} test_list;

/* Of one test, while it runs. */
typedef struct test_run {
    const test_list *list;
    const benchmark_test *test;
    qwen3_session *session;
    workload work;
    test_result *r;
    qwen3_roofline limits; /* as last measured */
} test_run;

/* "pp512", "tg128 x8 @ d2048" */
static void name_test(const benchmark_test *t, char *name, size_t size)
{
    size_t used = 0;
    name[0] = '\0';
#define APPEND(...) used += (size_t)snprintf(name + used, size - used, __VA_ARGS__)
    if (t->prompt)
        APPEND("pp%d", t->prompt);
    if (t->generate)
        APPEND("%stg%d", t->prompt ? "+" : "", t->generate);
    if (t->batch > 1)
        APPEND(" x%d", t->batch);
    if (t->depth)
        APPEND(" @ d%d", t->depth);
#undef APPEND
}

static void add_test(test_list *list, int batch, int depth, int prompt, int generate)
{
    if (prompt || generate)
        list->tests[list->n++] = (benchmark_test){batch, depth, prompt, generate};
}

/* All combinations: by depth, by sequences, then prompts, generation, both. */
static qwen3_status make_tests(test_list *list, qwen3_error *err)
{
    const benchmark_options *o = list->o;
    const size_t shapes = o->prompts.n + o->generates.n + o->prompt_generate.n / 2;
    const size_t most = o->depths.n * o->batches.n * shapes;
    if (!(list->tests = allocate(most, sizeof *list->tests, "tests", err)) ||
        !(list->results = allocate(most, sizeof *list->results, "results", err)))
        return err->status;
    for (size_t d = 0; d < o->depths.n; d++) {
        for (size_t b = 0; b < o->batches.n; b++) {
            const int depth = o->depths.values[d], batch = o->batches.values[b];
            for (size_t i = 0; i < o->prompts.n; i++)
                add_test(list, batch, depth, o->prompts.values[i], 0);
            for (size_t i = 0; i < o->generates.n; i++)
                add_test(list, batch, depth, 0, o->generates.values[i]);
            for (size_t i = 0; i < o->prompt_generate.n; i += 2)
                add_test(list, batch, depth, o->prompt_generate.values[i], o->prompt_generate.values[i + 1]);
        }
    }
    for (size_t i = 0; i < list->n; i++)
        test_result_clear(&list->results[i]);
    if (!list->n)
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "--n-prompt and --n-gen: got 0 for both and no --pg, expected at least one test");
    return QWEN3_OK;
}

/* Whether the model can hold the tests, before anything large is read, and what it counts. Collective. */
static qwen3_status check_model(test_list *list, qwen3_error *err)
{
    qwen3_config config;
    qwen3_tensor_info *tensors = NULL;
    size_t n = 0;
    const char *spec = list->o->spec;
    if (qwen3_config_read(spec, &config, err) == QWEN3_OK)
        qwen3_model_tensors(spec, &tensors, &n, err);
    for (size_t i = 0; i < list->n && err->status == QWEN3_OK; i++) {
        const benchmark_test *t = &list->tests[i];
        const int64_t length = (int64_t)t->depth + t->prompt + t->generate;
        char name[64];
        name_test(t, name, sizeof name);
        if (length > config.max_positions)
            set_error(err, QWEN3_ERR_ARGUMENT,
                      "--n-prompt, --n-gen, --n-depth: test \"%s\" takes %lld positions, expected at most "
                      "max_position_embeddings, %lld",
                      name, (long long)length, (long long)config.max_positions);
    }
    for (size_t i = 0; i < n; i++)
        if (!(config.tie_word_embeddings && strcmp(tensors[i].name, "lm_head.weight") == 0))
            list->parameters += tensors[i].rows * tensors[i].cols;
    free(tensors);
    return qwen3_comm_agree(list->world, err);
}

/* ---- One test ---------------------------------------------------------------------------------- */

/* Collective. */
static qwen3_status measure_limits(test_run *run, qwen3_error *err)
{
    const qwen3_plan *plan = qwen3_model_plan(run->list->model);
    return qwen3_roofline_measure(run->list->world, plan->threads, plan->isa, &run->limits, err);
}

/* Forgets all sequences and brings them to the depth of the test. Collective. */
static qwen3_status fill_depth(test_run *run, qwen3_error *err)
{
    const size_t depth = (size_t)run->test->depth;
    qwen3_status status = qwen3_session_reset(run->session, -1, err);
    for (size_t begin = 0, end; begin < depth && status == QWEN3_OK; begin = end) {
        end = depth - begin > DEPTH_CHUNK ? begin + DEPTH_CHUNK : depth;
        status = workload_feed(&run->work, run->session, begin, end, 1, err);
    }
    return status;
}

/* The timed part; seconds of the slowest rank. Collective. */
static qwen3_status run_timed(test_run *run, size_t steps, double *seconds, qwen3_error *err)
{
    qwen3_comm *world = run->list->world;
    size_t at = (size_t)run->test->depth, prompt = (size_t)run->test->prompt;
    qwen3_status status = QWEN3_OK;
    qwen3_comm_barrier(world);
    const double start = seconds_now();
    if (prompt)
        status = workload_feed(&run->work, run->session, at, at + prompt, 1, err);
    at += prompt;
    for (size_t step = 0; step < steps && status == QWEN3_OK; step++, at++)
        status = workload_feed(&run->work, run->session, at, at + 1, 1, err);
    qwen3_comm_barrier(world);
    *seconds = seconds_now() - start;
    qwen3_comm_max(world, seconds, 1);
    return status;
}

/* One measured repetition: depth, limits, timed part, limits. The mean of the limits on both sides counts. Where no
 * depth lies between, those after a repetition are those before the next. Collective. */
static qwen3_status repeat(test_run *run, size_t i, qwen3_error *err)
{
    const benchmark_test *t = run->test;
    test_result *r = run->r;
    const bool roofline = run->list->o->roofline;
    double seconds = 0;
    qwen3_status status = fill_depth(run, err);
    if (status == QWEN3_OK && roofline && (t->depth || i == 0))
        status = measure_limits(run, err);
    qwen3_roofline limits = run->limits;
    if (status == QWEN3_OK)
        status = run_timed(run, (size_t)t->generate, &seconds, err);
    if (status == QWEN3_OK && roofline)
        status = measure_limits(run, err);
    if (status != QWEN3_OK)
        return status;
    r->ns.values[i] = round(1e9 * seconds);
    r->ts.values[i] = t->batch * (double)(t->prompt + t->generate) / seconds;
    if (roofline) {
        limits = roofline_mean(&limits, &run->limits);
        r->bandwidth.values[i] = limits.read_bytes_per_second;
        r->peak.values[i] = roofline_peak(&limits, qwen3_model_plan(run->list->model)->dtype);
        r->limit_ts.values[i] = test_limit(run->list->model, t, &limits);
    }
    return QWEN3_OK;
}

/* Warm-up and repetitions. A warm-up computes the prompt and one step, as that of llama-bench. Collective. */
static qwen3_status repeat_all(test_run *run, qwen3_error *err)
{
    const benchmark_options *o = run->list->o;
    const bool print = o->verbose && qwen3_comm_rank(run->list->world) == 0;
    qwen3_status status = QWEN3_OK;
    for (int i = 0; i < o->warmup && status == QWEN3_OK; i++) {
        double seconds;
        status = fill_depth(run, err);
        if (status == QWEN3_OK)
            status = run_timed(run, run->test->generate > 0, &seconds, err);
    }
    for (int i = 0; i < o->repetitions && status == QWEN3_OK; i++) {
        status = repeat(run, (size_t)i, err);
        if (status == QWEN3_OK && print)
            fprintf(run->list->notes, "repetition %d: %.3f ms, %.2f t/s\n", i + 1, 1e-6 * run->r->ns.values[i],
                    run->r->ts.values[i]);
    }
    return status;
}

/* ---- What was run ------------------------------------------------------------------------------ */

/* "qwen3 0.6B BF16": the published size of the same shape, otherwise the number of parameters. */
static void name_model(const test_list *list, const qwen3_config *c, char *name, size_t size)
{
    static const char *const published[] = {"0.6B", "1.7B", "4B", "8B", "14B", "32B"};
    char shape[16], spec[32], dtype[8];
    snprintf(shape, sizeof shape, "%.1fM", 1e-6 * (double)list->parameters);
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        qwen3_config other;
        snprintf(spec, sizeof spec, "synthetic:%s", published[i]);
        if (qwen3_config_read(spec, &other, NULL) == QWEN3_OK && other.hidden_size == c->hidden_size &&
            other.num_layers == c->num_layers && other.intermediate_size == c->intermediate_size)
            snprintf(shape, sizeof shape, "%s", published[i]);
    }
    snprintf(dtype, sizeof dtype, "%s", qwen3_dtype_name(qwen3_model_plan(list->model)->dtype));
    for (char *letter = dtype; *letter; letter++)
        *letter = (char)toupper((unsigned char)*letter);
    snprintf(name, size, "qwen3 %s %s", shape, dtype);
}

static void describe(const test_run *run)
{
    const test_list *list = run->list;
    const qwen3_plan *plan = qwen3_model_plan(list->model);
    const benchmark_test *t = run->test;
    test_result *r = run->r;
    qwen3_session_info info;
    const time_t now = time(NULL);
    struct tm utc;

    qwen3_session_get_info(run->session, &info);
    snprintf(r->version, sizeof r->version, "%s", QWEN3_VERSION);
    snprintf(r->cpu_info, sizeof r->cpu_info, "%s", list->machine.cpu);
    snprintf(r->model_filename, sizeof r->model_filename, "%s", list->o->spec);
    name_model(list, qwen3_model_config(list->model), r->model_type, sizeof r->model_type);
    snprintf(r->strategy, sizeof r->strategy, "%s", qwen3_strategy_name(plan->strategy));
    snprintf(r->grid, sizeof r->grid, "%dx%d", plan->grid_sequence, plan->grid_heads);
    snprintf(r->algorithm, sizeof r->algorithm, "%s", qwen3_algorithm_name(info.algorithm));
    snprintf(r->dtype, sizeof r->dtype, "%s", qwen3_dtype_name(plan->dtype));
    snprintf(r->isa, sizeof r->isa, "%s", qwen3_isa_name(plan->isa));
    snprintf(r->type_kv, sizeof r->type_kv, "%s", qwen3_dtype_name(plan->kv_dtype));
    snprintf(r->seed, sizeof r->seed, "%llu", (unsigned long long)list->o->arguments.model.seed);
    name_test(t, r->test, sizeof r->test);
    strftime(r->test_time, sizeof r->test_time, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    r->ranks = qwen3_comm_size(list->world);
    r->nodes = list->machine.nodes;
    r->threads = plan->threads;
    r->model_size = (double)qwen3_model_bytes_per_token(list->model);
    r->model_parameters = (double)list->parameters;
    r->prompt = t->prompt;
    r->generate = t->generate;
    r->depth = t->depth;
    r->batch = t->batch;
    r->repetitions = list->o->repetitions;
    r->warmup = list->o->warmup;
}

/* Room for the repetitions' values. */
static qwen3_status make_samples(test_result *r, size_t n, bool roofline, qwen3_error *err)
{
    sample_list *const all[] = {&r->ns, &r->ts, &r->bandwidth, &r->peak, &r->limit_ts};
    for (size_t i = 0; i < (roofline ? 5 : 2); i++) {
        if (!(all[i]->values = allocate(n, sizeof(double), "samples", err)))
            return err->status;
        all[i]->n = n;
    }
    return QWEN3_OK;
}

/* Collective. */
static qwen3_status run_test(const test_list *list, size_t i, qwen3_error *err)
{
    test_run run = {.list = list, .test = &list->tests[i], .r = &list->results[i]};
    const benchmark_test *t = run.test;
    const int64_t length = (int64_t)t->depth + t->prompt + t->generate;
    qwen3_session_options options = list->o->arguments.session;
    options.max_sequences = t->batch;
    options.max_tokens = length;
    if (make_samples(run.r, (size_t)list->o->repetitions, list->o->roofline, err) == QWEN3_OK)
        workload_make(&run.work, (size_t)t->batch, (size_t)length, 0, list->o->arguments.model.seed,
                      qwen3_model_config(list->model)->vocab_size, err);
    qwen3_status status = qwen3_comm_agree(list->world, err);
    if (status == QWEN3_OK)
        status = qwen3_session_open(list->model, &options, &run.session, err);
    if (status == QWEN3_OK) {
        describe(&run);
        if (qwen3_comm_rank(list->world) == 0) {
            fprintf(list->notes, "measuring  %s\n", run.r->test);
            fflush(list->notes);
        }
        status = repeat_all(&run, err);
        qwen3_session_close(run.session);
    }
    if (status == QWEN3_OK)
        test_result_complete(run.r);
    workload_free(&run.work);
    return status;
}

/* ---- All of them ------------------------------------------------------------------------------- */

/* The options of the one model that serves all tests: AUTO plans for the longest. */
static qwen3_model_options model_options(const test_list *list)
{
    qwen3_model_options options = list->o->arguments.model;
    options.expected_tokens = 0;
    options.expect_decode = false;
    for (size_t i = 0; i < list->n; i++) {
        const benchmark_test *t = &list->tests[i];
        const int64_t length = (int64_t)t->depth + t->prompt + t->generate;
        options.expected_tokens = length > options.expected_tokens ? length : options.expected_tokens;
        options.expect_decode |= t->generate > 0;
    }
    return options;
}

/* Collective. */
static qwen3_status run_all(test_list *list, qwen3_error *err)
{
    const qwen3_model_options options = model_options(list);
    const int lines = list->o->verbose ? INT32_MAX : MAX_RANK_LINES;
    int nodes;
    qwen3_status status = topology_print(list->world, lines, list->notes, &nodes, err);
    if (status == QWEN3_OK)
        status = qwen3_comm_topology(list->world, &list->machine, err);
    if (status == QWEN3_OK)
        status = qwen3_model_open(list->world, list->o->spec, &options, &list->model, err);
    if (status == QWEN3_OK)
        status = plan_print(list->world, list->model, lines, list->notes, err);
    if (status == QWEN3_OK && list->o->verbose)
        status = placement_print(list->world, list->model, list->notes, err);
    for (size_t i = 0; i < list->n && status == QWEN3_OK; i++)
        status = run_test(list, i, err);
    qwen3_model_close(list->model);
    return status;
}

qwen3_status tests_run(qwen3_comm *world, const benchmark_options *o, qwen3_error *err)
{
    test_list list = {.world = world, .o = o, .notes = o->output == OUTPUT_TABLE ? stdout : stderr};
    make_tests(&list, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = check_model(&list, err);
    if (status == QWEN3_OK)
        status = run_all(&list, err);
    if (status == QWEN3_OK) {
        if (qwen3_comm_rank(world) == 0)
            test_results_print(stdout, (output_format)o->output, list.results, list.n, err);
        status = qwen3_comm_agree(world, err);
    }
    for (size_t i = 0; i < list.n; i++)
        test_result_free(&list.results[i]);
    free(list.tests);
    free(list.results);
    return status;
}
