/* test_step.c - planning of steps, the table of sequences and the pages of the KV cache, for several sequence groups in
 * one process: every row has one owner, groups stay balanced, ranks agree without asking, forgotten positions leave no
 * trace. */
#include "blocks/step.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/kv_cache.h"

enum { MAX_GROUPS = 5, SEQUENCES = 3, MAX_TOKENS = 600 };

static const qwen3_config config = {.vocab_size = 100, .num_heads = 4, .num_kv_heads = 2, .head_dim = 32};

typedef struct fixture {
    int groups;
    attention_shape shape;
    sequence_table table[MAX_GROUPS];
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
                                 .heads_per_kv = 2,
                                 .causal = true,
                                 .q_block_size = 64,
                                 .kv_block_size = 64};
    for (int g = 0; g < groups; g++) {
        const sequence_table limits = {groups, g, SEQUENCES, MAX_TOKENS, false, NULL};
        assert_int_equal(sequences_open(&f->table[g], &limits, NULL), QWEN3_OK);
        assert_int_equal(kv_cache_open(&f->cache[g], &f->shape, 2, &f->table[g], NULL), QWEN3_OK);
    }
}

static void close_groups(fixture *f)
{
    for (int g = 0; g < f->groups; g++) {
        step_close(&f->step[g]);
        kv_cache_close(&f->cache[g]);
        sequences_close(&f->table[g]);
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
        sequence_table *t = &f->table[g];
        assert_int_equal(step_plan(s, t, &config, &batch, (step_part){0, 1}, split_min, NULL), QWEN3_OK);
        for (size_t q = 0; q < s->n_sequences; q++) {
            const int64_t owned = step_new_owned(s, q, f->groups, g);
            assert_int_equal(sequences_reserve(t, s->sequences[q], owned, NULL), QWEN3_OK);
            assert_int_equal(kv_cache_reserve(&f->cache[g], s->sequences[q], owned, NULL), QWEN3_OK);
        }
        step_commit(s, t);
        assert_int_equal(s->n_rows, n);
        for (size_t i = 0; i < n; i++) {
            assert_row_equal(&s->rows[i], &f->step[0].rows[i]);
            const step_row *r = &s->rows[i];
            if (r->owner != g)
                continue;
            owners[i]++;
            const kv_slot slot = kv_cache_append(&f->cache[g], r->sequence, r->position, r->place);
            assert_int_equal(slot.page->slots.positions[slot.slot], r->position);
            assert_int_equal(t->items[r->sequence].positions[r->place], r->position);
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
                const sequence_entry *s = &f.table[0].items[q];
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
        assert_int_equal(step_plan(&f.step[0], &f.table[0], &config, &cases[i].batch, (step_part){0, 1}, 16, &err),
                         cases[i].status);
        assert_non_null(strstr(err.message, cases[i].says));
        assert_int_equal(f.table[0].items[0].length, 0);
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
    kv_cache_truncate(&f.cache[0], 1, 0);
    sequences_truncate(&f.table[0], 1, 0, (int64_t[]){0});
    assert_int_equal(f.cache[0].used_pages, 0);
    for (int i = 0; i < 130; i++)
        sequences[i] = 2;
    advance(&f, 130, sequences, 16);
    assert_int_equal(f.cache[0].total_pages, pages);
    assert_int_equal(f.table[0].items[1].length, 0);
    close_groups(&f);
}

/* Truncated at any length, every group keeps the positions below it, and the sequence can go on there. */
static void test_truncate(void **state)
{
    (void)state;
    for (int groups = 1; groups <= MAX_GROUPS; groups++)
        for (int64_t length = 0; length <= 300; length += 37) {
            fixture f;
            int32_t sequences[300] = {0};
            int64_t owned[MAX_GROUPS], total = 0;
            open_groups(&f, groups);
            advance(&f, 300, sequences, 16);
            for (int g = 0; g < groups; g++)
                total += owned[g] = sequences_owned_below(&f.table[g], 0, length);
            assert_int_equal(total, length);
            for (int g = 0; g < groups; g++) {
                kv_cache_truncate(&f.cache[g], 0, owned[g]);
                sequences_truncate(&f.table[g], 0, length, owned);
                assert_int_equal(f.cache[g].used_pages, kv_pages_for(owned[g]));
                for (int64_t i = 0; i < owned[g]; i++)
                    assert_true(f.table[g].items[0].positions[i] < length);
            }
            advance(&f, 40, sequences, 16);
            assert_int_equal(f.table[0].items[0].length, length + 40);
            close_groups(&f);
        }
}

/* Sequences that begin alike share pages, until one goes on in a page or has fewer positions of it. */
static void test_fork(void **state)
{
    (void)state;
    fixture f;
    open_groups(&f, 1);
    kv_cache *c = &f.cache[0];
    sequence_table *t = &f.table[0];
    int32_t sequences[300] = {0};
    advance(&f, 300, sequences, 16);
    assert_int_equal(c->used_pages, 3);
    assert_int_equal(kv_cache_fork(c, 0, 1, 290, NULL), QWEN3_OK);
    assert_int_equal(sequences_fork(t, 0, 1, 290, (int64_t[]){290}, NULL), QWEN3_OK);
    assert_int_equal(c->used_pages, 3);
    for (int p = 0; p < 3; p++) {
        assert_ptr_equal(c->sequences[1].pages[p], c->sequences[0].pages[p]);
        assert_int_equal(c->sequences[0].pages[p]->users, 2);
    }
    unsigned char *data = c->sequences[0].pages[2]->data;
    for (size_t i = 0; i < c->page_bytes; i++)
        data[i] = (unsigned char)i;
    advance(&f, 1, (int32_t[]){1}, 16); /* copies the last page */
    assert_int_equal(c->used_pages, 4);
    assert_ptr_equal(c->sequences[1].pages[1], c->sequences[0].pages[1]);
    const kv_page *copy = c->sequences[1].pages[2], *source = c->sequences[0].pages[2];
    assert_ptr_not_equal(copy, source);
    assert_memory_equal(copy->data, data, c->page_bytes); /* kr of plain C is 1: no slot is filled up with zeros */
    assert_int_equal(copy->slots.count, 290 - 2 * KV_BLOCK + 1);
    assert_int_equal(source->slots.count, 300 - 2 * KV_BLOCK);
    assert_int_equal(copy->users + source->users, 2);

    kv_cache_truncate(c, 0, 100); /* in a page that is shared: it stays as it is */
    sequences_truncate(t, 0, 100, (int64_t[]){100});
    assert_int_equal(c->sequences[0].pages[0]->slots.count, KV_BLOCK);
    assert_int_equal(kv_cache_reserve(c, 0, 0, NULL), QWEN3_OK); /* until it is read for this sequence */
    assert_int_equal(c->sequences[0].pages[0]->slots.count, 100);
    assert_int_equal(c->sequences[1].pages[0]->slots.count, KV_BLOCK);

    c->most_pages = c->used_pages;
    qwen3_error err = {0};
    assert_int_equal(kv_cache_reserve(c, 0, 28, NULL), QWEN3_OK);
    assert_int_equal(kv_cache_reserve(c, 0, 29, &err), QWEN3_ERR_CAPACITY);
    assert_non_null(strstr(err.message, "(kv_pages)"));
    kv_cache_truncate(c, 1, 0);
    sequences_truncate(t, 1, 0, (int64_t[]){0});
    assert_int_equal(kv_cache_reserve(c, 0, 29, NULL), QWEN3_OK);
    close_groups(&f);
}

/* Whatever the steps are, every page is filled by one group, in order, and groups have about as many. */
static void test_whole_pages(void **state)
{
    (void)state;
    for (int groups = 1; groups <= MAX_GROUPS; groups++)
        for (int n = 1; n < 200; n += 66) {
            fixture f;
            int32_t sequences[200] = {0};
            size_t pages[MAX_GROUPS] = {0};
            open_groups(&f, groups);
            for (int g = 0; g < groups; g++)
                f.table[g].whole_pages = true;
            for (int done = 0; done + n <= MAX_TOKENS; done += n)
                advance(&f, (size_t)n, sequences, 16);
            const int64_t length = f.table[0].items[0].length;
            for (int64_t page = 0; page * KV_BLOCK < length; page++) {
                const page_place place = page_place_of((size_t)page, groups);
                const sequence_entry *s = &f.table[place.owner].items[0];
                assert_int_equal(place.index, pages[place.owner]++);
                for (int64_t i = 0; i < KV_BLOCK && page * KV_BLOCK + i < length; i++)
                    assert_int_equal(s->positions[(int64_t)place.index * KV_BLOCK + i], page * KV_BLOCK + i);
            }
            for (int g = 0; g < groups; g++)
                assert_true(pages[0] <= pages[g] + 2 && pages[g] <= pages[0] + 2);
            close_groups(&f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_once), cmocka_unit_test(test_refused), cmocka_unit_test(test_pages_return),
        cmocka_unit_test(test_truncate),       cmocka_unit_test(test_fork),    cmocka_unit_test(test_whole_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
