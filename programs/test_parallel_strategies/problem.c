/* problem.c - seeded attention problems and their answer in float64.
 *
 * The bound on the error of f32 is derived, not fitted. A score, a sum of head_dim products of rounded factors, is off
 * by at most (head_dim + 4) eps sum |q k| scale; its probability by that much twice (the score and the sum that it is
 * divided by) in relative terms; and a sum of kv_len products p v by (kv_len + 16) eps sum p |v| more, 16 being for
 * exp, merges and the division.
 */
#include "test_parallel_strategies/problem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPS 0x1p-24

const char *const class_names[CLASSES] = {
    "64 x 8/4 heads x 64", "random",       "5 heads per KV head", "one KV head",     "few heads",
    "uneven shards",       "empty shards", "q_len != kv_len",     "rows see no key", "scores of 1e4",
};

void *checked_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) {
        fprintf(stderr, "test_parallel_strategies: out of memory\n");
        exit(EXIT_FAILURE);
    }
    return p;
}

/* ---- Random numbers (splitmix64; Steele, Lea, Flood 2014) -------------------------------------- */

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Uniform in [low, high]. */
static size_t between(uint64_t *state, size_t low, size_t high)
{
    return low + (size_t)(next(state) % (high - low + 1));
}

static float *random_array(uint64_t *state, size_t n, float range, bool integers)
{
    float *x = checked_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = ((float)(next(state) >> 40) * 0x1p-23f - 1.0f) * range;
        if (integers)
            x[i] = rintf(x[i]);
    }
    return x;
}

/* ---- Shapes ------------------------------------------------------------------------------------ */

/* Splits [0, n) into `parts` parts: equal, at random places, or with empty parts. */
static size_t *make_shards(uint64_t *state, size_t n, int parts, shape_class class)
{
    size_t *begin = checked_alloc(((size_t)parts + 1) * sizeof *begin);
    size_t only = between(state, 0, (size_t)parts - 1);
    for (int i = 1; i < parts; i++) {
        begin[i] = n * (size_t)i / (size_t)parts;
        if (class != CLASS_FIXED && class != CLASS_EMPTY)
            begin[i] = between(state, 0, n);
        if (class == CLASS_EMPTY) /* all on one rank, or on the ranks before it */
            begin[i] = (size_t)i <= only ? (only % 2 ? n * (size_t)i / (only + 1) : 0) : n;
    }
    begin[parts] = n;
    for (int i = 1; i < parts; i++) /* insertion sort */
        for (int j = i; j > 1 && begin[j] < begin[j - 1]; j--) {
            size_t swap = begin[j];
            begin[j] = begin[j - 1];
            begin[j - 1] = swap;
        }
    return begin;
}

static void choose_shape(problem *p, shape_class class, uint64_t *state, int number, int ranks)
{
    static const size_t dims[] = {16, 32, 40, 64, 128};
    *p = (problem){.batch = between(state, 1, 3), .kv_heads = between(state, 1, 4), .head_dim = dims[next(state) % 5]};
    size_t group = between(state, 1, 4);
    p->causal = number % 2 == 0;
    p->q_len = p->kv_len = between(state, 1, 90);
    p->scale = number % 3 == 2 ? 0.3f : 0.0f;
    if (class == CLASS_FIXED)
        *p = (problem){.batch = 1, .kv_heads = 4, .q_len = 64, .kv_len = 64, .head_dim = 64, .causal = number % 2 == 0},
        group = 2;
    if (class == CLASS_GROUP_OF_5)
        group = 5;
    if (class == CLASS_ONE_KV_HEAD)
        p->kv_heads = 1, group = between(state, 1, 8);
    if (class == CLASS_FEW_HEADS)
        p->kv_heads = between(state, 1, ranks > 2 ? (size_t)ranks / 2 : 1), group = between(state, 1, 2);
    if (class == CLASS_LENGTHS)
        /* A few queries, which are sent to the keys; some with a mask, which cannot be; many. */
        p->q_len = number % 3 == 0   ? between(state, 2, 9)
                   : number % 3 == 1 ? 1
                                     : between(state, 10, 40),
        p->kv_len = between(state, number % 3 == 2 ? 1 : 100, 200);
    if (class == CLASS_LARGE)
        p->scale = 0.125f, p->exact_scores = true;
    if (class == CLASS_MASKED && number % 3 == 1) /* more queries than keys: the first come before all keys */
        p->causal = true, p->q_len += between(state, 1, 20);
    p->heads = p->kv_heads * group;
}

/* Some classes always have a mask, the fixed shape in two of four cases, others sometimes. */
static void choose_mask(problem *p, shape_class class, uint64_t *state, int number)
{
    bool wanted = class == CLASS_FIXED ? number % 4 >= 2 : class == CLASS_MASKED || between(state, 0, 3) == 0;
    if (class == CLASS_LENGTHS)
        wanted = number % 3 == 1;
    if (!wanted)
        return;
    p->mask_batch = between(state, 0, 1) ? p->batch : 1;
    p->mask_heads = between(state, 0, 1) ? p->heads : 1;
    p->mask_rows = class == CLASS_MASKED || class == CLASS_LENGTHS || between(state, 0, 1) ? p->q_len : 1;
    size_t n = p->mask_batch * p->mask_heads * p->mask_rows * p->kv_len;
    p->mask = random_array(state, n, 3.0f, p->exact_scores);
    for (size_t i = 0; i < n; i++)
        if (next(state) % 5 == 0 || (class == CLASS_MASKED && i / p->kv_len % 3 == 1))
            p->mask[i] = -INFINITY;
}

/* ---- The answer -------------------------------------------------------------------------------- */

static double mask_value(const problem *p, size_t b, size_t h, size_t i, size_t j)
{
    if (!p->mask)
        return 0;
    b = p->mask_batch == 1 ? 0 : b;
    h = p->mask_heads == 1 ? 0 : h;
    i = p->mask_rows == 1 ? 0 : i;
    return p->mask[((b * p->mask_heads + h) * p->mask_rows + i) * p->kv_len + j];
}

static void solve_row(problem *p, size_t b, size_t h, size_t i, double *score)
{
    const size_t dim = p->head_dim, kv = b * p->kv_heads + h / (p->heads / p->kv_heads);
    const size_t row = (b * p->heads + h) * p->q_len + i;
    const double scale = p->scale != 0 ? p->scale : 1 / sqrt((double)dim);
    double max = -INFINITY, error = 0, sum = 0;
    for (size_t j = 0; j < p->kv_len; j++) {
        double x = 0, size = 0, mask = mask_value(p, b, h, i, j);
        for (size_t d = 0; d < dim; d++) {
            double term = (double)p->q[row * dim + d] * p->k[(kv * p->kv_len + j) * dim + d] * scale;
            x += term;
            size += fabs(term);
        }
        bool visible = !p->causal || (int64_t)j <= (int64_t)i + (int64_t)p->kv_len - (int64_t)p->q_len;
        score[j] = visible ? x + mask : -INFINITY;
        if (score[j] > -INFINITY && !p->exact_scores)
            error = fmax(error, ((double)dim + 4) * EPS * size + EPS * (fabs(x) + fabs(mask)));
        max = fmax(max, score[j]);
    }
    for (size_t j = 0; j < p->kv_len; j++)
        sum += score[j] = score[j] > -INFINITY ? exp(score[j] - max) : 0;
    for (size_t d = 0; d < dim; d++) {
        double o = 0, size = 0;
        for (size_t j = 0; j < p->kv_len && sum > 0; j++) {
            double term = score[j] / sum * p->v[(kv * p->kv_len + j) * dim + d];
            o += term;
            size += fabs(term);
        }
        p->expected[row * dim + d] = o;
        p->bound[row * dim + d] = (expm1(2 * error) + ((double)p->kv_len + 16) * EPS) * size;
    }
}

/* Each rank computes some heads of the answer; then all get the whole. */
static void solve(qwen3_comm *world, problem *p)
{
    const size_t per_head = p->q_len * p->head_dim, n = p->batch * p->heads * per_head;
    double *score = checked_alloc(p->kv_len * sizeof *score);
    p->expected = checked_alloc(n * sizeof *p->expected);
    p->bound = checked_alloc(n * sizeof *p->bound);
    for (size_t item = 0; item < p->batch * p->heads; item++) {
        bool mine = item % (size_t)qwen3_comm_size(world) == (size_t)qwen3_comm_rank(world);
        for (size_t i = 0; i < p->q_len && mine; i++)
            solve_row(p, item / p->heads, item % p->heads, i, score);
        for (size_t i = 0; i < per_head && !mine; i++)
            p->expected[item * per_head + i] = p->bound[item * per_head + i] = -INFINITY;
    }
    free(score);
    qwen3_comm_max(world, p->expected, n);
    qwen3_comm_max(world, p->bound, n);
}

problem problem_make(qwen3_comm *world, shape_class class, uint64_t seed, int number)
{
    problem p;
    const int ranks = qwen3_comm_size(world);
    uint64_t state = seed + (uint64_t) class * 1000003 + (uint64_t)number * 7919;
    next(&state);
    choose_shape(&p, class, &state, number, ranks);
    float range = p.exact_scores ? 60.0f : 1.5f;
    p.q = random_array(&state, p.batch * p.heads * p.q_len * p.head_dim, range, p.exact_scores);
    p.k = random_array(&state, p.batch * p.kv_heads * p.kv_len * p.head_dim, range, p.exact_scores);
    p.v = random_array(&state, p.batch * p.kv_heads * p.kv_len * p.head_dim, 2.0f, false);
    choose_mask(&p, class, &state, number);
    p.head_begin = make_shards(&state, p.kv_heads, ranks, class);
    p.q_begin = make_shards(&state, p.q_len, ranks, class);
    p.kv_begin = make_shards(&state, p.kv_len, ranks, class);
    solve(world, &p);
    return p;
}

void problem_free(problem *p)
{
    free(p->q), free(p->k), free(p->v), free(p->mask);
    free(p->head_begin), free(p->q_begin), free(p->kv_begin);
    free(p->expected), free(p->bound);
}
