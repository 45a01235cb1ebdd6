/* model.c - the model "synthetic:tiny" over all ranks, under every strategy and algorithm, against the same model on
 * one rank: a ragged prefill of two sequences with the logits of all their tokens, then decoding through the KV
 * cache. All in f32. The one rank has plain C kernels or, where bits are compared, those of the others.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/loading.h"
#include "test_parallel_strategies/checks.h"
#include "test_parallel_strategies/problem.h"

/* Both sides round in f32 through a few layers; the library promises this against float64. */
#define TOLERANCE 1e-5

enum { DECODED = 4, SEQUENCES = 2 };

static const char spec[] = "synthetic:tiny";

/* Tokens of the two prompts. */
static const size_t lengths[][SEQUENCES] = {{1, 1}, {2, 5}, {37, 11}, {150, 70}};

enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* The logits of all forward passes one after the other, on rank 0 of `comm`; those of prompt i from start[i] on. */
typedef struct logits {
    float *data;
    size_t n, start[LENGTHS + 1];
} logits;

static size_t total_rows(void)
{
    size_t rows = 0;
    for (size_t i = 0; i < LENGTHS; i++)
        rows += lengths[i][0] + lengths[i][1] + SEQUENCES * DECODED;
    return rows;
}

/* One batch: n[s] tokens of each sequence s, whose values follow from `salt`; appends the logits of all rows. */
static qwen3_status step(qwen3_session *session, bool root, int64_t vocab, const size_t n[SEQUENCES], size_t salt,
                         logits *out, qwen3_error *err)
{
    size_t rows = n[0] + n[1];
    int32_t *tokens = checked_alloc(rows * sizeof *tokens), *sequences = checked_alloc(rows * sizeof *sequences);
    uint8_t *wanted = checked_alloc(rows);
    for (size_t i = 0; i < rows; i++) {
        sequences[i] = i >= n[0];
        size_t place = salt + (i >= n[0] ? i - n[0] : i);
        tokens[i] = (int32_t)((place * 7919 + (size_t)sequences[i] * 31 + 17) % (size_t)vocab);
        wanted[i] = 1;
    }
    qwen3_batch batch = {.n_tokens = rows, .tokens = tokens, .sequences = sequences, .logits = wanted};
    qwen3_status status = qwen3_forward(session, &batch, err);
    if (status == QWEN3_OK)
        status = qwen3_logits(session, root ? out->data + out->n : NULL, err);
    out->n += rows * (size_t)vocab;
    free(tokens);
    free(sequences);
    free(wanted);
    return status;
}

/* Prompt `i` as one batch, then DECODED decode steps of one token of each sequence. */
static qwen3_status run_prompt(qwen3_session *session, bool root, int64_t vocab, size_t i, logits *out,
                               qwen3_error *err)
{
    static const size_t one[SEQUENCES] = {1, 1};
    qwen3_status status = qwen3_session_reset(session, -1, err);
    if (status == QWEN3_OK)
        status = step(session, root, vocab, lengths[i], 0, out, err);
    for (size_t d = 0; d < DECODED && status == QWEN3_OK; d++)
        status = step(session, root, vocab, one, 1000 + d, out, err);
    out->start[i + 1] = out->n;
    return status;
}

/* All prompts. On success out->data belongs to the caller. Collective over comm. */
static qwen3_status run_model(qwen3_comm *comm, const qwen3_model_options *options, qwen3_attention_algorithm algorithm,
                              logits *out, qwen3_error *err)
{
    qwen3_model *model = NULL;
    qwen3_session *session = NULL;
    qwen3_session_options session_options = qwen3_session_options_default();
    session_options.max_sequences = SEQUENCES;
    session_options.max_tokens = 256;
    session_options.algorithm = algorithm;
    session_options.token_split_min = 16; /* short steps split weights, the long ones rows */
    qwen3_status status = load_model(comm, spec, options, &model, err);
    if (status == QWEN3_OK)
        status = qwen3_session_open(model, &session_options, &session, err);
    if (status == QWEN3_OK) {
        const int64_t vocab = qwen3_model_config(model)->vocab_size;
        out->data = checked_alloc(total_rows() * (size_t)vocab * sizeof *out->data);
        for (size_t i = 0; i < LENGTHS && status == QWEN3_OK; i++)
            status = run_prompt(session, qwen3_comm_rank(comm) == 0, vocab, i, out, err);
    }
    qwen3_session_close(session);
    qwen3_model_close(model);
    return status;
}

/* Compares on rank 0, reports, and tells all ranks whether it passed. */
static void compare(qwen3_comm *world, const logits *expected, const logits *got, const qwen3_error *err,
                    check_record line, double tolerance, check_report *report)
{
    int passed = err->status == QWEN3_OK;
    if (qwen3_comm_rank(world) == 0) {
        for (size_t i = 0; i < LENGTHS && passed; i++) {
            double difference = 0, reference = 0;
            for (size_t e = expected->start[i]; e < expected->start[i + 1]; e++) {
                double d = (double)got->data[e] - expected->data[e];
                difference += d * d;
                reference += (double)expected->data[e] * expected->data[e];
                line.largest = fabs(d) <= line.largest ? line.largest : fabs(d);
            }
            double l2 = sqrt(difference / reference);
            line.relative_l2 = l2 <= line.relative_l2 ? line.relative_l2 : l2;
        }
        passed = passed && line.relative_l2 <= tolerance;
    }
    qwen3_comm_broadcast(world, &passed, sizeof passed);
    report_add(report, line, passed);
    if (report->speak && err->status != QWEN3_OK)
        fprintf(stderr, "test_parallel_strategies: %s: rank %d (%s): %s\n", line.pair, err->rank, err->host,
                err->message);
}

static void check_pair(qwen3_comm *world, const qwen3_model_options *options, qwen3_attention_algorithm algorithm,
                       const logits *expected, check_report *report)
{
    check_record line = {.cases = LENGTHS, .over_bound = NAN};
    char *name = line.pair;
    logits got = {0};
    qwen3_error err = {0};
    qwen3_comm_stats before;
    qwen3_comm_get_stats(world, &before);
    run_model(world, options, algorithm, &got, &err);
    const traffic sent = traffic_since(world, &before);
    line.sent = traffic_of_all(world, &sent);
    int n = snprintf(name, sizeof line.pair, "%s", qwen3_strategy_name(options->strategy));
    if (options->strategy == QWEN3_STRATEGY_HYBRID)
        n += snprintf(name + n, sizeof line.pair - (size_t)n, " %dx%d", options->grid_sequence, options->grid_heads);
    snprintf(name + n, sizeof line.pair - (size_t)n, " + %s", qwen3_algorithm_name(algorithm));
    snprintf(line.class, sizeof line.class, "%s", spec);
    compare(world, expected, &got, &err, line, options->deterministic ? 0 : TOLERANCE, report);
    free(got.data);
}

/* What the ranks are compared with, on rank 0. Collective. */
static qwen3_status run_reference(qwen3_comm *world, qwen3_model_options options, qwen3_attention_algorithm algorithm,
                                  logits *expected, qwen3_error *err)
{
    options.strategy = QWEN3_STRATEGY_AUTO;
    options.grid_sequence = options.grid_heads = 0;
    if (!options.deterministic) {
        options.isa = QWEN3_ISA_C;
        algorithm = QWEN3_ATTENTION_STANDARD;
    }
    if (qwen3_comm_rank(world) == 0)
        run_model(qwen3_comm_self(), &options, algorithm, expected, err);
    return qwen3_comm_agree(world, err);
}

void check_model(qwen3_comm *world, const check_options *options, check_report *report)
{
    static const qwen3_attention_algorithm algorithms[] = {QWEN3_ATTENTION_STANDARD, QWEN3_ATTENTION_ONLINE_SOFTMAX};
    const int ranks = qwen3_comm_size(world);
    const bool root = qwen3_comm_rank(world) == 0;
    qwen3_model_options o = qwen3_model_options_default();
    o.dtype = QWEN3_DTYPE_F32;
    o.seed = options->seed;
    o.threads = 1;
    o.deterministic = options->deterministic;
    if (report_tables(report))
        printf(
            "\nThe model over %d ranks against one rank%s: two prompts and %d decoded tokens each; bytes: sent by all "
            "ranks\n",
            ranks, o.deterministic ? ", bit for bit" : " with plain C kernels", DECODED);
    for (int a = 0; a < 2; a++) {
        logits expected = {0};
        qwen3_error err = {0};
        if (run_reference(world, o, algorithms[a], &expected, &err) != QWEN3_OK) {
            if (root)
                fprintf(stderr, "test_parallel_strategies: one rank: %s\n", err.message);
            report->failed++;
            free(expected.data);
            return;
        }
        o.grid_sequence = o.grid_heads = 0;
        for (o.strategy = QWEN3_STRATEGY_HEAD_WISE; o.strategy <= QWEN3_STRATEGY_SEQUENCE; o.strategy++)
            check_pair(world, &o, algorithms[a], &expected, report);
        o.strategy = QWEN3_STRATEGY_HYBRID;
        for (o.grid_sequence = 2; o.grid_sequence < ranks; o.grid_sequence++) {
            o.grid_heads = ranks / o.grid_sequence;
            if (o.grid_sequence * o.grid_heads == ranks)
                check_pair(world, &o, algorithms[a], &expected, report);
        }
        free(expected.data);
    }
}
