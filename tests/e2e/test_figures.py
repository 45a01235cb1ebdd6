#!/usr/bin/env python3
"""Tables and figures from results: measure_strategies.sh measures and prints the tables of both pages, and plot.py
draws from csv, json and jsonl. Figures need matplotlib."""
import importlib.util
import re
import sys

from e2e import BIN, RANKS, ROOT, Checks, run, scratch

TINY = ("--model", "synthetic:tiny", "--pairs", "-p", "16,32", "-n", 2, "-r", 1, "--warmup", 0)
SCRIPTS = ROOT / "scripts"


def check_tables(c, ranks, directory):
    environment = {"MODEL": "synthetic:tiny", "RANKS": ranks, "HOSTS": "", "LENGTHS": "24 48", "LONG": "",
                   "ROUNDS": "1", "GEN": "2", "RESULTS": str(directory)}
    outcome = run(1, SCRIPTS / "measure_strategies.sh", BIN.parent, env=environment, timeout=600)
    if not c.true("measure_strategies.sh", outcome.ok, outcome):
        return
    tables = re.findall(r"<!-- (\S+), measured:(\w+) -->\n(.*?)(?=\n<!--|\Z)", outcome.out, re.S)
    rows = {(page, name): sum(line.startswith("| ") for line in text.splitlines()) for page, name, text in tables}
    for page in ("PARALLEL_STRATEGIES.md", "PARALLEL_STRATEGIES.zh-CN.md"):
        pairs = {"1": 2, "2": 4}
        pairs = sum(pairs[n] for n in ranks.split())
        c.true(f"{page}: prefill, a row for each length and pair", rows.get((page, "prefill")) == 2 * pairs + 2, rows)
        c.true(f"{page}: decode, a row for each pair", rows.get((page, "decode")) == pairs + 2, rows)
        c.true(f"{page}: correctness", rows.get((page, "correctness"), 0) == 8 * len(ranks.split()) + 2, rows)
        c.true(f"{page}: bytes", ranks == "1" or rows.get((page, "bytes")) == 2 * 2 + 2, rows)
    c.true("places in the pages have not changed", all("measured:" in path.read_text() for path in (
        ROOT / "docs").glob("PARALLEL_STRATEGIES*.md")))


def check_figures(c, ranks, directory):
    files = []
    for n, form in zip((1, ranks, ranks), ("csv", "json", "jsonl")):
        outcome = run(n, "benchmark_qwen3", *TINY, "-o", form)
        if c.true(f"results in {form}", outcome.ok, outcome):
            files.append(directory / f"results.{form}")
            files[-1].write_text(outcome.out, encoding="utf-8")
    outcome = run(1, sys.executable, SCRIPTS / "plot.py", "results", *files, "--to", directory / "figures")
    c.true("plot.py results", outcome.ok, outcome)
    words = {"time-over-length": ["headwise, standard", "prefill, ms", "1 rank"],
             "speed-over-ranks": ["tokens/s", "prefill 32", "decode 2"],
             "bytes-by-kind": ["KiB per token", "reduce"] + (["sequence, pp32"] if ranks > 1 else [])}
    for name, expected in words.items():
        path = directory / "figures" / f"{name}.svg"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        c.true(f"{name}.svg", text.startswith("<?xml") and all(word in text for word in expected), text[:200])


def main():
    c = Checks()
    ranks = 2 if 2 in RANKS else 1
    with scratch() as directory:
        check_tables(c, "1 2" if ranks == 2 else "1", directory / "measure")
        if importlib.util.find_spec("matplotlib"):
            check_figures(c, ranks, directory)
        else:
            print("figures: skipped, matplotlib is missing (scripts/packages.txt, plots)")
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
