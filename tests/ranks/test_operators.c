/* test_operators.c - the attention operators as collective calls: faults that one rank has are seen by all and leave
 * nothing behind, repeated calls give the same bits, and what travels is what the layout makes necessary. That the
 * results are right is checked against float64 by programs/test_parallel_strategies; here it is enough to compare
 * with a group of one rank.
 */
#include <math.h>
#include <string.h>

#include "attention/kv_shard.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "ranks/check.h"

static uint64_t seed;

typedef qwen3_status operator_function(const qwen3_attention_args *args, qwen3_comm *c, qwen3_error *err);

enum { PAIRS = 4 };
static operator_function *const operators[PAIRS] = {
    qwen3_attention_headwise_standard, qwen3_attention_headwise_online_softmax, qwen3_attention_sequence_standard,
    qwen3_attention_sequence_online_softmax};

/* A problem small enough to be solved by every rank alone as well. */
typedef struct problem {
    qwen3_attention_args args; /* replicated */
    float *q, *k, *v, *out, *expected;
    size_t size;
} problem;

static float *random_array(uint64_t *state, size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = check_random_float(state);
    return x;
}

static problem make_problem(size_t heads, size_t kv_heads, size_t q_len, size_t kv_len, bool causal)
{
    uint64_t state = seed;
    problem p = {.args = qwen3_attention_args_default()};
    qwen3_attention_args *a = &p.args;
    a->batch = 2, a->heads = heads, a->kv_heads = kv_heads, a->q_len = q_len, a->kv_len = kv_len, a->head_dim = 32;
    a->causal = causal, a->threads = 1;
    p.size = a->batch * heads * q_len * a->head_dim;
    a->q = p.q = random_array(&state, p.size);
    a->k = p.k = random_array(&state, a->batch * kv_heads * kv_len * a->head_dim);
    a->v = p.v = random_array(&state, a->batch * kv_heads * kv_len * a->head_dim);
    a->out = p.expected = random_array(&state, p.size);
    qwen3_error err;
    qwen3_status status = qwen3_attention_headwise_standard(a, qwen3_comm_self(), &err);
    check(status == QWEN3_OK, "%s", err.message);
    a->out = p.out = random_array(&state, p.size);
    return p;
}

/* So that what a call before has left is not taken for the result. */
static void forget_output(const problem *p)
{
    memset(p->out, 0xff, p->size * sizeof *p->out);
}

static void free_problem(problem *p)
{
    free(p->q), free(p->k), free(p->v), free(p->out), free(p->expected);
}

/* Sequence shards of rank `rank`: [begin, end) of n. */
static void shard_of(size_t n, int rank, int ranks, size_t *begin, size_t *end)
{
    *begin = n * (size_t)rank / (size_t)ranks;
    *end = n * ((size_t)rank + 1) / (size_t)ranks;
}

/* [batch * heads, rows, dim] -> the rows [begin, end) of all heads. */
static float *cut_rows(const float *x, size_t heads, size_t rows, size_t dim, size_t begin, size_t end)
{
    size_t n = (end - begin) * dim;
    float *part = malloc((heads * n + 1) * sizeof *part);
    for (size_t h = 0; h < heads; h++)
        memcpy(part + h * n, x + (h * rows + begin) * dim, n * sizeof *part);
    return part;
}

/* Largest difference between rows of `out` and the expected ones; values are averages of numbers in [-1, 1]. */
static bool close_to(const float *out, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(out[i] - expected[i]) <= 1e-5f))
            return false;
    return true;
}

/* The whole problem from sequence shards. isa: of this rank. */
static void run_sharded(comm *world, const problem *p, int pair, qwen3_isa isa)
{
    size_t q0, q1, k0, k1, batch_heads = p->args.batch * p->args.heads, dim = p->args.head_dim;
    shard_of(p->args.q_len, comm_rank(world), comm_size(world), &q0, &q1);
    shard_of(p->args.kv_len, comm_rank(world), comm_size(world), &k0, &k1);
    float *q = cut_rows(p->q, batch_heads, p->args.q_len, dim, q0, q1);
    float *expected = cut_rows(p->expected, batch_heads, p->args.q_len, dim, q0, q1);
    float *k = cut_rows(p->k, p->args.batch * p->args.kv_heads, p->args.kv_len, dim, k0, k1);
    float *v = cut_rows(p->v, p->args.batch * p->args.kv_heads, p->args.kv_len, dim, k0, k1);
    qwen3_attention_args a = p->args;
    a.layout = QWEN3_INPUT_SHARDED, a.isa = isa, a.global_seq_len = p->args.kv_len;
    a.q = q, a.k = k, a.v = v, a.q_len = q1 - q0, a.kv_len = k1 - k0;
    forget_output(p);
    qwen3_error err;
    qwen3_status status = operators[pair](&a, world, &err);
    check(status == QWEN3_OK, "%s", err.message);
    check(close_to(a.out, expected, batch_heads * (q1 - q0) * dim), "pair %d", pair);
    free(q), free(k), free(v), free(expected);
}

/* ---- Faults ------------------------------------------------------------------------------------ */

typedef void breaker(qwen3_attention_args *a);

#define BREAKER(name, change)                                                                                          \
    static void break_##name(qwen3_attention_args *a)                                                                  \
    {                                                                                                                  \
        change;                                                                                                        \
    }

BREAKER(head_dim, a->head_dim = 0)
BREAKER(heads, a->kv_heads = 3)
BREAKER(q, a->q = NULL)
BREAKER(v, a->v = NULL)
BREAKER(out, a->out = NULL)
BREAKER(scale, a->scale = NAN)
BREAKER(block, a->q_block_size = -1)
BREAKER(layout, a->layout = (qwen3_input_layout)7)
BREAKER(isa, a->isa = (qwen3_isa)99)
BREAKER(size, a->batch = SIZE_MAX / 2)
BREAKER(threads, a->threads = -1)
/* Well-formed, but not what the other ranks pass. */
BREAKER(other_layout, a->layout = QWEN3_INPUT_SHARDED)
BREAKER(other_batch, a->batch = 1)
BREAKER(other_length, a->kv_len--)
BREAKER(other_causal, a->causal = !a->causal)
BREAKER(other_scale, a->scale = 2)

static const struct fault {
    breaker *inject;
    const char *message;
    qwen3_status status;
    bool needs_ranks;
} faults[] = {
    {break_head_dim, "head_dim", QWEN3_ERR_ARGUMENT, false},
    {break_heads, "heads: got 4", QWEN3_ERR_ARGUMENT, false},
    {break_q, "attention q", QWEN3_ERR_ARGUMENT, false},
    {break_v, "attention v", QWEN3_ERR_ARGUMENT, false},
    {break_out, "attention out", QWEN3_ERR_ARGUMENT, false},
    {break_scale, "scale", QWEN3_ERR_ARGUMENT, false},
    {break_block, "q_block_size", QWEN3_ERR_ARGUMENT, false},
    {break_layout, "layout", QWEN3_ERR_ARGUMENT, false},
    {break_isa, "isa", QWEN3_ERR_ARGUMENT, false},
    {break_size, "too large", QWEN3_ERR_ARGUMENT, false},
    {break_threads, "threads", QWEN3_ERR_ARGUMENT, false},
    {break_other_layout, "layout", QWEN3_ERR_ARGUMENT, true},
    {break_other_batch, "batch", QWEN3_ERR_ARGUMENT, true},
    {break_other_length, "kv_len", QWEN3_ERR_ARGUMENT, true},
    {break_other_causal, "causal", QWEN3_ERR_ARGUMENT, true},
    {break_other_scale, "scale", QWEN3_ERR_ARGUMENT, true},
};

/* One rank is wrong: all return the same status and message, and the next call works. */
static void test_faults(comm *world)
{
    problem p = make_problem(4, 2, 6, 70, true);
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
        if (faults[f].needs_ranks && comm_size(world) == 1)
            continue;
        int pair = (int)f % PAIRS, wrong = (int)(f + 1) % comm_size(world);
        qwen3_attention_args a = p.args;
        qwen3_error err;
        if (comm_rank(world) == wrong)
            faults[f].inject(&a);
        qwen3_status status = operators[pair](&a, world, &err);
        check(status == faults[f].status, "fault %zu: status %d", f, (int)status);
        check(strstr(err.message, faults[f].message), "fault %zu: \"%s\"", f, err.message);
        check(faults[f].needs_ranks || err.rank == wrong, "fault %zu: rank %d", f, err.rank);
        forget_output(&p);
        status = operators[pair](&p.args, world, &err);
        check(status == QWEN3_OK, "after fault %zu: %s", f, err.message);
        check(close_to(p.out, p.expected, p.size), "after fault %zu", f);
    }
    qwen3_error err;
    check(operators[0](NULL, world, &err) == QWEN3_ERR_ARGUMENT, "args NULL");
    check(operators[0](&p.args, NULL, &err) == QWEN3_ERR_ARGUMENT, "comm NULL");
    check(operators[1](&p.args, world, NULL) == QWEN3_OK, "err NULL");
    qwen3_attention_args a = p.args;
    a.layout = QWEN3_INPUT_SHARDED;
    a.global_seq_len = 71; /* one less or more than the shards have */
    check(operators[2](&a, world, &err) == QWEN3_ERR_ARGUMENT && strstr(err.message, "global_seq_len"), "%s",
          err.message);
    free_problem(&p);
}

/* ---- Results ----------------------------------------------------------------------------------- */

/* The same call twice gives the same bits, for any number of threads; more threads than anything to do, too. */
static void test_repeatable(comm *world)
{
    problem p = make_problem(6, 2, 37, 150, true);
    float *first = malloc(p.size * sizeof *first);
    for (int pair = 0; pair < PAIRS; pair++)
        for (p.args.threads = 1; p.args.threads <= 3; p.args.threads++) {
            qwen3_error err;
            forget_output(&p);
            operators[pair](&p.args, world, &err);
            check(close_to(p.out, p.expected, p.size), "pair %d threads %d", pair, p.args.threads);
            memcpy(first, p.out, p.size * sizeof *first);
            forget_output(&p);
            operators[pair](&p.args, world, &err);
            check(memcmp(first, p.out, p.size * sizeof *first) == 0, "pair %d threads %d", pair, p.args.threads);
        }
    free(first);
    free_problem(&p);
}

/* Ranks with different instruction sets exchange packed keys all the same. */
static void test_mixed_isa(comm *world)
{
    problem p = make_problem(4, 2, 50, 90, true);
    for (int pair = 2; pair < PAIRS; pair++) {
        run_sharded(world, &p, pair, comm_rank(world) % 2 ? QWEN3_ISA_AUTO : QWEN3_ISA_C);
        run_sharded(world, &p, pair, comm_rank(world) % 3 ? QWEN3_ISA_C : QWEN3_ISA_AUTO);
    }
    free_problem(&p);
}

/* Nothing to do at all: no batch, no heads, no queries, no keys. */
static void test_nothing(comm *world)
{
    static const size_t shapes[][4] = {{0, 4, 3, 5}, {1, 0, 3, 5}, {1, 4, 0, 5}, {1, 4, 3, 0}, {0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int pair = 0; pair < PAIRS; pair++)
            for (int layout = QWEN3_INPUT_REPLICATED; layout <= QWEN3_INPUT_SHARDED; layout++) {
                float q[4 * 3 * 8] = {0}, kv[4 * 5 * 8] = {0}, out[4 * 3 * 8];
                memset(out, 0xff, sizeof out);
                qwen3_attention_args a = qwen3_attention_args_default();
                a.batch = shapes[i][0], a.heads = a.kv_heads = shapes[i][1], a.q_len = shapes[i][2];
                a.kv_len = shapes[i][3], a.head_dim = 8, a.layout = (qwen3_input_layout)layout;
                a.q = q, a.k = a.v = kv, a.out = out, a.threads = 2;
                qwen3_error err;
                qwen3_status status = operators[pair](&a, world, &err);
                check(status == QWEN3_OK, "shape %zu pair %d: %s", i, pair, err.message);
                for (size_t e = 0; i == 3 && e < 4 * 3 * 8; e++)
                    check(out[e] == 0, "shape %zu pair %d: without keys the output is %g", i, pair, (double)out[e]);
            }
}

/* ---- What is not a number ---------------------------------------------------------------------- */

/* A row of queries (all heads) or a key (all KV heads) is made unfit; see not_a_number. */
typedef enum poison { NAN_QUERY, HIGH_QUERY, LOW_QUERY, NAN_KEY, NAN_VALUE, HIDDEN_NAN_QUERY, POISONS } poison;

enum { POISON_ROW = 11, POISON_KEY = 137 };

static void fill(float *x, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        x[i] = value;
}

/* mask: [q_len, kv_len] zeros. */
static void poison_problem(const problem *p, poison what, float *mask)
{
    const qwen3_attention_args *a = &p->args;
    const size_t dim = a->head_dim;
    const float query = what == HIGH_QUERY ? 3e38f : what == LOW_QUERY ? -3e38f : NAN;
    if (what == HIGH_QUERY || what == LOW_QUERY)
        fill(p->k, a->batch * a->kv_heads * a->kv_len * dim, 64.0f);
    for (size_t h = 0; h < a->batch * a->heads; h++)
        if (what != NAN_KEY && what != NAN_VALUE)
            fill(p->q + (h * a->q_len + POISON_ROW) * dim, dim, query);
    for (size_t h = 0; h < a->batch * a->kv_heads; h++)
        if (what == NAN_KEY || what == NAN_VALUE)
            fill((what == NAN_KEY ? p->k : p->v) + (h * a->kv_len + POISON_KEY) * dim, dim, NAN);
    if (what == HIDDEN_NAN_QUERY)
        fill(mask + POISON_ROW * a->kv_len, a->kv_len, -INFINITY);
}

/* Whether row `row` must be NaN. Rows that do not see a value that is NaN may be NaN as well. */
static bool not_a_number(const problem *p, poison what, size_t row)
{
    const bool sees_key = row + p->args.kv_len - p->args.q_len >= POISON_KEY;
    return what == NAN_KEY || what == NAN_VALUE ? sees_key : what != HIDDEN_NAN_QUERY && row == POISON_ROW;
}

static void check_poisoned(const problem *p, poison what, int pair)
{
    const size_t dim = p->args.head_dim;
    for (size_t i = 0; i < p->size / dim; i++) {
        const size_t row = i % p->args.q_len;
        const float *o = p->out + i * dim;
        const bool nan = not_a_number(p, what, row);
        if (nan || what == NAN_VALUE)
            check(!nan || isnan(o[0]), "poison %d pair %d row %zu: %g", (int)what, pair, row, (double)o[0]);
        else if (what == HIDDEN_NAN_QUERY && row == POISON_ROW)
            check(o[0] == 0, "poison %d pair %d row %zu: %g", (int)what, pair, row, (double)o[0]);
        else if (what != HIGH_QUERY && what != LOW_QUERY) /* where the keys are others */
            check(close_to(o, p->expected + i * dim, dim), "poison %d pair %d row %zu", (int)what, pair, row);
    }
}

/* Scores that are not finite do not hide a key, whichever rank has it: only a row that sees no key gives zeros. */
static void test_not_a_number(comm *world)
{
    for (poison what = 0; what < POISONS; what++) {
        problem p = make_problem(4, 2, 37, 150, true);
        float *mask = calloc(p.args.q_len * p.args.kv_len, sizeof *mask);
        poison_problem(&p, what, mask);
        if (what == HIDDEN_NAN_QUERY) {
            p.args.mask = mask;
            p.args.mask_stride_query = p.args.kv_len;
        }
        for (int pair = 0; pair < PAIRS; pair++) {
            qwen3_error err;
            forget_output(&p);
            qwen3_status status = operators[pair](&p.args, world, &err);
            check(status == QWEN3_OK, "%s", err.message);
            check_poisoned(&p, what, pair);
        }
        free(mask);
        free_problem(&p);
    }
}

/* ---- Bytes ------------------------------------------------------------------------------------- */

static qwen3_comm_stats spent(comm *world, const qwen3_comm_stats *before)
{
    qwen3_comm_stats now = *comm_stats(world);
    for (int k = 0; k < QWEN3_COMM_KINDS; k++)
        now.bytes[k] -= before->bytes[k];
    return now;
}

/* On rank 0. */
static uint64_t sum_over_ranks(comm *world, uint64_t own)
{
    uint64_t *all = calloc((size_t)comm_size(world), sizeof *all), sum = 0;
    qwen3_comm_gather(world, &own, sizeof own, all);
    for (int r = 0; r < comm_size(world) && comm_rank(world) == 0; r++)
        sum += all[r];
    free(all);
    return sum;
}

/* Many queries of many heads: every shard reaches every rank. One query: it travels, and no key does. */
static void test_bytes(comm *world)
{
    const size_t ranks = (size_t)comm_size(world), rank = (size_t)comm_rank(world);
    attention_shape s = {.kernels = kernels_get(QWEN3_ISA_AUTO), .head_dim = 32, .kv_heads = 2, .heads_per_kv = 2};
    for (int pair = 2; pair < PAIRS; pair++) {
        problem many = make_problem(16, 2, 400, 400, true), one = make_problem(4, 2, 1, 200, true);
        size_t shards = 0, q0, q1, begin, end;
        for (size_t r = 0; r < ranks; r++) {
            shard_of(400, (int)r, (int)ranks, &begin, &end);
            shards += kv_shard_bytes(2 * kv_run_bytes(&s, end - begin));
        }
        qwen3_comm_stats before = *comm_stats(world);
        run_sharded(world, &many, pair, QWEN3_ISA_AUTO);
        qwen3_comm_stats sent = spent(world, &before);
        const uint64_t keys = sum_over_ranks(world, sent.bytes[QWEN3_COMM_KV]);
        check(rank || keys == shards * (ranks - 1), "sent %" PRIu64 ", expected %zu", keys, shards * (ranks - 1));
        check(sent.bytes[QWEN3_COMM_QUERY] + sent.bytes[QWEN3_COMM_PARTIAL] == 0, "only keys travel");

        shard_of(1, (int)rank, (int)ranks, &q0, &q1);
        before = *comm_stats(world);
        run_sharded(world, &one, pair, QWEN3_ISA_AUTO);
        sent = spent(world, &before);
        /* batch 2 x 4 heads; a query is 32 floats, a partial two more */
        size_t query = (q1 - q0) * (ranks - 1) * 2 * 4 * 32 * sizeof(float);
        size_t partial = ranks > 1 && q1 == q0 ? 2 * 4 * 34 * sizeof(float) : 0;
        check(sent.bytes[QWEN3_COMM_KV] == 0, "no key travels");
        check(sent.bytes[QWEN3_COMM_QUERY] == query, "%" PRIu64 " of %zu", sent.bytes[QWEN3_COMM_QUERY], query);
        check(sent.bytes[QWEN3_COMM_PARTIAL] == partial, "%" PRIu64 " of %zu", sent.bytes[QWEN3_COMM_PARTIAL], partial);
        free_problem(&many);
        free_problem(&one);
    }
}

int main(int argc, char **argv)
{
    comm *world = check_begin(argc, argv, 5, &seed);
    test_faults(world);
    test_repeatable(world);
    test_mixed_isa(world);
    test_nothing(world);
    test_not_a_number(world);
    test_bytes(world);
    return check_end(world);
}
