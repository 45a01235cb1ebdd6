/* topology.h - where memory is; where ranks run is said by qwen3_comm_topology (qwen3.h). */
#ifndef QWEN3_COMM_TOPOLOGY_H
#define QWEN3_COMM_TOPOLOGY_H

#include "comm/comm.h"

/* Writes to text[size] which share of n addresses is on which NUMA node, or "unknown" if that is known of none. */
void memory_placement(const void *const *addresses, size_t n, char *text, size_t size);

#endif
