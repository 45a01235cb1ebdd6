/* Attention algorithms, partials and KV blocks against float64, over every instruction set, storage type, tile and
 * block size. Errors are held against bounds that follow from the arithmetic:
 *   score:  (dim + 4) eps sum |q k|, and eps of |score| + |mask|
 *   output: sum p |v| times (2 x score error + (keys + 16) eps + 2^-8 where probabilities are stored as BF16)
 * Q8 stores a vector to the nearest multiple of largest / 127, so with vectors of such multiples nothing changes; with
 * others each value is off by half a step of its vector:
 *   score:  sum |q| half step more
 *   output: sum p half step more, and e^(2 x score error) - 1 instead of 2 x score error, which is not small any more
 */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "attention/attention.h"
#include "attention/kv_shard.h"
#include "base/memory.h"
#include "support/levels.h"

#include <cmocka.h> /* last: it defines a macro fail() */

#define EPS 5.97e-8 /* 2^-24 */

static uint64_t random_state;

static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t random_below(size_t n)
{
    return (size_t)(next_random() % n);
}

static float random_float(float range)
{
    return ((float)(next_random() >> 40) / (float)(1 << 23) - 1.0f) * range;
}

static void *allocate(size_t bytes)
{
    bytes = round_up(bytes ? bytes : 1, CACHE_LINE);
    void *p = aligned_alloc(CACHE_LINE, bytes);
    assert_non_null(p);
    memset(p, 0, bytes);
    return p;
}

/* ---- A problem and its float64 answer ---------------------------------------------------------- */

typedef struct problem {
    attention_shape shape;
    size_t rows, keys;
    int32_t *q_positions, *k_positions;
    float *q, *k, *v;         /* [heads, rows, dim], [kv_heads, keys, dim]; as stored, so rounded where BF16 */
    bool rounded;             /* Q8 only: k and v are not what is stored */
    float *mask;              /* NULL or [heads, rows, keys] by position */
    double *expected, *bound; /* [heads, rows, dim] */
} problem;

static float as_type(float x, qwen3_dtype type)
{
    return type == QWEN3_DTYPE_F32 ? x : bf16_to_f32(f32_to_bf16(x));
}

static float *random_floats(size_t n, float range, qwen3_dtype type)
{
    float *x = allocate(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = as_type(random_float(range), type);
    return x;
}

/* Vectors that Q8 stores without error: integers up to 127, one of them 127 or -127, times a short scale. */
static float *random_multiples(size_t vectors, size_t dim, float range)
{
    float *x = allocate(vectors * dim * sizeof *x);
    for (size_t i = 0; i < vectors; i++) {
        const float scale = range / 64 * (float)(1 + random_below(255)) / 512; /* 127 of it are at most range */
        for (size_t j = 0; j < dim; j++)
            x[i * dim + j] = scale * (float)((int)random_below(255) - 127);
        x[i * dim + random_below(dim)] = random_below(2) ? 127 * scale : -127 * scale;
    }
    return x;
}

static float *random_stored(size_t vectors, size_t dim, float range, qwen3_dtype type, bool rounded)
{
    const bool exact = type == QWEN3_DTYPE_Q8 && !rounded;
    return exact ? random_multiples(vectors, dim, range)
                 : random_floats(vectors * dim, range, rounded ? QWEN3_DTYPE_F32 : type);
}

/* The most that Q8 changes a value of a vector: its arithmetic is in f32. */
static double half_step(const problem *p, const float *x)
{
    float largest = 0;
    for (size_t i = 0; i < p->shape.head_dim && p->rounded; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    return (0.5 / 127 + 4 * EPS) * largest;
}

/* Query row r of query head h: the softmax over all keys, in float64. */
static void solve_row(problem *p, size_t h, size_t r, double *score)
{
    const attention_shape *s = &p->shape;
    const size_t dim = s->head_dim, kv = h / s->heads_per_kv, row = h * p->rows + r;
    double max = -INFINITY, error = 0, sum = 0;
    for (size_t j = 0; j < p->keys; j++) {
        const float *q = p->q + row * dim, *k = p->k + (kv * p->keys + j) * dim;
        double x = 0, size = 0, q_size = 0;
        for (size_t i = 0; i < dim; i++)
            x += (double)q[i] * k[i], size += fabs((double)q[i] * k[i]), q_size += fabs(q[i]);
        double mask = p->mask ? p->mask[row * p->keys + (size_t)p->k_positions[j]] : 0;
        bool visible = (!s->causal || p->k_positions[j] <= p->q_positions[r]) && mask != -INFINITY;
        score[j] = visible ? x + mask : -INFINITY;
        if (score[j] > -INFINITY)
            error =
                fmax(error, ((double)dim + 4) * EPS * size + EPS * (fabs(x) + fabs(mask)) + q_size * half_step(p, k));
        max = fmax(max, score[j]);
    }
    for (size_t j = 0; j < p->keys; j++)
        sum += score[j] = score[j] == -INFINITY ? 0 : exp(score[j] - max);
    bool p_bf16 = attention_gemm(s)->activation == QWEN3_DTYPE_BF16;
    double relative =
        (p->rounded ? expm1(2 * error) : 2 * error) + ((double)p->keys + 16) * EPS + (p_bf16 ? 1.0 / 256 : 0);
    double steps = 0;
    for (size_t j = 0; j < p->keys && sum > 0; j++)
        steps += score[j] / sum * half_step(p, p->v + (kv * p->keys + j) * dim);
    for (size_t i = 0; i < dim; i++) {
        double o = 0, size = 0;
        for (size_t j = 0; j < p->keys && sum > 0; j++) {
            double term = score[j] / sum * p->v[(kv * p->keys + j) * dim + i];
            o += term, size += fabs(term);
        }
        p->expected[row * dim + i] = o;
        p->bound[row * dim + i] = relative * size + (1 + relative) * steps + 1e-30;
    }
}

static void problem_solve(problem *p)
{
    size_t heads = p->shape.kv_heads * p->shape.heads_per_kv;
    double *score = allocate(p->keys * sizeof *score);
    p->expected = allocate(heads * p->rows * p->shape.head_dim * sizeof(double));
    p->bound = allocate(heads * p->rows * p->shape.head_dim * sizeof(double));
    for (size_t h = 0; h < heads; h++)
        for (size_t r = 0; r < p->rows; r++)
            solve_row(p, h, r, score);
    free(score);
}

/* Positions of the keys: all of [0, keys) in ascending, zigzag or random order. Queries are the last ones or sit
 * anywhere among the keys. */
static void random_positions(problem *p)
{
    p->k_positions = allocate(p->keys * sizeof(int32_t));
    p->q_positions = allocate(p->rows * sizeof(int32_t));
    size_t order = random_below(3);
    for (size_t j = 0; j < p->keys; j++)
        p->k_positions[j] = (int32_t)(order == 1 ? (j % 2 ? p->keys - 1 - j / 2 : j / 2) : j);
    for (size_t j = p->keys; order == 2 && j > 1; j--) {
        size_t other = random_below(j);
        int32_t swap = p->k_positions[j - 1];
        p->k_positions[j - 1] = p->k_positions[other];
        p->k_positions[other] = swap;
    }
    bool last = random_below(2) && p->keys >= p->rows;
    for (size_t r = 0; r < p->rows; r++)
        p->q_positions[r] = (int32_t)(last ? p->keys - p->rows + r : random_below(p->keys + 1));
}

/* range: of q and k; scores reach range^2 * sqrt(dim) or so. */
static problem problem_draw(attention_shape shape, size_t rows, size_t keys, bool masked, float range, bool rounded)
{
    problem p = {.shape = shape, .rows = rows, .keys = keys, .rounded = rounded};
    size_t heads = shape.kv_heads * shape.heads_per_kv;
    random_positions(&p);
    p.q = random_floats(heads * rows * shape.head_dim, range, attention_gemm(&shape)->activation);
    p.k = random_stored(shape.kv_heads * keys, shape.head_dim, range, shape.kv_type, rounded);
    p.v = random_stored(shape.kv_heads * keys, shape.head_dim, 2.0f, shape.kv_type, rounded);
    if (masked) {
        p.mask = random_floats(heads * rows * keys, 3.0f, QWEN3_DTYPE_F32);
        for (size_t i = 0; i < heads * rows * keys; i++)
            if (random_below(4) == 0 || i / keys % 7 == 3) /* and whole rows */
                p.mask[i] = -INFINITY;
    }
    problem_solve(&p);
    return p;
}

static problem problem_make(attention_shape shape, size_t rows, size_t keys, bool masked, float range)
{
    return problem_draw(shape, rows, keys, masked, range, false);
}

static void problem_free(problem *p)
{
    free(p->q_positions), free(p->k_positions), free(p->q), free(p->k), free(p->v), free(p->mask);
    free(p->expected), free(p->bound);
}

/* ---- The same problem for the library ---------------------------------------------------------- */

/* Keys [begin, end) as a shard; ragged: blocks are filled to random counts. Its pages held NaN before. */
static void *make_shard(const problem *p, size_t begin, size_t end, bool ragged)
{
    const attention_shape *s = &p->shape;
    /* A ragged shard has a few blocks more than it needs, and the last ones take what is left. */
    size_t blocks = (end - begin + KV_BLOCK - 1) / KV_BLOCK, spare = ragged ? 3 : 0;
    const size_t room = spare ? (blocks + spare) * KV_BLOCK : end - begin;
    const size_t bytes = kv_shard_bytes(kv_run_bytes(s, room));
    void *shard = allocate(bytes);
    memset(shard, 0xff, bytes);
    kv_shard_init(shard, blocks + spare);
    kv_shard_add_run(s, shard, room);
    size_t block = 0;
    for (size_t j = begin; j < end; j++) {
        while (kv_shard_slots(shard, block)->count == KV_BLOCK || (spare && random_below(20) == 0))
            spare -= kv_shard_slots(shard, block++)->count < KV_BLOCK;
        size_t slot = kv_slots_add(kv_shard_slots(shard, block), p->k_positions[j]);
        for (size_t h = 0; h < s->kv_heads; h++) {
            const size_t at = (h * p->keys + j) * s->head_dim;
            const kv_place place = kv_shard_place(s, shard, block, h);
            kv_block_store(s, place, slot, 1, p->k + at, p->v + at);
            kv_block_end(s, place, slot + 1);
        }
    }
    return shard;
}

/* The queries in the layout of a job, and its partials. */
static attention_job make_job(const problem *p, const void *shard)
{
    const attention_shape *s = &p->shape;
    const qwen3_dtype type = attention_gemm(s)->activation;
    const size_t stride = attention_q_stride(s), n = s->kv_heads * s->heads_per_kv * p->rows;
    attention_job job = {.rows = p->rows, .q_positions = p->q_positions, .mask = p->mask};
    char *q = allocate(n * stride * dtype_size(type));
    for (size_t h = 0; h < s->kv_heads * s->heads_per_kv; h++)
        for (size_t r = 0; r < p->rows; r++) {
            size_t at = ((h / s->heads_per_kv * p->rows + r) * s->heads_per_kv + h % s->heads_per_kv) * stride;
            s->kernels->scale(s->head_dim, 1.0f, p->q + (h * p->rows + r) * s->head_dim, q + at * dtype_size(type),
                              type);
        }
    job.q = q;
    job.o = allocate(n * s->head_dim * sizeof(float));
    job.m = allocate(n * sizeof(float));
    job.l = allocate(n * sizeof(float));
    partial_clear(n, s->head_dim, (partial_run){job.o, job.m, job.l});
    job.mask_stride_head = p->rows * p->keys;
    job.mask_stride_row = p->keys;
    job.n_blocks = kv_shard_blocks(shard);
    kv_block *blocks = allocate(s->kv_heads * job.n_blocks * sizeof *blocks);
    kv_shard_view(s, shard, 0, job.n_blocks, blocks, job.n_blocks);
    job.blocks = blocks;
    return job;
}

/* The keys of a job as they lie in the problem, without a list of positions where these ascend. */
static void view_in_place(const problem *p, attention_job *job)
{
    const attention_shape *s = &p->shape;
    const size_t n = (p->keys + KV_BLOCK - 1) / KV_BLOCK;
    free((void *)job->blocks);
    kv_block *blocks = allocate(s->kv_heads * n * sizeof *blocks);
    for (size_t i = 0; i < s->kv_heads * n; i++) {
        const size_t first = i % n * KV_BLOCK, at = (i / n * p->keys + first) * s->head_dim;
        const size_t count = p->keys - first < KV_BLOCK ? p->keys - first : KV_BLOCK;
        kv_slots slots;
        bool ascending = true;
        kv_slots_clear(&slots);
        for (size_t j = first; j < first + count; j++) {
            kv_slots_add(&slots, p->k_positions[j]);
            ascending &= p->k_positions[j] == p->k_positions[first] + (int32_t)(j - first);
        }
        blocks[i] = (kv_block){.k = p->k + at,
                               .v = p->v + at,
                               .row_stride = s->head_dim,
                               .positions = ascending ? NULL : p->k_positions + first,
                               .count = (int32_t)count,
                               .min_position = slots.min_position,
                               .max_position = slots.max_position};
    }
    job->blocks = blocks;
    job->n_blocks = n;
}

static void free_job(attention_job *job)
{
    free((void *)job->q), free(job->o), free(job->m), free(job->l), free((void *)job->blocks);
}

typedef struct run_arguments {
    const attention_shape *shape;
    const attention_algorithm *algorithm;
    const attention_job *jobs;
    size_t n_jobs;
    attention_workspace workspace;
} run_arguments;

static void run_body(team *t, void *arg)
{
    run_arguments *a = arg;
    if (t->tid == 0)
        attention_plan(t, a->shape, a->algorithm, a->jobs, a->n_jobs, &a->workspace);
    team_barrier(t);
    attention_run(t, &a->workspace);
}

/* The workspace is made for jobs of the same rows with at least as many blocks, and is full of NaN: nothing may be
 * read before it is written. */
static void run_jobs(const attention_shape *shape, qwen3_attention_algorithm id, const attention_job *jobs,
                     size_t n_jobs, int threads)
{
    run_arguments a = {shape, attention_algorithm_get(id), jobs, n_jobs, {.threads = threads}};
    attention_job larger[8];
    for (size_t j = 0; j < n_jobs; j++)
        larger[j] = (attention_job){.rows = jobs[j].rows, .n_blocks = jobs[j].n_blocks + random_below(5)};
    a.workspace.bytes =
        attention_workspace_bytes(shape, a.algorithm, larger, n_jobs, threads, &a.workspace.score_bytes);
    a.workspace.data = allocate(a.workspace.bytes);
    memset(a.workspace.data, 0xff, a.workspace.bytes);
    team_run(threads, run_body, &a);
    free(a.workspace.data);
}

/* Finishes a copy of the partials and returns the largest error over its bound; NaN where there is one. */
static double worst_error(const problem *p, const attention_job *job)
{
    const attention_shape *s = &p->shape;
    const size_t dim = s->head_dim, n = s->kv_heads * s->heads_per_kv * p->rows;
    float *o = allocate(n * dim * sizeof *o);
    memcpy(o, job->o, n * dim * sizeof *o);
    for (size_t i = 0; i < n; i++)
        partial_output(s->kernels, dim, (partial_run){o, job->m, job->l}, i, o + i * dim, QWEN3_DTYPE_F32);
    double worst = 0;
    for (size_t h = 0; h < s->kv_heads * s->heads_per_kv; h++)
        for (size_t r = 0; r < p->rows; r++)
            for (size_t i = 0; i < dim; i++) {
                size_t at = (h / s->heads_per_kv * p->rows + r) * s->heads_per_kv + h % s->heads_per_kv,
                       e = (h * p->rows + r) * dim + i;
                double error = fabs(o[at * dim + i] - p->expected[e]) / p->bound[e];
                worst = error <= worst || isnan(worst) ? worst : error;
            }
    free(o);
    return worst;
}

static const qwen3_attention_algorithm algorithms[] = {QWEN3_ATTENTION_STANDARD, QWEN3_ATTENTION_ONLINE_SOFTMAX};

/* ---- Partials ---------------------------------------------------------------------------------- */

enum { DIM = 24, ROWS = 9 };
typedef struct partials {
    float o[ROWS * DIM], m[ROWS], l[ROWS];
} partials;

static partial_run run_of(partials *p)
{
    return (partial_run){p->o, p->m, p->l};
}

static partials random_partials(void)
{
    partials p;
    partial_clear(ROWS, DIM, run_of(&p));
    for (size_t r = 0; r < ROWS; r++) {
        if (random_below(4) == 0)
            continue;
        p.m[r] = random_float(random_below(2) ? 3.0f : 1e4f);
        p.l[r] = 1.0f + fabsf(random_float(20.0f));
        for (size_t i = 0; i < DIM; i++)
            p.o[r * DIM + i] = random_float(p.l[r]);
    }
    return p;
}

static partials merged(const partials *a, const partials *b)
{
    partials p = *a, from = *b;
    partial_merge(ROWS, DIM, run_of(&p), run_of(&from));
    return p;
}

static void check_sum(const partials *a, const partials *b, const partials *c, const partials *sum)
{
    for (size_t r = 0; r < ROWS; r++) {
        double m = fmax(fmax(a->m[r], b->m[r]), c->m[r]), w[3] = {0};
        if (m > -INFINITY)
            w[0] = exp(a->m[r] - m), w[1] = exp(b->m[r] - m), w[2] = exp(c->m[r] - m);
        double l = w[0] * a->l[r] + w[1] * b->l[r] + w[2] * c->l[r];
        assert_true(sum->m[r] == (float)m);
        assert_true(fabs(sum->l[r] - l) <= 16 * EPS * l);
        for (size_t i = r * DIM; i < (r + 1) * DIM; i++) {
            double o = w[0] * a->o[i] + w[1] * b->o[i] + w[2] * c->o[i];
            assert_true(fabs(sum->o[i] - o) <= 16 * EPS * l);
        }
    }
}

static void test_partials(void **state)
{
    (void)state;
    partials none;
    partial_clear(ROWS, DIM, run_of(&none));
    for (int round = 0; round < 200; round++) {
        partials a = random_partials(), b = random_partials(), c = random_partials();
        partials left = merged(&none, &a), right = merged(&a, &none);
        assert_memory_equal(&left, &a, sizeof a);
        assert_memory_equal(&right, &a, sizeof a);
        partials ab = merged(&a, &b), ba = merged(&b, &a), bc = merged(&b, &c);
        for (size_t i = 0; i < ROWS * DIM; i++) /* -0 = 0 */
            assert_true(ab.o[i] == ba.o[i]);
        assert_memory_equal(ab.m, ba.m, sizeof ab.m);
        assert_memory_equal(ab.l, ba.l, sizeof ab.l);
        partials x = merged(&ab, &c), y = merged(&a, &bc);
        check_sum(&a, &b, &c, &x);
        check_sum(&a, &b, &c, &y);
    }
    partials nothing = merged(&none, &none);
    assert_memory_equal(&nothing, &none, sizeof none);
    for (size_t r = 0; r < ROWS; r++)
        partial_output(kernels_get(QWEN3_ISA_AUTO), DIM, run_of(&nothing), r, nothing.o + r * DIM, QWEN3_DTYPE_F32);
    for (size_t i = 0; i < ROWS * DIM; i++)
        assert_true(nothing.o[i] == 0.0f);
}

/* ---- Blocks ------------------------------------------------------------------------------------ */

/* All slots of a block, one or some at a time, in random order. */
static void store_in_runs(const attention_shape *s, kv_place to, const float *key, const float *value)
{
    size_t begin[KV_BLOCK], runs = 0;
    for (size_t slot = 0; slot < KV_BLOCK; slot += 1 + random_below(random_below(2) ? 2 : 12))
        begin[runs++] = slot;
    for (size_t left = runs; left > 0; left--) {
        const size_t pick = random_below(left), slot = begin[pick];
        size_t end = KV_BLOCK;
        for (size_t i = 0; i < left; i++) /* those stored already are written again, with the same */
            if (begin[i] > slot && begin[i] < end)
                end = begin[i];
        kv_block_store(s, to, slot, end - slot, key + slot * s->head_dim, value + slot * s->head_dim);
        begin[pick] = begin[left - 1];
    }
}

/* Rows of a matrix of n rows in the panel that starts at row `at`. */
static size_t panel_rows(size_t n, size_t at, size_t nr)
{
    return n - at < nr ? n - at : nr;
}

/* A block filled in runs of slots is what the packing of the whole matrices makes. */
static void check_block(const kernels *k, qwen3_dtype type, size_t dim)
{
    attention_shape s = {.kernels = k, .kv_type = type, .head_dim = dim, .kv_heads = 1, .heads_per_kv = 1};
    const gemm_kernel *g = &k->gemm[type];
    const size_t k_bytes = kv_block_k_bytes(&s, KV_BLOCK), v_bytes = kv_block_v_bytes(&s, KV_BLOCK), nr = (size_t)g->nr;
    char *bk = allocate(k_bytes), *bv = allocate(v_bytes), *expected = allocate(k_bytes + v_bytes);
    float *key = random_floats(KV_BLOCK * dim, 5.0f, QWEN3_DTYPE_F32);
    float *value = random_floats(KV_BLOCK * dim, 5.0f, QWEN3_DTYPE_F32), *turned = allocate(KV_BLOCK * dim * 4);
    store_in_runs(&s, (kv_place){bk, bv, KV_BLOCK}, key, value);
    for (size_t slot = 0; slot < KV_BLOCK; slot++)
        for (size_t i = 0; i < dim; i++)
            turned[i * KV_BLOCK + slot] = value[slot * dim + i];
    for (size_t n = 0; n < KV_BLOCK; n += nr)
        gemm_pack_panel(g, &(matrix_rows){key + n * dim, QWEN3_DTYPE_F32, dim, nr, dim},
                        expected + n * round_up(dim, (size_t)g->kr) * dtype_size(type));
    assert_memory_equal(bk, expected, k_bytes);
    for (size_t n = 0; n < dim; n += nr)
        gemm_pack_panel(
            g, &(matrix_rows){turned + n * KV_BLOCK, QWEN3_DTYPE_F32, KV_BLOCK, panel_rows(dim, n, nr), KV_BLOCK},
            expected + n * KV_BLOCK * dtype_size(type));
    assert_memory_equal(bv, expected, v_bytes);
    free(bk), free(bv), free(expected), free(key), free(value), free(turned);
}

/* The same for Q8: the bytes are those of the packing of all q, once they are BF16. */
static void check_q8_block(const kernels *k, size_t dim)
{
    attention_shape s = {.kernels = k, .kv_type = QWEN3_DTYPE_Q8, .head_dim = dim, .kv_heads = 1, .heads_per_kv = 1};
    const gemm_kernel *g = attention_gemm(&s);
    const size_t k_bytes = kv_block_k_bytes(&s, KV_BLOCK), v_bytes = kv_block_v_bytes(&s, KV_BLOCK), nr = (size_t)g->nr;
    const size_t k_values = k_bytes - kv_scale_bytes(KV_BLOCK), v_values = v_bytes - kv_scale_bytes(KV_BLOCK);
    const size_t most = k_values > v_values ? k_values : v_values;
    char *bk = allocate(k_bytes), *bv = allocate(v_bytes);
    bf16 *expanded = allocate(most * sizeof(bf16)), *expected = allocate(most * sizeof(bf16));
    float *key = random_multiples(KV_BLOCK, dim, 5.0f), *value = random_multiples(KV_BLOCK, dim, 0x1p66f);
    float *turned = allocate(KV_BLOCK * dim * sizeof(float));
    store_in_runs(&s, (kv_place){bk, bv, KV_BLOCK}, key, value);
    for (size_t slot = 0; slot < KV_BLOCK; slot++)
        for (size_t i = 0; i < dim; i++) {
            key[slot * dim + i] /= ((float *)bk)[slot];
            turned[i * KV_BLOCK + slot] = value[slot * dim + i] / ((float *)bv)[slot];
        }
    for (size_t n = 0; n < KV_BLOCK; n += nr)
        gemm_pack_panel(g, &(matrix_rows){key + n * dim, QWEN3_DTYPE_F32, dim, nr, dim},
                        expected + n * round_up(dim, (size_t)g->kr));
    k->bytes_to_bf16(k_values, kv_block_q8(bk, KV_BLOCK), expanded);
    assert_memory_equal(expanded, expected, k_values * sizeof(bf16));
    for (size_t n = 0; n < dim; n += nr)
        gemm_pack_panel(
            g, &(matrix_rows){turned + n * KV_BLOCK, QWEN3_DTYPE_F32, KV_BLOCK, panel_rows(dim, n, nr), KV_BLOCK},
            expected + n * KV_BLOCK);
    k->bytes_to_bf16(v_values, kv_block_q8(bv, KV_BLOCK), expanded);
    assert_memory_equal(expanded, expected, v_values * sizeof(bf16));
    free(bk), free(bv), free(expanded), free(expected), free(key), free(value), free(turned);
}

/* The first slots of a block, copied into one of no more, are what storing them there makes. */
static void check_copy(const kernels *k, qwen3_dtype type, size_t dim)
{
    attention_shape s = {.kernels = k, .kv_type = type, .head_dim = dim, .kv_heads = 1, .heads_per_kv = 1};
    float *key = random_floats(KV_BLOCK * dim, 5.0f, QWEN3_DTYPE_F32);
    float *value = random_floats(KV_BLOCK * dim, 5.0f, QWEN3_DTYPE_F32);
    const size_t slots = 1 + random_below(KV_BLOCK);
    const size_t k_bytes = kv_block_k_bytes(&s, slots), v_bytes = kv_block_v_bytes(&s, slots);
    const kv_place whole = {allocate(kv_block_k_bytes(&s, KV_BLOCK)), allocate(kv_block_v_bytes(&s, KV_BLOCK)),
                            KV_BLOCK};
    const kv_place copy = {allocate(k_bytes), allocate(v_bytes), slots};
    const kv_place expected = {allocate(k_bytes), allocate(v_bytes), slots};
    memset(copy.k, 0xff, k_bytes);
    memset(copy.v, 0xff, v_bytes);
    kv_block_store(&s, whole, 0, slots, key, value);
    kv_block_end(&s, whole, slots);
    kv_block_copy(&s, copy, &(kv_block){.k = whole.k, .v = whole.v, .slots = KV_BLOCK});
    kv_block_store(&s, expected, 0, slots, key, value);
    assert_memory_equal(copy.k, expected.k, k_bytes);
    assert_memory_equal(copy.v, expected.v, v_bytes);
    free(whole.k), free(whole.v), free(copy.k), free(copy.v), free(expected.k), free(expected.v), free(key),
        free(value);
}

static void test_blocks(void **state)
{
    (void)state;
    static const size_t dims[] = {1, 7, 32, 33, 64, 128};
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type < ELEMENT_TYPES; type++)
            for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
                check_block(k, (qwen3_dtype)type, dims[d]);
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
            check_q8_block(k, dims[d]);
            check_copy(k, QWEN3_DTYPE_F32, dims[d]);
            check_copy(k, QWEN3_DTYPE_BF16, dims[d]);
            check_copy(k, QWEN3_DTYPE_Q8, dims[d]);
        }
    }
}

/* Vectors of 0, of the smallest and the largest numbers, and such as are not finite. */
static void test_q8_scales(void **state)
{
    (void)state;
    enum { Q8_DIM = 40 };
    attention_shape s = {.kernels = kernels_get(QWEN3_ISA_AUTO), .kv_type = QWEN3_DTYPE_Q8, .head_dim = Q8_DIM};
    static const float largest[] = {0, 1e-42f, 0x1p-101f, 0x1p-100f, 1e-20f, 1, 77.7f, 1e30f, 3.4e38f, INFINITY, NAN};
    char *k = allocate(kv_block_k_bytes(&s, KV_BLOCK)), *v = allocate(kv_block_v_bytes(&s, KV_BLOCK));
    const int8_t *bytes = kv_block_q8(v, KV_BLOCK);
    for (size_t c = 0; c < sizeof largest / sizeof *largest; c++) {
        float x[Q8_DIM];
        for (size_t i = 0; i < Q8_DIM; i++)
            x[i] = random_float(isfinite(largest[c]) ? largest[c] : 1.0f);
        x[random_below(Q8_DIM)] = random_below(2) ? largest[c] : -largest[c];
        const size_t slot = random_below(KV_BLOCK), nr = (size_t)attention_gemm(&s)->nr;
        kv_block_store(&s, (kv_place){k, v, KV_BLOCK}, slot, 1, x, x);
        const float scale = ((float *)v)[slot];
        assert_memory_equal((float *)k + slot, &scale, sizeof scale);
        assert_int_equal(isfinite(scale), isfinite(largest[c]));
        if (!isfinite(scale))
            continue;
        assert_true(largest[c] < 0x1p-100f ? scale == 0 : fabs((double)scale * 127 / largest[c] - 1) <= 2 * EPS);
        for (size_t i = 0; i < Q8_DIM; i++) {
            const int8_t q = bytes[(i / nr * KV_BLOCK + slot / 2 * 2) * nr + i % nr * 2 + slot % 2];
            assert_true(q >= -127);
            assert_true(fabs((double)scale * q - x[i]) <= (scale > 0 ? 0.50003 * scale : 0x1p-100));
        }
    }
    free(k), free(v);
}

/* A shard is still the same after it was moved, and says so in its views. */
static void test_shard(void **state)
{
    (void)state;
    attention_shape s = {.kernels = kernels_get(QWEN3_ISA_AUTO), .head_dim = 32, .kv_heads = 2, .heads_per_kv = 1};
    s.q_block_size = s.kv_block_size = KV_BLOCK;
    const size_t keys = 2 * KV_BLOCK + 22;
    problem p = problem_make(s, 3, keys, false, 1.0f);
    void *shard = make_shard(&p, 0, keys, false);
    assert_int_equal(kv_shard_blocks(shard), 3);
    const size_t bytes = kv_shard_bytes(kv_run_bytes(&s, keys));
    char *moved = allocate(bytes);
    memcpy(moved, shard, bytes);
    memset(shard, 0xff, bytes);
    kv_block blocks[2][4];
    kv_shard_view(&s, moved, 1, 2, blocks[0], 4);
    for (size_t h = 0; h < 2; h++) {
        assert_int_equal(blocks[h][0].count, KV_BLOCK);
        assert_int_equal(blocks[h][1].count, 22);
        int32_t smallest = INT32_MAX, largest = -1;
        for (int j = 0; j < KV_BLOCK; j++) {
            int32_t position = blocks[h][0].positions[j];
            assert_int_equal(position, p.k_positions[KV_BLOCK + j]);
            smallest = position < smallest ? position : smallest;
            largest = position > largest ? position : largest;
        }
        assert_int_equal(blocks[h][0].min_position, smallest);
        assert_int_equal(blocks[h][0].max_position, largest);
        assert_ptr_equal(blocks[h][0].k, kv_shard_place(&s, moved, 1, h).k);
        assert_ptr_equal(blocks[h][1].v, kv_shard_place(&s, moved, 2, h).v);
        assert_int_equal(blocks[h][0].slots, KV_BLOCK);
        assert_int_equal(blocks[h][1].slots, 22);
        assert_true((const char *)blocks[h][1].v + kv_block_v_bytes(&s, 22) <= moved + bytes);
    }
    free(shard), free(moved);
    problem_free(&p);
}

/* ---- Algorithms -------------------------------------------------------------------------------- */

static attention_shape random_shape(const kernels *k, qwen3_dtype type)
{
    static const size_t dims[] = {32, 64, 128, 20, 33, 8};
    return (attention_shape){.kernels = k,
                             .kv_type = type,
                             .head_dim = dims[random_below(6)],
                             .kv_heads = 1 + random_below(3),
                             .heads_per_kv = 1 + random_below(5),
                             .causal = random_below(3) > 0,
                             .q_block_size = 1 + (int)random_below(40),
                             .kv_block_size = KV_BLOCK * (1 + (int)random_below(3))};
}

static void check_case(const kernels *k, qwen3_dtype type, int number)
{
    attention_shape s = random_shape(k, type);
    size_t rows = random_below(5) ? 1 + random_below(50) : 1, keys = random_below(8) ? random_below(5 * KV_BLOCK) : 0;
    /* Scores of some units, of some tens, and of +-1e4 and more. */
    static const float ranges[] = {1.0f, 2.0f, 60.0f};
    const float range = ranges[random_below(3)];
    /* A bound on what rounding keys costs says something where scores are small. */
    const bool rounded = type == QWEN3_DTYPE_Q8 && random_below(2);
    problem p = problem_draw(s, rows, keys, random_below(3) == 0, rounded ? 0.5f : range, rounded);
    void *shard = make_shard(&p, 0, keys, random_below(2));
    int threads = 1 + (int)random_below(3);
    bool in_place = type == QWEN3_DTYPE_F32 && random_below(2);
    for (size_t a = 0; a < 2; a++) {
        attention_job job = make_job(&p, shard), again = make_job(&p, shard);
        if (in_place) {
            view_in_place(&p, &job);
            view_in_place(&p, &again);
        }
        run_jobs(&s, algorithms[a], &job, 1, threads);
        run_jobs(&s, algorithms[a], &again, 1, threads);
        double worst = worst_error(&p, &job);
        if (!(worst <= 1.0))
            fail_msg("%s %s %s case %d: error is %g times the bound (rows %zu keys %zu dim %zu kv_heads %zu group %zu "
                     "causal %d mask %d blocks %d %d threads %d in place %d rounded %d)",
                     k->name, qwen3_dtype_name(type), attention_algorithm_get(algorithms[a])->name, number, worst, rows,
                     keys, s.head_dim, s.kv_heads, s.heads_per_kv, s.causal, p.mask != NULL, s.q_block_size,
                     s.kv_block_size, threads, in_place, rounded);
        size_t queries = s.kv_heads * s.heads_per_kv * rows;
        assert_memory_equal(job.o, again.o, queries * s.head_dim * sizeof(float));
        assert_memory_equal(job.l, again.l, queries * sizeof(float));
        for (size_t i = 0; i < queries; i++) /* no key seen is the identity */
            assert_true((job.l[i] > 0) == (job.m[i] > -INFINITY));
        free_job(&job), free_job(&again);
    }
    free(shard);
    problem_free(&p);
}

static void test_random_cases(void **state)
{
    (void)state;
    const char *cases = getenv("QWEN3_TEST_CASES"); /* for each level and type */
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type <= QWEN3_DTYPE_Q8; type++)
            for (int number = 0; number < (cases ? atoi(cases) : 60); number++)
                check_case(k, (qwen3_dtype)type, number);
    }
}

/* Keys cut at random into two shards: attended one after the other into the same partials, or each into its own and
 * merged. Both are the whole. */
static void test_split_keys(void **state)
{
    (void)state;
    for (int round = 0; round < 40; round++) {
        attention_shape s = random_shape(kernels_get(QWEN3_ISA_AUTO), (qwen3_dtype)(round % 3));
        size_t keys = 1 + random_below(300), parts[] = {0, random_below(keys + 1), keys};
        problem p = problem_make(s, 1 + random_below(20), keys, random_below(2), 2.0f);
        void *nothing = make_shard(&p, 0, 0, false);
        attention_job running = make_job(&p, nothing), sum = make_job(&p, nothing);
        for (int part = 0; part < 2; part++) {
            void *shard = make_shard(&p, parts[part], parts[part + 1], true);
            attention_job own = make_job(&p, shard), step = running;
            step.n_blocks = own.n_blocks;
            step.blocks = own.blocks;
            run_jobs(&s, algorithms[random_below(2)], &own, 1, 1);
            run_jobs(&s, algorithms[random_below(2)], &step, 1, 1);
            partial_merge(s.kv_heads * s.heads_per_kv * p.rows, s.head_dim, (partial_run){sum.o, sum.m, sum.l},
                          (partial_run){own.o, own.m, own.l});
            free_job(&own);
            free(shard);
        }
        assert_true(worst_error(&p, &running) <= 1.0);
        assert_true(worst_error(&p, &sum) <= 1.0);
        free_job(&running), free_job(&sum);
        free(nothing);
        problem_free(&p);
    }
}

/* A batch of sequences of very different length, and more threads than tiles: the keys of the long cache are split
 * over the threads. */
static void test_many_jobs(void **state)
{
    (void)state;
    attention_shape s = {.kernels = kernels_get(QWEN3_ISA_AUTO), .kv_type = QWEN3_DTYPE_F32, .head_dim = 64};
    s.kv_heads = 1, s.heads_per_kv = 2, s.causal = true, s.q_block_size = 16, s.kv_block_size = 2 * KV_BLOCK;
    enum { JOBS = 5 };
    const size_t rows[JOBS] = {1, 5, 0, 1, 40}, keys[JOBS] = {1500, 70, 64, 0, 40};
    for (size_t a = 0; a < 2; a++)
        for (int threads = 1; threads <= 5; threads += 2) {
            problem p[JOBS];
            void *shards[JOBS];
            attention_job jobs[JOBS];
            for (size_t j = 0; j < JOBS; j++) {
                p[j] = problem_make(s, rows[j], keys[j], false, 1.5f);
                shards[j] = make_shard(&p[j], 0, keys[j], false);
                jobs[j] = make_job(&p[j], shards[j]);
            }
            run_jobs(&s, algorithms[a], jobs, JOBS, threads);
            for (size_t j = 0; j < JOBS; j++) {
                assert_true(worst_error(&p[j], &jobs[j]) <= 1.0);
                free_job(&jobs[j]);
                free(shards[j]);
                problem_free(&p[j]);
            }
        }
}

/* ---- What is not a number ---------------------------------------------------------------------- */

/* What is wrong in one query row or key of all heads. High and low: the products of the query with the keys overflow,
 * to +INFINITY or to -INFINITY. */
typedef enum poison { NAN_QUERY, HIGH_QUERY, LOW_QUERY, LOW_KEY, NAN_KEY, NAN_VALUE, POISONS } poison;

#define LARGE_KEY 7.9375f /* exact in every type */

static void fill(float *x, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        x[i] = value;
}

/* Row `row` of the queries and key `key` of all heads. */
static void poison_problem(problem *p, poison what, size_t row, size_t key)
{
    const size_t dim = p->shape.head_dim, kv_heads = p->shape.kv_heads, heads = kv_heads * p->shape.heads_per_kv;
    for (size_t h = 0; h < kv_heads; h++) {
        float *k = p->k + h * p->keys * dim;
        if (what == HIGH_QUERY || what == LOW_QUERY)
            fill(k, p->keys * dim, LARGE_KEY);
        if (what == LOW_KEY) {
            fill(k, p->keys * dim, 0.0f);
            fill(k + key * dim, dim, LARGE_KEY);
        }
        if (what == NAN_KEY)
            k[key * dim + dim / 2] = NAN;
        if (what == NAN_VALUE)
            p->v[(h * p->keys + key) * dim + dim / 2] = NAN;
    }
    for (size_t h = 0; h < heads && what <= LOW_KEY; h++) {
        float *q = p->q + (h * p->rows + row) * dim;
        if (what == NAN_QUERY)
            q[dim / 2] = NAN;
        else
            fill(q, dim, what == HIGH_QUERY ? 3e38f : -3e38f);
    }
    free(p->expected), free(p->bound);
    problem_solve(p);
}

/* Keys other than `key` that a row sees, and whether it sees that one. */
static size_t others_seen(const problem *p, size_t h, size_t r, size_t key, bool *sees_it)
{
    size_t seen = 0;
    *sees_it = false;
    for (size_t j = 0; j < p->keys; j++) {
        const int32_t at = p->k_positions[j];
        if ((p->shape.causal && at > p->q_positions[r]) ||
            (p->mask && p->mask[(h * p->rows + r) * p->keys + (size_t)at] == -INFINITY))
            continue;
        *sees_it |= j == key;
        seen += j != key;
    }
    return seen;
}

/* o[dim], the output of a row. */
static bool row_is_right(const problem *p, poison what, size_t row, size_t key, size_t h, size_t r, const float *o)
{
    const size_t dim = p->shape.head_dim;
    bool sees_it, right = true;
    const size_t others = others_seen(p, h, r, key, &sees_it);
    const bool bad_query = what <= LOW_QUERY && r == row && others + sees_it > 0;
    const bool only_low = what == LOW_KEY && r == row && sees_it && others == 0;
    if (bad_query || only_low || (what == NAN_KEY && sees_it)) {
        for (size_t i = 0; i < dim; i++)
            right &= isnan(o[i]) != 0;
        return right;
    }
    if (what == NAN_VALUE) /* reaches all rows of a tile, but in one dimension */
        return isnan(o[dim / 2]) || !sees_it;
    for (size_t i = 0; i < dim; i++) {
        const size_t e = (h * p->rows + r) * dim + i;
        right &= fabs(o[i] - p->expected[e]) <= p->bound[e] && (others + sees_it > 0 || o[i] == 0);
    }
    return right;
}

static void check_poison(const kernels *k, qwen3_dtype type, poison what)
{
    attention_shape s = random_shape(k, type);
    const size_t rows = 1 + random_below(30), keys = 1 + random_below(5 * KV_BLOCK), row = random_below(rows);
    const size_t key = random_below(keys);
    problem p = problem_make(s, rows, keys, random_below(2), 1.0f);
    poison_problem(&p, what, row, key);
    void *shard = make_shard(&p, 0, keys, random_below(2));
    for (size_t a = 0; a < 2; a++) {
        attention_job job = make_job(&p, shard);
        if (type == QWEN3_DTYPE_F32 && random_below(2))
            view_in_place(&p, &job);
        const int threads = 1 + (int)random_below(3);
        run_jobs(&s, algorithms[a], &job, 1, threads);
        for (size_t h = 0; h < s.kv_heads * s.heads_per_kv; h++)
            for (size_t r = 0; r < rows; r++) {
                const size_t at = (h / s.heads_per_kv * rows + r) * s.heads_per_kv + h % s.heads_per_kv;
                float *o = job.o + at * s.head_dim;
                partial_output(k, s.head_dim, (partial_run){job.o, job.m, job.l}, at, o, QWEN3_DTYPE_F32);
                if (!row_is_right(&p, what, row, key, h, r, o))
                    fail_msg("%s %s %s: poison %d in row %zu or key %zu: head %zu row %zu (rows %zu keys %zu causal %d "
                             "mask %d blocks %d %d threads %d in place %d) gives %g",
                             k->name, qwen3_dtype_name(type), attention_algorithm_get(algorithms[a])->name, what, row,
                             key, h, r, rows, keys, s.causal, p.mask != NULL, s.q_block_size, s.kv_block_size, threads,
                             job.blocks->row_stride > 0, (double)o[s.head_dim / 2]);
            }
        free_job(&job);
    }
    free(shard);
    problem_free(&p);
}

/* Only rows that see no key are zero: scores that are not finite do not hide a key. */
static void test_not_a_number(void **state)
{
    (void)state;
    FOR_EACH_LEVEL(k)
    {
        for (int type = 0; type <= QWEN3_DTYPE_Q8; type++)
            for (int what = 0; what < POISONS; what++)
                for (int round = 0; round < 6; round++)
                    check_poison(k, (qwen3_dtype)type, (poison)what);
    }
}

/* Partials of rows that are not numbers stay so, whatever they are merged with. */
static void test_merged_not_a_number(void **state)
{
    (void)state;
    const kernels *k = kernels_get(QWEN3_ISA_C);
    const struct {
        float m, l;
        bool number;
    } kinds[] = {{-INFINITY, 0, true},   {1, 2, true},           {-FLT_MAX, 0, false},
                 {-FLT_MAX, NAN, false}, {INFINITY, NAN, false}, {3, NAN, false}};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    for (int i = 0; i < KINDS * KINDS; i++) {
        const int first = i / KINDS, second = i % KINDS;
        float o[2] = {kinds[first].l / 2, kinds[second].l / 2}, m[2] = {kinds[first].m, kinds[second].m}, out;
        float l[2] = {kinds[first].l, kinds[second].l};
        const bool seen = first > 0 || second > 0;
        /* Scores that overflowed to -INFINITY weigh nothing beside others. */
        const bool number = (kinds[first].number || (first == 2 && second == 1)) &&
                            (kinds[second].number || (second == 2 && first == 1));
        partial_merge(1, 1, (partial_run){o, m, l}, (partial_run){o + 1, m + 1, l + 1});
        partial_output(k, 1, (partial_run){o, m, l}, 0, &out, QWEN3_DTYPE_F32);
        assert_int_equal(!isnan(out), number);
        if (number)
            assert_true(out == (seen ? 0.5f : 0.0f));
    }
}

/* What the algorithms differ in: STANDARD grows with the square of the length, ONLINE_SOFTMAX does not grow. */
static void test_score_memory(void **state)
{
    (void)state;
    attention_shape s = {.kernels = kernels_get(QWEN3_ISA_AUTO), .kv_type = QWEN3_DTYPE_F32, .head_dim = 64};
    s.kv_heads = 4, s.heads_per_kv = 2, s.causal = true, s.q_block_size = 32, s.kv_block_size = KV_BLOCK;
    size_t bytes[2][2];
    for (size_t a = 0; a < 2; a++)
        for (size_t longer = 0; longer < 2; longer++) {
            attention_job job = {.rows = 1024u << longer, .n_blocks = (1024u << longer) / KV_BLOCK};
            attention_workspace_bytes(&s, attention_algorithm_get(algorithms[a]), &job, 1, 2, &bytes[a][longer]);
        }
    assert_true(bytes[0][0] >= 2 * 2048 * 1024 * sizeof(float)); /* threads x (rows x group) x keys */
    assert_true(bytes[0][1] > 39 * bytes[0][0] / 10);
    assert_int_equal(bytes[1][0], bytes[1][1]);
    assert_true(bytes[1][0] <= 2 * (32 * 2 * (KV_BLOCK + ACTIVATION_PAD) * sizeof(float) + 2 * CACHE_LINE));
    assert_null(attention_algorithm_get(QWEN3_ATTENTION_AUTO));
}

int main(void)
{
    const char *seed = getenv("QWEN3_TEST_SEED");
    random_state = seed ? strtoull(seed, NULL, 0) : 20240607;
    printf("QWEN3_TEST_SEED=%llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partials),     cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_q8_scales),    cmocka_unit_test(test_shard),
        cmocka_unit_test(test_random_cases), cmocka_unit_test(test_split_keys),
        cmocka_unit_test(test_many_jobs),    cmocka_unit_test(test_score_memory),
        cmocka_unit_test(test_not_a_number), cmocka_unit_test(test_merged_not_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
