/* test_forward_mpi.c - the whole-model calls over an MPI communicator: every strategy and algorithm from one
 * model handle, on the communicator it was opened with and on others, and the deprecated form. */
#include <math.h>

#include "check.h"
#include "qwen3_mpi.h"

/* As small models are computed, all but the weights in f32, and as large ones. */
typedef struct precision {
    qwen3_dtype dtype;
    bool large;
    double tolerance; /* relative L2 over all rows */
} precision;

static const precision precisions[] = {{QWEN3_DTYPE_F32, false, 5e-6}, {QWEN3_DTYPE_BF16, true, 1e-2}};

enum { BATCH = 2, LENGTH = 21, VOCABULARY = 512, FLOATS = BATCH * LENGTH * VOCABULARY };

static double relative_l2(const float *a, const float *b)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < FLOATS; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / norm);
}

static qwen3_model *open_tiny(qwen3_comm *comm, qwen3_parallel_strategy strategy, const precision *p)
{
    qwen3_model_options options = qwen3_model_options_default();
    qwen3_model *model = NULL;
    qwen3_error err;
    options.dtype = p->dtype;
    options.isa = p->large ? qwen3_isa_best() : QWEN3_ISA_AUTO;
    options.strategy = strategy;
    options.threads = 1;
    check(qwen3_model_open(comm, "synthetic:tiny", &options, &model, &err) == QWEN3_OK, "%s", err.message);
    return model;
}

/* All pairs from one handle. expected and logits are those of rank 0 of mpi. */
static void check_pairs(qwen3_model *model, MPI_Comm mpi, const precision *p, const int32_t *ids, const float *expected,
                        float *logits)
{
    int rank;
    qwen3_error err;
    MPI_Comm_rank(mpi, &rank);
    for (int strategy = QWEN3_STRATEGY_AUTO; strategy <= QWEN3_STRATEGY_HYBRID; strategy++)
        for (int algorithm = QWEN3_ATTENTION_AUTO; algorithm <= QWEN3_ATTENTION_ONLINE_SOFTMAX; algorithm++) {
            for (size_t i = 0; i < FLOATS; i++)
                logits[i] = NAN;
            qwen3_status status =
                qwen3_forward_mpi_omp(ids, BATCH, LENGTH, model, mpi, (qwen3_parallel_strategy)strategy,
                                      (qwen3_attention_algorithm)algorithm, rank == 0 ? logits : NULL, &err);
            check(status == QWEN3_OK, "%s", err.message);
            double error = rank == 0 ? relative_l2(logits, expected) : 0;
            if (rank == 0)
                fprintf(stderr, "W %g\n", error);
            check(error <= p->tolerance, "%s, strategy %d, algorithm %d: relative L2 %.3g", qwen3_dtype_name(p->dtype),
                  strategy, algorithm, error);
        }
}

static void check_deprecated(qwen3_model *model, const precision *p, const int32_t *ids, const float *expected,
                             float *logits, bool root)
{
    qwen3_error err;
    for (int type = QWEN3_MPI_ATTENTION_STANDARD; type <= QWEN3_MPI_ATTENTION_STREAMING; type++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        qwen3_status status = qwen3_forward_mpi_omp_attention_type(
            ids, BATCH, LENGTH, model, MPI_COMM_WORLD, (qwen3_mpi_attention_type)type, root ? logits : NULL, &err);
#pragma GCC diagnostic pop
        check(status == QWEN3_OK, "%s", err.message);
        check(!root || relative_l2(logits, expected) <= p->tolerance, "attention type %d", type);
    }
}

static void check_refused(qwen3_model *model, int32_t *ids, bool root, float *logits)
{
    qwen3_error err;
    int32_t kept = ids[3];
    ids[3] = VOCABULARY;
    check(qwen3_forward_mpi_omp(ids, BATCH, LENGTH, model, MPI_COMM_WORLD, QWEN3_STRATEGY_AUTO, QWEN3_ATTENTION_AUTO,
                                root ? logits : NULL, &err) == QWEN3_ERR_ARGUMENT,
          "a token beyond the vocabulary was taken");
    ids[3] = kept;
    check(qwen3_forward_mpi_omp(ids, BATCH, 0, model, MPI_COMM_WORLD, QWEN3_STRATEGY_AUTO, QWEN3_ATTENTION_AUTO, logits,
                                &err) == QWEN3_ERR_ARGUMENT,
          "an empty prompt was taken");
    check(qwen3_forward_mpi_omp(ids, BATCH, LENGTH, model, MPI_COMM_WORLD, QWEN3_STRATEGY_AUTO, QWEN3_ATTENTION_AUTO,
                                NULL, &err) == QWEN3_ERR_ARGUMENT,
          "NULL on rank 0 was taken");
}

static void check_precision(qwen3_comm *world, const precision *p, int32_t *ids)
{
    qwen3_error err;
    bool root = qwen3_comm_rank(world) == 0;
    float *expected = malloc(FLOATS * sizeof *expected), *logits = malloc(FLOATS * sizeof *logits);

    /* Every rank computes the whole job alone for comparison. */
    qwen3_model *alone = open_tiny(qwen3_comm_self(), QWEN3_STRATEGY_HEAD_WISE, p);
    check(qwen3_forward_mpi_omp(ids, BATCH, LENGTH, alone, MPI_COMM_SELF, QWEN3_STRATEGY_HEAD_WISE,
                                QWEN3_ATTENTION_STANDARD, expected, &err) == QWEN3_OK,
          "%s", err.message);

    qwen3_model *model = open_tiny(world, QWEN3_STRATEGY_SEQUENCE, p);
    check_pairs(model, MPI_COMM_WORLD, p, ids, expected, logits);
    check_deprecated(model, p, ids, expected, logits, root);
    check_refused(model, ids, root, logits);

    /* Another communicator: odd and even ranks each do the whole job. */
    MPI_Comm half;
    MPI_Comm_split(MPI_COMM_WORLD, qwen3_comm_rank(world) % 2, -qwen3_comm_rank(world), &half);
    qwen3_comm *half_group = NULL;
    check(qwen3_comm_from_mpi(half, &half_group, &err) == QWEN3_OK, "%s", err.message);
    qwen3_model *half_model = open_tiny(half_group, QWEN3_STRATEGY_AUTO, p);
    check_pairs(half_model, half, p, ids, expected, logits);

    qwen3_model_close(half_model);
    qwen3_comm_free(half_group);
    MPI_Comm_free(&half);
    qwen3_model_close(model);
    qwen3_model_close(alone);
    free(expected);
    free(logits);
}

int main(int argc, char **argv)
{
    uint64_t random;
    qwen3_comm *world = check_begin(argc, argv, 7, &random);
    int32_t ids[BATCH * LENGTH];
    for (int i = 0; i < BATCH * LENGTH; i++)
        ids[i] = (int32_t)(check_random(&random) % VOCABULARY);
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        check_precision(world, &precisions[i], ids);
    return check_end(world);
}
