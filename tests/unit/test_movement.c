/* test_movement.c - the choice between movements: it is the cheapest of those that apply by the formulas of
 * docs/PARALLEL_STRATEGIES.md, written out here a second time, for published shapes and any number of ranks.
 */
#include "attention/movement.h"
#include "comm/comm_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_RANKS = 64 };

/* One sequence of P cached and T new positions, both split evenly over R ranks. Nothing is sent: only numbers count. */
typedef struct example {
    struct qwen3_comm comm;
    attention_shape shape;
    attention_problem problem;
    size_t rows[MAX_RANKS], keys[MAX_RANKS];
} example;

static void make_example(example *e, int ranks, size_t kv_heads, size_t heads, size_t new_tokens, size_t cached)
{
    memset(e, 0, sizeof *e);
    e->comm.size = ranks;
    e->comm.shm = (struct shm *)e; /* one node: only whether there is any is looked at */
    e->shape = (attention_shape){.kernels = kernels_get(QWEN3_ISA_C),
                                 .kv_type = QWEN3_DTYPE_BF16,
                                 .head_dim = 128,
                                 .kv_heads = kv_heads,
                                 .heads_per_kv = heads / kv_heads,
                                 .causal = true};
    for (int r = 0; r < ranks; r++) {
        e->rows[r] = new_tokens * (size_t)(r + 1) / (size_t)ranks - new_tokens * (size_t)r / (size_t)ranks;
        e->keys[r] = (new_tokens + cached) / (size_t)ranks;
    }
    e->problem =
        (attention_problem){.comm = &e->comm, .shape = &e->shape, .n_jobs = 1, .rows = e->rows, .keys = e->keys};
}

/* Bytes that one rank sends: (R-1)/R (T+P) 2 K e, and (R-1)/R T (Q u + (Q + 2 heads) 4) with queries of u
 * bytes (f32 at the level of plain C). */
static double bytes_of_keys(const example *e, double tokens)
{
    const double ranks = e->comm.size, k = (double)e->shape.kv_heads * 128;
    return (ranks - 1) / ranks * tokens * 2 * k * 2;
}

static double bytes_of_queries(const example *e, double rows)
{
    const double ranks = e->comm.size, heads = (double)(e->shape.kv_heads * e->shape.heads_per_kv), q = heads * 128;
    return (ranks - 1) / ranks * rows * (q * 4 + (q + 2 * heads) * 4);
}

static void test_costs(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= MAX_RANKS; ranks *= 2)
        for (size_t new_tokens = 64 * (size_t)ranks; new_tokens <= 8192; new_tokens += new_tokens / 2) {
            example e;
            make_example(&e, ranks, 8, 16, new_tokens, 0);
            /* Slots come in panels, and every block and shard has a table. */
            const double tokens = (double)e.keys[0] * ranks, most = (double)round_up(e.keys[0], 16) * ranks;
            const movement_cost kv = movement_pass_kv.cost(&e.problem), q = movement_pass_q.cost(&e.problem);
            assert_true(kv.bytes / ranks >= bytes_of_keys(&e, tokens));
            assert_true(kv.bytes / ranks <= bytes_of_keys(&e, most) * 1.003);
            assert_true(q.bytes / ranks == bytes_of_queries(&e, (double)new_tokens));
            assert_int_equal(kv.messages, ranks - 1);
            assert_int_equal(movement_gather_kv.cost(&e.problem).messages, 1);
            assert_true(movement_gather_kv.cost(&e.problem).bytes == kv.bytes);
        }
}

/* The shape of 0.6B with a BF16 cache: queries are f32 here (plain C) and cross at T / (T + P) = 2 K e / (8 Q + 8
 * heads) = 0.248; BF16 queries, at levels with BF16 products, at 0.33. */
static void test_queries_against_keys(void **state)
{
    (void)state;
    const double crossing = 2.0 * 1024 * 2 / (2048 * 8 + 16 * 8);
    for (int ranks = 2; ranks <= 8; ranks++)
        for (int percent = 2; percent <= 100; percent++) {
            const size_t all = 64 * 1024, new_tokens = all * (size_t)percent / 100;
            example e;
            make_example(&e, ranks, 8, 16, new_tokens, all - new_tokens);
            const double fraction = percent / 100.0;
            if (fraction > crossing * 0.97 && fraction < crossing * 1.03)
                continue; /* pages and messages decide */
            assert_string_equal(movement_choose(&e.problem)->name, fraction < crossing ? "pass_q" : "pass_kv");
        }
}

/* Whatever the shape, what is chosen has the least price of what applies. */
static void test_cheapest(void **state)
{
    (void)state;
    static const movement *const all[] = {&movement_pass_kv, &movement_gather_kv, &movement_pass_q};
    size_t chosen[3] = {0};
    for (int ranks = 2; ranks <= MAX_RANKS; ranks *= 2)
        for (size_t tokens = 16; tokens <= 65536; tokens *= 2)
            for (size_t cached = 0; cached <= 65536; cached = cached ? 4 * cached : 256) {
                example e;
                make_example(&e, ranks, 1, 8, tokens, cached); /* as of a rank of HYBRID: few heads */
                const movement *m = movement_choose(&e.problem);
                for (size_t i = 0; i < 3; i++) {
                    assert_true(movement_price(&e.problem, m) <= movement_price(&e.problem, all[i]));
                    chosen[i] += m == all[i];
                }
            }
    for (size_t i = 0; i < 3; i++)
        print_message("%s chosen %zu times\n", all[i]->name, chosen[i]);
}

/* The 0.6B shape on one node, as measured (docs/notebook/2026-11-27-movements.md): with queries that stay, keys are
 * gathered up to about 1 MiB a rank, and go around a ring beyond. */
static void test_short_prompts(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= 8; ranks *= 2)
        for (size_t each = 32; each <= 1024; each *= 2) {
            example e;
            make_example(&e, ranks, 8, 16, each * (size_t)ranks, 0);
            e.problem.queries_stay = true;
            assert_string_equal(movement_choose(&e.problem)->name, each < 256 ? "gather_kv" : "pass_kv");
        }
}

/* Between nodes the messages of an all-gather overlap with computing, too: it is taken as long as there is room for the
 * keys of all ranks. */
static void test_between_nodes(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= 8; ranks *= 2)
        for (size_t each = 256; each <= 65536; each *= 2) {
            example e;
            make_example(&e, ranks, 8, 16, each * (size_t)ranks, 0);
            e.comm.shm = NULL;
            e.problem.queries_stay = true;
            const bool fits = each * (size_t)ranks * 4096 < (size_t)256 << 20; /* 4 KiB a position */
            assert_string_equal(movement_choose(&e.problem)->name, fits ? "gather_kv" : "pass_kv");
        }
}

static void test_what_applies(void **state)
{
    (void)state;
    example e;
    make_example(&e, 1, 8, 16, 1, 1000);
    assert_ptr_equal(movement_choose(&e.problem), &movement_local);
    make_example(&e, 4, 8, 16, 4, 100000);
    assert_ptr_equal(movement_choose(&e.problem), &movement_pass_q);
    e.problem.queries_stay = true;
    assert_ptr_equal(movement_choose(&e.problem), &movement_pass_kv);
    const size_t head_first[] = {0, 4, 8, 12, 16};
    e.problem.replicated = true;
    e.problem.head_first = head_first;
    assert_ptr_equal(movement_choose(&e.problem), &movement_split_heads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_costs),         cmocka_unit_test(test_queries_against_keys),
        cmocka_unit_test(test_cheapest),      cmocka_unit_test(test_short_prompts),
        cmocka_unit_test(test_between_nodes), cmocka_unit_test(test_what_applies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
