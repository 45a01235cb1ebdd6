/* Step 9: many requests at once.
 *
 * Rank 0 submits requests and steps; the other ranks follow. Each step has the next token of every answer that runs,
 * and parts of the prompts of those that have begun. All prompts here begin alike: this part is computed once. Tokens
 * come to a callback. A server would submit in other threads, and wait in qwen3_scheduler_wait.
 *
 *   mpirun -n 2 9_scheduler synthetic:tiny 8
 */
#include <stdio.h>
#include <stdlib.h>

#include "qwen3_scheduler.h"

enum { COMMON = 200, OWN = 8, ANSWER = 12, MOST_REQUESTS = 200 };

typedef struct reply {
    int32_t tokens[ANSWER];
    int n;
} reply;

/* Collects the tokens of an answer, and prints them at its end. Whether it is to go on. */
static bool take_event(void *context, const qwen3_scheduler_event *event)
{
    reply *r = context;
    if (event->token >= 0)
        r->tokens[r->n++] = event->token;
    if (event->finish == QWEN3_FINISH_NONE)
        return true;
    printf("answer %d, %d of %d tokens of its prompt were there:", (int)event->request, (int)event->cached_tokens,
           (int)event->prompt_tokens);
    for (int i = 0; i < r->n; i++)
        printf(" %d", r->tokens[i]);
    printf(" (%s)\n", event->error ? event->error->message : qwen3_finish_name(event->finish));
    return true;
}

/* On rank 0. */
static qwen3_status ask(qwen3_scheduler *scheduler, int n, reply *replies, qwen3_error *err)
{
    int32_t prompt[COMMON + OWN];
    for (int i = 0; i < COMMON; i++)
        prompt[i] = i;
    for (int k = 0; k < n; k++) {
        for (int i = 0; i < OWN; i++)
            prompt[COMMON + i] = (k + i) % 100;
        const qwen3_scheduler_request request = {.prompt = prompt,
                                                 .n_prompt = COMMON + OWN,
                                                 .max_tokens = ANSWER,
                                                 .sampling = qwen3_sampling_options_default(),
                                                 .client = (uint64_t)k % 2,
                                                 .event = take_event,
                                                 .context = &replies[k]};
        uint64_t id;
        if (qwen3_scheduler_submit(scheduler, &request, &id, err) != QWEN3_OK)
            return err->status;
    }
    while (qwen3_scheduler_wait(scheduler, 0))
        if (qwen3_scheduler_step(scheduler, err) != QWEN3_OK)
            return err->status;
    qwen3_scheduler_stats stats;
    qwen3_scheduler_get_stats(scheduler, &stats);
    printf("%d steps of %.4f s; %d tokens of prompts, %d of them shared; %d tokens generated\n", (int)stats.steps,
           stats.step_seconds / (double)stats.steps, (int)stats.prompt_tokens, (int)stats.cached_tokens,
           (int)stats.generated_tokens);
    return QWEN3_OK;
}

int main(int argc, char **argv)
{
    static reply replies[MOST_REQUESTS];
    qwen3_comm *world = NULL;
    qwen3_model *model = NULL;
    qwen3_scheduler *scheduler = NULL;
    qwen3_error err = {0};
    qwen3_status status = qwen3_init(&argc, &argv, &world, &err);
    const bool root = status != QWEN3_OK || qwen3_comm_rank(world) == 0;
    const int n = argc > 2 ? atoi(argv[2]) : 4;
    qwen3_scheduler_options options = qwen3_scheduler_options_default();
    options.max_tokens = COMMON + OWN + ANSWER;
    if (status == QWEN3_OK)
        status = qwen3_model_open(world, argc > 1 ? argv[1] : "synthetic:tiny", NULL, &model, &err);
    if (status == QWEN3_OK)
        status = qwen3_scheduler_open(model, &options, &scheduler, &err);
    if (status == QWEN3_OK && root)
        status = ask(scheduler, n < MOST_REQUESTS ? n : MOST_REQUESTS, replies, &err);
    else if (status == QWEN3_OK)
        status = qwen3_scheduler_follow(scheduler, &err);
    if (status != QWEN3_OK && root)
        fprintf(stderr, "%s on rank %d (%s): %s\n", qwen3_status_name(status), err.rank, err.host, err.message);
    qwen3_scheduler_close(scheduler);
    qwen3_model_close(model);
    qwen3_finalize();
    return status == QWEN3_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
