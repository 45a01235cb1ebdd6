/* forward_mpi.c - the whole-model calls in the manner of the earlier C++ interface. */
#include <stdlib.h>

#include "comm/comm_mpi.h"
#include "engine/model.h"
#include "qwen3_mpi.h"

/* ---- Variants ---------------------------------------------------------------------------------- */

typedef struct qwen3_model_variant {
    qwen3_model *of; /* shared: no other model gets its address meanwhile */
    qwen3_model *model;
    qwen3_comm *comm; /* owned */
    struct qwen3_model_variant *older;
} variant;

static bool fits(const qwen3_model *m, const qwen3_forward_args *args, MPI_Comm mpi)
{
    bool strategy_fits = args->strategy == QWEN3_STRATEGY_AUTO
                             ? m == args->model || m->options.strategy == QWEN3_STRATEGY_AUTO
                             : m->plan.strategy == args->strategy;
    return strategy_fits && comm_matches_mpi(m->world, mpi);
}

/* The model itself or a variant of it; NULL = none fits. */
static qwen3_model *find_model(const qwen3_forward_args *args, MPI_Comm mpi)
{
    if (fits(args->model, args, mpi))
        return args->model;
    for (variant *v = args->variants ? args->variants->newest : NULL; v; v = v->older)
        if (v->of == args->model && fits(v->model, args, mpi))
            return v->model;
    return NULL;
}

static void close_variant(variant *v)
{
    qwen3_model_close(v->model);
    qwen3_model_close(v->of);
    qwen3_comm_free(v->comm);
    free(v);
}

/* A fault that this rank has found before, in *err, is a failure of all. */
static qwen3_status open_variant(const qwen3_forward_args *args, MPI_Comm mpi, variant **out, qwen3_error *err)
{
    qwen3_comm *world;
    qwen3_status status = qwen3_comm_from_mpi(mpi, &world, err);
    if (status)
        return status;
    variant *v = calloc(1, sizeof *v);
    if (!v)
        fail(err, QWEN3_ERR_MEMORY, "no memory for a variant of a model");
    status = qwen3_comm_agree(world, err);
    if (status) {
        qwen3_comm_free(world);
        free(v);
        return status;
    }
    qwen3_model_options options = args->model->options;
    options.strategy = args->strategy;
    options.grid_sequence = options.grid_heads = 0;
    *v = (variant){.of = model_share(args->model), .comm = world};
    status = qwen3_model_open(world, args->model->spec, &options, &v->model, err);
    if (status)
        close_variant(v);
    else
        *out = v;
    return status;
}

void qwen3_model_variants_free(qwen3_model_variants *variants)
{
    while (variants && variants->newest) {
        variant *v = variants->newest;
        variants->newest = v->older;
        close_variant(v);
    }
}

/* ---- Calls ------------------------------------------------------------------------------------- */

static qwen3_status run(qwen3_model *m, const qwen3_forward_args *args, qwen3_error *err)
{
    qwen3_session_options options = qwen3_session_options_default();
    options.max_sequences = (int)args->batch;
    options.max_tokens = (int64_t)args->seq_len;
    options.algorithm = args->algorithm;
    qwen3_session *session;
    qwen3_status status = qwen3_session_open(m, &options, &session, err);
    if (status)
        return status;
    size_t n = args->batch * args->seq_len;
    int32_t *sequences = malloc(n * sizeof *sequences);
    uint8_t *wanted = malloc(n);
    if (sequences && wanted) {
        for (size_t i = 0; i < n; i++) {
            sequences[i] = (int32_t)(i / args->seq_len);
            wanted[i] = 1;
        }
    } else {
        fail(err, QWEN3_ERR_MEMORY, "no memory for a batch of %zu tokens", n);
    }
    status = qwen3_comm_agree(m->world, err);
    const qwen3_batch batch = {.n_tokens = n, .tokens = args->input_ids, .sequences = sequences, .logits = wanted};
    if (!status)
        status = qwen3_forward(session, &batch, err);
    if (!status)
        status = qwen3_logits(session, args->logits, err);
    free(sequences);
    free(wanted);
    qwen3_session_close(session);
    return status;
}

qwen3_status qwen3_forward_mpi_omp(const qwen3_forward_args *args, MPI_Comm mpi, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(args, "args", err) || missing(args->model, "model", err))
        return err->status;
    if (mpi == MPI_COMM_NULL)
        return fail(err, QWEN3_ERR_ARGUMENT, "mpi is MPI_COMM_NULL; expected a communicator");
    if ((unsigned)args->strategy > QWEN3_STRATEGY_HYBRID)
        fail(err, QWEN3_ERR_ARGUMENT, "strategy %d is unknown", (int)args->strategy);
    if (!args->input_ids || args->batch == 0 || args->batch > INT32_MAX || args->seq_len == 0)
        fail(err, QWEN3_ERR_ARGUMENT, "input_ids, batch %zu or seq_len %zu: expected none to be empty", args->batch,
             args->seq_len);
    variant *opened = NULL;
    qwen3_model *m = find_model(args, mpi);
    qwen3_status status = m ? qwen3_comm_agree(m->world, err) : open_variant(args, mpi, &opened, err);
    if (!status)
        status = run(m ? m : opened->model, args, err);
    if (opened && args->variants) {
        opened->older = args->variants->newest;
        args->variants->newest = opened;
    } else if (opened) {
        close_variant(opened);
    }
    return status;
}

qwen3_status qwen3_forward_mpi_omp_attention_type(const qwen3_forward_args *args, qwen3_mpi_attention_type type,
                                                  MPI_Comm mpi, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(args, "args", err))
        return err->status;
    if ((unsigned)type > QWEN3_MPI_ATTENTION_STREAMING)
        return fail(err, QWEN3_ERR_ARGUMENT, "type %d: expected STANDARD or STREAMING", (int)type);
    qwen3_forward_args headwise = *args;
    headwise.strategy = QWEN3_STRATEGY_HEAD_WISE;
    headwise.algorithm =
        type == QWEN3_MPI_ATTENTION_STREAMING ? QWEN3_ATTENTION_ONLINE_SOFTMAX : QWEN3_ATTENTION_STANDARD;
    return qwen3_forward_mpi_omp(&headwise, mpi, err);
}
