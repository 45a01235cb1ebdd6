/* options.c - the command line of benchmark_qwen3. */
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"

#define DEFAULT_MODEL "synthetic:0.6B"
#define MAX_TOKENS (1 << 24)
#define MAX_REPETITIONS 1000000
#define MAX_PLANNED 4096 /* nodes, ranks of a node */

typedef enum benchmark_method {
    METHOD_AUTO,
    METHOD_BASELINE,
    METHOD_AVX2,
    METHOD_MPI,
    METHOD_MPI_AVX2
} benchmark_method;
enum { OLD_ATTENTION_STANDARD, OLD_ATTENTION_STREAMING };

/* Options that are read here and leave no trace of their own. */
typedef struct extra_options {
    int attention; /* old spelling of strategy and algorithm */
    int method;    /* benchmark_method */
    int iterations;
    bool use_kv_cache, no_kv_cache;
    char *network; /* --net, as given */
} extra_options;

/* Those that say which tests there are. */
static void describe_tests(benchmark_options *o, extra_options *extra, option_table *table)
{
    const option tests[] = {
#define LIST(option_name, letter, list_kind, field, least, most, text)                                                 \
    {.name = option_name,                                                                                              \
     .short_name = letter,                                                                                             \
     .one_dash = !(letter),                                                                                            \
     .kind = list_kind,                                                                                                \
     .value = &(field),                                                                                                \
     .min = least,                                                                                                     \
     .max = most,                                                                                                      \
     .help = text}
#define VALUES(option_name, field, least, most, text)                                                                  \
    {                                                                                                                  \
        .name = option_name, .kind = OPTION_INT, .list = true, .value = &(field), .min = least, .max = most,           \
        .help = text                                                                                                   \
    }
#define INTEGER(option_name, letter, field, least, most, text)                                                         \
    {                                                                                                                  \
        .name = option_name, .short_name = letter, .kind = OPTION_INT, .value = &(field), .min = least, .max = most,   \
        .help = text                                                                                                   \
    }
        LIST("n-prompt", 'p', OPTION_INTS, o->prompts, 0, MAX_TOKENS,
             "Tests of prompts of N tokens, as those of llama-bench: \"pp512\" (default 512; 0 = none)"),
        LIST("n-gen", 'n', OPTION_INTS, o->generates, 0, MAX_TOKENS,
             "Tests of N tokens generated per sequence: \"tg128\" (default 128; 0 = none)"),
        LIST("pg", 0, OPTION_PAIRS, o->prompt_generate, 1, MAX_TOKENS,
             "Tests of a prompt of the first and generation of the second number of tokens: \"pp512+tg128\"; also "
             "-pg"),
        {.name = "phase",
         .kind = OPTION_CHOICE,
         .value = &o->phase,
         .choices = "prefill|decode|both",
         .help = "A test of --prompt-len and --gen-len with tokens chosen greedily, and what of it is reported; decode "
                 "follows a real prefill (default both)"},
        VALUES("prompt-len", o->prompt_lens, 1, MAX_TOKENS, "That test: tokens of each prompt (default 128)"),
        VALUES("gen-len", o->gen_lens, 1, MAX_TOKENS,
               "That test: decode steps, each one token per sequence (default 32)"),
        VALUES("generate", o->gen_lens, 1, MAX_TOKENS, "Old name of --gen-len"),
        LIST("n-depth", 'd', OPTION_INTS, o->depths, 0, MAX_TOKENS,
             "Every test after N tokens that each sequence holds already, not timed: \"pp512 @ d2048\" (default 0)"),
        LIST("batch-size", 'b', OPTION_INTS, o->batches, 1, 65536,
             "Every test with N sequences computed at once: \"tg128 x8\" (default 1)"),
        INTEGER("repetitions", 'r', o->repetitions, 1, MAX_REPETITIONS,
                "How often each test is measured (default 5, 3 where --phase is the only test)"),
        INTEGER("iters", 0, extra->iterations, 1, MAX_REPETITIONS, "Same as --repetitions, without adding tests"),
        INTEGER("warmup", 0, o->warmup, 0, MAX_REPETITIONS,
                "How often a prompt and one step are computed before they are measured (default 1)"),
#undef INTEGER
#undef VALUES
#undef LIST
    };
    option_table_add(table, sizeof tests / sizeof *tests, tests);
}

/* An option of every program that may have several values here: every test is run with each. */
static void make_list(option_table *table, const char *name, int_list *list)
{
    for (size_t i = 0; i < table->n; i++) {
        option *o = &table->options[i];
        if (strcmp(o->name, name) != 0)
            continue;
        o->value = list;
        o->list = true;
    }
}

static void describe_options(benchmark_options *o, extra_options *extra, option_table *table)
{
    const option own[] = {
        {.name = "method",
         .kind = OPTION_CHOICE,
         .value = &extra->method,
         .choices = "auto|baseline|avx2|mpi|mpi+avx2",
         .help = "baseline: one rank, plain C kernels; avx2: one rank, that level; mpi: the ranks at hand, best level; "
                 "mpi+avx2: the ranks at hand, that level; auto: as mpi (default)"},
#define FLAG(option_name, field, text) {.name = option_name, .kind = OPTION_FLAG, .value = &(field), .help = text}
        FLAG("use-kv-cache", extra->use_kv_cache, "Decode from the KV cache (default)"),
        FLAG("no-kv-cache", extra->no_kv_cache, "Decode by computing the whole sequence again for every token"),
        FLAG("compare-kv-cache", o->compare_kv_cache, "Decode both ways in every test and report the speed-up"),
        FLAG("pairs", o->pairs,
             "Run every test with every strategy and every algorithm and compare them; one of the two may be listed"),
        FLAG("verify", o->verify,
             "Compare logits of every test with one rank of plain C kernels in f32 (at most 64 rows of the prompts and "
             "16 decode steps); exit status 1 where the relative L2 exceeds 1e-5 (f32), 1e-2 (bf16), 5e-2 (q8) or 0.5 "
             "(q4)"),
        FLAG("roofline", o->roofline,
             "Measure the limits of the machine around every repetition and report the fractions reached"),
        FLAG("verbose", o->verbose, "Report every repetition, and every rank's memory and NUMA nodes"),
#undef FLAG
        {.name = "output",
         .short_name = 'o',
         .kind = OPTION_CHOICE,
         .value = &o->output,
         .choices = "table|md|csv|json|jsonl",
         .help = "Form of the results on standard output (default md; table where --phase is the only test)"},
        {.name = "attention",
         .kind = OPTION_CHOICE,
         .value = &extra->attention,
         .choices = "standard|streaming",
         .help = "Deprecated: headwise with standard or online_softmax"},
        {.name = "plan",
         .kind = OPTION_FLAG,
         .value = &o->plan,
         .help = "Predict every test with every grid and algorithm from measured rates or those of --machine, and run "
                 "none (default tests: -p 64,512,2048,8192 -n 1 -d 0,2048)"},
        {.name = "nodes",
         .kind = OPTION_INT,
         .value = &o->nodes,
         .min = 1,
         .max = MAX_PLANNED,
         .help = "With --plan: of the job that is predicted (default: those at hand)"},
        {.name = "ranks-per-node",
         .kind = OPTION_INT,
         .value = &o->ranks_per_node,
         .min = 1,
         .max = MAX_PLANNED,
         .help = "With --plan: ranks that share the rates of a node equally (default: as at hand)"},
        {.name = "net",
         .kind = OPTION_TEXT,
         .value = &extra->network,
         .argument = "RATE,LATENCY",
         .help = "With --plan: the network, such as 10gbit,30us (default: that of --machine, or as measured)"},
        {.name = "machine-save",
         .kind = OPTION_TEXT,
         .value = &o->machine_save,
         .argument = "FILE",
         .help =
             "Measure the rates of the ranks at hand for all types of weights, write them for --machine, and run no "
             "test"},
    };
    model_arguments_options(&o->arguments, table);
    make_list(table, "parallel-strategy", &o->strategies);
    make_list(table, "attention-algo", &o->algorithms);
    make_list(table, "dtype", &o->dtypes);
    make_list(table, "threads", &o->threads);
    table->options[0].help = MODEL_SPEC_HELP " (default " DEFAULT_MODEL ")";
    describe_tests(o, extra, table);
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
        {"pairs", "attention"},
        {"pairs", "grid"},
        {"generate", "gen-len"},
        {"iters", "repetitions"},
        {"plan", "pairs"},
        {"plan", "verify"},
        {"plan", "roofline"},
        {"plan", "parallel-strategy"},
        {"plan", "grid"},
        {"plan", "deterministic"},
        {"machine-save", "machine"},
        {"machine-save", "plan"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (option_given(line, pairs[i][0]) && option_given(line, pairs[i][1]))
            return set_error(err, QWEN3_ERR_ARGUMENT, "--%s contradicts --%s: give one of them", pairs[i][0],
                             pairs[i][1]);
    return QWEN3_OK;
}

static bool any_given(const command_line *line, size_t n, const char *const *names)
{
    for (size_t i = 0; i < n; i++)
        if (option_given(line, names[i]))
            return true;
    return false;
}

/* Which tests the command line describes: those as of llama-bench, that of --phase, or both. What shapes either kind
 * adds the first only if nothing else says which tests there are. */
static void choose_tests(benchmark_options *o, const extra_options *extra, const command_line *line)
{
    static const char *const of_lists[] = {"n-prompt", "n-gen", "pg"};
    static const char *const of_phases[] = {"phase", "prompt-len", "gen-len", "generate"};
    static const char *const of_either[] = {"n-depth", "repetitions"};
    o->phases = any_given(line, sizeof of_phases / sizeof *of_phases, of_phases);
    o->lists = any_given(line, sizeof of_lists / sizeof *of_lists, of_lists) ||
               (!o->phases && any_given(line, sizeof of_either / sizeof *of_either, of_either));
    o->phases |= !o->lists;
    if (option_given(line, "iters"))
        o->repetitions = extra->iterations;
    else if (!option_given(line, "repetitions"))
        o->repetitions = o->lists ? 5 : 3;
    if (!option_given(line, "output"))
        o->output = o->lists ? OUTPUT_MD : OUTPUT_TABLE;
}

/* "10gbit,30us": bits per second of each node in each direction, and the time of a small message. */
static qwen3_status read_network(benchmark_options *o, const char *text, qwen3_error *err)
{
    double gbit, us;
    int used = 0;
    if (!text)
        return QWEN3_OK;
    if (sscanf(text, "%lfgbit,%lfus%n", &gbit, &us, &used) != 2 || text[used] || !(gbit > 0) || !(us > 0))
        return set_error(err, QWEN3_ERR_ARGUMENT, "--net: got \"%s\", expected RATE,LATENCY such as 10gbit,30us", text);
    o->network = true;
    o->across = (qwen3_link){1e-6 * us, 1e-6 * us, 1e9 / 8 * gbit};
    return QWEN3_OK;
}

static void set_list(int_list *list, size_t n, const int *values)
{
    list->n = n;
    memcpy(list->values, values, n * sizeof *values);
}

/* A hybrid grid with both sides larger than one exists. */
static bool has_hybrid(int ranks)
{
    for (int s = 2; s * s <= ranks; s++)
        if (ranks % s == 0)
            return true;
    return false;
}

/* Which strategies and algorithms are compared. */
static void choose_pairs(benchmark_options *o, const extra_options *extra, const command_line *line, int ranks)
{
    static const int strategies[] = {QWEN3_STRATEGY_HEAD_WISE, QWEN3_STRATEGY_SEQUENCE, QWEN3_STRATEGY_HYBRID};
    static const int algorithms[] = {QWEN3_ATTENTION_STANDARD, QWEN3_ATTENTION_ONLINE_SOFTMAX};
    o->deprecated_attention = option_given(line, "attention");
    if (o->deprecated_attention) {
        set_list(&o->strategies, 1, strategies);
        set_list(&o->algorithms, 1, &algorithms[extra->attention != OLD_ATTENTION_STANDARD]);
    }
    if (option_given(line, "grid") && !option_given(line, "parallel-strategy"))
        set_list(&o->strategies, 1, &strategies[2]);
    if (o->pairs && !option_given(line, "parallel-strategy"))
        set_list(&o->strategies, has_hybrid(ranks) ? 3 : 2, strategies);
    if (o->pairs && !option_given(line, "attention-algo"))
        set_list(&o->algorithms, 2, algorithms);
    o->pairs |= o->strategies.n > 1 || o->algorithms.n > 1;
}

/* What is not part of a test goes by the first of each list; a grid is that of hybrid. */
static void take_first(benchmark_options *o, const command_line *line)
{
    qwen3_model_options *model = &o->arguments.model;
    model->strategy = (qwen3_parallel_strategy)o->strategies.values[0];
    for (size_t i = 0; i < o->strategies.n && option_given(line, "grid"); i++)
        if (o->strategies.values[i] == QWEN3_STRATEGY_HYBRID)
            model->strategy = QWEN3_STRATEGY_HYBRID;
    model->dtype = (qwen3_dtype)o->dtypes.values[0];
    model->threads = o->threads.values[0];
}

/* Options of --plan, and its tests. */
static qwen3_status check_plan(benchmark_options *o, const extra_options *extra, const command_line *line,
                               qwen3_error *err)
{
    static const char *const only[] = {"nodes", "ranks-per-node", "net"};
    static const char *const of_tests[] = {"n-prompt", "n-gen", "pg", "phase", "prompt-len", "gen-len", "n-depth"};
    for (size_t i = 0; i < sizeof only / sizeof *only && !o->plan; i++)
        if (option_given(line, only[i]))
            return set_error(err, QWEN3_ERR_ARGUMENT, "--%s: only means something with --plan", only[i]);
    if (o->plan && o->threads.n > 1)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--plan: measures the machine with one number of threads, got %zu",
                         o->threads.n);
    if (o->plan && !any_given(line, sizeof of_tests / sizeof *of_tests, of_tests)) {
        o->lists = true;
        o->phases = false;
        o->prompts = (int_list){4, {64, 512, 2048, 8192}};
        o->generates = (int_list){1, {1}};
        o->depths = (int_list){2, {0, 2048}};
        o->output = option_given(line, "output") ? o->output : OUTPUT_MD;
    }
    return read_network(o, extra->network, err);
}

/* Options that only mean something while decoding. */
static qwen3_status check_phase(const benchmark_options *o, const command_line *line, qwen3_error *err)
{
    if (o->phase == PHASE_PREFILL && option_given(line, "generate"))
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "--generate contradicts --phase prefill: expected --phase decode or both");
    return QWEN3_OK;
}

static qwen3_status apply_method(benchmark_options *o, int method, const command_line *line, int ranks,
                                 qwen3_error *err)
{
    static const char *const names[] = {"auto", "baseline", "avx2", "mpi", "mpi+avx2"};
    bool one_rank = method == METHOD_BASELINE || method == METHOD_AVX2;
    bool forced = one_rank || method == METHOD_MPI_AVX2;
    if (one_rank && ranks > 1)
        return set_error(err, QWEN3_ERR_ARGUMENT, "--method %s: runs on one rank, started on %d; expected mpi or %s",
                         names[method], ranks, method == METHOD_AVX2 ? "mpi+avx2" : "auto");
    if (forced && option_given(line, "isa"))
        return set_error(err, QWEN3_ERR_ARGUMENT, "--isa contradicts --method %s, which sets it", names[method]);
    if (forced)
        o->arguments.model.isa = method == METHOD_BASELINE ? QWEN3_ISA_C : QWEN3_ISA_AVX2;
    return QWEN3_OK;
}

static qwen3_status check_options(benchmark_options *o, const extra_options *extra, const command_line *line, int ranks,
                                  qwen3_error *err)
{
    qwen3_status status = check_contradictions(line, err);
    if (status == QWEN3_OK)
        status = check_phase(o, line, err);
    if (status == QWEN3_OK)
        status = apply_method(o, extra->method, line, ranks, err);
    if (status != QWEN3_OK)
        return status;
    choose_pairs(o, extra, line, ranks);
    take_first(o, line);
    if (o->arguments.spec)
        status = model_spec_check(o->arguments.spec, "DIR, FILE.gguf or synthetic:SIZE", err);
    if (status == QWEN3_OK)
        status = model_arguments_check(&o->arguments, line, ranks, err);
    if (status != QWEN3_OK)
        return status;
    choose_tests(o, extra, line);
    if (check_plan(o, extra, line, err) != QWEN3_OK)
        return err->status;
    o->kv_cache = !extra->no_kv_cache;
    o->spec = o->arguments.spec ? o->arguments.spec : DEFAULT_MODEL;
    return QWEN3_OK;
}

qwen3_status benchmark_options_read(benchmark_options *o, int argc, const char **argv, int rank, int ranks,
                                    bool *finished, qwen3_error *err)
{
    extra_options extra = {0};
    option_table table = {0};
    *o = (benchmark_options){.arguments = model_arguments_default(),
                             .phase = PHASE_BOTH,
                             .batches = {1, {1}},
                             .depths = {1, {0}},
                             .prompts = {1, {512}},
                             .generates = {1, {128}},
                             .prompt_lens = {1, {128}},
                             .gen_lens = {1, {32}},
                             .strategies = {1, {QWEN3_STRATEGY_AUTO}},
                             .algorithms = {1, {QWEN3_ATTENTION_AUTO}},
                             .threads = {1, {0}},
                             .warmup = 1};
    o->dtypes = (int_list){1, {o->arguments.model.dtype}};
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
    free(extra.network);
    return status;
}

void benchmark_options_free(benchmark_options *o)
{
    option texts[] = {model_spec_option(&o->arguments.spec),
                      {.kind = OPTION_TEXT, .value = &o->arguments.machine_file},
                      {.kind = OPTION_TEXT, .value = &o->machine_save}};
    options_free(texts, sizeof texts / sizeof *texts);
}
