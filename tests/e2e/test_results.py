#!/usr/bin/env python3
"""Records for programs: csv, json and jsonl of every mode have the columns of docs/RESULTS.md, in its order, and what
must be in them is; lists make every combination."""
import csv
import io
import itertools
import json
import re
import sys

from e2e import RANKS, ROOT, Checks, run, scratch

ORIGIN = ["version", "commit", "host", "cpu_info", "test_time"]
TINY = ("--model", "synthetic:tiny")


def columns(name):
    """The columns of a table of the page, {a,b} expanded. A row lists its columns in order; rows of one phase and kind
    are woven together in the outputs, so that only the set counts there."""
    page = (ROOT / "docs" / "RESULTS.md").read_text(encoding="utf-8")
    table = page.split(f"<!-- columns:{name} begin -->")[1].split("<!-- columns")[0]
    names = []
    for cell in re.findall(r"(?m)^\| (`.*?) \|", table):
        for word in re.findall(r"`([^`]+)`", cell):
            parts = [part.split(",") for part in re.split(r"[{}]", word)]
            names += ["".join(choice) for choice in itertools.product(*parts)]
    return ORIGIN + names


def records(c, what, ranks, program, *options):
    """The records of a run in json; the other forms have the same keys and as many records."""
    outcomes = {form: run(ranks, program, *options, "-o", form) for form in ("json", "jsonl", "csv")}
    if not c.true(what, all(outcome.ok for outcome in outcomes.values()), "\n".join(map(str, outcomes.values()))):
        return []
    rows = json.loads(outcomes["json"].out)
    lines = [json.loads(line) for line in outcomes["jsonl"].out.splitlines()]
    table = list(csv.DictReader(io.StringIO(outcomes["csv"].out), strict=True))
    c.true(f"{what}: as many records in all forms", len(rows) == len(lines) == len(table) > 0, outcomes["csv"])
    c.true(f"{what}: the same keys in all forms", list(rows[0]) == list(lines[0]) == list(table[0]), table[:1])
    for row, line in zip(rows, table):
        empty = {key for key, value in row.items() if value is None or value == []}
        c.true(f"{what}: csv is empty where json is null", {key for key, value in line.items() if value == ""} == empty
               | {key for key, value in row.items() if value == ""}, (empty, line))
    return rows


def check_columns(c, name, rows):
    expected = columns(name)
    c.true(f"{name}: docs/RESULTS.md lists the columns", rows and set(rows[0]) == set(expected) and len(rows[0])
           == len(expected), sorted(set(rows[0] if rows else []) ^ set(expected)))
    c.true(f"{name}: origin", all(row[key] for row in rows for key in ORIGIN) and all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["test_time"]) for row in rows), rows[:1])


def check_lists(c, ranks):
    rows = records(c, "lists", ranks, "benchmark_qwen3", *TINY, "--parallel-strategy", "headwise,sequence",
                   "--attention-algo", "standard,online_softmax", "--dtype", "f32,bf16", "-t", "1,2", "-p", "20,40",
                   "-n", 3, "-r", 2, "--verify")
    got = {(r["strategy"], r["algorithm"], r["dtype"], r["n_threads"], r["test"]) for r in rows}
    wanted = set(itertools.product(("headwise", "sequence"), ("standard", "online_softmax"), ("f32", "bf16"), (1, 2),
                                   ("pp20", "pp40", "tg3")))
    c.true("every combination, once", got == wanted and len(rows) == len(wanted), sorted(wanted ^ got))
    check_columns(c, "benchmark", rows)
    for row in rows:
        phase = "prefill" if row["n_prompt"] else "decode"
        c.true(f"{row['test']}: samples", len(row["samples_ns"]) == len(row[f"samples_{phase}_ms"]) == 2, row)
        kinds = {kind: row[f"{phase}_{kind}_bytes"] for kind in ("reduce", "kv", "query", "partial")}
        c.true(f"{row['test']}, {row['strategy']}: bytes have calls and seconds", ranks == 1 or any(kinds.values())
               and all(row[f"{phase}_{kind}_calls"] > 0 and row[f"{phase}_{kind}_seconds"] > 0
                       for kind, sent in kinds.items() if sent), row)
        c.true(f"{row['test']}: memory", min(row["weight_bytes"], row["kv_bytes"], row["scratch_bytes"]) > 0, row)
    rows = records(c, "lists of --phase", ranks, "benchmark_qwen3", *TINY, "--phase", "both", "--prompt-len", "8,16",
                   "--gen-len", "2,3", "--iters", 1, "--pairs", "--attention-algo", "online_softmax")
    c.true("--pairs with one algorithm", {r["algorithm"] for r in rows} == {"online_softmax"}
           and {r["strategy"] for r in rows} >= {"headwise", "sequence"}, rows[:1])
    c.true("lengths of --phase", [r["test"] for r in rows[::len(rows) // 4 or 1]] == [
        "pp8+tg2", "pp8+tg3", "pp16+tg2", "pp16+tg3"], [r["test"] for r in rows])
    for options, says in ((("--dtype", "bf16,"), "--dtype: got"), (("--plan", "-t", "1,2"), "one number of threads"),
                          (("--parallel-strategy", "headwise,ring"), "with commas between")):
        outcome = run(1, "benchmark_qwen3", *TINY, *options)
        c.true(f"{options} is refused", outcome.code == 2 and says in outcome.err, outcome)


def check_plan(c):
    with scratch() as directory:
        machine = directory / "machine.json"
        run(1, "benchmark_qwen3", "--machine-save", machine, "-t", 1)
        rows = records(c, "--plan", 1, "benchmark_qwen3", "--plan", "--machine", machine, "--nodes", 4, "--dtype",
                       "bf16,q4", "--attention-algo", "standard,online_softmax", "-p", "64,512", "-n", 0)
    check_columns(c, "plan", rows)
    c.true("--plan of lists: 3 grids, 2 algorithms, 2 types, 2 tests", len(rows) == 24 and {
        (r["dtype"], r["algorithm"]) for r in rows} == set(itertools.product(("bf16", "q4"), (
            "standard", "online_softmax"))), len(rows))


def main():
    c = Checks()
    ranks = 2 if 2 in RANKS else RANKS[0]
    check_lists(c, ranks)
    check_plan(c)
    check_columns(c, "check", records(c, "test_parallel_strategies", ranks, "test_parallel_strategies", "--cases", 1))
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
