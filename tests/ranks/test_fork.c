/* test_fork.c - sequences that begin with the same tokens share pages of keys and values (qwen3_session_fork): whatever
 * is forked, continued, truncated and emptied in whatever order, every sequence has the logits of its tokens alone, and
 * a cache that is full leaves everything as it is.
 */
#include <math.h>
#include <string.h>

#include "check.h"

enum { SEQUENCES = 5, MOST_TOKENS = 400, MOST_PIECE = 150 };

/* What a session should hold. */
typedef struct forest {
    int32_t tokens[SEQUENCES][MOST_TOKENS];
    int64_t length[SEQUENCES];
    int full; /* steps that were refused */
} forest;

static int full; /* of all forests */

typedef struct setting {
    qwen3_comm *world;
    qwen3_model *model;
    qwen3_session *session, *alone;
    int64_t vocab;
    bool exact;
    float *logits, *expected; /* [SEQUENCES, vocab], [vocab], on rank 0 */
    char label[160];
} setting;

/* ---- One step ---------------------------------------------------------------------------------- */

typedef struct step_tokens {
    int32_t tokens[SEQUENCES * MOST_PIECE], sequences[SEQUENCES * MOST_PIECE];
    size_t n;
    int order[SEQUENCES], n_order; /* sequences, in the order of their rows of logits */
} step_tokens;

static void choose_tokens(const forest *f, int64_t vocab, step_tokens *s, uint64_t *random)
{
    s->n = 0;
    s->n_order = 0;
    const int first = (int)(check_random(random) % SEQUENCES), most = check_random(random) % 2 ? 1 : MOST_PIECE;
    for (int i = 0; i < SEQUENCES; i++) {
        const int q = (first + i) % SEQUENCES;
        const int64_t room = MOST_TOKENS - f->length[q], any = 1 + (int64_t)(check_random(random) % (uint64_t)most);
        const int64_t n = any < room ? any : room;
        if (n == 0 || (s->n > 0 && check_random(random) % 2))
            continue;
        s->order[s->n_order++] = q;
        for (int64_t k = 0; k < n; k++, s->n++) {
            s->tokens[s->n] = (int32_t)(check_random(random) % (uint64_t)vocab);
            s->sequences[s->n] = q;
        }
    }
}

/* The logits of the last token of sequence q, computed with its tokens alone. */
static void compare_alone(const setting *t, const forest *f, int q, const float *logits)
{
    const qwen3_batch batch = {.n_tokens = (size_t)f->length[q], .tokens = f->tokens[q]};
    const size_t bytes = (size_t)t->vocab * sizeof *logits;
    qwen3_error err = {0};
    qwen3_session_reset(t->alone, -1, NULL);
    check(!qwen3_forward(t->alone, &batch, &err) && !qwen3_logits(t->alone, t->expected, &err), "%s", err.message);
    if (qwen3_comm_rank(t->world) > 0)
        return;
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < t->vocab; i++) {
        difference += pow((double)logits[i] - t->expected[i], 2);
        norm += pow((double)t->expected[i], 2);
    }
    check(t->exact ? memcmp(logits, t->expected, bytes) == 0 : sqrt(difference / norm) < 0.02,
          "%s: %lld tokens of sequence %d: relative L2 %.3g", t->label, (long long)f->length[q], q,
          sqrt(difference / norm));
}

static void advance(const setting *t, forest *f, uint64_t *random)
{
    static step_tokens s;
    qwen3_error err = {0};
    qwen3_session_info before, after;
    choose_tokens(f, t->vocab, &s, random);
    if (s.n == 0)
        return;
    const qwen3_batch batch = {.n_tokens = s.n, .tokens = s.tokens, .sequences = s.sequences};
    qwen3_session_get_info(t->session, &before);
    const qwen3_status status = qwen3_forward(t->session, &batch, &err);
    if (status) {
        qwen3_session_get_info(t->session, &after);
        check(status == QWEN3_ERR_CAPACITY && strstr(err.message, "kv_pages"), "%s: %s", t->label, err.message);
        /* A page that was copied for this step stays copied. */
        check(after.kv_pages_used <= before.kv_pages_used + SEQUENCES, "%s: %lld pages, %lld before", t->label,
              (long long)after.kv_pages_used, (long long)before.kv_pages_used);
        f->full++;
        const int q = s.order[0]; /* makes room */
        check(!qwen3_session_reset(t->session, q, &err), "%s", err.message);
        f->length[q] = 0;
        return;
    }
    for (size_t i = 0; i < s.n; i++)
        f->tokens[s.sequences[i]][f->length[s.sequences[i]]++] = s.tokens[i];
    check(!qwen3_logits(t->session, t->logits, &err), "%s", err.message);
    const int row = (int)(check_random(random) % (uint64_t)s.n_order);
    compare_alone(t, f, s.order[row], t->logits + row * t->vocab);
}

/* ---- All that may happen ----------------------------------------------------------------------- */

static void fork_one(const setting *t, forest *f, uint64_t *random)
{
    const int from = (int)(check_random(random) % SEQUENCES),
              to = (from + 1 + (int)(check_random(random) % 4)) % SEQUENCES;
    const int64_t length = f->length[from];
    const int64_t n = check_random(random) % 3 ? length : (int64_t)(check_random(random) % (uint64_t)(length + 1));
    qwen3_error err = {0};
    qwen3_session_info before, after;
    qwen3_session_reset(t->session, to, NULL);
    qwen3_session_get_info(t->session, &before);
    check(!qwen3_session_fork(t->session, from, to, n, &err), "%s: %s", t->label, err.message);
    qwen3_session_get_info(t->session, &after);
    check(before.kv_pages_used == after.kv_pages_used, "%s: a fork takes %lld pages", t->label,
          (long long)(after.kv_pages_used - before.kv_pages_used));
    memcpy(f->tokens[to], f->tokens[from], (size_t)n * sizeof(int32_t));
    f->length[to] = n;
}

static void run_forest(const setting *t, int steps, uint64_t *random)
{
    static forest f;
    qwen3_session_info info;
    memset(&f, 0, sizeof f);
    for (int i = 0; i < steps; i++) {
        const int q = (int)(check_random(random) % SEQUENCES);
        switch (check_random(random) % 6) {
        case 0:
        case 1:
            fork_one(t, &f, random);
            break;
        case 2: {
            const int64_t length = (int64_t)(check_random(random) % (uint64_t)(f.length[q] + 1));
            check(!qwen3_session_truncate(t->session, q, length, NULL), "%s: not truncated", t->label);
            f.length[q] = length;
            break;
        }
        default:
            advance(t, &f, random);
        }
        for (int k = 0; k < SEQUENCES; k++)
            check(qwen3_session_length(t->session, k) == f.length[k], "%s: sequence %d: %lld tokens, not %lld",
                  t->label, k, (long long)qwen3_session_length(t->session, k), (long long)f.length[k]);
    }
    qwen3_session_get_info(t->session, &info);
    check(info.kv_pages > 0 || f.full == 0, "%s: full %d times", t->label, f.full);
    check(!info.kv_pages || info.kv_pages_used <= info.kv_pages, "%s: %lld pages", t->label,
          (long long)info.kv_pages_used);
    full += f.full;
    qwen3_session_reset(t->session, -1, NULL);
    qwen3_session_get_info(t->session, &info);
    check(info.kv_pages_used == 0, "%s: %lld pages are left", t->label, (long long)info.kv_pages_used);
}

static void check_setting(qwen3_comm *world, const qwen3_model_options *options, int64_t kv_pages, uint64_t *random)
{
    setting t = {.world = world, .exact = options->deterministic};
    qwen3_session_options session = qwen3_session_options_default();
    qwen3_error err = {0};
    snprintf(t.label, sizeof t.label, "grid %dx%d, keys %s%s, %lld pages", options->grid_sequence, options->grid_heads,
             qwen3_dtype_name(options->kv_dtype), t.exact ? ", deterministic" : "", (long long)kv_pages);
    session.max_sequences = SEQUENCES;
    session.max_tokens = MOST_TOKENS;
    check(!qwen3_model_open(world, "synthetic:tiny", options, &t.model, &err), "%s", err.message);
    check(!qwen3_session_open(t.model, &session, &t.alone, &err), "%s", err.message);
    session.kv_pages = kv_pages;
    check(!qwen3_session_open(t.model, &session, &t.session, &err), "%s", err.message);
    if (t.session && t.alone) {
        t.vocab = qwen3_model_config(t.model)->vocab_size;
        t.logits = calloc((SEQUENCES + 1) * (size_t)t.vocab, sizeof *t.logits);
        t.expected = t.logits + SEQUENCES * t.vocab;
        run_forest(&t, qwen3_comm_size(world) > 3 ? 40 : 120, random);
        free(t.logits);
    }
    qwen3_session_close(t.session);
    qwen3_session_close(t.alone);
    qwen3_model_close(t.model);
}

int main(int argc, char **argv)
{
    static const qwen3_dtype types[] = {QWEN3_DTYPE_F32, QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8};
    uint64_t random;
    qwen3_comm *world = check_begin(argc, argv, 20261127, &random);
    const int ranks = qwen3_comm_size(world);
    for (int heads = 1, i = 0; heads <= ranks; heads++) {
        if (ranks % heads)
            continue;
        for (int type = 0; type < 3; type++, i++) {
            qwen3_model_options options = qwen3_model_options_default();
            options.strategy = QWEN3_STRATEGY_HYBRID;
            options.grid_sequence = ranks / heads;
            options.grid_heads = heads;
            options.kv_dtype = types[type];
            options.threads = 1;
            options.deterministic = i % 2 == 0;
            /* The fullest rank of one that has all positions has up to 20 pages. */
            check_setting(world, &options, i % 3 == 1 ? 0 : 2 + 6 / (ranks / heads), &random);
        }
    }
    check(full > 0, "no cache was full");
    return check_end(world);
}
