/* test_deterministic.c - the option `deterministic`: on the ranks at hand every grid, algorithm, type, number of
 * threads and tile size, and every way to split the tokens into steps, gives the bits that one rank with one thread
 * gives for all tokens at once. Without the option they differ.
 */
#include <string.h>

#include "check.h"
#include "checkpoint.h"
#include "comm/comm_backend.h"
#include "kernels/kernels.h"

static const shape shapes[] = {
    {40, 101, 2, 5, 1, 32, 331, true, 0, 0, 0},   /* grouped 5:1, one KV head: fewer than ranks */
    {150, 203, 2, 6, 3, 64, 257, false, 0, 0, 0}, /* 3 KV heads */
    {96, 333, 2, 8, 8, 128, 199, true, 0, 0, 0},  /* no grouping */
    {96, 101, 3, 4, 2, 32, 199, true, 9, 2, 150}, /* experts */
};

enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Pages of 128 positions are full, partly filled, and missing on many ranks. */
enum { SEQUENCES = 2, MOST_TOKENS = 420, FEEDS = 4 };

static const int lengths[SEQUENCES] = {MOST_TOKENS, 141};

typedef struct text {
    int32_t tokens[SEQUENCES][MOST_TOKENS];
    int vocab;
} text;

/* [SEQUENCES][MOST_TOKENS][vocab] */
static float *logits_at(float *logits, const text *t, int sequence, int64_t position)
{
    return logits + ((size_t)sequence * MOST_TOKENS + (size_t)position) * (size_t)t->vocab;
}

static size_t logits_bytes(const text *t)
{
    return sizeof(float) * SEQUENCES * MOST_TOKENS * (size_t)t->vocab;
}

/* ---- Tokens into steps ------------------------------------------------------------------------- */

typedef enum feed { FEED_WHOLE, FEED_DECODE, FEED_PIECES, FEED_AGAIN } feed;

/* Tokens of a sequence in the next step, of those left. */
static int next_piece(feed how, int done, int left, uint64_t *random)
{
    const int few = 1 + (int)(check_random(random) % 3), many = 1 + (int)(check_random(random) % 170);
    switch (how) {
    case FEED_WHOLE:
        return left;
    case FEED_DECODE: /* a prompt, then one by one */
        return done ? 1 : left - 6;
    default:
        return check_random(random) % 3 ? many : few;
    }
}

/* One step; the logits of all its tokens to their places on rank 0 of `group`. */
static qwen3_status run_step(qwen3_session *session, qwen3_comm *group, const text *t, const int n[SEQUENCES],
                             float *logits, qwen3_error *err)
{
    static int32_t tokens[SEQUENCES * MOST_TOKENS], sequences[SEQUENCES * MOST_TOKENS];
    static uint8_t wanted[SEQUENCES * MOST_TOKENS];
    const bool root = qwen3_comm_rank(group) == 0;
    int64_t first[SEQUENCES];
    size_t rows = 0;
    for (int q = 0; q < SEQUENCES; q++) {
        first[q] = qwen3_session_length(session, q);
        for (int i = 0; i < n[q]; i++, rows++) {
            tokens[rows] = t->tokens[q][first[q] + i];
            sequences[rows] = q;
            wanted[rows] = 1;
        }
    }
    const qwen3_batch batch = {.n_tokens = rows, .tokens = tokens, .sequences = sequences, .logits = wanted};
    float *all = root ? malloc(rows * (size_t)t->vocab * sizeof *all) : NULL, *from = all;
    qwen3_status status = qwen3_forward(session, &batch, err);
    if (!status)
        status = qwen3_logits(session, all, err);
    for (int q = 0; q < SEQUENCES && root && !status; from += n[q++] * t->vocab)
        memcpy(logits_at(logits, t, q, first[q]), from, (size_t)(n[q] * t->vocab) * sizeof *from);
    free(all);
    return status;
}

/* Feeds all tokens in the given way. */
static void run_text(qwen3_comm *group, const char *dir, const qwen3_model_options *options,
                     const qwen3_session_options *session_options, const text *t, feed how, uint64_t random,
                     float *logits)
{
    qwen3_error err = {0};
    qwen3_model *model = NULL;
    qwen3_session *session = NULL;
    qwen3_status status = qwen3_model_open(group, dir, options, &model, &err);
    if (!status)
        status = qwen3_session_open(model, session_options, &session, &err);
    bool again = how == FEED_AGAIN;
    for (bool more = true; more && !status;) {
        int n[SEQUENCES], total = 0;
        for (int q = 0; q < SEQUENCES; q++) {
            const int done = (int)qwen3_session_length(session, q), left = lengths[q] - done;
            const int piece = left ? next_piece(how, done, left, &random) : 0;
            total += n[q] = piece < left ? piece : left;
        }
        if (total > 0)
            status = run_step(session, group, t, n, logits, &err);
        else if (again) /* forget some, and feed them once more */
            status = qwen3_session_truncate(session, 0, (int64_t)(check_random(&random) % MOST_TOKENS), &err);
        more = total > 0 || again;
        again &= total > 0;
    }
    check(!status, "%s: %s", qwen3_status_name(status), err.message);
    qwen3_session_close(session);
    qwen3_model_close(model);
}

/* ---- Variants ---------------------------------------------------------------------------------- */

typedef struct ranks {
    comm *world, *messages; /* messages: as if each were a node of its own */
} ranks;

/* What may not change a bit, at random. */
static void vary(qwen3_model_options *model, qwen3_session_options *session, uint64_t *random)
{
    model->threads = 1 + (int)(check_random(random) % 3);
    model->share_weights = check_random(random) % 4 != 0;
    session->token_split_min = (int64_t[]){0, 1, 1000}[check_random(random) % 3];
    session->overlap_min_rows = (int64_t[]){0, 2, 12}[check_random(random) % 3];
    session->q_block_size = (int[]){0, 1, 7}[check_random(random) % 3];
    session->kv_block_size = (int[]){0, 64, 300}[check_random(random) % 3];
}

/* Every grid and feed; returns how many gave other bits (rank 0). */
static int compare_grids(const ranks *r, const char *dir, const text *t, qwen3_model_options model,
                         qwen3_session_options session, uint64_t *random, const float *expected, float *logits)
{
    const int n = qwen3_comm_size(r->world);
    int different = 0;
    for (int h = 1; h <= n; h++) {
        if (n % h)
            continue;
        model.grid_sequence = n / h;
        model.grid_heads = h;
        /* Many ranks on few cores are slow. */
        for (int i = 0; i < (n > 3 ? 1 : 2); i++) {
            const feed how = (feed)(check_random(random) % FEEDS);
            const bool messages = check_random(random) % 3 == 0;
            vary(&model, &session, random);
            if (logits)
                memset(logits, 0xff, logits_bytes(t));
            run_text(messages ? r->messages : r->world, dir, &model, &session, t, how, check_random(random), logits);
            if (!logits)
                continue;
            const bool same = memcmp(logits, expected, logits_bytes(t)) == 0;
            check(same || !model.deterministic,
                  "%s, keys %s, %s, %s, grid %dx%d%s, feed %d, %d threads, split from %lld rows: other bits",
                  qwen3_dtype_name(model.dtype), qwen3_dtype_name(model.kv_dtype), qwen3_isa_name(model.isa),
                  qwen3_algorithm_name(session.algorithm), n / h, h, messages ? " by messages" : "", how, model.threads,
                  (long long)session.token_split_min);
            different += !same;
        }
    }
    return different;
}

/* One rank with one thread, then all of them. */
static int check_setting(const ranks *r, const char *dir, const text *t, qwen3_model_options model,
                         const qwen3_session_options *session, uint64_t *random)
{
    const bool root = qwen3_comm_rank(r->world) == 0;
    float *expected = root ? malloc(2 * logits_bytes(t)) : NULL;
    float *logits = root ? logits_at(expected, t, SEQUENCES, 0) : NULL;
    model.threads = 1;
    if (root) {
        memset(expected, 0xff, logits_bytes(t));
        run_text(qwen3_comm_self(), dir, &model, session, t, FEED_WHOLE, 0, expected);
    }
    const int different = compare_grids(r, dir, t, model, *session, random, expected, logits);
    free(expected);
    return different;
}

static void check_shape(const ranks *r, int index, uint64_t *random)
{
    const shape *s = &shapes[index];
    char dir[CHECKPOINT_NAME];
    text t = {.vocab = s->vocab};
    make_checkpoint(r->world, s, check_random(random), dir);
    for (int q = 0; q < SEQUENCES; q++)
        for (int i = 0; i < lengths[q]; i++)
            t.tokens[q][i] = (int32_t)(check_random(random) % (uint64_t)s->vocab);
    const qwen3_isa bytes = kernels_get(QWEN3_ISA_AVX512_VNNI) ? QWEN3_ISA_AVX512_VNNI
                            : kernels_get(QWEN3_ISA_NEON_DOT)  ? QWEN3_ISA_NEON_DOT
                                                               : qwen3_isa_best();
    const qwen3_isa levels[] = {qwen3_isa_best(), kernels_highest(), bytes, QWEN3_ISA_AUTO, QWEN3_ISA_C};
    /* Many ranks on few cores are slow, emulated processors more so: one in so many settings. */
    const int one_in = (qwen3_comm_size(r->world) > 2 ? 2 : 1) * (getenv("QWEN3_TEST_CASES") ? 6 : 1);
    for (int type = 0; type < DTYPE_COUNT; type++)
        for (int algorithm = QWEN3_ATTENTION_STANDARD; algorithm <= QWEN3_ATTENTION_ONLINE_SOFTMAX; algorithm++) {
            qwen3_model_options model = qwen3_model_options_default();
            qwen3_session_options session = qwen3_session_options_default();
            model.dtype = (qwen3_dtype)type;
            model.kv_dtype = (qwen3_dtype[]){QWEN3_DTYPE_F32, QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8}[(type + index) % 3];
            model.isa = levels[(2 * type + algorithm + 3 * index) % 5];
            session.max_sequences = SEQUENCES;
            session.algorithm = (qwen3_attention_algorithm)algorithm;
            if ((type + algorithm + index) % one_in != 0)
                continue;
            model.deterministic = true;
            check_setting(r, dir, &t, model, &session, random);
            if (type > 0)
                continue;
            model.deterministic = false;
            const int different = check_setting(r, dir, &t, model, &session, random);
            check(different > 0 || qwen3_comm_rank(r->world) > 0 || qwen3_comm_size(r->world) == 1, /* may be lucky */
                  "the same bits without the option: what would this test find?");
        }
    if (qwen3_comm_rank(r->world) == 0)
        remove_checkpoint(dir);
}

/* Sums that are rounded on their way are not what the option promises. */
static void check_refusal(comm *world)
{
    qwen3_model_options options = qwen3_model_options_default();
    qwen3_session_options session_options = qwen3_session_options_default();
    qwen3_model *model = NULL;
    qwen3_session *session = NULL;
    options.deterministic = true;
    session_options.wire = QWEN3_DTYPE_BF16;
    check(!qwen3_model_open(world, "synthetic:tiny", &options, &model, NULL), "the model does not open");
    check(qwen3_session_open(model, &session_options, &session, NULL) == QWEN3_ERR_ARGUMENT, "rounded sums are taken");
    qwen3_model_close(model);
}

int main(int argc, char **argv)
{
    uint64_t random;
    ranks r = {.world = check_begin(argc, argv, 20261127, &random)};
    check(comm_split(r.world, 0, qwen3_comm_rank(r.world), &r.messages, NULL) == QWEN3_OK, "comm_split failed");
    comm_use_messages(r.messages);
    check_refusal(r.world);
    for (int i = 0; i < SHAPES; i++)
        check_shape(&r, i, &random);
    comm_free(r.messages);
    return check_end(r.world);
}
