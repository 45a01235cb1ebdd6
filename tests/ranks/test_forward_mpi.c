/* test_forward_mpi.c - the whole-model calls over an MPI communicator: every strategy and algorithm from one model
 * handle, on the communicator it was opened with and on others, what is kept between calls, and the deprecated form. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "qwen3_mpi.h"

/* As small models are computed, all but the weights in f32, and as large ones. */
typedef struct precision {
    qwen3_dtype dtype;
    bool large;
    double tolerance; /* relative L2 over all rows */
} precision;

static const precision precisions[] = {{QWEN3_DTYPE_F32, false, 5e-6}, {QWEN3_DTYPE_BF16, true, 1e-2}};
static const precision *current = precisions;

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

static qwen3_model *open_model(qwen3_comm *comm, const char *spec, qwen3_parallel_strategy strategy)
{
    qwen3_model_options options = qwen3_model_options_default();
    qwen3_model *model = NULL;
    qwen3_error err;
    options.dtype = current->dtype;
    options.isa = current->large ? qwen3_isa_best() : QWEN3_ISA_AUTO;
    options.strategy = strategy;
    options.threads = 1;
    check(qwen3_model_open(comm, spec, &options, &model, &err) == QWEN3_OK, "%s", err.message);
    return model;
}

/* All pairs from one handle. expected and args.logits are those of rank 0 of mpi. */
static void check_pairs(qwen3_forward_args args, MPI_Comm mpi, const float *expected)
{
    int rank;
    qwen3_error err;
    float *logits = args.logits;
    MPI_Comm_rank(mpi, &rank);
    if (rank != 0)
        args.logits = NULL;
    for (int strategy = QWEN3_STRATEGY_AUTO; strategy <= QWEN3_STRATEGY_HYBRID; strategy++)
        for (int algorithm = QWEN3_ATTENTION_AUTO; algorithm <= QWEN3_ATTENTION_ONLINE_SOFTMAX; algorithm++) {
            for (size_t i = 0; i < FLOATS; i++)
                logits[i] = NAN;
            args.strategy = (qwen3_parallel_strategy)strategy;
            args.algorithm = (qwen3_attention_algorithm)algorithm;
            check(qwen3_forward_mpi_omp(&args, mpi, &err) == QWEN3_OK, "%s", err.message);
            double error = rank == 0 ? relative_l2(logits, expected) : 0;
            check(error <= current->tolerance, "strategy %d, algorithm %d: relative L2 %.3g", strategy, algorithm,
                  error);
        }
}

static void check_deprecated(qwen3_forward_args args, const float *expected, bool root)
{
    qwen3_error err;
    float *logits = args.logits;
    if (!root)
        args.logits = NULL;
    for (int type = QWEN3_MPI_ATTENTION_STANDARD; type <= QWEN3_MPI_ATTENTION_STREAMING; type++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
        qwen3_status status =
            qwen3_forward_mpi_omp_attention_type(&args, (qwen3_mpi_attention_type)type, MPI_COMM_WORLD, &err);
#pragma GCC diagnostic pop
        check(status == QWEN3_OK, "%s", err.message);
        check(!root || relative_l2(logits, expected) <= current->tolerance, "attention type %d", type);
    }
}

/* The call fails on all ranks, with one error. */
static void check_fails(const qwen3_forward_args *args, qwen3_status status, qwen3_comm *world, const char *what)
{
    qwen3_error err, first;
    check(qwen3_forward_mpi_omp(args, MPI_COMM_WORLD, &err) == status, "%s: got %s", what,
          qwen3_status_name(err.status));
    first = err;
    qwen3_comm_broadcast(world, &first, sizeof first);
    check(memcmp(&first, &err, sizeof err) == 0, "%s: \"%s\", but \"%s\" on rank 0", what, err.message, first.message);
}

/* Both where the model fits and where a variant is opened. */
static void check_refused(qwen3_forward_args args, qwen3_comm *world)
{
    static const qwen3_parallel_strategy strategies[] = {QWEN3_STRATEGY_AUTO, QWEN3_STRATEGY_HEAD_WISE};
    const bool last = qwen3_comm_rank(world) == qwen3_comm_size(world) - 1;
    int32_t beyond[BATCH * LENGTH];
    memcpy(beyond, args.input_ids, sizeof beyond);
    beyond[3] = VOCABULARY;
    for (size_t i = 0; i < sizeof strategies / sizeof *strategies; i++) {
        qwen3_forward_args bad = args;
        bad.strategy = strategies[i];
        bad.input_ids = beyond;
        check_fails(&bad, QWEN3_ERR_ARGUMENT, world, "a token beyond the vocabulary");
        bad.input_ids = last ? NULL : args.input_ids;
        check_fails(&bad, QWEN3_ERR_ARGUMENT, world, "no tokens on the last rank");
        bad.input_ids = args.input_ids;
        bad.seq_len = 0;
        check_fails(&bad, QWEN3_ERR_ARGUMENT, world, "an empty prompt");
        bad.seq_len = args.seq_len;
        bad.logits = NULL;
        check_fails(&bad, QWEN3_ERR_ARGUMENT, world, "no logits on rank 0");
    }
}

/* Makes the link `path` to the demo model, on rank 0. */
static void link_model(qwen3_comm *world, char *path, size_t size)
{
    if (qwen3_comm_rank(world) == 0) {
        char dir[] = "/tmp/qwen3-test-XXXXXX";
        check(mkdtemp(dir) != NULL, "%s", dir);
        snprintf(path, size, "%s/model", dir);
        check(symlink(DEMO_MODEL, path) == 0, "%s", path);
    }
    qwen3_comm_broadcast(world, path, size);
}

/* After this the model cannot be opened. */
static void unlink_model(qwen3_comm *world, char *path)
{
    qwen3_comm_barrier(world);
    if (qwen3_comm_rank(world) == 0) {
        check(unlink(path) == 0, "%s", path);
        *strrchr(path, '/') = '\0';
        check(rmdir(path) == 0, "%s", path);
    }
    qwen3_comm_barrier(world);
}

/* Variants are opened once, the model stays what it was, and can be used before and after they are freed. */
static void check_variants(qwen3_comm *world, const int32_t *ids)
{
    char path[64] = "";
    qwen3_error err;
    link_model(world, path, sizeof path);
    qwen3_model *model = open_model(world, path, QWEN3_STRATEGY_SEQUENCE);
    const qwen3_plan plan = *qwen3_model_plan(model);
    const size_t bytes = BATCH * LENGTH * (size_t)qwen3_model_config(model)->vocab_size * sizeof(float);
    float *own = malloc(bytes), *first = malloc(bytes), *again = malloc(bytes);
    qwen3_model_variants variants = {0};
    qwen3_forward_args args = {.model = model, .input_ids = ids, .batch = BATCH, .seq_len = LENGTH, .logits = own};
    check(qwen3_forward_mpi_omp(&args, MPI_COMM_WORLD, &err) == QWEN3_OK, "%s", err.message);

    args.strategy = QWEN3_STRATEGY_HEAD_WISE;
    args.logits = first;
    check(qwen3_forward_mpi_omp(&args, MPI_COMM_WORLD, &err) == QWEN3_OK, "%s", err.message);
    args.variants = &variants;
    args.logits = again;
    check(qwen3_forward_mpi_omp(&args, MPI_COMM_WORLD, &err) == QWEN3_OK, "%s", err.message);
    const bool root = qwen3_comm_rank(world) == 0, fits = plan.strategy == QWEN3_STRATEGY_HEAD_WISE;
    check(!root || memcmp(first, again, bytes) == 0, "a variant that is kept gives other logits");
    check((variants.newest == NULL) == fits, "kept: %p", (void *)variants.newest);

    unlink_model(world, path);
    const struct qwen3_model_variant *kept = variants.newest;
    check(qwen3_forward_mpi_omp(&args, MPI_COMM_WORLD, &err) == QWEN3_OK, "not kept: %s", err.message);
    check(!root || memcmp(first, again, bytes) == 0, "the second use of a variant gives other logits");
    check(variants.newest == kept, "a variant was opened again");
    if (!fits) {
        args.variants = NULL;
        check_fails(&args, QWEN3_ERR_IO, world, "a variant that cannot be opened");
        args.variants = &variants;
        args.strategy = QWEN3_STRATEGY_HYBRID;
        check_fails(&args, QWEN3_ERR_IO, world, "another one, beside one that is kept");
        check(variants.newest == kept, "a variant that was not opened is kept");
    }
    qwen3_model_variants_free(&variants);
    check(variants.newest == NULL, "something is kept after all was freed");
    qwen3_model_variants_free(&variants);

    args.strategy = QWEN3_STRATEGY_AUTO;
    check(qwen3_forward_mpi_omp(&args, MPI_COMM_WORLD, &err) == QWEN3_OK, "%s", err.message);
    check(!root || memcmp(own, again, bytes) == 0, "the model has changed");
    check(memcmp(&plan, qwen3_model_plan(model), sizeof plan) == 0, "the plan of the model has changed");
    qwen3_model_close(model);
    free(own);
    free(first);
    free(again);
}

static void check_precision(qwen3_comm *world, int32_t *ids)
{
    qwen3_error err;
    bool root = qwen3_comm_rank(world) == 0;
    float *expected = malloc(FLOATS * sizeof *expected), *logits = malloc(FLOATS * sizeof *logits);

    /* Every rank computes the whole job alone for comparison. */
    qwen3_forward_args args = {.input_ids = ids, .batch = BATCH, .seq_len = LENGTH, .logits = expected};
    args.strategy = QWEN3_STRATEGY_HEAD_WISE;
    args.algorithm = QWEN3_ATTENTION_STANDARD;
    args.model = open_model(qwen3_comm_self(), "synthetic:tiny", QWEN3_STRATEGY_HEAD_WISE);
    check(qwen3_forward_mpi_omp(&args, MPI_COMM_SELF, &err) == QWEN3_OK, "%s", err.message);
    qwen3_model_close(args.model);

    qwen3_model_variants variants = {0};
    args.model = open_model(world, "synthetic:tiny", QWEN3_STRATEGY_SEQUENCE);
    args.variants = &variants;
    args.logits = logits;
    args.strategy = QWEN3_STRATEGY_AUTO;
    check_pairs(args, MPI_COMM_WORLD, expected);
    check_deprecated(args, expected, root);
    check_refused(args, world);
    args.variants = NULL;
    check_refused(args, world);

    /* Another communicator: odd and even ranks each do the whole job, with the model of all ranks and with their own.
     */
    MPI_Comm half;
    MPI_Comm_split(MPI_COMM_WORLD, qwen3_comm_rank(world) % 2, -qwen3_comm_rank(world), &half);
    args.variants = &variants;
    check_pairs(args, half, expected);
    qwen3_comm *half_comm = NULL;
    check(qwen3_comm_from_mpi(half, &half_comm, &err) == QWEN3_OK, "%s", err.message);
    qwen3_model *model = args.model;
    args.model = open_model(half_comm, "synthetic:tiny", QWEN3_STRATEGY_AUTO);
    args.variants = NULL;
    check_pairs(args, half, expected);

    qwen3_model_close(args.model);
    qwen3_comm_free(half_comm);
    MPI_Comm_free(&half);
    qwen3_model_variants_free(&variants);
    qwen3_model_close(model);
    free(expected);
    free(logits);
    check_variants(world, ids);
}

int main(int argc, char **argv)
{
    uint64_t random;
    qwen3_comm *world = check_begin(argc, argv, 7, &random);
    int32_t ids[BATCH * LENGTH];
    for (int i = 0; i < BATCH * LENGTH; i++)
        ids[i] = (int32_t)(check_random(&random) % VOCABULARY);
    for (; current < precisions + sizeof precisions / sizeof *precisions; current++)
        check_precision(world, ids);
    return check_end(world);
}
