/* Step 5: open a model and take logits.
 *
 * A model is the weights and is immutable. A session is the state of conversations: KV cache and positions. All ranks
 * open both together. Rank 0 receives the logits of the last position.
 *
 *   mpirun -n 2 5_logits synthetic:tiny            or a directory with config.json and model.safetensors
 */
#include <stdio.h>
#include <stdlib.h>

#include "qwen3.h"

static qwen3_status print_best(qwen3_comm *world, const char *spec, qwen3_error *err)
{
    static const int32_t prompt[] = {9, 8, 7, 6, 5, 4, 3, 2, 1};
    qwen3_model *model = NULL;
    qwen3_session *session = NULL;
    float *logits = NULL;

    qwen3_model_options options = qwen3_model_options_default();
    options.strategy = QWEN3_STRATEGY_SEQUENCE;
    options.dtype = QWEN3_DTYPE_F32;
    qwen3_status status = qwen3_model_open(world, spec, &options, &model, err);
    if (status != QWEN3_OK)
        goto done;

    qwen3_session_options session_options = qwen3_session_options_default();
    session_options.max_sequences = 1;
    session_options.max_tokens = 64;
    session_options.algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX;
    status = qwen3_session_open(model, &session_options, &session, err);
    if (status != QWEN3_OK)
        goto done;

    /* sequences, positions, logits NULL: all of sequence 0, continuing what it holds, logits of the last token */
    qwen3_batch batch = {.n_tokens = sizeof prompt / sizeof *prompt, .tokens = prompt};
    status = qwen3_forward(session, &batch, err);
    if (status != QWEN3_OK)
        goto done;

    size_t vocab_size = (size_t)qwen3_model_config(model)->vocab_size;
    bool root = qwen3_comm_rank(world) == 0;
    if (root)
        logits = malloc(vocab_size * sizeof *logits);
    /* If memory is short on one rank, all ranks must know: none may wait for a rank that gave up. */
    if (root && !logits)
        err->status = QWEN3_ERR_MEMORY;
    status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = qwen3_logits(session, logits, err);
    if (status != QWEN3_OK || !root)
        goto done;

    size_t best = 0;
    for (size_t i = 1; i < vocab_size; i++)
        if (logits[i] > logits[best])
            best = i;
    const qwen3_plan *plan = qwen3_model_plan(model);
    printf("%d ranks as %d sequence groups x %d head groups: token %zu, logit %.6f of %zu logits\n",
           qwen3_comm_size(world), plan->grid_sequence, plan->grid_heads, best, logits[best], vocab_size);
done:
    free(logits);
    qwen3_session_close(session);
    qwen3_model_close(model);
    return status;
}

int main(int argc, char **argv)
{
    qwen3_error err = {0};
    qwen3_comm *world;
    qwen3_status status = qwen3_init(&argc, &argv, &world, &err);
    bool root = status != QWEN3_OK || qwen3_comm_rank(world) == 0;
    if (status == QWEN3_OK)
        status = print_best(world, argc > 1 ? argv[1] : "synthetic:tiny", &err);
    if (status != QWEN3_OK && root)
        fprintf(stderr, "%s on rank %d (%s): %s\n", qwen3_status_name(status), err.rank, err.host, err.message);
    qwen3_finalize();
    return status == QWEN3_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
