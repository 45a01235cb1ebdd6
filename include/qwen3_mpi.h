/* qwen3_mpi.h - what needs MPI_Comm: groups from the caller's communicators, and the whole-model calls
 * in the manner of the earlier C++ interface (docs/MIGRATION.md). Only in builds with MPI. */
#ifndef QWEN3_MPI_H
#define QWEN3_MPI_H

#include <mpi.h>

#include "qwen3.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A group over the caller's communicator, which is duplicated. MPI must be initialised with at least
 * MPI_THREAD_FUNNELED. Collective. Free with qwen3_comm_free after everything opened on it. */
QWEN3_API qwen3_status qwen3_comm_from_mpi(MPI_Comm mpi, qwen3_comm **comm, qwen3_error *err);
QWEN3_API void qwen3_comm_free(qwen3_comm *comm);

/* The whole forward pass: logits of every position of `batch` prompts of seq_len tokens each.
 *   input_ids [batch, seq_len] on all ranks, logits [batch, seq_len, vocab_size] on rank 0 (NULL elsewhere).
 * Where `model` was opened for another strategy or communicator, the weights for this one are loaded
 * once and kept in the model until it is closed. Collective over mpi. */
QWEN3_API qwen3_status qwen3_forward_mpi_omp(const int32_t *input_ids, size_t batch, size_t seq_len, qwen3_model *model,
                                             MPI_Comm mpi, qwen3_parallel_strategy strategy,
                                             qwen3_attention_algorithm algorithm, float *logits, qwen3_error *err);

/* The same with the attention type of the earlier interface. */
QWEN3_DEPRECATED("use qwen3_forward_mpi_omp with a strategy and an algorithm")
QWEN3_API qwen3_status qwen3_forward_mpi_omp_attention_type(const int32_t *input_ids, size_t batch, size_t seq_len,
                                                            qwen3_model *model, MPI_Comm mpi,
                                                            qwen3_mpi_attention_type type, float *logits,
                                                            qwen3_error *err);

#ifdef __cplusplus
}
#endif
#endif
