#!/usr/bin/env python3
"""measure_scaling.py [-b BUILD] [-r ROUNDS] CASE... [-- OPTION...]: more ranks against fewer, whole runs in turns.

Cases (all without a name):
  node       1 rank x 2 threads; 2 ranks x 1 thread, HEAD_WISE and SEQUENCE
  many       2 ranks, 8 ranks on the cores of this machine
  10gbit     1 host of 1 core; 2 emulated hosts of 1 core, HEAD_WISE, SEQUENCE, AUTO
  1gbit      the same with slower links
OPTIONs go to benchmark_qwen3 (default: -p 512,2048 -n 32). Prints the median of tokens per second, and the median, the
lowest and the highest of the ratios to the first configuration of the same round. Emulated hosts need root.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ("headwise", "sequence")


def mpirun(ranks, *options):
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *options]


def hosts(rate, strategy):
    return [str(ROOT / "scripts/emulate_hosts.sh"), "-n", "2", "-r", rate, "-c", "1", "mpirun", "--allow-run-as-root",
            "--bind-to", "none", "-n", "2"], ["-t", "1", "--parallel-strategy", strategy]


def configurations(case):
    """[(name, launcher, options)]; ratios are to the first."""
    if case == "node":
        return [("1 x 2", [], ["-t", "2"])] + [
            (f"2 x 1 {s}", mpirun(2), ["-t", "1", "--parallel-strategy", s]) for s in STRATEGIES]
    if case == "many":
        return [(f"{n} x 1 {s}", mpirun(n), ["-t", "1", "--parallel-strategy", s])
                for s in STRATEGIES for n in (2, 8)]
    return [("1 host", ["taskset", "-c", "0"], ["-t", "1"])] + [
        (f"2 hosts {s}", *hosts(case, s)) for s in (*STRATEGIES, "auto")]


def run(binary, launcher, options):
    command = [*launcher, str(binary), "--repetitions", "1", "-o", "json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr[-2000:]}")
    return {t["test"]: t["avg_ts"] for t in json.loads(done.stdout[done.stdout.index("["):])}


def measure(case, args):
    samples = {}  # (test, configuration) -> tokens per second of each round
    todo = configurations(case)
    for _ in range(args.rounds):
        for name, launcher, options in todo:
            for test, rate in run(args.build / "bin/benchmark_qwen3", launcher, [*options, *args.options]).items():
                samples.setdefault((test, name), []).append(rate)
    for test in dict.fromkeys(test for test, _ in samples):
        for i, (name, _, _) in enumerate(todo):
            rates = samples[test, name]
            # 8 ranks are compared with 2 of the same strategy.
            first = samples[test, todo[i - i % 2 if case == "many" else 0][0]]
            ratios = [a / b for a, b in zip(rates, first)]
            print(f"| {case} | {test} | {name} | {statistics.median(rates):.1f} | {statistics.median(ratios):.2f} | "
                  f"{min(ratios):.2f} to {max(ratios):.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-b", "--build", type=Path, default=ROOT / "build")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    argv = sys.argv[1:]
    split = argv.index("--") if "--" in argv else len(argv)
    args = parser.parse_args(argv[:split])
    args.options = argv[split + 1:] or ["-p", "512,2048", "-n", "32"]
    known = ("node", "many", "10gbit", "1gbit")
    for case in args.cases:
        if case not in known:
            parser.error(f"case {case}: expected {', '.join(known)}")
    print("| case | test | ranks | tokens/s | ratio | lowest to highest |\n|---|---|---|---:|---:|---:|")
    for case in args.cases or known:
        measure(case, args)


if __name__ == "__main__":
    main()
