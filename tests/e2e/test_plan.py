#!/usr/bin/env python3
"""Predictions: rates that are saved and read again, --plan for ranks that are not there, what AUTO says, and predicted
beside measured."""
import json
import os
import re
import sys

from e2e import RANKS, Checks, run, scratch

MODEL = ("--model", "synthetic:0.6B")
KEYS = """predicted_prefill_ms predicted_step_ms predicted_ts strategy grid algorithm movement messages_per_layer
    bytes_per_layer weight_bytes kv_bytes products_ms attention_ms messages_ms over_one_node""".split()
FACTOR = 4  # of a prediction: machines that run tests do other things beside


def rows_of(outcome):
    return json.loads(outcome.out) if outcome.ok else []


def plan(machine, *options):
    return rows_of(run(1, "benchmark_qwen3", *MODEL, "--plan", "--machine", machine, "-o", "json", *options))


def check_machine(c, ranks, path):
    """Measures once; the file has rates of every type."""
    outcome = run(ranks, "benchmark_qwen3", "--machine-save", path, "-t", 1)
    if not c.true("--machine-save", outcome.ok and path.exists(), outcome):
        return
    machine = json.loads(path.read_text())
    c.true("rates of every type", set(machine["product_values"]) == {"f32", "bf16", "q8", "q4"}, machine)
    c.true("ranks", (machine["nodes"], machine["ranks_per_node"], machine["threads"]) == (1, ranks, 1), machine)
    c.true("positive", all(v > 0 for rates in machine["product_values"].values() for v in rates), machine)


def check_plan(c, path):
    """Ranks that are not there: every grid with both algorithms, a best one for each test, and plausible numbers."""
    rows = plan(path, "--nodes", 4, "--ranks-per-node", 2, "--net", "10gbit,30us", "-p", "64,2048", "-n", 1)
    c.true("all grids, algorithms and tests", len(rows) == 4 * 2 * 3, len(rows))
    c.true("all keys", all(key in row for row in rows for key in KEYS), rows[:1])
    tests = {row["test"] for row in rows}
    c.true("one best of each test", sum(row["best"] == "best" for row in rows) == len(tests), tests)
    for test in tests:
        of_test = [row for row in rows if row["test"] == test]
        best = max(row["predicted_ts"] for row in of_test)
        c.true(f"{test}: the best is the fastest",
               [row["predicted_ts"] for row in of_test if row["best"] == "best"] == [best], of_test)
    slow = plan(path, "--nodes", 4, "--ranks-per-node", 2, "--net", "0.1gbit,20000us", "-p", "64,2048", "-n", 1)
    c.true("a slower network is slower", all(a["predicted_ts"] <= b["predicted_ts"] for a, b in zip(slow, rows)
                                              if a["movement"] == b["movement"]), slow[:2])
    c.true("and slower than one node", max(r["over_one_node"] for r in slow if r["test"] == "tg1") < 1, slow[:2])
    table = run(1, "benchmark_qwen3", *MODEL, "--plan", "--machine", path)
    c.true("a table", table.ok and "| over one node |" in table.out and "1 node of" in table.out, table)
    again = plan(path, "--nodes", 4, "--ranks-per-node", 2, "--net", "10gbit,30us", "-p", "64,2048", "-n", 1)
    for row in rows + again:
        del row["test_time"]
    c.true("the same again", rows == again)


def check_refused(c, path):
    for options, says in ((("--net", "10gbit,30us"), "only means something with --plan"),
                          (("--plan", "--net", "fast"), "--net: got \"fast\", expected RATE,LATENCY"),
                          (("--plan", "--pairs"), "contradicts"),
                          (("--machine", os.devnull), "expected"),
                          (("--machine", "/nowhere/machine.json"), "/nowhere/machine.json")):
        outcome = run(1, "benchmark_qwen3", *MODEL, *options)
        c.true(f"{options} is refused", outcome.code == 2 and says in outcome.err, outcome)


def check_measured(c, ranks, path):
    """Predicted beside measured, with a file and without one."""
    for options in ((), ("--machine", path)):
        outcome = run(ranks, "benchmark_qwen3", *MODEL, "-t", 1, "-p", 64, "-n", 4, "-r", 2, "-o", "json", *options,
                      timeout=300)
        for row in rows_of(outcome):
            ratio = row["over_predicted"] or 0
            c.true(f"{ranks} ranks, {row['test']}: measured over predicted", 1 / FACTOR < ratio < FACTOR, row)
        c.true(f"{ranks} ranks", len(rows_of(outcome)) == 2, outcome)


def check_info(c, ranks, path):
    """qwen3 info: of a file all types, of a measurement the one that is taken; nothing of a model that caches hold."""
    outcome = run(ranks, "qwen3", "info", *MODEL, "--machine", path, "-t", 1)
    rows = re.findall(r"^  (\w+) +(\d+)x(\d+) +([\d.]+) +([\d.]+)$", outcome.out, re.MULTILINE)
    c.true("info: a line for each type", [row[0] for row in rows] == ["f32", "bf16", "q8", "q4"] and
           all(int(row[1]) * int(row[2]) == ranks and float(row[3]) > 0 and float(row[4]) > 0 for row in rows), outcome)
    outcome = run(ranks, "qwen3", "info", *MODEL, "-t", 1, timeout=300)
    c.true("info measures", re.search(r"^  bf16 +\d+x\d+ +[\d.]+ +[\d.]+$", outcome.out, re.MULTILINE), outcome)
    for options in (["--model", "synthetic:tiny"], [*MODEL, "--no-speed"], [*MODEL, "--nodes", 2]):
        outcome = run(1, "qwen3", "info", *options)
        c.true(f"info {options}: nothing is predicted", outcome.ok and "per second" not in outcome.out, outcome)
    outcome = run(1, "qwen3", "info", *MODEL, "--machine", "/nowhere/machine.json")
    c.true("info: no such file", outcome.code == 2 and "/nowhere/machine.json" in outcome.err, outcome)


def check_auto(c, ranks, path):
    outcome = run(ranks, "benchmark_qwen3", *MODEL, "-t", 1, "--phase", "prefill", "--prompt-len", 32, "--iters", 1,
                  "--machine", path, timeout=300)
    c.true("AUTO says why", "auto: predicted for 32 tokens" in outcome.out, outcome)
    c.true("one node needs no warning", outcome.ok and "warning" not in outcome.err, outcome)


def main():
    c = Checks()
    ranks = 2 if 2 in RANKS else RANKS[0]
    with scratch() as directory:
        path = directory / "machine.json"
        check_machine(c, ranks, path)
        if path.exists():
            check_plan(c, path)
            check_refused(c, path)
            check_info(c, ranks, path)
            check_measured(c, ranks, path)
        if ranks > 1 and path.exists():
            check_auto(c, ranks, path)
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
