#include "blocks/gated_mlp.h"

#include <stdlib.h>

#include "blocks/combine.h"
#include "blocks/linear.h"

/* ---- Declarations ------------------------------------------------------------------------------ */

range gated_mlp_part(int64_t intermediate, int64_t grain, grid_place place)
{
    /* No panel is split, nor a group of columns of `down`. */
    return partition(intermediate, grain, place.h_groups, place.h);
}

range gated_mlp_inputs(int64_t intermediate, int64_t grain, bool split_weights, grid_place place)
{
    const range all = gated_mlp_part(intermediate, grain, place);
    if (!split_weights)
        return all;
    const range part = partition(range_size(all), grain, place.s_groups, place.s);
    return (range){all.begin + part.begin, all.begin + part.end};
}

static void declare(declaration *d)
{
    const qwen3_config *c = d->config;
    const int64_t grain = d->format.grain;
    const range hidden = {0, c->hidden_size}, part = gated_mlp_part(c->intermediate_size, grain, d->place);

    declare_norm(d, "post_attention_layernorm.weight", c->hidden_size);
    const size_t gate = declare_tensor(d, TENSOR_MATRIX, "mlp.gate_proj.weight", c->intermediate_size, c->hidden_size);
    const size_t up = declare_tensor(d, TENSOR_MATRIX, "mlp.up_proj.weight", c->intermediate_size, c->hidden_size);
    const size_t down = declare_tensor(d, TENSOR_MATRIX, "mlp.down_proj.weight", c->hidden_size, c->intermediate_size);
    declare_matrix(d, (matrix_declaration){.parts = {{gate, part, hidden}}, .n_parts = 1, .grain = grain});
    declare_matrix(d, (matrix_declaration){.parts = {{up, part, hidden}}, .n_parts = 1, .grain = grain});
    declare_matrix(d, (matrix_declaration){.parts = {combination_of(d->place)->part(d, down, part)},
                                           .n_parts = 1,
                                           .grain = d->format.nr,
                                           .split = combined_split(d->place, grain)});
}

static range inputs(const decoder *d, bool split_weights, grid_place place)
{
    return gated_mlp_inputs(d->config->intermediate_size, d->format->grain, split_weights, place);
}

/* ---- A step ------------------------------------------------------------------------------------- */

/* Of a step, or a part of it. The state is one for each part. */
typedef struct gated_mlp_state {
    const decoder *d;
    range part;        /* of this rank's outputs of gate and up, which are inputs of down */
    activations gated; /* [rows, part] */
    float *tiles;      /* as of linear.h: gate and up of tile_width outputs */
} gated_mlp_state;

static qwen3_status state_open(const decoder *d, int64_t layers, void **state, qwen3_error *err)
{
    (void)layers;
    gated_mlp_state *s = calloc(STEP_PARTS, sizeof *s);
    *state = s;
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the state of an MLP");
    for (int i = 0; i < STEP_PARTS; i++)
        s[i].d = d;
    return QWEN3_OK;
}

/* Outputs that are gated together: whole panels, and whole blocks where activations are blocks. */
static size_t tile_width(const gated_mlp_state *s)
{
    const int nr = s->d->format->nr;
    return (size_t)(nr > ACTIVATION_PAD ? nr : ACTIVATION_PAD);
}

static qwen3_status plan(void *state, const block_step *b, memory_plan *m, int phase, qwen3_error *err)
{
    gated_mlp_state *s = (gated_mlp_state *)state + b->part;
    const decoder *d = s->d;
    (void)err;
    s->part = block_own_inputs(b, &block_gated_mlp);
    s->gated = activations_of((size_t)range_size(s->part), d->format->activation);
    memory_plan_add(m, &s->gated.data, activations_bytes(&s->gated, b->rows), phase + BLOCK_INPUT,
                    phase + BLOCK_OUTPUT);
    memory_plan_add(m, &s->tiles, thread_tiles_bytes(tile_width(s), d->threads), phase + BLOCK_INPUT,
                    phase + BLOCK_INPUT);
    return QWEN3_OK;
}

/* Outputs [n0, n1) of gate and up, and the weights that come after them. */
typedef struct gated_part {
    size_t n0, n1;
    const void *next;
} gated_part;

/* Rows [row, row + m) of some outputs, of which a tile of the thread has room for. */
static void run_part(const team *t, const gated_mlp_state *s, const block_layer *layer, const gated_part *p, size_t row,
                     size_t m)
{
    const matrix *wgate = &layer->weights.matrices[GATED_MLP_GATE], *wup = &layer->weights.matrices[GATED_MLP_UP];
    const size_t width = p->n1 - p->n0, column = p->n0 - (size_t)s->part.begin;
    float *gate = thread_tiles(s->tiles, tile_width(s), t->tid), *up = gate + TILED_ROWS * tile_width(s);
    const gemm_input in = activations_input(layer->input, row, m);
    matrix_product(&(matrix_part){wgate, p->n0, p->n1, 0, wgate->k, matrix_at(wup, p->n0, 0)}, &in,
                   &(gemm_output){gate, width, false});
    matrix_product(&(matrix_part){wup, p->n0, p->n1, 0, wup->k, p->next}, &in, &(gemm_output){up, width, false});
    for (size_t r = 0; r < m; r++) {
        s->d->kernels->silu_mul(width, gate + r * width, up + r * width, activations_at(&s->gated, row + r, column),
                                s->gated.type);
        if (column + width == s->gated.columns)
            activations_pad(&s->gated, row + r);
    }
}

/* gated = silu(input Wgate^T) * (input Wup^T), some outputs at a time, so that neither product is ever stored whole. */
static void run_gated(team *t, const gated_mlp_state *s, const block_layer *layer, size_t m)
{
    const size_t n0 = (size_t)s->part.begin, n1 = (size_t)s->part.end, width = tile_width(s);
    const size_t parts = (n1 - n0 + width - 1) / width;
    if (m == 0 || parts == 0)
        return;
    if (m <= LINEAR_FEW_ROWS) {
        /* As many outputs at once as there is room for: both matrices are read in long pieces. */
        const size_t most = TILED_ROWS / m * width;
        team_pieces pieces = team_pieces_begin(t, n1 - n0, width);
        for (size_t begin, end; team_pieces_next(t, &pieces, &begin, &end);)
            for (; begin < end; begin += most) {
                const gated_part p = {n0 + begin, n0 + (begin + most < end ? begin + most : end), NULL};
                run_part(t, s, layer, &p, 0, m);
            }
        return;
    }
    const matrix *wgate = &layer->weights.matrices[GATED_MLP_GATE];
    linear_items items = linear_items_begin(t, matrix_rows_at_once(wgate), m, parts, TILED_ROWS);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const size_t begin = n0 + item.part * width;
        const void *next = items.more ? matrix_at(wgate, n0 + items.following.part * width, 0) : NULL;
        run_part(t, s, layer, &(gated_part){begin, begin + width < n1 ? begin + width : n1, next}, item.row, item.m);
    }
}

static bool run(team *t, void *state, block_step *b, const block_layer *layer)
{
    const gated_mlp_state *s = (const gated_mlp_state *)state + b->part;
    run_gated(t, s, layer, b->rows);
    team_barrier(t);
    const last_product last = block_linear(b, &block_gated_mlp, &layer->weights.matrices[GATED_MLP_DOWN], &s->gated);
    block_output(t, b, &last);
    team_barrier(t);
    return true;
}

const block block_gated_mlp = {
    .name = "gated MLP",
    .declare = declare,
    .open = state_open,
    .close = free,
    .plan = plan,
    .run = run,
    .inputs = inputs,
};
