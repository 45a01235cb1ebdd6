/* Step 6: generate greedily, two sequences of different length in one batch.
 *
 * Prefill, decode and mixtures of them are one call: a batch is a list of tokens, each with its sequence. The first
 * call has both prompts, every later one a token of each sequence. qwen3_argmax gives the next tokens to all
 * ranks without moving whole rows of logits.
 *
 *   mpirun -n 2 6_generate synthetic:tiny 16
 */
#include <stdio.h>
#include <stdlib.h>

#include "qwen3.h"

enum { SEQUENCES = 2, MAX_NEW_TOKENS = 1000 };

static const int32_t prompt_tokens[] = {11, 12, 13, 14, 15, /* sequence 0 */ 21, 22, 23 /* sequence 1 */};
static const int32_t prompt_sequences[] = {0, 0, 0, 0, 0, 1, 1, 1};

/* generated [count][SEQUENCES] */
static qwen3_status generate(qwen3_session *session, int count, int32_t *generated, qwen3_error *err)
{
    static const int32_t sequences[SEQUENCES] = {0, 1};
    qwen3_batch batch = {.n_tokens = sizeof prompt_tokens / sizeof *prompt_tokens,
                         .tokens = prompt_tokens,
                         .sequences = prompt_sequences};
    for (int i = 0; i < count; i++) {
        int32_t *next = generated + i * SEQUENCES;
        qwen3_status status = qwen3_forward(session, &batch, err);
        if (status == QWEN3_OK)
            status = qwen3_argmax(session, next, err); /* one row per sequence: its last token */
        if (status != QWEN3_OK)
            return status;
        batch = (qwen3_batch){.n_tokens = SEQUENCES, .tokens = next, .sequences = sequences};
    }
    return QWEN3_OK;
}

static qwen3_status run(qwen3_comm *world, const char *spec, int count, qwen3_error *err)
{
    qwen3_model *model = NULL;
    qwen3_session *session = NULL;
    int32_t *generated = NULL;

    qwen3_model_options options = qwen3_model_options_default(); /* strategy AUTO */
    options.expect_decode = true;
    qwen3_status status = qwen3_model_open(world, spec, &options, &model, err);
    if (status != QWEN3_OK)
        goto done;
    qwen3_session_options session_options = qwen3_session_options_default();
    session_options.max_sequences = SEQUENCES;
    session_options.max_tokens = 8 + count;
    status = qwen3_session_open(model, &session_options, &session, err);
    if (status != QWEN3_OK)
        goto done;

    generated = calloc((size_t)count * SEQUENCES, sizeof *generated);
    if (!generated)
        err->status = QWEN3_ERR_MEMORY;
    status = qwen3_comm_agree(world, err);
    if (status == QWEN3_OK)
        status = generate(session, count, generated, err);
    if (status != QWEN3_OK || qwen3_comm_rank(world) != 0)
        goto done;

    for (int s = 0; s < SEQUENCES; s++) {
        printf("sequence %d:", s);
        for (int i = 0; i < count; i++)
            printf(" %d", generated[i * SEQUENCES + s]);
        printf("\n");
    }
    qwen3_session_info info;
    qwen3_session_get_info(session, &info);
    for (int kind = 0; kind < QWEN3_COMM_KINDS; kind++)
        printf("rank 0 sent %llu bytes of %s\n", (unsigned long long)info.comm.bytes[kind],
               qwen3_comm_kind_name((qwen3_comm_kind)kind));
done:
    free(generated);
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
    long count = argc > 2 ? strtol(argv[2], NULL, 10) : 8;
    if (count < 1 || count > MAX_NEW_TOKENS)
        count = 8;
    if (status == QWEN3_OK)
        status = run(world, argc > 1 ? argv[1] : "synthetic:tiny", (int)count, &err);
    if (status != QWEN3_OK && root)
        fprintf(stderr, "%s on rank %d (%s): %s\n", qwen3_status_name(status), err.rank, err.host, err.message);
    qwen3_finalize();
    return status == QWEN3_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
