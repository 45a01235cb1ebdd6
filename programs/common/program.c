/* program.c - start and end of a program, and its one error message. */
#include "common/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/signals.h"
#include "common/start.h"

void *allocate(size_t n, size_t size, const char *what, qwen3_error *err)
{
    void *memory = calloc(n ? n : 1, size);
    if (!memory)
        set_error(err, QWEN3_ERR_MEMORY, "%s: cannot allocate %zu x %zu bytes", what, n, size);
    return memory;
}

qwen3_status flush_output(FILE *file, const char *name, qwen3_error *err)
{
    errno = 0;
    if (fflush(file) != 0 || ferror(file))
        return set_error(err, QWEN3_ERR_IO, "%s: cannot write: %s", name, errno ? strerror(errno) : "write error");
    return QWEN3_OK;
}

/* Names the rank and its host only if there are several ranks. */
static void print_error(const qwen3_error *err, int ranks)
{
    fflush(stdout);
    if (err->rank >= 0 && ranks > 1)
        fprintf(stderr, "qwen3: error: rank %d on %s: %s\n", err->rank, err->host, err->message);
    else
        fprintf(stderr, "qwen3: error: %s\n", err->message);
}

/* The number that the launcher gave to this process; -1 without a launcher. */
static int launched_rank(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK",   "PMI_RANK",
                                            "MV2_COMM_WORLD_RANK",  "PALS_RANKID", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *text = getenv(variables[i]);
        if (text)
            return atoi(text);
    }
    return -1;
}

/* Of one process help and version need no other, and starting MPI takes longer than printing them. */
static bool wants_only_help(int argc, char **argv)
{
    bool wanted = argc > 1 && strcmp(argv[1], "help") == 0;
    for (int i = 1; i < argc && !wanted; i++)
        wanted = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-h") == 0 ||
                 strcmp(argv[i], "-V") == 0;
    return wanted && launched_rank() < 0;
}

static volatile sig_atomic_t several_ranks;

/* A page of a mapped file that is not there any more. Several ranks: dies of the signal when the instruction is tried
 * again, for launchers end the others then, wherever they are. */
static void report_lost_page(int signal)
{
    static const char message[] =
        "qwen3: error: a model file became shorter, or its disk failed, while it was in use\n";
    (void)signal;
    signals_run_undo();
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0 || !several_ranks)
        _exit(EXIT_ERROR);
}

/* A standard file that was closed must not become whatever is opened next, in the program or in MPI. It is opened so
 * that using it fails: input for writing, output for reading. */
static void open_standard_files(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            return;
}

/* What the tokenizer and the kernels work on is on the stack. The library checks the stacks of its threads. */
#define STACK_LEAST_KIB 192

static qwen3_status check_stack(qwen3_comm *world, qwen3_error *err)
{
    struct rlimit stack;
    if (getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur / 1024 < STACK_LEAST_KIB)
        set_error(err, QWEN3_ERR_MEMORY, "the stack is limited to %llu KiB, expected at least %d (ulimit -s)",
                  (unsigned long long)stack.rlim_cur / 1024, STACK_LEAST_KIB);
    return qwen3_comm_agree(world, err);
}

int program_run(int argc, char **argv, program_body body)
{
    qwen3_error err = {0}, fault = {0}; /* fault: before the ranks can speak to each other */
    qwen3_comm *world = NULL;
    int exit_status = EXIT_OK;
    start_watch watch = {0};

    /* A closed pipe and a file that reached its limit are failed writes, reported like any other. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    open_standard_files();
    /* UCX, below MPICH, takes SIGHUP for its debugger, before main and once more when MPI starts. */
    struct sigaction hang_up;
    sigaction(SIGHUP, NULL, &hang_up);
    if (hang_up.sa_handler != SIG_IGN)
        hang_up = (struct sigaction){.sa_handler = SIG_DFL};
    sigaction(SIGHUP, &hang_up, NULL);
    if (wants_only_help(argc, argv)) {
        world = qwen3_comm_self();
    } else {
        start_watch_begin(&watch, &fault);
        qwen3_init(&argc, &argv, &world, &err);
    }
    if (!world) {
        start_watch_end(&watch);
        /* No process reaches the others: the first one prints, before the launcher ends all because one has ended. */
        if (launched_rank() <= 0)
            print_error(&err, 1);
        else
            sleep(1);
        return EXIT_ERROR;
    }
    int rank = qwen3_comm_rank(world), ranks = qwen3_comm_size(world);
    several_ranks = ranks > 1;
    sigaction(SIGHUP, &hang_up, NULL);
    /* Behind MPI, which has a handler of its own. */
    sigaction(SIGBUS, &(struct sigaction){.sa_handler = report_lost_page, .sa_flags = (int)SA_RESETHAND}, NULL);
    err = fault;
    qwen3_status status = start_compare(world, argc, (const char *const *)argv, &err);
    start_watch_end(&watch);
    if (status == QWEN3_OK)
        status = check_stack(world, &err);
    if (status == QWEN3_OK)
        status = body(world, argc, (const char **)argv, &exit_status, &err);
    if (status == QWEN3_OK) {
        if (rank == 0)
            flush_output(stdout, "standard output", &err);
        status = qwen3_comm_agree(world, &err);
    }
    if (status != QWEN3_OK) {
        exit_status = EXIT_ERROR;
        if (rank == 0)
            print_error(&err, ranks);
    }
    qwen3_finalize();
    return exit_status;
}
