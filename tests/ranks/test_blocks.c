/* test_blocks.c - a block that fails in the middle of a step, on one rank: all ranks return its error, none waits, and
 * the session is as it was before the step.
 */
#include <string.h>

#include "check.h"
#include "engine/session.h"

enum { PROMPT = 30, LAYER = 1 };

/* Fails on rank `fails` in LAYER. */
static int fails;
static bool (*ordinary_run)(team *t, void *state, block_step *s, const block_layer *layer);

static bool failing_run(team *t, void *state, block_step *s, const block_layer *layer)
{
    if (layer->index == LAYER) {
        if (t->tid == 0 && qwen3_comm_rank(s->decoder->world) == fails) {
            s->error.status = QWEN3_ERR_MEMORY;
            snprintf(s->error.message, sizeof s->error.message, "rank %d has no room", fails);
        }
        if (!block_agree(t, s))
            return false;
    }
    return ordinary_run(t, state, s, layer);
}

static qwen3_status feed(qwen3_session *s, int first, int n, qwen3_error *err)
{
    int32_t tokens[PROMPT];
    for (int i = 0; i < n; i++)
        tokens[i] = (first + i) * 13 % 512;
    return qwen3_forward(s, &(qwen3_batch){.n_tokens = (size_t)n, .tokens = tokens}, err);
}

/* Steps of n tokens after a prompt: one that fails and then the same that does not give what a session without the
 * failure gives. */
static void check_step(qwen3_model *model, int n, const char *label)
{
    const size_t vocab = (size_t)qwen3_model_config(model)->vocab_size;
    float *logits[2];
    for (int with_failure = 0; with_failure < 2; with_failure++) {
        qwen3_session *s = NULL;
        qwen3_error err = {0};
        logits[with_failure] = calloc(vocab, sizeof(float));
        check(!qwen3_session_open(model, NULL, &s, &err) && !feed(s, 0, PROMPT, &err), "%s: %s", label, err.message);
        if (!s)
            continue;
        if (with_failure) {
            block failing = *s->blocks[1].block; /* the MLP, after attention has stored keys and values */
            ordinary_run = failing.run;
            failing.run = failing_run;
            const block *ordinary = s->blocks[1].block;
            s->blocks[1].block = &failing;
            const qwen3_status status = feed(s, PROMPT, n, &err);
            char expected[64];
            snprintf(expected, sizeof expected, "rank %d has no room", fails);
            check(status == QWEN3_ERR_MEMORY && strcmp(err.message, expected) == 0, "%s: status %d, \"%s\"", label,
                  status, err.message);
            check(qwen3_session_length(s, 0) == PROMPT, "%s: length %lld", label,
                  (long long)qwen3_session_length(s, 0));
            check(qwen3_logits_rows(s) == 0, "%s: logits of a step that failed", label);
            s->blocks[1].block = ordinary;
        }
        check(!feed(s, PROMPT, n, &err) && !qwen3_logits(s, logits[with_failure], &err), "%s: %s", label, err.message);
        qwen3_session_close(s);
    }
    check(memcmp(logits[0], logits[1], vocab * sizeof(float)) == 0, "%s: other logits after a failure", label);
    free(logits[0]), free(logits[1]);
}

int main(int argc, char **argv)
{
    uint64_t seed;
    qwen3_comm *world = check_begin(argc, argv, 20261127, &seed);
    const qwen3_parallel_strategy strategies[] = {QWEN3_STRATEGY_HEAD_WISE, QWEN3_STRATEGY_SEQUENCE};
    for (int i = 0; i < 2; i++) {
        qwen3_model_options options = qwen3_model_options_default();
        qwen3_model *model;
        qwen3_error err = {0};
        options.strategy = strategies[i];
        options.threads = 2;
        if (qwen3_model_open(world, "synthetic:tiny", &options, &model, &err)) {
            check(false, "%s", err.message);
            continue;
        }
        for (fails = 0; fails < qwen3_comm_size(world); fails += 1 + qwen3_comm_size(world) / 3)
            for (int n = 1; n <= PROMPT; n += PROMPT - 1) { /* steps that split weights, and rows */
                char label[80];
                snprintf(label, sizeof label, "%s, rank %d fails in a step of %d", qwen3_strategy_name(strategies[i]),
                         fails, n);
                check_step(model, n, label);
            }
        qwen3_model_close(model);
    }
    return check_end(world);
}
