/* options.c - the command line of benchmark_qwen3. */
#include "benchmark.h"
#include "common/program.h"

#define DEFAULT_MODEL "synthetic:0.6B"
#define MAX_TOKENS (1 << 24)
#define MAX_REPETITIONS 100000

enum { OLD_ATTENTION_STANDARD, OLD_ATTENTION_STREAMING };

/* Options that are read here and leave no trace of their own. */
typedef struct extra_options {
    int attention; /* old spelling of strategy and algorithm */
    int generate;  /* old spelling of --gen-len */
    bool use_kv_cache, no_kv_cache;
} extra_options;

/* Those that ask for a list of tests. */
static void describe_tests(benchmark_options *o, option_table *table)
{
    const option tests[] = {
#define LIST(option_name, letter, list_kind, field, least, text)                                                       \
    {.name = option_name,                                                                                              \
     .short_name = letter,                                                                                             \
     .one_dash = !(letter),                                                                                            \
     .kind = list_kind,                                                                                                \
     .value = &(field),                                                                                                \
     .min = least,                                                                                                     \
     .max = MAX_TOKENS,                                                                                                \
     .help = text}
        LIST(
            "n-prompt", 'p', OPTION_INTS, o->prompts, 0,
            "List of tests in the manner of llama-bench: prompts of N tokens, tests \"pp512\" (default 512; 0 = none)"),
        LIST("n-gen", 'n', OPTION_INTS, o->generates, 0,
             "List of tests: N tokens generated per sequence, \"tg128\" (default 128; 0 = none)"),
        LIST("pg", 0, OPTION_PAIRS, o->prompt_generate, 1,
             "List of tests: a prompt of the first and generation of the second number of tokens, timed together, "
             "\"pp512+tg128\"; also -pg"),
        LIST("n-depth", 'd', OPTION_INTS, o->depths, 0,
             "List of tests: each of them after N tokens that every sequence holds already, not timed, "
             "\"pp512 @ d2048\" (default 0)"),
#undef LIST
        {.name = "repetitions",
         .short_name = 'r',
         .kind = OPTION_INT,
         .value = &o->repetitions,
         .min = 1,
         .max = MAX_REPETITIONS,
         .help = "List of tests: how often each is run (default 5)"},
    };
    option_table_add(table, sizeof tests / sizeof *tests, tests);
}

static void describe_options(benchmark_options *o, extra_options *extra, option_table *table)
{
    const option own[] = {
        {.name = "phase",
         .kind = OPTION_CHOICE,
         .value = &o->phase,
         .choices = "prefill|decode|both",
         .help = "What is reported; decode follows a real prefill (default both)"},
        {.name = "method",
         .kind = OPTION_CHOICE,
         .value = &o->method,
         .choices = "auto|baseline|avx2|mpi|mpi+avx2",
         .help = "baseline: one rank, plain C kernels; avx2: one rank, that level; mpi: the ranks at hand, best level; "
                 "mpi+avx2: the ranks at hand, that level; auto: as mpi (default)"},
#define INTEGER(option_name, field, least, most, text)                                                                 \
    {.name = option_name, .kind = OPTION_INT, .value = &(field), .min = least, .max = most, .help = text}
        {.name = "batch-size",
         .short_name = 'b',
         .kind = OPTION_INTS,
         .value = &o->batches,
         .min = 1,
         .max = 65536,
         .help = "Sequences computed at once, \"x8\" in the name of a test; several numbers in a list of tests only "
                 "(default 1)"},
        INTEGER("prompt-len", o->prompt, 1, MAX_TOKENS, "Tokens of each prompt (default 128)"),
        INTEGER("gen-len", o->generate, 1, MAX_TOKENS, "Decode steps, each one token per sequence (default 32)"),
        INTEGER("generate", extra->generate, 1, MAX_TOKENS, "Old name of --gen-len"),
        INTEGER("iters", o->iterations, 1, 1000000, "Measured iterations (default 3)"),
        INTEGER("warmup", o->warmup, 0, 1000000,
                "Iterations before them, and before the repetitions of each test (default 1)"),
#undef INTEGER
#define FLAG(option_name, field, text) {.name = option_name, .kind = OPTION_FLAG, .value = &(field), .help = text}
        FLAG("use-kv-cache", extra->use_kv_cache, "Decode from the KV cache (default)"),
        FLAG("no-kv-cache", extra->no_kv_cache, "Decode by computing the whole sequence again for every token"),
        FLAG("compare-kv-cache", o->compare_kv_cache, "Decode both ways and report the speed-up"),
        FLAG("pairs", o->pairs, "Run every strategy with every algorithm and compare them"),
        FLAG("verify", o->verify,
             "Compare logits with one rank of plain C kernels in f32 (at most 64 rows of the prompts and 16 decode "
             "steps); exit status 1 where the relative L2 exceeds 1e-5 (f32), 1e-2 (bf16), 5e-2 (q8) or 0.5 (q4)"),
        FLAG("roofline", o->roofline,
             "Measure the limits of the machine and report the fractions reached; in a list of tests, around every "
             "repetition"),
        FLAG("verbose", o->verbose, "Report every iteration, and every rank's memory and NUMA nodes"),
#undef FLAG
        {.name = "output",
         .short_name = 'o',
         .kind = OPTION_CHOICE,
         .value = &o->output,
         .choices = "table|md|csv|json|jsonl",
         .help = "Form of the results on standard output (default table; of a list of tests md)"},
        {.name = "attention",
         .kind = OPTION_CHOICE,
         .value = &extra->attention,
         .choices = "standard|streaming",
         .help = "Deprecated: headwise with standard or online_softmax"},
    };
    model_arguments_options(&o->arguments, table);
    table->options[0].help = MODEL_SPEC_HELP " (default " DEFAULT_MODEL ")";
    describe_tests(o, table);
    option_table_add(table, sizeof own / sizeof *own, own);
}

/* Pairs of options that cannot both be meant. */
static qwen3_status check_contradictions(const command_line *line, qwen3_error *err)
{
    static const char *const pairs[][2] = {
        {"use-kv-cache", "no-kv-cache"},
        {"compare-kv-cache", "no-kv-cache"},
        {"compare-kv-cache", "use-kv-cache"},
        {"attention", "parallel-strategy"},
        {"attention", "attention-algo"},
        {"attention", "grid"},
        {"pairs", "parallel-strategy"},
        {"pairs", "attention-algo"},
        {"pairs", "attention"},
        {"pairs", "grid"},
        {"pairs", "compare-kv-cache"},
        {"generate", "gen-len"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (option_given(line, pairs[i][0]) && option_given(line, pairs[i][1]))
            return set_error(err, QWEN3_ERR_ARGUMENT, "--%s contradicts --%s: give one of them", pairs[i][0],
                             pairs[i][1]);
    return QWEN3_OK;
}

/* Whether a list of tests is asked for, and what it has no place for. */
static qwen3_status check_tests(benchmark_options *o, const command_line *line, qwen3_error *err)
{
    static const char *const others[] = {"phase",        "prompt-len",  "gen-len",          "generate", "iters",
                                         "use-kv-cache", "no-kv-cache", "compare-kv-cache", "pairs",    "verify"};
    static const char *const of_tests[] = {"n-prompt", "n-gen", "pg", "n-depth", "repetitions"};
    const char *selector = NULL;
    for (size_t i = 0; i < sizeof of_tests / sizeof *of_tests && !selector; i++)
        if (option_given(line, of_tests[i]))
            selector = of_tests[i];
    o->tests = selector != NULL;
    if (!o->tests && o->batches.n > 1)
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "--batch-size: got %zu numbers, expected one; several make a list of tests, which --n-prompt, "
                         "--n-gen, --pg, --n-depth or --repetitions ask for",
                         o->batches.n);
    for (size_t i = 0; i < sizeof others / sizeof *others && o->tests; i++)
        if (option_given(line, others[i]))
            return set_error(err, QWEN3_ERR_ARGUMENT, "--%s contradicts --%s, which asks for a list of tests",
                             others[i], selector);
    if (o->tests && !option_given(line, "output"))
        o->output = OUTPUT_MD;
    return QWEN3_OK;
}

/* Options that only mean something while decoding. */
static qwen3_status check_phase(const benchmark_options *o, const command_line *line, qwen3_error *err)
{
    static const char *const decode_only[] = {"generate", "no-kv-cache", "compare-kv-cache"};
    if (o->phase == PHASE_PREFILL)
        for (size_t i = 0; i < sizeof decode_only / sizeof *decode_only; i++)
            if (option_given(line, decode_only[i]))
                return set_error(err, QWEN3_ERR_ARGUMENT,
                                 "--%s contradicts --phase prefill: expected --phase decode or both", decode_only[i]);
    return QWEN3_OK;
}

static qwen3_status apply_method(benchmark_options *o, const command_line *line, int ranks, qwen3_error *err)
{
    static const char *const names[] = {"auto", "baseline", "avx2", "mpi", "mpi+avx2"};
    bool one_rank = o->method == METHOD_BASELINE || o->method == METHOD_AVX2;
    bool forced = one_rank || o->method == METHOD_MPI_AVX2;
    if (one_rank && ranks > 1)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--method %s: runs on one rank, started on %d; expected mpi or %s",
                         names[o->method], ranks, o->method == METHOD_AVX2 ? "mpi+avx2" : "auto");
    if (forced && option_given(line, "isa"))
        return set_error(err, QWEN3_ERR_ARGUMENT, "--isa contradicts --method %s, which sets it", names[o->method]);
    if (forced)
        o->arguments.model.isa = o->method == METHOD_BASELINE ? QWEN3_ISA_C : QWEN3_ISA_AVX2;
    return QWEN3_OK;
}

static qwen3_status check_options(benchmark_options *o, const extra_options *extra, const command_line *line, int ranks,
                                  qwen3_error *err)
{
    qwen3_status status = check_contradictions(line, err);
    if (status == QWEN3_OK)
        status = check_tests(o, line, err);
    if (status == QWEN3_OK)
        status = check_phase(o, line, err);
    if (status == QWEN3_OK)
        status = apply_method(o, line, ranks, err);
    if (status == QWEN3_OK && o->arguments.spec)
        status = model_spec_check(o->arguments.spec, "DIR or synthetic:SIZE", err);
    if (status == QWEN3_OK)
        status = model_arguments_check(&o->arguments, line, ranks, err);
    if (status != QWEN3_OK)
        return status;
    if (option_given(line, "generate"))
        o->generate = extra->generate;
    if (option_given(line, "attention")) {
        o->arguments.model.strategy = QWEN3_STRATEGY_HEAD_WISE;
        o->arguments.session.algorithm =
            extra->attention == OLD_ATTENTION_STANDARD ? QWEN3_ATTENTION_STANDARD : QWEN3_ATTENTION_ONLINE_SOFTMAX;
    }
    o->batch = o->batches.values[0];
    o->kv_cache = !extra->no_kv_cache;
    o->spec = o->arguments.spec ? o->arguments.spec : DEFAULT_MODEL;
    o->arguments.session.max_sequences = o->batch;
    o->arguments.session.max_tokens = (int64_t)o->prompt + (has_decode(o) ? o->generate : 0);
    o->arguments.model.expected_tokens = o->arguments.session.max_tokens;
    o->arguments.model.expect_decode = has_decode(o);
    return QWEN3_OK;
}

qwen3_status benchmark_options_read(benchmark_options *o, int argc, const char **argv, int rank, int ranks,
                                    bool *finished, bool *attention_given, qwen3_error *err)
{
    extra_options extra = {0};
    option_table table = {0};
    *o = (benchmark_options){.arguments = model_arguments_default(),
                             .phase = PHASE_BOTH,
                             .batches = {1, {1}},
                             .depths = {1, {0}},
                             .prompts = {1, {512}},
                             .generates = {1, {128}},
                             .repetitions = 5,
                             .prompt = 128,
                             .generate = 32,
                             .iterations = 3,
                             .warmup = 1};
    describe_options(o, &extra, &table);
    command_line line = {"benchmark_qwen3",
                         "Measure prefill and decode of a Qwen3 model on the ranks at hand",
                         table.options,
                         table.n,
                         argc,
                         argv};
    qwen3_status status = options_parse(&line, rank == 0 ? stdout : NULL, finished, err);
    if (status == QWEN3_OK && !*finished)
        status = check_options(o, &extra, &line, ranks, err);
    *attention_given = option_given(&line, "attention");
    return status;
}

void benchmark_options_free(benchmark_options *o)
{
    option spec = model_spec_option(&o->arguments.spec);
    options_free(&spec, 1);
}
