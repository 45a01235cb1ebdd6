/* workload.c - seeded prompts, and the steps of prefill and greedy decoding over them. */
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"

/* Ids from here on are control tokens and padding of the published vocabulary: a prompt has none. */
#define TEXT_TOKENS 151643

/* splitmix64 (Steele, Lea & Flood 2014) */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

qwen3_status workload_make(workload *w, size_t batch, size_t prompt, size_t generate, uint64_t seed, int64_t vocab_size,
                           qwen3_error *err)
{
    *w = (workload){.batch = batch, .prompt = prompt, .generate = generate, .capacity = prompt + generate + 1};
    size_t n = w->batch * w->capacity;
    if (!(w->history = allocate(n, sizeof *w->history, "tokens", err)) ||
        !(w->next = allocate(n, sizeof *w->next, "tokens", err)) ||
        !(w->tokens = allocate(n, sizeof *w->tokens, "tokens", err)) ||
        !(w->sequences = allocate(n, sizeof *w->sequences, "tokens", err)) ||
        !(w->wanted = allocate(n, sizeof *w->wanted, "tokens", err)))
        return err->status;
    uint64_t state = seed;
    uint64_t range = vocab_size < TEXT_TOKENS ? (uint64_t)vocab_size : TEXT_TOKENS;
    for (size_t s = 0; s < w->batch; s++)
        for (size_t i = 0; i < w->prompt; i++)
            w->history[s * w->capacity + i] = (int32_t)(random_next(&state) % range);
    return QWEN3_OK;
}

void workload_free(workload *w)
{
    free(w->history);
    free(w->next);
    free(w->tokens);
    free(w->sequences);
    free(w->wanted);
    *w = (workload){0};
}

qwen3_status workload_feed(workload *w, qwen3_session *session, size_t begin, size_t end, size_t rows, qwen3_error *err)
{
    size_t length = end - begin, n = w->batch * length;
    memset(w->wanted, 0, n);
    for (size_t s = 0; s < w->batch; s++) {
        memcpy(w->tokens + s * length, w->history + s * w->capacity + begin, length * sizeof *w->tokens);
        for (size_t i = 0; i < length; i++)
            w->sequences[s * length + i] = (int32_t)s;
        for (size_t row = 1; row <= rows; row++)
            w->wanted[s * length + row * length / rows - 1] = 1;
    }
    qwen3_batch batch = {.n_tokens = n, .tokens = w->tokens, .sequences = w->sequences, .logits = w->wanted};
    return qwen3_forward(session, &batch, err);
}

qwen3_status workload_prefill(workload *w, qwen3_session *session, size_t rows, qwen3_error *err)
{
    qwen3_status status = qwen3_session_reset(session, -1, err);
    return status == QWEN3_OK ? workload_feed(w, session, 0, w->prompt, rows, err) : status;
}

qwen3_status workload_choose(workload *w, qwen3_session *session, size_t rows, size_t step, qwen3_error *err)
{
    qwen3_status status = qwen3_argmax(session, w->next, err);
    for (size_t s = 0; s < w->batch && status == QWEN3_OK; s++)
        w->history[s * w->capacity + w->prompt + step] = w->next[s * rows + rows - 1];
    return status;
}

qwen3_status workload_decode(workload *w, qwen3_session *session, size_t step, bool kv_cache, qwen3_error *err)
{
    size_t length = w->prompt + step + 1;
    if (kv_cache)
        return workload_feed(w, session, length - 1, length, 1, err);
    qwen3_status status = qwen3_session_reset(session, -1, err);
    return status == QWEN3_OK ? workload_feed(w, session, 0, length, 1, err) : status;
}
