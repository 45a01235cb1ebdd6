/* main.c - benchmark_qwen3: prefill and decode of a Qwen3 model on the ranks at hand.
 *
 * The command line becomes a list of tests. For every strategy, type and number of threads in it a model is opened, and
 * its tests are timed and, with --verify, compared with a reference. The references are computed before any model is
 * open. Results are printed at the end, in the order of the list. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/loading.h"
#include "common/output_file.h"
#include "common/program.h"
#include "common/thread_warning.h"
#include "common/topology.h"

/* Lines about ranks without --verbose. */
#define MAX_RANK_LINES 16

static int rank_lines(const benchmark *b)
{
    return b->o.verbose ? INT32_MAX : MAX_RANK_LINES;
}

/* What takes a while is announced, by rank 0. Standard output stays empty until a model is open. */
static void announce(const benchmark *b, const char *what, const char *of, const benchmark_test *pair)
{
    if (qwen3_comm_rank(b->world) != 0)
        return;
    fprintf(stderr, "%-10s %s", what, of);
    if (pair)
        fprintf(stderr, ", %s with %s", qwen3_strategy_name(pair->strategy), qwen3_algorithm_name(pair->algorithm));
    fprintf(stderr, "\n");
}

/* The list, and whether the model can be what it needs, before anything large is read. Collective. */
static qwen3_status prepare(benchmark *b, qwen3_error *err)
{
    test_list *list = &b->list;
    if (test_list_make(list, &b->o, err) == QWEN3_OK && qwen3_config_read(b->o.spec, &b->config, err) == QWEN3_OK &&
        test_list_check(list, &b->config, err) == QWEN3_OK)
        b->parameters = count_parameters(b->o.spec, &b->config, err);
    if (err->status == QWEN3_OK)
        b->results = allocate(list->n, sizeof *b->results, "results", err);
    for (size_t i = 0; b->results && i < list->n; i++)
        result_clear(&b->results[i]);
    return qwen3_comm_agree(b->world, err);
}

/* A smaller model is over before the machine is measured. */
#define PREDICTED_BYTES ((double)(64 << 20))

/* The rates that predictions go by. Collective. */
static qwen3_status measure_rates(benchmark *b, qwen3_error *err)
{
    const qwen3_plan *plan = qwen3_model_plan(b->model);
    if (qwen3_model_bytes_per_step(b->model, INFINITY) < PREDICTED_BYTES)
        return QWEN3_OK;
    b->measured = true;
    b->measured_dtype = plan->dtype;
    return qwen3_machine_measure(b->world, plan->threads, plan->isa, plan->dtype, &b->rates, err);
}

/* Measures all types of weights for --machine. Collective. */
static qwen3_status save_machine(benchmark *b, qwen3_error *err)
{
    const qwen3_model_options *o = &b->o.arguments.model;
    output_file file = {0};
    bool root = qwen3_comm_rank(b->world) == 0;
    if (root)
        output_file_begin(&file, "--machine-save", b->o.machine_save, b->o.spec, err);
    qwen3_status status = qwen3_comm_agree(b->world, err);
    if (status == QWEN3_OK)
        status = qwen3_machine_measure(b->world, o->threads, o->isa, QWEN3_DTYPE_AUTO, &b->rates, err);
    if (status == QWEN3_OK && root)
        status = qwen3_machine_write(file.name, &b->rates, err);
    output_file_finish(&file, status, err);
    return qwen3_comm_agree(b->world, err);
}

/* Whether predictions go by what was measured before. */
static bool rates_known(const benchmark *b)
{
    const qwen3_plan *plan = qwen3_model_plan(b->model);
    return b->measured && b->rates.threads == plan->threads && b->measured_dtype == plan->dtype;
}

static bool same_model(const benchmark_test *a, const benchmark_test *b)
{
    return a->strategy == b->strategy && a->dtype == b->dtype && a->threads == b->threads;
}

/* The tests that share a model with `first`. Collective. */
static qwen3_status run_model(benchmark *b, const benchmark_test *first, qwen3_error *err)
{
    qwen3_model_options options = b->o.arguments.model;
    options.strategy = first->strategy;
    options.dtype = first->dtype;
    options.threads = first->threads;
    if (first->strategy != QWEN3_STRATEGY_HYBRID)
        options.grid_sequence = options.grid_heads = 0;
    test_list_plan(&b->list, &options);
    qwen3_status status = load_model(b->world, b->o.spec, &options, &b->model, err);
    if (status == QWEN3_OK && !b->described) {
        b->described = true;
        model_conversion_note(b->world, b->o.spec, b->model, first->dtype);
        status = topology_print(b->world, rank_lines(b), b->notes, err);
    }
    if (status == QWEN3_OK)
        status = plan_print(b->world, b->model, rank_lines(b), b->notes, err);
    if (status == QWEN3_OK && !options.machine && !rates_known(b))
        status = measure_rates(b, err);
    if (status == QWEN3_OK && b->o.verbose)
        status = placement_print(b->world, b->model, b->notes, err);
    for (size_t i = 0; i < b->list.n && status == QWEN3_OK; i++) {
        const benchmark_test *t = &b->list.tests[i];
        if (!same_model(t, first))
            continue;
        char name[64];
        test_name(t, name, sizeof name);
        announce(b, "measuring", name, b->o.pairs ? t : NULL);
        status = run_test(b, t, &b->results[i], err);
        if (status == QWEN3_OK && b->o.verify)
            status = verify_test(b, t, &b->results[i], err);
    }
    qwen3_model_close(b->model);
    b->model = NULL;
    return status;
}

/* Whether the model of a test has had its turn with an earlier one. */
static bool model_done(const test_list *list, size_t test)
{
    for (size_t i = 0; i < test; i++)
        if (same_model(&list->tests[i], &list->tests[test]))
            return true;
    return false;
}

/* Collective. */
static qwen3_status run(benchmark *b, qwen3_error *err)
{
    qwen3_status status = qwen3_comm_topology(b->world, &b->machine, err);
    if (status == QWEN3_OK && b->o.verify) {
        announce(b, "reference", "one rank, plain C kernels, f32", NULL);
        status = references_make(b, err);
    }
    for (size_t i = 0; i < b->list.n && status == QWEN3_OK; i++)
        if (!model_done(&b->list, i))
            status = run_model(b, &b->list.tests[i], err);
    return status;
}

/* Tests without the KV cache follow the same test with it. */
static void compare_kv_cache(benchmark *b)
{
    for (size_t i = 1; i < b->list.n; i++)
        if (b->o.compare_kv_cache && b->list.tests[i].generate && !b->list.tests[i].kv_cache)
            b->results[i - 1].kv_cache_speedup = b->results[i].decode.ms / b->results[i - 1].decode.ms;
}

/* Prints the results on rank 0; the exit status is the verdict of --verify, on all ranks. Collective. */
static qwen3_status report(benchmark *b, int *exit_status, qwen3_error *err)
{
    if (qwen3_comm_rank(b->world) == 0) {
        const bool few = !b->o.lists && b->list.n <= 2;
        compare_kv_cache(b);
        if (b->o.output == OUTPUT_TABLE)
            printf("\n");
        results_print(stdout, (output_format)b->o.output,
                      b->o.pairs ? LAYOUT_PAIRS
                      : few      ? LAYOUT_DETAILS
                                 : LAYOUT_LIST,
                      b->results, b->list.n, err);
        for (size_t i = 0; i < b->list.n; i++) {
            const benchmark_result *r = &b->results[i];
            if (strcmp(r->verified, "fail") != 0)
                continue;
            *exit_status = EXIT_OUT_OF_TOLERANCE;
            fprintf(stderr, "qwen3: verification failed: %s, %s with %s: relative L2 %.2e exceeds %.0e\n", r->test,
                    r->strategy, r->algorithm, r->relative_l2, r->tolerance);
        }
    }
    qwen3_status status = qwen3_comm_agree(b->world, err);
    qwen3_comm_broadcast(b->world, exit_status, sizeof *exit_status);
    return status;
}

static void free_all(benchmark *b)
{
    references_free(b);
    for (size_t i = 0; b->results && i < b->list.n; i++)
        result_free(&b->results[i]);
    free(b->results);
    test_list_free(&b->list);
    benchmark_options_free(&b->o);
}

static qwen3_status body(qwen3_comm *world, int argc, const char **argv, int *exit_status, qwen3_error *err)
{
    benchmark b = {.world = world};
    const int rank = qwen3_comm_rank(world);
    bool finished = false;

    benchmark_options_read(&b.o, argc, argv, rank, qwen3_comm_size(world), &finished, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished) {
        b.notes = b.o.output == OUTPUT_TABLE ? stdout : stderr;
        if (b.o.deprecated_attention && rank == 0)
            fprintf(stderr, "qwen3: warning: --attention is deprecated; use --parallel-strategy headwise "
                            "--attention-algo standard|online_softmax\n");
        status = threads_settle(world, b.o.arguments.model.threads, b.o.arguments.bind, err);
        if (status == QWEN3_OK)
            status = b.o.machine_save ? save_machine(&b, err) : prepare(&b, err);
        if (status == QWEN3_OK && b.o.plan)
            status = plan_run(&b, err);
        else if (status == QWEN3_OK && !b.o.machine_save)
            status = run(&b, err);
        if (status == QWEN3_OK && b.results && !b.o.plan)
            status = report(&b, exit_status, err);
    }
    free_all(&b);
    return status;
}

int main(int argc, char **argv)
{
    return program_run(argc, argv, body);
}
