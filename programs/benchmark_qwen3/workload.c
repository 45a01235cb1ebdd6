/* workload.c - the tokens of a test, drawn by the seed or generated greedily, and the steps over them. */
#include <stdlib.h>
#include <string.h>

#include "benchmark.h"
#include "common/program.h"

/* Ids from here on are control tokens and padding of the published vocabulary: a prompt has none. */
#define TEXT_TOKENS 151643
/* Tokens of each sequence that are computed together on the way to the depth of a test: bounds the memory. */
#define DEPTH_CHUNK 512

/* splitmix64 (Steele, Lea & Flood 2014) */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

qwen3_status workload_make(workload *w, const benchmark_test *t, uint64_t seed, int64_t vocab_size, qwen3_error *err)
{
    *w = (workload){.test = t, .capacity = (size_t)test_length(t) + 1};
    const size_t n = (size_t)t->batch * w->capacity;
    if (!(w->history = allocate(n, sizeof *w->history, "tokens", err)) ||
        !(w->next = allocate(n, sizeof *w->next, "tokens", err)) ||
        !(w->tokens = allocate(n, sizeof *w->tokens, "tokens", err)) ||
        !(w->sequences = allocate(n, sizeof *w->sequences, "tokens", err)) ||
        !(w->wanted = allocate(n, sizeof *w->wanted, "tokens", err)))
        return err->status;
    uint64_t state = seed;
    uint64_t range = vocab_size < TEXT_TOKENS ? (uint64_t)vocab_size : TEXT_TOKENS;
    for (size_t i = 0; i < n; i++)
        w->history[i] = (int32_t)(random_next(&state) % range);
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

/* Tokens [begin, end) of every sequence as one batch; logits of `rows` evenly spaced ones of each. Collective. */
static qwen3_status feed(workload *w, qwen3_session *session, size_t begin, size_t end, size_t rows, qwen3_error *err)
{
    const size_t length = end - begin, sequences = (size_t)w->test->batch;
    memset(w->wanted, 0, sequences * length);
    for (size_t s = 0; s < sequences; s++) {
        memcpy(w->tokens + s * length, w->history + s * w->capacity + begin, length * sizeof *w->tokens);
        for (size_t i = 0; i < length; i++)
            w->sequences[s * length + i] = (int32_t)s;
        for (size_t row = 1; row <= rows; row++)
            w->wanted[s * length + row * length / rows - 1] = 1;
    }
    const qwen3_batch batch = {
        .n_tokens = sequences * length, .tokens = w->tokens, .sequences = w->sequences, .logits = w->wanted};
    return qwen3_forward(session, &batch, err);
}

qwen3_status workload_fill(workload *w, qwen3_session *session, qwen3_error *err)
{
    const size_t depth = (size_t)w->test->depth;
    qwen3_status status = qwen3_session_reset(session, -1, err);
    for (size_t begin = 0, end; begin < depth && status == QWEN3_OK; begin = end) {
        end = depth - begin > DEPTH_CHUNK ? begin + DEPTH_CHUNK : depth;
        status = feed(w, session, begin, end, 1, err);
    }
    return status;
}

qwen3_status workload_prefill(workload *w, qwen3_session *session, size_t rows, qwen3_error *err)
{
    const size_t depth = (size_t)w->test->depth;
    return feed(w, session, depth, depth + (size_t)w->test->prompt, rows, err);
}

/* Where the token of a decode step is in a sequence. */
static size_t step_position(const workload *w, size_t step)
{
    return (size_t)w->test->depth + (size_t)w->test->prompt + step;
}

qwen3_status workload_choose(workload *w, qwen3_session *session, size_t rows, size_t step, qwen3_error *err)
{
    qwen3_status status = qwen3_argmax(session, w->next, err);
    for (size_t s = 0; s < (size_t)w->test->batch && status == QWEN3_OK && w->test->greedy; s++)
        w->history[s * w->capacity + step_position(w, step)] = w->next[s * rows + rows - 1];
    return status;
}

qwen3_status workload_decode(workload *w, qwen3_session *session, size_t step, bool kv_cache, qwen3_error *err)
{
    const size_t at = step_position(w, step);
    if (kv_cache)
        return feed(w, session, at, at + 1, 1, err);
    qwen3_status status = qwen3_session_reset(session, -1, err);
    return status == QWEN3_OK ? feed(w, session, 0, at + 1, 1, err) : status;
}
