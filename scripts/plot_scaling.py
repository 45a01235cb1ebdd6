#!/usr/bin/env python3
"""plot_scaling.py [--bin build/bin] [--machine docs/scaling/node.json]: what benchmark_qwen3 --plan predicts for 1 to
1,024 nodes, as plots in docs/scaling and as tables in docs/SCALING.md.

Each table is between <!-- predicted:NAME begin --> and <!-- predicted:NAME end -->; nothing else is touched. Needs
matplotlib (scripts/packages.txt, plots).
"""
import argparse
import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("0.6B", "8B", "32B")
NETWORKS = {"1 Gbit/s": "1gbit,50us", "10 Gbit/s": "10gbit,30us", "100 Gbit/s": "100gbit,5us",
            "400 Gbit/s": "400gbit,2us"}
NODES = tuple(2**i for i in range(11))
TABLE_NODES = (2, 4, 8, 16, 64, 256, 1024)
TESTS = (("pp512", "prefill 512"), ("pp8192", "prefill 8192"), ("tg1 @ d2048", "decode"))
PLOTS = (("prefill", "pp2048", "Prefill of 2,048 tokens"), ("decode", "tg1 @ d2048", "Decode after 2,048 tokens"))
STYLES = {"headwise": ("C0", "-"), "sequence": ("C1", "-"), "hybrid": ("C2", "--")}


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


def plot(plt, name, test, title, predictions):
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
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "scaling" / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "build" / "bin")
    parser.add_argument("--machine", type=Path, default=ROOT / "docs" / "scaling" / "node.json")
    arguments = parser.parse_args()
    import matplotlib  # here, so that --help needs none

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "qwen3"})
    predictions = {(model, network, nodes): plan(arguments, model, option, nodes)
                   for model in MODELS for network, option in NETWORKS.items() for nodes in NODES}
    for name, test, title in PLOTS:
        plot(plt, name, test, title, predictions)
    for network in NETWORKS:
        put(network.split()[0] + "gbit", network_table(predictions, network))
    put("ranks", ranks_table(arguments))


if __name__ == "__main__":
    main()
