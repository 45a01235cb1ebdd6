/* thread_warning.c - see thread_warning.h. */
#include "common/thread_warning.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/program.h"
#include "common/topology.h"

/* Threads that a rank may have for each CPU of its machine. More are a slip of the hand: every barrier waits for the
 * last of them, and to load a small model with 4,096 on 2 CPUs takes a minute. */
#define THREADS_PER_CPU 32

launch launch_read(void)
{
    launch l = {0};
    const char *cpus_per_task = getenv("SLURM_CPUS_PER_TASK");
    if (getenv("SLURM_STEP_NUM_TASKS") && getenv("SLURM_MPI_TYPE")) /* mpirun in a Slurm job has no type */
        l.kind = LAUNCHER_SRUN;
    else if (getenv("OMPI_COMM_WORLD_SIZE"))
        l.kind = LAUNCHER_OPEN_MPI;
    else if (getenv("PMI_SIZE"))
        l.kind = LAUNCHER_HYDRA;
    /* mpirun turns its options into these. */
    l.binding_given = getenv("OMPI_MCA_hwloc_base_binding_policy") || getenv("OMPI_MCA_rmaps_base_mapping_policy");
    l.cpus_per_task = cpus_per_task ? atoi(cpus_per_task) : 0;
    const char *cpus_on_node = getenv("SLURM_CPUS_ON_NODE");
    if (getenv("SLURM_JOB_ID"))
        l.cpus_on_node = cpus_on_node ? atoi(cpus_on_node) : 0;
    else if (!getenv("PBS_JOBID") && !getenv("LSB_JOBID") && !getenv("NSLOTS"))
        l.cpus_on_node = INT_MAX;
    return l;
}

/* Threads that so many CPUs are enough for; one is always needed. */
static int threads_for(double cpus)
{
    return cpus + 1e-6 < 1 ? 1 : (int)(cpus + 1e-6);
}

/* How a rank is started with `cpus` CPUs of its own. */
static void binding_command(const launch *l, const qwen3_rank_info *info, int cpus, char *text, size_t size)
{
    if (l->kind == LAUNCHER_OPEN_MPI && info->ranks_on_node == 1)
        snprintf(text, size, "mpirun --bind-to none");
    else if (l->kind == LAUNCHER_OPEN_MPI)
        snprintf(text, size, "mpirun --map-by ppr:%d:node:PE=%d", info->ranks_on_node, cpus);
    else if (l->kind == LAUNCHER_HYDRA)
        snprintf(text, size, "mpiexec -bind-to core:%d", cpus);
    else if (l->kind == LAUNCHER_SRUN)
        snprintf(text, size, "srun --cpus-per-task=%d", cpus);
    else
        snprintf(text, size, "more CPUs (taskset, cpuset)");
}

/* Cores that each rank of a node would have if none were idle. */
static int cores_possible(const qwen3_rank_info *info)
{
    return info->cores_allowed + info->cores_idle / info->ranks_on_node;
}

static bool warn_of_cpus(int rank, const rank_threads *r, const launch *l, char *text, size_t size)
{
    const int fitting = threads_for(r->info.cpu_share);
    char command[80] = "";
    if (r->threads <= fitting)
        return false;
    if (r->threads <= cores_possible(&r->info))
        binding_command(l, &r->info, r->threads, command, sizeof command);
    snprintf(text, size, "rank %d on %s runs %d threads on %.3g CPU%s (of CPUs %s): use --threads %d%s%s", rank,
             r->info.host, r->threads, r->info.cpu_share, r->info.cpu_share > 1 ? "s" : "", r->info.binding, fitting,
             command[0] ? ", or " : "", command);
    return true;
}

static bool warn_of_quota(int rank, const rank_threads *r, char *text, size_t size)
{
    if (r->info.cpu_quota <= 0 || r->threads <= threads_for(r->info.cpu_quota))
        return false;
    snprintf(text, size,
             "rank %d on %s runs %d threads on a CPU quota of %.2f (cgroup): use --threads %d, or raise the quota",
             rank, r->info.host, r->threads, r->info.cpu_quota, threads_for(r->info.cpu_quota));
    return true;
}

static bool bound_by_default(const launch *l)
{
    return l->kind == LAUNCHER_OPEN_MPI && !l->binding_given;
}

bool thread_rebinding(const rank_threads *ranks, int n, const launch *l)
{
    bool wanted = false;
    for (int i = 0; i < n; i++) {
        const qwen3_rank_info *info = &ranks[i].info;
        const bool quota = info->cpu_quota > 0 && info->cpu_quota < info->cores_allowed + 1;
        if (info->threads_bound || l->cpus_on_node < info->cpus_online)
            return false;
        wanted |= cores_possible(info) > info->cores_allowed && !quota &&
                  (ranks[i].chosen || ranks[i].threads > info->cores_allowed);
    }
    return wanted && bound_by_default(l);
}

/* Fewer threads than the node has cores for, because of what the launcher does if nothing is said. */
static bool warn_of_idle_cores(int rank, const rank_threads *r, const launch *l, char *text, size_t size)
{
    const bool by_mpirun = bound_by_default(l),
               by_srun = l->kind == LAUNCHER_SRUN && l->cpus_per_task > r->info.cpus_allowed;
    const int cores = by_srun ? l->cpus_per_task : cores_possible(&r->info);
    char command[80];
    if (!r->chosen || !(by_mpirun || by_srun) || cores <= r->info.cores_allowed ||
        (r->info.cpu_quota > 0 && r->info.cpu_quota < r->info.cores_allowed + 1))
        return false;
    binding_command(l, &r->info, cores, command, sizeof command);
    snprintf(text, size,
             "rank %d on %s is bound to %d core%s by %s and runs %d thread%s, where it could have %d cores: use %s",
             rank, r->info.host, r->info.cores_allowed, r->info.cores_allowed == 1 ? "" : "s",
             by_srun ? "srun, which does not know --cpus-per-task of sbatch," : "mpirun, as it does by default,",
             r->threads, r->threads == 1 ? "" : "s", cores, command);
    return true;
}

bool thread_warning(const rank_threads *ranks, int n, const launch *l, char *text, size_t size)
{
    text[0] = '\0';
    for (int r = 0; r < n; r++)
        if (warn_of_cpus(r, &ranks[r], l, text, size) || warn_of_quota(r, &ranks[r], text, size) ||
            warn_of_idle_cores(r, &ranks[r], l, text, size))
            return true;
    return false;
}

/* How ranks are started, one for each NUMA node, with `cores` each. */
static void numa_command(const launch *l, const qwen3_rank_info *info, int cores, char *text, size_t size)
{
    if (l->kind == LAUNCHER_HYDRA)
        snprintf(text, size, "mpiexec -bind-to numa -ppn %d", info->numa_allowed * info->ranks_on_node);
    else if (l->kind == LAUNCHER_SRUN)
        snprintf(text, size, "srun --ntasks-per-node=%d --cpus-per-task=%d", info->numa_allowed * info->ranks_on_node,
                 cores);
    else
        snprintf(text, size, "mpirun --map-by ppr:1:numa:PE=%d", cores);
}

bool numa_note(const rank_threads *ranks, int n, const launch *l, char *text, size_t size)
{
    char command[80];
    text[0] = '\0';
    for (int i = 0; i < n; i++) {
        const qwen3_rank_info *info = &ranks[i].info;
        const int nodes = info->numa_allowed, cores = nodes ? info->cores_allowed / nodes : 0;
        if (nodes < 2 || cores < 1 || ranks[i].threads <= cores)
            continue;
        numa_command(l, info, cores, command, sizeof command);
        snprintf(text, size,
                 "rank %d on %s has the cores of %d NUMA nodes, and its threads read memory of all of them%s; one rank "
                 "for each reads its own: %s, with OMP_PROC_BIND=close OMP_PLACES=cores",
                 i, info->host, nodes, info->threads_bound ? "" : " and may move between them", command);
        return true;
    }
    return false;
}

option bind_option(int *bind)
{
    return (option){.name = "bind",
                    .kind = OPTION_CHOICE,
                    .value = bind,
                    .choices = "auto|inherit",
                    .help =
                        "Cores of a rank that mpirun bound without being asked to: its share of the node (auto), or "
                        "those that it was given (inherit)"};
}

/* What every rank has, on rank 0. all: NULL elsewhere, freed by the caller. Collective. */
static qwen3_status collect(qwen3_comm *world, int threads, rank_threads **all, qwen3_error *err)
{
    rank_threads own = {.chosen = threads == 0 && !getenv("OMP_NUM_THREADS")};
    void *collected = NULL;
    qwen3_status status = qwen3_comm_topology(world, &own.info, err);
    if (status == QWEN3_OK) {
        own.threads = threads ? threads : own.info.default_threads;
        const int most = THREADS_PER_CPU * own.info.cpus_online;
        if (own.threads > most)
            set_error(
                err, QWEN3_ERR_ARGUMENT, "%s: got %d, expected at most %d: %d for each of the %d CPUs of this machine",
                threads ? "--threads" : "OMP_NUM_THREADS", own.threads, most, THREADS_PER_CPU, own.info.cpus_online);
        status = topology_collect(world, &own, sizeof own, &collected, err);
    }
    *all = collected;
    return status;
}

qwen3_status threads_settle(qwen3_comm *world, int threads, int bind, qwen3_error *err)
{
    const launch l = launch_read();
    const int ranks = qwen3_comm_size(world);
    rank_threads *all;
    char text[400];
    qwen3_status status = collect(world, threads, &all, err);
    if (status != QWEN3_OK)
        return status;
    bool rebinding = all && bind == BIND_AUTO && thread_rebinding(all, ranks, &l);
    const int cores = all ? all->info.cores_allowed : 0;
    qwen3_comm_broadcast(world, &rebinding, sizeof rebinding);
    if (rebinding) {
        free(all);
        all = NULL;
        status = qwen3_comm_bind(world, err);
        if (status == QWEN3_OK)
            status = collect(world, threads, &all, err);
        if (all)
            fprintf(
                stderr,
                "qwen3: note: mpirun bound rank 0 to %d core%s, as it does by default; each rank takes its share of "
                "its node, rank 0 on %s %d cores (CPUs %s); --bind inherit keeps mpirun's binding\n",
                cores, cores == 1 ? "" : "s", all->info.host, all->info.cores_allowed, all->info.binding);
    }
    if (all && thread_warning(all, ranks, &l, text, sizeof text))
        fprintf(stderr, "qwen3: warning: %s\n", text);
    else if (all && numa_note(all, ranks, &l, text, sizeof text))
        fprintf(stderr, "qwen3: note: %s\n", text);
    free(all);
    return status;
}
