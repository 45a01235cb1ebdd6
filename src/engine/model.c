/* model.c - opening a model: source, grid, groups, weights. Every local phase ends in an agreement. */
#include "engine/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/team.h"
#include "blocks/architectures.h"
#include "blocks/attention.h"
#include "comm/topology.h"
#include "engine/agree.h"
#include "engine/cost.h"
#include "engine/machine.h"
#include "model/config.h"
#include "model/packed.h"

qwen3_model_options qwen3_model_options_default(void)
{
    return (qwen3_model_options){
        .dtype = QWEN3_DTYPE_AUTO, .kv_dtype = QWEN3_DTYPE_AUTO, .seed = 1, .share_weights = true};
}

const qwen3_config *qwen3_model_config(const qwen3_model *model)
{
    return model ? &model->config : NULL;
}

const qwen3_plan *qwen3_model_plan(const qwen3_model *model)
{
    return model ? &model->plan : NULL;
}

/* Of each matrix this many addresses. */
#define PLACEMENT_SAMPLES 16

static void sample_matrix(size_t nr, const matrix *w, const void **addresses, size_t *n)
{
    size_t panels = (w->n + nr - 1) / nr;
    for (size_t i = 0; i < PLACEMENT_SAMPLES && panels > 0; i++)
        addresses[(*n)++] = matrix_at(w, i * panels / PLACEMENT_SAMPLES * nr, 0);
}

void qwen3_model_placement(const qwen3_model *model, char *text, size_t size)
{
    if (!text || size == 0)
        return;
    snprintf(text, size, "unknown");
    if (!model)
        return;
    const weights *w = &model->weights;
    size_t n = 0;
    const void **addresses = calloc(w->n_matrices * PLACEMENT_SAMPLES, sizeof *addresses);
    for (size_t i = 0; addresses && i < w->n_matrices; i++)
        sample_matrix((size_t)model->format.nr, &w->matrices[i], addresses, &n);
    if (addresses)
        memory_placement(addresses, n, text, size);
    free(addresses);
}

/* Of a matrix. */
static double value_bytes(const weight_format *f, size_t number)
{
    const gemm_kernel *g = weight_format_gemm(f, number, 0);
    return (double)g->group_bytes / g->kr;
}

double qwen3_model_bytes_per_step(const qwen3_model *model, double rows)
{
    if (!model || !(rows > 0))
        return 0;
    double bytes = 0, experts = 0;
    for (size_t i = 0; i < source_tensors(model->source); i++) {
        const tensor *t = source_tensor(model->source, i);
        const double values = (double)t->rows * (double)t->cols;
        if (tensor_is_packed(t->kind))
            *(t->kind == TENSOR_EXPERT ? &experts : &bytes) += values * value_bytes(&model->format, i);
        else if (t->kind == TENSOR_ROUTER)
            bytes += values * sizeof(float);
    }
    if (experts > 0)
        bytes += experts * config_active_experts(&model->config, rows) / (double)model->config.num_experts;
    return bytes;
}

uint64_t qwen3_model_bytes_per_token(const qwen3_model *model)
{
    return (uint64_t)llround(qwen3_model_bytes_per_step(model, 1));
}

/* A model of at most this many bytes of weights lives in the caches. Rounding its activations, keys and values to BF16
 * would save microseconds and cost accuracy. */
#define SMALL_MODEL_BYTES ((double)(64 << 20))

static void set_level(qwen3_model *m, const kernels *k)
{
    m->kernels = k;
    m->format = source_weight_format(m->source, k, m->options.dtype);
}

/* The type whose rates are nearest to those of the weights. */
static qwen3_dtype nearest_dtype(const qwen3_model *m)
{
    double most = 0, bytes = 0;
    for (size_t i = 0; i < source_tensors(m->source); i++) {
        const tensor *t = source_tensor(m->source, i);
        const double values = tensor_is_packed(t->kind) ? (double)t->rows * (double)t->cols : 0;
        most += values;
        bytes += values * value_bytes(&m->format, i);
    }
    if (m->options.dtype != QWEN3_DTYPE_AUTO)
        return m->options.dtype;
    return bytes < 0.8 * most ? QWEN3_DTYPE_Q4 : QWEN3_DTYPE_Q8;
}

/* Sets the KV type, and with AUTO for a small model the best level that keeps activations in f32; keys and values are
 * then f32 too unless another type is asked for. */
static void choose_precision(qwen3_model *m, bool level_chosen)
{
    const bool choose_kv = m->options.kv_dtype == QWEN3_DTYPE_AUTO;
    const bool elements = m->options.dtype == QWEN3_DTYPE_F32 || m->options.dtype == QWEN3_DTYPE_BF16;
    m->plan.kv_dtype = !choose_kv ? m->options.kv_dtype : elements ? m->options.dtype : QWEN3_DTYPE_BF16;
    if (level_chosen || qwen3_model_bytes_per_step(m, INFINITY) > SMALL_MODEL_BYTES)
        return;
    while (m->format.activation != QWEN3_DTYPE_F32)
        set_level(m, m->kernels->below);
    if (choose_kv)
        m->plan.kv_dtype = QWEN3_DTYPE_F32;
}

/* A job over unlike nodes runs at the level that all of them have. */
static qwen3_status choose_level(qwen3_model *m, qwen3_error *err)
{
    bool chosen;
    if (agree_on_level(m, &chosen, err))
        return err->status;
    set_level(m, m->kernels);
    choose_precision(m, chosen);
    /* Ranks split `o` between heads: a group of its columns must not lie in two of them. */
    const int group = m->format.types ? 1 : m->kernels->gemm[m->options.dtype].kr;
    if (m->config.head_dim % group != 0)
        return fail(err, QWEN3_ERR_UNSUPPORTED, "dtype %s: %s has head_dim %lld, expected a multiple of %d",
                    qwen3_dtype_name(m->options.dtype), m->spec, (long long)m->config.head_dim, group);
    return QWEN3_OK;
}

static qwen3_status make_groups(qwen3_model *m, const grid *g, qwen3_error *err)
{
    int rank = comm_rank(m->world), s = rank / g->h, h = rank % g->h;
    qwen3_status status = comm_split(m->world, h, s, &m->sequence_comm, err);
    if (!status)
        status = comm_split(m->world, s, h, &m->head_comm, err);
    if (!status && m->options.share_weights)
        status = comm_split_node(m->sequence_comm, &m->share_comm, err);
    else if (!status)
        status = comm_split(m->world, rank, 0, &m->share_comm, err);
    return status;
}

static void fill_plan(qwen3_model *m, const grid *g, const qwen3_rank_info *info)
{
    m->place = plan_place(g, comm_rank(m->world));
    const head_shard shard = attention_heads(&m->config, m->place);
    m->plan = (qwen3_plan){.strategy = g->strategy,
                           .grid_sequence = g->s,
                           .grid_heads = g->h,
                           .sequence_index = m->place.s,
                           .head_index = m->place.h,
                           .dtype = nearest_dtype(m),
                           .stored_types = m->format.types != NULL,
                           .kv_dtype = m->plan.kv_dtype,
                           .isa = m->kernels->isa,
                           .threads = m->options.threads > 0 ? m->options.threads : info->default_threads,
                           .first_head = shard.heads.begin,
                           .num_heads = range_size(shard.heads),
                           .first_kv_head = shard.kv_heads.begin,
                           .num_kv_heads = range_size(shard.kv_heads)};
    snprintf(m->plan.reason, sizeof m->plan.reason, "%s", g->reason);
    snprintf(m->plan.warning, sizeof m->plan.warning, "%.127s%s%.255s", m->levels,
             m->levels[0] && g->warning[0] ? "; " : "", g->warning);
}

/* What AUTO goes by: the caller's machine, or a measurement where the model is worth one. In every other case nothing
 * is known. Collective; *err is agreed on. */
static qwen3_status choose_grid(qwen3_model *m, const qwen3_rank_info *info, grid *g, qwen3_error *err)
{
    qwen3_model_options options = m->options;
    const qwen3_model_options *o = &options;
    qwen3_machine measured;
    qwen3_status status = QWEN3_OK;
    plan_ranks ranks = {comm_size(m->world), info->nodes, o->machine};
    options.dtype = nearest_dtype(m);
    const bool automatic = o->strategy == QWEN3_STRATEGY_AUTO && o->grid_sequence == 0 && ranks.ranks > 1;
    if (automatic && !o->machine && qwen3_model_bytes_per_step(m, INFINITY) > SMALL_MODEL_BYTES) {
        status = qwen3_machine_measure(m->world, o->threads, m->kernels->isa, o->dtype, &measured, err);
        ranks.machine = &measured;
    }
    if (status)
        return status;
    plan_grid(&m->config, o, &ranks, g, err);
    if (qwen3_comm_agree(m->world, err))
        return err->status;
    comm_broadcast(m->world, g, sizeof *g, 0, QWEN3_COMM_CONTROL); /* rank 0's machine decides */
    m->overlap_min_rows = g->overlap_min_rows;
    if (o->machine) {
        const qwen3_scenario s = {.machine = o->machine,
                                  .nodes = info->nodes,
                                  .ranks_per_node = (ranks.ranks + info->nodes - 1) / info->nodes,
                                  .grid_sequence = g->s,
                                  .grid_heads = g->h};
        m->prices = cost_movement_prices(&s);
        comm_broadcast(m->world, &m->prices, sizeof m->prices, 0, QWEN3_COMM_CONTROL);
        m->options.machine = NULL; /* the caller's */
        m->priced = true;
    }
    return QWEN3_OK;
}

/* What the ranks of this node are about to allocate together must be there. */
static qwen3_status check_memory(qwen3_model *m, const declaration *d, qwen3_error *err)
{
    size_t slice, own;
    weights_bytes(d, &slice, &own);
    if (weights_mapped(m->source, d))
        slice = own = 0; /* pages of the file, which the system may drop */
    comm *node = NULL;
    qwen3_status status = comm_split_node(m->world, &node, err);
    if (status)
        return status;
    double need = (double)own + (double)slice / comm_size(m->share_comm), total = 0;
    size_t ranks = (size_t)comm_size(node);
    double *needs = calloc(ranks, sizeof *needs);
    size_t *bytes = calloc(ranks, sizeof *bytes);
    if (!needs || !bytes)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a table of %zu ranks", ranks);
    status = qwen3_comm_agree(m->world, err); /* what follows is collective over the node */
    if (!status) {
        for (size_t i = 0; i < ranks; i++)
            bytes[i] = sizeof *needs;
        comm_allgather(node, &need, needs, bytes, QWEN3_COMM_CONTROL);
        for (size_t i = 0; i < ranks; i++)
            total += needs[i];
        if (total > (double)memory_available())
            status = fail(err, QWEN3_ERR_MEMORY,
                          "%s: the weights need %.2f GiB on this node (%zu ranks), but %.2f GiB are available", m->spec,
                          total / (1 << 30), ranks, (double)memory_available() / (1 << 30));
    }
    free(needs);
    free(bytes);
    comm_free(node);
    return status;
}

/* The ranks of a node share the reading of what has checksums. */
static qwen3_status verify(qwen3_model *m, work *told, qwen3_error *err)
{
    comm *node = NULL;
    if (comm_split_node(m->world, &node, err))
        return err->status;
    source_verify(m->source, &(source_share){comm_rank(node), comm_size(node), m->plan.threads, told}, err);
    comm_free(node);
    return err->status;
}

static qwen3_status load(qwen3_model *m, const declaration *d, qwen3_error *err)
{
    work told = {.report = m->options.progress, .context = m->options.progress_context};
    m->options.progress = NULL; /* for the time of this call */
    check_memory(m, d, err);
    qwen3_status status = qwen3_comm_agree(m->world, err);
    if (!status) {
        verify(m, &told, err);
        status = qwen3_comm_agree(m->world, err);
    }
    if (status)
        return status;
    weights_load(&m->weights, m->source, d, m->share_comm, (packers){m->plan.threads, &told}, err);
    m->plan.weights_shared = m->weights.shared || m->weights.mapped;
    m->plan.weight_bytes = m->weights.slice_bytes + m->weights.own_bytes;
    size_t sharers = m->plan.weights_shared ? (size_t)comm_size(m->share_comm) : 1;
    m->plan.owned_bytes = m->weights.own_bytes + m->weights.slice_bytes / sharers;
    return qwen3_comm_agree(m->world, err);
}

/* AUTO is the type of a packed model, which cannot be had in another, or each matrix's own. */
static void choose_dtype(qwen3_model *m, qwen3_error *err)
{
    const packed_format *packed = source_format(m->source);
    if (m->options.dtype == QWEN3_DTYPE_AUTO)
        m->options.dtype = source_weight_format(m->source, kernels_get(QWEN3_ISA_C), QWEN3_DTYPE_AUTO).dtype;
    else if (packed && packed->dtype != m->options.dtype)
        fail(err, QWEN3_ERR_ARGUMENT,
             "dtype %s: %s is packed as %s; expected %s, or the checkpoint that it was packed from",
             qwen3_dtype_name(m->options.dtype), m->spec, packed_type_name(packed), packed_type_name(packed));
}

static qwen3_status open_model(qwen3_model *m, const char *spec, const qwen3_model_options *options, qwen3_error *err)
{
    m->options = options ? *options : qwen3_model_options_default();
    team_check_threads(m->options.threads, err);
    dtype_check(m->options.dtype, err);
    if (m->options.kv_dtype < QWEN3_DTYPE_AUTO || m->options.kv_dtype > QWEN3_DTYPE_Q8)
        fail(err, QWEN3_ERR_ARGUMENT, "kv_dtype %d: expected auto, f32, bf16 or q8", (int)m->options.kv_dtype);
    if (m->options.expected_tokens < 0)
        fail(err, QWEN3_ERR_ARGUMENT, "expected_tokens %lld: expected a positive number, or 0 where it is unknown",
             (long long)m->options.expected_tokens);
    if (m->options.machine)
        machine_check(m->options.machine, err);
    if (!missing(spec, "spec", err) && !(m->spec = strdup(spec)))
        fail(err, QWEN3_ERR_MEMORY, "no memory for the name of the model");
    if (!err->status)
        model_source_open(spec, m->options.seed, &m->source, &m->config, err);
    m->config.no_output_head |= m->options.no_output_head;
    if (!err->status)
        choose_dtype(m, err);
    qwen3_status status = agree_on_source(m, err);
    if (!status)
        status = choose_level(m, err);
    grid g;
    qwen3_rank_info info;
    if (!status) {
        if (!qwen3_comm_topology(m->world, &info, err))
            team_check_stacks(m->options.threads > 0 ? m->options.threads : info.default_threads, err);
        status = qwen3_comm_agree(m->world, err);
    }
    if (!status)
        status = choose_grid(m, &info, &g, err);
    if (!status) {
        make_groups(m, &g, err);
        status = qwen3_comm_agree(m->world, err);
    }
    if (!status)
        fill_plan(m, &g, &info);
    declaration d = {0};
    if (!status) {
        model_declare(&m->config, m->place, &m->format, &d, err);
        status = qwen3_comm_agree(m->world, err);
    }
    if (!status)
        status = load(m, &d, err);
    declaration_free(&d);
    return status;
}

qwen3_status qwen3_model_open(qwen3_comm *c, const char *spec, const qwen3_model_options *options, qwen3_model **model,
                              qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (!missing(model, "model", err))
        *model = NULL;
    if (missing(c, "comm", err))
        return err->status;
    qwen3_model *m = calloc(1, sizeof *m);
    if (m)
        *m = (qwen3_model){.users = 1, .world = comm_share(c)};
    else
        fail(err, QWEN3_ERR_MEMORY, "no memory for a model");
    qwen3_status status = qwen3_comm_agree(c, err);
    if (!status)
        status = open_model(m, spec, options, err);
    if (status) {
        qwen3_model_close(m);
        return status;
    }
    *model = m;
    return QWEN3_OK;
}

qwen3_model *model_share(qwen3_model *m)
{
    m->users++;
    return m;
}

void qwen3_model_close(qwen3_model *m)
{
    if (!m || --m->users > 0)
        return;
    weights_free(&m->weights);
    source_close(m->source);
    comm_free(m->share_comm);
    comm_free(m->head_comm);
    comm_free(m->sequence_comm);
    comm_free(m->world);
    free(m->spec);
    free(m);
}
