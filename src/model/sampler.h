/* sampler.h - how tokens of one sequence are chosen: checked options, and the history that penalties look at. The
 * choice itself is engine/sample.c. */
#ifndef QWEN3_MODEL_SAMPLER_H
#define QWEN3_MODEL_SAMPLER_H

#include "base/status.h"

/* A token that the history holds. */
typedef struct seen_token {
    int32_t token;
    uint32_t generated; /* how often */
} seen_token;

struct qwen3_sampler {
    qwen3_sampling_options options; /* bias is the sampler's, in ascending order of tokens */
    int64_t vocab_size;
    int32_t n_tokens;
    bool penalises;
    uint64_t length; /* of the history */
    /* Where penalised. */
    seen_token *seen; /* [n_seen] */
    size_t n_seen, capacity;
    uint32_t *place; /* [n_tokens] 1 + index in `seen`; 0: the token is not in it */
    bool in_use;     /* by a row of the call of qwen3_sample at hand */
};

/* Ranges of all options but the bias. `where` is put before messages. */
qwen3_status sampling_options_check(const qwen3_sampling_options *o, const char *where, qwen3_error *err);

/* Adds bias and penalties to the logits [n] of tokens [first, first + n); what was changed is kept in
 * saved[sampler_changes(s)], for sampler_restore. NaN and +INFINITY stay; nothing else becomes them. */
void sampler_adjust(const qwen3_sampler *s, float *logits, int32_t first, size_t n, float *saved);
void sampler_restore(const qwen3_sampler *s, float *logits, int32_t first, size_t n, const float *saved);
static inline size_t sampler_changes(const qwen3_sampler *s)
{
    return s->options.n_bias + s->n_seen;
}

/* Makes room for n more tokens. */
qwen3_status sampler_reserve(qwen3_sampler *s, size_t n, qwen3_error *err);
/* Appends one, for which there is room. */
void sampler_append(qwen3_sampler *s, int32_t token, bool generated);

#endif
