/* forward.c - the decoder, as all threads of a rank run it in one parallel region.
 *
 *   x = embedding rows
 *   for each layer:
 *     h = rms_norm(x);  q, k, v = h Wqkv^T;  norm and rotate heads of q and k;  store k, v in the cache
 *     a = attention(q, keys and values of all ranks)          by the strategy's movement
 *     x += a Wo^T                                              (reduced over ranks that split Wo's input)
 *     h = rms_norm(x);  x += (silu(h Wgate^T) * (h Wup^T)) Wdown^T      (likewise)
 *   logits = rms_norm(x) Whead^T for the wanted rows, each rank its part of the vocabulary
 *
 * Every function here is called by all threads with the same arguments, splits its work by thread, and says
 * whether it ends in a barrier. Thread 0 alone communicates. The same functions serve both modes of a step:
 * only the ranges of the weights, the group that reduces, and the movement of attention differ.
 */
#include "engine/session.h"
#include "model/rope.h"

/* Up to this many rows a product is bound by reading its weights: each thread reads one contiguous piece. */
#define FEW_ROWS 16
/* Rows that share one pass over a panel; their activations stay in the last-level cache. */
#define ROWS_PER_ITEM 512

static size_t my_rows(const qwen3_session *s, size_t *first)
{
    return step_rows_of(&s->step, s->cache.group, first);
}

static size_t act_size(const qwen3_session *s)
{
    return dtype_size(s->model->weights.gemm->activation);
}

static qwen3_dtype act_type(const qwen3_session *s)
{
    return s->model->weights.gemm->activation;
}

/* ---- Products ---------------------------------------------------------------------------------- */

/* Work items of a product with `panels` panels and m rows: rows are cut so that every thread finds several. */
static size_t rows_per_item(const team *t, size_t m, size_t panels, size_t mr, size_t most)
{
    size_t chunks = panels ? ((size_t)t->size * 4 + panels - 1) / panels : 1;
    size_t rows = (m + chunks - 1) / chunks;
    rows = (rows + mr - 1) / mr * mr;
    return rows < most ? rows : most / mr * mr;
}

/* y[m, n] (+)= x[m, k] W[n, k]^T for ranges n, k of W. No barrier at the end. */
static void linear(team *t, const gemm_kernel *g, const matrix *w, range n, range k, size_t m, const void *x,
                   size_t x_stride, float *y, size_t y_stride, bool accumulate)
{
    size_t nr = (size_t)g->nr, n0 = (size_t)n.begin, n1 = (size_t)n.end, k0 = (size_t)k.begin, k1 = (size_t)k.end;
    size_t panels = (n1 - n0 + nr - 1) / nr;
    if (m == 0 || panels == 0)
        return;
    if (m <= FEW_ROWS) {
        size_t begin, end;
        team_part(t, n1 - n0, nr, &begin, &end);
        if (begin < end)
            gemm(g, m, x, x_stride, w->data, w->n, w->k, n0 + begin, n0 + end, k0, k1, y + begin, y_stride, accumulate);
        return;
    }
    size_t rows = rows_per_item(t, m, panels, (size_t)g->mr, ROWS_PER_ITEM), chunks = (m + rows - 1) / rows;
    team_loop_begin(t);
    for (size_t i; (i = team_loop_next(t)) < chunks * panels;) {
        size_t row = i / panels * rows, column = i % panels * nr;
        size_t m_item = m - row < rows ? m - row : rows;
        size_t end = n0 + column + nr < n1 ? n0 + column + nr : n1;
        gemm(g, m_item, (const char *)x + row * x_stride * dtype_size(g->activation), x_stride, w->data, w->n, w->k,
             n0 + column, end, k0, k1, y + row * y_stride + column, y_stride, accumulate);
    }
}

/* gated = silu(x Wgate^T) * (x Wup^T) for outputs n, panel by panel so that neither product is ever stored
 * whole. No barrier at the end. */
static void gated_linear(team *t, const qwen3_session *s, const layer_weights *w, range n, size_t m)
{
    const gemm_kernel *g = s->model->weights.gemm;
    size_t nr = (size_t)g->nr, panels = ((size_t)range_size(n) + nr - 1) / nr;
    size_t x_stride = activation_stride(w->gate.k), y_stride = activation_stride((size_t)range_size(n));
    if (m == 0 || panels == 0)
        return;
    bool few = m <= FEW_ROWS;
    size_t rows = few ? m : rows_per_item(t, m, panels, (size_t)g->mr, GATED_ROWS), chunks = (m + rows - 1) / rows;
    size_t item = 0, end = chunks * panels;
    if (few)
        team_part(t, panels, 1, &item, &end);
    else
        team_loop_begin(t);
    float *gate = s->b.tiles + (size_t)t->tid * 2 * GATED_ROWS * nr, *up = gate + GATED_ROWS * nr;
    for (size_t i; (i = few ? item++ : team_loop_next(t)) < end;) {
        size_t row = i / panels * rows, column = i % panels * nr, n0 = (size_t)n.begin + column;
        size_t n1 = n0 + nr < (size_t)n.end ? n0 + nr : (size_t)n.end;
        size_t m_item = m - row < rows ? m - row : rows;
        const char *x = (const char *)s->b.normed + row * x_stride * act_size(s);
        gemm(g, m_item, x, x_stride, w->gate.data, w->gate.n, w->gate.k, n0, n1, 0, w->gate.k, gate, nr, false);
        gemm(g, m_item, x, x_stride, w->up.data, w->up.n, w->up.k, n0, n1, 0, w->up.k, up, nr, false);
        char *y = (char *)s->b.gated + (row * y_stride + column) * act_size(s);
        for (size_t r = 0; r < m_item; r++)
            s->model->kernels->silu_mul(n1 - n0, gate + r * nr, up + r * nr, y + r * y_stride * act_size(s),
                                        act_type(s));
    }
}

/* ---- Rows -------------------------------------------------------------------------------------- */

/* Kernels may read the elements between the last column and the row's end: they are zero. */
static void zero_padding(const team *t, void *x, size_t rows, size_t k, size_t act)
{
    size_t stride = activation_stride(k), begin, end;
    if (stride == k || !x)
        return;
    team_part(t, rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        memset((char *)x + (i * stride + k) * act, 0, (stride - k) * act);
}

/* Embedding rows, rotation angles, padding. Ends in a barrier. */
static void start_rows(team *t, qwen3_session *s)
{
    const qwen3_model *m = s->model;
    const qwen3_config *c = &m->config;
    const step_buffers *b = &s->b;
    size_t first, n = my_rows(s, &first), hidden = (size_t)c->hidden_size, half = s->shape.head_dim / 2;
    size_t begin, end, stride;
    team_part(t, n, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const step_row *row = &s->step.rows[first + i];
        const void *data;
        qwen3_dtype type;
        source_block(m->source, TENSOR_EMBED, 0, row->token, 1, 0, c->hidden_size,
                     (float *)b->embed_scratch + (size_t)t->tid * hidden, &data, &type, &stride);
        if (type == QWEN3_DTYPE_F32)
            memcpy(b->x + i * hidden, data, hidden * sizeof(float));
        else
            m->kernels->to_f32(hidden, data, b->x + i * hidden);
        rope_angles(c, m->inverse_frequencies, m->rope_scale, row->position, b->cosines + i * half,
                    b->sines + i * half);
    }
    zero_padding(t, b->normed, n, hidden, act_size(s));
    zero_padding(t, b->attended, n, (size_t)range_size(s->part.heads) * s->shape.head_dim, act_size(s));
    zero_padding(t, b->gated, n, (size_t)range_size(s->part.intermediate), act_size(s));
    zero_padding(t, b->out_act, s->step.n_out, hidden, act_size(s));
    size_t q_type = dtype_size(s->shape.kernels->gemm[s->shape.kv_type].activation);
    zero_padding(t, b->q, n * session_heads(s), s->shape.head_dim, q_type);
    team_barrier(t);
}

/* Adds what the last product left (reduced over `group`, if any), then h = rms_norm(x). Ends in a barrier.
 * sums: whether b.sums holds partial outputs that are not in x yet. */
static void finish_and_normalise(team *t, qwen3_session *s, bool sums, const float *norm)
{
    const qwen3_model *m = s->model;
    size_t first, n = my_rows(s, &first), hidden = (size_t)m->config.hidden_size, stride = activation_stride(hidden);
    if (sums) {
        comm *group = s->step.mode == STEP_SPLIT_WEIGHTS ? m->world : m->head_group;
        if (t->tid == 0)
            comm_allreduce(group, s->b.sums, n * hidden, QWEN3_COMM_REDUCE);
        team_barrier(t);
    }
    size_t begin, end;
    team_part(t, n, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        float *x = s->b.x + i * hidden;
        if (sums)
            m->kernels->add(hidden, x, s->b.sums + i * hidden);
        if (norm)
            m->kernels->rms_norm(hidden, x, norm, (float)m->config.rms_norm_eps,
                                 (char *)s->b.normed + i * stride * act_size(s), act_type(s));
    }
    team_barrier(t);
}

/* ---- Attention --------------------------------------------------------------------------------- */

/* Head `unit` of row i among q, k, v heads: in this rank's part, or in what was gathered from all groups. */
static float *qkv_head(const qwen3_session *s, size_t i, size_t unit)
{
    size_t column = unit * s->shape.head_dim, first;
    if (s->step.mode == STEP_SPLIT_ROWS)
        return s->b.qkv + i * session_qkv_size(s) + column;
    size_t n = my_rows(s, &first);
    for (int g = 0;; g++) {
        range part = session_weight_part(s, g).qkv;
        if ((int64_t)column < part.end)
            return s->b.qkv_gathered + n * (size_t)part.begin + i * (size_t)range_size(part) + column -
                   (size_t)part.begin;
    }
}

/* Norm and rotation of one head of q or k, in place. */
static void rotate_head(const qwen3_session *s, const layer_weights *w, size_t i, size_t unit, float *head)
{
    const kernels *k = s->model->kernels;
    size_t heads = session_heads(s), d = s->shape.head_dim;
    if (unit >= heads + s->shape.kv_heads)
        return;
    k->rms_norm(d, head, unit < heads ? w->q_norm : w->k_norm, (float)s->model->config.rms_norm_eps, head,
                QWEN3_DTYPE_F32);
    k->rope(d, head, s->b.cosines + i * (d / 2), s->b.sines + i * (d / 2));
}

/* A rotated q head goes to the queries, a k head and its v into the cache. */
static void place_head(const qwen3_session *s, int64_t layer, size_t i, size_t unit)
{
    const attention_shape *shape = &s->shape;
    size_t first, heads = session_heads(s);
    my_rows(s, &first);
    const step_row *row = &s->step.rows[first + i];
    if (unit < heads) {
        int group = s->step.mode == STEP_SPLIT_ROWS ? s->cache.group : 0;
        const step_job *job = &s->step.jobs[(size_t)group * s->step.n_sequences + (size_t)row->index];
        size_t r = first + i - job->first, kv_head = unit / shape->group, member = unit % shape->group;
        size_t place = (job->first - first) * heads + (kv_head * job->rows + r) * shape->group + member;
        qwen3_dtype type = shape->kernels->gemm[shape->kv_type].activation;
        float scale = 1.0f / sqrtf((float)shape->head_dim);
        s->model->kernels->scale(shape->head_dim, scale, qkv_head(s, i, unit),
                                 (char *)s->b.q + place * attention_q_stride(shape) * dtype_size(type), type);
        return;
    }
    const kv_slot *slot = &s->step.slots[first + i];
    if (!slot->page)
        return;
    void *page = kv_cache_layer(&s->cache, slot->page, layer);
    size_t kv_head = unit - heads;
    kv_block_store(shape, kv_page_k(shape, page, kv_head), kv_page_v(shape, page, kv_head), slot->slot,
                   qkv_head(s, i, unit), qkv_head(s, i, unit + shape->kv_heads));
}

/* q, k, v of this rank's rows -> queries, cache. No barrier at the end. */
static void place_heads(team *t, qwen3_session *s, const layer_weights *w, int64_t layer)
{
    size_t first, n = my_rows(s, &first), d = s->shape.head_dim, begin, end;
    size_t units = session_heads(s) + s->shape.kv_heads;
    bool split_weights = s->step.mode == STEP_SPLIT_WEIGHTS;
    if (split_weights) {
        size_t first_unit = (size_t)s->part.qkv.begin / d, mine = (size_t)range_size(s->part.qkv) / d;
        team_part(t, n * mine, 1, &begin, &end);
        for (size_t u = begin; u < end; u++)
            rotate_head(s, w, u / mine, first_unit + u % mine, s->b.qkv + u * d);
        team_barrier(t);
        if (t->tid == 0) {
            for (int g = 0; g < s->cache.groups; g++)
                s->tables.bytes[0][g] = n * (size_t)range_size(session_weight_part(s, g).qkv) * sizeof(float);
            comm_allgather(s->model->sequence_group, s->b.qkv, s->b.qkv_gathered, s->tables.bytes[0], QWEN3_COMM_QUERY);
        }
        team_barrier(t);
    }
    team_part(t, n * units, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        if (!split_weights)
            rotate_head(s, w, u / units, u % units, qkv_head(s, u / units, u % units));
        place_head(s, layer, u / units, u % units);
    }
}

/* The jobs of this layer: their queries, partials and the keys that are here. On one thread. */
static size_t make_jobs(qwen3_session *s, int64_t layer)
{
    const step *p = &s->step;
    size_t heads = session_heads(s), d = s->shape.head_dim, stride = attention_q_stride(&s->shape);
    size_t q_size = dtype_size(s->shape.kernels->gemm[s->shape.kv_type].activation);
    bool own_only = p->mode == STEP_SPLIT_ROWS && !p->pass_query;
    int first_group = own_only ? s->cache.group : 0, end_group = p->pass_query ? s->cache.groups : first_group + 1;
    const char *q = p->pass_query ? s->b.q_gathered : s->b.q;
    float *run = s->b.partials;
    size_t n_jobs = 0, base = p->group_first[first_group];
    for (int g = first_group; g < end_group; g++) {
        size_t group_first = p->group_first[g], rows = p->group_first[g + 1] - group_first;
        partial_run parts = partial_at(run, rows * heads, d);
        kv_block *views = s->b.own_views;
        for (size_t j = 0; j < p->n_sequences; j++) {
            const step_job *job = &p->jobs[(size_t)g * p->n_sequences + j];
            size_t blocks = kv_cache_pages(&s->cache, job->sequence, s->cache.group), at = job->first - group_first;
            if (g == first_group)
                kv_cache_view(&s->cache, job->sequence, layer, views);
            s->tables.jobs[n_jobs++] = (attention_job){.rows = job->rows,
                                                       .q_positions = s->tables.positions + job->first,
                                                       .q = q + (job->first - base) * heads * stride * q_size,
                                                       .o = parts.o + at * heads * d,
                                                       .m = parts.m + at * heads,
                                                       .l = parts.l + at * heads,
                                                       .n_blocks = blocks,
                                                       .blocks = views};
            views += s->shape.kv_heads * blocks;
        }
        run += partial_floats(rows * heads, d);
    }
    return n_jobs;
}

static void clear_partials(team *t, const qwen3_session *s, size_t n_jobs)
{
    size_t d = s->shape.head_dim;
    for (size_t j = 0; j < n_jobs; j++) {
        const attention_job *job = &s->tables.jobs[j];
        size_t begin, end;
        team_part(t, job->rows * session_heads(s), 1, &begin, &end);
        partial_clear(end - begin, d, job->o + begin * d, job->m + begin, job->l + begin);
    }
}

/* Keys travel: the pages of the batch's sequences are copied into a shard that goes round. */
static void attend_pass_kv(team *t, qwen3_session *s, int64_t layer)
{
    pass_kv p = {.group = s->model->sequence_group,
                 .shape = &s->shape,
                 .algorithm = s->algorithm,
                 .workspace = &s->b.workspace,
                 .blocks = s->tables.blocks,
                 .n_jobs = s->step.n_sequences,
                 .buffers = {s->b.shards[0], s->b.shards[1]},
                 .views = s->b.shard_views};
    size_t total = 0, at = 0, begin, end;
    for (size_t j = 0; j < p.n_jobs; j++)
        total += kv_cache_pages(&s->cache, s->step.sequences[j], s->cache.group);
    if (t->tid == 0)
        kv_shard_init(p.buffers[0], total);
    team_barrier(t);
    for (size_t j = 0; j < p.n_jobs; j++) {
        const kv_sequence *sequence = &s->cache.sequences[s->step.sequences[j]];
        size_t pages = kv_cache_pages(&s->cache, s->step.sequences[j], s->cache.group);
        team_part(t, pages, 1, &begin, &end);
        for (size_t i = begin; i < end; i++) {
            *kv_shard_slots(p.buffers[0], at + i) = sequence->pages[i]->slots;
            memcpy(kv_shard_page(&s->shape, p.buffers[0], at + i), kv_cache_layer(&s->cache, sequence->pages[i], layer),
                   kv_page_bytes(&s->shape));
        }
        at += pages;
    }
    team_barrier(t);
    pass_kv_run(t, &p, s->tables.jobs);
}

/* Queries of rows travel; partials of rows come back. */
static void attend_pass_query(team *t, qwen3_session *s, size_t n_jobs)
{
    const step *p = &s->step;
    size_t heads = session_heads(s), q_bytes = heads * attention_q_stride(&s->shape) *
                                               dtype_size(s->shape.kernels->gemm[s->shape.kv_type].activation);
    if (t->tid == 0) {
        for (int g = 0; g < s->cache.groups; g++) {
            size_t rows = p->group_first[g + 1] - p->group_first[g];
            s->tables.bytes[0][g] = rows * q_bytes;
            s->tables.counts[g] = rows * heads;
        }
        comm_allgather(s->model->sequence_group, s->b.q, s->b.q_gathered, s->tables.bytes[0], QWEN3_COMM_QUERY);
    }
    team_barrier(t);
    attention_run(t, &s->shape, s->algorithm, s->tables.jobs, n_jobs, &s->b.workspace);
    pass_q_return(t, s->model->sequence_group, s->model->kernels, s->shape.head_dim, s->b.partials, s->tables.counts,
                  s->b.received, s->tables.bytes[0], s->tables.bytes[1]);
}

/* All ranks have all queries; the partials of each rank's heads go to it, rows by heads. */
static void attend_split_heads(team *t, qwen3_session *s, size_t n_jobs)
{
    size_t d = s->shape.head_dim, n = s->step.n_rows, begin, end;
    attention_run(t, &s->shape, s->algorithm, s->tables.jobs, n_jobs, &s->b.workspace);
    float *run = s->b.partials_by_head;
    for (int g = 0; g < s->cache.groups; g++) {
        range part = session_weight_part(s, g).heads;
        size_t size = (size_t)range_size(part), pairs = n * size;
        partial_run to = partial_at(run, pairs, d);
        team_part(t, pairs, 1, &begin, &end);
        for (size_t u = begin; u < end; u++) {
            size_t row = u / size, head = (size_t)part.begin + u % size;
            const attention_job *job = &s->tables.jobs[s->step.rows[row].index];
            size_t r = row - s->step.jobs[s->step.rows[row].index].first;
            size_t at = (head / s->shape.group * job->rows + r) * s->shape.group + head % s->shape.group;
            memcpy(to.o + u * d, job->o + at * d, d * sizeof(float));
            to.m[u] = job->m[at];
            to.l[u] = job->l[at];
        }
        if (t->tid == 0)
            s->tables.counts[g] = pairs;
        run += partial_floats(pairs, d);
    }
    team_barrier(t);
    pass_q_return(t, s->model->sequence_group, s->model->kernels, d, s->b.partials_by_head, s->tables.counts,
                  s->b.received, s->tables.bytes[0], s->tables.bytes[1]);
}

/* attended[row, head] = o / l. From partials by job [kv_heads, rows, group] or by [row, head]. No barrier at the end.
 */
static void collect_attended(team *t, const qwen3_session *s)
{
    size_t first, n = my_rows(s, &first), d = s->shape.head_dim, heads = (size_t)range_size(s->part.heads), begin, end;
    size_t stride = activation_stride(heads * d), group = s->shape.group;
    bool by_row = s->step.mode == STEP_SPLIT_WEIGHTS;
    partial_run run = partial_at(session_attends_all(s) ? s->b.received : s->b.partials, n * heads, d);
    team_part(t, n * heads, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        size_t i = u / heads, head = u % heads, at = u;
        if (!by_row) {
            const step_job *job =
                &s->step.jobs[(size_t)s->cache.group * s->step.n_sequences + (size_t)s->step.rows[first + i].index];
            size_t r = first + i - job->first;
            at = (job->first - first) * heads + (head / group * job->rows + r) * group + head % group;
        }
        float inverse = run.l[at] > 0 ? 1.0f / run.l[at] : 0.0f;
        s->model->kernels->scale(d, inverse, run.o + at * d,
                                 (char *)s->b.attended + (i * stride + head * d) * act_size(s), act_type(s));
    }
}

static void attention(team *t, qwen3_session *s, const layer_weights *w, int64_t layer)
{
    size_t first, n = my_rows(s, &first);
    const gemm_kernel *g = s->model->weights.gemm;
    linear(t, g, &w->qkv, s->part.qkv, (range){0, (int64_t)w->qkv.k}, n, s->b.normed, activation_stride(w->qkv.k),
           s->b.qkv, (size_t)range_size(s->part.qkv), false);
    size_t n_jobs = s->step.pass_query ? (size_t)s->cache.groups * s->step.n_sequences : s->step.n_sequences;
    if (t->tid == 0)
        make_jobs(s, layer);
    team_barrier(t);
    place_heads(t, s, w, layer);
    clear_partials(t, s, n_jobs);
    team_barrier(t);
    if (s->step.mode == STEP_SPLIT_WEIGHTS)
        attend_split_heads(t, s, n_jobs);
    else if (s->step.pass_query)
        attend_pass_query(t, s, n_jobs);
    else if (s->cache.groups > 1)
        attend_pass_kv(t, s, layer);
    else
        attention_run(t, &s->shape, s->algorithm, s->tables.jobs, n_jobs, &s->b.workspace);
    collect_attended(t, s);
    team_barrier(t);
}

/* ---- The decoder ------------------------------------------------------------------------------- */

/* x += a W[:, k]^T, or sums = a W[:, k]^T where the input of W is split over ranks. Ends in a barrier. */
static void project_back(team *t, qwen3_session *s, const matrix *w, range k, const void *a, bool split)
{
    size_t first, n = my_rows(s, &first), hidden = (size_t)s->model->config.hidden_size;
    linear(t, s->model->weights.gemm, w, (range){0, (int64_t)w->n}, k, n, a, activation_stride((size_t)range_size(k)),
           split ? s->b.sums : s->b.x, hidden, !split);
    team_barrier(t);
}

/* Wanted rows after the final norm, from all groups, in the order of the batch. Ends in a barrier. */
static void gather_outputs(team *t, qwen3_session *s)
{
    const qwen3_model *m = s->model;
    size_t first, n = my_rows(s, &first), hidden = (size_t)m->config.hidden_size, out = 0;
    bool split = s->step.mode == STEP_SPLIT_ROWS && s->cache.groups > 1;
    float *own = split ? s->b.out_own : s->b.out_hidden;
    for (size_t i = 0; i < n; i++) {
        if (s->step.rows[first + i].out < 0)
            continue;
        if (out % (size_t)t->size == (size_t)t->tid)
            m->kernels->rms_norm(hidden, s->b.x + i * hidden, m->weights.final_norm, (float)m->config.rms_norm_eps,
                                 own + out * hidden, QWEN3_DTYPE_F32);
        out++;
    }
    team_barrier(t);
    if (split) {
        if (t->tid == 0) {
            for (int g = 0; g < s->cache.groups; g++)
                s->tables.bytes[0][g] = (s->tables.out_first[g + 1] - s->tables.out_first[g]) * hidden * sizeof(float);
            comm_allgather(m->sequence_group, own, s->b.out_hidden, s->tables.bytes[0], QWEN3_COMM_LOGITS);
        }
        team_barrier(t);
    }
    size_t begin, end, stride = activation_stride(hidden);
    team_part(t, s->step.n_out, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        m->kernels->scale(hidden, 1.0f, s->b.out_hidden + i * hidden,
                          (char *)s->b.out_act + (size_t)s->tables.out_order[i] * stride * act_size(s), act_type(s));
    team_barrier(t);
}

static void decoder(team *t, void *arg)
{
    qwen3_session *s = arg;
    const qwen3_model *m = s->model;
    size_t first, n = my_rows(s, &first);
    /* The input of o and down is split over head groups, and over all ranks where weights are split. */
    bool split = s->step.mode == STEP_SPLIT_WEIGHTS || m->plan.grid_heads > 1;
    start_rows(t, s);
    for (int64_t i = 0; i < m->config.num_layers; i++) {
        const layer_weights *w = &m->weights.layers[i];
        int64_t d = m->config.head_dim;
        finish_and_normalise(t, s, split && i > 0, w->input_norm);
        attention(t, s, w, i);
        project_back(t, s, &w->o, (range){s->part.heads.begin * d, s->part.heads.end * d}, s->b.attended, split);
        finish_and_normalise(t, s, split, w->post_norm);
        gated_linear(t, s, w, s->part.intermediate, n);
        team_barrier(t);
        project_back(t, s, &w->down, s->part.intermediate, s->b.gated, split);
    }
    if (split)
        finish_and_normalise(t, s, true, NULL);
    gather_outputs(t, s);
    const matrix *head = &m->weights.head;
    linear(t, m->weights.gemm, head, (range){0, (int64_t)head->n}, (range){0, (int64_t)head->k}, s->step.n_out,
           s->b.out_act, activation_stride(head->k), s->b.logits, head->n, false);
}

void session_run(qwen3_session *s)
{
    team_run(s->model->plan.threads, decoder, s);
}
