/* combine_sums.c - partial outputs are summed over the ranks, in rank order. */
#include "blocks/combine.h"

enum { SUMS, ROOM }; /* buffers: [rows, hidden] partial outputs; of comm_allreduce_start */

static tensor_part part(const declaration *d, size_t number, range inputs)
{
    return (tensor_part){number, {0, d->tensors[number].rows}, inputs};
}

static size_t values_of(const block_step *b)
{
    return b->rows * (size_t)b->decoder->config->hidden_size;
}

static void plan(block_step *b, memory_plan *m, const last_inputs *most)
{
    (void)most;
    memory_plan_add(m, &b->buffers[SUMS], values_of(b) * sizeof(float), PHASE_BLOCKS, PHASE_HEAD - 1);
    memory_plan_add(m, &b->buffers[ROOM], comm_sum_room(b->among, values_of(b), b->wire), PHASE_BLOCKS, PHASE_HEAD - 1);
}

static void output(team *t, const block_step *b, const last_product *p)
{
    const range k = block_own_inputs(b, p->of);
    const gemm_input in = activations_input(p->inputs, 0, p->rows);
    const size_t outputs = p->matrix->n;
    p->multiply(t, p->context, &(matrix_part){p->matrix, 0, outputs, (size_t)k.begin, (size_t)k.end, NULL}, &in,
                &(gemm_output){b->buffers[SUMS], outputs, false});
}

static void start(const block_step *b)
{
    comm_allreduce_start(b->among, SLOT_REDUCE + b->part,
                         &(comm_sum){b->buffers[SUMS], values_of(b), b->buffers[ROOM], b->wire}, QWEN3_COMM_REDUCE);
}

static void finish(const block_step *b, size_t row)
{
    const size_t hidden = (size_t)b->decoder->config->hidden_size;
    b->decoder->kernels->add(hidden, b->x + row * hidden, (const float *)b->buffers[SUMS] + row * hidden);
}

const combination combine_sums = {
    .part = part,
    .plan = plan,
    .output = output,
    .start = start,
    .finish = finish,
};
