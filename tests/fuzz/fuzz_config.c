/* fuzz_config.c - libFuzzer target: the configuration of a model. Parts of the input: config.json, and
 * generation_config.json unless it is empty. What is accepted must be within the bounds that the rest relies on. */
#include <math.h>

#include "fuzz/fuzz.h"
#include "model/config.h"
#include "model/sampler.h"

static void check_config(const qwen3_config *c)
{
    const qwen3_forward_shape step = {.batch = 1, .tokens = 1, .past = c->max_positions};
    demand(config_check(c, "accepted", NULL) == QWEN3_OK && c->architecture);
    demand(isfinite(qwen3_forward_flops(c, &step)) && qwen3_kv_bytes_per_token(c, QWEN3_DTYPE_Q8) > 0);
    if (c->num_layers <= 8) /* every layer is declared */
        demand(qwen3_memory_estimate(c, QWEN3_STRATEGY_HEAD_WISE, 2, 1, QWEN3_DTYPE_F32) > 0);
}

static void check_generation(const qwen3_generation_config *g)
{
    demand(sampling_options_check(&g->sampling, "", NULL) == QWEN3_OK);
    demand(g->n_end_tokens >= 0 && g->n_end_tokens <= QWEN3_MAX_END_TOKENS);
    for (int i = 0; i < g->n_end_tokens; i++)
        demand(g->end_tokens[i] >= 0 && qwen3_generation_config_ends(g, g->end_tokens[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_part rest = {data, size};
    write_file("config.json", next_part(&rest));
    if (rest.size > 0)
        write_file("generation_config.json", next_part(&rest));
    qwen3_config config;
    qwen3_generation_config generation;
    qwen3_error err = {0};
    if (succeeded(qwen3_config_read(directory(), &config, &err), &err))
        check_config(&config);
    if (succeeded(qwen3_generation_config_read(directory(), &generation, &err), &err))
        check_generation(&generation);
    unlink(path_of("generation_config.json").text);
    return 0;
}
