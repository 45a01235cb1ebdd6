/* test_parallel_strategies - every parallel strategy x attention algorithm, over the ranks it is started with,
 * against a reference. Rank 0 prints tables. The exit status of every rank is 1 if anything is wrong.
 */
#include "common/options.h"
#include "common/program.h"
#include "test_parallel_strategies/checks.h"

static qwen3_status body(qwen3_comm *world, int argc, const char **argv, int *exit_status, qwen3_error *err)
{
    check_options options = {.seed = 1, .cases = 3};
    int output = CHECK_TABLE;
    option table[] = {
        {.name = "seed", .kind = OPTION_UINT64, .value = &options.seed, .help = "Seed of the random cases (default 1)"},
        {.name = "cases",
         .kind = OPTION_INT,
         .value = &options.cases,
         .max = 100000,
         .help = "Random cases per shape class (default 3)"},
        {.name = "verbose", .kind = OPTION_FLAG, .value = &options.verbose, .help = "Print every case"},
        {.name = "output",
         .short_name = 'o',
         .kind = OPTION_CHOICE,
         .value = &output,
         .choices = "table|csv|json|jsonl",
         .help = "Form of the results on standard output (default table)"},
        {.name = "deterministic",
         .kind = OPTION_FLAG,
         .value = &options.deterministic,
         .help = "The model with this option must give the bits of one rank and thread"},
    };
    const size_t n = sizeof table / sizeof *table;
    command_line line = {"test_parallel_strategies",
                         "Check every parallel strategy and attention algorithm on the ranks at hand",
                         table,
                         n,
                         argc,
                         argv};
    bool speak = qwen3_comm_rank(world) == 0, finished = false;
    options_parse(&line, speak ? stdout : NULL, &finished, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    options_free(table, n);
    if (status != QWEN3_OK || finished)
        return status;
    qwen3_rank_info machine;
    if (qwen3_comm_topology(world, &machine, err) != QWEN3_OK)
        return err->status;
    check_report report = {.speak = speak, .output = (check_output)output, .ranks = qwen3_comm_size(world)};
    origin_describe(&report.origin, &machine);
    options.verbose = options.verbose && output == CHECK_TABLE;
    if (report_tables(&report))
        printf("%d ranks, seed %llu, isa %s\n", qwen3_comm_size(world), (unsigned long long)options.seed,
               qwen3_isa_name(qwen3_isa_best()));
    check_operators(world, &options, &report);
    check_model(world, &options, &report);
    report_finish(&report, err);
    *exit_status = report.failed > 0 || report.passed == 0 ? EXIT_OUT_OF_TOLERANCE : EXIT_OK;
    return qwen3_comm_agree(world, err);
}

int main(int argc, char **argv)
{
    return program_run(argc, argv, body);
}
