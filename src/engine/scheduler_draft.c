/* scheduler_draft.c - guessing the next tokens of an answer from the text before (prompt lookup): what followed the
 * same few tokens the last time. Rank 0.
 *
 * Guesses are computed in the same step as the token before them. Those that agree with what is then drawn are kept,
 * and the rest is forgotten, so they change how fast an answer comes, not what it is. Each guessed token that is kept
 * saves its answer a step; each one that is computed makes the step longer. Both are measured. An answer for which
 * guessing does not pay stops for a while, each time for longer. */
#include "engine/scheduler.h"

/* Tokens that must be the same as before. */
enum { LONGEST_MATCH = 4, SHORTEST_MATCH = 2 };

/* Tokens of an answer without guesses, after they did not pay. */
enum { FIRST_PAUSE = 16, LONGEST_PAUSE = 1024 };

/* How much a new measurement counts. */
#define WEIGHT 0.2

/* Where the last n tokens were before: the place after them; 0: nowhere. */
static int64_t find_before(const int32_t *tokens, int64_t n_tokens, int64_t n)
{
    const int32_t *last = tokens + n_tokens - n;
    for (int64_t end = n_tokens - 1; end >= n; end--) {
        int64_t i = 1;
        while (i <= n && tokens[end - i] == last[n - i])
            i++;
        if (i > n)
            return end;
    }
    return 0;
}

/* Whether tokens that are drawn ahead are those that would be drawn one by one. */
static bool may_draft(const answer *a)
{
    const qwen3_scheduler_request *r = &a->request->given;
    const qwen3_sampling_options *o = &r->sampling;
    return !r->embedding && !r->filter && o->presence_penalty == 0 && o->frequency_penalty == 0 &&
           o->repetition_penalty == 1;
}

int64_t draft_tokens(const qwen3_scheduler *s, const answer *a, const int32_t **tokens)
{
    const int64_t left = a->most - a->n_tokens - 1, most = s->options.draft_tokens;
    if (!may_draft(a) || a->n_tokens < a->draft_from)
        return 0;
    for (int64_t n = LONGEST_MATCH; n >= SHORTEST_MATCH; n--) {
        const int64_t at = a->n_tokens > n ? find_before(a->tokens, a->n_tokens, n) : 0;
        if (at == 0)
            continue;
        int64_t found = a->n_tokens - at;
        found = found < most ? found : most;
        *tokens = a->tokens + at;
        return found < left ? found : left > 0 ? left : 0;
    }
    return 0;
}

void draft_learn(qwen3_scheduler *s, answer *a, int64_t drafted, int64_t kept)
{
    if (drafted == 0)
        return;
    const double rate = (double)kept / (double)drafted;
    a->draft_rate += WEIGHT * (rate - a->draft_rate);
    pthread_mutex_lock(&s->mutex);
    s->stats.drafted_tokens += (uint64_t)drafted;
    s->stats.kept_tokens += (uint64_t)kept;
    pthread_mutex_unlock(&s->mutex);
    /* A step serves all answers that decode: one kept token saves a part of it. */
    const double saved = a->draft_rate * s->times.decode / (double)s->step_decodes;
    if (s->times.decode == 0 || saved >= s->times.draft) {
        a->draft_pause = FIRST_PAUSE;
        return;
    }
    a->draft_from = a->n_tokens + a->draft_pause;
    a->draft_pause = 2 * a->draft_pause < LONGEST_PAUSE ? 2 * a->draft_pause : LONGEST_PAUSE;
    a->draft_rate = DRAFT_RATE;
}
