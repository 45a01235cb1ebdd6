#include "blocks/block.h"

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

void block_output(team *t, const block_step *s, const matrix *w, range k, const activations *a)
{
    const gemm_input in = activations_input(a, 0, s->rows);
    const gemm_output out = {s->partial ? s->sums : s->x, (size_t)s->decoder->config->hidden_size, !s->partial};
    linear(t, s->decoder->gemm, &(matrix_part){w, 0, w->n, (size_t)k.begin, (size_t)k.end, NULL}, &in, &out);
}
