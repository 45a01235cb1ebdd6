#include "model/sampler.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Options ----------------------------------------------------------------------------------- */

qwen3_sampling_options qwen3_sampling_options_default(void)
{
    return (qwen3_sampling_options){.top_p = 1, .repetition_penalty = 1};
}

/* NaN is in no range. */
static bool in_range(double value, double low, double high)
{
    return value >= low && value <= high;
}

qwen3_status sampling_options_check(const qwen3_sampling_options *o, const char *where, qwen3_error *err)
{
    if (o->temperature != 0 && !in_range(o->temperature, 1e-6, 1e6))
        return fail(err, QWEN3_ERR_ARGUMENT, "%stemperature %g: expected 0 (greedy), or 1e-6 to 1e6", where,
                    o->temperature);
    if (o->top_k < 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "%stop_k %d: expected a positive number, or 0 for all tokens", where,
                    o->top_k);
    if (!in_range(o->top_p, 0, 1))
        return fail(err, QWEN3_ERR_ARGUMENT, "%stop_p %g: expected 0 to 1 (off)", where, o->top_p);
    if (!in_range(o->min_p, 0, 1))
        return fail(err, QWEN3_ERR_ARGUMENT, "%smin_p %g: expected 0 (off) to 1", where, o->min_p);
    if (!isfinite(o->presence_penalty))
        return fail(err, QWEN3_ERR_ARGUMENT, "%spresence_penalty %g: expected a finite number, or 0 for none", where,
                    o->presence_penalty);
    if (!isfinite(o->frequency_penalty))
        return fail(err, QWEN3_ERR_ARGUMENT, "%sfrequency_penalty %g: expected a finite number, or 0 for none", where,
                    o->frequency_penalty);
    if (!isfinite(o->repetition_penalty) || o->repetition_penalty <= 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "%srepetition_penalty %g: expected a positive number, or 1 for none",
                    where, o->repetition_penalty);
    return QWEN3_OK;
}

static int compare_tokens(const void *a, const void *b)
{
    int32_t x = ((const qwen3_logit_bias *)a)->token, y = ((const qwen3_logit_bias *)b)->token;
    return (x > y) - (x < y);
}

static qwen3_status check_bias(const qwen3_logit_bias *bias, size_t n, int32_t n_tokens, qwen3_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (bias[i].token < 0 || bias[i].token >= n_tokens)
            return fail(err, QWEN3_ERR_ARGUMENT, "bias of token %d: expected a token in 0..%d", bias[i].token,
                        n_tokens - 1);
        if (isnan(bias[i].bias) || bias[i].bias == INFINITY)
            return fail(err, QWEN3_ERR_ARGUMENT, "bias %g of token %d: expected a finite number, or -inf to forbid it",
                        (double)bias[i].bias, bias[i].token);
        if (i > 0 && bias[i].token == bias[i - 1].token)
            return fail(err, QWEN3_ERR_ARGUMENT, "bias of token %d: is there twice, expected once", bias[i].token);
    }
    return QWEN3_OK;
}

static qwen3_status copy_bias(qwen3_sampler *s, qwen3_error *err)
{
    size_t n = s->options.n_bias;
    const qwen3_logit_bias *given = s->options.bias;
    s->options.bias = NULL;
    if (n == 0)
        return QWEN3_OK;
    if (!given)
        return fail(err, QWEN3_ERR_ARGUMENT, "bias is NULL; expected room for n_bias = %zu of them", n);
    qwen3_logit_bias *own = n <= SIZE_MAX / sizeof *own ? malloc(n * sizeof *own) : NULL;
    if (!own)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the bias of %zu tokens", n);
    memcpy(own, given, n * sizeof *own);
    qsort(own, n, sizeof *own, compare_tokens);
    s->options.bias = own;
    return check_bias(own, n, s->n_tokens, err);
}

/* ---- Samplers ---------------------------------------------------------------------------------- */

static qwen3_status open_sampler(qwen3_sampler *s, const qwen3_config *config, int32_t n_tokens, qwen3_error *err)
{
    const qwen3_sampling_options *o = &s->options;
    if (config->vocab_size < 1 || config->vocab_size > INT32_MAX)
        return fail(err, QWEN3_ERR_ARGUMENT, "vocab_size %lld of the configuration: expected 1 to %d",
                    (long long)config->vocab_size, INT32_MAX);
    if (n_tokens < 0 || n_tokens > config->vocab_size)
        return fail(err, QWEN3_ERR_ARGUMENT, "n_tokens %d: expected 1..%lld, the rows of the output head, or 0 for all",
                    n_tokens, (long long)config->vocab_size);
    s->vocab_size = config->vocab_size;
    s->n_tokens = n_tokens ? n_tokens : (int32_t)config->vocab_size;
    s->penalises = o->presence_penalty != 0 || o->frequency_penalty != 0 || o->repetition_penalty != 1;
    qwen3_status status = sampling_options_check(o, "", err);
    if (status)
        return status;
    if (s->penalises && !(s->place = calloc((size_t)s->n_tokens, sizeof *s->place)))
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the history of %d tokens", s->n_tokens);
    return QWEN3_OK;
}

qwen3_status qwen3_sampler_open(const qwen3_config *config, int32_t n_tokens, const qwen3_sampling_options *options,
                                qwen3_sampler **sampler, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(sampler, "sampler", err))
        return err->status;
    *sampler = NULL;
    if (missing(config, "config", err))
        return err->status;
    qwen3_sampler *s = calloc(1, sizeof *s);
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a sampler");
    s->options = options ? *options : qwen3_sampling_options_default();
    qwen3_status status = open_sampler(s, config, n_tokens, err), copied = copy_bias(s, status ? NULL : err);
    status = status ? status : copied;
    if (status) {
        qwen3_sampler_close(s);
        return status;
    }
    *sampler = s;
    return QWEN3_OK;
}

void qwen3_sampler_close(qwen3_sampler *s)
{
    if (!s)
        return;
    free((void *)s->options.bias);
    free(s->seen);
    free(s->place);
    free(s);
}

/* ---- History ----------------------------------------------------------------------------------- */

qwen3_status sampler_reserve(qwen3_sampler *s, size_t n, qwen3_error *err)
{
    size_t most = (size_t)s->n_tokens, need = n < most - s->n_seen ? s->n_seen + n : most;
    if (!s->penalises || need <= s->capacity)
        return QWEN3_OK;
    size_t capacity = need + need / 2 < most ? need + need / 2 : most;
    seen_token *seen = realloc(s->seen, capacity * sizeof *seen);
    if (!seen)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for a history of %zu tokens", capacity);
    s->seen = seen;
    s->capacity = capacity;
    return QWEN3_OK;
}

void sampler_append(qwen3_sampler *s, int32_t token, bool generated)
{
    s->length++;
    if (!s->penalises || token >= s->n_tokens)
        return;
    if (s->place[token] == 0) {
        s->seen[s->n_seen++] = (seen_token){.token = token};
        s->place[token] = (uint32_t)s->n_seen;
    }
    s->seen[s->place[token] - 1].generated += generated;
}

qwen3_status qwen3_sampler_accept(qwen3_sampler *s, const int32_t *tokens, size_t n, bool generated, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(s, "sampler", err) || (n > 0 && missing(tokens, "tokens", err)))
        return err->status;
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->vocab_size)
            return fail(err, QWEN3_ERR_ARGUMENT, "token %zu of the history: id %d is not in 0..%lld, the vocabulary", i,
                        tokens[i], (long long)s->vocab_size - 1);
    qwen3_status status = sampler_reserve(s, n, err);
    for (size_t i = 0; i < n && !status; i++)
        sampler_append(s, tokens[i], generated);
    return status;
}

void qwen3_sampler_reset(qwen3_sampler *s, uint64_t seed)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_seen; i++)
        s->place[s->seen[i].token] = 0;
    s->n_seen = 0;
    s->length = 0;
    s->options.seed = seed;
}

/* ---- Adjusting logits -------------------------------------------------------------------------- */

/* Where a token is among [first, first + n), or NULL. */
static float *logit_of(float *logits, int32_t first, size_t n, int32_t token)
{
    return token >= first && (size_t)(token - first) < n ? logits + (token - first) : NULL;
}

/* An adjusted logit as f32. */
static float rounded(double value, float raw)
{
    return value > FLT_MAX && raw <= FLT_MAX ? FLT_MAX : (float)value;
}

static float penalised(const qwen3_sampling_options *o, float raw, uint32_t generated)
{
    double value = raw < 0 ? raw * o->repetition_penalty : raw / o->repetition_penalty;
    if (generated > 0)
        value -= generated * o->frequency_penalty + o->presence_penalty;
    return rounded(value, raw);
}

void sampler_adjust(const qwen3_sampler *s, float *logits, int32_t first, size_t n, float *saved)
{
    const qwen3_sampling_options *o = &s->options;
    for (size_t i = 0; i < o->n_bias; i++) {
        float *x = logit_of(logits, first, n, o->bias[i].token);
        if (!x)
            continue;
        saved[i] = *x;
        *x = rounded((double)*x + o->bias[i].bias, *x);
    }
    saved += o->n_bias;
    for (size_t i = 0; i < s->n_seen; i++) {
        float *x = logit_of(logits, first, n, s->seen[i].token);
        if (!x)
            continue;
        saved[i] = *x;
        *x = penalised(o, *x, s->seen[i].generated);
    }
}

void sampler_restore(const qwen3_sampler *s, float *logits, int32_t first, size_t n, const float *saved)
{
    for (size_t i = s->n_seen; i-- > 0;) {
        float *x = logit_of(logits, first, n, s->seen[i].token);
        if (x)
            *x = saved[s->options.n_bias + i];
    }
    for (size_t i = s->options.n_bias; i-- > 0;) {
        float *x = logit_of(logits, first, n, s->options.bias[i].token);
        if (x)
            *x = saved[i];
    }
}
