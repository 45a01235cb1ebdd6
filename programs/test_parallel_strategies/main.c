/* test_parallel_strategies - every parallel strategy x attention algorithm, over the ranks it is started with,
 * against a reference. Prints tables on rank 0; the exit status is 1 on every rank when anything is wrong.
 */
#include <popt.h>
#include <stdio.h>
#include <stdlib.h>

#include "test_parallel_strategies/checks.h"

enum { USAGE = 2 };

/* Returns 0, or the exit status to leave with. Every rank parses the same command line. */
static int parse(int argc, char **argv, bool speak, check_options *options, bool *help)
{
    long long seed = 1;
    int cases = 3, verbose = 0, show_help = 0, status = 0;
    const struct poptOption table[] = {
        {"seed", 's', POPT_ARG_LONGLONG, &seed, 0, "Seed of the random cases (default 1)", "N"},
        {"cases", 'n', POPT_ARG_INT, &cases, 0, "Random cases per shape class (default 3)", "N"},
        {"verbose", 'v', POPT_ARG_NONE, &verbose, 0, "Print every case", NULL},
        {"help", 'h', POPT_ARG_NONE, &show_help, 0, "Show this help", NULL},
        POPT_TABLEEND,
    };
    poptContext context = poptGetContext(NULL, argc, (const char **)argv, table, 0);
    int code = poptGetNextOpt(context);
    if (code < -1) {
        if (speak)
            fprintf(stderr, "test_parallel_strategies: %s: %s\n", poptBadOption(context, 0), poptStrerror(code));
        status = USAGE;
    } else if (poptPeekArg(context) || cases < 0 || cases > 100000) {
        if (speak)
            fprintf(stderr, "test_parallel_strategies: %s\n",
                    poptPeekArg(context) ? "takes no arguments, only options" : "--cases: expected 0 to 100000");
        status = USAGE;
    } else if (show_help && speak) {
        poptPrintHelp(context, stdout, 0);
    }
    poptFreeContext(context);
    *help = show_help;
    *options = (check_options){(uint64_t)seed, cases, verbose};
    return status;
}

int main(int argc, char **argv)
{
    qwen3_comm *world;
    qwen3_error err;
    check_options options;
    tally count = {0};
    bool help;
    if (qwen3_init(&argc, &argv, &world, &err) != QWEN3_OK) {
        fprintf(stderr, "test_parallel_strategies: %s\n", err.message);
        return EXIT_FAILURE;
    }
    bool speak = qwen3_comm_rank(world) == 0;
    int status = parse(argc, argv, speak, &options, &help);
    if (status == 0 && !help) {
        if (speak)
            printf("%d ranks, seed %llu, isa %s\n", qwen3_comm_size(world), (unsigned long long)options.seed,
                   qwen3_isa_name(qwen3_isa_best()));
        check_operators(world, &options, &count);
        check_model(world, &options, &count);
        if (speak)
            printf("%d passed, %d failed\n", count.passed, count.failed);
        status = count.failed > 0 || count.passed == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    qwen3_finalize();
    return status;
}
