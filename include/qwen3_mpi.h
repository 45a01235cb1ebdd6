/* qwen3_mpi.h - what needs MPI_Comm: communicators made from the caller's, and the whole-model calls
 * in the manner of the earlier C++ interface (docs/MIGRATION.md). Only in builds with MPI. */
#ifndef QWEN3_MPI_H
#define QWEN3_MPI_H

#include <mpi.h>

#include "qwen3.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A communicator over the caller's, which is duplicated. MPI must be initialised with at least
 * MPI_THREAD_FUNNELED. Collective. Free with qwen3_comm_free. */
QWEN3_API qwen3_status qwen3_comm_from_mpi(MPI_Comm mpi, qwen3_comm **comm, qwen3_error *err);
/* Collective. NULL is allowed. Where models are open on it, it is freed with the last of them. Nothing happens to the
 * communicators that are the library's (qwen3_init, qwen3_comm_self). */
QWEN3_API void qwen3_comm_free(qwen3_comm *comm);

/* Models opened once more, for another strategy or communicator than they were opened for, and kept for later calls
 * of qwen3_forward_mpi_omp. The caller's; zeroed = empty. One may serve several models. */
typedef struct qwen3_model_variants {
    struct qwen3_model_variant *newest; /* the library's */
} qwen3_model_variants;

/* Closes what is kept and leaves *variants empty. Call it before MPI ends: until then the models that it has variants
 * of live on, closed or not. Collective over the communicators of the calls that filled it. */
QWEN3_API void qwen3_model_variants_free(qwen3_model_variants *variants);

/* One whole forward pass. Members that are left zero have their defaults. What they point to belongs to the caller;
 * input_ids is read during the call only. */
typedef struct qwen3_forward_args {
    qwen3_model *model;
    qwen3_model_variants *variants; /* NULL = nothing is kept after the call */
    const int32_t *input_ids;       /* [batch, seq_len], the same on all ranks */
    size_t batch, seq_len;
    qwen3_parallel_strategy strategy; /* AUTO = that of the model on its own communicator, elsewhere chosen */
    qwen3_attention_algorithm algorithm;
    float *logits; /* [batch, seq_len, vocab_size], written on rank 0 of mpi; ignored and may be NULL elsewhere */
} qwen3_forward_args;

/* Logits of every position of `batch` prompts of seq_len tokens each, in a session that lasts for the call. The model
 * is not changed. If it was opened for this strategy and communicator, it is used itself. Otherwise a variant of it is
 * used: one from args->variants, or one that is opened now. Opening takes the time of qwen3_model_open, and the
 * variant holds this rank's weights a second time: until qwen3_model_variants_free with args->variants, otherwise until
 * the call returns, so that each call loads them again. Collective over mpi; args->variants is NULL on all ranks or on
 * none, and has served the same calls on all of them. On failure all ranks hold the same error; variants stay. */
QWEN3_API qwen3_status qwen3_forward_mpi_omp(const qwen3_forward_args *args, MPI_Comm mpi, qwen3_error *err);

/* The same with the attention type of the earlier interface; args->strategy and args->algorithm are ignored. */
QWEN3_DEPRECATED("use qwen3_forward_mpi_omp with a strategy and an algorithm")
QWEN3_API qwen3_status qwen3_forward_mpi_omp_attention_type(const qwen3_forward_args *args,
                                                            qwen3_mpi_attention_type type, MPI_Comm mpi,
                                                            qwen3_error *err);

#ifdef __cplusplus
}
#endif
#endif
