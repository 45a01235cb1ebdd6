/* sample.c - choosing the next tokens from logits that are distributed over the ranks. */
#include <stdlib.h>

#include "engine/session.h"
#include "model/sampler.h"

typedef struct candidate {
    double score;
    int32_t token; /* -1: the rank has no part of the vocabulary; -2: a logit is NaN */
} candidate;

/* The output of SplitMix64 (Steele, Lea, Flood 2014) at any place of its stream. */
static uint64_t random_at(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static double gumbel(uint64_t key, int32_t token)
{
    return -log(-log(((double)(random_at(key, (uint64_t)token) >> 12) + 0.5) * 0x1p-52));
}

static candidate best_of(const float *row, range columns, const qwen3_sampler *s)
{
    candidate best = {0, -1};
    uint64_t key = s ? random_at(s->options.seed, s->length) : 0;
    for (int64_t i = 0; i < range_size(columns); i++) {
        if (isnan(row[i]))
            return (candidate){0, -2};
        int32_t token = (int32_t)(columns.begin + i);
        if (s && token >= s->n_tokens)
            break;
        double score = row[i];
        if (s && s->options.temperature > 0)
            score = score / s->options.temperature + gumbel(key, token);
        if (best.token < 0 || score > best.score)
            best = (candidate){score, token};
    }
    return best;
}

qwen3_status qwen3_sample(qwen3_session *s, qwen3_sampler *const *samplers, int32_t *tokens, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (session_need_logits(s, err))
        return err->status;
    const qwen3_model *m = s->model;
    size_t n = s->step.n_out, ranks = (size_t)comm_size(m->world);
    candidate *all = malloc((ranks + 1) * n * sizeof *all), *mine = all ? all + ranks * n : NULL;
    size_t *bytes = malloc(ranks * sizeof *bytes);
    if (!all || !bytes)
        fail(err, QWEN3_ERR_MEMORY, "no memory for the candidates of %zu rows", n);
    for (size_t i = 0; i < n; i++)
        if (samplers[i])
            sampler_reserve(samplers[i], 1, err);
    qwen3_status status = qwen3_comm_agree(m->world, err);
    if (!status) {
        for (size_t r = 0; r < ranks; r++)
            bytes[r] = n * sizeof *all;
        for (size_t i = 0; i < n; i++)
            mine[i] =
                best_of(s->b.logits + i * m->weights.head.n, session_vocabulary(m, comm_rank(m->world)), samplers[i]);
        comm_allgather(m->world, mine, all, bytes, QWEN3_COMM_LOGITS);
    }
    for (size_t i = 0; i < n && !status; i++) {
        candidate best = {0, -1};
        for (size_t r = 0; r < ranks && best.token != -2; r++) {
            candidate c = all[r * n + i];
            if (c.token == -2 || (c.token >= 0 && (best.token < 0 || c.score > best.score)))
                best = c;
        }
        tokens[i] = best.token;
        if (best.token < 0)
            status =
                fail(err, QWEN3_ERR_FORMAT, "row %zu: a logit is not a number; the weights or the input overflow", i);
    }
    for (size_t i = 0; i < n && !status; i++)
        if (samplers[i])
            sampler_append(samplers[i], tokens[i], true);
    free(all);
    free(bytes);
    return status;
}
