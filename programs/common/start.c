/* start.c - see start.h. */
#include "common/start.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/program.h"

/* ---- Waiting for all ranks ----------------------------------------------------------------------- */

#define TIMEOUT_VARIABLE "QWEN3_START_TIMEOUT"
#define STACK_BYTES ((size_t)256 << 10)

enum {
    DEFAULT_SECONDS = 60,
    MOST_SECONDS = 1000000,
    /* Between the message and the end: launchers end all ranks when the first one has, and the first one of another
     * host must have had the time to print too. */
    GRACE_SECONDS = 2,
};

static qwen3_status read_seconds(int *seconds, qwen3_error *err)
{
    const char *text = getenv(TIMEOUT_VARIABLE);
    *seconds = DEFAULT_SECONDS;
    if (!text)
        return QWEN3_OK;
    char *end;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno || value > MOST_SECONDS)
        return set_error(err, QWEN3_ERR_ARGUMENT,
                         "environment variable " TIMEOUT_VARIABLE ": got \"%.100s\", expected seconds from 0 to %d",
                         text, (int)MOST_SECONDS);
    *seconds = (int)value;
    return QWEN3_OK;
}

static void *watch(void *arg)
{
    start_watch *w = arg;
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += w->seconds;
    pthread_mutex_lock(&w->mutex);
    while (!w->ended && pthread_cond_timedwait(&w->over, &w->mutex, &end) != ETIMEDOUT)
        ;
    const bool late = !w->ended;
    pthread_mutex_unlock(&w->mutex);
    if (!late)
        return NULL;
    char text[800];
    if (qwen3_ranks_here(text, sizeof text))
        fprintf(stderr, "qwen3: error: the ranks have not come together within %d s (" TIMEOUT_VARIABLE "): %s\n",
                w->seconds, text);
    sleep(GRACE_SECONDS);
    _exit(EXIT_ERROR);
}

/* No signal is for the watch. */
static int start_thread(start_watch *w)
{
    pthread_attr_t attributes;
    pthread_condattr_t clock;
    sigset_t all, before;
    sigfillset(&all);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->over, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&w->thread, &attributes, watch, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

qwen3_status start_watch_begin(start_watch *w, qwen3_error *err)
{
    *w = (start_watch){0};
    read_seconds(&w->seconds, err);
    if (w->seconds == 0)
        return err->status;
    const int failed = start_thread(w);
    w->running = !failed;
    return failed ? set_error(err, QWEN3_ERR_MEMORY, "cannot start a thread: %s", strerror(failed)) : err->status;
}

void start_watch_end(start_watch *w)
{
    if (!w->running)
        return;
    pthread_mutex_lock(&w->mutex);
    w->ended = true;
    pthread_cond_signal(&w->over);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->over);
    pthread_mutex_destroy(&w->mutex);
    w->running = false;
}

/* ---- Comparing how they were started --------------------------------------------------------------- */

#define NAME_BYTES 80

/* Of how many arguments an option consists that may differ from rank to rank; 0: argv[i] is no such option. */
static int own_arguments(const char *argument)
{
    static const char *const names[] = {"--threads", "--isa"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t length = strlen(names[i]);
        if (strncmp(argument, names[i], length) == 0 && (argument[length] == '\0' || argument[length] == '='))
            return argument[length] ? 1 : 2;
    }
    if (strncmp(argument, "-t", 2) == 0 &&
        (argument[2] == '\0' || argument[2] == '=' || isdigit((unsigned char)argument[2])))
        return argument[2] ? 1 : 2;
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What must be alike; returns how many. An argument is named by the one before it, which is alike if it is the first
 * to differ. items [argc + 1], names [argc + 1]. */
static size_t list_arguments(int argc, const char *const *argv, qwen3_comm_item *items, char (*names)[NAME_BYTES])
{
    size_t n = 0;
    items[n++] = (qwen3_comm_item){"program", argc > 0 ? base_name(argv[0]) : ""};
    const char *before = NULL;
    bool options = true; /* "--" ends them */
    for (int i = 1; i < argc; i++) {
        options &= strcmp(argv[i], "--") != 0;
        const int skipped = options ? own_arguments(argv[i]) : 0;
        if (skipped) {
            i += skipped - 1;
            continue;
        }
        if (before)
            snprintf(names[n], NAME_BYTES, "argument after \"%.60s\"", before);
        else
            snprintf(names[n], NAME_BYTES, "first argument");
        items[n] = (qwen3_comm_item){names[n], argv[i]};
        before = argv[i];
        n++;
    }
    return n;
}

qwen3_status start_compare(qwen3_comm *world, int argc, const char *const *argv, qwen3_error *err)
{
    const size_t room = (size_t)argc + 1;
    qwen3_comm_item *items = allocate(room, sizeof *items, "arguments", err);
    char(*names)[NAME_BYTES] = allocate(room, sizeof *names, "arguments", err);
    const size_t n = items && names ? list_arguments(argc, argv, items, names) : 0;
    const qwen3_status status =
        qwen3_comm_compare(world, "the ranks were not started alike", items, n,
                           "expected one program and the same arguments for all, but for --threads and --isa", err);
    free(items);
    free(names);
    return status;
}
