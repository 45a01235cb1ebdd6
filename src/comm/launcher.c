/* launcher.c - detects processes that a launcher started together but that cannot reach each other: in a build
 * without MPI, or with another MPI than the launcher's. Each of them would take itself for the whole job.
 *
 * Each launcher tells its processes how many they are in an environment variable. The MPI launchers' variables
 * come first: `mpirun -n 1` inside a Slurm step of several tasks starts one process, and rightly so. Slurm's
 * variable counts only if there is none of those. It is SLURM_STEP_NUM_TASKS, which srun sets for the processes
 * that it starts, not SLURM_NTASKS, which belongs to the allocation and which a batch script sees too.
 */
#include "comm/launcher.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/status.h"
#include "comm/comm_backend.h"

static const launcher mpi_launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"}, /* Open MPI's mpirun */
    {"PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"}, /* MPICH, Intel MPI, Cray; srun --mpi=pmi2 */
    {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"}, /* MVAPICH2 */
    {"PALS_SIZE", "PALS_RANKID", "PALS_LOCAL_SIZE"},                             /* HPE PALS */
};
static const launcher slurm = {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", NULL};

int launcher_value(const char *variable)
{
    const char *text = variable ? getenv(variable) : NULL;
    return text ? atoi(text) : -1;
}

const launcher *launcher_find(void)
{
    for (size_t i = 0; i < sizeof mpi_launchers / sizeof *mpi_launchers; i++)
        if (launcher_value(mpi_launchers[i].size_variable) > 0)
            return &mpi_launchers[i];
    return launcher_value(slurm.size_variable) > 0 ? &slurm : NULL;
}

static qwen3_status refuse(const launcher *l, qwen3_error *err)
{
#ifdef QWEN3_WITH_MPI
    const char *advice = "this program was built against another MPI than the launcher belongs to; use the launcher "
                         "of that MPI (mpirun.openmpi or mpirun.mpich; srun --mpi=...) or rebuild";
#else
    const char *advice = "this program was built without MPI; start one copy without a launcher, or rebuild with MPI";
#endif
    fail(err, QWEN3_ERR_COMM, "%s=%s: the launcher started %s copies, but each of them is alone: %s", l->size_variable,
         getenv(l->size_variable), getenv(l->size_variable), advice);
    if (err) {
        err->rank = launcher_value(l->rank_variable);
        if (gethostname(err->host, sizeof err->host - 1) != 0)
            err->host[0] = '\0';
    }
    return QWEN3_ERR_COMM;
}

qwen3_status launcher_check(qwen3_error *err)
{
    bool mpi_launcher = false;
    for (size_t i = 0; i < sizeof mpi_launchers / sizeof *mpi_launchers; i++) {
        int size = launcher_value(mpi_launchers[i].size_variable);
        if (size > 1)
            return refuse(&mpi_launchers[i], err);
        mpi_launcher |= size == 1;
    }
    if (!mpi_launcher && launcher_value(slurm.size_variable) > 1)
        return refuse(&slurm, err);
    return QWEN3_OK;
}
