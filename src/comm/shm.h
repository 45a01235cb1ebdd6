/* shm.h - collectives through memory that all ranks of a communicator share. Internal to comm/. */
#ifndef QWEN3_COMM_SHM_H
#define QWEN3_COMM_SHM_H

#include "comm/comm_backend.h"

/* Sets up c->shm, which stays NULL if the node has no shared memory left. Collective over c, whose ranks are on
 * one node. */
void shm_attach(comm *c);
void shm_detach(comm *c);

/* As in comm_backend; c->shm must be set. */
void shm_barrier(comm *c);
void shm_allgather(comm *c, const void *send, void *recv, const size_t *bytes);
void shm_broadcast(comm *c, void *data, size_t bytes, int root);
size_t shm_sum(comm *c, float *x, size_t n);

#endif
