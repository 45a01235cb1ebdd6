#include "engine/plan.h"

#include <stdio.h>

/* Below this many prompt tokens per rank, splitting positions leaves ranks idle or with too few rows to
 * fill the matrix kernels. */
#define AUTO_TOKENS_PER_RANK 32

/* Largest divisor of ranks that is at most the number of KV heads: no KV head is repeated. */
static int widest_head_group(int ranks, int64_t kv_heads)
{
    int h = 1;
    for (int d = 1; d <= ranks && d <= kv_heads; d++)
        if (ranks % d == 0)
            h = d;
    return h;
}

static void set(grid *g, int s, int h, const char *reason)
{
    g->s = s;
    g->h = h;
    g->strategy = h == 1 && s > 1 ? QWEN3_STRATEGY_SEQUENCE : s == 1 ? QWEN3_STRATEGY_HEAD_WISE : QWEN3_STRATEGY_HYBRID;
    snprintf(g->reason, sizeof g->reason, "%s", reason);
}

/* The rule of AUTO.
 *   one rank            HEAD_WISE (nothing is split)
 *   generation expected as many head groups as KV heads allow (two messages a layer in a decode step instead
 *                       of four); ranks beyond that become sequence groups, which split the KV cache
 *   prefill, long       SEQUENCE: no communication in linear layers; K and V of all heads are fewer bytes
 *                       than two reductions of the hidden state in every published size
 *   prefill, short      as for generation: too few positions per rank to split */
static void choose(const qwen3_config *config, const qwen3_model_options *options, int ranks, grid *g)
{
    int h = widest_head_group(ranks, config->num_kv_heads);
    if (ranks == 1)
        set(g, 1, 1, "auto: one rank, nothing to split");
    else if (!options->expect_decode && options->expected_tokens >= (int64_t)AUTO_TOKENS_PER_RANK * ranks)
        set(g, ranks, 1, "auto: prefill long enough to split positions; only keys and values travel");
    else if (h == ranks)
        set(g, 1, ranks, "auto: two reductions a layer are the fewest messages for short steps");
    else
        set(g, ranks / h, h, "auto: more ranks than KV heads divide among; the rest split the positions");
}

qwen3_status plan_grid(const qwen3_config *config, const qwen3_model_options *options, int ranks, grid *out,
                       qwen3_error *err)
{
    *out = (grid){0};
    int s = options->grid_sequence, h = options->grid_heads;
    if (s < 0 || h < 0 || (s == 0) != (h == 0))
        return fail(err, QWEN3_ERR_ARGUMENT, "grid %dx%d: expected two positive numbers S x H, or 0 x 0 to choose", s,
                    h);
    if (s > 0 && (int64_t)s * h != ranks)
        return fail(err, QWEN3_ERR_ARGUMENT,
                    "grid %dx%d has %lld places, but the job has %d ranks; expected S x H = ranks", s, h,
                    (long long)s * h, ranks);
    switch (options->strategy) {
    case QWEN3_STRATEGY_AUTO:
        if (s > 0)
            set(out, s, h, "grid given");
        else
            choose(config, options, ranks, out);
        return QWEN3_OK;
    case QWEN3_STRATEGY_HEAD_WISE:
        if (s > 1)
            return fail(err, QWEN3_ERR_ARGUMENT, "grid %dx%d contradicts strategy headwise, which is 1 x ranks", s, h);
        set(out, 1, ranks, "given");
        break;
    case QWEN3_STRATEGY_SEQUENCE:
        if (h > 1)
            return fail(err, QWEN3_ERR_ARGUMENT, "grid %dx%d contradicts strategy sequence, which is ranks x 1", s, h);
        set(out, ranks, 1, "given");
        break;
    case QWEN3_STRATEGY_HYBRID:
        if (s == 0) {
            /* As square as it goes: both axes really split where the number of ranks allows. */
            h = 1;
            for (int d = 1; d * d <= ranks; d++)
                if (ranks % d == 0 && d <= config->num_kv_heads)
                    h = d;
            s = ranks / h;
        }
        set(out, s, h, "given");
        break;
    default:
        return fail(err, QWEN3_ERR_ARGUMENT, "strategy %d is unknown", (int)options->strategy);
    }
    out->strategy = options->strategy;
    return QWEN3_OK;
}
