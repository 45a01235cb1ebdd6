#!/usr/bin/env python3
"""The default number of threads and its warnings: affinity, the launcher's binding, CPU quotas of cgroups.

A quota is tested where a cgroup can be made (root, and a hierarchy of version 1 or 2 with the controller "cpu").
"""
import contextlib
import os
import pathlib
import re
import subprocess
import sys

from e2e import BIN, MPIEXEC, Checks, run

CPUS = sorted(os.sched_getaffinity(0))
BENCHMARK = ("-m", "synthetic:tiny", "-p", 4, "-n", 0, "-r", 1, "--warmup", 0)
WARNING = "qwen3: warning: "
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def benchmark(*prefix, ranks=1, arguments=()):
    """benchmark_qwen3 without OMP_NUM_THREADS, by the commands of `prefix`."""
    return run(ranks, "/usr/bin/env", "-u", "OMP_NUM_THREADS", *prefix, BIN / "benchmark_qwen3", *BENCHMARK, *arguments,
               env=ROOT_MAY)


def threads(outcome):
    found = re.search(r"(\d+) threads? per rank", outcome.err)
    return int(found[1]) if found else None


def warnings(outcome):
    return [line for line in outcome.err.splitlines() if line.startswith(WARNING)]


def notes(outcome):
    return [line for line in outcome.err.splitlines() if line.startswith("qwen3: note: mpirun bound")]


def check_affinity(checks):
    outcome = benchmark("taskset", "-c", str(CPUS[0]))
    checks.true("taskset: one CPU, one thread", threads(outcome) == 1 and not warnings(outcome), outcome)
    outcome = benchmark("taskset", "-c", str(CPUS[0]), arguments=("-t", 2))
    lines = warnings(outcome)
    checks.true("taskset: two threads on one CPU", threads(outcome) == 2 and len(lines) == 1 and
                "2 threads on 1 CPU" in lines[0] and "use --threads 1, or more CPUs (taskset" in lines[0], outcome)


def is_open_mpi():
    return MPIEXEC and "open" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout.lower()


def check_binding(checks):
    """What Open MPI does if nothing is said about binding."""
    if len(CPUS) < os.cpu_count() or len(CPUS) < 2 or not is_open_mpi():
        print("binding: not tested, needs Open MPI and all of at least two CPUs")
        return
    everything = "each rank takes its share of its node, rank 0 on"
    for ranks in (1, 2):
        outcome = benchmark(MPIEXEC, "-n", ranks)
        noted = notes(outcome)
        share = len(CPUS) // ranks
        checks.true(f"mpirun -n {ranks}: a rank's share of the cores", outcome.ok and not warnings(outcome) and
                    threads(outcome) == share and len(noted) == (share > 1) and
                    all(everything in line and f"{share} cores" in line for line in noted), outcome)
    outcome = benchmark(MPIEXEC, "-n", 1, arguments=("-t", 2))
    checks.true("mpirun -n 1, two threads: two cores", threads(outcome) == 2 and not warnings(outcome) and
                len(notes(outcome)) == 1, outcome)
    outcome = benchmark(MPIEXEC, "-n", 1, arguments=("--bind", "inherit"))
    lines = warnings(outcome)
    if checks.true("--bind inherit: one core and a warning", threads(outcome) == 1 and len(lines) == 1 and
                   not notes(outcome), outcome):
        checks.true("--bind inherit: says what to do", "use mpirun --bind-to none" in lines[0], outcome)
    for program in (("run", "--max-tokens", 1, "Hi"), ("chat", "--max-tokens", 1)):
        outcome = run(1, "/usr/bin/env", "-u", "OMP_NUM_THREADS", MPIEXEC, "-n", 1, BIN / "qwen3", program[0], "-m",
                      pathlib.Path(__file__).resolve().parents[2] / "models" / "demo", *program[1:], env=ROOT_MAY)
        checks.true(f"mpirun -n 1 qwen3 {program[0]}: takes the node's cores", outcome.ok and not warnings(outcome) and
                    len(notes(outcome)) == 1, outcome)
    outcome = run(1, "/usr/bin/env", "-u", "OMP_NUM_THREADS", "OMP_PROC_BIND=close", MPIEXEC, "-n", 1,
                  BIN / "benchmark_qwen3", *BENCHMARK, env=ROOT_MAY)
    checks.true("OMP_PROC_BIND: OpenMP keeps the threads, a warning", len(warnings(outcome)) == 1 and
                not notes(outcome), outcome)
    for asked in (("--bind-to", "none"), ("--bind-to", "core")):
        outcome = benchmark(MPIEXEC, *asked, "-n", 1)
        checks.true(f"mpirun {' '.join(asked)}: as asked", outcome.ok and not warnings(outcome) and
                    not notes(outcome) and threads(outcome) == (1 if "core" in asked else len(CPUS)), outcome)


@contextlib.contextmanager
def cgroup(cpus):
    """A new cgroup with a quota, inside a group without: the directory of its child; None where none can be made."""
    made = []
    try:
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            fields, (kind, _, options) = (part.split() for part in line.split(" - "))
            mount = pathlib.Path(fields[4])
            unified = kind == "cgroup2" and "cpu" in (mount / "cgroup.controllers").read_text().split()
            if not unified and not (kind == "cgroup" and "cpu" in options.split(",")):
                continue
            top = mount / f"qwen3-test-{os.getpid()}"
            if unified:
                (mount / "cgroup.subtree_control").write_text("+cpu")
            top.mkdir()
            made.append(top)
            if unified:
                (top / "cpu.max").write_text(f"{int(cpus * 100000)} 100000")
            else:
                (top / "cpu.cfs_quota_us").write_text(str(int(cpus * 100000)))
            (top / "child").mkdir()
            made.append(top / "child")
            print(f"quota: cgroup version {2 if unified else 1}")
            yield top / "child"
            return
        print('quota: not tested, no hierarchy of cgroups has the controller "cpu"')
        yield None
    finally:
        for group in reversed(made):
            group.rmdir()


def check_quota(checks, cpus, ranks):
    """Ranks in a group that has no quota itself, below one that has."""
    with cgroup(cpus) as group:
        if group is None:
            return
        script = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        each, what = cpus / ranks, f"quota of {cpus} CPUs, {ranks} ranks"
        expected = max(1, min(int(each), len(CPUS) // ranks))
        outcome = benchmark("sh", "-c", script, "sh", ranks=ranks)
        checks.true(f"{what}: threads", threads(outcome) == expected and not warnings(outcome), outcome)
        checks.true(f"{what}: printed", f"CPU quota {each:.2f}" in outcome.err, outcome)
        if len(CPUS) // ranks > expected:
            outcome = benchmark("sh", "-c", script, "sh", ranks=ranks, arguments=("-t", expected + 1))
            lines = warnings(outcome)
            checks.true(f"{what}: {expected + 1} threads", len(lines) == 1 and
                        f"on a CPU quota of {each:.2f} (cgroup): use --threads {expected}" in lines[0], outcome)


def main():
    checks = Checks()
    check_affinity(checks)
    check_binding(checks)
    try:
        for cpus, ranks in ((0.5, 1), (1.5, 1), (2, 1), *(((2, 2),) if MPIEXEC else ())):
            check_quota(checks, cpus, ranks)
    except OSError as error:
        print(f"quota: not tested, cannot make a cgroup: {error}")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
