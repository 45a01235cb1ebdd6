/* generation_config.json: the published forms, what is missing, and every way to be wrong. */
#include "support/temp_files.h"

typedef struct form {
    const char *generation, *config; /* files, NULL where missing */
} form;

static qwen3_status read_form(const temp_dir *dir, form f, qwen3_generation_config *c, qwen3_error *err)
{
    const char *const names[] = {"generation_config.json", "config.json"}, *const texts[] = {f.generation, f.config};
    for (int i = 0; i < 2; i++) {
        temp_path path = temp_join(dir, names[i]);
        unlink(path.text);
        if (texts[i])
            write_text(path.text, texts[i]);
    }
    error_clear(err);
    return qwen3_generation_config_read(dir->path, c, err);
}

static void test_published(void **state)
{
    qwen3_generation_config c;
    qwen3_error err;
    /* of the 0.6B model */
    form f = {"{\"bos_token_id\":151643,\"do_sample\":true,\"eos_token_id\":[151645,151643],\"pad_token_id\":151643,"
              "\"temperature\":0.6,\"top_k\":20,\"top_p\":0.95,\"transformers_version\":\"4.51.0\"}",
              "{\"eos_token_id\":7}"};
    if (read_form(*state, f, &c, &err))
        fail_msg("%s", err.message);
    const qwen3_sampling_options *o = &c.sampling;
    assert_true(o->temperature == 0.6 && o->top_k == 20 && o->top_p == 0.95 && o->min_p == 0);
    assert_true(o->repetition_penalty == 1 && o->presence_penalty == 0 && o->frequency_penalty == 0);
    assert_true(o->n_bias == 0 && o->seed == 0);
    assert_int_equal(c.n_end_tokens, 2);
    assert_true(qwen3_generation_config_ends(&c, 151643) && qwen3_generation_config_ends(&c, 151645));
    assert_false(qwen3_generation_config_ends(&c, 7) || qwen3_generation_config_ends(&c, 0));
}

static void test_accepted_forms(void **state)
{
    static const struct {
        form files;
        double temperature;
        int top_k, n_end, end;
        double min_p, repetition;
    } cases[] = {
        {{NULL, "{}"}, 0, 0, 0, 0, 0, 1},
        {{NULL, "{\"eos_token_id\":151645}"}, 0, 0, 1, 151645, 0, 1},
        {{"{}", "{\"eos_token_id\":[1,2,1]}"}, 0, 0, 2, 2, 0, 1},
        {{"{\"eos_token_id\":null}", "{\"eos_token_id\":null}"}, 0, 0, 0, 0, 0, 1},
        {{"{\"eos_token_id\":5}", NULL}, 0, 0, 1, 5, 0, 1},
        {{"{\"do_sample\":true}", "{}"}, 1, 0, 0, 0, 0, 1},
        {{"{\"do_sample\":false,\"temperature\":0.7,\"top_k\":20}", "{}"}, 0, 20, 0, 0, 0, 1},
        {{"{\"do_sample\":null,\"temperature\":0.7}", "{}"}, 0, 0, 0, 0, 0, 1},
        {{"{\"do_sample\":true,\"temperature\":null,\"top_k\":null,\"top_p\":null,\"min_p\":0.1}", "{}"},
         1,
         0,
         0,
         0,
         0.1,
         1},
        {{"{\"do_sample\":true,\"top_k\":-1}", "{}"}, 1, 0, 0, 0, 0, 1},
        {{"{\"do_sample\":true,\"top_k\":20.0}", "{}"}, 1, 20, 0, 0, 0, 1},
        {{"{\"do_sample\":true,\"temperature\":1,\"repetition_penalty\":1.05,\"top_k\":0}", "{}"}, 1, 0, 0, 0, 0, 1.05},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_generation_config c;
        qwen3_error err;
        if (read_form(*state, cases[i].files, &c, &err))
            fail_msg("case %zu: %s", i, err.message);
        const qwen3_sampling_options *o = &c.sampling;
        if (o->temperature != cases[i].temperature || o->top_k != cases[i].top_k || o->top_p != 1 ||
            o->min_p != cases[i].min_p || o->repetition_penalty != cases[i].repetition)
            fail_msg("case %zu: temperature %g, top_k %d, top_p %g, min_p %g, repetition_penalty %g", i, o->temperature,
                     o->top_k, o->top_p, o->min_p, o->repetition_penalty);
        assert_int_equal(c.n_end_tokens, cases[i].n_end);
        const char *file = cases[i].files.generation;
        assert_true(c.greedy_by_default ==
                    (file && !strstr(file, "\"do_sample\":t") && !strstr(file, "\"do_sample\":f")));
        assert_true(cases[i].n_end == 0 || qwen3_generation_config_ends(&c, cases[i].end));
    }
}

static void test_refused(void **state)
{
    static const struct {
        form files;
        qwen3_status status;
        const char *word, *word2;
    } cases[] = {
        {{NULL, NULL}, QWEN3_ERR_IO, "config.json", "No such file"},
        {{"{", "{}"}, QWEN3_ERR_FORMAT, "generation_config.json", "line 1"},
        {{"[]", "{}"}, QWEN3_ERR_FORMAT, "generation_config.json", "object"},
        {{"{\"do_sample\":1}", "{}"}, QWEN3_ERR_CONFIG, "do_sample", "true or false"},
        {{"{\"temperature\":\"hot\"}", "{}"}, QWEN3_ERR_CONFIG, "temperature", "a number"},
        {{"{\"temperature\":-1}", "{}"}, QWEN3_ERR_CONFIG, "generation_config.json: temperature -1", "expected"},
        {{"{\"top_k\":20.5}", "{}"}, QWEN3_ERR_CONFIG, "top_k", "an integer"},
        {{"{\"top_k\":-2}", "{}"}, QWEN3_ERR_CONFIG, "top_k", "got -2"},
        {{"{\"top_k\":\"20\"}", "{}"}, QWEN3_ERR_CONFIG, "top_k", "a number"},
        {{"{\"top_k\":4294967296}", "{}"}, QWEN3_ERR_CONFIG, "top_k", "got 4294967296"},
        {{"{\"top_p\":1.5}", "{}"}, QWEN3_ERR_CONFIG, "generation_config.json: top_p 1.5", "0 to 1"},
        {{"{\"min_p\":[0]}", "{}"}, QWEN3_ERR_CONFIG, "min_p", "a number"},
        {{"{\"repetition_penalty\":0}", "{}"}, QWEN3_ERR_CONFIG, "repetition_penalty 0", "positive"},
        {{"{\"eos_token_id\":\"x\"}", "{}"}, QWEN3_ERR_CONFIG, "generation_config.json: eos_token_id", "array"},
        {{"{\"eos_token_id\":[1,-2]}", "{}"}, QWEN3_ERR_CONFIG, "eos_token_id", "got -2"},
        {{"{\"eos_token_id\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}", "{}"},
         QWEN3_ERR_UNSUPPORTED,
         "eos_token_id",
         "more than 16"},
        {{NULL, "{\"eos_token_id\":1.5}"}, QWEN3_ERR_CONFIG, "/config.json: eos_token_id", "got 1.5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_generation_config c;
        qwen3_error err;
        qwen3_status status = read_form(*state, cases[i].files, &c, &err);
        char label[16];
        snprintf(label, sizeof label, "case %zu", i);
        assert_refused(label, status, cases[i].status, &err, cases[i].word, cases[i].word2);
        assert_int_equal(c.n_end_tokens, 0);
        assert_true(c.sampling.top_p == 0); /* zeroed */
    }
    qwen3_error err;
    qwen3_generation_config c;
    assert_refused("NULL", qwen3_generation_config_read(NULL, &c, &err), QWEN3_ERR_ARGUMENT, &err, "spec", "NULL");
}

static void test_synthetic(void **state)
{
    (void)state;
    qwen3_generation_config c;
    assert_int_equal(qwen3_generation_config_read("synthetic:tiny", &c, NULL), QWEN3_OK);
    assert_true(c.sampling.temperature == 0 && c.sampling.top_p == 1 && c.n_end_tokens == 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, temp_dir_setup, temp_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_published), TEST(test_accepted_forms), TEST(test_refused),
                                       TEST(test_synthetic)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
