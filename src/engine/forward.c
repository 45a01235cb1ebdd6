/* forward.c - one forward pass: the decoder, as all threads of a rank run it in one parallel region.
 *
 *   x = embedding rows
 *   for each block of each layer:  x += block(rms_norm(x))      (outputs of blocks are summed over ranks that split
 * them) logits = rms_norm(x) Whead^T for the wanted rows, each rank its part of the vocabulary
 *
 * Every function here is called by all threads with the same arguments, splits its work by thread, and says
 * whether it ends in a barrier. Thread 0 alone communicates.
 */
#include "base/memory.h"
#include "blocks/architectures.h"
#include "blocks/combine.h"
#include "blocks/linear.h"
#include "engine/session.h"

/* ---- Memory ------------------------------------------------------------------------------------ */

/* Rows whose logits are wanted, of all parts: in the memory of the last one. */
static void plan_head(qwen3_session *s, memory_plan *m)
{
    output_head *h = &s->head;
    const size_t n = s->n_out, hidden = (size_t)s->model->config.hidden_size;
    h->input = activations_of(hidden, s->decoder.format->activation);
    memory_plan_add(m, &h->hidden, n * hidden * sizeof(float), PHASE_HEAD, PHASE_HEAD);
    memory_plan_add(m, &h->own, n * hidden * sizeof(float), PHASE_HEAD, PHASE_HEAD);
    memory_plan_add(m, &h->input.data, activations_bytes(&h->input, n), PHASE_HEAD, PHASE_HEAD);
    memory_plan_add(m, &h->logits, n * s->model->weights.matrices[MODEL_HEAD].n * sizeof(float), PHASE_HEAD,
                    PHASE_HEAD);
    memory_plan_add(m, &h->order, n * sizeof *h->order, PHASE_START, PHASE_HEAD);
    memory_plan_add(m, &h->group_bytes, (size_t)s->sequences.groups * sizeof *h->group_bytes, PHASE_START, PHASE_HEAD);
}

/* Wanted rows: how many bytes each group has of them, and their places in the batch's order. */
static void list_outputs(qwen3_session *s)
{
    size_t n = 0;
    for (int g = 0; g < s->sequences.groups; g++) {
        const size_t first = n;
        for (int k = 0; k < s->n_parts; k++) {
            const step *p = &s->parts[k].step;
            for (size_t i = p->group_first[g]; i < p->group_first[g + 1]; i++)
                if (p->rows[i].out >= 0)
                    s->head.order[n++] = p->rows[i].out;
        }
        s->head.group_bytes[g] = (n - first) * (size_t)s->model->config.hidden_size * sizeof(float);
    }
}

static last_inputs most_inputs(const qwen3_session *s)
{
    const grid_place alone = {1, 1, 0, 0, false};
    last_inputs most = {0, 0};
    for (size_t k = 0; k < s->n_blocks; k++) {
        const block *b = s->blocks[k].block;
        const activations row = activations_of((size_t)b->inputs(&s->decoder, false, alone).end, QWEN3_DTYPE_F32);
        const size_t rows = b->input_rows ? b->input_rows(s->decoder.config) : 1, values = rows * row.stride;
        most.rows = rows > most.rows ? rows : most.rows;
        most.values = values > most.values ? values : most.values;
    }
    return most;
}

/* Whether every thread normalises the input of a block for itself: of one row, which one thread would do while the
 * others wait for it. */
static bool each_normalises(const block_step *b)
{
    return b->rows == 1 && !b->shared;
}

/* Of the rows of an input, in lines of their own. */
static size_t own_input_bytes(const block_step *b, const activations *input)
{
    return round_up(activations_bytes(input, b->rows), CACHE_LINE);
}

static qwen3_status plan_buffers(qwen3_session *s, int part, qwen3_error *err)
{
    const decoder *d = &s->decoder;
    const size_t hidden = (size_t)d->config->hidden_size;
    session_part *p = &s->parts[part];
    block_step *b = &p->run;
    *b = (block_step){.decoder = d,
                      .step = &p->step,
                      .part = part,
                      .other = part > 0 ? &s->parts[0].run : NULL,
                      .followed = part + 1 < s->n_parts,
                      .shared = d->place.h_groups > 1 || p->step.mode == STEP_SPLIT_WEIGHTS,
                      .among = p->step.mode == STEP_SPLIT_WEIGHTS ? d->world : d->head_comm,
                      .combination = combination_of(d->place),
                      .wire = s->wire.encode ? &s->wire : NULL};
    b->rows = step_rows_of(&p->step, d->place.s, &b->first);
    memory_plan_add(&p->plan, &b->x, b->rows * hidden * sizeof(float), PHASE_START, PHASE_HEAD);
    const last_inputs most = most_inputs(s);
    if (b->shared)
        b->combination->plan(b, &p->plan, &most);
    memory_plan_add(&p->plan, &p->embed_scratch, (size_t)d->threads * hidden * sizeof(float), PHASE_START, PHASE_START);
    qwen3_status status = QWEN3_OK;
    for (size_t k = 0; k < s->n_blocks && !status; k++) {
        const session_block *kind = &s->blocks[k];
        const int phase = PHASE_BLOCKS + (int)k * BLOCK_PHASES;
        p->inputs[k] = activations_of(hidden, d->format->activation);
        const size_t copies = each_normalises(b) ? (size_t)d->threads : 1;
        memory_plan_add(&p->plan, &p->inputs[k].data, copies * own_input_bytes(b, &p->inputs[k]), phase + BLOCK_PREPARE,
                        phase + BLOCK_INPUT);
        status = kind->block->plan(kind->state, b, &p->plan, phase, err);
    }
    s->n_out = p->step.n_out;
    if (!b->followed)
        plan_head(s, &p->plan);
    return status;
}

qwen3_status forward_plan(qwen3_session *s, int part, qwen3_error *err)
{
    session_part *p = &s->parts[part];
    qwen3_status status = plan_buffers(s, part, err);
    if (!status)
        status = memory_region_fit(&p->arena, &p->plan, "activations of a step", err);
    if (status)
        memory_plan_free(&p->plan); /* what was added before the failure */
    else if (!p->run.followed)
        list_outputs(s);
    return status;
}

/* ---- Rows -------------------------------------------------------------------------------------- */

/* Embedding rows, and what blocks begin a step with. Ends in a barrier. */
static void start_rows(team *t, qwen3_session *s, const session_part *p)
{
    const qwen3_model *m = s->model;
    const block_step *b = &p->run;
    const int64_t hidden = m->config.hidden_size;
    float *scratch = p->embed_scratch + (size_t)t->tid * (size_t)hidden;
    size_t begin, end;
    team_part(t, b->rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const int32_t token = p->step.rows[b->first + i].token;
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

/* Waits for what the last block left to other ranks, where it did, and adds it to x; then, where there is a next block,
 * its input = rms_norm(x). Ends in a barrier, unless each thread has an input of its own. */
static void finish_and_normalise(team *t, const session_part *p, bool shared, const float *norm,
                                 const activations *input)
{
    const decoder *d = p->run.decoder;
    const block_step *b = &p->run;
    const size_t hidden = (size_t)d->config->hidden_size;
    if (shared) {
        if (t->tid == 0)
            comm_wait(b->among, SLOT_REDUCE + b->part);
        team_barrier(t);
    }
    const bool alone = each_normalises(b) && norm;
    size_t begin = 0, end = b->rows;
    if (!alone)
        team_part(t, b->rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        float *x = b->x + i * hidden;
        if (shared)
            b->combination->finish(b, i);
        if (!norm)
            continue;
        d->kernels->rms_norm(hidden, x, norm, (float)d->config->rms_norm_eps, activations_at(input, i, 0), input->type);
        activations_pad(input, i);
    }
    if (!alone)
        team_barrier(t);
}

/* ---- The output head --------------------------------------------------------------------------- */

/* Wanted rows after the final norm, from all groups, in the order of the batch. Ends in a barrier. */
static void gather_outputs(team *t, qwen3_session *s)
{
    const qwen3_model *m = s->model;
    const output_head *h = &s->head;
    const size_t hidden = (size_t)m->config.hidden_size;
    const bool split = s->parts[0].step.mode == STEP_SPLIT_ROWS && s->sequences.groups > 1;
    float *own = split ? h->own : h->hidden;
    size_t out = 0;
    for (int k = 0; k < s->n_parts; k++) {
        const block_step *b = &s->parts[k].run;
        for (size_t i = 0; i < b->rows; i++) {
            if (b->step->rows[b->first + i].out < 0)
                continue;
            if (out % (size_t)t->size == (size_t)t->tid)
                m->kernels->rms_norm(hidden, b->x + i * hidden, m->weights.vectors[MODEL_FINAL_NORM],
                                     (float)m->config.rms_norm_eps, own + out * hidden, QWEN3_DTYPE_F32);
            out++;
        }
    }
    team_barrier(t);
    if (split) {
        if (t->tid == 0)
            comm_allgather(m->sequence_comm, own, h->hidden, h->group_bytes, QWEN3_COMM_LOGITS);
        team_barrier(t);
    }
    size_t begin, end;
    team_part(t, s->n_out, 1, &begin, &end);
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
    if (s->model->config.no_output_head)
        return;
    const matrix *head = &s->model->weights.matrices[MODEL_HEAD];
    const matrix_part whole = matrix_whole(head);
    const gemm_input in = activations_input(&s->head.input, 0, s->n_out);
    linear(t, &whole, &in, &(gemm_output){s->head.logits, head->n, false});
}

/* ---- The decoder ------------------------------------------------------------------------------- */

/* How far a part is; every thread keeps count for itself. */
typedef struct walk {
    size_t at;   /* block */
    bool begun;  /* its `begin` has been called */
    bool shared; /* outputs of the block before are being brought together */
} walk;

/* Whether a part that is as far as `w` may begin its next block: part 1 needs the keys that part 0 stores there. */
static bool may_begin(const walk *w, const walk *before)
{
    return !before || before->at > w->at || (before->at == w->at && before->begun);
}

/* Takes a part on until it has started messages that go on while another part is computed, or to its end. False where a
 * block failed. */
static bool advance(team *t, qwen3_session *s, int part, walk walks[STEP_PARTS])
{
    walk *w = &walks[part];
    session_part *p = &s->parts[part];
    while (w->at < s->n_layers) {
        const size_t k = s->layers[w->at].kind;
        const session_block *kind = &s->blocks[k];
        block_layer layer = s->layers[w->at].layer;
        activations input = p->inputs[k];
        if (each_normalises(&p->run))
            input.data = (char *)input.data + (size_t)t->tid * own_input_bytes(&p->run, &input);
        layer.input = &input;
        if (!w->begun) {
            if (!may_begin(w, part > 0 ? &walks[part - 1] : NULL))
                return true;
            if (t->tid == 0 && kind->block->prepare)
                kind->block->prepare(t, kind->state, &p->run, &layer);
            finish_and_normalise(t, p, w->shared, layer.weights.vectors[BLOCK_NORM], layer.input);
            w->begun = true;
            if (kind->block->begin && kind->block->begin(t, kind->state, &p->run, &layer) && s->n_parts > 1)
                return true;
        }
        if (!kind->block->run(t, kind->state, &p->run, &layer))
            return false;
        w->at++;
        w->begun = false;
        w->shared = p->run.shared;
        if (w->shared && t->tid == 0)
            p->run.combination->start(&p->run);
        if (w->shared && s->n_parts > 1 && comm_overlaps(p->run.among))
            return true;
    }
    return true;
}

/* After a failure: nothing may be under way. */
static void end_messages(const team *t, const qwen3_session *s)
{
    for (int i = 0; i < s->n_parts && t->tid == 0; i++) {
        comm_wait(s->decoder.sequence_comm, SLOT_KEYS + i);
        comm_wait(s->parts[i].run.among, SLOT_REDUCE + i);
    }
}

static void progress(void *world)
{
    comm_progress(world);
}

static void decode(team *t, void *arg)
{
    qwen3_session *s = arg;
    walk walks[STEP_PARTS] = {0};
    if (t->tid == 0 && comm_overlaps(s->decoder.world))
        team_poll(t, progress, s->decoder.world);
    for (int i = 0; i < s->n_parts; i++)
        start_rows(t, s, &s->parts[i]);
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < s->n_parts; i++) {
            if (walks[i].at == s->n_layers)
                continue;
            if (!advance(t, s, i, walks)) {
                end_messages(t, s);
                return;
            }
            more |= walks[i].at < s->n_layers;
        }
    }
    for (int i = 0; i < s->n_parts; i++)
        if (walks[i].shared)
            finish_and_normalise(t, &s->parts[i], true, NULL, NULL);
    run_head(t, s);
}

qwen3_status forward_run(qwen3_session *s, qwen3_error *err)
{
    team_run(s->decoder.threads, decode, s);
    for (int i = 0; i < s->n_parts; i++)
        if (s->parts[i].run.error.status) {
            *err = s->parts[i].run.error;
            return err->status;
        }
    return QWEN3_OK;
}
