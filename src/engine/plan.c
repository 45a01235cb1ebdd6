#include "engine/plan.h"

#include <math.h>
#include <stdio.h>

#include "engine/cost.h"

/* Where the caller expects no number of tokens. */
#define DEFAULT_TOKENS 512
/* A grid replaces one that was looked at before, with fewer sequence groups, where it is that much faster: predictions
 * that differ by less are equal, and the choice should not depend on the noise of a measurement. */
#define FASTER 0.97

static qwen3_parallel_strategy strategy_of(int s, int h)
{
    return h == 1 && s > 1 ? QWEN3_STRATEGY_SEQUENCE : s == 1 ? QWEN3_STRATEGY_HEAD_WISE : QWEN3_STRATEGY_HYBRID;
}

static void set(grid *g, qwen3_parallel_strategy strategy, int s, int h, const char *reason)
{
    g->strategy = strategy;
    g->s = s;
    g->h = h;
    snprintf(g->reason, sizeof g->reason, "%s", reason);
}

/* Half of the tokens that are expected are a prompt where generation is expected. */
static cost_phases phases_of(const qwen3_model_options *o)
{
    const int64_t tokens = o->expected_tokens > 0 ? o->expected_tokens : DEFAULT_TOKENS;
    const int64_t generate = o->expect_decode ? (tokens + 1) / 2 : 0;
    return (cost_phases){tokens - generate, generate};
}

typedef struct candidate {
    int s, h;
    double seconds;
} candidate;

/* The fastest grid; the runner-up in *next. hybrid: only those with both sides above 1. seconds are infinite where
 * there is none. */
static candidate fastest(const qwen3_scenario *ranks, cost_phases phases, bool hybrid, candidate *next)
{
    const int n = ranks->nodes * ranks->ranks_per_node;
    candidate best = {1, n, INFINITY};
    *next = best;
    for (int s = 1; s <= n; s++) {
        if (n % s != 0 || (hybrid && (s == 1 || s == n)))
            continue;
        qwen3_scenario scenario = *ranks;
        scenario.grid_sequence = s;
        scenario.grid_heads = n / s;
        const candidate c = {s, n / s, cost_seconds(&scenario, phases)};
        const bool better = isinf(best.seconds) || c.seconds < FASTER * best.seconds;
        if (better || c.seconds < next->seconds)
            *next = better ? best : c;
        if (better)
            best = c;
    }
    return best;
}

static void explain(grid *g, const candidate *best, const candidate *next, cost_phases phases)
{
    char work[64] = "", other[64] = "";
    if (phases.prompt)
        snprintf(work, sizeof work, "%lld tokens%s", (long long)phases.prompt, phases.generate ? " and " : "");
    if (phases.generate) {
        const size_t used = strlen(work);
        snprintf(work + used, sizeof work - used, "%lld steps", (long long)phases.generate);
    }
    if (isfinite(next->seconds))
        snprintf(other, sizeof other, ", %dx%d %.3g s", next->s, next->h, next->seconds);
    snprintf(g->reason, sizeof g->reason, "auto: predicted for %s: %dx%d %.3g s%s", work, best->s, best->h,
             best->seconds, other);
}

/* The rule of AUTO. */
static void choose(const qwen3_scenario *ranks, const qwen3_model_options *options, bool known, grid *g)
{
    const cost_phases phases = phases_of(options);
    candidate next, other;
    const candidate best = fastest(ranks, phases, false, &next);
    set(g, strategy_of(best.s, best.h), best.s, best.h, "auto: one rank, nothing to split");
    if (best.s * best.h == 1)
        return;
    explain(g, &best, &next, phases);
    if (!known || ranks->nodes == 1)
        return;
    qwen3_scenario alone = *ranks;
    alone.nodes = 1;
    const double seconds = fastest(&alone, phases, false, &other).seconds;
    if (seconds < FASTER * best.seconds)
        snprintf(g->warning, sizeof g->warning,
                 "one node alone, with %d rank%s, is predicted to take %.3g s, and the %d nodes %.3g s: start the job "
                 "on one node",
                 alone.ranks_per_node, alone.ranks_per_node == 1 ? "" : "s", seconds, ranks->nodes, best.seconds);
}

/* HYBRID without a grid; where no grid has two sides, SEQUENCE in all but name. */
static void choose_hybrid(const qwen3_scenario *ranks, const qwen3_model_options *options, grid *g)
{
    candidate next;
    const candidate best = fastest(ranks, phases_of(options), true, &next);
    const int n = ranks->nodes * ranks->ranks_per_node;
    set(g, QWEN3_STRATEGY_HYBRID, isfinite(best.seconds) ? best.s : n, isfinite(best.seconds) ? best.h : 1, "given");
}

/* A given grid. */
static qwen3_status check_grid(const qwen3_model_options *o, int ranks, qwen3_error *err)
{
    const int s = o->grid_sequence, h = o->grid_heads;
    if (s < 0 || h < 0 || (s == 0) != (h == 0))
        return fail(err, QWEN3_ERR_ARGUMENT, "grid %dx%d: expected two positive numbers S x H, or 0 x 0 to choose", s,
                    h);
    if (s > 0 && (int64_t)s * h != ranks)
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "grid %dx%d has %lld places, but the job has %d ranks; expected S x H = ranks", s, h,
                    (long long)s * h, ranks);
    if (o->strategy == QWEN3_STRATEGY_HEAD_WISE && s > 1)
        return fail(err, QWEN3_ERR_ARGUMENT, "grid %dx%d contradicts strategy headwise, which is 1 x ranks", s, h);
    if (o->strategy == QWEN3_STRATEGY_SEQUENCE && h > 1)
        return fail(err, QWEN3_ERR_ARGUMENT, "grid %dx%d contradicts strategy sequence, which is ranks x 1", s, h);
    return QWEN3_OK;
}

qwen3_status plan_grid(const qwen3_config *config, const qwen3_model_options *options, const plan_ranks *ranks,
                       grid *out, qwen3_error *err)
{
    *out = (grid){.deterministic = options->deterministic};
    const qwen3_machine assumed = qwen3_machine_default();
    const int n = ranks->ranks, s = options->grid_sequence, h = options->grid_heads;
    /* Nodes with unlike numbers of ranks are not predicted: it is as if all ranks were on one. */
    const int nodes = n % ranks->nodes ? 1 : ranks->nodes;
    const qwen3_scenario scenario = {.config = config,
                                     .machine = ranks->machine ? ranks->machine : &assumed,
                                     .nodes = nodes,
                                     .ranks_per_node = n / nodes,
                                     .dtype = options->dtype,
                                     .kv_dtype = options->kv_dtype,
                                     .priced = options->machine != NULL,
                                     .overlap_min_rows = ranks->machine ? -1 : 0};
    qwen3_status status = check_grid(options, n, err);
    if (status)
        return status;
    switch (options->strategy) {
    case QWEN3_STRATEGY_AUTO:
        if (s > 0)
            set(out, strategy_of(s, h), s, h, "grid given");
        else
            choose(&scenario, options, ranks->machine != NULL, out);
        break;
    case QWEN3_STRATEGY_HEAD_WISE:
        set(out, options->strategy, 1, n, "given");
        break;
    case QWEN3_STRATEGY_SEQUENCE:
        set(out, options->strategy, n, 1, "given");
        break;
    case QWEN3_STRATEGY_HYBRID:
        if (s > 0)
            set(out, options->strategy, s, h, "given");
        else
            choose_hybrid(&scenario, options, out);
        break;
    default:
        return fail(err, QWEN3_ERR_ARGUMENT, "strategy %d is unknown", (int)options->strategy);
    }
    if (ranks->machine && nodes > 1) {
        qwen3_scenario chosen = scenario;
        chosen.grid_sequence = out->s;
        chosen.grid_heads = out->h;
        out->overlap_min_rows = cost_overlap_min_rows(&chosen);
    }
    return QWEN3_OK;
}
