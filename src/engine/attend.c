/* attend.c - queries, keys and values of one layer: into their places, together, and back to rows.
 *
 * The movement is the strategy's: nothing moves (one sequence group), keys travel (pass_kv), queries travel
 * (pass_q), or all ranks have all queries and partials of heads travel (weights split).
 */
#include "engine/attend.h"
#include "attention/pass_kv.h"
#include "attention/pass_q.h"
#include "engine/linear.h"

/* Where a query head of row r of a job stands in q and in partials, which are [kv_heads, rows, group]. */
static size_t head_in_job(const attention_shape *shape, size_t rows, size_t r, size_t head)
{
    return (head / shape->group * rows + r) * shape->group + head % shape->group;
}

/* Head `unit` of row i among q, k, v heads: in this rank's part, or in what was gathered from all groups. */
static float *qkv_head(const qwen3_session *s, size_t i, size_t unit)
{
    size_t column = unit * s->shape.head_dim, first;
    if (s->step.mode == STEP_SPLIT_ROWS)
        return s->b.qkv + i * session_qkv_size(s) + column;
    size_t n = session_rows(s, &first);
    for (int g = 0;; g++) {
        range part = session_weight_part(s, g).qkv;
        if ((int64_t)column < part.end)
            return s->b.qkv_gathered + n * (size_t)part.begin + i * (size_t)range_size(part) + column -
                   (size_t)part.begin;
    }
}

/* Norm and rotation of head `unit` of q or k, of q times the softmax scale. y may be head where y_type is F32. */
static void rotate_head(const qwen3_session *s, const layer_weights *w, size_t i, size_t unit, const float *head,
                        void *y, qwen3_dtype y_type)
{
    const size_t d = s->shape.head_dim;
    const bool query = unit < session_heads(s);
    s->model->kernels->norm_rope(d, head, query ? w->q_norm : w->k_norm, (float)s->model->config.rms_norm_eps,
                                 s->b.cosines + i * (d / 2), s->b.sines + i * (d / 2),
                                 query ? 1.0f / sqrtf((float)d) : 1.0f, y, y_type);
}

/* Where head `unit` of q of row i stands among the queries. */
static void *query_place(const qwen3_session *s, size_t i, size_t unit)
{
    const attention_shape *shape = &s->shape;
    size_t first, heads = session_heads(s);
    session_rows(s, &first);
    const int group = s->step.mode == STEP_SPLIT_ROWS ? s->cache.group : 0;
    const step_job *job = &s->step.jobs[(size_t)group * s->step.n_sequences + (size_t)s->step.rows[first + i].index];
    const size_t place = (job->first - first) * heads + head_in_job(shape, job->rows, first + i - job->first, unit);
    return (char *)s->b.q + place * attention_q_stride(shape) * dtype_size(session_q_type(s));
}

/* Keys and values [m, head_dim] of one KV head, for the rows from i on, into the cache: those that follow each other in
 * a page together. */
static void store_heads(const qwen3_session *s, int64_t layer, size_t i, size_t m, size_t kv_head, const float *key,
                        const float *value)
{
    const attention_shape *shape = &s->shape;
    size_t first;
    session_rows(s, &first);
    const kv_slot *slots = &s->step.slots[first + i];
    for (size_t r = 0, n; r < m; r += n) {
        for (n = 1; r + n < m && slots[r + n].page == slots[r].page && slots[r + n].slot == slots[r].slot + n; n++) {
        }
        if (!slots[r].page)
            continue;
        void *page = kv_cache_layer(&s->cache, slots[r].page, layer);
        const size_t count = (size_t)slots[r].page->slots.count;
        kv_block_store(shape, kv_page_k(shape, page, kv_head), kv_page_v(shape, page, kv_head), slots[r].slot, n,
                       key + r * shape->head_dim, value + r * shape->head_dim);
        if (slots[r].slot + n == count) /* the page may have been another sequence's */
            kv_block_end(shape, kv_page_v(shape, page, kv_head), count);
    }
}

/* Asks for the place of KV head `kv_head` of row i: a token's keys and values lie in hundreds of lines, which stores
 * alone would wait for a few at a time. */
static void ask_for_place(const qwen3_session *s, int64_t layer, size_t i, size_t kv_head)
{
    size_t first;
    session_rows(s, &first);
    const kv_slot slot = s->step.slots[first + i];
    if (!slot.page)
        return;
    void *page = kv_cache_layer(&s->cache, slot.page, layer);
    kv_block_ask(&s->shape, kv_page_k(&s->shape, page, kv_head), kv_page_v(&s->shape, page, kv_head), slot.slot);
}

/* q, k, v of this rank's rows -> queries, cache. No barrier at the end. */
static void place_heads(team *t, qwen3_session *s, const layer_weights *w, int64_t layer)
{
    size_t first, n = session_rows(s, &first), d = s->shape.head_dim, begin, end, kv_begin, kv_end;
    const size_t heads = session_heads(s), kv_heads = s->shape.kv_heads, units = heads + kv_heads;
    bool split_weights = s->step.mode == STEP_SPLIT_WEIGHTS;
    if (split_weights) {
        size_t first_unit = (size_t)s->part.qkv.begin / d, mine = (size_t)range_size(s->part.qkv) / d;
        team_part(t, n * mine, 1, &begin, &end);
        for (size_t u = begin; u < end; u++)
            if (first_unit + u % mine < units)
                rotate_head(s, w, u / mine, first_unit + u % mine, s->b.qkv + u * d, s->b.qkv + u * d, QWEN3_DTYPE_F32);
        team_barrier(t);
        if (t->tid == 0) {
            for (int g = 0; g < s->cache.groups; g++)
                s->tables.bytes[0][g] = n * (size_t)range_size(session_weight_part(s, g).qkv) * sizeof(float);
            comm_allgather(s->model->sequence_group, s->b.qkv, s->b.qkv_gathered, s->tables.bytes[0], QWEN3_COMM_QUERY);
        }
        team_barrier(t);
    }
    team_part(t, n * kv_heads, 1, &kv_begin, &kv_end);
    for (size_t u = kv_begin; u < kv_end && u < kv_begin + kv_heads; u++) /* a token's; more would not stay */
        ask_for_place(s, layer, u / kv_heads, u % kv_heads);
    team_part(t, n * heads, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        const size_t i = u / heads, unit = u % heads;
        const float *head = qkv_head(s, i, unit);
        if (split_weights)
            s->model->kernels->scale(d, 1.0f, head, query_place(s, i, unit), session_q_type(s));
        else
            rotate_head(s, w, i, unit, head, query_place(s, i, unit), session_q_type(s));
    }
    for (size_t u = kv_begin; u < kv_end; u++) {
        const size_t i = u / kv_heads, kv_head = u % kv_heads, unit = heads + kv_head;
        float *head = qkv_head(s, i, unit);
        if (u + kv_heads < kv_end)
            ask_for_place(s, layer, i + 1, kv_head);
        if (!split_weights)
            rotate_head(s, w, i, unit, head, head, QWEN3_DTYPE_F32);
        store_heads(s, layer, i, 1, kv_head, head, qkv_head(s, i, unit + kv_heads));
    }
}

bool attend_projects(const qwen3_session *s)
{
    size_t first;
    return s->step.mode == STEP_SPLIT_ROWS && session_rows(s, &first) > FEW_ROWS &&
           s->shape.head_dim % (size_t)s->model->weights.gemm->nr == 0;
}

/* Head `unit` of q, or of k and with it of v, for m rows from `row` on: products, then as place_heads. `next`: the
 * weights that come after. */
static void project_head(const team *t, const qwen3_session *s, const layer_weights *w, int64_t layer, size_t row,
                         size_t m, size_t unit, const void *next)
{
    const gemm_kernel *g = s->model->weights.gemm;
    const size_t d = s->shape.head_dim, stride = activation_stride(w->qkv.k), v = (unit + s->shape.kv_heads) * d;
    const bool has_value = unit >= session_heads(s);
    const gemm_input x = {(const char *)s->b.normed + session_act_bytes(s, row * stride), m, stride};
    float *head = session_tiles(s, t->tid), *value = head + TILED_ROWS * d;
    const void *after_head = has_value ? matrix_at(g, &w->qkv, v, 0) : next;
    matrix_product(g, &(matrix_part){&w->qkv, unit * d, (unit + 1) * d, 0, w->qkv.k, after_head}, &x,
                   &(gemm_output){head, d, false});
    if (has_value)
        matrix_product(g, &(matrix_part){&w->qkv, v, v + d, 0, w->qkv.k, next}, &x, &(gemm_output){value, d, false});
    for (size_t r = 0; r < m; r++)
        rotate_head(s, w, row + r, unit, head + r * d, has_value ? head + r * d : query_place(s, row + r, unit),
                    has_value ? QWEN3_DTYPE_F32 : session_q_type(s));
    if (has_value)
        store_heads(s, layer, row, m, unit - session_heads(s), head, value);
}

/* Products and places of all heads, some rows of one head at a time. No barrier at the end. */
static void project_heads(team *t, const qwen3_session *s, const layer_weights *w, int64_t layer)
{
    const gemm_kernel *g = s->model->weights.gemm;
    const size_t units = session_heads(s) + s->shape.kv_heads, d = s->shape.head_dim;
    size_t first;
    const size_t n = session_rows(s, &first);
    if (units == 0)
        return;
    linear_items items = linear_items_begin(t, g, n, units, TILED_ROWS);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const void *ahead = items.more ? matrix_at(g, &w->qkv, items.following.part * d, 0) : NULL;
        project_head(t, s, w, layer, item.row, item.m, item.part, ahead);
    }
}

/* The jobs of this layer: their queries, partials and the keys that are here. On one thread. */
static void make_jobs(qwen3_session *s, int64_t layer)
{
    const step *p = &s->step;
    size_t heads = session_heads(s), d = s->shape.head_dim, stride = attention_q_stride(&s->shape);
    size_t q_size = dtype_size(session_q_type(s));
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
}

static void clear_partials(team *t, const qwen3_session *s)
{
    const size_t d = s->shape.head_dim, n_jobs = session_jobs(s);
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
static void attend_pass_query(team *t, qwen3_session *s)
{
    const step *p = &s->step;
    size_t heads = session_heads(s), q_bytes = heads * attention_q_stride(&s->shape) * dtype_size(session_q_type(s));
    if (t->tid == 0) {
        for (int g = 0; g < s->cache.groups; g++) {
            size_t rows = p->group_first[g + 1] - p->group_first[g];
            s->tables.bytes[0][g] = rows * q_bytes;
            s->tables.counts[g] = rows * heads;
        }
        comm_allgather(s->model->sequence_group, s->b.q, s->b.q_gathered, s->tables.bytes[0], QWEN3_COMM_QUERY);
    }
    team_barrier(t);
    attention_run(t, &s->b.workspace);
    pass_q_return(t, s->model->sequence_group, s->model->kernels, s->shape.head_dim, s->b.partials, s->tables.counts,
                  s->b.received, s->tables.bytes[0], s->tables.bytes[1]);
}

/* All ranks have all queries; the partials of each rank's heads go to it, rows by heads. */
static void attend_split_heads(team *t, qwen3_session *s)
{
    size_t d = s->shape.head_dim, n = s->step.n_rows, begin, end;
    attention_run(t, &s->b.workspace);
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
            size_t at = head_in_job(&s->shape, job->rows, r, head);
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
    size_t first, n = session_rows(s, &first), d = s->shape.head_dim, heads = (size_t)range_size(s->part.heads), begin,
                  end;
    size_t stride = activation_stride(heads * d);
    bool by_row = s->step.mode == STEP_SPLIT_WEIGHTS;
    partial_run run = partial_at(session_attends_all(s) ? s->b.received : s->b.partials, n * heads, d);
    team_part(t, n * heads, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        size_t i = u / heads, head = u % heads, at = u;
        if (!by_row) {
            const step_job *job =
                &s->step.jobs[(size_t)s->cache.group * s->step.n_sequences + (size_t)s->step.rows[first + i].index];
            at = (job->first - first) * heads + head_in_job(&s->shape, job->rows, first + i - job->first, head);
        }
        float inverse = run.l[at] > 0 ? 1.0f / run.l[at] : 0.0f;
        s->model->kernels->scale(d, inverse, run.o + at * d,
                                 (char *)s->b.attended + session_act_bytes(s, i * stride + head * d),
                                 session_act_type(s));
    }
}

/* Keys that travel are planned for as they arrive. */
static bool keys_travel(const qwen3_session *s)
{
    return s->step.mode == STEP_SPLIT_ROWS && !s->step.pass_query && s->cache.groups > 1;
}

void attend_plan(const team *t, qwen3_session *s, int64_t layer)
{
    make_jobs(s, layer);
    if (!keys_travel(s))
        attention_plan(t, &s->shape, s->algorithm, s->tables.jobs, session_jobs(s), &s->b.workspace);
}

void attend(team *t, qwen3_session *s, const layer_weights *w, int64_t layer)
{
    if (attend_projects(s))
        project_heads(t, s, w, layer);
    else
        place_heads(t, s, w, layer);
    clear_partials(t, s);
    team_barrier(t);
    if (s->step.mode == STEP_SPLIT_WEIGHTS)
        attend_split_heads(t, s);
    else if (s->step.pass_query)
        attend_pass_query(t, s);
    else if (keys_travel(s))
        attend_pass_kv(t, s, layer);
    else
        attention_run(t, &s->b.workspace);
    collect_attended(t, s);
    team_barrier(t);
}
