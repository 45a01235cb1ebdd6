/* split_heads.c - every rank has all queries and attends them to the keys that it holds; the partials of each head go
 * to the rank that needs it and are merged there in rank order or, pagewise, in that of the pages. Decoding is this
 * with one row a sequence.
 *
 * A rank has one partial of each sequence or, pagewise, one of each of its pages: so many jobs there are.
 */
#include "attention/movement.h"

/* Buffers: runs [rows of the sequence, heads of the rank that needs them], rank after rank, job after job; the same
 * from each rank, of own heads; where these begin, in floats [n_jobs][ranks]; the result; pages as [kv_heads]. */
enum { BY_HEAD, RECEIVED, FIRST, RESULT, PAGES };

static bool applies(const attention_problem *p)
{
    return p->replicated;
}

static size_t heads_of(const attention_problem *p, int r)
{
    return p->head_first[r + 1] - p->head_first[r];
}

/* Partials that rank r has of sequence j. */
static size_t partials_of(const attention_problem *p, int r, size_t j)
{
    return p->shape->pagewise ? problem_job_blocks(p, r, j) : 1;
}

/* Floats of all partials of `heads` heads that rank r has. */
static size_t run_floats(const attention_problem *p, int r, size_t heads)
{
    size_t n = 0;
    for (size_t j = 0; j < p->n_jobs; j++)
        n += partials_of(p, r, j) * partial_floats(p->rows[j] * heads, p->shape->head_dim);
    return n;
}

/* Each rank sends the partials of all heads but its own. */
static movement_cost cost(const attention_problem *p)
{
    const int ranks = comm_size(p->comm);
    double bytes = 0;
    for (int from = 0; from < ranks; from++)
        for (int to = 0; to < ranks; to++)
            bytes += from == to ? 0 : (double)run_floats(p, from, heads_of(p, to)) * sizeof(float);
    return (movement_cost){bytes, ranks > 1, false};
}

static void layout(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm), attend = x->phases.attend;
    const int plan = x->phases.plan, collect = x->phases.collect;
    const size_t d = p->shape->head_dim, heads = heads_of(p, rank), blocks = problem_blocks(p, rank);
    const size_t all = run_floats(p, rank, problem_heads(p)) * sizeof(float);
    size_t received = 0;
    for (int r = 0; r < ranks; r++)
        received += run_floats(p, r, heads) * sizeof(float);
    x->n_jobs = 0;
    for (size_t j = 0; j < p->n_jobs; j++)
        for (size_t i = 0; i < partials_of(p, rank, j); i++)
            x->jobs[x->n_jobs++] = (attention_job){.rows = p->rows[j],
                                                   .n_blocks = p->shape->pagewise ? 1 : problem_job_blocks(p, rank, j)};
    memory_plan_add(m, &x->partials, all, x->phases.queries, attend);
    exchange_buffer(x, m, BY_HEAD, all, attend, attend);
    exchange_buffer(x, m, RECEIVED, received, attend, attend);
    exchange_buffer(x, m, FIRST, p->n_jobs * (size_t)ranks * sizeof(size_t), plan, attend);
    exchange_buffer(x, m, RESULT, partial_floats(problem_rows(p, 0) * heads, d) * sizeof(float), attend, collect);
    exchange_buffer(x, m, PAGES, p->shape->pagewise ? blocks * p->shape->kv_heads * sizeof(kv_block) : 0, plan, attend);
}

/* ---- The work on own keys ---------------------------------------------------------------------- */

/* Pages of a sequence [kv_heads][n] as [n][kv_heads]. */
static void sort_by_page(const attention_problem *p, const kv_block *views, size_t n, kv_block *pages)
{
    for (size_t i = 0; i < n; i++)
        for (size_t h = 0; h < p->shape->kv_heads; h++)
            *pages++ = views[h * n + i];
}

static void bind_jobs(exchange *x)
{
    const attention_problem *p = x->problem;
    const size_t heads = problem_heads(p), kv_heads = p->shape->kv_heads, d = p->shape->head_dim;
    const int rank = comm_rank(p->comm);
    const int32_t *positions = p->positions;
    const kv_block *views = x->views;
    const char *q = x->q;
    kv_block *pages = x->buffers[PAGES];
    float *run = x->partials;
    attention_job *job = x->jobs;
    for (size_t j = 0; j < p->n_jobs; j++) {
        const size_t pairs = p->rows[j] * heads, blocks = problem_job_blocks(p, rank, j);
        attention_job whole = {.rows = p->rows[j],
                               .q_positions = positions,
                               .q = q,
                               .n_blocks = blocks,
                               .blocks = views,
                               .mask = x->masks ? x->masks[j] : NULL,
                               .mask_stride_head = x->mask_stride_head,
                               .mask_stride_row = x->mask_stride_row};
        if (p->shape->pagewise) {
            sort_by_page(p, views, blocks, pages);
            whole.n_blocks = 1;
            whole.blocks = pages;
            pages += kv_heads * blocks;
        }
        for (size_t i = partials_of(p, rank, j); i > 0; i--, job++, run += partial_floats(pairs, d)) {
            const partial_run own = partial_at(run, pairs, d);
            *job = whole;
            job->o = own.o;
            job->m = own.m;
            job->l = own.l;
            whole.blocks += kv_heads;
        }
        views += kv_heads * blocks;
        positions += p->rows[j];
        q += p->rows[j] * problem_query_bytes(p);
    }
}

static void plan(const team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm);
    const size_t heads = heads_of(p, comm_rank(p->comm));
    size_t *first = x->buffers[FIRST], at = 0;
    for (int r = 0; r < ranks; r++)
        for (size_t j = 0; j < p->n_jobs; j++) {
            first[j * (size_t)ranks + (size_t)r] = at;
            at += partials_of(p, r, j) * partial_floats(p->rows[j] * heads, p->shape->head_dim);
        }
    bind_jobs(x);
    exchange_plan_jobs(t, x);
}

/* ---- Partials to their ranks ------------------------------------------------------------------- */

/* Partials of [kv_heads, rows, heads_per_kv] of each job to runs of [row, head] for the ranks that need them. */
static void sort_by_head(const team *t, exchange *x)
{
    const attention_problem *p = x->problem;
    const size_t d = p->shape->head_dim, per_kv = p->shape->heads_per_kv;
    float *run = x->buffers[BY_HEAD];
    for (int r = 0; r < comm_size(p->comm); r++) {
        const size_t heads = heads_of(p, r);
        for (const attention_job *job = x->jobs; job < x->jobs + x->n_jobs; job++) {
            const size_t pairs = job->rows * heads;
            const partial_run to = partial_at(run, pairs, d);
            size_t begin, end;
            team_part(t, pairs, 1, &begin, &end);
            for (size_t u = begin; u < end; u++) {
                const size_t row = u / heads, head = p->head_first[r] + u % heads;
                const size_t at = (head / per_kv * job->rows + row) * per_kv + head % per_kv;
                memcpy(to.o + u * d, job->o + at * d, d * sizeof(float));
                to.m[u] = job->m[at];
                to.l[u] = job->l[at];
            }
            run += partial_floats(pairs, d);
        }
    }
}

static void send(exchange *x)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm), rank = comm_rank(p->comm);
    for (int r = 0; r < ranks; r++) {
        x->send_bytes[r] = run_floats(p, rank, heads_of(p, r)) * sizeof(float);
        x->receive_bytes[r] = run_floats(p, r, heads_of(p, rank)) * sizeof(float);
    }
    comm_alltoall(p->comm, x->buffers[BY_HEAD], x->send_bytes, x->buffers[RECEIVED], x->receive_bytes,
                  QWEN3_COMM_PARTIAL);
    x->result = partial_at(x->buffers[RESULT], problem_rows(p, 0) * heads_of(p, rank), p->shape->head_dim);
}

/* Merges what came of each sequence, in its order. */
static void merge(const team *t, const exchange *x)
{
    const attention_problem *p = x->problem;
    const int ranks = comm_size(p->comm);
    const size_t d = p->shape->head_dim, heads = heads_of(p, comm_rank(p->comm));
    const size_t *first = x->buffers[FIRST];
    partial_run result = x->result;
    for (size_t j = 0; j < p->n_jobs; j++, first += ranks) {
        const size_t pairs = p->rows[j] * heads;
        size_t begin, end, partials = 0;
        team_part(t, pairs, 1, &begin, &end);
        const partial_run into = partial_from(result, begin, d);
        partial_clear(end - begin, d, into);
        for (int r = 0; r < ranks; r++)
            partials += partials_of(p, r, j);
        for (size_t i = 0; i < partials; i++) {
            const page_place place = p->shape->pagewise ? page_place_of(i, ranks) : (page_place){(int)i, 0};
            float *run = (float *)x->buffers[RECEIVED] + first[place.owner] + place.index * partial_floats(pairs, d);
            partial_merge(end - begin, d, into, partial_from(partial_at(run, pairs, d), begin, d));
        }
        result = partial_from(result, pairs, d);
    }
}

static void run(team *t, exchange *x)
{
    attention_run(t, &x->workspace);
    sort_by_head(t, x);
    team_barrier(t);
    if (t->tid == 0)
        send(x);
    team_barrier(t);
    merge(t, x);
    team_barrier(t);
}

const movement movement_split_heads = {
    .name = "split_heads",
    .applies = applies,
    .cost = cost,
    .layout = layout,
    .plan = plan,
    .run = run,
};
