/* operators.c - the four attention operators, replicated and sharded, against the float64 reference. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test_parallel_strategies/checks.h"
#include "test_parallel_strategies/problem.h"

typedef qwen3_status operator_function(const qwen3_attention_args *args, qwen3_comm *comm, qwen3_error *err);

static const struct pair {
    const char *name;
    operator_function *run;
    bool sequence;
} pairs[] = {
    {"headwise + standard", qwen3_attention_headwise_standard, false},
    {"headwise + online_softmax", qwen3_attention_headwise_online_softmax, false},
    {"sequence + standard", qwen3_attention_sequence_standard, true},
    {"sequence + online_softmax", qwen3_attention_sequence_online_softmax, true},
};

/* One line of the table; after `combine` the same on all ranks. */
typedef struct measure {
    double difference, reference; /* sums of squares */
    double largest;               /* |difference| */
    double worst;                 /* |difference| / bound */
    double failed;                /* calls that returned an error */
    traffic sent;
} measure;

/* This rank's part of the arrays: heads and rows of q and out, KV heads and rows of k and v. */
typedef struct box {
    size_t head0, heads, row0, rows;
} box;

static void copy_box(const float *whole, const problem *p, size_t heads, size_t rows, box at, float *part)
{
    for (size_t b = 0; b < p->batch; b++)
        for (size_t h = 0; h < at.heads; h++, part += at.rows * p->head_dim)
            memcpy(part, whole + ((b * heads + at.head0 + h) * rows + at.row0) * p->head_dim,
                   at.rows * p->head_dim * sizeof *part);
}

static void choose_boxes(const problem *p, bool sequence, bool sharded, int rank, box *q, box *kv)
{
    const size_t group = p->heads / p->kv_heads;
    *q = (box){0, p->heads, 0, p->q_len};
    *kv = (box){0, p->kv_heads, 0, p->kv_len};
    if (sharded && sequence) {
        q->row0 = p->q_begin[rank], q->rows = p->q_begin[rank + 1] - p->q_begin[rank];
        kv->row0 = p->kv_begin[rank], kv->rows = p->kv_begin[rank + 1] - p->kv_begin[rank];
    } else if (sharded) {
        kv->head0 = p->head_begin[rank], kv->heads = p->head_begin[rank + 1] - p->head_begin[rank];
        q->head0 = kv->head0 * group, q->heads = kv->heads * group;
    }
}

static void compare(const problem *p, box at, const float *out, measure *m)
{
    for (size_t b = 0; b < p->batch; b++)
        for (size_t h = 0; h < at.heads; h++)
            for (size_t i = 0; i < at.rows * p->head_dim; i++) {
                size_t e = ((b * p->heads + at.head0 + h) * p->q_len + at.row0) * p->head_dim + i;
                double difference = fabs(*out++ - p->expected[e]);
                double over = difference <= p->bound[e] + 1e-37 ? difference / (p->bound[e] + 1e-37) : INFINITY;
                m->difference += difference * difference;
                m->reference += p->expected[e] * p->expected[e];
                /* NaN counts as the largest of all. */
                m->largest = isnan(difference) || difference > m->largest ? difference : m->largest;
                m->worst = over > m->worst ? over : m->worst;
            }
}

/* One call; `number` varies options that must not change the result. */
static void run_case(qwen3_comm *world, const problem *p, const struct pair *pair, bool sharded, int number, measure *m)
{
    box q, kv;
    choose_boxes(p, pair->sequence, sharded, qwen3_comm_rank(world), &q, &kv);
    const size_t q_size = p->batch * q.heads * q.rows * p->head_dim, guard = 16;
    const size_t kv_size = p->batch * kv.heads * kv.rows * p->head_dim;
    float *data = checked_alloc((2 * q_size + guard + 2 * kv_size) * sizeof *data);
    qwen3_attention_args a = qwen3_attention_args_default();
    a.batch = p->batch, a.heads = q.heads, a.kv_heads = kv.heads, a.head_dim = p->head_dim;
    a.q_len = q.rows, a.kv_len = kv.rows, a.causal = p->causal, a.scale = p->scale;
    a.layout = sharded ? QWEN3_INPUT_SHARDED : QWEN3_INPUT_REPLICATED;
    a.global_seq_len = number % 2 ? p->kv_len : 0;
    a.threads = 1 + number % 2;
    a.q_block_size = number % 3 == 1 ? 7 : 0;
    a.kv_block_size = number % 3 ? 64 : 0;
    copy_box(p->q, p, p->heads, p->q_len, q, data);
    copy_box(p->k, p, p->kv_heads, p->kv_len, kv, data + q_size);
    copy_box(p->v, p, p->kv_heads, p->kv_len, kv, data + q_size + kv_size);
    float *out = data + q_size + 2 * kv_size;
    a.q = data, a.k = data + q_size, a.v = a.k + kv_size, a.out = out;
    if (p->mask && q.rows > 0) {
        a.mask_stride_query = p->mask_rows == 1 ? 0 : p->kv_len;
        a.mask_stride_head = p->mask_heads == 1 ? 0 : p->mask_rows * p->kv_len;
        a.mask_stride_batch = p->mask_batch == 1 ? 0 : p->mask_heads * p->mask_rows * p->kv_len;
        a.mask = p->mask + q.head0 * a.mask_stride_head + q.row0 * a.mask_stride_query;
    }
    for (size_t i = 0; i < q_size + guard; i++)
        out[i] = i < q_size ? NAN : 12345.0f; /* every element must be written, and none after them */
    qwen3_comm_stats before;
    qwen3_comm_get_stats(world, &before);
    qwen3_error err;
    if (pair->run(&a, world, &err) != QWEN3_OK) {
        m->failed++;
        fprintf(stderr, "test_parallel_strategies: %s: rank %d: %s\n", pair->name, err.rank, err.message);
    }
    const traffic sent = traffic_since(world, &before);
    traffic_add(&m->sent, &sent);
    compare(p, q, out, m);
    for (size_t i = q_size; i < q_size + guard; i++)
        m->worst = out[i] == 12345.0f ? m->worst : INFINITY;
    free(data);
}

static void add(measure *sum, const measure *m)
{
    sum->difference += m->difference;
    sum->reference += m->reference;
    sum->failed += m->failed;
    traffic_add(&sum->sent, &m->sent);
    sum->largest = isnan(m->largest) || m->largest > sum->largest ? m->largest : sum->largest;
    sum->worst = m->worst > sum->worst ? m->worst : sum->worst;
}

/* One case on all ranks. */
static measure combine(qwen3_comm *world, const measure *own)
{
    const int ranks = qwen3_comm_size(world);
    measure total = {0}, *all = checked_alloc((size_t)ranks * sizeof *all);
    qwen3_comm_gather(world, own, sizeof *own, all);
    for (int r = 0; r < ranks; r++)
        add(&total, &all[r]);
    free(all);
    total.sent = traffic_of_all(world, &own->sent);
    qwen3_comm_broadcast(world, &total, sizeof total);
    return total;
}

static bool passes(const measure *m)
{
    return m->worst <= 1.0 && m->failed == 0;
}

static check_record line_of(const char *pair, const char *layout, shape_class class, int cases, const measure *m)
{
    check_record r = {.cases = cases,
                      .relative_l2 = m->reference > 0 ? sqrt(m->difference / m->reference) : sqrt(m->difference),
                      .largest = m->largest,
                      .over_bound = m->worst,
                      .sent = m->sent};
    snprintf(r.pair, sizeof r.pair, "%s", pair);
    snprintf(r.layout, sizeof r.layout, "%s", layout);
    snprintf(r.class, sizeof r.class, "%s", class_names[class]);
    return r;
}

/* All pairs and layouts over the cases of one class. */
static void check_class(qwen3_comm *world, const check_options *options, shape_class class, check_report *report)
{
    enum { PAIRS = sizeof pairs / sizeof *pairs };
    static const char *const layouts[] = {"replicated", "sharded"};
    measure sums[PAIRS][2] = {0};
    const int cases = class == CLASS_FIXED ? 4 : options->cases;
    for (int number = 0; number < cases; number++) {
        problem p = problem_make(world, class, options->seed, number);
        for (int i = 0; i < PAIRS; i++)
            for (int sharded = 0; sharded < 2; sharded++) {
                measure own = {0};
                run_case(world, &p, &pairs[i], sharded, number, &own);
                measure all = combine(world, &own);
                const check_record line = line_of(pairs[i].name, layouts[sharded], class, 1, &all);
                if (report->speak && options->verbose) {
                    printf("  case %d: batch %zu heads %zu/%zu q_len %zu kv_len %zu head_dim %zu causal %d mask %d\n  ",
                           number, p.batch, p.heads, p.kv_heads, p.q_len, p.kv_len, p.head_dim, p.causal,
                           p.mask != NULL);
                    report_print(&line, passes(&all));
                }
                add(&sums[i][sharded], &all);
            }
        problem_free(&p);
    }
    for (int i = 0; i < 2 * PAIRS && cases > 0; i++) {
        const measure *m = &sums[i / 2][i % 2];
        report_add(report, line_of(pairs[i / 2].name, layouts[i % 2], class, cases, m), passes(m));
    }
}

void check_operators(qwen3_comm *world, const check_options *options, check_report *report)
{
    if (report_tables(report))
        printf("Attention operators against float64. rel L2, max abs: difference; /bound: largest difference over "
               "what f32 allows;\nbytes: sent by all ranks\n%-26s %-10s %-20s %5s %9s %9s %6s %10s\n",
               "pair", "layout", "class", "cases", "rel L2", "max abs", "/bound", "bytes");
    for (int class = 0; class < CLASSES; class ++)
        check_class(world, options, (shape_class) class, report);
}
