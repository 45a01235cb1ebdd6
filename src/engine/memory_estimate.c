/* memory_estimate.c - what weights a rank will hold: the declarations of all places of a grid, summed up. */
#include <stdlib.h>

#include "blocks/architectures.h"
#include "engine/plan.h"
#include "model/config.h"
#include "model/weights.h"

/* Ranks of the sequence group of `rank` that are on its node, which has consecutive ranks. */
static int sharers_of(const grid *g, int rank, int nodes)
{
    const int ranks = g->s * g->h, node = rank * nodes / ranks;
    int n = 1;
    for (int r = 0; r < ranks; r++)
        n += r != rank && r * nodes / ranks == node && r % g->h == rank % g->h;
    return n;
}

/* Each of them is looked at. */
enum { MOST_ESTIMATED_RANKS = 1 << 14 };

static bool arguments_good(const qwen3_config *config, int ranks, int nodes)
{
    return kernels_get(QWEN3_ISA_AUTO) && config && config_check(config, "config", NULL) == QWEN3_OK && nodes >= 1 &&
           ranks >= nodes && ranks <= MOST_ESTIMATED_RANKS;
}

/* Bytes of the fullest rank; 0 where an argument is wrong. */
static uint64_t fullest(const qwen3_config *config, const weight_format *format, qwen3_parallel_strategy strategy,
                        int ranks, int nodes)
{
    qwen3_model_options options = qwen3_model_options_default();
    options.strategy = strategy;
    grid g;
    if (plan_grid(config, &options, &(plan_ranks){ranks, nodes, NULL}, &g, NULL))
        return 0;
    uint64_t most = 0;
    for (int rank = 0; rank < ranks; rank++) {
        declaration d;
        if (model_declare(config, plan_place(&g, rank), format, &d, NULL))
            return 0;
        size_t slice, own;
        weights_bytes(&d, &slice, &own);
        declaration_free(&d);
        uint64_t bytes = own + slice / (uint64_t)sharers_of(&g, rank, nodes);
        most = bytes > most ? bytes : most;
    }
    return most;
}

uint64_t qwen3_memory_estimate(const qwen3_config *config, qwen3_parallel_strategy strategy, int ranks, int nodes,
                               qwen3_dtype dtype)
{
    if (!arguments_good(config, ranks, nodes) || dtype_check(dtype, NULL))
        return 0;
    const weight_format format =
        weight_format_of(kernels_get(QWEN3_ISA_AUTO), dtype == QWEN3_DTYPE_AUTO ? QWEN3_DTYPE_BF16 : dtype);
    return fullest(config, &format, strategy, ranks, nodes);
}

/* types[number] of all tensors that are declared out of a list, which has them in this order but for those that are
 * stored in the place of another: they have the type of that one. *highest is that of them which comes last. Returns
 * false where the list is not that of such a model. */
static bool find_types(const declaration *d, const qwen3_tensor_info *tensors, size_t n, weight_type *types,
                       weight_type *highest)
{
    size_t next = 0;
    *highest = QWEN3_DTYPE_F32;
    for (size_t i = 0; i < d->n_tensors; i++) {
        const tensor *t = &d->tensors[i];
        const bool listed = next < n && strcmp(tensors[next].name, t->name) == 0;
        types[i] = t->same_as != i ? types[t->same_as] : QWEN3_DTYPE_F32;
        if (listed && tensors[next].held[0] && !weight_type_parse(tensors[next].held, &types[i]))
            return false;
        *highest = types[i] > *highest ? types[i] : *highest;
        next += listed;
    }
    return next == n;
}

uint64_t qwen3_memory_estimate_tensors(const qwen3_config *config, const qwen3_tensor_info *tensors, size_t n,
                                       qwen3_parallel_strategy strategy, int ranks, int nodes)
{
    declaration d;
    uint64_t bytes = 0;
    if (!tensors || !arguments_good(config, ranks, nodes) ||
        model_declare(config, (grid_place){1, 1, 0, 0, false}, NULL, &d, NULL))
        return 0;
    weight_type *types = calloc(d.n_tensors, sizeof *types), highest;
    if (types && find_types(&d, tensors, n, types, &highest)) {
        const kernels *k = kernels_get(QWEN3_ISA_AUTO);
        const weight_format format = highest >= DTYPE_COUNT ? weight_format_stored(k, types, d.n_tensors)
                                                            : weight_format_of(k, (qwen3_dtype)highest);
        bytes = fullest(config, &format, strategy, ranks, nodes);
    }
    free(types);
    declaration_free(&d);
    return bytes;
}
