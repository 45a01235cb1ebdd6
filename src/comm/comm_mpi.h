/* comm_mpi.h - what the rest of the library needs to know of MPI communicators. Only in builds with MPI. */
#ifndef QWEN3_COMM_MPI_H
#define QWEN3_COMM_MPI_H

#include <mpi.h>

#include "comm/comm.h"

/* Whether c has the processes of mpi in the same order. Not collective. */
bool comm_matches_mpi(const comm *c, MPI_Comm mpi);

/* MPI_Finalize, or, where it may hang, the last messages; no call of MPI may follow. Collective over all processes. */
void mpi_end(void);

#endif
