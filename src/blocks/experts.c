/* experts.c - see experts.h. Rows are grouped by expert (routing.h): gate and up of a pair of row and expert, gated and
 * weighted, are inputs of down, whose outputs are added to those of the row in the order of experts. So a row gets the
 * same bits whatever other rows there are.
 *
 * Few rows are bound by reading the chosen experts: all threads read each of them together, in contiguous pieces. Of
 * many rows, those of an expert pass over its weights together, TILED_ROWS at a time. */
#include "blocks/experts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "blocks/combine.h"
#include "blocks/gated_mlp.h"
#include "blocks/routing.h"

/* ---- Declarations ------------------------------------------------------------------------------ */

static void declare_expert(declaration *d, int64_t expert, range part)
{
    static const char *const names[] = {"gate", "up", "down"};
    const int64_t hidden = d->config->hidden_size, inner = d->config->moe_intermediate_size;
    for (int i = 0; i < EXPERT_MATRICES; i++) {
        char name[64];
        snprintf(name, sizeof name, "mlp.experts.%" PRId64 ".%s_proj.weight", expert, names[i]);
        const bool down = i == EXPERT_DOWN;
        const size_t number = declare_tensor(d, TENSOR_EXPERT, name, down ? hidden : inner, down ? inner : hidden);
        if (d->failed)
            return;
        declare_matrix(d, (matrix_declaration){.parts = {down ? combination_of(d->place)->part(d, number, part)
                                                              : (tensor_part){number, part, {0, hidden}}},
                                               .n_parts = 1,
                                               .grain = down ? d->format.nr : d->format.grain,
                                               .split = down ? combined_split(d->place, d->format.grain) : 0});
    }
}

static void declare(declaration *d)
{
    const qwen3_config *c = d->config;
    const range part = gated_mlp_part(c->moe_intermediate_size, d->format.grain, d->place);
    declare_norm(d, "post_attention_layernorm.weight", c->hidden_size);
    const size_t router = declare_tensor(d, TENSOR_ROUTER, "mlp.gate.weight", c->num_experts, c->hidden_size);
    declare_vector(d, (vector_declaration){{{router, {0, c->num_experts}, {0, c->hidden_size}}}, 1});
    for (int64_t e = 0; e < c->num_experts && !d->failed; e++)
        declare_expert(d, e, part);
}

static range inputs(const decoder *d, bool split_weights, grid_place place)
{
    return gated_mlp_inputs(d->config->moe_intermediate_size, d->format->grain, split_weights, place);
}

static size_t input_rows(const qwen3_config *config)
{
    return (size_t)config->num_experts_per_token;
}

/* ---- The plan of a step ------------------------------------------------------------------------- */

/* Of a step, or a part of it. The state is one for each part. */
typedef struct experts_state {
    const decoder *d;
    range part; /* of this rank's outputs of gate and up, which are inputs of down */
    routing routing;
    float *normalised;    /* [rows, hidden] input of the router, where that of the products is not f32 */
    activations gathered; /* [threads][rows of a tile, hidden] input of rows that do not follow each other */
    activations gated;    /* [pairs, part] weighted */
    float *tiles;         /* as of linear.h: gate and up of tile_width outputs; outputs of down */
    double load;          /* sum of routing_load over the layers of the step that have been computed: */
    int layers;
} experts_state;

static qwen3_status state_open(const decoder *d, int64_t layers, void **state, qwen3_error *err)
{
    (void)layers;
    experts_state *s = calloc(STEP_PARTS, sizeof *s);
    *state = s;
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the state of experts");
    for (int i = 0; i < STEP_PARTS; i++)
        s[i].d = d;
    return QWEN3_OK;
}

static void state_usage(const void *state, block_usage *usage)
{
    const experts_state *s = state;
    *usage = (block_usage){.expert_load = s->layers ? s->load / s->layers : 0};
}

static void start(team *t, void *state, const block_step *b)
{
    experts_state *s = (experts_state *)state + b->part;
    if (t->tid == 0) {
        s->load = 0;
        s->layers = 0;
    }
}

/* As in gated_mlp.c. */
static size_t tile_width(const experts_state *s)
{
    const int nr = s->d->format->nr;
    return (size_t)(nr > ACTIVATION_PAD ? nr : ACTIVATION_PAD);
}

static size_t tile_floats(const experts_state *s)
{
    return 2 * TILED_ROWS * tile_width(s);
}

static qwen3_status plan(void *state, const block_step *b, memory_plan *m, int phase, qwen3_error *err)
{
    experts_state *s = (experts_state *)state + b->part;
    const decoder *d = s->d;
    const qwen3_config *c = d->config;
    const int input = phase + BLOCK_INPUT, output = phase + BLOCK_OUTPUT;
    const size_t hidden = (size_t)c->hidden_size, chosen = (size_t)c->num_experts_per_token;
    const size_t tile_rows = b->rows < TILED_ROWS ? b->rows : TILED_ROWS;
    (void)err;
    s->part = block_own_inputs(b, &block_experts);
    s->routing = (routing){.rows = b->rows,
                           .experts = (size_t)c->num_experts,
                           .chosen = chosen,
                           .normalise = c->norm_topk_prob,
                           .tile_rows = TILED_ROWS};
    routing_plan(&s->routing, m, input, output);
    const bool f32 = d->format->activation == QWEN3_DTYPE_F32;
    memory_plan_add(m, &s->normalised, f32 ? 0 : b->rows * hidden * sizeof(float), input, input);
    s->gathered = activations_of(hidden, d->format->activation);
    memory_plan_add(m, &s->gathered.data, activations_bytes(&s->gathered, tile_rows * (size_t)d->threads), input,
                    input);
    s->gated = activations_of((size_t)range_size(s->part), d->format->activation);
    memory_plan_add(m, &s->gated.data, activations_bytes(&s->gated, b->rows * chosen), input, output);
    memory_plan_add(m, &s->tiles, thread_tiles_bytes(tile_width(s), d->threads), input, output);
    return QWEN3_OK;
}

/* ---- The router --------------------------------------------------------------------------------- */

/* Rows and experts of an item of the router's product. The bits of a score do not depend on how many there are. */
enum { ROUTER_ROWS = 48, ROUTER_EXPERTS = 8 };

/* The router's input: rows of `stride`. Ends in a barrier where it has to be computed. */
static const float *router_input(team *t, const experts_state *s, const block_step *b, const block_layer *layer,
                                 size_t *stride)
{
    const size_t hidden = (size_t)s->d->config->hidden_size;
    if (!s->normalised) {
        *stride = layer->input->stride;
        return layer->input->data;
    }
    size_t begin, end;
    team_part(t, b->rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        s->d->kernels->rms_norm(hidden, b->x + i * hidden, layer->weights.vectors[EXPERTS_INPUT_NORM],
                                (float)s->d->config->rms_norm_eps, s->normalised + i * hidden, QWEN3_DTYPE_F32);
    team_barrier(t);
    *stride = hidden;
    return s->normalised;
}

/* scores = x Wrouter^T. Ends in a barrier. */
static void score_rows(team *t, const experts_state *s, const block_step *b, const block_layer *layer)
{
    const routing *r = &s->routing;
    const size_t hidden = (size_t)s->d->config->hidden_size;
    const size_t row_parts = (r->rows + ROUTER_ROWS - 1) / ROUTER_ROWS;
    const size_t parts = (r->experts + ROUTER_EXPERTS - 1) / ROUTER_EXPERTS;
    size_t stride;
    const float *x = router_input(t, s, b, layer, &stride), *w = layer->weights.vectors[EXPERTS_ROUTER];
    team_loop_begin(t);
    for (size_t i; (i = team_loop_next(t)) < row_parts * parts;) {
        const size_t row = i / parts * ROUTER_ROWS, expert = i % parts * ROUTER_EXPERTS;
        const size_t rows = r->rows - row < ROUTER_ROWS ? r->rows - row : ROUTER_ROWS;
        const size_t n = r->experts - expert < ROUTER_EXPERTS ? r->experts - expert : ROUTER_EXPERTS;
        s->d->kernels->dot_rows(rows, n, hidden, x + row * stride, stride, w + expert * hidden, hidden,
                                r->scores + row * r->experts + expert, r->experts);
    }
    team_barrier(t);
}

/* Ends in a barrier. */
static void route(team *t, experts_state *s, const block_step *b, const block_layer *layer)
{
    routing *r = &s->routing;
    size_t begin, end;
    score_rows(t, s, b, layer);
    const bool few = r->rows <= LINEAR_FEW_ROWS; /* less work than another barrier */
    team_part(t, r->rows, 1, &begin, &end);
    if (few) {
        begin = 0;
        end = t->tid == 0 ? r->rows : 0;
    }
    for (size_t i = begin; i < end; i++)
        routing_choose(r, s->d->kernels, i);
    if (!few)
        team_barrier(t);
    if (t->tid == 0) {
        routing_sort(r);
        s->load += routing_load(r);
        s->layers++;
    }
    team_barrier(t);
}

/* ---- Gate and up -------------------------------------------------------------------------------- */

/* Pairs [pair, pair + n) of an expert, and outputs [n0, n1) of its gate and up, counted from the first of this rank. */
typedef struct gated_part {
    int32_t expert;
    size_t pair, n, n0, n1;
    const void *next; /* the weights that come after them */
} gated_part;

static const matrix *expert_matrices(const block_layer *layer, int32_t expert)
{
    return layer->weights.matrices + (size_t)expert * EXPERT_MATRICES;
}

/* Where output n of this rank's part of an expert's gate begins. */
static const void *gate_at(const experts_state *s, const block_layer *layer, int32_t expert, size_t n)
{
    return matrix_at(&expert_matrices(layer, expert)[EXPERT_GATE], (size_t)s->part.begin + n, 0);
}

static bool rows_follow(const routing *r, size_t pair, size_t n)
{
    return (size_t)(r->pair_rows[pair + n - 1] - r->pair_rows[pair]) == n - 1;
}

/* The rows of some pairs, at most those of a tile, as the input of a product; copied where they do not follow each
 * other. */
static gemm_input rows_of(const team *t, const experts_state *s, const activations *input, size_t pair, size_t n)
{
    const routing *r = &s->routing;
    if (rows_follow(r, pair, n))
        return activations_input(input, (size_t)r->pair_rows[pair], n);
    const size_t tile_rows = r->rows < TILED_ROWS ? r->rows : TILED_ROWS, first = (size_t)t->tid * tile_rows;
    for (size_t i = 0; i < n; i++)
        memcpy(activations_at(&s->gathered, first + i, 0), activations_at(input, (size_t)r->pair_rows[pair + i], 0),
               activation_bytes(input->type, input->stride));
    return activations_input(&s->gathered, first, n);
}

/* gated = weight * silu(x Wgate^T) * (x Wup^T) of as many outputs as a tile has room for. */
static void run_tile(const team *t, const experts_state *s, const block_layer *layer, const gated_part *p,
                     const gemm_input *in)
{
    const matrix *wgate = &expert_matrices(layer, p->expert)[EXPERT_GATE], *wup = wgate + 1;
    const size_t width = p->n1 - p->n0, n0 = (size_t)s->part.begin + p->n0, n1 = (size_t)s->part.begin + p->n1;
    float *gate = thread_tiles(s->tiles, tile_width(s), t->tid), *up = gate + TILED_ROWS * tile_width(s);
    matrix_product(&(matrix_part){wgate, n0, n1, 0, wgate->k, matrix_at(wup, n0, 0)}, in,
                   &(gemm_output){gate, width, false});
    matrix_product(&(matrix_part){wup, n0, n1, 0, wup->k, p->next}, in, &(gemm_output){up, width, false});
    for (size_t i = 0; i < p->n; i++) {
        float *y = gate + i * width;
        s->d->kernels->silu_mul(width, y, up + i * width, y, QWEN3_DTYPE_F32);
        s->d->kernels->scale(width, s->routing.pair_weights[p->pair + i], y,
                             activations_at(&s->gated, p->pair + i, p->n0), s->gated.type);
        if (p->n1 == s->gated.columns)
            activations_pad(&s->gated, p->pair + i);
    }
}

/* The same of any number of outputs, `most` at a time. */
static void run_part(const team *t, const experts_state *s, const block_layer *layer, const gated_part *p, size_t most)
{
    const gemm_input in = rows_of(t, s, layer->input, p->pair, p->n);
    gated_part tile = *p;
    for (tile.n0 = p->n0; tile.n0 < p->n1; tile.n0 = tile.n1) {
        tile.n1 = tile.n0 + most < p->n1 ? tile.n0 + most : p->n1;
        tile.next = tile.n1 < p->n1 ? gate_at(s, layer, p->expert, tile.n1) : p->next;
        run_tile(t, s, layer, &tile, &in);
    }
}

/* The chosen experts one after the other, as if their outputs were those of one matrix, in contiguous pieces. */
static void run_few(team *t, const experts_state *s, const block_layer *layer, size_t width)
{
    const routing *r = &s->routing;
    const size_t outputs = (size_t)range_size(s->part), whole = (outputs + width - 1) / width * width;
    team_pieces pieces = team_pieces_begin(t, r->n_active * whole, width);
    for (size_t begin, end; team_pieces_next(t, &pieces, &begin, &end);)
        for (size_t n; begin < end; begin += n) {
            const size_t index = begin / whole, n0 = begin % whole;
            n = whole - n0 < end - begin ? whole - n0 : end - begin;
            const int32_t expert = r->active[index];
            const size_t pair = r->first[expert], m = r->first[expert + 1] - pair;
            const void *next = begin + n < end ? gate_at(s, layer, r->active[index + 1], 0) : NULL;
            const gated_part p = {expert, pair, m, n0, n0 + n < outputs ? n0 + n : outputs, next};
            run_part(t, s, layer, &p, TILED_ROWS / m * width);
        }
}

/* Items of work for each thread of a loop over many rows. */
enum { ITEMS_PER_THREAD = 8 };

/* Tiles of rows of one expert times some of its outputs. */
static void run_many(team *t, const experts_state *s, const block_layer *layer, size_t width)
{
    const routing *r = &s->routing;
    const size_t outputs = (size_t)range_size(s->part), panels = (outputs + width - 1) / width;
    const size_t tiles = r->first_tile[r->n_active], wanted = (size_t)t->size * ITEMS_PER_THREAD;
    const size_t splits_wanted = (wanted + tiles - 1) / tiles, splits = splits_wanted < panels ? splits_wanted : panels;
    team_loop_begin(t);
    for (size_t i; (i = team_loop_next(t)) < tiles * splits;) {
        const routing_tile tile = routing_tile_at(r, i / splits);
        const size_t n0 = panels * (i % splits) / splits * width, n1 = panels * (i % splits + 1) / splits * width;
        const gated_part p = {r->active[tile.index], tile.pair, tile.n, n0, n1 < outputs ? n1 : outputs, NULL};
        run_part(t, s, layer, &p, width);
    }
}

/* ---- Down --------------------------------------------------------------------------------------- */

/* y[row] += of pairs [pair, pair + n) of one expert a W^T, for rows of y that do not follow each other: they are
 * brought together in the thread's tile, some outputs at a time. */
static void add_scattered(const team *t, const experts_state *s, const matrix_part *w, const gemm_input *a, size_t pair,
                          const gemm_output *y)
{
    const int32_t *rows = s->routing.pair_rows + pair;
    const size_t nr = (size_t)s->d->format->nr, most = tile_floats(s) / a->rows / nr * nr;
    float *tile = thread_tiles(s->tiles, tile_width(s), t->tid);
    matrix_part part = *w;
    for (size_t n0 = w->n0; n0 < w->n1; n0 += most) {
        part.n0 = n0;
        part.n1 = n0 + most < w->n1 ? n0 + most : w->n1;
        part.next = part.n1 < w->n1 ? matrix_at(w->matrix, part.n1, w->k0) : w->next;
        const size_t width = part.n1 - n0;
        float *outputs = y->y + (n0 - w->n0);
        for (size_t i = 0; i < a->rows; i++)
            memcpy(tile + i * width, outputs + (size_t)rows[i] * y->stride, width * sizeof *tile);
        matrix_product(&part, a, &(gemm_output){tile, width, true});
        for (size_t i = 0; i < a->rows; i++)
            memcpy(outputs + (size_t)rows[i] * y->stride, tile + i * width, width * sizeof *tile);
    }
}

/* y[row] += of n pairs of one expert, from `pair` on, a W^T. */
static void add_pairs(const team *t, const experts_state *s, const matrix_part *w, const gemm_input *a, size_t pair,
                      size_t n, const gemm_output *y)
{
    const routing *r = &s->routing;
    for (size_t end = pair + n, m; pair < end; pair += m) {
        m = end - pair < TILED_ROWS ? end - pair : TILED_ROWS;
        const gemm_input in = {(const char *)a->x + activation_bytes(s->d->format->activation, pair * a->stride), m,
                               a->stride};
        if (rows_follow(r, pair, m))
            matrix_product(w, &in, &(gemm_output){y->y + (size_t)r->pair_rows[pair] * y->stride, y->stride, true});
        else
            add_scattered(t, s, w, &in, pair, y);
    }
}

/* Outputs of a part of down, for rows [row, end) of y: expert after expert. w->matrix is that of the first expert. */
static void run_down(const team *t, const experts_state *s, const matrix_part *w, const gemm_input *a, size_t row,
                     size_t end, const gemm_output *y)
{
    const routing *r = &s->routing;
    for (size_t i = row; i < end && !y->accumulate; i++)
        memset(y->y + i * y->stride, 0, (w->n1 - w->n0) * sizeof *y->y);
    for (size_t i = 0; i < r->n_active && w->k0 < w->k1; i++) {
        matrix_part part = *w;
        size_t pair;
        const size_t n = routing_pairs(r, r->active[i], row, end, &pair);
        part.matrix = w->matrix + (size_t)r->active[i] * EXPERT_MATRICES;
        part.next = i + 1 < r->n_active
                        ? matrix_at(w->matrix + (size_t)r->active[i + 1] * EXPERT_MATRICES, w->n0, w->k0)
                        : NULL;
        add_pairs(t, s, &part, a, pair, n, y);
    }
}

/* As last_product.multiply. */
static void multiply(team *t, const void *context, const matrix_part *w, const gemm_input *a, const gemm_output *y)
{
    const experts_state *s = context;
    const size_t nr = (size_t)s->d->format->nr, rows = s->routing.rows;
    const size_t outputs = w->n1 - w->n0, panels = (outputs + nr - 1) / nr;
    matrix_part part = *w;
    gemm_output to = *y;
    if (rows == 0 || panels == 0)
        return;
    if (rows <= LINEAR_FEW_ROWS) {
        team_pieces pieces = team_pieces_begin(t, outputs, nr);
        for (size_t begin, end; team_pieces_next(t, &pieces, &begin, &end);) {
            part.n0 = w->n0 + begin;
            part.n1 = w->n0 + end;
            to.y = y->y + begin;
            run_down(t, s, &part, a, 0, rows, &to);
        }
        return;
    }
    linear_items items = linear_items_begin(t, matrix_rows_at_once(w->matrix), rows, panels, rows + nr);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const size_t begin = item.part * nr, end = begin + nr < outputs ? begin + nr : outputs;
        part.n0 = w->n0 + begin;
        part.n1 = w->n0 + end;
        to.y = y->y + begin;
        run_down(t, s, &part, a, item.row, item.row + item.m, &to);
    }
}

static bool run(team *t, void *state, block_step *b, const block_layer *layer)
{
    experts_state *s = (experts_state *)state + b->part;
    route(t, s, b, layer);
    if (s->routing.n_active > 0 && range_size(s->part) > 0)
        (b->rows <= LINEAR_FEW_ROWS ? run_few : run_many)(t, s, layer, tile_width(s));
    team_barrier(t);
    const last_product last = {
        &block_experts, &layer->weights.matrices[EXPERT_DOWN], &s->gated, b->rows * s->routing.chosen, multiply, s};
    block_output(t, b, &last);
    team_barrier(t);
    return true;
}

const block block_experts = {
    .name = "experts",
    .declare = declare,
    .open = state_open,
    .close = free,
    .usage = state_usage,
    .plan = plan,
    .start = start,
    .run = run,
    .inputs = inputs,
    .input_rows = input_rows,
};
