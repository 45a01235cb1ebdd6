/* buffers.c - the memory of one step: one arena, laid out anew for each step. */
#include <stdlib.h>

#include "base/memory.h"
#include "engine/attend.h"

typedef struct arena {
    unsigned char *base; /* NULL while measuring */
    size_t used;
} arena;

static void *carve(arena *a, size_t count, size_t size)
{
    size_t at = round_up(a->used, CACHE_LINE);
    a->used = at + count * size;
    return a->base ? a->base + at : NULL;
}

weight_part session_weight_part(const qwen3_session *s, int g)
{
    int64_t groups = s->model->plan.grid_sequence, heads = (int64_t)session_heads(s);
    int64_t whole = attention_grain(s->model->weights.gemm, (int64_t)s->shape.head_dim);
    return (weight_part){
        .qkv = partition((int64_t)session_qkv_size(s), whole, groups, g),
        .heads = partition(heads, 1, groups, g),
        .intermediate = partition(range_size(session_intermediate(s)), gemm_grain(s->model->weights.gemm), groups, g)};
}

/* KV blocks of a sequence of the step that a group holds once the step is committed. */
static size_t blocks_after(const qwen3_session *s, size_t q, int group)
{
    int64_t owned = s->cache.sequences[s->step.sequences[q]].owned[group] +
                    s->step.new_owned[q * (size_t)s->cache.groups + (size_t)group];
    return kv_pages_for(owned);
}

/* ---- Tables ------------------------------------------------------------------------------------ */

static void free_tables(step_tables *t)
{
    free(t->jobs);
    free(t->blocks);
    free(t->positions);
    free(t->out_first);
    free(t->out_order);
    free(t->bytes[0]);
    free(t->bytes[1]);
    free(t->counts);
    *t = (step_tables){0};
}

static qwen3_status make_tables(qwen3_session *s, qwen3_error *err)
{
    step_tables *t = &s->tables;
    size_t groups = (size_t)s->cache.groups, jobs = groups * s->step.n_sequences, rows = s->step.n_rows;
    if (jobs <= t->jobs_capacity && rows <= t->rows_capacity)
        return QWEN3_OK;
    free_tables(t);
    t->jobs = malloc(jobs * sizeof *t->jobs);
    t->blocks = malloc(jobs * sizeof *t->blocks);
    t->positions = malloc(rows * sizeof *t->positions);
    t->out_order = malloc(rows * sizeof *t->out_order);
    t->out_first = malloc((groups + 1) * sizeof *t->out_first);
    t->bytes[0] = malloc(groups * sizeof *t->bytes[0]);
    t->bytes[1] = malloc(groups * sizeof *t->bytes[1]);
    t->counts = malloc(groups * sizeof *t->counts);
    if (!t->jobs || !t->blocks || !t->positions || !t->out_order || !t->out_first || !t->bytes[0] || !t->bytes[1] ||
        !t->counts) {
        free_tables(t);
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the tables of a step of %zu tokens", rows);
    }
    t->jobs_capacity = jobs;
    t->rows_capacity = rows;
    return QWEN3_OK;
}

/* Wanted rows: where each group's begin, and their places in the batch's order. */
static void list_outputs(qwen3_session *s)
{
    const step *p = &s->step;
    size_t n = 0;
    for (int g = 0; g < s->cache.groups; g++) {
        s->tables.out_first[g] = n;
        for (size_t i = p->group_first[g]; i < p->group_first[g + 1]; i++)
            if (p->rows[i].out >= 0)
                s->tables.out_order[n++] = p->rows[i].out;
    }
    s->tables.out_first[s->cache.groups] = n;
}

static void list_blocks(qwen3_session *s)
{
    for (int g = 0; g < s->cache.groups; g++)
        for (size_t q = 0; q < s->step.n_sequences; q++)
            s->tables.blocks[(size_t)g * s->step.n_sequences + q] = blocks_after(s, q, g);
    for (size_t i = 0; i < s->step.n_rows; i++)
        s->tables.positions[i] = s->step.rows[i].position;
}

/* ---- Buffers ----------------------------------------------------------------------------------- */

static void lay_out_linear(const qwen3_session *s, arena *a, step_buffers *b, size_t n)
{
    const qwen3_config *c = &s->model->config;
    size_t hidden = (size_t)c->hidden_size, threads = (size_t)s->model->plan.threads;
    size_t head_dim = s->shape.head_dim;
    bool reduces = s->model->plan.grid_heads > 1 || s->step.mode == STEP_SPLIT_WEIGHTS;
    b->x = carve(a, n * hidden, sizeof(float));
    b->normed = carve(a, n * session_act_bytes(s, activation_stride(hidden)), 1);
    b->qkv = carve(a, attend_projects(s) ? 0 : n * (size_t)range_size(s->part.qkv), sizeof(float));
    b->qkv_gathered = carve(a, s->step.mode == STEP_SPLIT_WEIGHTS ? n * session_qkv_size(s) : 0, sizeof(float));
    b->cosines = carve(a, n * (head_dim / 2), sizeof(float));
    b->sines = carve(a, n * (head_dim / 2), sizeof(float));
    b->attended =
        carve(a, n * session_act_bytes(s, activation_stride((size_t)range_size(s->part.heads) * head_dim)), 1);
    b->gated = carve(a, n * session_act_bytes(s, activation_stride((size_t)range_size(s->part.intermediate))), 1);
    b->sums = carve(a, reduces ? n * hidden : 0, sizeof(float));
    b->tiles = carve(a, threads * 2 * TILED_ROWS * session_tile_width(s), sizeof(float));
    b->embed_scratch = carve(a, threads * hidden, sizeof(float));
}

/* The most blocks that a job meets at once: its own, or those of the fullest group as they pass. */
static size_t most_blocks(const qwen3_session *s, size_t q)
{
    size_t most = 0;
    for (int g = 0; g < s->cache.groups; g++) {
        size_t n = s->tables.blocks[(size_t)g * s->step.n_sequences + q];
        most = n > most ? n : most;
    }
    return most;
}

static void lay_out_pass_kv(const qwen3_session *s, arena *a, step_buffers *b)
{
    size_t most = 0;
    for (int g = 0; g < s->cache.groups; g++) {
        size_t n = 0;
        for (size_t q = 0; q < s->step.n_sequences; q++)
            n += s->tables.blocks[(size_t)g * s->step.n_sequences + q];
        most = n > most ? n : most;
    }
    b->shards[0] = carve(a, kv_shard_bytes(&s->shape, most), 1);
    b->shards[1] = carve(a, kv_shard_bytes(&s->shape, most), 1);
    b->shard_views = carve(a, s->shape.kv_heads * most, sizeof *b->shard_views);
}

static void lay_out_attention(const qwen3_session *s, arena *a, step_buffers *b, size_t n)
{
    const step *p = &s->step;
    size_t heads = session_heads(s), head_dim = s->shape.head_dim, q_bytes = attention_q_stride(&s->shape) * heads;
    size_t act = dtype_size(session_q_type(s));
    size_t groups = (size_t)s->cache.groups;
    bool all = session_attends_all(s);
    size_t attends = all ? p->n_rows : n;
    b->q = carve(a, n * q_bytes, act);
    b->q_gathered = carve(a, p->pass_query ? p->n_rows * q_bytes : 0, act);
    b->partials = carve(a, partial_floats(attends * heads, head_dim), sizeof(float));
    size_t mine = p->mode == STEP_SPLIT_WEIGHTS ? n * (size_t)range_size(s->part.heads) : n * heads;
    b->partials_by_head =
        carve(a, p->mode == STEP_SPLIT_WEIGHTS ? partial_floats(n * heads, head_dim) : 0, sizeof(float));
    b->received = carve(a, all ? groups * partial_floats(mine, head_dim) : 0, sizeof(float));
    size_t views = 0;
    for (size_t q = 0; q < p->n_sequences; q++)
        views += s->tables.blocks[(size_t)s->cache.group * p->n_sequences + q];
    b->own_views = carve(a, s->shape.kv_heads * views, sizeof *b->own_views);
    if (!all && groups > 1)
        lay_out_pass_kv(s, a, b);
    /* Workspace: only rows and blocks of the jobs are looked at. */
    size_t n_jobs = session_jobs(s);
    for (size_t j = 0; j < n_jobs; j++) {
        size_t job = p->pass_query || p->mode == STEP_SPLIT_WEIGHTS ? j : (size_t)s->cache.group * p->n_sequences + j;
        s->tables.jobs[j] = (attention_job){.rows = p->jobs[job].rows, .n_blocks = most_blocks(s, j % p->n_sequences)};
    }
    b->workspace.bytes = attention_workspace_bytes(&s->shape, s->algorithm, s->tables.jobs, n_jobs,
                                                   s->model->plan.threads, &b->workspace.score_bytes);
    b->workspace.data = carve(a, b->workspace.bytes, 1);
    b->workspace.threads = s->model->plan.threads;
}

static void lay_out_head(const qwen3_session *s, arena *a, step_buffers *b)
{
    size_t hidden = (size_t)s->model->config.hidden_size, n_out = s->step.n_out;
    b->out_hidden = carve(a, n_out * hidden, sizeof(float));
    b->out_own = carve(a, n_out * hidden, sizeof(float));
    b->out_act = carve(a, n_out * session_act_bytes(s, activation_stride(hidden)), 1);
    b->logits = carve(a, n_out * s->model->weights.matrices[MODEL_HEAD].n, sizeof(float));
}

static size_t lay_out(const qwen3_session *s, unsigned char *base, step_buffers *b)
{
    arena a = {.base = base};
    size_t first, n = step_rows_of(&s->step, s->cache.group, &first);
    *b = (step_buffers){0};
    lay_out_linear(s, &a, b, n);
    lay_out_attention(s, &a, b, n);
    lay_out_head(s, &a, b);
    return a.used;
}

qwen3_status session_prepare(qwen3_session *s, qwen3_error *err)
{
    s->part = s->step.mode == STEP_SPLIT_WEIGHTS ? session_weight_part(s, s->cache.group)
                                                 : (weight_part){{0, (int64_t)session_qkv_size(s)},
                                                                 {0, (int64_t)session_heads(s)},
                                                                 {0, range_size(session_intermediate(s))}};
    qwen3_status status = make_tables(s, err);
    if (status)
        return status;
    list_outputs(s);
    list_blocks(s);
    step_buffers b;
    size_t bytes = lay_out(s, NULL, &b);
    if (bytes > s->arena_bytes) {
        void *arena_new;
        memory_free(s->arena, s->arena_bytes);
        s->arena = NULL;
        s->arena_bytes = 0;
        status = memory_alloc(&arena_new, bytes, "activations of a step", err);
        if (status)
            return status;
        s->arena = arena_new;
        s->arena_bytes = bytes;
    }
    lay_out(s, s->arena, &s->b);
    return QWEN3_OK;
}

void session_free_buffers(qwen3_session *s)
{
    free_tables(&s->tables);
    memory_free(s->arena, s->arena_bytes);
    s->arena = NULL;
    s->arena_bytes = 0;
}
