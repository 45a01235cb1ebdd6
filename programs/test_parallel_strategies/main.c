/* test_parallel_strategies - every parallel strategy x attention algorithm, over the ranks it is started with,
 * against a reference. Rank 0 prints tables. The exit status of every rank is 1 if anything is wrong.
 */
#include "common/options.h"
#include "common/program.h"
#include "test_parallel_strategies/checks.h"

static qwen3_status body(qwen3_comm *world, int argc, const char **argv, int *exit_status, qwen3_error *err)
{
    check_options options = {.seed = 1, .cases = 3};
    option table[] = {
        {.name = "seed", .kind = OPTION_UINT64, .value = &options.seed, .help = "Seed of the random cases (default 1)"},
        {.name = "cases",
         .kind = OPTION_INT,
         .value = &options.cases,
         .max = 100000,
         .help = "Random cases per shape class (default 3)"},
        {.name = "verbose", .kind = OPTION_FLAG, .value = &options.verbose, .help = "Print every case"},
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
    tally count = {0};
    if (speak)
        printf("%d ranks, seed %llu, isa %s\n", qwen3_comm_size(world), (unsigned long long)options.seed,
               qwen3_isa_name(qwen3_isa_best()));
    check_operators(world, &options, &count);
    check_model(world, &options, &count);
    if (speak)
        printf("%d passed, %d failed\n", count.passed, count.failed);
    *exit_status = count.failed > 0 || count.passed == 0 ? EXIT_OUT_OF_TOLERANCE : EXIT_OK;
    return QWEN3_OK;
}

int main(int argc, char **argv)
{
    return program_run(argc, argv, body);
}
