/* main.c - benchmark_qwen3: prefill and decode of a Qwen3 model on the ranks at hand.
 *
 * A command line with a list of tests is the matter of tests.c. Any other becomes a list of configurations (one; two
 * with --compare-kv-cache; every strategy with every algorithm with --pairs). Each is timed and, with --verify,
 * compared with the reference, which is computed once and before any model is open, so that the two are not in memory
 * together. Results are printed at the end. */
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"
#include "common/topology.h"

/* Lines about ranks without --verbose. */
#define MAX_RANK_LINES 16

typedef struct configuration {
    qwen3_parallel_strategy strategy;
    qwen3_attention_algorithm algorithm;
    bool kv_cache;
} configuration;

enum { MAX_CONFIGURATIONS = 6 };

typedef struct benchmark {
    qwen3_comm *world;
    benchmark_options o;
    FILE *notes; /* topology and progress */
    configuration list[MAX_CONFIGURATIONS];
    size_t n;
    workload work;
    reference ref;
    benchmark_result results[MAX_CONFIGURATIONS];
    qwen3_roofline limits[2]; /* before, after */
    int nodes;
} benchmark;

/* A hybrid grid with both sides larger than one exists. */
static bool has_hybrid(int ranks)
{
    for (int s = 2; s * s <= ranks; s++)
        if (ranks % s == 0)
            return true;
    return false;
}

static void list_configurations(benchmark *b)
{
    static const qwen3_parallel_strategy strategies[] = {QWEN3_STRATEGY_HEAD_WISE, QWEN3_STRATEGY_SEQUENCE,
                                                         QWEN3_STRATEGY_HYBRID};
    static const qwen3_attention_algorithm algorithms[] = {QWEN3_ATTENTION_STANDARD, QWEN3_ATTENTION_ONLINE_SOFTMAX};
    const benchmark_options *o = &b->o;
    b->n = 0;
    if (!o->pairs) {
        configuration c = {o->arguments.model.strategy, o->arguments.session.algorithm, o->kv_cache};
        b->list[b->n++] = c;
        c.kv_cache = false;
        if (o->compare_kv_cache)
            b->list[b->n++] = c;
        return;
    }
    for (size_t s = 0; s < sizeof strategies / sizeof *strategies; s++)
        for (size_t a = 0; a < sizeof algorithms / sizeof *algorithms; a++)
            if (strategies[s] != QWEN3_STRATEGY_HYBRID || has_hybrid(qwen3_comm_size(b->world)))
                b->list[b->n++] = (configuration){strategies[s], algorithms[a], o->kv_cache};
}

static int rank_lines(const benchmark *b)
{
    return b->o.verbose ? INT32_MAX : MAX_RANK_LINES;
}

/* What takes a while is announced, by rank 0. */
static void announce(const benchmark *b, const char *what, const char *of, const char *with)
{
    if (qwen3_comm_rank(b->world) == 0) {
        fprintf(b->notes, "%-10s %s%s%s\n", what, of, with ? " with " : "", with ? with : "");
        fflush(b->notes);
    }
}

/* Whether the model can be what the command line wants, before anything large is read. Collective. */
static qwen3_status check_model(benchmark *b, qwen3_error *err)
{
    qwen3_config config;
    const benchmark_options *o = &b->o;
    int64_t length = o->arguments.session.max_tokens;
    if (qwen3_config_read(o->spec, &config, err) == QWEN3_OK) {
        if (length > config.max_positions)
            set_error(err, QWEN3_ERR_ARGUMENT,
                      "--prompt-len and --gen-len: got %lld tokens together, expected at most max_position_embeddings, "
                      "%lld",
                      (long long)length, (long long)config.max_positions);
        else
            workload_make(&b->work, (size_t)o->batch, (size_t)o->prompt, has_decode(o) ? (size_t)o->generate : 0,
                          o->arguments.model.seed, config.vocab_size, err);
    }
    return qwen3_comm_agree(b->world, err);
}

/* Limits vary with what else the machine does: they are measured before the benchmark and after it. */
static qwen3_status measure_limits(benchmark *b, qwen3_roofline *limits, qwen3_error *err)
{
    const qwen3_model_options *m = &b->o.arguments.model;
    return b->o.roofline ? qwen3_roofline_measure(b->world, m->threads, m->isa, limits, err) : QWEN3_OK;
}

/* Configurations [first, end) share a strategy and so a model. Collective. */
static qwen3_status run_group(benchmark *b, size_t first, size_t end, qwen3_error *err)
{
    qwen3_model_options model_options = b->o.arguments.model;
    qwen3_session_options session_options = b->o.arguments.session;
    qwen3_model *model = NULL;

    model_options.strategy = b->list[first].strategy;
    qwen3_status status = qwen3_model_open(b->world, b->o.spec, &model_options, &model, err);
    if (status == QWEN3_OK)
        status = plan_print(b->world, model, rank_lines(b), b->notes, err);
    if (status == QWEN3_OK && b->o.verbose)
        status = placement_print(b->world, model, b->notes, err);
    for (size_t i = first; i < end && status == QWEN3_OK; i++) {
        benchmark_result *r = &b->results[i];
        session_options.algorithm = b->list[i].algorithm;
        if (b->o.pairs)
            announce(b, "measuring", qwen3_strategy_name(b->list[i].strategy),
                     qwen3_algorithm_name(b->list[i].algorithm));
        status = measure(b->world, model, &session_options, &b->o, b->list[i].kv_cache, &b->work, b->notes, r, err);
        if (status == QWEN3_OK && b->o.verify)
            status = verify(&b->ref, b->world, model, &session_options, b->list[i].kv_cache, r, err);
        r->nodes = b->nodes;
    }
    qwen3_model_close(model);
    return status;
}

/* Collective. */
static qwen3_status run(benchmark *b, qwen3_error *err)
{
    qwen3_status status = check_model(b, err);
    if (status == QWEN3_OK)
        status = topology_print(b->world, rank_lines(b), b->notes, &b->nodes, err);
    if (status == QWEN3_OK && b->o.verify) {
        announce(b, "reference", "one rank, plain C kernels, f32", NULL);
        status = reference_make(&b->ref, b->world, &b->o, err);
    }
    if (status == QWEN3_OK)
        status = measure_limits(b, &b->limits[0], err);
    for (size_t first = 0, end; first < b->n && status == QWEN3_OK; first = end) {
        for (end = first + 1; end < b->n && b->list[end].strategy == b->list[first].strategy;)
            end++;
        status = run_group(b, first, end, err);
    }
    return status == QWEN3_OK ? measure_limits(b, &b->limits[1], err) : status;
}

/* What needs more than one measurement, on rank 0. */
static void complete_results(benchmark *b)
{
    if (b->o.compare_kv_cache)
        b->results[0].kv_cache_speedup = b->results[1].decode.ms / b->results[0].decode.ms;
    const qwen3_roofline limits = roofline_mean(&b->limits[0], &b->limits[1]);
    for (size_t i = 0; b->o.roofline && i < b->n; i++)
        roofline_fractions(&b->results[i], &limits);
}

/* Prints the results on rank 0; the exit status is the verdict of --verify, on all ranks. Collective. */
static qwen3_status report(benchmark *b, int *exit_status, qwen3_error *err)
{
    if (qwen3_comm_rank(b->world) == 0) {
        complete_results(b);
        if (b->o.output == OUTPUT_TABLE)
            printf("\n");
        results_print(stdout, (output_format)b->o.output, b->results, b->n, b->o.pairs, err);
        for (size_t i = 0; i < b->n; i++) {
            const benchmark_result *r = &b->results[i];
            if (strcmp(r->verified, "fail") != 0)
                continue;
            *exit_status = EXIT_OUT_OF_TOLERANCE;
            fprintf(stderr, "qwen3: verification failed: %s with %s: relative L2 %.2e exceeds %.0e\n", r->strategy,
                    r->algorithm, r->relative_l2, r->tolerance);
        }
    }
    qwen3_status status = qwen3_comm_agree(b->world, err);
    qwen3_comm_broadcast(b->world, exit_status, sizeof *exit_status);
    return status;
}

static qwen3_status body(qwen3_comm *world, int argc, const char **argv, int *exit_status, qwen3_error *err)
{
    benchmark *b = NULL;
    bool finished = false, attention_given = false;
    int rank = qwen3_comm_rank(world);

    if ((b = allocate(1, sizeof *b, "benchmark", err)))
        benchmark_options_read(&b->o, argc, argv, rank, qwen3_comm_size(world), &finished, &attention_given, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (attention_given && rank == 0 && status == QWEN3_OK && !finished)
        fprintf(stderr, "qwen3: warning: --attention is deprecated; use --parallel-strategy headwise "
                        "--attention-algo standard|online_softmax\n");
    if (status == QWEN3_OK && b && b->o.tests && !finished) {
        status = tests_run(world, &b->o, err);
    } else if (status == QWEN3_OK && b && !finished) {
        b->world = world;
        b->notes = b->o.output == OUTPUT_TABLE ? stdout : stderr;
        list_configurations(b);
        for (size_t i = 0; i < MAX_CONFIGURATIONS; i++)
            result_clear(&b->results[i]);
        status = run(b, err);
        if (status == QWEN3_OK)
            status = report(b, exit_status, err);
    }
    if (b) {
        reference_free(&b->ref);
        workload_free(&b->work);
        benchmark_options_free(&b->o);
    }
    free(b);
    return status;
}

int main(int argc, char **argv)
{
    return program_run(argc, argv, body);
}
