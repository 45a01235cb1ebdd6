/* test_movements.c - each movement alone, on the ranks at hand: every movement that applies to a random problem gives
 * what attention in double gives, whatever the rows and keys of a rank are, and sends exactly the bytes, in as many
 * messages, as its cost says.
 */
#include <math.h>
#include <string.h>

#include "attention/movement.h"
#include "base/memory.h"
#include "check.h"

enum { JOBS = 3, MAX_ROWS = 12, MAX_KEYS = 300, THREADS = 2 };

#define ENTRY(name) &movement_##name,
static const movement *const all_movements[] = {MOVEMENTS(ENTRY)};

/* The same on all ranks. Values are bf16, so that storage does not round them. */
typedef struct setup {
    attention_shape shape;
    attention_problem problem;
    size_t jobs, ranks, rank;
    size_t rows[8 * JOBS], own_keys[8 * JOBS], keys[JOBS], head_first[9];
    int key_owner[JOBS][MAX_KEYS];
    int32_t positions[8 * JOBS * MAX_ROWS];
    float *q;                 /* [all rows, heads, head_dim], times the softmax scale */
    float *k[JOBS], *v[JOBS]; /* [kv_heads, keys, head_dim] */
    size_t n_rows;
} setup;

static float *random_values(uint64_t *random, size_t n, float scale)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = bf16_to_f32(f32_to_bf16(scale * check_random_float(random)));
    return x;
}

static setup make_setup(comm *c, bool replicated, uint64_t *random)
{
    setup s = {.ranks = (size_t)comm_size(c), .rank = (size_t)comm_rank(c)};
    s.jobs = 1 + check_random(random) % JOBS;
    const size_t dims[] = {32, 64, 40};
    s.shape = (attention_shape){.kernels = kernels_get(QWEN3_ISA_AUTO),
                                .kv_type = check_random(random) % 2 ? QWEN3_DTYPE_F32 : QWEN3_DTYPE_BF16,
                                .head_dim = dims[check_random(random) % 3],
                                .kv_heads = check_random(random) % 4, /* 0: more ranks than heads */
                                .heads_per_kv = 1 + check_random(random) % 3,
                                .causal = true,
                                .pagewise = check_random(random) % 3 == 0,
                                .q_block_size = 4,
                                .kv_block_size = KV_BLOCK};
    const size_t heads = s.shape.kv_heads * s.shape.heads_per_kv, d = s.shape.head_dim, sets = replicated ? 1 : s.ranks;
    for (size_t j = 0; j < s.jobs; j++) {
        const size_t bias = check_random(random) % (s.ranks + 1); /* keys only on some ranks */
        s.keys[j] = check_random(random) % MAX_KEYS;
        for (size_t i = 0; i < s.keys[j]; i++)
            s.key_owner[j][i] = s.shape.pagewise ? page_place_of(i / KV_BLOCK, (int)s.ranks).owner
                                                 : (int)(check_random(random) % (bias ? bias : 1));
        s.k[j] = random_values(random, s.shape.kv_heads * s.keys[j] * d, 2);
        s.v[j] = random_values(random, s.shape.kv_heads * s.keys[j] * d, 1);
        for (size_t r = 0; r < s.ranks; r++) {
            size_t own = 0;
            for (size_t i = 0; i < s.keys[j]; i++)
                own += s.key_owner[j][i] == (int)r;
            s.own_keys[r * s.jobs + j] = own;
        }
    }
    for (size_t i = 0; i < sets * s.jobs; i++) {
        s.rows[i] = check_random(random) % 4 ? check_random(random) % MAX_ROWS : 0;
        for (size_t r = 0; r < s.rows[i]; r++)
            s.positions[s.n_rows++] = (int32_t)(check_random(random) % MAX_KEYS);
    }
    s.q = random_values(random, s.n_rows * heads * d, 0.5f);
    for (size_t r = 0; r <= s.ranks; r++)
        s.head_first[r] = heads * r / s.ranks;
    return s;
}

static void free_setup(setup *s)
{
    free(s->q);
    for (size_t j = 0; j < s->jobs; j++)
        free(s->k[j]), free(s->v[j]);
}

/* Row `row` of all rows, query head `head` of job j, in double: [head_dim]. */
static void attend_in_double(const setup *s, size_t j, size_t row, size_t head, double *out)
{
    const size_t d = s->shape.head_dim, kv = head / s->shape.heads_per_kv,
                 heads = s->shape.kv_heads * s->shape.heads_per_kv;
    const float *q = s->q + (row * heads + head) * d;
    double max = -INFINITY, sum = 0, scores[MAX_KEYS];
    for (size_t i = 0; i < s->keys[j]; i++) {
        double score = 0;
        for (size_t n = 0; n < d; n++)
            score += (double)q[n] * s->k[j][(kv * s->keys[j] + i) * d + n];
        scores[i] = (int32_t)i <= s->positions[row] ? score : -INFINITY;
        max = fmax(max, scores[i]);
    }
    memset(out, 0, d * sizeof *out);
    for (size_t i = 0; i < s->keys[j] && max > -INFINITY; i++) {
        const double p = exp(scores[i] - max);
        sum += p;
        for (size_t n = 0; n < d; n++)
            out[n] += p * s->v[j][(kv * s->keys[j] + i) * d + n];
    }
    for (size_t n = 0; n < d && sum > 0; n++)
        out[n] /= sum;
}

/* Own keys as a shard. */
static void fill_shard(const setup *s, void *shard)
{
    const attention_shape *shape = &s->shape;
    const size_t d = shape->head_dim;
    size_t first = 0, total = 0;
    for (size_t j = 0; j < s->jobs; j++)
        total += kv_blocks_for(s->own_keys[s->rank * s->jobs + j]);
    kv_shard_init(shard, total);
    for (size_t j = 0; j < s->jobs; j++)
        kv_shard_add_run(shape, shard, s->own_keys[s->rank * s->jobs + j]);
    for (size_t j = 0; j < s->jobs; first += kv_blocks_for(s->own_keys[s->rank * s->jobs + j++])) {
        size_t own = 0;
        for (size_t i = 0; i < s->keys[j]; i++) {
            if (s->key_owner[j][i] != (int)s->rank)
                continue;
            const size_t block = first + own++ / KV_BLOCK;
            const size_t slot = kv_slots_add(kv_shard_slots(shard, block), (int32_t)i);
            for (size_t h = 0; h < shape->kv_heads; h++)
                kv_block_store(shape, kv_shard_place(shape, shard, block, h), slot, 1,
                               s->k[j] + (h * s->keys[j] + i) * d, s->v[j] + (h * s->keys[j] + i) * d);
        }
    }
}

/* Rows before those of this rank. */
static size_t first_row(const setup *s, const attention_problem *p)
{
    size_t n = 0;
    for (size_t r = 0; !p->replicated && r < s->rank; r++)
        n += problem_rows(p, (int)r);
    return n;
}

static void fill_queries(const setup *s, exchange *x)
{
    const attention_problem *p = x->problem;
    const size_t heads = problem_heads(p), d = s->shape.head_dim, stride = attention_q_stride(&s->shape);
    const qwen3_dtype type = attention_gemm(&s->shape)->activation;
    const size_t *rows = p->rows + (p->replicated ? 0 : s->rank * s->jobs);
    char *q = x->q;
    size_t row = first_row(s, p);
    for (size_t j = 0; j < s->jobs; row += rows[j++])
        for (size_t h = 0; h < heads; h++)
            for (size_t r = 0; r < rows[j]; r++) {
                const size_t at =
                    (h / s->shape.heads_per_kv * rows[j] + r) * s->shape.heads_per_kv + h % s->shape.heads_per_kv;
                char *y = q + at * stride * dtype_size(type);
                s->shape.kernels->scale(d, 1.0f, s->q + ((row + r) * heads + h) * d, y, type);
                memset(y + d * dtype_size(type), 0, (stride - d) * dtype_size(type));
                if (h + 1 == heads && r + 1 == rows[j])
                    q += heads * rows[j] * stride * dtype_size(type);
            }
}

/* Compares what this rank needs with attention in double. */
static void check_result(const setup *s, const exchange *x, const char *label)
{
    const attention_problem *p = x->problem;
    const size_t heads = problem_heads(p), d = s->shape.head_dim, group = s->shape.heads_per_kv;
    const size_t head0 = p->replicated ? s->head_first[s->rank] : 0;
    const size_t head1 = p->replicated ? s->head_first[s->rank + 1] : heads;
    const size_t *rows = p->rows + (p->replicated ? 0 : s->rank * s->jobs);
    double worst = 0, expected[64];
    float got[64];
    size_t row = 0, first = first_row(s, p);
    for (size_t j = 0; j < s->jobs; row += rows[j++])
        for (size_t r = 0; r < rows[j]; r++)
            for (size_t h = head0; h < head1; h++) {
                size_t at = row * heads + (h / group * rows[j] + r) * group + h % group;
                if (p->replicated)
                    at = (row + r) * (head1 - head0) + h - head0;
                partial_output(s->shape.kernels, d, x->result, at, got, QWEN3_DTYPE_F32);
                attend_in_double(s, j, first + row + r, h, expected);
                for (size_t n = 0; n < d; n++) {
                    const double error = isnan(got[n]) ? INFINITY : fabs(got[n] - expected[n]);
                    if (error > worst)
                        worst = error;
                }
            }
    /* Values are at most 1. f32: sums of 300 products. BF16: probabilities are rounded to 2^-9. */
    check(worst <= (s->shape.kv_type == QWEN3_DTYPE_F32 ? 2e-5 : 8e-3), "%s: largest error %.3g", label, worst);
}

typedef struct running {
    exchange *x;
} running;

static void run_body(team *t, void *arg)
{
    exchange *x = ((running *)arg)->x;
    if (t->tid == 0)
        exchange_plan(t, x);
    team_barrier(t);
    exchange_start(t, x);
    exchange_clear(t, x);
    team_barrier(t);
    exchange_run(t, x);
}

static void check_movement(comm *c, setup *s, const movement *m, bool replicated, bool brings_shard)
{
    char label[120];
    s->problem =
        (attention_problem){.comm = c,
                            .shape = &s->shape,
                            .algorithm = attention_algorithm_get(
                                s->shape.heads_per_kv % 2 ? QWEN3_ATTENTION_ONLINE_SOFTMAX : QWEN3_ATTENTION_STANDARD),
                            .threads = THREADS,
                            .n_jobs = s->jobs,
                            .replicated = replicated,
                            .brings_shard = brings_shard,
                            .rows = s->rows,
                            .positions = s->positions,
                            .keys = s->own_keys,
                            .head_first = s->head_first};
    if (!m->applies(&s->problem))
        return;
    snprintf(label, sizeof label, "%s%s%s, %zu jobs, kv %s, %zu rows", m->name, brings_shard ? " of a shard" : "",
             s->shape.pagewise ? " pagewise" : "", s->jobs, qwen3_dtype_name(s->shape.kv_type), s->n_rows);
    exchange x = {0};
    memory_plan plan = {0};
    qwen3_error err = {0};
    void *memory = NULL, *shard = NULL;
    size_t bytes = 0;
    check(!exchange_begin(&x, &s->problem, m, (exchange_phases){0, 1, 2, 3, 0, 3}, &plan, &err), "%s", err.message);
    check(memory_plan_place(&plan, &bytes) && !memory_alloc(&memory, bytes, "test", &err), "%s", err.message);
    if (memory)
        memset(memory, 0xff, bytes);
    memory_plan_bind(&plan, memory);
    check(!memory_alloc(&shard, exchange_shard_bytes(&s->problem), "test", &err), "%s", err.message);
    fill_shard(s, shard);
    x.shard = shard;
    size_t first = 0;
    kv_block *views = x.views;
    for (size_t j = 0; j < s->jobs; j++) {
        const size_t n = kv_blocks_for(s->own_keys[s->rank * s->jobs + j]);
        kv_shard_view(&s->shape, shard, first, n, views, n);
        first += n;
        views += s->shape.kv_heads * n;
    }
    fill_queries(s, &x);
    const qwen3_comm_stats before = *comm_stats(c);
    team_run(THREADS, run_body, &(running){&x});
    const qwen3_comm_stats *after = comm_stats(c);
    double sent = 0;
    uint64_t messages = 0;
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++) {
        sent += (double)(after->bytes[kind] - before.bytes[kind]);
        messages += after->calls[kind] - before.calls[kind];
    }
    check_result(s, &x, label);
    double *all = calloc(s->ranks, sizeof *all), total = 0;
    qwen3_comm_gather(c, &sent, sizeof sent, all);
    for (size_t r = 0; r < s->ranks; r++)
        total += all[r];
    const movement_cost cost = m->cost(&s->problem);
    check(comm_rank(c) != 0 || total == cost.bytes, "%s: %.0f bytes sent, its cost says %.0f", label, total,
          cost.bytes);
    check(messages == (uint64_t)cost.messages, "%s: %" PRIu64 " messages, its cost says %d", label, messages,
          cost.messages);
    free(all);
    exchange_close(&x);
    memory_plan_free(&plan);
    memory_free(memory, bytes);
    memory_free(shard, exchange_shard_bytes(&s->problem));
}

int main(int argc, char **argv)
{
    uint64_t random;
    comm *world = check_begin(argc, argv, 20261127, &random);
    const int rounds = comm_size(world) > 4 ? 6 : 24; /* many ranks on few cores are slow */
    for (int round = 0; round < rounds; round++)
        for (int replicated = 0; replicated < 2; replicated++) {
            setup s = make_setup(world, replicated, &random);
            for (size_t m = 0; m < sizeof all_movements / sizeof *all_movements; m++)
                for (int brings_shard = 0; brings_shard < 2; brings_shard++)
                    check_movement(world, &s, all_movements[m], replicated, brings_shard);
            free_setup(&s);
        }
    return check_end(world);
}
