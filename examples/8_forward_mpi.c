/* Step 8: a program that has MPI of its own (qwen3_mpi.h, in builds with MPI).
 *
 * It computes the logits of two prompts on a communicator of its own, once with each strategy, and compares them. The
 * model is opened for one strategy; a variant of it serves the other, and is kept for later calls.
 *
 *   mpirun -n 2 8_forward_mpi synthetic:tiny
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "qwen3_mpi.h"

enum { BATCH = 2, LENGTH = 6 };

static const int32_t prompts[BATCH * LENGTH] = {11, 12, 13, 14, 15, 16, /* the other: */ 21, 22, 23, 24, 25, 26};

/* logits [BATCH, LENGTH, vocab_size]: the largest logit after each prompt. */
static void print_best(const float *logits, size_t vocab_size)
{
    for (size_t b = 0; b < BATCH; b++) {
        const float *last = logits + (b * LENGTH + LENGTH - 1) * vocab_size;
        size_t best = 0;
        for (size_t i = 1; i < vocab_size; i++)
            if (last[i] > last[best])
                best = i;
        printf("prompt %zu: token %zu\n", b, best);
    }
}

static qwen3_status compare(qwen3_comm *comm, MPI_Comm mpi, const char *spec, qwen3_error *err)
{
    qwen3_model *model = NULL;
    qwen3_model_variants variants = {0};
    float *logits[2] = {NULL, NULL};
    const qwen3_parallel_strategy strategies[2] = {QWEN3_STRATEGY_HEAD_WISE, QWEN3_STRATEGY_SEQUENCE};
    qwen3_model_options options = qwen3_model_options_default();
    options.strategy = strategies[0];
    options.dtype = QWEN3_DTYPE_F32;
    qwen3_status status = qwen3_model_open(comm, spec, &options, &model, err);
    if (status != QWEN3_OK)
        return status;

    size_t vocab_size = (size_t)qwen3_model_config(model)->vocab_size, n = BATCH * LENGTH * vocab_size;
    bool root = qwen3_comm_rank(comm) == 0; /* rank 0 alone receives logits */
    for (int i = 0; root && i < 2; i++)
        if (!(logits[i] = malloc(n * sizeof *logits[i])))
            err->status = QWEN3_ERR_MEMORY;
    status = qwen3_comm_agree(comm, err);
    for (int i = 0; status == QWEN3_OK && i < 2; i++) {
        const qwen3_forward_args args = {.model = model,
                                         .variants = &variants,
                                         .input_ids = prompts,
                                         .batch = BATCH,
                                         .seq_len = LENGTH,
                                         .strategy = strategies[i],
                                         .algorithm = QWEN3_ATTENTION_ONLINE_SOFTMAX,
                                         .logits = logits[i]};
        status = qwen3_forward_mpi_omp(&args, mpi, err);
    }
    if (status == QWEN3_OK && root) {
        float largest = 0.0f;
        for (size_t i = 0; i < n; i++)
            largest = fmaxf(largest, fabsf(logits[0][i] - logits[1][i]));
        print_best(logits[0], vocab_size);
        printf("the strategies agree: %s\n", largest < 1e-3f ? "yes" : "no");
    }
    qwen3_model_variants_free(&variants);
    qwen3_model_close(model);
    free(logits[0]);
    free(logits[1]);
    return status;
}

int main(int argc, char **argv)
{
    qwen3_error err = {0};
    qwen3_comm *comm = NULL;
    int provided, rank;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    qwen3_status status = qwen3_comm_from_mpi(MPI_COMM_WORLD, &comm, &err);
    if (status == QWEN3_OK)
        status = compare(comm, MPI_COMM_WORLD, argc > 1 ? argv[1] : "synthetic:tiny", &err);
    if (status != QWEN3_OK && rank == 0)
        fprintf(stderr, "%s: %s\n", qwen3_status_name(status), err.message);
    qwen3_comm_free(comm);
    MPI_Finalize();
    return status == QWEN3_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
