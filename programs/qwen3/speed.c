/* speed.c - see speed.h. */
#include "speed.h"

#include <stdio.h>

#include "common/topology.h"

/* A prompt, and a step of decode behind some tokens. */
enum { PROMPT_TOKENS = 512, DECODE_PAST = 1024, ANSWER_TOKENS = 128 };
#define LEAST_BYTES (64u << 20) /* of weights; less stay in the caches, whose rates are not measured */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

typedef struct speed {
    int s, h;            /* the grid */
    double step, prompt; /* seconds */
} speed;

/* Of the grids that the ranks can have the fastest one for a prompt and an answer; false where the rates of dtype are
 * not known. */
static bool predict(qwen3_scenario *scenario, speed *best)
{
    const int ranks = scenario->nodes * scenario->ranks_per_node;
    const int64_t positions = scenario->config->max_positions;
    const qwen3_forward_shape prompt = {1, least(PROMPT_TOKENS, positions), 0};
    const qwen3_forward_shape step = {1, 1, least(DECODE_PAST, positions - 1)};
    *best = (speed){0};
    for (int s = 1; s <= ranks; s++) {
        qwen3_prediction whole, one;
        scenario->grid_sequence = s;
        scenario->grid_heads = ranks / s;
        if (ranks % s != 0 || qwen3_predict(scenario, &prompt, &whole, NULL) != QWEN3_OK ||
            qwen3_predict(scenario, &step, &one, NULL) != QWEN3_OK)
            continue;
        if (best->s == 0 || whole.seconds + ANSWER_TOKENS * one.seconds < best->prompt + ANSWER_TOKENS * best->step)
            *best = (speed){s, ranks / s, one.seconds, whole.seconds};
    }
    return best->s != 0;
}

static void print_table(qwen3_scenario *scenario, const char *machine_file)
{
    static const qwen3_dtype dtypes[] = {QWEN3_DTYPE_F32, QWEN3_DTYPE_BF16, QWEN3_DTYPE_Q8, QWEN3_DTYPE_Q4};
    const int ranks = scenario->nodes * scenario->ranks_per_node;
    const int64_t positions = scenario->config->max_positions;
    printf("\nTokens per second here, predicted for %d rank%s from %s\n  %-6s %-7s %18s %18s\n", ranks,
           ranks == 1 ? "" : "s", machine_file ? machine_file : "what was measured now", "dtype", "grid", "decode",
           "prefill");
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        speed found;
        scenario->dtype = dtypes[i];
        if (predict(scenario, &found))
            printf("  %-6s %dx%-5d %18.1f %18.1f\n", qwen3_dtype_name(dtypes[i]), found.s, found.h, 1 / found.step,
                   (double)least(PROMPT_TOKENS, positions) / found.prompt);
    }
    printf("(decode of one sequence that holds %d tokens, a prompt of %d; benchmark_qwen3 measures)\n",
           (int)least(DECODE_PAST, positions - 1), (int)least(PROMPT_TOKENS, positions));
}

qwen3_status print_speed(qwen3_comm *world, const qwen3_config *config, qwen3_dtype dtype, const speed_options *options,
                         qwen3_error *err)
{
    qwen3_rank_info info;
    qwen3_machine machine;
    const bool first = qwen3_comm_rank(world) == 0;
    struct {
        bool worth;
        qwen3_dtype dtype;
    } shared = {first && qwen3_memory_estimate(config, QWEN3_STRATEGY_HEAD_WISE, 1, 1, dtype) > LEAST_BYTES, dtype};
    qwen3_comm_broadcast(world, &shared, sizeof shared);
    if (!shared.worth)
        return QWEN3_OK;
    qwen3_status status = qwen3_comm_topology(world, &info, err);
    if (status != QWEN3_OK)
        return status;
    if (options->machine_file)
        qwen3_machine_read(options->machine_file, &machine, err);
    status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK && !options->machine_file)
        status = qwen3_machine_measure(world, options->threads, QWEN3_ISA_AUTO, shared.dtype, &machine, err);
    if (status != QWEN3_OK || !first)
        return status;
    qwen3_scenario scenario = {
        .config = config, .machine = &machine, .kv_dtype = QWEN3_DTYPE_AUTO, .overlap_min_rows = -1};
    scenario_place(&scenario, qwen3_comm_size(world), info.nodes);
    print_table(&scenario, options->machine_file);
    return QWEN3_OK;
}
