/* nompi.c - start and end in builds without MPI: the job is one process. */
#include "base/status.h"
#include "comm/comm_backend.h"

qwen3_status qwen3_init(int *argc, char ***argv, qwen3_comm **world, qwen3_error *err)
{
    (void)argc, (void)argv;
    qwen3_error local;
    err = error_begin(err, &local);
    if (missing(world, "world", err))
        return err->status;
    qwen3_status status = launcher_check(err);
    *world = status == QWEN3_OK ? qwen3_comm_self() : NULL;
    return status;
}

void qwen3_finalize(void)
{
}
