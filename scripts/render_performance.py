#!/usr/bin/env python3
"""render_performance.py DIRECTORY: prints the results of measure_performance.sh as a table in Markdown."""
import argparse
import json
import statistics
from pathlib import Path


def read(path):
    """The only test of a run of benchmark_qwen3 or llama-bench, which may print something before its results."""
    text = path.read_text(encoding="utf-8")
    return json.loads(text[text.index("["):])[0]


def median(values, form):
    return form.format(statistics.median(values)) if values else "–"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    machine = dict(line.split("=", 1) for line in (directory / "machine.txt").read_text().splitlines())
    table, first, peer, rounds = [], None, None, 0
    for number, line in enumerate((directory / "rows.txt").read_text().splitlines(), 1):
        name, weights = line.split("|")[:2]
        ours, theirs, ratios = [], [], []
        for path in sorted(directory.glob(f"ours-{number}-*.json")):
            ours.append(read(path))
            other = directory / path.name.replace("ours", "theirs")
            if other.exists():
                peer = read(other)
                theirs.append(statistics.mean(peer["samples_ts"][1:] or peer["samples_ts"]))
                ratios.append(ours[-1]["avg_ts"] / theirs[-1])
        if not ours:
            continue
        first, rounds = first or ours[0], max(rounds, len(ours))
        table.append([name, weights, median([r["limit_ts"] for r in ours], "{:.1f}"),
                      median([r["avg_ts"] for r in ours], "{:.1f}"),
                      median([100 * r["limit_fraction"] for r in ours], "{:.0f} %"),
                      median(theirs, "{:.1f}"), median(ratios, "{:.2f}")])
    assert table, f"no results in {directory}"
    heading = ["test", "weights", "limit, t/s", "ours, t/s", "of the limit", "llama-bench, t/s", "ours / theirs"]
    columns = len(heading) if peer else len(heading) - 2
    for row in [heading, ["---", "---"] + ["---:"] * 5, *table]:
        print("| " + " | ".join(row[:columns]) + " |")
    print(f"\n{first['model_type'].rsplit(' ', 1)[0]} shape on {first['cpu_info'].strip()}, {machine['cores']} cores, "
          f"{first['n_threads']} threads, {first['isa']} kernels where not said otherwise, commit {machine['commit']}, "
          f"{machine['date']}; medians of {rounds} rounds in which all rows took turns.")
    if peer:
        print(f"llama-bench: build {peer['build_commit']} ({peer['build_number']}), K and V in {peer['type_k']}; ours "
              f"in bf16, f32 with f32 weights. Ratios are medians of those of each round.")


if __name__ == "__main__":
    main()
