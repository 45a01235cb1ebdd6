/* test_agree.c - ranks that do not have the same: comparing items, models, sessions and steps with other
 * options. Every rank gets the same error, which names what differs and where, and the next call works. */
#include <string.h>

#include "check.h"
#include "comm/rank_list.h"

static qwen3_comm *world;
static int rank, ranks;

/* All ranks have this error. */
static void check_error(const char *what, const qwen3_error *err, qwen3_status status, int of, const char *expected)
{
    check(err->status == status, "%s: %s: %s", what, qwen3_status_name(err->status), err->message);
    check(strstr(err->message, expected) != NULL, "%s: got \"%s\", expected \"%s\" in it", what, err->message,
          expected);
    check(err->rank == of, "%s: rank %d, expected %d: %s", what, err->rank, of, err->message);
}

/* ---- Items ---------------------------------------------------------------------------------------- */

enum { ITEMS = 4 };

/* Items[n] on the ranks from `first` on, four of "name I", "value I" on the others. */
static void compare(const char *what, int first, const qwen3_comm_item *items, size_t n, const char *expected)
{
    const qwen3_comm_item standard[ITEMS] = {
        {"name 0", "value 0"}, {"name 1", "value 1"}, {"name 2", "value 2"}, {"name 3", ""}};
    qwen3_error err = {0};
    const bool other = rank >= first;
    const qwen3_status status =
        qwen3_comm_compare(world, "subject", other ? items : standard, other ? n : ITEMS, "advice", &err);
    if (first >= ranks || (first == 0 && n == ITEMS)) {
        check(status == QWEN3_OK, "%s: %s", what, err.message);
        return;
    }
    char text[400], members[64] = "";
    bool member[16] = {false};
    for (int r = first > 1 ? first : 1; r < ranks; r++)
        member[r] = true;
    rank_list(member, ranks, members, sizeof members);
    snprintf(text, sizeof text, "subject: %s (ranks that differ: %s); advice", expected, members);
    check_error(what, &err, QWEN3_ERR_COMM, first, text);
}

static void check_items(void)
{
    const qwen3_comm_item value[] = {{"name 0", "value 0"}, {"name 1", "other"}, {"name 2", "else"}, {"name 3", ""}};
    const qwen3_comm_item name[] = {{"name 0", "value 0"}, {"name", "1value 1"}, {"name 2", "value 2"}, {"name 3", ""}};
    const qwen3_comm_item more[] = {
        {"name 0", "value 0"}, {"name 1", "value 1"}, {"name 2", "value 2"}, {"name 3", ""}, {"name 4", "value 4"}};
    for (int first = 1; first <= ranks; first++) {
        compare("value", first, value, ITEMS, "name 1: got \"other\", rank 0 has \"value 1\"");
        compare("name", first, name, ITEMS, "name: got \"1value 1\", rank 0 has nothing");
        compare("more", first, more, ITEMS + 1, "name 4: got \"value 4\", rank 0 has nothing");
        compare("fewer", first, more, ITEMS - 1, "name 3: got nothing, rank 0 has \"\"");
        compare("none", first, NULL, 0, "name 0: got nothing, rank 0 has \"value 0\"");
    }
    compare("alike", 0, more, ITEMS, "");
    /* A failure of one rank is that of all. */
    for (int r = 0; r < ranks; r++) {
        qwen3_error err = {0};
        if (rank == r)
            err = (qwen3_error){.status = QWEN3_ERR_IO, .rank = -1, .message = "broken"};
        qwen3_comm_compare(world, "subject", value, (size_t)(rank % ITEMS), "advice", &err);
        check_error("a failure", &err, QWEN3_ERR_IO, r, "broken");
    }
}

static void check_lists(void)
{
    const struct {
        const char *members, *expected;
        size_t room;
    } lists[] = {
        {"", "", 64},           {"0", "", 64}, {"1", "0", 64}, {"011", "1-2", 64}, {"110111010", "0-1, 3-5, 7", 64},
        {"110111010", "0-1", 4}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        bool member[16];
        char text[64];
        const int n = (int)strlen(lists[i].members);
        for (int j = 0; j < n; j++)
            member[j] = lists[i].members[j] == '1';
        rank_list(member, n, text, lists[i].room);
        check(strcmp(text, lists[i].expected) == 0, "%s: got \"%s\"", lists[i].members, text);
    }
}

/* ---- Models and sessions -------------------------------------------------------------------------- */

/* The last rank opens with other options or another model. */
static void open_differently(const char *what, const char *spec, const qwen3_model_options *other, const char *expected)
{
    const bool last = rank == ranks - 1;
    const qwen3_model_options standard = qwen3_model_options_default();
    qwen3_model *model = NULL;
    qwen3_error err;
    qwen3_model_open(world, last ? spec : "synthetic:tiny", last ? other : &standard, &model, &err);
    check(!model, "%s: there is a model", what);
    check_error(what, &err, QWEN3_ERR_COMM, ranks - 1, expected);
}

static void check_models(void)
{
    qwen3_model_options o = qwen3_model_options_default();
#define OTHER(member, value, expected)                                                                                 \
    o.member = value;                                                                                                  \
    open_differently(#member, "synthetic:tiny", &o, expected);                                                         \
    o = qwen3_model_options_default()
    OTHER(strategy, QWEN3_STRATEGY_SEQUENCE, "strategy: got \"sequence\", rank 0 has \"auto\"");
    OTHER(grid_heads, 7, "grid: got \"0x7\", rank 0 has \"0x0\"");
    OTHER(dtype, QWEN3_DTYPE_Q8, "dtype: got \"q8\", rank 0 has \"bf16\"");
    OTHER(kv_dtype, QWEN3_DTYPE_Q8, "kv_dtype: got \"q8\", rank 0 has \"auto\"");
    OTHER(seed, 2, "seed: got \"2\", rank 0 has \"1\"");
    OTHER(expected_tokens, 5, "expected_tokens: got \"5\", rank 0 has \"0\"");
    OTHER(expect_decode, true, "expect_decode: got \"1\", rank 0 has \"0\"");
    OTHER(share_weights, false, "share_weights: got \"0\", rank 0 has \"1\"");
    const qwen3_machine machine = qwen3_machine_default();
    OTHER(machine, &machine, "machine: got \"given\", rank 0 has \"not given\"");
    open_differently("another model", "synthetic:0.6B", &o, "vocab_size: got \"151936\", rank 0 has \"512\"");
    open_differently("files", DEMO_MODEL, &o, "vocab_size: got \"1920\", rank 0 has \"512\"");
}

/* The last rank passes something else in one step; then all pass the same. */
static void check_steps(const qwen3_config *config, qwen3_session *session)
{
    enum { TOKENS = 40 };
    int32_t tokens[TOKENS], drawn;
    uint8_t wanted[TOKENS] = {[TOKENS - 1] = 1};
    const bool last = ranks > 1 && rank == ranks - 1;
    qwen3_error err;
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = i;
    const qwen3_batch batch = {.n_tokens = TOKENS, .tokens = tokens, .logits = wanted};
    for (int what = 0; what < 3 && ranks > 1; what++) {
        qwen3_batch other = batch;
        other.n_tokens -= last && what == 0;
        tokens[7] += last && what == 1;
        wanted[3] = last && what == 2;
        qwen3_forward(session, &other, &err);
        check_error("batch", &err, QWEN3_ERR_COMM, -1, "batch: the ranks have different ones");
        check(qwen3_session_length(session, 0) == 0, "%d tokens", (int)qwen3_session_length(session, 0));
        tokens[7] = 7;
        wanted[3] = 0;
    }
    check(qwen3_forward(session, &batch, &err) == QWEN3_OK, "%s", err.message);
    qwen3_sampling_options options = qwen3_sampling_options_default();
    for (int what = 0; what < 4; what++) {
        options.temperature = what == 0 && last ? 2 : 1;
        options.seed = what == 1 && last ? 2 : 1;
        qwen3_sampler *sampler;
        check(qwen3_sampler_open(config, 0, &options, &sampler, &err) == QWEN3_OK, "%s", err.message);
        qwen3_sample(session, what == 2 && last ? NULL : &sampler, &drawn, &err);
        if (what < 3 && ranks > 1)
            check_error("samplers", &err, QWEN3_ERR_COMM, -1, "samplers: the ranks have different ones");
        else
            check(err.status == QWEN3_OK, "%s", err.message);
        qwen3_sampler_close(sampler);
    }
}

static void check_sessions(void)
{
    qwen3_model *model;
    qwen3_session *session;
    qwen3_error err;
    qwen3_model_options legitimate = qwen3_model_options_default();
    legitimate.threads = 1 + rank % 3;
    legitimate.isa = rank == ranks - 1 ? QWEN3_ISA_C : QWEN3_ISA_AUTO;
    check(qwen3_model_open(world, "synthetic:tiny", &legitimate, &model, &err) == QWEN3_OK, "%s", err.message);
    if (!model)
        return;
    const qwen3_plan *plan = qwen3_model_plan(model);
    check(plan->isa == QWEN3_ISA_C, "rank %d has %s", rank, qwen3_isa_name(plan->isa));
    check(plan->threads == 1 + rank % 3, "rank %d has %d threads", rank, plan->threads);
    const bool unlike = ranks > 1 && qwen3_isa_best() != QWEN3_ISA_C;
    check((strstr(plan->warning, "all use c") != NULL) == unlike, "got \"%s\"", plan->warning);

    const qwen3_session_options standard = qwen3_session_options_default();
    qwen3_session_options o = standard;
#define OTHER_SESSION(member, value, expected)                                                                         \
    o.member = value;                                                                                                  \
    qwen3_session_open(model, rank == ranks - 1 ? &o : &standard, &session, &err);                                     \
    check(!session, #member ": there is a session");                                                                   \
    check_error(#member, &err, QWEN3_ERR_COMM, ranks - 1, "session options: " #member ": got " expected);              \
    o = standard
    if (ranks > 1) {
        OTHER_SESSION(max_sequences, 2, "\"2\", rank 0 has \"1\"");
        OTHER_SESSION(max_tokens, 7, "\"7\", rank 0 has \"0\"");
        OTHER_SESSION(algorithm, QWEN3_ATTENTION_STANDARD, "\"standard\", rank 0 has \"auto\"");
        OTHER_SESSION(q_block_size, 16, "\"16\", rank 0 has \"0\"");
        OTHER_SESSION(kv_block_size, 32, "\"32\", rank 0 has \"0\"");
        OTHER_SESSION(token_split_min, 9, "\"9\", rank 0 has \"0\"");
        OTHER_SESSION(overlap_min_rows, 9, "\"9\", rank 0 has \"0\"");
        OTHER_SESSION(wire, QWEN3_DTYPE_BF16, "\"bf16\", rank 0 has \"auto\"");
    }
    check(qwen3_session_open(model, &standard, &session, &err) == QWEN3_OK, "%s", err.message);
    if (session)
        check_steps(qwen3_model_config(model), session);
    qwen3_session_close(session);
    qwen3_model_close(model);
}

int main(int argc, char **argv)
{
    uint64_t random;
    world = check_begin(argc, argv, 20261127, &random);
    rank = qwen3_comm_rank(world);
    ranks = qwen3_comm_size(world);
    check_lists();
    check_items();
    if (ranks > 1)
        check_models();
    check_sessions();
    return check_end(world);
}
