/* exchange.c - what movements have in common: jobs and their memory, shards of own keys, the way back of partials. */
#include "attention/movement.h"

/* Movements that bring the queries of all ranks together have n_jobs of each, others perhaps one for each own page. */
static qwen3_status make_tables(exchange *x, qwen3_error *err)
{
    const attention_problem *p = x->problem;
    const size_t ranks = (size_t)comm_size(p->comm), sizes = ranks * sizeof(size_t);
    memory_plan *m = &x->table_plan;
    const size_t pages = p->shape->pagewise ? problem_blocks(p, comm_rank(p->comm)) : 0;
    memory_plan_add(m, &x->jobs, (ranks * p->n_jobs + pages) * sizeof *x->jobs, 0, 0);
    memory_plan_add(m, &x->send_bytes, sizes, 0, 0);
    memory_plan_add(m, &x->receive_bytes, sizes, 0, 0);
    memory_plan_add(m, &x->pairs, sizes, 0, 0);
    return memory_region_fit(&x->tables, m, "attention jobs", err);
}

qwen3_status exchange_begin(exchange *x, const attention_problem *p, const movement *with, exchange_phases phases,
                            memory_plan *m, qwen3_error *err)
{
    x->problem = p;
    x->phases = phases;
    x->turn = 0;
    x->movement = with ? with : movement_choose(p);
    qwen3_status status = make_tables(x, err);
    if (status)
        return status;
    const int own = p->replicated ? 0 : comm_rank(p->comm);
    memory_plan_add(m, &x->q, problem_rows(p, own) * problem_query_bytes(p), phases.queries, phases.attend);
    memory_plan_add(m, &x->views, p->shape->kv_heads * problem_blocks(p, comm_rank(p->comm)) * sizeof *x->views,
                    phases.plan, phases.attend);
    x->movement->layout(x, m);
    x->workspace.threads = p->threads;
    x->workspace.bytes =
        attention_workspace_bytes(p->shape, p->algorithm, x->jobs, x->n_jobs, p->threads, &x->workspace.score_bytes);
    memory_plan_add(m, &x->workspace.data, x->workspace.bytes, phases.plan, phases.attend);
    return QWEN3_OK;
}

void exchange_close(exchange *x)
{
    memory_plan_free(&x->table_plan);
    memory_region_free(&x->tables);
}

void exchange_clear(const team *t, const exchange *x)
{
    for (size_t j = 0; j < x->n_jobs; j++) {
        const attention_job *job = &x->jobs[j];
        const size_t d = x->problem->shape->head_dim;
        size_t begin, end;
        team_part(t, job->rows * problem_heads(x->problem), 1, &begin, &end);
        partial_clear(end - begin, d, (partial_run){job->o + begin * d, job->m + begin, job->l + begin});
    }
}

/* ---- Sizes ------------------------------------------------------------------------------------- */

static size_t sum(const size_t *values, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += values[i];
    return total;
}

size_t problem_rows(const attention_problem *p, int r)
{
    return sum(p->rows + (size_t)r * p->n_jobs, p->n_jobs);
}

size_t problem_blocks(const attention_problem *p, int r)
{
    size_t n = 0;
    for (size_t j = 0; j < p->n_jobs; j++)
        n += problem_job_blocks(p, r, j);
    return n;
}

size_t problem_query_bytes(const attention_problem *p)
{
    return problem_heads(p) * attention_q_stride(p->shape) * dtype_size(attention_gemm(p->shape)->activation);
}

size_t exchange_shard_bytes(const attention_problem *p)
{
    size_t most = 0;
    for (int r = 0; r < comm_size(p->comm); r++) {
        const size_t bytes = exchange_bytes_of_shard(p, r);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* ---- Jobs -------------------------------------------------------------------------------------- */

void exchange_size_jobs(exchange *x, int first, int end)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    x->n_jobs = (size_t)(end - first) * p->n_jobs;
    for (size_t j = 0; j < x->n_jobs; j++)
        x->jobs[j] = (attention_job){.rows = p->rows[(size_t)first * p->n_jobs + j],
                                     .n_blocks = problem_job_blocks(p, rank, j % p->n_jobs)};
}

void exchange_bind_jobs(exchange *x, int first, int end, const void *q)
{
    const attention_problem *p = x->problem;
    const size_t heads = problem_heads(p), d = p->shape->head_dim, q_bytes = problem_query_bytes(p);
    const int rank = comm_rank(p->comm);
    const int32_t *positions = p->positions;
    attention_job *job = x->jobs;
    float *run = x->partials;
    for (int r = 0; r < first; r++)
        positions += problem_rows(p, r);
    for (int r = first; r < end; r++) {
        const size_t pairs = problem_rows(p, r) * heads;
        const kv_block *views = x->views;
        partial_run parts = partial_at(run, pairs, d);
        for (size_t j = 0; j < p->n_jobs; j++, job++) {
            const size_t rows = p->rows[(size_t)r * p->n_jobs + j], blocks = problem_job_blocks(p, rank, j);
            *job = (attention_job){.rows = rows,
                                   .q_positions = positions,
                                   .q = q,
                                   .o = parts.o,
                                   .m = parts.m,
                                   .l = parts.l,
                                   .n_blocks = blocks,
                                   .blocks = views,
                                   .mask = x->masks ? x->masks[j] : NULL,
                                   .mask_stride_head = x->mask_stride_head,
                                   .mask_stride_row = x->mask_stride_row};
            positions += rows;
            q = (const char *)q + rows * q_bytes;
            parts = (partial_run){parts.o + rows * heads * d, parts.m + rows * heads, parts.l + rows * heads};
            views += p->shape->kv_heads * blocks;
        }
        run += partial_floats(pairs, d);
    }
}

void exchange_plan_jobs(const team *t, exchange *x)
{
    attention_plan(t, x->problem->shape, x->problem->algorithm, x->jobs, x->n_jobs, &x->workspace);
}

void exchange_add_own_rows(exchange *x, memory_plan *m)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    exchange_size_jobs(x, rank, rank + 1);
    memory_plan_add(m, &x->partials,
                    partial_floats(problem_rows(p, rank) * problem_heads(p), p->shape->head_dim) * sizeof(float),
                    x->phases.queries, x->phases.collect);
}

void exchange_bind_own_rows(exchange *x)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    exchange_bind_jobs(x, rank, rank + 1, x->q);
    x->result = partial_at(x->partials, problem_rows(p, rank) * problem_heads(p), p->shape->head_dim);
}

void exchange_plan_own_rows(const team *t, exchange *x)
{
    exchange_bind_own_rows(x);
    exchange_plan_jobs(t, x);
}

/* ---- Keys -------------------------------------------------------------------------------------- */

/* Of job j of rank r. */
static size_t keys_sent(const attention_problem *p, int r, size_t j)
{
    const size_t at = (size_t)r * p->n_jobs + j;
    return p->keys[at] - (p->brought.by ? p->brought.blocks[at] * KV_BLOCK : 0);
}

size_t exchange_bytes_of_shard(const attention_problem *p, int r)
{
    size_t runs = 0;
    for (size_t j = 0; j < p->n_jobs; j++)
        runs += kv_run_bytes(p->shape, keys_sent(p, r, j));
    return kv_shard_bytes(runs);
}

double exchange_shard_traffic(const attention_problem *p)
{
    const int ranks = comm_size(p->comm);
    double bytes = 0;
    for (int r = 0; r < ranks; r++)
        bytes += (double)exchange_bytes_of_shard(p, r) * (ranks - 1);
    return bytes;
}

/* The header and an empty run for each job. */
static void init_shard(const exchange *x, void *buffer)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    size_t n = 0;
    for (size_t j = 0; j < p->n_jobs; j++)
        n += problem_blocks_sent(p, rank, j);
    kv_shard_init(buffer, n);
    for (size_t j = 0; j < p->n_jobs; j++)
        kv_shard_add_run(p->shape, buffer, keys_sent(p, rank, j));
}

static void copy_block(const attention_shape *shape, const kv_block *from, size_t stride, void *buffer, size_t block)
{
    kv_slots_set(kv_shard_slots(buffer, block), from);
    for (size_t h = 0; h < shape->kv_heads; h++)
        kv_block_copy(shape, kv_shard_place(shape, buffer, block, h), &from[h * stride]);
}

static void fill_shard(const team *t, const exchange *x, void *buffer)
{
    const attention_problem *p = x->problem;
    const int rank = comm_rank(p->comm);
    const kv_block *views = x->views;
    size_t first = 0, begin, end;
    if (p->shape->kv_heads == 0) /* nobody will look at the slots */
        return;
    for (size_t j = 0; j < p->n_jobs; j++) {
        const size_t blocks = problem_job_blocks(p, rank, j), sent = problem_blocks_sent(p, rank, j);
        team_part(t, sent, 1, &begin, &end);
        for (size_t b = begin; b < end; b++)
            copy_block(p->shape, views + blocks - sent + b, blocks, buffer, first + b);
        first += sent;
        views += p->shape->kv_heads * blocks;
    }
}

void exchange_make_shard(team *t, const exchange *x, void *buffer)
{
    if (x->problem->brings_shard)
        return;
    if (t->tid == 0)
        init_shard(x, buffer);
    team_barrier(t);
    fill_shard(t, x, buffer);
    team_barrier(t);
}

void exchange_view_shard(const exchange *x, const void *shard, int owner, kv_block *views)
{
    const attention_problem *p = x->problem;
    size_t first = 0;
    for (size_t j = 0; j < p->n_jobs; j++) {
        const size_t blocks = problem_job_blocks(p, owner, j);
        kv_shard_view(p->shape, shard, first, blocks, views, blocks);
        x->jobs[j].blocks = views;
        x->jobs[j].n_blocks = blocks;
        first += blocks;
        views += p->shape->kv_heads * blocks;
    }
}

/* ---- Partials ---------------------------------------------------------------------------------- */

void exchange_return(team *t, exchange *x, const float *send, float *received)
{
    comm *c = x->problem->comm;
    const int ranks = comm_size(c);
    const size_t d = x->problem->shape->head_dim, n = x->pairs[comm_rank(c)], run = partial_floats(n, d);
    if (t->tid == 0) {
        for (int r = 0; r < ranks; r++) {
            x->send_bytes[r] = partial_floats(x->pairs[r], d) * sizeof(float);
            x->receive_bytes[r] = run * sizeof(float);
        }
        comm_alltoall(c, send, x->send_bytes, received, x->receive_bytes, QWEN3_COMM_PARTIAL);
        x->result = partial_at(received, n, d);
    }
    team_barrier(t);
    size_t begin, end;
    team_part(t, n, 1, &begin, &end);
    const partial_run into = partial_from(partial_at(received, n, d), begin, d);
    for (int r = 1; r < ranks; r++)
        partial_merge(end - begin, d, into, partial_from(partial_at(received + (size_t)r * run, n, d), begin, d));
    team_barrier(t);
}
