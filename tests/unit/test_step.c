/* test_step.c - planning of steps and the pages of the KV cache, for several sequence groups in one
 * process: every row has one owner, groups stay balanced, ranks agree without asking. */
#include "engine/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_GROUPS = 5, SEQUENCES = 3, MAX_TOKENS = 600 };

static const qwen3_config config = {.vocab_size = 100, .num_heads = 4, .num_kv_heads = 2, .head_dim = 32};

typedef struct fixture {
    int groups;
    attention_shape shape;
    kv_cache cache[MAX_GROUPS];
    step step[MAX_GROUPS];
} fixture;

static void open_groups(fixture *f, int groups)
{
    *f = (fixture){.groups = groups};
    f->shape = (attention_shape){.kernels = kernels_get(QWEN3_ISA_C),
                                 .kv_type = QWEN3_DTYPE_F32,
                                 .head_dim = 32,
                                 .kv_heads = 2,
                                 .group = 2,
                                 .causal = true,
                                 .q_block_size = 64,
                                 .kv_block_size = 64};
    for (int g = 0; g < groups; g++) {
        assert_int_equal(kv_cache_open(&f->cache[g], &f->shape, 2, groups, g, SEQUENCES, MAX_TOKENS, NULL), QWEN3_OK);
        assert_int_equal(step_open(&f->step[g], &f->cache[g], NULL), QWEN3_OK);
    }
}

static void close_groups(fixture *f)
{
    for (int g = 0; g < f->groups; g++) {
        step_close(&f->step[g]);
        kv_cache_close(&f->cache[g]);
    }
}

static void assert_row_equal(const step_row *a, const step_row *b)
{
    assert_int_equal(a->token, b->token);
    assert_int_equal(a->sequence, b->sequence);
    assert_int_equal(a->position, b->position);
    assert_int_equal(a->owner, b->owner);
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->out, b->out);
}

/* Plans and carries out one step on every group, and checks what all of them believe. */
static void advance(fixture *f, size_t n, const int32_t *sequences, int64_t split_min)
{
    int32_t tokens[MAX_TOKENS * SEQUENCES] = {0};
    qwen3_batch batch = {.n_tokens = n, .tokens = tokens, .sequences = sequences};
    int owners[MAX_TOKENS * SEQUENCES] = {0};
    for (int g = 0; g < f->groups; g++) {
        step *s = &f->step[g];
        assert_int_equal(step_plan(s, &f->cache[g], &config, &batch, split_min, NULL), QWEN3_OK);
        assert_int_equal(step_reserve(s, &f->cache[g], NULL), QWEN3_OK);
        step_commit(s, &f->cache[g]);
        assert_int_equal(s->n_rows, n);
        for (size_t i = 0; i < n; i++) {
            assert_row_equal(&s->rows[i], &f->step[0].rows[i]);
            bool mine = s->slots[i].page != NULL;
            assert_int_equal(mine, s->rows[i].owner == g);
            owners[i] += mine;
            if (mine)
                assert_int_equal(s->slots[i].page->slots.positions[s->slots[i].slot], s->rows[i].position);
        }
        size_t first, rows = step_rows_of(s, g, &first);
        for (size_t i = first; s->mode == STEP_SPLIT_ROWS && i < first + rows; i++)
            assert_int_equal(s->rows[i].owner, g);
    }
    for (size_t i = 0; i < n; i++)
        assert_int_equal(owners[i], 1);
}

static void test_every_row_once(void **state)
{
    (void)state;
    for (int groups = 1; groups <= MAX_GROUPS; groups++)
        for (int64_t split_min = 1; split_min < 40; split_min += 13) {
            fixture f;
            open_groups(&f, groups);
            int32_t sequences[MAX_TOKENS];
            for (int i = 0; i < 200; i++)
                sequences[i] = i < 3 ? 1 : 2 * (i % 2); /* interleaved, and one short */
            advance(&f, 200, sequences, split_min);
            for (int i = 0; i < 150; i++)
                advance(&f, 1, (int32_t[]){2}, split_min);
            advance(&f, 7, (int32_t[]){0, 1, 2, 0, 1, 2, 0}, split_min);
            for (int q = 0; q < SEQUENCES; q++) {
                const kv_sequence *s = &f.cache[0].sequences[q];
                int64_t total = 0, most = 0, least = INT64_MAX;
                for (int g = 0; g < groups; g++) {
                    total += s->owned[g];
                    most = s->owned[g] > most ? s->owned[g] : most;
                    least = s->owned[g] < least ? s->owned[g] : least;
                }
                assert_int_equal(total, s->length);
                assert_true(most - least <= 2);
            }
            close_groups(&f);
        }
}

static void test_refused(void **state)
{
    (void)state;
    fixture f;
    open_groups(&f, 2);
    int32_t many[MAX_TOKENS + 1] = {0};
    const struct {
        qwen3_batch batch;
        qwen3_status status;
        const char *says;
    } cases[] = {
        {{.n_tokens = 0, .tokens = many}, QWEN3_ERR_ARGUMENT, "no tokens"},
        {{.n_tokens = 1, .tokens = (int32_t[]){100}}, QWEN3_ERR_ARGUMENT, "id 100 is not in 0..99"},
        {{.n_tokens = 2, .tokens = (int32_t[]){0, -1}}, QWEN3_ERR_ARGUMENT, "token 1 of the batch: id -1"},
        {{.n_tokens = 1, .tokens = many, .sequences = (int32_t[]){3}}, QWEN3_ERR_ARGUMENT, "sequence 3"},
        {{.n_tokens = 1, .tokens = many, .positions = (int32_t[]){1}}, QWEN3_ERR_ARGUMENT, "position 1"},
        {{.n_tokens = MAX_TOKENS + 1, .tokens = many}, QWEN3_ERR_CAPACITY, "does not fit in the KV cache of 600"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qwen3_error err = {0};
        assert_int_equal(step_plan(&f.step[0], &f.cache[0], &config, &cases[i].batch, 16, &err), cases[i].status);
        assert_non_null(strstr(err.message, cases[i].says));
        assert_int_equal(f.cache[0].sequences[0].length, 0);
    }
    close_groups(&f);
}

/* Pages of a sequence that is forgotten serve another one. */
static void test_pages_return(void **state)
{
    (void)state;
    fixture f;
    open_groups(&f, 1);
    int32_t sequences[130];
    for (int i = 0; i < 130; i++)
        sequences[i] = 1;
    advance(&f, 130, sequences, 16);
    size_t pages = f.cache[0].total_pages;
    assert_int_equal(pages, (130 + KV_BLOCK - 1) / KV_BLOCK);
    kv_cache_reset(&f.cache[0], 1);
    assert_int_equal(f.cache[0].used_pages, 0);
    for (int i = 0; i < 130; i++)
        sequences[i] = 2;
    advance(&f, 130, sequences, 16);
    assert_int_equal(f.cache[0].total_pages, pages);
    assert_int_equal(f.cache[0].sequences[1].length, 0);
    close_groups(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_once),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_pages_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
