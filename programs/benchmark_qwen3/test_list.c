/* test_list.c - the tests that a command line describes: shapes, each with everything that is to be compared. */
#include <stdlib.h>

#include "benchmark.h"
#include "common/program.h"

/* ---- One test ---------------------------------------------------------------------------------- */

void test_name(const benchmark_test *t, char *name, size_t size)
{
    const int prompt = test_prompt(t), depth = test_depth(t);
    size_t used = 0;
    name[0] = '\0';
#define APPEND(...) used += (size_t)snprintf(name + used, size - used, __VA_ARGS__)
    if (prompt)
        APPEND("pp%d", prompt);
    if (t->generate)
        APPEND("%stg%d", prompt ? "+" : "", t->generate);
    if (t->batch > 1)
        APPEND(" x%d", t->batch);
    if (depth)
        APPEND(" @ d%d", depth);
    if (t->generate && !t->kv_cache)
        APPEND(" no KV cache");
#undef APPEND
}

/* ---- All of them ------------------------------------------------------------------------------- */

/* With every type, number of threads, strategy, algorithm and use of the KV cache. */
static void add_shape(test_list *list, const benchmark_options *o, benchmark_test t)
{
    const size_t strategies = o->strategies.n, algorithms = o->algorithms.n;
    const size_t threads = o->threads.n, variants = o->dtypes.n * threads * strategies * algorithms;
    if (!t.prompt && !t.generate)
        return;
    t.shape = list->shapes++;
    for (size_t i = 0; i < variants; i++) {
        t.algorithm = (qwen3_attention_algorithm)o->algorithms.values[i % algorithms];
        t.strategy = (qwen3_parallel_strategy)o->strategies.values[i / algorithms % strategies];
        t.threads = o->threads.values[i / algorithms / strategies % threads];
        t.dtype = (qwen3_dtype)o->dtypes.values[i / algorithms / strategies / threads];
        t.kv_cache = o->kv_cache;
        list->tests[list->n++] = t;
        t.kv_cache = false;
        if (o->compare_kv_cache && t.generate)
            list->tests[list->n++] = t;
    }
}

/* The test of --phase with every length of prompts and generation. */
static void add_phases(test_list *list, const benchmark_options *o, benchmark_test t)
{
    const size_t generates = o->phase == PHASE_PREFILL ? 1 : o->gen_lens.n;
    t.greedy = true;
    t.decode_only = o->phase == PHASE_DECODE;
    for (size_t p = 0; p < o->prompt_lens.n; p++)
        for (size_t g = 0; g < generates; g++) {
            t.prompt = o->prompt_lens.values[p];
            t.generate = o->phase == PHASE_PREFILL ? 0 : o->gen_lens.values[g];
            add_shape(list, o, t);
        }
}

/* Prompts, generation, both, and the test of --phase, of sequences of one depth. */
static void add_shapes(test_list *list, const benchmark_options *o, int batch, int depth)
{
    const benchmark_test empty = {.batch = batch, .depth = depth};
    benchmark_test t = empty;
    for (size_t i = 0; i < o->prompts.n && o->lists; i++) {
        t.prompt = o->prompts.values[i];
        add_shape(list, o, t);
    }
    t = empty;
    for (size_t i = 0; i < o->generates.n && o->lists; i++) {
        t.generate = o->generates.values[i];
        add_shape(list, o, t);
    }
    for (size_t i = 0; i < o->prompt_generate.n && o->lists; i += 2) {
        t.prompt = o->prompt_generate.values[i];
        t.generate = o->prompt_generate.values[i + 1];
        add_shape(list, o, t);
    }
    if (o->phases)
        add_phases(list, o, empty);
}

qwen3_status test_list_make(test_list *list, const benchmark_options *o, qwen3_error *err)
{
    const size_t phases = o->prompt_lens.n * o->gen_lens.n;
    const size_t shapes = o->prompts.n + o->generates.n + o->prompt_generate.n / 2 + phases;
    const size_t pairs = o->strategies.n * o->algorithms.n;
    const size_t variants = o->dtypes.n * o->threads.n * pairs * (o->compare_kv_cache ? 2 : 1);
    if (!(list->tests = allocate(o->depths.n * o->batches.n * shapes * variants, sizeof *list->tests, "tests", err)))
        return err->status;
    for (size_t d = 0; d < o->depths.n; d++)
        for (size_t b = 0; b < o->batches.n; b++)
            add_shapes(list, o, o->batches.values[b], o->depths.values[d]);
    if (!list->n)
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "--n-prompt and --n-gen: got 0 for both and no --pg, expected at least one test");
    bool generates = false;
    for (size_t i = 0; i < list->n; i++)
        generates |= list->tests[i].generate > 0;
    if (!generates && (o->compare_kv_cache || !o->kv_cache))
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "--%s: no test generates tokens, expected --phase decode or both, --n-gen or --pg",
                         o->compare_kv_cache ? "compare-kv-cache" : "no-kv-cache");
    return QWEN3_OK;
}

qwen3_status test_list_check(const test_list *list, const qwen3_config *config, qwen3_error *err)
{
    for (size_t i = 0; i < list->n; i++) {
        const int64_t length = test_length(&list->tests[i]);
        char name[64];
        test_name(&list->tests[i], name, sizeof name);
        if (length > config->max_positions)
            return set_error(err, QWEN3_ERR_ARGUMENT,
                             "test \"%s\": takes %lld positions (prompt, generated tokens and depth), expected at most "
                             "max_position_embeddings, %lld",
                             name, (long long)length, (long long)config->max_positions);
    }
    return QWEN3_OK;
}

void test_list_plan(const test_list *list, qwen3_model_options *options)
{
    options->expected_tokens = 0;
    options->expect_decode = false;
    for (size_t i = 0; i < list->n; i++) {
        const int64_t length = test_length(&list->tests[i]);
        options->expected_tokens = length > options->expected_tokens ? length : options->expected_tokens;
        options->expect_decode |= list->tests[i].generate > 0;
    }
}

void test_list_free(test_list *list)
{
    free(list->tests);
    *list = (test_list){0};
}
