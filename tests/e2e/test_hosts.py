#!/usr/bin/env python3
"""Ranks on emulated hosts, which talk over TCP: every strategy and algorithm against one rank, and the answer of a
model, which is the same wherever its ranks are."""
import subprocess
import sys

from e2e import BIN, LAUNCH, MPIEXEC, ROOT, Checks, run

EMULATE = ROOT / "scripts" / "emulate_hosts.sh"
ANSWER = ("run", "--model", ROOT / "models" / "demo", "--temperature", 0, "--max-tokens", 20, "What can you do?")


def run_on_hosts(hosts, ranks_per_host, program, *arguments):
    environment = {"OMPI_MCA_orte_tmpdir_base": ""}  # set by the script, within the hosts
    return run(1, EMULATE, "-n", hosts, "-s", ranks_per_host, "-r", "1gbit", LAUNCH, MPIEXEC, hosts * ranks_per_host,
               BIN / program, *arguments, env=environment)


def main():
    if subprocess.run([EMULATE, "true"], check=False).returncode == 77:
        return 77
    checks = Checks()
    for hosts, ranks_per_host in [(2, 1), (3, 1), (2, 2)]:
        outcome = run_on_hosts(hosts, ranks_per_host, "benchmark_qwen3", "--model", "synthetic:tiny", "--pairs",
                               "--verify", "--n-prompt", 64, "--n-gen", 8, "--repetitions", 1, "--warmup", 0)
        what = f"{hosts} hosts, {ranks_per_host} ranks on each"
        checks.true(f"{what}: all pairs", outcome.ok and f"on {hosts} nodes" in outcome.err, outcome)
    expected = run(1, "qwen3", *ANSWER)
    checks.true("one rank answers", expected.ok and expected.out.strip(), expected)
    for strategy in ("headwise", "sequence"):
        outcome = run_on_hosts(2, 1, "qwen3", *ANSWER, "--parallel-strategy", strategy)
        checks.true(f"2 hosts, {strategy}: the same answer", outcome.ok and outcome.out == expected.out, outcome)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
