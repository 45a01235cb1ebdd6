/* forward_mpi.c - the whole-model calls in the manner of the earlier C++ interface. */
#include <stdlib.h>

#include "comm/comm_mpi.h"
#include "engine/model.h"
#include "qwen3_mpi.h"

/* The model itself or one of its variants that already has this strategy on this communicator. */
static qwen3_model *find_variant(qwen3_model *model, MPI_Comm mpi, qwen3_parallel_strategy strategy)
{
    for (qwen3_model *m = model; m; m = m->variant) {
        bool strategy_fits = strategy == QWEN3_STRATEGY_AUTO ? m == model || m->options.strategy == strategy
                                                             : m->plan.strategy == strategy;
        if (strategy_fits && comm_matches_mpi(m->world, mpi))
            return m;
    }
    return NULL;
}

static qwen3_status open_variant(qwen3_model *model, MPI_Comm mpi, qwen3_parallel_strategy strategy, qwen3_model **out,
                                 qwen3_error *err)
{
    qwen3_comm *group;
    qwen3_status status = qwen3_comm_from_mpi(mpi, &group, err);
    if (status)
        return status;
    qwen3_model_options options = model->options;
    options.strategy = strategy;
    options.grid_sequence = options.grid_heads = 0;
    status = qwen3_model_open(group, model->spec, &options, out, err);
    if (status) {
        qwen3_comm_free(group);
        return status;
    }
    (*out)->variant_comm = group;
    (*out)->variant = model->variant;
    model->variant = *out;
    return QWEN3_OK;
}

static qwen3_status run(qwen3_model *m, const int32_t *ids, size_t batch, size_t seq_len,
                        qwen3_attention_algorithm algorithm, float *logits, qwen3_error *err)
{
    qwen3_session_options options = qwen3_session_options_default();
    options.max_sequences = (int)batch;
    options.max_tokens = (int64_t)seq_len;
    options.algorithm = algorithm;
    qwen3_session *session;
    qwen3_status status = qwen3_session_open(m, &options, &session, err);
    if (status)
        return status;
    size_t n = batch * seq_len;
    int32_t *sequences = malloc(n * sizeof *sequences);
    uint8_t *wanted = malloc(n);
    if (sequences && wanted) {
        for (size_t i = 0; i < n; i++) {
            sequences[i] = (int32_t)(i / seq_len);
            wanted[i] = 1;
        }
    } else {
        fail(err, QWEN3_ERR_MEMORY, "no memory for a batch of %zu tokens", n);
    }
    status = qwen3_comm_agree(m->world, err);
    if (!status)
        status = qwen3_forward(
            session, &(qwen3_batch){.n_tokens = n, .tokens = ids, .sequences = sequences, .logits = wanted}, err);
    if (!status)
        status = qwen3_logits(session, logits, err);
    free(sequences);
    free(wanted);
    qwen3_session_close(session);
    return status;
}

qwen3_status qwen3_forward_mpi_omp(const int32_t *input_ids, size_t batch, size_t seq_len, qwen3_model *model,
                                   MPI_Comm mpi, qwen3_parallel_strategy strategy, qwen3_attention_algorithm algorithm,
                                   float *logits, qwen3_error *err)
{
    qwen3_error local;
    err = error_begin(err, &local);
    if (!model || !input_ids || batch == 0 || batch > INT32_MAX || seq_len == 0)
        return fail(err, QWEN3_ERR_ARGUMENT, "model, input_ids, batch %zu or seq_len %zu: expected none to be empty",
                    batch, seq_len);
    qwen3_model *m = find_variant(model, mpi, strategy);
    if (!m) {
        qwen3_status status = open_variant(model, mpi, strategy, &m, err);
        if (status)
            return status;
    }
    return run(m, input_ids, batch, seq_len, algorithm, logits, err);
}

qwen3_status qwen3_forward_mpi_omp_attention_type(const int32_t *input_ids, size_t batch, size_t seq_len,
                                                  qwen3_model *model, MPI_Comm mpi, qwen3_mpi_attention_type type,
                                                  float *logits, qwen3_error *err)
{
    qwen3_attention_algorithm algorithm =
        type == QWEN3_MPI_ATTENTION_STREAMING ? QWEN3_ATTENTION_ONLINE_SOFTMAX : QWEN3_ATTENTION_STANDARD;
    return qwen3_forward_mpi_omp(input_ids, batch, seq_len, model, mpi, QWEN3_STRATEGY_HEAD_WISE, algorithm, logits,
                                 err);
}
