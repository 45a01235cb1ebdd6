/* topology.h - where the ranks run, for reports and for the number of threads. */
#ifndef QWEN3_COMM_TOPOLOGY_H
#define QWEN3_COMM_TOPOLOGY_H

#include "comm/comm.h"

/* Threads for this rank: OMP_NUM_THREADS if set, otherwise the physical cores that it may use. A core that several
 * ranks may use is divided among them. At least 1. Collective. */
int default_threads(comm *c);

/* Writes to text[size] which share of n addresses is on which NUMA node, or "unknown" if that is known of none. */
void memory_placement(const void *const *addresses, size_t n, char *text, size_t size);

#endif
