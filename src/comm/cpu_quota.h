/* cpu_quota.h - CPU time that the cgroups of this process are limited to, as containers and batch systems do
 * (Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst, "CPU"; Documentation/scheduler/sched-bwc.rst). */
#ifndef QWEN3_COMM_CPU_QUOTA_H
#define QWEN3_COMM_CPU_QUOTA_H

#include <stddef.h>
#include <stdint.h>

/* A cgroup with a quota. Device and inode of its directory name it: processes in different cgroup namespaces see
 * different paths. */
typedef struct cpu_quota {
    uint64_t device, inode;
    double cpus; /* CPU seconds per second */
} cpu_quota;

enum { CPU_QUOTAS_MAX = 8 };

/* The cgroups with a quota that a process is in: its own and those above it. */
typedef struct cpu_quotas {
    int n;
    cpu_quota groups[CPU_QUOTAS_MAX];
} cpu_quotas;

/* Reads /proc/self/cgroup, /proc/self/mountinfo and the quotas of both versions, all below the directory `root`: "",
 * or a tree of a test. Files that are missing or not understood limit nothing; of more than CPU_QUOTAS_MAX quotas on
 * one path the innermost are kept. */
void cpu_quotas_read(const char *root, cpu_quotas *quotas);

/* CPUs for process `self` of n processes of one machine, quotas[n]: each quota is divided equally among those of them
 * that are in its group, and the smallest share counts. 0: no quota. */
double cpu_quota_share(const cpu_quotas *quotas, size_t n, size_t self);

#endif
