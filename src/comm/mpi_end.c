/* mpi_end.c - the end of MPI, and where it has to be left without one.
 *
 * MPICH before 4.2 over UCX: in MPI_Finalize each rank closes its connections, and then waits for the others in a
 * barrier of the process manager, where it no longer answers to messages. A rank whose connection to it is not yet
 * closed waits forever. Connections made by the last messages of a job are the ones concerned, so a short job on
 * several nodes hangs in half of the cases (docs/ARCHITECTURE.md, "The end").
 */
#include <errno.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/comm_mpi.h"

/* Seconds in which a rank goes on to answer to messages before it leaves. */
#define LAST_ANSWERS 0.1

static bool library_may_hang(void)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length, major, minor;
    MPI_Get_library_version(version, &length);
    return sscanf(version, "MPICH Version: %d.%d", &major, &minor) == 2 && (major < 4 || (major == 4 && minor < 2)) &&
           strstr(version, ":ucx");
}

static bool several_nodes(void)
{
    MPI_Comm node;
    int here, size;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &here);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_free(&node);
    return here < size;
}

/* What PMI_Finalize does under Hydra, which ends the other processes where one leaves without it (PMI-1, wire
 * protocol). */
static void leave_process_manager(void)
{
    static const char leave[] = "cmd=finalize\n";
    const char *descriptor = getenv("PMI_FD");
    char answer[64];
    if (!descriptor || !getenv("HYDI_CONTROL_FD"))
        return;
    const int fd = atoi(descriptor);
    if (write(fd, leave, sizeof leave - 1) == (ssize_t)(sizeof leave - 1))
        while (read(fd, answer, sizeof answer) < 0 && errno == EINTR)
            ;
}

void mpi_end(void)
{
    if (!library_may_hang() || !several_nodes()) {
        MPI_Finalize();
        return;
    }
    MPI_Barrier(MPI_COMM_WORLD);
    for (double end = MPI_Wtime() + LAST_ANSWERS; MPI_Wtime() < end;) {
        int found;
        MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &found, MPI_STATUS_IGNORE);
    }
    leave_process_manager();
}
