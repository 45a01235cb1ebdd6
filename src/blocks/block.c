#include "blocks/block.h"

#include "blocks/combine.h"

bool block_agree(team *t, block_step *s)
{
    if (t->tid == 0)
        qwen3_comm_agree(s->decoder->world, &s->error);
    team_barrier(t);
    const bool well = s->error.status == QWEN3_OK;
    team_barrier(t); /* thread 0 may set the error of what follows */
    return well;
}

range block_own_inputs(const block_step *s, const block *of)
{
    const decoder *d = s->decoder;
    const int64_t first = of->inputs(d, false, d->place).begin;
    const range own = of->inputs(d, s->step->mode == STEP_SPLIT_WEIGHTS, d->place);
    return (range){own.begin - first, own.end - first};
}

static void multiply_linear(team *t, const void *context, const matrix_part *w, const gemm_input *a,
                            const gemm_output *y)
{
    (void)context;
    linear(t, w, a, y);
}

last_product block_linear(const block_step *s, const block *of, const matrix *w, const activations *inputs)
{
    return (last_product){of, w, inputs, s->rows, multiply_linear, NULL};
}

void block_output(team *t, const block_step *s, const last_product *p)
{
    if (s->shared) {
        s->combination->output(t, s, p);
        return;
    }
    const gemm_input in = activations_input(p->inputs, 0, p->rows);
    const matrix_part whole = matrix_whole(p->matrix);
    p->multiply(t, p->context, &whole, &in, &(gemm_output){s->x, p->matrix->n, true});
}
