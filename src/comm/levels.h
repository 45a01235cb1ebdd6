/* levels.h - collectives of ranks on several nodes in two levels: inside a node, and between nodes. Internal to comm/.
 */
#ifndef QWEN3_COMM_LEVELS_H
#define QWEN3_COMM_LEVELS_H

#include "comm/comm_backend.h"

/* Sets up c->levels and the backend that uses it, if memory allows; c exchanges messages before. node: the ranks of c
 * on this rank's node in the same order, owned by this from then on. Collective over c. */
void levels_attach(comm *c, comm *node);
void levels_detach(comm *c);

/* As in comm_backend; c->levels must be set. */
void levels_barrier(comm *c);
void levels_allgather(comm *c, const void *send, void *recv, const size_t *bytes);
void levels_broadcast(comm *c, void *data, size_t bytes, int root);
size_t levels_sum(comm *c, float *x, size_t n);

#endif
