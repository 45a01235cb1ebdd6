/* test_sample.c - sampling and truncation on the ranks at hand.
 *
 * Sampling: the same logits are put in place of those of a forward pass, on all ranks together and on one rank alone,
 * which tests/unit/test_sampler.c compares with a plain computation: tokens must be the same, and only candidates may
 * have travelled. Truncation: a session that forgot the tail of its sequences goes on as one that never had it. */
#include <math.h>
#include <string.h>

#include "blocks/attention.h"
#include "check.h"
#include "engine/session.h"

enum { ROWS = 12, TOKENS = 505 };

typedef struct setup {
    qwen3_model *model;
    qwen3_session *session;
    size_t vocab;
} setup;

static bool open_setup(qwen3_comm *group, const qwen3_model_options *options, int sequences, setup *s)
{
    qwen3_error err = {0};
    qwen3_session_options session = qwen3_session_options_default();
    session.max_sequences = sequences;
    *s = (setup){0};
    qwen3_status status = qwen3_model_open(group, "synthetic:tiny", options, &s->model, &err);
    if (!status)
        status = qwen3_session_open(s->model, &session, &s->session, &err);
    check(!status, "%s", err.message);
    if (!status)
        s->vocab = (size_t)qwen3_model_config(s->model)->vocab_size;
    return !status;
}

static void close_setup(setup *s)
{
    qwen3_session_close(s->session);
    qwen3_model_close(s->model);
}

/* ---- Sampling ---------------------------------------------------------------------------------- */

/* logits[ROWS][vocab] in place of those that a forward pass left. */
static void put_logits(const setup *s, const float *logits)
{
    range part = session_vocabulary(s->model, qwen3_comm_rank(s->model->world));
    size_t n = (size_t)range_size(part);
    for (size_t row = 0; row < ROWS; row++)
        if (n > 0)
            memcpy(s->session->head.logits + row * n, logits + row * s->vocab + part.begin, n * sizeof *logits);
}

/* Every kind of choice, one row each, and then random ones. */
static qwen3_sampling_options options_of(size_t row, uint64_t *random)
{
    qwen3_sampling_options o = qwen3_sampling_options_default();
    uint64_t kind = row < 8 ? row : check_random(random) % 8;
    o.seed = check_random(random);
    o.temperature = kind == 0 ? 0 : 0.3 + (double)(check_random(random) % 20) / 10;
    o.top_k = kind == 1 ? 1 : kind == 2 ? 20 : kind == 3 ? 300 : 0;
    o.top_p = kind == 2 || kind == 4 || kind == 6 ? (double)(check_random(random) % 100) / 100 : 1;
    o.min_p = kind == 5 || kind == 6 ? 0.1 : 0;
    o.presence_penalty = (double)(check_random(random) % 3) / 3;
    o.frequency_penalty = (double)(check_random(random) % 3) / 3;
    o.repetition_penalty = 1 + (double)(check_random(random) % 3) / 9;
    return o;
}

/* Tokens of some steps of every row: tokens[steps][ROWS]. */
static void sample_steps(const setup *s, const float *logits, size_t steps, uint64_t random, int32_t *tokens)
{
    qwen3_sampler *samplers[ROWS] = {0};
    qwen3_error err = {0};
    qwen3_status status = QWEN3_OK;
    for (size_t row = 0; row < ROWS - 1 && !status; row++) { /* the last row has none */
        qwen3_sampling_options o = options_of(row, &random);
        qwen3_logit_bias bias[] = {{(int32_t)(check_random(&random) % TOKENS), -INFINITY}, {TOKENS - 1, 2}};
        o.bias = bias;
        o.n_bias = 2 - (bias[0].token == TOKENS - 1);
        int32_t prompt[] = {3, (int32_t)(check_random(&random) % TOKENS)};
        status = qwen3_sampler_open(qwen3_model_config(s->model), TOKENS, &o, &samplers[row], &err);
        if (!status)
            status = qwen3_sampler_accept(samplers[row], prompt, 2, row % 2, &err);
    }
    for (size_t i = 0; i < steps && !status; i++) {
        put_logits(s, logits);
        status = qwen3_sample(s->session, samplers, tokens + i * ROWS, &err);
    }
    check(!status, "%s", err.message);
    for (size_t row = 0; row < ROWS; row++)
        qwen3_sampler_close(samplers[row]);
}

/* Rows as models have them, with ties, forbidden tokens, parts of a rank that are forbidden whole; what stands for no
 * token is the largest. */
static void make_logits(float *logits, size_t vocab, uint64_t *random)
{
    for (size_t row = 0; row < ROWS; row++) {
        uint64_t kind = check_random(random) % 4;
        for (size_t i = 0; i < vocab; i++) {
            float x = 3 * (check_random_float(random) + check_random_float(random) + check_random_float(random));
            x = kind == 1 ? roundf(x) : kind == 2 && i / 60 % 3 ? -INFINITY : x;
            logits[row * vocab + i] = i < TOKENS ? x : 50;
        }
    }
}

/* What a rank may send in a step: a row's candidates, and as many again for draws that were refused. */
#define MOST_BYTES (16 * (8 + 20 + 300 + 3 * ROWS + 16 * ROWS))

static void check_sampling(qwen3_comm *world, uint64_t *random)
{
    enum { STEPS = 4, ROUNDS = 3 };
    qwen3_model_options options = qwen3_model_options_default();
    static const int32_t ids[ROWS];
    static const uint8_t wanted[ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const qwen3_batch batch = {.n_tokens = ROWS, .tokens = ids, .logits = wanted};
    setup all, alone;
    options.threads = 1;
    float *logits = NULL;
    bool open = open_setup(world, &options, 1, &all);
    open = open_setup(qwen3_comm_self(), &options, 1, &alone) && open;
    if (open) {
        qwen3_error err = {0};
        logits = malloc(ROWS * all.vocab * sizeof *logits);
        check(!qwen3_forward(all.session, &batch, &err) && !qwen3_forward(alone.session, &batch, &err), "%s",
              err.message);
    }
    for (int round = 0; open && round < ROUNDS; round++) {
        int32_t tokens[STEPS][ROWS] = {0}, expected[STEPS][ROWS] = {0};
        qwen3_session_info info;
        make_logits(logits, all.vocab, random);
        qwen3_session_reset_stats(all.session);
        sample_steps(&all, logits, STEPS, *random, tokens[0]);
        qwen3_session_get_info(all.session, &info);
        sample_steps(&alone, logits, STEPS, *random, expected[0]);
        for (size_t at = 0; at < STEPS; at++)
            for (size_t row = 0; row < ROWS; row++) {
                int32_t token = tokens[at][row], alone_token = expected[at][row];
                check(token == alone_token, "step %zu row %zu: token %d, on one rank %d", at, row, token, alone_token);
                check(row == ROWS - 1 ? token == TOKENS : token < TOKENS, "row %zu: token %d", row, token);
            }
        uint64_t most = STEPS * (uint64_t)(qwen3_comm_size(world) - 1) * MOST_BYTES;
        check(info.comm.bytes[QWEN3_COMM_LOGITS] <= most, "%" PRIu64 " bytes sent, expected at most %" PRIu64,
              info.comm.bytes[QWEN3_COMM_LOGITS], most);
        check(qwen3_comm_size(world) == 1 || info.comm.bytes[QWEN3_COMM_LOGITS] > 0, "nothing sent");
        check_random(random);
    }
    free(logits);
    close_setup(&all);
    close_setup(&alone);
}

/* One candidate of 16 bytes for a greedy row, two for one with temperature, k for top_k. */
static void check_traffic(qwen3_comm *world)
{
    static const int32_t ids[1];
    const qwen3_batch batch = {.n_tokens = 1, .tokens = ids};
    qwen3_model_options options = qwen3_model_options_default();
    setup s;
    bool open = open_setup(world, &options, 1, &s);
    if (open)
        check(!qwen3_forward(s.session, &batch, NULL), "no forward pass");
    for (int k = -1; open && k <= 7; k += 4) { /* greedy at -1; top_k must fit the smallest part */
        qwen3_sampling_options o = qwen3_sampling_options_default();
        o.temperature = k < 0 ? 0 : 1;
        o.top_k = k < 0 ? 0 : k;
        o.top_p = k > 0 ? 0.9 : 1;
        qwen3_sampler *sampler = NULL;
        qwen3_session_info info;
        int32_t token;
        qwen3_session_reset_stats(s.session);
        check(!qwen3_sampler_open(qwen3_model_config(s.model), 0, &o, &sampler, NULL), "no sampler");
        check(!qwen3_sample(s.session, &sampler, &token, NULL), "no token");
        qwen3_session_get_info(s.session, &info);
        size_t part = (size_t)range_size(session_vocabulary(s.model, qwen3_comm_rank(world)));
        size_t records = k < 0 ? 1 : (size_t)k < part ? (size_t)k : part;
        uint64_t expected = 16 * records * (uint64_t)(qwen3_comm_size(world) - 1);
        check(info.comm.bytes[QWEN3_COMM_LOGITS] == expected, "top_k %d: %" PRIu64 " bytes, expected %" PRIu64, k,
              info.comm.bytes[QWEN3_COMM_LOGITS], expected);
        qwen3_sampler_close(sampler);
    }
    close_setup(&s);
}

/* The rank that has the bad logit is not the only one to fail. */
static void check_bad_logits(qwen3_comm *world)
{
    static const int32_t ids[1];
    const qwen3_batch batch = {.n_tokens = 1, .tokens = ids};
    qwen3_model_options options = qwen3_model_options_default();
    setup s;
    int32_t token;
    qwen3_error err = {0};
    if (open_setup(world, &options, 1, &s)) {
        check(qwen3_argmax(s.session, &token, &err) == QWEN3_ERR_ARGUMENT, "no forward pass: %s", err.message);
        check(!qwen3_forward(s.session, &batch, &err), "%s", err.message);
        range part = session_vocabulary(s.model, qwen3_comm_rank(world));
        if (part.begin <= 300 && 300 < part.end)
            s.session->head.logits[300 - part.begin] = NAN;
        check(qwen3_argmax(s.session, &token, &err) == QWEN3_ERR_FORMAT && strstr(err.message, "row 0"), "%s",
              err.message);
    }
    close_setup(&s);
}

/* ---- Truncation -------------------------------------------------------------------------------- */

enum { SEQUENCES = 3, LONGEST = 300 };

/* Tokens [begin, end) of a sequence, in steps of at most `most`; the tokens differ by `salt`. */
static bool feed(const setup *s, int sequence, int64_t begin, int64_t end, int64_t most, int salt)
{
    qwen3_error err = {0};
    for (int64_t at = begin; at < end && !err.status; at += most) {
        int32_t tokens[LONGEST], sequences[LONGEST];
        size_t n = (size_t)(end - at < most ? end - at : most);
        for (size_t i = 0; i < n; i++) {
            tokens[i] = (int32_t)(((at + (int64_t)i) * 31 + sequence * 7 + salt) % (int64_t)s->vocab);
            sequences[i] = sequence;
        }
        qwen3_batch batch = {.n_tokens = n, .tokens = tokens, .sequences = sequences};
        qwen3_forward(s->session, &batch, &err);
    }
    check(!err.status, "%s", err.message);
    return !err.status;
}

/* Other groups keep the tokens, so sums are taken in another order; a value that is stored as BF16 or in 8 bits may
 * then be rounded to its neighbour. Where activations are rounded, too, all that follow may be: one row of large models
 * differs by up to twice the 1e-2 that many rows together do. */
static void compare_logits(qwen3_comm *world, const setup *a, const setup *b, bool large, const char *label)
{
    double most = large ? 2e-2 : a->session->decoder.kv_dtype == QWEN3_DTYPE_F32 ? 1e-5 : 5e-4;
    bool root = qwen3_comm_rank(world) == 0;
    float *x = root ? malloc(2 * a->vocab * sizeof *x) : NULL;
    qwen3_error err = {0};
    check(!qwen3_logits(a->session, x, &err) && !qwen3_logits(b->session, root ? x + a->vocab : NULL, &err), "%s: %s",
          label, err.message);
    double difference = 0, norm = 0;
    for (size_t i = 0; root && i < a->vocab; i++) {
        difference += pow((double)x[i] - x[a->vocab + i], 2);
        norm += pow((double)x[a->vocab + i], 2);
    }
    check(!root || sqrt(difference / norm) <= most, "%s: relative L2 %.3g", label, sqrt(difference / norm));
    free(x);
}

static const kv_cache *cache_of(const setup *s)
{
    size_t k = 0;
    while (s->session->blocks[k].block != &block_attention)
        k++;
    return attention_cache(s->session->blocks[k].state);
}

/* Whatever is left of tokens that are forgotten is of no account: puts NaN in the place of all of them that this rank
 * keeps. Those from `keep` on of sequence 1 will be forgotten. */
static void spoil_forgotten(const setup *s, int64_t keep)
{
    const sequence_table *table = &s->session->sequences;
    const kv_cache *cache = cache_of(s);
    const attention_shape *shape = cache->shape;
    const kv_sequence *sequence = &cache->sequences[1];
    float *bad = malloc(shape->head_dim * sizeof *bad);
    for (size_t i = 0; i < shape->head_dim; i++)
        bad[i] = NAN;
    for (int64_t i = sequences_owned_below(table, 1, keep); i < table->items[1].owned[table->group]; i++)
        for (int64_t layer = 0; layer < cache->layers; layer++)
            for (size_t h = 0; h < shape->kv_heads; h++) {
                void *page = kv_cache_layer(cache, sequence->pages[i / KV_BLOCK], layer);
                kv_block_store(shape, kv_page_place(shape, page, KV_BLOCK, h), (size_t)(i % KV_BLOCK), 1, bad, bad);
            }
    for (const kv_page *page = cache->free_pages; page; page = page->next)
        memset(page->data, 0xff, cache->page_bytes);
    free(bad);
}

/* A session that held `length` tokens, forgot all from `keep` on and went on with others, and one that never had the
 * forgotten ones, give the same. */
static void check_truncation(qwen3_comm *world, const qwen3_model_options *options, uint64_t *random)
{
    static const int64_t lengths[][2] = {{150, 150}, {150, 0}, {150, 149}, {150, 128}, {130, 127}, {129, 64},
                                         {64, 64},   {65, 1},  {200, 63},  {3, 2},     {1, 0},     {290, 65}};
    const uint64_t sparse = qwen3_comm_size(world) > 4 ? 6 : 2; /* many ranks on few cores are slow */
    const bool large = options->isa != QWEN3_ISA_AUTO;
    setup s, fresh;
    char label[200];
    bool open = open_setup(world, options, SEQUENCES, &s);
    open = open_setup(world, options, SEQUENCES, &fresh) && open;
    for (size_t i = 0; open && i < sizeof lengths / sizeof *lengths; i += 1 + check_random(random) % sparse) {
        int64_t length = lengths[i][0], keep = lengths[i][1],
                most = (int64_t[]){1000, 40, 17}[check_random(random) % 3];
        qwen3_error err = {0};
        snprintf(label, sizeof label, "%s grid %dx%d %s kv %s: %lld of %lld tokens",
                 qwen3_strategy_name(options->strategy), options->grid_sequence, options->grid_heads,
                 large ? "large" : "small", qwen3_dtype_name(options->kv_dtype), (long long)keep, (long long)length);
        qwen3_session_reset(s.session, -1, NULL);
        spoil_forgotten(&s, 0);
        qwen3_session_reset(fresh.session, -1, NULL);
        for (int q = 0; q < SEQUENCES; q++) { /* the others stay */
            feed(&s, q, 0, q == 1 ? length : 20 + q, most, 0);
            feed(&fresh, q, 0, q == 1 ? keep : 20 + q, most, 0);
        }
        spoil_forgotten(&s, keep);
        check(!qwen3_session_truncate(s.session, 1, keep, &err), "%s: %s", label, err.message);
        check(qwen3_session_length(s.session, 1) == keep && qwen3_session_length(s.session, 2) == 22,
              "%s: lengths %lld, %lld", label, (long long)qwen3_session_length(s.session, 1),
              (long long)qwen3_session_length(s.session, 2));
        int64_t owned = 0;
        for (int g = 0; g < s.session->sequences.groups; g++)
            owned += s.session->sequences.items[1].owned[g];
        check(owned == keep, "%s: groups own %lld", label, (long long)owned);
        for (int q = SEQUENCES - 1; q >= 0; q--) { /* others than before, one at a time, several, and few */
            int64_t at = qwen3_session_length(fresh.session, q);
            feed(&s, q, at, at + 2, 1, 5);
            feed(&fresh, q, at, at + 2, 1, 5);
            feed(&s, q, at + 2, at + 30, 26, 5);
            feed(&fresh, q, at + 2, at + 30, 26, 5);
            compare_logits(world, &s, &fresh, large, label);
        }
        qwen3_session_info info;
        qwen3_session_get_info(s.session, &info);
        size_t pages = 0;
        for (int q = 0; q < SEQUENCES; q++)
            pages += kv_cache_pages(cache_of(&s), q);
        check(info.kv_bytes_used == pages * cache_of(&s)->page_bytes, "%s: %" PRIu64 " bytes used for %zu pages", label,
              info.kv_bytes_used, pages);
    }
    if (open) {
        qwen3_error err = {0};
        check(qwen3_session_truncate(s.session, 1, 1000, &err) == QWEN3_ERR_ARGUMENT && strstr(err.message, "length"),
              "%s", err.message);
        check(qwen3_session_truncate(s.session, 1, -1, &err) == QWEN3_ERR_ARGUMENT, "%s", err.message);
        check(qwen3_session_truncate(s.session, SEQUENCES, 0, &err) == QWEN3_ERR_ARGUMENT &&
                  strstr(err.message, "sequence"),
              "%s", err.message);
    }
    close_setup(&s);
    close_setup(&fresh);
}

int main(int argc, char **argv)
{
    uint64_t random;
    qwen3_comm *world = check_begin(argc, argv, 20261124, &random);
    int ranks = qwen3_comm_size(world);
    check_sampling(world, &random);
    check_traffic(world);
    check_bad_logits(world);
    for (int heads = 1; heads <= ranks; heads++) {
        /* The last as large models are computed: on a level by name. */
        static const qwen3_dtype types[] = {QWEN3_DTYPE_F32, QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8, QWEN3_DTYPE_BF16};
        if (ranks % heads)
            continue;
        for (size_t type = 0; type < 4; type++) {
            if (ranks > 4 && type != (size_t)(ranks + heads) % 4)
                continue;
            qwen3_model_options options = qwen3_model_options_default();
            options.strategy = heads == ranks ? QWEN3_STRATEGY_HEAD_WISE
                               : heads == 1   ? QWEN3_STRATEGY_SEQUENCE
                                              : QWEN3_STRATEGY_HYBRID;
            options.grid_sequence = ranks / heads;
            options.grid_heads = heads;
            options.kv_dtype = types[type];
            options.isa = type == 3 ? qwen3_isa_best() : QWEN3_ISA_AUTO;
            options.threads = 1;
            check_truncation(world, &options, &random);
        }
    }
    return check_end(world);
}
