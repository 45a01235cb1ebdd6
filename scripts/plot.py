#!/usr/bin/env python3
"""plot.py results FILE... [--to docs/strategies]: figures of measured runs, from what benchmark_qwen3 wrote with
--output csv, json or jsonl: time over length, speed over ranks, bytes by kind. Runs of the same test count as one, by
their median.

plot.py scaling [--bin build/bin] [--machine docs/scaling/node.json] [--to docs/scaling]: what benchmark_qwen3 --plan
predicts for 1 to 1,024 nodes, as figures and as the tables of docs/SCALING.md. Each table is between
<!-- predicted:NAME begin --> and <!-- predicted:NAME end -->; nothing else is touched.

All figures are SVG. Needs matplotlib (scripts/packages.txt, plots).
"""
import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

try:
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
except ImportError:  # --help needs none
    matplotlib = None

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("0.6B", "8B", "32B")
NETWORKS = {"1 Gbit/s": "1gbit,50us", "10 Gbit/s": "10gbit,30us", "100 Gbit/s": "100gbit,5us",
            "400 Gbit/s": "400gbit,2us"}
NODES = tuple(2**i for i in range(11))
TABLE_NODES = (2, 4, 8, 16, 64, 256, 1024)
TESTS = (("pp512", "prefill 512"), ("pp8192", "prefill 8192"), ("tg1 @ d2048", "decode"))
PLOTS = (("prefill", "pp2048", "Prefill of 2,048 tokens"), ("decode", "tg1 @ d2048", "Decode after 2,048 tokens"))
KINDS = ("reduce", "kv", "query", "partial", "logits")
STYLES = {"headwise": ("C0", "-"), "sequence": ("C1", "-"), "hybrid": ("C2", "--")}


# ---- Measured ----------------------------------------------------------------------------------------------------


def number(text):
    """A cell of csv as json has it."""
    try:
        value = float(text)
    except ValueError:
        return text or None
    return int(value) if value.is_integer() else value


def read_records(path):
    text = path.read_text(encoding="utf-8")
    if text.startswith("["):
        return json.loads(text)
    if text.startswith("{"):
        return [json.loads(line) for line in text.splitlines()]
    return [{key: number(cell) for key, cell in row.items()} for row in csv.DictReader(text.splitlines(), strict=True)]


def places(record):
    """Where a test ran."""
    if record["n_nodes"] > 1:
        return f"{record['n_nodes']} hosts"
    return f"{record['n_ranks']} rank{'s' if record['n_ranks'] > 1 else ''}"


def medians(records, phase, field):
    """{(place, ranks, strategy, algorithm): {tokens: median}} of tests of one phase alone, of one sequence."""
    series = {}
    count, other = ("n_prompt", "n_gen") if phase == "prefill" else ("n_gen", "n_prompt")
    for r in records:
        if r[count] and not r[other] and r["batch_size"] == 1 and not r["n_depth"] and r[field] is not None:
            key = places(r), r["n_ranks"], r["strategy"], r["algorithm"]
            series.setdefault(key, {}).setdefault(r[count], []).append(r[field])
    return {key: {n: statistics.median(values) for n, values in sorted(points.items())}
            for key, points in series.items()}


def save(figure, directory, name):
    figure.tight_layout()
    figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def line_of(strategy, algorithm):
    return {"color": STYLES[strategy][0], "linestyle": "--" if algorithm == "standard" else "-", "marker": "o",
            "markersize": 3, "linewidth": 1.2, "label": f"{strategy}, {algorithm}"}


def plot_lengths(records, directory):
    """Milliseconds of a prompt over its length, an axis for each number of ranks."""
    series = medians(records, "prefill", "prefill_ms")
    where = list(dict.fromkeys(key[0] for key in sorted(series, key=lambda key: ("host" in key[0], key[1]))))
    figure, axes = plt.subplots(1, len(where), figsize=(3.2 * len(where) + 0.6, 3.2), sharey=True, squeeze=False)
    for axis, place in zip(axes[0], where):
        for (at, _, strategy, algorithm), points in sorted(series.items()):
            if at == place:
                axis.plot(list(points), list(points.values()), **line_of(strategy, algorithm))
        axis.set(xscale="log", yscale="log", title=place, xlabel="tokens of the prompt")
        axis.legend(fontsize=6)
    axes[0][0].set_ylabel("prefill, ms")
    save(figure, directory, "time-over-length")


def plot_ranks(records, directory):
    """Speed over one rank, for the longest prompt that all have and for decode; 1 node."""
    here = [r for r in records if r["n_nodes"] == 1]
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2))
    for axis, phase in zip(axes, ("prefill", "decode")):
        series = medians(here, phase, "avg_ts")
        lengths = set.intersection(*(set(points) for points in series.values())) if series else set()
        axis.set(xlabel="ranks", title=f"{phase} {max(lengths)}" if lengths else phase)
        lines = {}
        for (_, ranks, strategy, algorithm), points in sorted(series.items()):
            if lengths:
                lines.setdefault((strategy, algorithm), []).append((ranks, points[max(lengths)]))
        for pair, points in lines.items():
            axis.plot(*zip(*points), **line_of(*pair))
        axis.set_ylim(bottom=0)
        axis.set_ylabel("tokens/s")
        if lines:
            axis.legend(fontsize=6)
    save(figure, directory, "speed-over-ranks")


def plot_bytes(records, directory):
    """KiB that all ranks send for a token, by kind."""
    bars = {}
    for phase, count, other in (("prefill", "n_prompt", "n_gen"), ("decode", "n_gen", "n_prompt")):
        for r in records:
            if r[count] and not r[other] and r["n_ranks"] > 1 and r["algorithm"] == "online_softmax":
                name = f"{places(r)}, {r['strategy']}, {r['test']}"
                tokens = r[count] * r["batch_size"]
                bars[name] = [r[f"{phase}_{kind}_bytes"] / 1024 / tokens for kind in KINDS]
    figure, axis = plt.subplots(figsize=(7, 1 + 0.22 * max(len(bars), 1)))
    left = [0.0] * len(bars)
    for k, kind in enumerate(KINDS):
        widths = [parts[k] for parts in bars.values()]
        axis.barh(list(bars), widths, left=left, label=kind, height=0.7)
        left = [a + b for a, b in zip(left, widths)]
    axis.invert_yaxis()
    axis.tick_params(labelsize=7)
    axis.set_xlabel("KiB per token, all ranks")
    axis.legend(fontsize=7)
    save(figure, directory, "bytes-by-kind")


def plot_results(arguments):
    records = [record for path in arguments.files for record in read_records(path)]
    if not records:
        raise SystemExit("plot.py: no records")
    arguments.to.mkdir(parents=True, exist_ok=True)
    for draw in (plot_lengths, plot_ranks, plot_bytes):
        draw(records, arguments.to)


# ---- Predicted ---------------------------------------------------------------------------------------------------


def plan(arguments, model, network, nodes, ranks_per_node=1):
    """The predictions with ONLINE_SOFTMAX: prompts without past, and a step after 2,048 tokens."""
    rows = []
    for tests in (("-p", "512,2048,8192", "-n", "0"), ("-p", "0", "-n", "1", "-d", "2048")):
        command = [str(arguments.bin / "benchmark_qwen3"), "--plan", "--machine", str(arguments.machine), "--model",
                   f"synthetic:{model}", "--nodes", str(nodes), "--ranks-per-node", str(ranks_per_node), "--net",
                   network, "--attention-algo", "online_softmax", "-o", "json", *tests]
        rows += json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return rows


def best_of(rows, test, strategy=None):
    return max((row for row in rows if row["test"] == test and strategy in (None, row["strategy"])),
               key=lambda row: row["predicted_ts"], default=None)


def plot(directory, name, test, title, predictions):
    figure, axes = plt.subplots(len(MODELS), len(NETWORKS), figsize=(11, 7), sharex=True, sharey=True)
    for i, model in enumerate(MODELS):
        for j, network in enumerate(NETWORKS):
            axis = axes[i][j]
            axis.plot(NODES, NODES, color="0.8", linewidth=0.8)
            for strategy, (colour, line) in STYLES.items():
                points = [(n, best_of(predictions[model, network, n], test, strategy)) for n in NODES]
                points = [(n, row["over_one_node"]) for n, row in points if row]
                axis.plot(*zip(*points), line, color=colour, label=strategy, linewidth=1.4)
            axis.axhline(1, color="0.5", linewidth=0.6)
            axis.set(xscale="log", yscale="log", ylim=(0.05, 1100))
            axis.minorticks_off()
            axis.tick_params(labelsize=7)
            if i == 0:
                axis.set_title(network, fontsize=9)
            if j == 0:
                axis.set_ylabel(f"{model}: speed over one node", fontsize=8)
            if i == len(MODELS) - 1:
                axis.set_xlabel("nodes", fontsize=8)
    axes[0][0].legend(fontsize=7, loc="lower left")
    figure.suptitle(f"{title}, predicted", fontsize=11)
    save(figure, directory, name)


def cell(row):
    return f"{row['grid']} {row['over_one_node']:.2f}"


def table(heading, lines):
    return "\n".join(["| " + " | ".join(heading) + " |", "| " + " | ".join(["---:"] * len(heading)) + " |",
                      *("| " + " | ".join(line) + " |" for line in lines)])


def network_table(predictions, network):
    heading = ["nodes", *(f"{model} {title}" for model in MODELS for _, title in TESTS)]
    lines = [[str(n), *(cell(best_of(predictions[model, network, n], test)) for model in MODELS for test, _ in TESTS)]
             for n in TABLE_NODES]
    return table(heading, lines)


def ranks_table(arguments):
    lines = []
    for ranks in (1, 4, 16):
        for network, option in NETWORKS.items():
            rows = plan(arguments, "8B", option, 16, ranks)
            lines.append([str(ranks), network, *(cell(best_of(rows, test)) for test, _ in TESTS)])
    return table(["ranks per node", "network", *(title for _, title in TESTS)], lines)


def put(name, text):
    page = ROOT / "docs" / "SCALING.md"
    begin, end = f"<!-- predicted:{name} begin -->", f"<!-- predicted:{name} end -->"
    before = page.read_text(encoding="utf-8")
    if begin not in before:
        raise SystemExit(f"{page}: no place for the table {name}")
    page.write_text(re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: f"{begin}\n{text}\n{end}", before,
                           flags=re.S), encoding="utf-8")


def plot_scaling(arguments):
    arguments.to.mkdir(parents=True, exist_ok=True)
    predictions = {(model, network, nodes): plan(arguments, model, option, nodes)
                   for model in MODELS for network, option in NETWORKS.items() for nodes in NODES}
    for name, test, title in PLOTS:
        plot(arguments.to, name, test, title, predictions)
    for network in NETWORKS:
        put(network.split()[0] + "gbit", network_table(predictions, network))
    put("ranks", ranks_table(arguments))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="results|scaling")
    results = commands.add_parser("results", help="figures of measured runs")
    results.add_argument("files", type=Path, nargs="+", metavar="FILE")
    results.add_argument("--to", type=Path, default=ROOT / "docs" / "strategies")
    results.set_defaults(run=plot_results)
    scaling = commands.add_parser("scaling", help="figures and tables of predictions")
    scaling.add_argument("--bin", type=Path, default=ROOT / "build" / "bin")
    scaling.add_argument("--machine", type=Path, default=ROOT / "docs" / "scaling" / "node.json")
    scaling.add_argument("--to", type=Path, default=ROOT / "docs" / "scaling")
    scaling.set_defaults(run=plot_scaling)
    arguments = parser.parse_args()
    if not matplotlib:
        sys.exit("plot.py: matplotlib is missing: apt-get install python3-matplotlib")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "qwen3"})
    arguments.run(arguments)


if __name__ == "__main__":
    main()
