/* thread_warning.h - whether ranks have CPUs for their threads, and threads for the CPUs of their nodes. */
#ifndef THREAD_WARNING_H
#define THREAD_WARNING_H

#include "common/options.h"

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
    int cpus_on_node;   /* that a batch system gave to the job; 0: unknown, INT_MAX: there is no batch system */
} launch;

launch launch_read(void);

/* The text of a warning, without prefix, for the first rank that has more threads than CPUs or than its CPU quota, or
 * whose launcher left it less of its node than it could have. False and "" if there is none. */
bool thread_warning(const rank_threads *ranks, int n, const launch *l, char *text, size_t size);

/* Whether the ranks should take the cores that mpirun left to nobody because nothing was said of binding: some rank
 * has fewer than it could use, and none has threads that OpenMP has bound already or a node that it may share with
 * other jobs. */
bool thread_rebinding(const rank_threads *ranks, int n, const launch *l);

/* The same for a note: the first rank whose threads use the cores of several NUMA nodes, and how to start one for each.
 */
bool numa_note(const rank_threads *ranks, int n, const launch *l, char *text, size_t size);

typedef enum bind_choice { BIND_AUTO, BIND_INHERIT } bind_choice;

/* --bind */
option bind_option(int *bind);

/* Gives the ranks the cores that mpirun left to nobody, unless bind is BIND_INHERIT, and says so; then prints that
 * warning, or the note of NUMA nodes where there is none. Rank 0 prints, to stderr, a line each. Fails where a rank has
 * so many threads that they cannot be meant. threads: as in qwen3_model_options. Before the first parallel region.
 * Collective. */
qwen3_status threads_settle(qwen3_comm *world, int threads, int bind, qwen3_error *err);

#endif
