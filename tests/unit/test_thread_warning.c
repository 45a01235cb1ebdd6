/* test_thread_warning.c - which ranks are warned of, and the command that they are told to use. */
#include "common/thread_warning.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* A rank that is alone on a node of 16 cores and may use them all, with as many threads. */
static rank_threads whole_node(void)
{
    return (rank_threads){.info = {.host = "n1",
                                   .binding = "0-15",
                                   .ranks_on_node = 1,
                                   .cpus_allowed = 16,
                                   .cpus_online = 16,
                                   .cores_allowed = 16,
                                   .cpu_share = 16,
                                   .default_threads = 16},
                          .threads = 16,
                          .chosen = true};
}

/* One of `ranks` on the node, each bound to `cores` of the 16. */
static rank_threads bound(int ranks, int cores)
{
    rank_threads r = whole_node();
    r.info.ranks_on_node = ranks;
    r.info.cpus_allowed = r.info.cores_allowed = r.threads = cores;
    r.info.cpu_share = cores;
    r.info.cores_idle = 16 - ranks * cores;
    return r;
}

static void assert_warning(const rank_threads *r, launch l, const char *expected)
{
    char text[400];
    const rank_threads ranks[] = {whole_node(), *r}; /* that nothing is wrong with rank 0 hides nothing */
    const bool warned = thread_warning(ranks, 2, &l, text, sizeof text);
    if (warned != (expected != NULL) || (expected && !strstr(text, expected)))
        fail_msg("got \"%s\", expected \"%s\"", text, expected ? expected : "");
    if (warned)
        assert_memory_equal(text, "rank 1 on n1 ", 13);
}

static void test_none(void **state)
{
    (void)state;
    rank_threads r = whole_node();
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE}, NULL);
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, NULL);
    r = bound(2, 8);
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, NULL);
    r.info.cpu_share = 0.25; /* many ranks share cores: one thread is the least */
    r.threads = 1;
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE}, NULL);
    r = whole_node();
    r.info.cpu_quota = 0.5;
    r.threads = 1;
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE}, NULL);
}

static void test_too_many(void **state)
{
    (void)state;
    rank_threads r = bound(1, 4);
    r.chosen = false;
    r.threads = 6;
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE},
                   "6 threads on 4 CPUs (of CPUs 0-15): use --threads 4, or more CPUs");
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, "use --threads 4, or mpirun --bind-to none");
    assert_warning(&r, (launch){.kind = LAUNCHER_HYDRA}, "use --threads 4, or mpiexec -bind-to core:6");
    assert_warning(&r, (launch){.kind = LAUNCHER_SRUN}, "use --threads 4, or srun --cpus-per-task=6");
    r.info.ranks_on_node = 2;
    r.info.cores_idle = 8;
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, "use --threads 4, or mpirun --map-by ppr:2:node:PE=6");
    r.threads = 9; /* the node has no room for 2 x 9 */
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, "use --threads 4");
    r = whole_node();
    r.info.ranks_on_node = 3; /* that share all cores */
    r.info.cpu_share = 16.0 / 3;
    r.threads = 6;
    assert_warning(&r, (launch){.kind = LAUNCHER_HYDRA}, "6 threads on 5.33 CPUs (of CPUs 0-15): use --threads 5");
}

static void test_quota(void **state)
{
    (void)state;
    rank_threads r = whole_node();
    r.info.cpu_quota = 2.5;
    r.threads = 2;
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE}, NULL);
    r.threads = 3;
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE}, "3 threads on a CPU quota of 2.50 (cgroup): use --threads 2");
    r.info.cpu_quota = 0.5;
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE}, "use --threads 1");
}

static void assert_rebinding(rank_threads r, launch l, bool expected)
{
    const rank_threads ranks[] = {r, r};
    assert_int_equal(thread_rebinding(ranks, r.info.ranks_on_node < 2 ? 1 : 2, &l), expected);
}

static void test_rebinding(void **state)
{
    (void)state;
    const launch by_default = {.kind = LAUNCHER_OPEN_MPI, .cpus_on_node = INT_MAX};
    launch l = by_default;
    assert_rebinding(whole_node(), l, false);
    assert_rebinding(bound(1, 1), l, true);
    assert_rebinding(bound(2, 1), l, true);
    assert_rebinding(bound(2, 8), l, false);
    l.binding_given = true;
    assert_rebinding(bound(2, 1), l, false);
    l = by_default;
    l.kind = LAUNCHER_NONE; /* whoever uses taskset means it */
    assert_rebinding(bound(1, 1), l, false);
    l = by_default;
    l.cpus_on_node = 8; /* the other 8 may belong to other jobs */
    assert_rebinding(bound(1, 1), l, false);
    l.cpus_on_node = 16;
    assert_rebinding(bound(1, 1), l, true);
    rank_threads r = bound(1, 2);
    r.chosen = false;
    assert_rebinding(r, by_default, false); /* two threads have two cores */
    r.threads = 3;
    assert_rebinding(r, by_default, true);
    r.info.threads_bound = true;
    assert_rebinding(r, by_default, false);
    r = bound(1, 1);
    r.info.cpu_quota = 1.5;
    assert_rebinding(r, by_default, false);
}

static void test_idle_cores(void **state)
{
    (void)state;
    rank_threads r = bound(1, 1);
    assert_warning(&r, (launch){.kind = LAUNCHER_NONE}, NULL); /* whoever uses taskset means it */
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI, .binding_given = true}, NULL);
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI},
                   "bound to 1 core by mpirun, as it does by default, and runs 1 thread, where it could have 16 cores: "
                   "use mpirun --bind-to none");
    r.info.cpu_quota = 1.5; /* more cores would not be more time */
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, NULL);
    r = bound(3, 1);
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, "could have 5 cores: use mpirun --map-by ppr:3:node:PE=5");
    r.chosen = false;
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, NULL);
    r = bound(9, 1); /* 7 cores are not enough for a second one each */
    assert_warning(&r, (launch){.kind = LAUNCHER_OPEN_MPI}, NULL);
    r = bound(2, 1);
    assert_warning(&r, (launch){.kind = LAUNCHER_SRUN}, NULL); /* the other cores may belong to other jobs */
    assert_warning(&r, (launch){.kind = LAUNCHER_SRUN, .cpus_per_task = 1}, NULL);
    assert_warning(&r, (launch){.kind = LAUNCHER_SRUN, .cpus_per_task = 8},
                   "could have 8 cores: use srun --cpus-per-task=8");
}

static void assert_note(const rank_threads *r, launcher_kind kind, const char *expected)
{
    char text[400];
    const bool noted = numa_note(r, 1, &(launch){.kind = kind}, text, sizeof text);
    if (noted != (expected != NULL) || (expected && !strstr(text, expected)))
        fail_msg("got \"%s\", expected \"%s\"", text, expected ? expected : "");
}

static void test_numa(void **state)
{
    (void)state;
    rank_threads r = whole_node();
    assert_note(&r, LAUNCHER_NONE, NULL); /* nothing is known of NUMA nodes */
    r.info.numa_allowed = 1;
    assert_note(&r, LAUNCHER_NONE, NULL);
    r.info.numa_allowed = 2;
    assert_note(&r, LAUNCHER_NONE, "rank 0 on n1 has the cores of 2 NUMA nodes");
    assert_note(&r, LAUNCHER_NONE,
                "and may move between them; one rank for each reads its own: "
                "mpirun --map-by ppr:1:numa:PE=8, with");
    assert_note(&r, LAUNCHER_HYDRA, "mpiexec -bind-to numa -ppn 2, with");
    assert_note(&r, LAUNCHER_SRUN, "srun --ntasks-per-node=2 --cpus-per-task=8, with");
    r.info.threads_bound = true;
    assert_note(&r, LAUNCHER_NONE, "memory of all of them; one rank");
    r.threads = 8; /* they fit one node */
    assert_note(&r, LAUNCHER_NONE, NULL);
    r = bound(2, 1); /* fewer cores than nodes */
    r.info.numa_allowed = 2;
    assert_note(&r, LAUNCHER_NONE, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),      cmocka_unit_test(test_too_many),   cmocka_unit_test(test_quota),
        cmocka_unit_test(test_rebinding), cmocka_unit_test(test_idle_cores), cmocka_unit_test(test_numa),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
