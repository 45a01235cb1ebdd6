/* fuzz_machine.c - libFuzzer target: any bytes as the file of a machine. What is accepted must be written and read
 * again as the same machine, and give a prediction or say why not. */
#include "fuzz/fuzz.h"

static void predict(const qwen3_machine *m)
{
    qwen3_config config;
    qwen3_prediction prediction;
    qwen3_error err = {0};
    demand(qwen3_config_read("synthetic:tiny", &config, NULL) == QWEN3_OK);
    const qwen3_scenario scenario = {.config = &config,
                                     .machine = m,
                                     .nodes = 2,
                                     .ranks_per_node = 2,
                                     .grid_sequence = 2,
                                     .grid_heads = 2,
                                     .dtype = QWEN3_DTYPE_AUTO,
                                     .kv_dtype = QWEN3_DTYPE_AUTO,
                                     .priced = true};
    const qwen3_forward_shape shape = {.batch = 1, .tokens = 64};
    if (succeeded(qwen3_predict(&scenario, &shape, &prediction, &err), &err))
        demand(prediction.seconds >= 0 && prediction.movement);
}

/* Numbers are written with six digits: what was written once stays the same. */
static void write_again(const qwen3_machine *m)
{
    qwen3_machine once, twice;
    fuzz_file file = open_memory_file("", 0);
    qwen3_error err = {0};
    if (succeeded(qwen3_machine_write(file.path, m, &err), &err)) {
        demand(qwen3_machine_read(file.path, &once, NULL) == QWEN3_OK);
        demand(qwen3_machine_write(file.path, &once, NULL) == QWEN3_OK);
        demand(qwen3_machine_read(file.path, &twice, NULL) == QWEN3_OK);
        demand(memcmp(once.product_values, twice.product_values, sizeof once.product_values) == 0);
        demand(once.nodes == m->nodes && once.threads == m->threads && once.isa == m->isa);
    }
    close(file.descriptor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_file file = open_memory_file(data, size);
    qwen3_machine machine;
    qwen3_error err = {0};
    if (succeeded(qwen3_machine_read(file.path, &machine, &err), &err)) {
        predict(&machine);
        write_again(&machine);
    }
    close(file.descriptor);
    return 0;
}
