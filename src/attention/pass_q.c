#include "attention/pass_q.h"

void pass_q_return(team *t, comm *group, const kernels *k, size_t head_dim, const float *send, const size_t *counts,
                   float *received, size_t *send_bytes, size_t *receive_bytes)
{
    int ranks = comm_size(group);
    size_t n = counts[comm_rank(group)], run = partial_floats(n, head_dim);
    if (t->tid == 0) {
        for (int g = 0; g < ranks; g++) {
            send_bytes[g] = partial_floats(counts[g], head_dim) * sizeof(float);
            receive_bytes[g] = run * sizeof(float);
        }
        comm_alltoall(group, send, send_bytes, received, receive_bytes, QWEN3_COMM_PARTIAL);
    }
    team_barrier(t);
    size_t begin, end;
    team_part(t, n, 1, &begin, &end);
    partial_run into = partial_at(received, n, head_dim);
    for (int g = 1; g < ranks; g++) {
        partial_run from = partial_at(received + (size_t)g * run, n, head_dim);
        partial_merge(k, end - begin, head_dim, into.o + begin * head_dim, into.m + begin, into.l + begin,
                      from.o + begin * head_dim, from.m + begin, from.l + begin);
    }
    team_barrier(t);
}
