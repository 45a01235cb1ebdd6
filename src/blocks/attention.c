#include "blocks/attention.h"

#include <stdlib.h>
#include <string.h>

#include "attention/movement.h"
#include "base/memory.h"
#include "blocks/combine.h"
#include "blocks/linear.h"
#include "model/rope.h"

/* ---- Declarations ------------------------------------------------------------------------------ */

head_shard attention_heads(const qwen3_config *config, grid_place place)
{
    return partition_heads(config->num_heads, config->num_kv_heads, place.h_groups, place.h);
}

int64_t attention_grain(int64_t nr, int64_t head_dim)
{
    int64_t grain = nr;
    while (grain % head_dim != 0)
        grain += nr;
    return grain;
}

static range scaled(range r, int64_t factor)
{
    return (range){r.begin * factor, r.end * factor};
}

static void declare_qk_norms(declaration *d)
{
    static const char *const names[] = {"self_attn.q_norm.weight", "self_attn.k_norm.weight"};
    for (int i = 0; i < 2; i++) {
        if (d->config->qk_norm)
            declare_norm(d, names[i], d->config->head_dim);
        else
            declare_vector(d, (vector_declaration){.n_parts = 0});
    }
}

static void declare_bias(declaration *d, range heads, range kv_heads)
{
    static const char *const names[] = {"self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"};
    const int64_t counts[] = {d->config->num_heads, d->config->num_kv_heads, d->config->num_kv_heads};
    vector_declaration bias = {.n_parts = 0};
    for (int i = 0; i < 3 && d->config->attention_bias; i++) {
        const size_t number = declare_tensor(d, TENSOR_BIAS, names[i], counts[i] * d->config->head_dim, 1);
        bias.parts[bias.n_parts++] = (tensor_part){number, i == 0 ? heads : kv_heads, {0, 1}};
    }
    declare_vector(d, bias);
}

static void declare(declaration *d)
{
    const qwen3_config *c = d->config;
    const int64_t dim = c->head_dim, q_rows = c->num_heads * dim, kv_rows = c->num_kv_heads * dim;
    const head_shard shard = attention_heads(c, d->place);
    const range hidden = {0, c->hidden_size}, heads = scaled(shard.heads, dim), kv_heads = scaled(shard.kv_heads, dim);

    declare_norm(d, "input_layernorm.weight", c->hidden_size);
    const size_t q = declare_tensor(d, TENSOR_MATRIX, "self_attn.q_proj.weight", q_rows, c->hidden_size);
    const size_t k = declare_tensor(d, TENSOR_MATRIX, "self_attn.k_proj.weight", kv_rows, c->hidden_size);
    const size_t v = declare_tensor(d, TENSOR_MATRIX, "self_attn.v_proj.weight", kv_rows, c->hidden_size);
    const size_t o = declare_tensor(d, TENSOR_MATRIX, "self_attn.o_proj.weight", c->hidden_size, q_rows);
    declare_matrix(d, (matrix_declaration){.parts = {{q, heads, hidden}, {k, kv_heads, hidden}, {v, kv_heads, hidden}},
                                           .n_parts = 3,
                                           .grain = attention_grain(d->format.nr, dim),
                                           .unit = dim});
    declare_matrix(d, (matrix_declaration){.parts = {combination_of(d->place)->part(d, o, heads)},
                                           .n_parts = 1,
                                           .grain = d->format.nr,
                                           .split = combined_split(d->place, dim)});
    declare_qk_norms(d);
    declare_bias(d, heads, kv_heads);
}

static range inputs(const decoder *d, bool split_weights, grid_place place)
{
    const range heads = attention_heads(d->config, place).heads;
    range own = heads;
    if (split_weights) {
        const range part = partition(range_size(heads), 1, place.s_groups, place.s);
        own = (range){heads.begin + part.begin, heads.begin + part.end};
    }
    return scaled(own, d->config->head_dim);
}

/* ---- State ------------------------------------------------------------------------------------- */

/* Tables of a step. */
typedef struct step_tables {
    size_t *rows, *keys;                /* [sequence groups][sequences] new rows; keys once the step is committed */
    size_t *head_first;                 /* [sequence groups + 1] query heads that enter `o`, by group */
    int32_t *positions;                 /* [rows of the batch] in the order of step.rows */
    kv_slot *slots;                     /* the same */
    int64_t *kept;                      /* [sequences] positions here once the step is committed */
    size_t *brought;                    /* [sequence groups][sequences] KV blocks that part 0 brings for part 1 */
    int32_t *brought_jobs;              /* [sequences] */
    size_t *own_index;                  /* [rows of the batch] of a row among those that its owner keeps */
    size_t *own_rows;                   /* [sequence groups] rows that each keeps */
    size_t *send_bytes, *receive_bytes; /* [sequence groups] */
    memory_plan plan;
    memory_region memory;
} step_tables;

/* A step, or a part of it, at hand. */
typedef struct attention_step {
    struct attention_state *of;
    step_tables tables;
    attention_problem problem;
    exchange exchange;
    bool split_weights, projects; /* step.mode; heads go from their products to their places (project_heads) */
    range qkv, heads;             /* of this rank: outputs of the q-k-v matrix, query heads that enter `o` */
    float *cosines, *sines;       /* [rows, head_dim / 2] */
    float *projected;             /* [rows, size of qkv], unless `projects` */
    char *sent, *gathered;        /* heads to and from each group (head_bytes), where weights are split */
    float *tiles;                 /* as of linear.h: k and v of one head */
    activations attended;         /* [rows, heads * head_dim] */
} attention_step;

typedef struct attention_state {
    const decoder *d;
    attention_shape shape;
    const attention_algorithm *algorithm;
    kv_cache cache;
    double *inverse_frequencies; /* [head_dim / 2] radians per position */
    double rope_scale;           /* multiplies cos and sin (YaRN), otherwise 1 */
    attention_step parts[STEP_PARTS];
} attention_state;

static size_t heads_of(const attention_state *s)
{
    return s->shape.kv_heads * s->shape.heads_per_kv;
}

/* Columns of q, k and v: q first, then k, then v. */
static size_t qkv_size(const attention_state *s)
{
    return (heads_of(s) + 2 * s->shape.kv_heads) * s->shape.head_dim;
}

/* The outputs of the q-k-v matrix that sequence group g computes where weights are split: whole heads. */
static range qkv_part(const attention_state *s, int g)
{
    const int64_t grain = attention_grain(s->d->format->nr, (int64_t)s->shape.head_dim);
    return partition((int64_t)qkv_size(s), grain, s->d->place.s_groups, g);
}

static void state_close(void *state)
{
    attention_state *s = state;
    for (int i = 0; i < STEP_PARTS; i++) {
        exchange_close(&s->parts[i].exchange);
        memory_plan_free(&s->parts[i].tables.plan);
        memory_region_free(&s->parts[i].tables.memory);
    }
    kv_cache_close(&s->cache);
    free(s->inverse_frequencies);
    free(s);
}

static qwen3_status state_open(const decoder *d, int64_t layers, void **state, qwen3_error *err)
{
    const qwen3_config *c = d->config;
    const qwen3_session_options *o = d->options;
    const head_shard shard = attention_heads(c, d->place);
    const int64_t kv_heads = range_size(shard.kv_heads);
    *state = NULL;
    const attention_algorithm *algorithm = attention_algorithm_get(o->algorithm);
    if (!algorithm)
        return fail(err, QWEN3_ERR_ARGUMENT, "attention algorithm %d is unknown", (int)o->algorithm);
    attention_state *s = calloc(1, sizeof *s);
    if (!s)
        return fail(err, QWEN3_ERR_MEMORY, "no memory for the state of attention");
    s->d = d;
    s->algorithm = algorithm;
    s->shape = (attention_shape){.kernels = d->kernels,
                                 .kv_type = d->kv_dtype,
                                 .head_dim = (size_t)c->head_dim,
                                 .kv_heads = (size_t)kv_heads,
                                 .heads_per_kv = kv_heads ? (size_t)(range_size(shard.heads) / kv_heads) : 1,
                                 .causal = true,
                                 .pagewise = d->place.deterministic,
                                 .q_block_size = o->q_block_size,
                                 .kv_block_size = (int)round_up((size_t)o->kv_block_size, KV_BLOCK)};
    qwen3_status status = kv_cache_open(&s->cache, &s->shape, layers, d->sequences, err);
    if (o->kv_pages > 0)
        s->cache.most_pages = (size_t)o->kv_pages;
    s->inverse_frequencies = calloc((size_t)c->head_dim / 2, sizeof *s->inverse_frequencies);
    if (!status && !s->inverse_frequencies)
        status = fail(err, QWEN3_ERR_MEMORY, "no memory for %lld rotation frequencies", (long long)c->head_dim / 2);
    if (status) {
        state_close(s);
        return status;
    }
    s->rope_scale = rope_frequencies(c, s->inverse_frequencies);
    for (int i = 0; i < STEP_PARTS; i++)
        s->parts[i].of = s;
    *state = s;
    return QWEN3_OK;
}

const kv_cache *attention_cache(const void *state)
{
    return &((const attention_state *)state)->cache;
}

static void state_usage(const void *state, block_usage *usage)
{
    const attention_state *s = state;
    *usage = (block_usage){.bytes = s->cache.total_pages * s->cache.page_bytes,
                           .used = s->cache.used_pages * s->cache.page_bytes,
                           .pages = s->cache.used_pages,
                           .score_bytes = s->parts[0].exchange.workspace.score_bytes};
}

static qwen3_status reserve(void *state, const step *p, qwen3_error *err)
{
    attention_state *s = state;
    const grid_place place = s->d->place;
    qwen3_status status = QWEN3_OK;
    for (size_t q = 0; q < p->n_sequences && !status; q++)
        status = kv_cache_reserve(&s->cache, p->sequences[q], step_new_owned(p, q, place.s_groups, place.s), err);
    return status;
}

static void append(void *state, const block_step *b)
{
    attention_state *s = state;
    const step *p = b->step;
    kv_slot *slots = s->parts[b->part].tables.slots;
    for (size_t i = 0; i < p->n_rows; i++) {
        const step_row *r = &p->rows[i];
        slots[i] = (kv_slot){0};
        if (r->owner == s->d->place.s)
            slots[i] = kv_cache_append(&s->cache, r->sequence, r->position, r->place);
    }
    for (size_t i = 0; i < p->n_rows; i++)
        slots[i].last = slots[i].page && (int32_t)slots[i].slot + 1 == slots[i].page->slots.count;
}

static void truncate_sequence(void *state, int sequence, int64_t kept)
{
    kv_cache_truncate(&((attention_state *)state)->cache, sequence, kept);
}

static qwen3_status fork_sequence(void *state, int from, int to, int64_t kept, qwen3_error *err)
{
    return kv_cache_fork(&((attention_state *)state)->cache, from, to, kept, err);
}

/* ---- The plan of a step ------------------------------------------------------------------------ */

static attention_step *part_of(void *state, const block_step *b)
{
    return &((attention_state *)state)->parts[b->part];
}

static qwen3_status make_tables(attention_step *s, const step *p, qwen3_error *err)
{
    step_tables *t = &s->tables;
    const size_t groups = (size_t)s->of->d->place.s_groups, jobs = groups * p->n_sequences;
    memory_plan_add(&t->plan, &t->rows, jobs * sizeof *t->rows, 0, 0);
    memory_plan_add(&t->plan, &t->keys, jobs * sizeof *t->keys, 0, 0);
    memory_plan_add(&t->plan, &t->head_first, (groups + 1) * sizeof *t->head_first, 0, 0);
    memory_plan_add(&t->plan, &t->positions, p->n_rows * sizeof *t->positions, 0, 0);
    memory_plan_add(&t->plan, &t->slots, p->n_rows * sizeof *t->slots, 0, 0);
    memory_plan_add(&t->plan, &t->kept, p->n_sequences * sizeof *t->kept, 0, 0);
    memory_plan_add(&t->plan, &t->brought, jobs * sizeof *t->brought, 0, 0);
    memory_plan_add(&t->plan, &t->brought_jobs, p->n_sequences * sizeof *t->brought_jobs, 0, 0);
    memory_plan_add(&t->plan, &t->own_index, p->n_rows * sizeof *t->own_index, 0, 0);
    memory_plan_add(&t->plan, &t->own_rows, groups * sizeof *t->own_rows, 0, 0);
    memory_plan_add(&t->plan, &t->send_bytes, groups * sizeof *t->send_bytes, 0, 0);
    memory_plan_add(&t->plan, &t->receive_bytes, groups * sizeof *t->receive_bytes, 0, 0);
    return memory_region_fit(&t->memory, &t->plan, "the tables of attention", err);
}

/* Positions that group g keeps of the sequence with index q once the step is committed. */
static int64_t kept_after(const attention_step *s, const step *p, size_t q, int g)
{
    const decoder *d = s->of->d;
    return d->sequences->items[p->sequences[q]].owned[g] + step_new_owned(p, q, d->place.s_groups, g);
}

/* What part 0 brings for part 1: whole pages, for the last one of a sequence gets positions of part 1 too. */
static brought_keys describe_brought(attention_step *s, const block_step *b)
{
    const step *p = b->step;
    attention_step *before = &s->of->parts[0];
    if (!b->other || before->exchange.movement != &movement_gather_kv)
        return (brought_keys){0};
    for (size_t q = 0; q < p->n_sequences; q++)
        s->tables.brought_jobs[q] = b->other->step->index_of[p->sequences[q]];
    for (int g = 0; g < s->of->d->place.s_groups; g++)
        for (size_t q = 0; q < p->n_sequences; q++)
            s->tables.brought[(size_t)g * p->n_sequences + q] =
                s->tables.brought_jobs[q] < 0
                    ? 0
                    : (size_t)(s->of->d->sequences->items[p->sequences[q]].owned[g] / KV_BLOCK);
    return (brought_keys){&before->exchange, s->tables.brought, s->tables.brought_jobs};
}

/* What all ranks of the sequence group attend in this step. */
static void describe_problem(attention_step *s, const block_step *b)
{
    const step *p = b->step;
    const int groups = s->of->d->place.s_groups;
    for (int g = 0; g <= groups; g++)
        s->tables.head_first[g] = (size_t)partition((int64_t)heads_of(s->of), 1, groups, g).begin;
    for (int g = 0; g < groups; g++)
        for (size_t q = 0; q < p->n_sequences; q++) {
            const size_t j = (size_t)g * p->n_sequences + q;
            s->tables.rows[j] = p->jobs[j].rows;
            s->tables.keys[j] = (size_t)kept_after(s, p, q, g);
        }
    for (size_t q = 0; q < p->n_sequences; q++)
        s->tables.kept[q] = kept_after(s, p, q, s->of->d->place.s);
    memset(s->tables.own_rows, 0, (size_t)groups * sizeof *s->tables.own_rows);
    for (size_t i = 0; i < p->n_rows; i++) {
        s->tables.positions[i] = p->rows[i].position;
        s->tables.own_index[i] = s->tables.own_rows[p->rows[i].owner]++;
    }
    s->problem = (attention_problem){.comm = s->of->d->sequence_comm,
                                     .shape = &s->of->shape,
                                     .algorithm = s->of->algorithm,
                                     .threads = s->of->d->threads,
                                     .n_jobs = p->n_sequences,
                                     .replicated = s->split_weights,
                                     .rows = s->tables.rows,
                                     .positions = s->tables.positions,
                                     .keys = s->tables.keys,
                                     .brought = describe_brought(s, b),
                                     .followed = b->followed,
                                     .head_first = s->tables.head_first,
                                     .prices = s->of->d->prices};
}

/* Heads of the q-k-v matrix that group g computes where weights are split: [first, first + queries) of q, the rest of k
 * and v. */
typedef struct head_part {
    size_t first, queries, others;
} head_part;

static head_part heads_part(const attention_step *s, int g)
{
    const range part = qkv_part(s->of, g);
    const size_t dim = s->of->shape.head_dim, heads = heads_of(s->of);
    const size_t first = (size_t)part.begin / dim, end = (size_t)part.end / dim;
    const size_t queries = first < heads ? (end < heads ? end : heads) - first : 0;
    return (head_part){first, queries, end - first - queries};
}

/* A query head as it travels: of the type that it is attended in. */
static size_t query_head_bytes(const attention_step *s)
{
    return s->of->shape.head_dim * dtype_size(attention_gemm(&s->of->shape)->activation);
}

/* What group `from` sends to group `to` of a step that splits weights: its query heads of all rows, then in f32 its
 * heads of k and v of the rows that `to` keeps. */
static size_t head_bytes(const attention_step *s, const block_step *b, int from, int to)
{
    const head_part part = heads_part(s, from);
    return b->rows * part.queries * query_head_bytes(s) +
           s->tables.own_rows[to] * part.others * s->of->shape.head_dim * sizeof(float);
}

static size_t all_head_bytes(const attention_step *s, const block_step *b, bool sent)
{
    const int groups = s->of->d->place.s_groups, me = s->of->d->place.s;
    size_t bytes = 0;
    for (int g = 0; g < groups && s->split_weights; g++)
        bytes += sent ? head_bytes(s, b, me, g) : head_bytes(s, b, g, me);
    return bytes;
}

static size_t tile_width(const attention_step *s)
{
    return s->of->shape.head_dim;
}

static qwen3_status plan(void *state, const block_step *b, memory_plan *m, int phase, qwen3_error *err)
{
    attention_step *s = part_of(state, b);
    const decoder *d = s->of->d;
    const size_t dim = s->of->shape.head_dim, n = b->rows;
    const int input = phase + BLOCK_INPUT, output = phase + BLOCK_OUTPUT;
    const exchange_phases phases = {phase + BLOCK_PREPARE, input,         phase + BLOCK_WORK, output,
                                    PHASE_BLOCKS,          PHASE_HEAD - 1};
    s->split_weights = b->step->mode == STEP_SPLIT_WEIGHTS;
    s->projects = !s->split_weights && n > LINEAR_FEW_ROWS && dim % (size_t)d->format->nr == 0;
    s->qkv = s->split_weights ? qkv_part(s->of, d->place.s) : (range){0, (int64_t)qkv_size(s->of)};
    const range attended = block_own_inputs(b, &block_attention);
    s->heads = (range){attended.begin / (int64_t)dim, attended.end / (int64_t)dim};
    qwen3_status status = make_tables(s, b->step, err);
    if (status)
        return status;
    describe_problem(s, b);
    s->attended = activations_of((size_t)range_size(attended), d->format->activation);
    memory_plan_add(m, &s->cosines, n * (dim / 2) * sizeof(float), PHASE_START, PHASE_HEAD - 1);
    memory_plan_add(m, &s->sines, n * (dim / 2) * sizeof(float), PHASE_START, PHASE_HEAD - 1);
    memory_plan_add(m, &s->projected, s->projects ? 0 : n * (size_t)range_size(s->qkv) * sizeof(float), input, input);
    memory_plan_add(m, &s->sent, all_head_bytes(s, b, true), input, input);
    memory_plan_add(m, &s->gathered, all_head_bytes(s, b, false), input, input);
    memory_plan_add(m, &s->tiles, s->projects ? thread_tiles_bytes(tile_width(s), d->threads) : 0, input, input);
    memory_plan_add(m, &s->attended.data, activations_bytes(&s->attended, n), output, output);
    s->exchange.slot = SLOT_KEYS + b->part;
    return exchange_begin(&s->exchange, &s->problem, NULL, phases, m, err);
}

/* Rotation angles of this rank's rows. */
static void start(team *t, void *state, const block_step *b)
{
    attention_step *s = part_of(state, b);
    const size_t half = s->of->shape.head_dim / 2;
    size_t begin, end;
    team_part(t, b->rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        rope_angles(s->of->d->config, s->of->inverse_frequencies, s->of->rope_scale,
                    b->step->rows[b->first + i].position, s->cosines + i * half, s->sines + i * half);
}

/* The keys that are here, in the pages of this layer, and the work on them. */
static void prepare(const team *t, void *state, const block_step *b, const block_layer *layer)
{
    attention_step *s = part_of(state, b);
    kv_block *views = s->exchange.views;
    for (size_t q = 0; q < b->step->n_sequences; q++) {
        const int32_t sequence = b->step->sequences[q];
        kv_cache_view(&s->of->cache, sequence, s->tables.kept[q], layer->index, views);
        views += s->of->shape.kv_heads * kv_pages_for(s->tables.kept[q]);
    }
    exchange_plan(t, &s->exchange);
}

/* ---- Queries, keys and values to their places ---------------------------------------------------- */

/* One layer of a step: what the functions below share. */
typedef struct attention_layer {
    attention_step *s;
    const block_step *b;
    const block_layer *layer;
    const float *q_norm, *k_norm, *bias; /* NULL where the architecture has none */
} attention_layer;

static attention_layer layer_of(attention_step *s, const block_step *b, const block_layer *layer)
{
    const float *const *vectors = layer->weights.vectors;
    return (attention_layer){
        s, b, layer, vectors[ATTENTION_Q_NORM], vectors[ATTENTION_K_NORM], vectors[ATTENTION_QKV_BIAS]};
}

/* The job that row i of this rank belongs to. */
static const step_job *job_of(const block_step *b, int group, size_t i)
{
    const step *p = b->step;
    return &p->jobs[(size_t)group * p->n_sequences + (size_t)p->rows[b->first + i].index];
}

/* Where a query head of row i of this rank is among own queries and results: jobs of [kv_heads, rows, heads_per_kv]. */
static size_t own_pair(const attention_step *s, const block_step *b, size_t i, size_t head)
{
    const size_t per_kv = s->of->shape.heads_per_kv;
    const step_job *job = job_of(b, s->split_weights ? 0 : s->of->d->place.s, i);
    const size_t row = b->first + i - job->first;
    return (job->first - b->first) * heads_of(s->of) + (head / per_kv * job->rows + row) * per_kv + head % per_kv;
}

/* Norm and rotation of head `unit` of q or k, of q times the softmax scale. y may be head where y_type is F32. */
static void rotate_head(const attention_layer *a, size_t i, size_t unit, const float *head, void *y, qwen3_dtype y_type)
{
    const attention_step *s = a->s;
    const size_t dim = s->of->shape.head_dim;
    const bool query = unit < heads_of(s->of);
    s->of->d->kernels->norm_rope(dim, head, query ? a->q_norm : a->k_norm, (float)s->of->d->config->rms_norm_eps,
                                 s->cosines + i * (dim / 2), s->sines + i * (dim / 2),
                                 query ? 1.0f / sqrtf((float)dim) : 1.0f, y, y_type);
}

/* Where query head `unit` of row i goes. */
static activations query_place(const attention_step *s, const block_step *b, size_t i, size_t unit)
{
    activations q = activations_of(s->of->shape.head_dim, attention_gemm(&s->of->shape)->activation);
    q.data = s->exchange.q;
    q.data = activations_at(&q, own_pair(s, b, i, unit), 0);
    return q;
}

static void place_query(const attention_layer *a, size_t i, size_t unit, const float *head)
{
    const activations q = query_place(a->s, a->b, i, unit);
    rotate_head(a, i, unit, head, q.data, q.type);
    activations_pad(&q, 0);
}

/* Keys and values [m, head_dim] of one KV head, for the rows from i on, into the cache: those that follow each other in
 * a page together. */
static void store_heads(const attention_layer *a, size_t i, size_t m, size_t kv_head, const float *key,
                        const float *value)
{
    const attention_shape *shape = &a->s->of->shape;
    const kv_slot *slots = &a->s->tables.slots[a->b->first + i];
    for (size_t r = 0, n; r < m; r += n) {
        for (n = 1; r + n < m && slots[r + n].page == slots[r].page && slots[r + n].slot == slots[r].slot + n; n++) {
        }
        if (!slots[r].page)
            continue;
        void *page = kv_cache_layer(&a->s->of->cache, slots[r].page, a->layer->index);
        const kv_place place = kv_page_place(shape, page, KV_BLOCK, kv_head);
        kv_block_store(shape, place, slots[r].slot, n, key + r * shape->head_dim, value + r * shape->head_dim);
        if (slots[r + n - 1].last) /* the page may have been another sequence's */
            kv_block_end(shape, place, slots[r].slot + n);
    }
}

/* Prefetches the place of KV head `kv_head` of row i: a token's keys and values lie in hundreds of lines, which stores
 * alone would wait for a few at a time. */
static void prefetch_place(const attention_layer *a, size_t i, size_t kv_head)
{
    const attention_shape *shape = &a->s->of->shape;
    const kv_slot slot = a->s->tables.slots[a->b->first + i];
    if (!slot.page)
        return;
    void *page = kv_cache_layer(&a->s->of->cache, slot.page, a->layer->index);
    kv_block_prefetch(shape, kv_page_place(shape, page, KV_BLOCK, kv_head), slot.slot);
}

/* ---- Few rows: products first, then heads ------------------------------------------------------- */

/* The products of this rank's part, with their bias. No barrier at the end. */
static void project(team *t, const attention_layer *a)
{
    const attention_step *s = a->s;
    const matrix *w = &a->layer->weights.matrices[ATTENTION_QKV];
    const size_t size = (size_t)range_size(s->qkv);
    const gemm_input in = activations_input(a->layer->input, 0, a->b->rows);
    linear(t, &(matrix_part){w, (size_t)s->qkv.begin, (size_t)s->qkv.end, 0, w->k, NULL}, &in,
           &(gemm_output){s->projected, size, false});
    if (!a->bias)
        return;
    team_barrier(t);
    size_t begin, end;
    team_part(t, a->b->rows, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        s->of->d->kernels->add(size, s->projected + i * size, a->bias + s->qkv.begin);
}

/* Where head `unit` of row i is in what group `from` sends to `to`, which begins at `data`; k and v only of rows that
 * `to` keeps. */
static char *travelling_head(const attention_step *s, const block_step *b, char *data, int from, size_t i, size_t unit)
{
    const head_part part = heads_part(s, from);
    const size_t dim = s->of->shape.head_dim, at = unit - part.first;
    if (at < part.queries)
        return data + (i * part.queries + at) * query_head_bytes(s);
    return data + b->rows * part.queries * query_head_bytes(s) +
           (s->tables.own_index[i] * part.others + at - part.queries) * dim * sizeof(float);
}

/* Rotates this group's heads of q and k and sends them, q to all groups, k and v to those that keep them. Ends in a
 * barrier. */
static void exchange_heads(team *t, const attention_layer *a)
{
    const attention_step *s = a->s;
    const block_step *b = a->b;
    const int groups = s->of->d->place.s_groups, me = s->of->d->place.s;
    const size_t dim = s->of->shape.head_dim, rotated = heads_of(s->of) + s->of->shape.kv_heads;
    const qwen3_dtype type = attention_gemm(&s->of->shape)->activation;
    const head_part part = heads_part(s, me);
    const size_t mine = part.queries + part.others;
    size_t begin, end;
    team_part(t, b->rows * mine, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        const size_t i = u / mine, unit = part.first + u % mine;
        float *head = s->projected + u * dim;
        char *to = s->sent, *query = NULL;
        if (unit >= heads_of(s->of) && unit < rotated)
            rotate_head(a, i, unit, head, head, QWEN3_DTYPE_F32);
        for (int g = 0; g < groups; to += head_bytes(s, b, me, g++)) {
            char *place = travelling_head(s, b, to, me, i, unit);
            if (query)
                memcpy(place, query, query_head_bytes(s));
            else if (unit < heads_of(s->of))
                rotate_head(a, i, unit, head, query = place, type);
            else if (b->step->rows[b->first + i].owner == g)
                memcpy(place, head, dim * sizeof(float));
        }
    }
    team_barrier(t);
    if (t->tid == 0) {
        for (int g = 0; g < groups; g++) {
            s->tables.send_bytes[g] = head_bytes(s, b, me, g);
            s->tables.receive_bytes[g] = head_bytes(s, b, g, me);
        }
        comm_alltoall(s->of->d->sequence_comm, s->sent, s->tables.send_bytes, s->gathered, s->tables.receive_bytes,
                      QWEN3_COMM_QUERY);
    }
    team_barrier(t);
}

/* Head `unit` of row i among q, k, v heads, k and v of rows that are kept here: this rank's product, or what came from
 * the group that computed it. */
static void *qkv_head(const attention_step *s, const block_step *b, size_t i, size_t unit)
{
    if (!s->split_weights)
        return s->projected + i * qkv_size(s->of) + unit * s->of->shape.head_dim;
    char *data = s->gathered;
    for (int g = 0;; data += head_bytes(s, b, g++, s->of->d->place.s)) {
        const head_part part = heads_part(s, g);
        if (unit < part.first + part.queries + part.others)
            return travelling_head(s, b, data, g, i, unit);
    }
}

/* Heads of all rows to the queries and the cache. No barrier at the end. */
static void place_heads(team *t, const attention_layer *a)
{
    const attention_step *s = a->s;
    const block_step *b = a->b;
    const size_t heads = heads_of(s->of), kv_heads = s->of->shape.kv_heads;
    size_t begin, end, kv_begin, kv_end;
    team_part(t, b->rows * kv_heads, 1, &kv_begin, &kv_end);
    for (size_t u = kv_begin; u < kv_end && u < kv_begin + kv_heads; u++) /* a token's; more would not stay */
        prefetch_place(a, u / kv_heads, u % kv_heads);
    team_part(t, b->rows * heads, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        const size_t i = u / heads, unit = u % heads;
        const void *head = qkv_head(s, b, i, unit);
        if (!s->split_weights) {
            place_query(a, i, unit, head);
            continue;
        }
        const activations q = query_place(s, b, i, unit);
        memcpy(q.data, head, query_head_bytes(s));
        activations_pad(&q, 0);
    }
    for (size_t u = kv_begin; u < kv_end; u++) {
        const size_t i = u / kv_heads, kv_head = u % kv_heads, unit = heads + kv_head;
        if (u + kv_heads < kv_end)
            prefetch_place(a, i + 1, kv_head);
        if (!s->tables.slots[b->first + i].page)
            continue;
        float *head = qkv_head(s, b, i, unit);
        if (!s->split_weights)
            rotate_head(a, i, unit, head, head, QWEN3_DTYPE_F32);
        store_heads(a, i, 1, kv_head, head, qkv_head(s, b, i, unit + kv_heads));
    }
}

/* ---- Many rows: each head from its product to its place ------------------------------------------ */

/* y[m, head_dim] = rows [row, row + m) of head `unit` of q, k and v. next: the weights of the product after it. */
static void product_of_head(const attention_layer *a, const linear_item *item, size_t unit, float *y, const void *next)
{
    const attention_step *s = a->s;
    const matrix *w = &a->layer->weights.matrices[ATTENTION_QKV];
    const size_t dim = s->of->shape.head_dim, first = unit * dim;
    const gemm_input in = activations_input(a->layer->input, item->row, item->m);
    matrix_product(&(matrix_part){w, first, first + dim, 0, w->k, next}, &in, &(gemm_output){y, dim, false});
    for (size_t r = 0; a->bias && r < item->m; r++)
        s->of->d->kernels->add(dim, y + r * dim, a->bias + first);
}

/* Head item->part of q, or of k and with it of v, for some rows. */
static void project_head(const team *t, const attention_layer *a, const linear_item *item, const void *next)
{
    const attention_step *s = a->s;
    const size_t dim = s->of->shape.head_dim, unit = item->part, value_unit = unit + s->of->shape.kv_heads;
    float *head = thread_tiles(s->tiles, tile_width(s), t->tid), *value = head + TILED_ROWS * tile_width(s);
    if (unit < heads_of(s->of)) {
        product_of_head(a, item, unit, head, next);
        for (size_t r = 0; r < item->m; r++)
            place_query(a, item->row + r, unit, head + r * dim);
        return;
    }
    const matrix *w = &a->layer->weights.matrices[ATTENTION_QKV];
    product_of_head(a, item, unit, head, matrix_at(w, value_unit * dim, 0));
    product_of_head(a, item, value_unit, value, next);
    for (size_t r = 0; r < item->m; r++)
        rotate_head(a, item->row + r, unit, head + r * dim, head + r * dim, QWEN3_DTYPE_F32);
    store_heads(a, item->row, item->m, unit - heads_of(s->of), head, value);
}

/* Products and places of heads [first, end) of q and k, some rows of one head at a time. No barrier at the end. */
static void project_heads(team *t, const attention_layer *a, size_t first, size_t end)
{
    const attention_step *s = a->s;
    const matrix *w = &a->layer->weights.matrices[ATTENTION_QKV];
    const size_t dim = s->of->shape.head_dim;
    if (first == end)
        return;
    linear_items items = linear_items_begin(t, matrix_rows_at_once(w), a->b->rows, end - first, TILED_ROWS);
    for (linear_item item; linear_items_next(t, &items, &item);) {
        const void *next = items.more ? matrix_at(w, (first + items.following.part) * dim, 0) : NULL;
        item.part += first;
        project_head(t, a, &item, next);
    }
}

/* ---- Attention ----------------------------------------------------------------------------------- */

/* attended[row, head] = o / l. No barrier at the end. */
static void collect(const team *t, const attention_step *s, const block_step *b)
{
    const size_t dim = s->of->shape.head_dim, heads = (size_t)range_size(s->heads);
    size_t begin, end;
    team_part(t, b->rows * heads, 1, &begin, &end);
    for (size_t u = begin; u < end; u++) {
        const size_t i = u / heads, head = u % heads;
        partial_output(s->of->d->kernels, dim, s->exchange.result, s->split_weights ? u : own_pair(s, b, i, head),
                       activations_at(&s->attended, i, head * dim), s->attended.type);
        if (head + 1 == heads)
            activations_pad(&s->attended, i);
    }
}

/* Keys and values first: they travel while queries are computed. */
static bool begin(team *t, void *state, block_step *b, const block_layer *layer)
{
    attention_step *s = part_of(state, b);
    const attention_layer a = layer_of(s, b, layer);
    const size_t heads = heads_of(s->of), kv_heads = s->of->shape.kv_heads;
    const bool sends = s->exchange.movement->start != NULL;
    if (s->projects) {
        project_heads(t, &a, sends ? heads : 0, heads + kv_heads);
    } else {
        project(t, &a);
        team_barrier(t);
        if (s->split_weights)
            exchange_heads(t, &a);
        place_heads(t, &a);
    }
    exchange_clear(t, &s->exchange);
    team_barrier(t);
    if (!sends)
        return false;
    const bool under_way = exchange_start(t, &s->exchange);
    if (s->projects)
        project_heads(t, &a, 0, heads);
    team_barrier(t);
    return under_way;
}

static bool run(team *t, void *state, block_step *b, const block_layer *layer)
{
    attention_step *s = part_of(state, b);
    exchange_run(t, &s->exchange);
    collect(t, s, b);
    team_barrier(t);
    const last_product last = block_linear(b, &block_attention, &layer->weights.matrices[ATTENTION_O], &s->attended);
    block_output(t, b, &last);
    team_barrier(t);
    return true;
}

const block block_attention = {
    .name = "attention",
    .declare = declare,
    .open = state_open,
    .close = state_close,
    .reserve = reserve,
    .append = append,
    .truncate = truncate_sequence,
    .fork = fork_sequence,
    .usage = state_usage,
    .plan = plan,
    .start = start,
    .prepare = prepare,
    .begin = begin,
    .run = run,
    .inputs = inputs,
};
