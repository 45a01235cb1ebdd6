/* serve.c - qwen3 serve: the ranks, the two threads of rank 0, and how they end.
 *
 *     thread of HTTP (rank 0)                          main thread
 *     connections, JSON, text    -- requests -->       qwen3_scheduler_step: forward passes, MPI
 *                                <--  events --        (other ranks: qwen3_scheduler_follow)
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/program.h"
#include "common/thread_warning.h"
#include "common/topology.h"
#include "qwen3/command.h"
#include "serve_options.h"
#include "service.h"

typedef struct serve_job {
    serve_options options;
    generation g; /* text, and the model; no session */
    qwen3_scheduler *scheduler;
    /* rank 0 */
    http_server *http;
    service service;
} serve_job;

/* ---- Signals ------------------------------------------------------------------------------------ */

static volatile sig_atomic_t stop_signal; /* 0 = none came */
static http_server *volatile server_to_wake;

/* The second signal ends the program as it would have done. */
static void take_signal(int number)
{
    const int fault = errno;
    stop_signal = number;
    if (server_to_wake)
        http_wake(server_to_wake);
    errno = fault;
}

/* Launchers send signals to every rank; that of rank 0 counts, and the others end with it. */
static void catch_signals(http_server *server)
{
    struct sigaction action = {.sa_handler = take_signal, .sa_flags = (int)(SA_RESTART | SA_RESETHAND)};
    server_to_wake = server;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

static void release_signals(void)
{
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    server_to_wake = NULL;
}

/* ---- Opening ------------------------------------------------------------------------------------ */

/* Collective. */
static qwen3_status open_engine(serve_job *job, qwen3_error *err)
{
    const model_arguments *a = &job->options.arguments.model;
    qwen3_scheduler_options *o = &job->options.scheduler;
    qwen3_status status = threads_settle(job->g.world, a->model.threads, a->bind, err);
    if (status == QWEN3_OK)
        status = qwen3_model_open(job->g.world, a->spec, &a->model, &job->g.model, err);
    if (status != QWEN3_OK)
        return status;
    plan_warn(job->g.world, job->g.model);
    model_conversion_note(job->g.world, a->spec, job->g.model, a->model.dtype);
    o->max_tokens = job->g.context;
    o->n_tokens = job->g.n_tokens;
    o->session = a->session;
    return qwen3_scheduler_open(job->g.model, o, &job->scheduler, err);
}

/* On rank 0. */
static void open_service(serve_job *job, const command_line *line)
{
    service *s = &job->service;
    const qwen3_config *config = qwen3_model_config(job->g.model);
    const generation *g = &job->g;
    *s = (service){.settings = &job->options.service,
                   .text = g,
                   .scheduler = job->scheduler,
                   .http = job->http,
                   .created = (int64_t)time(NULL),
                   .hidden_size = (size_t)config->hidden_size,
                   .no_output_head = config->no_output_head,
                   .stop = &stop_signal};
    s->defaults = (request_defaults){.model = job->options.service.model,
                                     .sampling = g->config.sampling,
                                     .seeded = option_given(line, "seed"),
                                     .n_tokens = g->n_tokens,
                                     .thinking = qwen3_chat_template_thinking(g->chat),
                                     .no_thinking = job->options.arguments.no_thinking};
    event_queue_open(&s->events);
}

/* ---- Running ------------------------------------------------------------------------------------ */

static void *run_http(void *context)
{
    http_run(context);
    return NULL;
}

/* Signals go to the main thread. */
static qwen3_status start_thread(serve_job *job, pthread_t *thread, qwen3_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int fault = pthread_create(thread, NULL, run_http, job->http);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return fault ? set_error(err, QWEN3_ERR_MEMORY, "cannot start a thread: %s", strerror(fault)) : QWEN3_OK;
}

/* Steps until the service is over. On rank 0. */
static qwen3_status run_steps(serve_job *job, qwen3_error *err)
{
    service *s = &job->service;
    while (!atomic_load(&s->over)) {
        qwen3_scheduler_wait(job->scheduler, INFINITY);
        if (qwen3_scheduler_step(job->scheduler, err) != QWEN3_OK) {
            service_fail(s, err);
            break;
        }
    }
    return err->status;
}

/* Rank 0 serves, the others compute with it. On rank 0 *err is what ended the server, if it did not end by a signal. */
static void serve(serve_job *job, qwen3_error *err)
{
    pthread_t thread;
    const http_handler handler = service_handler(&job->service);
    if (http_start(job->http, &handler, err) != QWEN3_OK || start_thread(job, &thread, err) != QWEN3_OK)
        return;
    fprintf(stderr, "qwen3: %s answers at %s\n", job->options.service.model, http_address(job->http));
    run_steps(job, err);
    pthread_join(thread, NULL);
    if (err->status == QWEN3_OK && !stop_signal)
        set_error(err, QWEN3_ERR_MEMORY, "the server ran out of memory");
}

/* Collective. */
static qwen3_status run_job(serve_job *job, qwen3_comm *world, const command_line *line, qwen3_error *err)
{
    qwen3_status status = generation_open_text(&job->g, world, &job->options.arguments, line, false, err);
    if (status != QWEN3_OK)
        return status;
    const bool root = job->g.rank == 0;
    if (root && serve_options_keys(&job->options, err) == QWEN3_OK)
        http_open(&job->options.http, &job->http, err);
    status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = open_engine(job, err);
    if (status != QWEN3_OK)
        return status;
    catch_signals(job->http);
    if (root) {
        open_service(job, line);
        if (qwen3_vocabulary_open(job->g.tokenizer, &job->service.vocabulary, err) == QWEN3_OK)
            serve(job, err);
        http_close(job->http);
        job->http = NULL;
    } else {
        qwen3_scheduler_follow(job->scheduler, err);
    }
    release_signals();
    qwen3_scheduler_close(job->scheduler);
    job->scheduler = NULL;
    if (root)
        service_close(&job->service);
    return qwen3_comm_agree(world, err);
}

qwen3_status command_serve(const command *self, qwen3_comm *world, int argc, const char **argv, qwen3_error *err)
{
    serve_job job = {.options = serve_options_default()};
    option_table table = {0};
    serve_options_describe(&job.options, &table);
    const int ranks = qwen3_comm_size(world);
    command_line line = {"qwen3 serve", self->summary, table.options, table.n, argc, argv};
    bool finished = false;

    if (options_parse(&line, qwen3_comm_rank(world) == 0 ? stdout : NULL, &finished, err) == QWEN3_OK && !finished)
        serve_options_check(&job.options, &line, ranks, err);
    qwen3_status status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !finished)
        status = run_job(&job, world, &line, err);
    qwen3_scheduler_close(job.scheduler);
    http_close(job.http);
    generation_close(&job.g);
    serve_options_free(&job.options);
    options_free(table.options, table.n);
    return status;
}
