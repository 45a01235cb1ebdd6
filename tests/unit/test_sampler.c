/* Sampling on one rank, through the public functions: which options are refused, what the filters leave, compared
 * with a plain computation from the whole row (support/sampling_reference.h), and how what is drawn is distributed. */
#include "support/temp_files.h"

#include "engine/session.h"
#include "model/sampler.h"
#include "support/sampling_reference.h"

enum { ROWS = 64, TOKENS = 500 }; /* of the 512 rows of the output head */

typedef struct fixture {
    qwen3_model *model;
    qwen3_session *session;
    size_t vocab;
} fixture;

static int set_up(void **state)
{
    static int32_t tokens[ROWS];
    static uint8_t wanted[ROWS];
    fixture *f = calloc(1, sizeof *f);
    qwen3_model_options options = qwen3_model_options_default();
    options.threads = 1;
    qwen3_error err = {0};
    assert_non_null(f);
    assert_int_equal(qwen3_model_open(qwen3_comm_self(), "synthetic:tiny", &options, &f->model, &err), QWEN3_OK);
    assert_int_equal(qwen3_session_open(f->model, NULL, &f->session, &err), QWEN3_OK);
    memset(wanted, 1, sizeof wanted);
    qwen3_batch batch = {.n_tokens = ROWS, .tokens = tokens, .logits = wanted};
    assert_int_equal(qwen3_forward(f->session, &batch, &err), QWEN3_OK);
    f->vocab = (size_t)qwen3_model_config(f->model)->vocab_size;
    assert_true(f->vocab > TOKENS);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    qwen3_session_close(f->session);
    qwen3_model_close(f->model);
    free(f);
    return 0;
}

/* Puts these logits [TOKENS] in every row. Rows of the head that stand for no token have the largest. */
static void set_logits(const fixture *f, const float *logits)
{
    for (size_t row = 0; row < ROWS; row++)
        for (size_t i = 0; i < f->vocab; i++)
            f->session->head.logits[row * f->vocab + i] = i < TOKENS ? logits[i] : FLT_MAX;
}

static qwen3_sampler *open_sampler(const fixture *f, const qwen3_sampling_options *o)
{
    qwen3_sampler *sampler;
    qwen3_error err;
    if (qwen3_sampler_open(qwen3_model_config(f->model), TOKENS, o, &sampler, &err))
        fail_msg("%s", err.message);
    return sampler;
}

static float uniform(uint64_t *random)
{
    return (float)(test_random(random) >> 40) / (1 << 24);
}

/* ---- Options ----------------------------------------------------------------------------------- */

static void test_options_refused(void **state)
{
    const fixture *f = *state;
    static const qwen3_logit_bias outside[] = {{TOKENS, 1}}, negative[] = {{-1, 1}}, twice[] = {{3, 1}, {4, 1}, {3, 2}},
                                  infinite[] = {{3, INFINITY}}, nan_bias[] = {{3, NAN}};
    const qwen3_sampling_options d = qwen3_sampling_options_default();
    qwen3_sampling_options cases[32];
    const char *words[32];
    size_t n = 0;
#define CASE(word, member, value) (words[n] = (word), cases[n] = d, cases[n++].member = (value))
#define BIAS(word, list)                                                                                               \
    (words[n] = (word), cases[n] = d, cases[n].bias = (list), cases[n++].n_bias = sizeof(list) / sizeof *(list))
    CASE("temperature", temperature, NAN);
    CASE("temperature", temperature, -1);
    CASE("temperature", temperature, 1e-7);
    CASE("temperature", temperature, INFINITY);
    CASE("top_k", top_k, -1);
    CASE("top_p", top_p, NAN);
    CASE("top_p", top_p, -0.1);
    CASE("top_p", top_p, 1.1);
    CASE("min_p", min_p, NAN);
    CASE("min_p", min_p, -0.1);
    CASE("min_p", min_p, 1.1);
    CASE("presence_penalty", presence_penalty, NAN);
    CASE("frequency_penalty", frequency_penalty, -INFINITY);
    CASE("repetition_penalty", repetition_penalty, 0);
    CASE("repetition_penalty", repetition_penalty, -1);
    CASE("repetition_penalty", repetition_penalty, NAN);
    BIAS("token 500", outside);
    BIAS("token -1", negative);
    BIAS("twice", twice);
    BIAS("token 3", infinite);
    BIAS("token 3", nan_bias);
    words[n] = "bias is NULL";
    cases[n] = d;
    cases[n++].n_bias = 1;
    for (size_t i = 0; i < n; i++) {
        qwen3_error err = {0};
        qwen3_sampler *sampler;
        qwen3_status status = qwen3_sampler_open(qwen3_model_config(f->model), TOKENS, &cases[i], &sampler, &err);
        assert_refused(words[i], status, QWEN3_ERR_ARGUMENT, &err, words[i], "expected");
        assert_null(sampler);
    }
    qwen3_error err = {0};
    qwen3_sampler *sampler;
    assert_refused("too many tokens", qwen3_sampler_open(qwen3_model_config(f->model), 100000, NULL, &sampler, &err),
                   QWEN3_ERR_ARGUMENT, &err, "n_tokens 100000", "expected");
}

static void test_calls_refused(void **state)
{
    const fixture *f = *state;
    float logits[TOKENS] = {0};
    int32_t tokens[ROWS], outside = (int32_t)f->vocab;
    qwen3_sampler *samplers[ROWS] = {0};
    qwen3_error err = {0};
    set_logits(f, logits);
    samplers[3] = samplers[7] = open_sampler(f, NULL);
    assert_refused("twice", qwen3_sample(f->session, samplers, tokens, &err), QWEN3_ERR_ARGUMENT, &err, "row 7", "one");
    samplers[7] = NULL;
    assert_int_equal(qwen3_sample(f->session, samplers, tokens, &err), QWEN3_OK);
    assert_refused("id", qwen3_sampler_accept(samplers[3], &outside, 1, true, &err), QWEN3_ERR_ARGUMENT, &err,
                   "token 0", "vocabulary");
    qwen3_sampler_close(samplers[3]);

    qwen3_config other = *qwen3_model_config(f->model);
    other.vocab_size++;
    assert_int_equal(qwen3_sampler_open(&other, 0, NULL, &samplers[3], &err), QWEN3_OK);
    assert_refused("vocabulary", qwen3_sample(f->session, samplers, tokens, &err), QWEN3_ERR_ARGUMENT, &err, "row 3",
                   "vocabulary");
    qwen3_sampler_close(samplers[3]);
    qwen3_sampler_close(NULL);
}

/* Rows from which nothing can be drawn, with every way to draw. No history grows then. */
static void test_rows_refused(void **state)
{
    const fixture *f = *state;
    float logits[TOKENS] = {0};
    int32_t tokens[ROWS];
    qwen3_logit_bias all[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++)
        all[i] = (qwen3_logit_bias){i, -INFINITY};
    for (int kind = 0; kind < 4; kind++) {
        qwen3_sampling_options o = qwen3_sampling_options_default();
        o.temperature = kind > 0;
        o.top_k = kind == 2 ? 5 : 0;
        o.top_p = kind == 3 ? 0.5 : 1;
        o.presence_penalty = 1;
        qwen3_sampler *samplers[ROWS] = {0};
        qwen3_error err = {0};
        samplers[4] = open_sampler(f, &o);
        static const float bad[] = {NAN, INFINITY};
        for (int i = 0; i < 2; i++) {
            set_logits(f, logits);
            f->session->head.logits[4 * f->vocab + 17] = bad[i];
            assert_refused("bad", qwen3_sample(f->session, samplers, tokens, &err), QWEN3_ERR_FORMAT, &err, "row 4",
                           "not a number");
        }
        qwen3_sampler_close(samplers[4]);
        o.bias = all;
        o.n_bias = TOKENS;
        samplers[4] = open_sampler(f, &o);
        set_logits(f, logits);
        assert_refused("forbidden", qwen3_sample(f->session, samplers, tokens, &err), QWEN3_ERR_ARGUMENT, &err, "row 4",
                       "bias");
        assert_int_equal(samplers[4]->length, 0);
        assert_int_equal(samplers[4]->n_seen, 0);
        qwen3_sampler_close(samplers[4]);
    }
}

/* ---- Distributions ----------------------------------------------------------------------------- */

enum { DRAWS = 32 * ROWS };

/* Draws from one row again and again: counts[TOKENS]. With a history, each draw has a seed of its own; without, each
 * sampler goes on. */
static void count_draws(const fixture *f, const qwen3_sampling_options *options, const reference_history *h,
                        int64_t *counts)
{
    qwen3_sampler *samplers[ROWS];
    qwen3_error err = {0};
    memset(counts, 0, TOKENS * sizeof *counts);
    for (size_t row = 0; row < ROWS; row++) {
        qwen3_sampling_options o = *options;
        o.seed += row;
        samplers[row] = open_sampler(f, &o);
    }
    for (size_t i = 0; i < DRAWS / ROWS; i++) {
        int32_t tokens[ROWS];
        for (size_t row = 0; row < ROWS && h->n_prompt > 0; row++) {
            qwen3_sampler_reset(samplers[row], options->seed + i * ROWS + row);
            assert_int_equal(qwen3_sampler_accept(samplers[row], h->prompt, h->n_prompt, false, &err), QWEN3_OK);
            assert_int_equal(qwen3_sampler_accept(samplers[row], h->generated, h->n_generated, true, &err), QWEN3_OK);
        }
        if (qwen3_sample(f->session, samplers, tokens, &err))
            fail_msg("%s", err.message);
        for (size_t row = 0; row < ROWS; row++) {
            assert_in_range(tokens[row], 0, TOKENS - 1);
            counts[tokens[row]]++;
        }
    }
    for (size_t row = 0; row < ROWS; row++)
        qwen3_sampler_close(samplers[row]);
}

/* Pearson's statistic as a standard normal variable (Wilson & Hilferty 1931); tokens of which fewer than 5 are expected
 * are one class. */
static double chi_square_deviation(const int64_t *counts, const double *probability, double n)
{
    double statistic = 0, classes = 0, rest = 0, rest_expected = 0;
    for (size_t i = 0; i <= TOKENS; i++) {
        double expected = i < TOKENS ? n * probability[i] : rest_expected,
               observed = i < TOKENS ? (double)counts[i] : rest;
        if (i < TOKENS && expected < 5) {
            rest_expected += expected;
            rest += observed;
        } else if (expected > 0) {
            statistic += (observed - expected) * (observed - expected) / expected;
            classes++;
        }
    }
    double spread = 2 / (9 * (classes - 1));
    return classes > 1 ? (cbrt(statistic / (classes - 1)) - (1 - spread)) / sqrt(spread) : 0;
}

/* A right sampler exceeds this in one of 30,000 cases. */
#define MOST_DEVIATION 4.0

static void check_distribution(const fixture *f, const char *name, const qwen3_sampling_options *o,
                               const reference_history *h, const float *logits)
{
    int64_t counts[TOKENS];
    double probability[TOKENS];
    char label[256];
    snprintf(label, sizeof label, "%s: temperature %g top_k %d top_p %g min_p %g penalties %g %g %g seed %llu", name,
             o->temperature, o->top_k, o->top_p, o->min_p, o->presence_penalty, o->frequency_penalty,
             o->repetition_penalty, (unsigned long long)o->seed);
    set_logits(f, logits);
    count_draws(f, o, h, counts);
    assert_true(reference_distribution(o, h, logits, TOKENS, probability));
    for (int i = 0; i < TOKENS; i++)
        if (counts[i] > 0 && probability[i] == 0)
            fail_msg("%s: token %d was drawn, which the options exclude", label, i);
    double deviation = chi_square_deviation(counts, probability, DRAWS);
    if (deviation > MOST_DEVIATION)
        fail_msg("%s: chi-square is %.2f standard deviations from its mean", label, deviation);
}

/* Logits as models have them, nearly normal, with a tail of a few likely tokens. */
static void make_logits(float *logits, float spread, uint64_t *random)
{
    for (int i = 0; i < TOKENS; i++)
        logits[i] = spread * (uniform(random) + uniform(random) + uniform(random) + uniform(random) - 2);
    for (int i = 0; i < 5; i++)
        logits[test_random(random) % TOKENS] += spread;
}

static void test_distributions(void **state)
{
    const fixture *f = *state;
    uint64_t random = test_seed();
    static const int32_t prompt[] = {3, 9, 9, 200, 505}, generated[] = {9, 17, 17, 17, 499};
    const reference_history none = {0}, some = {prompt, generated, 5, 5};
    static const struct {
        double temperature;
        int top_k;
        double top_p, min_p;
    } cases[] = {
        {1, 0, 1, 0},       {0.6, 0, 1, 0},      {1.7, 0, 1, 0},        {1, 1, 1, 0},      {1, 7, 1, 0},
        {1, 300, 1, 0},     {1, 499, 1, 0},      {1, 500, 1, 0},        {1, 0, 0.1, 0},    {1, 0, 0.9, 0},
        {2, 0, 0.999, 0},   {1, 0, 0, 0},        {1, 0, 1, 0.05},       {1, 0, 1, 1},      {1.5, 0, 1, 0.001},
        {0.6, 20, 0.95, 0}, {0.7, 20, 0.8, 0.1}, {1, 100, 0.5, 0.0001}, {1, 0, 0.7, 0.02}, {1, 0, 0.95, 0.3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_sampling_options o = qwen3_sampling_options_default();
        float logits[TOKENS];
        make_logits(logits, i % 3 == 2 ? 0.5f : 4, &random);
        o.temperature = cases[i].temperature;
        o.top_k = cases[i].top_k;
        o.top_p = cases[i].top_p;
        o.min_p = cases[i].min_p;
        o.seed = test_random(&random);
        check_distribution(f, "like a model", &o, &none, logits);
        o.presence_penalty = 0.5 * uniform(&random);
        o.frequency_penalty = uniform(&random) - 0.5;
        o.repetition_penalty = 0.5 + uniform(&random);
        qwen3_logit_bias bias[] = {{17, 3}, {9, -1}, {(int32_t)(test_random(&random) % 9), -INFINITY}};
        o.bias = bias;
        o.n_bias = 3;
        check_distribution(f, "bias and penalties", &o, &some, logits);
    }
}

/* The bound above tells a wrong distribution from a right one. */
static void test_bound_fails(void **state)
{
    const fixture *f = *state;
    uint64_t random = test_seed();
    float logits[TOKENS];
    int64_t counts[TOKENS];
    double probability[TOKENS];
    const reference_history none = {0};
    make_logits(logits, 4, &random);
    set_logits(f, logits);
    qwen3_sampling_options o = qwen3_sampling_options_default();
    o.temperature = 1;
    count_draws(f, &o, &none, counts);
    o.temperature = 1.3;
    reference_distribution(&o, &none, logits, TOKENS, probability);
    assert_true(chi_square_deviation(counts, probability, DRAWS) > MOST_DEVIATION);
}

/* ---- Hard rows --------------------------------------------------------------------------------- */

static void test_hard_rows(void **state)
{
    const fixture *f = *state;
    uint64_t random = test_seed();
    const reference_history none = {0};
    static const char *const names[] = {"all equal", "ties",           "one token", "forbidden",
                                        "huge",      "huge and equal", "ascending"};
    for (size_t kind = 0; kind < sizeof names / sizeof *names; kind++) {
        float logits[TOKENS];
        for (int i = 0; i < TOKENS; i++) {
            float forms[] = {0,
                             (float)(i % 4),
                             i == 77 ? -3.0f : -INFINITY,
                             i % 3 ? -INFINITY : (float)(i % 5),
                             i % 50 ? -FLT_MAX : FLT_MAX,
                             1e30f,
                             (float)i * 0.01f};
            logits[i] = forms[kind];
        }
        static const qwen3_sampling_options forms[] = {
            {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
            {.temperature = 1, .top_p = 0.5, .repetition_penalty = 1},
            {.temperature = 1, .top_p = 1, .top_k = 10, .repetition_penalty = 1},
            {.temperature = 1, .top_p = 1, .min_p = 0.3, .repetition_penalty = 1},
            {.temperature = 1e6, .top_p = 0.25, .top_k = 40, .min_p = 0.1, .repetition_penalty = 1},
            {.temperature = 1e-6, .top_p = 0.9, .repetition_penalty = 1},
        };
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
            qwen3_sampling_options o = forms[i];
            o.seed = test_random(&random);
            check_distribution(f, names[kind], &o, &none, logits);
        }
    }
}

static void test_greedy(void **state)
{
    const fixture *f = *state;
    uint64_t random = test_seed();
    for (int round = 0; round < 20; round++) {
        float logits[TOKENS];
        int32_t tokens[ROWS], expected = 0, history[] = {5, (int32_t)(test_random(&random) % TOKENS)};
        make_logits(logits, 1, &random);
        for (int i = 0; i < TOKENS; i++)
            logits[i] = roundf(logits[i] * 8) / 8;
        set_logits(f, logits);
        qwen3_sampling_options o = qwen3_sampling_options_default();
        o.top_k = 3;
        o.repetition_penalty = 1.5;
        qwen3_sampler *samplers[ROWS] = {0};
        qwen3_error err = {0};
        double probability[TOKENS];
        samplers[1] = open_sampler(f, &o);
        qwen3_sampler_accept(samplers[1], history, 2, false, NULL);
        reference_distribution(&o, &(reference_history){history, NULL, 2, 0}, logits, TOKENS, probability);
        while (probability[expected] == 0)
            expected++;
        assert_int_equal(qwen3_sample(f->session, samplers, tokens, &err), QWEN3_OK);
        assert_int_equal(tokens[1], expected);
        assert_int_equal(tokens[0], TOKENS); /* without a sampler: the first of the largest of the whole head */
        qwen3_sampler_close(samplers[1]);
    }
}

/* What is drawn depends on the number of tokens in the history and the seed; logits stay as they were. */
static void test_repeatable(void **state)
{
    const fixture *f = *state;
    uint64_t random = test_seed();
    float logits[TOKENS];
    make_logits(logits, 1, &random);
    set_logits(f, logits);
    float *before = malloc(ROWS * f->vocab * sizeof *before);
    memcpy(before, f->session->head.logits, ROWS * f->vocab * sizeof *before);
    qwen3_logit_bias bias[] = {{8, 1}, {2, -INFINITY}};
    qwen3_sampling_options o = qwen3_sampling_options_default();
    o.temperature = 1;
    o.presence_penalty = 0.3;
    o.bias = bias;
    o.n_bias = 2;
    o.seed = 5;
    qwen3_sampler *samplers[ROWS] = {0};
    int32_t history[] = {1, 2, 8}, first[20], tokens[ROWS];
    samplers[0] = open_sampler(f, &o);
    bias[0].token = 9; /* the sampler has its own */
    for (int again = 0; again < 3; again++) {
        int same = 0;
        qwen3_sampler_reset(samplers[0], again < 2 ? 5 : 6);
        assert_int_equal(qwen3_sampler_accept(samplers[0], history, 3, false, NULL), QWEN3_OK);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(qwen3_sample(f->session, samplers, tokens, NULL), QWEN3_OK);
            first[i] = again == 0 ? tokens[0] : first[i];
            same += tokens[0] == first[i];
            if (again == 1 && i == 10) { /* another sampler that knows the history goes on */
                qwen3_sampler_reset(samplers[0], 5);
                qwen3_sampler_accept(samplers[0], history, 3, false, NULL);
                qwen3_sampler_accept(samplers[0], first, 11, true, NULL);
            }
        }
        assert_true(again < 2 ? same == 20 : same < 10);
    }
    assert_memory_equal(before, f->session->head.logits, ROWS * f->vocab * sizeof *before);
    qwen3_sampler_close(samplers[0]);
    free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_refused), cmocka_unit_test(test_calls_refused),
        cmocka_unit_test(test_rows_refused),    cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_bound_fails),     cmocka_unit_test(test_hard_rows),
        cmocka_unit_test(test_greedy),          cmocka_unit_test(test_repeatable),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
