/* forward.c - one forward pass: the decoder, as all threads of a rank run it in one parallel region.
 *
 *   x = embedding rows
 *   for each block of each layer:  x += block(rms_norm(x))      (outputs of blocks are summed over ranks that split
 * them) logits = rms_norm(x) Whead^T for the wanted rows, each rank its part of the vocabulary
 *
 * Every function here is called by all threads with the same arguments, splits its work by thread, and says
 * whether it ends in a barrier. Thread 0 alone communicates.
 */
#include "blocks/architectures.h"
#include "blocks/linear.h"
#include "engine/session.h"

/* ---- Memory ------------------------------------------------------------------------------------ */

static void plan_head(qwen3_session *s)
{
    output_head *h = &s->head;
    const size_t n = s->step.n_out, hidden = (size_t)s->model->config.hidden_size;
    h->input = activations_of(hidden, s->decoder.gemm->activation);
    memory_plan_add(&s->plan, &h->hidden, n * hidden * sizeof(float), PHASE_HEAD, PHASE_HEAD);
    memory_plan_add(&s->plan, &h->own, n * hidden * sizeof(float), PHASE_HEAD, PHASE_HEAD);
    memory_plan_add(&s->plan, &h->input.data, activations_bytes(&h->input, n), PHASE_HEAD, PHASE_HEAD);
    memory_plan_add(&s->plan, &h->logits, n * s->model->weights.matrices[MODEL_HEAD].n * sizeof(float), PHASE_HEAD,
                    PHASE_HEAD);
    memory_plan_add(&s->plan, &h->order, n * sizeof *h->order, PHASE_START, PHASE_HEAD);
    memory_plan_add(&s->plan, &h->group_bytes, (size_t)s->sequences.groups * sizeof *h->group_bytes, PHASE_START,
                    PHASE_HEAD);
}

/* Wanted rows: how many bytes each group has of them, and their places in the batch's order. */
static void list_outputs(qwen3_session *s)
{
    const step *p = &s->step;
    size_t n = 0;
    for (int g = 0; g < s->sequences.groups; g++) {
        const size_t first = n;
        for (size_t i = p->group_first[g]; i < p->group_first[g + 1]; i++)
            if (p->rows[i].out >= 0)
                s->head.order[n++] = p->rows[i].out;
        s->head.group_bytes[g] = (n - first) * (size_t)s->model->config.hidden_size * sizeof(float);
    }
}

static qwen3_status plan_buffers(qwen3_session *s, qwen3_error *err)
{
    const decoder *d = &s->decoder;
    const size_t hidden = (size_t)d->config->hidden_size;
    block_step *b = &s->run;
    *b = (block_step){.decoder = d, .step = &s->step};
    b->rows = step_rows_of(&s->step, d->place.s, &b->first);
    b->partial = d->place.h_groups > 1 || s->step.mode == STEP_SPLIT_WEIGHTS;
    const size_t row_bytes = b->rows * hidden * sizeof(float);
    memory_plan_add(&s->plan, &b->x, row_bytes, PHASE_START, PHASE_HEAD);
    memory_plan_add(&s->plan, &b->sums, b->partial ? row_bytes : 0, PHASE_BLOCKS, PHASE_HEAD - 1);
    memory_plan_add(&s->plan, &s->embed_scratch, (size_t)d->threads * hidden * sizeof(float), PHASE_START, PHASE_START);
    qwen3_status status = QWEN3_OK;
    for (size_t k = 0; k < s->n_blocks && !status; k++) {
        session_block *kind = &s->blocks[k];
        const int phase = PHASE_BLOCKS + (int)k * BLOCK_PHASES;
        kind->input = activations_of(hidden, d->gemm->activation);
        memory_plan_add(&s->plan, &kind->input.data, activations_bytes(&kind->input, b->rows), phase + BLOCK_PREPARE,
                        phase + BLOCK_INPUT);
        status = kind->block->plan(kind->state, b, &s->plan, phase, err);
    }
    plan_head(s);
    return status;
}

qwen3_status forward_plan(qwen3_session *s, qwen3_error *err)
{
    qwen3_status status = plan_buffers(s, err);
    if (!status)
        status = memory_region_fit(&s->arena, &s->plan, "activations of a step", err);
    if (status)
        memory_plan_free(&s->plan); /* what was added before the failure */
    else
        list_outputs(s);
    return status;
}

/* ---- Rows -------------------------------------------------------------------------------------- */

/* Embedding rows, and what blocks begin a step with. Ends in a barrier. */
static void start_rows(team *t, qwen3_session *s)
{
    const qwen3_model *m = s->model;
    const block_step *b = &s->run;
    const int64_t hidden = m->config.hidden_size;
    float *scratch = s->embed_scratch + (size_t)t->tid * (size_t)hidden;
    size_t begin, end;
    team_part(t, b->rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const int32_t token = s->step.rows[b->first + i].token;
        const tensor_part row = {MODEL_EMBEDDING, {token, token + 1}, {0, hidden}};
        const tensor_view view = source_part(m->source, &row, scratch);
        float *x = b->x + i * (size_t)hidden;
        if (view.type == QWEN3_DTYPE_F32)
            memcpy(x, view.data, (size_t)hidden * sizeof(float));
        else
            m->kernels->to_f32((size_t)hidden, view.data, x);
    }
    for (size_t k = 0; k < s->n_blocks; k++)
        if (s->blocks[k].block->start)
            s->blocks[k].block->start(t, s->blocks[k].state, b);
    team_barrier(t);
}

/* Sums what the last block left in parts, over the ranks that have them, and adds it to x; then, where there is a next
 * block, its input = rms_norm(x). Ends in a barrier. sums: whether there are such parts. */
static void finish_and_normalise(team *t, qwen3_session *s, bool sums, const float *norm, const activations *input)
{
    const decoder *d = &s->decoder;
    const block_step *b = &s->run;
    const size_t hidden = (size_t)d->config->hidden_size;
    if (sums) {
        if (t->tid == 0)
            comm_allreduce(s->step.mode == STEP_SPLIT_WEIGHTS ? d->world : d->head_comm, b->sums, b->rows * hidden,
                           QWEN3_COMM_REDUCE);
        team_barrier(t);
    }
    size_t begin, end;
    team_part(t, b->rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        float *x = b->x + i * hidden;
        if (sums)
            d->kernels->add(hidden, x, b->sums + i * hidden);
        if (!norm)
            continue;
        d->kernels->rms_norm(hidden, x, norm, (float)d->config->rms_norm_eps, activations_at(input, i, 0), input->type);
        activations_pad(input, i);
    }
    team_barrier(t);
}

/* ---- The output head --------------------------------------------------------------------------- */

/* Wanted rows after the final norm, from all groups, in the order of the batch. Ends in a barrier. */
static void gather_outputs(team *t, qwen3_session *s)
{
    const qwen3_model *m = s->model;
    const block_step *b = &s->run;
    const output_head *h = &s->head;
    const size_t hidden = (size_t)m->config.hidden_size;
    const bool split = s->step.mode == STEP_SPLIT_ROWS && s->sequences.groups > 1;
    float *own = split ? h->own : h->hidden;
    size_t out = 0;
    for (size_t i = 0; i < b->rows; i++) {
        if (s->step.rows[b->first + i].out < 0)
            continue;
        if (out % (size_t)t->size == (size_t)t->tid)
            m->kernels->rms_norm(hidden, b->x + i * hidden, m->weights.vectors[MODEL_FINAL_NORM],
                                 (float)m->config.rms_norm_eps, own + out * hidden, QWEN3_DTYPE_F32);
        out++;
    }
    team_barrier(t);
    if (split) {
        if (t->tid == 0)
            comm_allgather(m->sequence_comm, own, h->hidden, h->group_bytes, QWEN3_COMM_LOGITS);
        team_barrier(t);
    }
    size_t begin, end;
    team_part(t, s->step.n_out, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t place = (size_t)h->order[i];
        m->kernels->scale(hidden, 1.0f, h->hidden + i * hidden, activations_at(&h->input, place, 0), h->input.type);
        activations_pad(&h->input, place);
    }
    team_barrier(t);
}

static void run_head(team *t, qwen3_session *s)
{
    gather_outputs(t, s);
    const matrix *head = &s->model->weights.matrices[MODEL_HEAD];
    const matrix_part whole = matrix_whole(head);
    const gemm_input in = activations_input(&s->head.input, 0, s->step.n_out);
    linear(t, s->decoder.gemm, &whole, &in, &(gemm_output){s->head.logits, head->n, false});
}

/* ---- The decoder ------------------------------------------------------------------------------- */

static void decode(team *t, void *arg)
{
    qwen3_session *s = arg;
    bool sums = false;
    start_rows(t, s);
    for (size_t i = 0; i < s->n_layers; i++) {
        session_block *kind = &s->blocks[s->layers[i].kind];
        const block_layer *layer = &s->layers[i].layer;
        if (t->tid == 0 && kind->block->prepare)
            kind->block->prepare(t, kind->state, &s->run, layer);
        finish_and_normalise(t, s, sums, layer->weights.vectors[BLOCK_NORM], layer->input);
        if (!kind->block->run(t, kind->state, &s->run, layer))
            return;
        sums = s->run.partial;
    }
    if (sums)
        finish_and_normalise(t, s, true, NULL, NULL);
    run_head(t, s);
}

qwen3_status forward_run(qwen3_session *s, qwen3_error *err)
{
    team_run(s->decoder.threads, decode, s);
    if (s->run.error.status)
        *err = s->run.error;
    return s->run.error.status;
}
