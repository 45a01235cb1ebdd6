#include "blocks/block.h"

#include "blocks/combine.h"
#include "blocks/linear.h"

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

void block_output(team *t, const block_step *s, const block *of, const matrix *w, const activations *a)
{
    if (s->shared) {
        s->combination->output(t, s, of, w, a);
        return;
    }
    const gemm_input in = activations_input(a, 0, s->rows);
    const matrix_part whole = matrix_whole(w);
    linear(t, s->decoder->gemm, &whole, &in, &(gemm_output){s->x, w->n, true});
}
