/* thread_warning.h - whether ranks have CPUs for their threads, and threads for the CPUs of their nodes. */
#ifndef THREAD_WARNING_H
#define THREAD_WARNING_H

#include "qwen3.h"

typedef struct rank_threads {
    qwen3_rank_info info;
    int threads;
    bool chosen; /* threads is the default that the library chose */
} rank_threads;

typedef enum launcher_kind { LAUNCHER_NONE, LAUNCHER_OPEN_MPI, LAUNCHER_HYDRA, LAUNCHER_SRUN } launcher_kind;

/* What the environment of a rank says about its start. */
typedef struct launch {
    launcher_kind kind;
    bool binding_given; /* to mpirun, as an option or otherwise */
    int cpus_per_task;  /* of a Slurm job; 0: unknown */
} launch;

launch launch_read(void);

/* The text of a warning, without prefix, for the first rank that has more threads than CPUs or than its CPU quota, or
 * whose launcher left it less of its node than it could have. False and "" if there is none. */
bool thread_warning(const rank_threads *ranks, int n, const launch *l, char *text, size_t size);

/* Prints that warning on rank 0, to stderr. threads: as in qwen3_model_options. Collective. */
qwen3_status thread_warning_print(qwen3_comm *world, int threads, qwen3_error *err);

#endif
