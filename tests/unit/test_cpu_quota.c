/* test_cpu_quota.c - quotas of cgroups of both versions, read from trees of files as kernels and containers have them.
 */
#include "comm/cpu_quota.h"

#include "support/temp_files.h"

/* Writes a file below the directory, and the directories above it. */
static void put(const temp_dir *dir, const char *name, const char *text)
{
    temp_path path = temp_join(dir, name);
    for (char *at = strchr(path.text + strlen(dir->path) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(path.text, 0777);
        *at = '/';
    }
    write_text(path.text, text);
}

static void put_v2(const temp_dir *dir, const char *group, const char *top)
{
    char mounts[256], groups[128];
    snprintf(mounts, sizeof mounts,
             "22 1 0:21 / /proc rw,nosuid - proc proc rw\n"
             "30 22 0:26 %s /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
             top);
    snprintf(groups, sizeof groups, "0::%s\n", group);
    put(dir, "proc/self/mountinfo", mounts);
    put(dir, "proc/self/cgroup", groups);
}

static void assert_quotas(const temp_dir *dir, int n, const double *cpus)
{
    cpu_quotas quotas;
    cpu_quotas_read(dir->path, &quotas);
    assert_int_equal(quotas.n, n);
    for (int i = 0; i < n; i++)
        assert_float_equal(quotas.groups[i].cpus, cpus[i], 1e-9);
}

static void test_nothing(void **state)
{
    const temp_dir *dir = *state;
    assert_quotas(dir, 0, NULL);
    put(dir, "proc/self/cgroup", "nonsense\n0:\n::::\n7:cpu\n");
    put(dir, "proc/self/mountinfo", "\n - cgroup2\n1 2 3 / /x - cgroup2 x rw\n");
    assert_quotas(dir, 0, NULL);
}

/* Each group on the way up may have one; the root of a machine has no file. */
static void test_v2_path(void **state)
{
    const temp_dir *dir = *state;
    put_v2(dir, "/system.slice/job.scope/task_0", "/");
    put(dir, "sys/fs/cgroup/system.slice/job.scope/task_0/cpu.max", "max 100000\n");
    assert_quotas(dir, 0, NULL);
    put(dir, "sys/fs/cgroup/system.slice/job.scope/cpu.max", "150000 100000\n");
    put(dir, "sys/fs/cgroup/system.slice/cpu.max", "20000 10000\n");
    put(dir, "sys/fs/cgroup/other/cpu.max", "1000 100000\n");
    assert_quotas(dir, 2, (const double[]){1.5, 2});
    put(dir, "sys/fs/cgroup/system.slice/job.scope/task_0/cpu.max", "50000 100000\n");
    assert_quotas(dir, 3, (const double[]){0.5, 1.5, 2});
}

/* A container with a namespace of its own sees its group as the root, once. */
static void test_v2_container(void **state)
{
    const temp_dir *dir = *state;
    put_v2(dir, "/", "/");
    put(dir, "sys/fs/cgroup/cpu.max", "250000 100000\n");
    assert_quotas(dir, 1, (const double[]){2.5});
}

/* Without one, the part of the hierarchy that is mounted begins at its group. */
static void test_v2_mounted_part(void **state)
{
    const temp_dir *dir = *state;
    put_v2(dir, "/docker/0a1b/child", "/docker/0a1b");
    put(dir, "sys/fs/cgroup/cpu.max", "300000 100000\n");
    put(dir, "sys/fs/cgroup/child/cpu.max", "100000 100000\n");
    assert_quotas(dir, 2, (const double[]){1, 3});
    put_v2(dir, "/docker/0a1bc", "/docker/0a1b"); /* another group, of which nothing is mounted */
    assert_quotas(dir, 0, NULL);
}

static void test_v1(void **state)
{
    const temp_dir *dir = *state;
    put(dir, "proc/self/cgroup",
        "12:cpuset:/batch\n4:cpuacct,cpu:/batch/job\n1:name=systemd:/elsewhere\n0::/elsewhere\n");
    put(dir, "proc/self/mountinfo",
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
        "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        "32 31 0:29 / /sys/fs/cgroup/the\\040cpu rw,relatime shared:9 - cgroup cgroup rw,cpuacct,cpu\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    put(dir, "sys/fs/cgroup/the cpu/cpu.cfs_quota_us", "-1\n");
    put(dir, "sys/fs/cgroup/the cpu/cpu.cfs_period_us", "100000\n");
    put(dir, "sys/fs/cgroup/the cpu/batch/job/cpu.cfs_quota_us", "-1\n");
    put(dir, "sys/fs/cgroup/the cpu/batch/job/cpu.cfs_period_us", "100000\n");
    put(dir, "sys/fs/cgroup/cpuset/batch/cpu.cfs_quota_us", "1000\n");
    put(dir, "sys/fs/cgroup/cpuset/batch/cpu.cfs_period_us", "1000\n");
    assert_quotas(dir, 0, NULL);
    put(dir, "sys/fs/cgroup/the cpu/batch/cpu.cfs_quota_us", "75000\n");
    put(dir, "sys/fs/cgroup/the cpu/batch/cpu.cfs_period_us", "50000\n");
    assert_quotas(dir, 1, (const double[]){1.5});
    put(dir, "sys/fs/cgroup/unified/elsewhere/cpu.max", "40000 10000\n"); /* both versions limit */
    assert_quotas(dir, 2, (const double[]){1.5, 4});
}

/* Ranks 0 and 1 in one group of a job of 4 CPUs, rank 2 in another, rank 3 outside. */
static void test_share(void **state)
{
    (void)state;
    const cpu_quota job = {1, 10, 4}, narrow = {1, 11, 1.5}, same_inode = {2, 11, 1};
    const cpu_quotas ranks[] = {{2, {narrow, job}}, {2, {narrow, job}}, {1, {job}}, {0}, {1, {same_inode}}};
    const double shares[] = {0.75, 0.75, 4.0 / 3, 0, 1};
    for (size_t r = 0; r < sizeof ranks / sizeof *ranks; r++)
        assert_float_equal(cpu_quota_share(ranks, sizeof ranks / sizeof *ranks, r), shares[r], 1e-9);
    assert_float_equal(cpu_quota_share(ranks, 1, 0), 1.5, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_v2_path, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_v2_container, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_v2_mounted_part, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test_setup_teardown(test_v1, temp_dir_setup, temp_dir_teardown),
        cmocka_unit_test(test_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
