/* nompi.c - start and end in builds without MPI: the job is one process. */
#include "base/status.h"
#include "comm/comm_backend.h"

qwen3_status qwen3_init(int *argc, char ***argv, qwen3_comm **world, qwen3_error *err)
{
    (void)argc, (void)argv;
    error_clear(err);
    qwen3_status status = launcher_check(err);
    *world = status == QWEN3_OK ? qwen3_comm_self() : NULL;
    return status;
}

void qwen3_finalize(void)
{
}
