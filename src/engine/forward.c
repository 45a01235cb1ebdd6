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
#include "engine/attend.h"
#include "engine/linear.h"
#include "model/rope.h"

/* ---- Rows -------------------------------------------------------------------------------------- */

/* Kernels may read the elements between the last column and the row's end: they are zero. In blocks they are written
 * with the others. */
static void zero_padding(const team *t, void *x, size_t rows, size_t k, qwen3_dtype type)
{
    size_t stride = activation_stride(k), begin, end;
    if (stride == k || !x || type >= ELEMENT_TYPES)
        return;
    size_t act = dtype_size(type);
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
    size_t first, n = session_rows(s, &first), hidden = (size_t)c->hidden_size, half = s->shape.head_dim / 2;
    size_t begin, end;
    team_part(t, n, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const step_row *row = &s->step.rows[first + i];
        const tensor_part part = {MODEL_EMBEDDING, {row->token, row->token + 1}, {0, c->hidden_size}};
        const tensor_view v = source_part(m->source, &part, (float *)b->embed_scratch + (size_t)t->tid * hidden);
        if (v.type == QWEN3_DTYPE_F32)
            memcpy(b->x + i * hidden, v.data, hidden * sizeof(float));
        else
            m->kernels->to_f32(hidden, v.data, b->x + i * hidden);
        rope_angles(c, m->inverse_frequencies, m->rope_scale, row->position, b->cosines + i * half,
                    b->sines + i * half);
    }
    zero_padding(t, b->normed, n, hidden, session_act_type(s));
    zero_padding(t, b->attended, n, (size_t)range_size(s->part.heads) * s->shape.head_dim, session_act_type(s));
    zero_padding(t, b->gated, n, (size_t)range_size(s->part.intermediate), session_act_type(s));
    zero_padding(t, b->out_act, s->step.n_out, hidden, session_act_type(s));
    zero_padding(t, b->q, n * session_heads(s), s->shape.head_dim, session_q_type(s));
    team_barrier(t);
}

/* Adds what the last product left (reduced over `group`, if any), then h = rms_norm(x). Ends in a barrier.
 * sums: whether b.sums holds partial outputs that are not in x yet. */
static void finish_and_normalise(team *t, qwen3_session *s, bool sums, const float *norm)
{
    const qwen3_model *m = s->model;
    size_t first, n = session_rows(s, &first), hidden = (size_t)m->config.hidden_size,
                  stride = activation_stride(hidden);
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
                                 (char *)s->b.normed + session_act_bytes(s, i * stride), session_act_type(s));
    }
    team_barrier(t);
}

/* ---- The decoder ------------------------------------------------------------------------------- */

/* x += a W[:, k]^T, or sums = a W[:, k]^T where the input of W is split over ranks. Ends in a barrier. */
static void project_back(team *t, qwen3_session *s, const matrix *w, range k, const void *a, bool split)
{
    size_t first, n = session_rows(s, &first), hidden = (size_t)s->model->config.hidden_size;
    linear(t, s->model->weights.gemm, w, (range){0, (int64_t)w->n}, k, n, a, activation_stride((size_t)range_size(k)),
           split ? s->b.sums : s->b.x, hidden, !split);
    team_barrier(t);
}

/* Wanted rows after the final norm, from all groups, in the order of the batch. Ends in a barrier. */
static void gather_outputs(team *t, qwen3_session *s)
{
    const qwen3_model *m = s->model;
    size_t first, n = session_rows(s, &first), hidden = (size_t)m->config.hidden_size, out = 0;
    bool split = s->step.mode == STEP_SPLIT_ROWS && s->cache.groups > 1;
    float *own = split ? s->b.out_own : s->b.out_hidden;
    for (size_t i = 0; i < n; i++) {
        if (s->step.rows[first + i].out < 0)
            continue;
        if (out % (size_t)t->size == (size_t)t->tid)
            m->kernels->rms_norm(hidden, s->b.x + i * hidden, m->weights.vectors[MODEL_FINAL_NORM],
                                 (float)m->config.rms_norm_eps, own + out * hidden, QWEN3_DTYPE_F32);
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
                          (char *)s->b.out_act + session_act_bytes(s, (size_t)s->tables.out_order[i] * stride),
                          session_act_type(s));
    team_barrier(t);
}

static void decoder(team *t, void *arg)
{
    qwen3_session *s = arg;
    const qwen3_model *m = s->model;
    size_t first, n = session_rows(s, &first);
    /* The input of o and down is split over head groups, and over all ranks where weights are split. */
    bool split = s->step.mode == STEP_SPLIT_WEIGHTS || m->plan.grid_heads > 1;
    start_rows(t, s);
    for (int64_t i = 0; i < m->config.num_layers; i++) {
        const layer_weights layer = session_layer_weights(m, i), *w = &layer;
        int64_t d = m->config.head_dim;
        /* While other threads normalise. */
        if (t->tid == 0)
            attend_plan(t, s, i);
        finish_and_normalise(t, s, split && i > 0, w->input_norm);
        size_t stride = activation_stride(w->qkv.k);
        if (!attend_projects(s)) {
            linear(t, m->weights.gemm, &w->qkv, s->part.qkv, (range){0, (int64_t)w->qkv.k}, n, s->b.normed, stride,
                   s->b.qkv, (size_t)range_size(s->part.qkv), false);
            team_barrier(t);
        }
        attend(t, s, w, i);
        project_back(t, s, &w->o, (range){s->part.heads.begin * d, s->part.heads.end * d}, s->b.attended, split);
        finish_and_normalise(t, s, split, w->post_norm);
        gated_linear(t, s, w, s->part.intermediate, n);
        team_barrier(t);
        project_back(t, s, &w->down, s->part.intermediate, s->b.gated, split);
    }
    if (split)
        finish_and_normalise(t, s, true, NULL);
    gather_outputs(t, s);
    const matrix *head = &m->weights.matrices[MODEL_HEAD];
    linear(t, m->weights.gemm, head, (range){0, (int64_t)head->n}, (range){0, (int64_t)head->k}, s->step.n_out,
           s->b.out_act, activation_stride(head->k), s->b.logits, head->n, false);
}

void session_run(qwen3_session *s)
{
    team_run(s->model->plan.threads, decoder, s);
}
