/* prompt_time.c - see prompt_time.h. */
#include "prompt_time.h"

#include <stdio.h>
#include <unistd.h>

#include "common/topology.h"

/* What is shorter is soon done, or is worth no measurement. */
#define LONG_TOKENS 8192

/* Seconds of all passes; 0 where they are not known. */
static double predict(const qwen3_scenario *s, const long_prompt *p)
{
    double seconds = 0;
    for (size_t at = p->held; at < p->end; at += p->chunk) {
        const size_t n = p->end - at < p->chunk ? p->end - at : p->chunk;
        const qwen3_forward_shape shape = {1, (int64_t)n, (int64_t)at};
        qwen3_prediction pass;
        if (qwen3_predict(s, &shape, &pass, NULL) != QWEN3_OK)
            return 0;
        seconds += pass.seconds;
    }
    return seconds;
}

/* What to measure: the rates of a type of weights go with keys and values of F32 or of BF16. */
static qwen3_dtype rates_of(const qwen3_plan *plan)
{
    const qwen3_dtype usual = plan->dtype == QWEN3_DTYPE_F32 ? QWEN3_DTYPE_F32 : QWEN3_DTYPE_BF16;
    return plan->kv_dtype == usual ? plan->dtype : QWEN3_DTYPE_AUTO;
}

static void print_note(const long_prompt *p, double seconds)
{
    if (seconds < 120)
        fprintf(stderr, "qwen3: note: %zu tokens of prompt should take about %.0f s\n", p->end - p->held, seconds);
    else
        fprintf(stderr, "qwen3: note: %zu tokens of prompt should take about %.0f min\n", p->end - p->held,
                seconds / 60);
}

void prompt_time_note(qwen3_comm *world, const qwen3_model *model, const long_prompt *prompt)
{
    const qwen3_plan *plan = qwen3_model_plan(model);
    const bool first = qwen3_comm_rank(world) == 0;
    bool shown = first && isatty(STDERR_FILENO);
    qwen3_machine machine;
    qwen3_rank_info info;
    qwen3_error ignored = {0}; /* the same on all ranks: without memory to measure with there is no note */
    if (prompt->end - prompt->held < LONG_TOKENS)
        return;
    qwen3_comm_broadcast(world, &shown, sizeof shown);
    if (!shown || qwen3_comm_topology(world, &info, &ignored) != QWEN3_OK ||
        qwen3_machine_measure(world, plan->threads, plan->isa, rates_of(plan), &machine, &ignored) != QWEN3_OK ||
        !first)
        return;
    qwen3_scenario scenario = {.config = qwen3_model_config(model),
                               .machine = &machine,
                               .grid_sequence = plan->grid_sequence,
                               .grid_heads = plan->grid_heads,
                               .dtype = plan->dtype,
                               .kv_dtype = plan->kv_dtype};
    scenario_place(&scenario, qwen3_comm_size(world), info.nodes);
    const double seconds = predict(&scenario, prompt);
    if (seconds > 0)
        print_note(prompt, seconds);
}
