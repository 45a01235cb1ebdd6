/* combine_columns.c - every output is computed whole by one rank. The sum over the inputs starts from the residual
 * stream, as where one rank computes all outputs.
 */
#include <string.h>

#include "blocks/combine.h"

/* Buffers: inputs as they come, rank after rank [rows of inputs, inputs of the rank]; the same as [rows of inputs,
 * inputs]; own outputs [rows, own]; those of all ranks, rank after rank; bytes [ranks]. */
enum { PIECES, WHOLE, OWN, OUTPUTS, BYTES };

/* ---- Who has what ------------------------------------------------------------------------------ */

static bool splits_weights(const block_step *b)
{
    return b->step->mode == STEP_SPLIT_WEIGHTS;
}

/* The place of rank r of b->among. */
static grid_place place_of(const block_step *b, int r)
{
    grid_place place = b->decoder->place;
    if (splits_weights(b))
        place.s = r / place.h_groups;
    place.h = r % place.h_groups;
    return place;
}

/* Outputs whose weights a head group keeps. */
static range outputs_kept(int64_t outputs, int nr, grid_place place)
{
    return partition(outputs, nr, place.h_groups, place.h);
}

static tensor_part part(const declaration *d, size_t number, range inputs)
{
    (void)inputs;
    const tensor *of = &d->tensors[number];
    return (tensor_part){number, outputs_kept(of->rows, d->format.nr, d->place), {0, of->cols}};
}

/* Outputs that rank r of b->among computes. */
static range outputs_of(const block_step *b, int r)
{
    const int nr = b->decoder->format->nr;
    const grid_place place = place_of(b, r);
    const range kept = outputs_kept(b->decoder->config->hidden_size, nr, place);
    if (!splits_weights(b))
        return kept;
    const range own = partition(range_size(kept), nr, place.s_groups, place.s);
    return (range){kept.begin + own.begin, kept.begin + own.end};
}

/* Inputs that rank r computes. */
static range inputs_of(const block_step *b, const block *of, int r)
{
    return of->inputs(b->decoder, splits_weights(b), place_of(b, r));
}

static activations piece_of(const block_step *b, range inputs)
{
    return activations_of((size_t)range_size(inputs), b->decoder->format->activation);
}

/* ---- A step ------------------------------------------------------------------------------------- */

static void plan(block_step *b, memory_plan *m, const last_inputs *most)
{
    const int first = PHASE_BLOCKS, last = PHASE_HEAD - 1, ranks = comm_size(b->among);
    const size_t hidden = (size_t)b->decoder->config->hidden_size;
    const activations whole = activations_of(most->values, b->decoder->format->activation);
    activations pieces = whole;
    pieces.stride += most->rows * (size_t)ranks * ACTIVATION_PAD; /* each begins a row of its own */
    memory_plan_add(m, &b->buffers[PIECES], activations_bytes(&pieces, b->rows), first, last);
    memory_plan_add(m, &b->buffers[WHOLE], activations_bytes(&whole, b->rows), first, last);
    memory_plan_add(m, &b->buffers[OWN],
                    b->rows * (size_t)range_size(outputs_of(b, comm_rank(b->among))) * sizeof(float), first, last);
    memory_plan_add(m, &b->buffers[OUTPUTS], b->rows * hidden * sizeof(float), first, last);
    memory_plan_add(m, &b->buffers[BYTES], (size_t)ranks * sizeof(size_t), first, last);
}

/* The inputs of all ranks to PIECES. Thread 0. */
static void gather_inputs(const block_step *b, const last_product *p)
{
    size_t *bytes = b->buffers[BYTES];
    for (int r = 0; r < comm_size(b->among); r++) {
        const activations piece = piece_of(b, inputs_of(b, p->of, r));
        bytes[r] = activations_bytes(&piece, p->rows);
    }
    comm_allgather(b->among, p->inputs->data, b->buffers[PIECES], bytes, QWEN3_COMM_REDUCE);
}

/* Rows [begin, end) of PIECES to `whole`. */
static void join_inputs(const block_step *b, const last_product *p, const activations *whole, size_t begin, size_t end)
{
    char *data = b->buffers[PIECES];
    for (int r = 0; r < comm_size(b->among); r++) {
        const range inputs = inputs_of(b, p->of, r);
        activations piece = piece_of(b, inputs);
        const size_t bytes =
            activation_bytes(piece.type, piece.type < ELEMENT_TYPES ? piece.columns : piece.stride); /* whole blocks */
        piece.data = data;
        for (size_t i = begin; i < end && bytes > 0; i++)
            memcpy(activations_at(whole, i, (size_t)inputs.begin), activations_at(&piece, i, 0), bytes);
        data += activations_bytes(&piece, p->rows);
    }
    for (size_t i = begin; i < end; i++)
        activations_pad(whole, i);
}

/* What own outputs begin with, for rows [begin, end). */
static void begin_outputs(const block_step *b, range own, size_t begin, size_t end)
{
    const size_t hidden = (size_t)b->decoder->config->hidden_size, width = (size_t)range_size(own);
    float *y = b->buffers[OWN];
    for (size_t i = begin; i < end && width > 0; i++)
        memcpy(y + i * width, b->x + i * hidden + own.begin, width * sizeof *y);
}

static void output(team *t, const block_step *b, const last_product *p)
{
    const int64_t hidden = b->decoder->config->hidden_size;
    const range own = outputs_of(b, comm_rank(b->among));
    const size_t width = (size_t)range_size(own);
    activations whole = activations_of(p->matrix->k, b->decoder->format->activation);
    whole.data = b->buffers[WHOLE];
    if (t->tid == 0)
        gather_inputs(b, p);
    team_barrier(t);
    size_t begin, end;
    team_part(t, p->rows, 1, &begin, &end);
    join_inputs(b, p, &whole, begin, end);
    team_part(t, b->rows, 1, &begin, &end);
    begin_outputs(b, own, begin, end);
    team_barrier(t);
    const size_t first = (size_t)(own.begin - outputs_kept(hidden, b->decoder->format->nr, b->decoder->place).begin);
    const gemm_input in = activations_input(&whole, 0, p->rows);
    p->multiply(t, p->context, &(matrix_part){p->matrix, first, first + width, 0, p->matrix->k, NULL}, &in,
                &(gemm_output){b->buffers[OWN], width, true});
}

static void start(const block_step *b)
{
    size_t *bytes = b->buffers[BYTES];
    for (int r = 0; r < comm_size(b->among); r++)
        bytes[r] = b->rows * (size_t)range_size(outputs_of(b, r)) * sizeof(float);
    comm_allgather_start(b->among, SLOT_REDUCE + b->part, b->buffers[OWN], b->buffers[OUTPUTS], bytes,
                         QWEN3_COMM_REDUCE);
}

static void finish(const block_step *b, size_t row)
{
    float *x = b->x + row * (size_t)b->decoder->config->hidden_size;
    const float *y = b->buffers[OUTPUTS];
    for (int r = 0; r < comm_size(b->among); r++) {
        const range outputs = outputs_of(b, r);
        const size_t width = (size_t)range_size(outputs);
        if (width > 0)
            memcpy(x + outputs.begin, y + row * width, width * sizeof *x);
        y += b->rows * width;
    }
}

const combination combine_columns = {
    .part = part,
    .plan = plan,
    .output = output,
    .start = start,
    .finish = finish,
};
