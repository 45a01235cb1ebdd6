/* topology.h - where the ranks run, for reports and for the number of threads. */
#ifndef QWEN3_COMM_TOPOLOGY_H
#define QWEN3_COMM_TOPOLOGY_H

#include "comm/comm.h"

/* Threads for this rank: OMP_NUM_THREADS where set; otherwise the physical cores that it may use, each
 * divided among the ranks of the node that may use it too. At least 1. Collective. */
int default_threads(comm *c);

/* Writes to text[size] which share of n addresses lies on which NUMA node, "unknown" where that is not known of any. */
void memory_placement(const void *const *addresses, size_t n, char *text, size_t size);

#endif
