/* pass_q.h - queries travel to the keys: every rank of the sequence group attends all queries to the keys
 * that it holds; the partial results go to the ranks that need them and are merged there in rank order.
 * (Yang et al. 2024, context parallelism, "pass-Q")
 *
 * Partials of `rows` query rows of all heads lie in one run of floats: o [rows * heads * head_dim], then
 * m [rows * heads], then l [rows * heads].
 */
#ifndef QWEN3_ATTENTION_PASS_Q_H
#define QWEN3_ATTENTION_PASS_Q_H

#include "attention/attention.h"
#include "comm/comm.h"

static inline size_t partial_floats(size_t rows_times_heads, size_t head_dim)
{
    return rows_times_heads * (head_dim + 2);
}

/* A run of partials of n (row, head) pairs. */
typedef struct partial_run {
    float *o, *m, *l;
} partial_run;

static inline partial_run partial_at(float *run, size_t n, size_t head_dim)
{
    return (partial_run){run, run + n * head_dim, run + n * (head_dim + 1)};
}

/* Exchanges partials and merges what arrives.
 *   send      runs of counts[g] (row, head) pairs for each rank g, one after the other
 *   received  [ranks] runs of n = counts[rank] pairs
 * Afterwards the first of `received` is the merged result, not divided by l yet. send_bytes, receive_bytes
 * [ranks] are scratch. Runs on all threads; ends in a barrier. */
void pass_q_return(team *t, comm *group, const kernels *k, size_t head_dim, const float *send, const size_t *counts,
                   float *received, size_t *send_bytes, size_t *receive_bytes);

#endif
