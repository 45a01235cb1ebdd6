#!/usr/bin/env python3
"""render_strategies.py DIRECTORY: puts the results of measure_strategies.sh into the two pages of the strategies.

Each table stands between <!-- measured:NAME begin --> and <!-- measured:NAME end -->; nothing else is touched.
"""
import argparse
import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
KINDS = ("reduce", "kv", "query", "partial", "logits")
WORDS = {
    "PARALLEL_STRATEGIES.md": {
        "machine": "Measured {date} on {cpu}, {cores} cores, {model} in bf16, commit {commit}; "
                   "{threads}. Other machines will differ: compare rows, not absolute numbers.",
        "threads": "threads per rank: {}",
        "of": "{} ({} ranks)",
        "between": (", ", "; "),
        "times": ["prompt", "ranks", "strategy", "algorithm", "prefill ms", "± ms", "ms per token", "tokens/s",
                  "decode ms per token", "tokens/s", "total ms", "score memory", "relative L2"],
        "bytes": ["ranks", "strategy", "phase", "reduce", "kv", "query", "partial", "logits", "all"],
        "bytes_note": "Bytes counted in one run of the same benchmark (prompt {prompt}, {gen} tokens generated), all "
                      "ranks together, in KiB per token:",
        "phases": {"prefill": "prefill", "decode": "decode"},
        "correctness": ["ranks", "strategy", "algorithm", "input", "cases", "relative L2", "largest difference",
                        "bytes sent", "result"],
        "values": {},
        "counts": "{} passed, {} failed",
        "verdict": "Differences are from float64, cases are causal or not and masked or not. All shapes of the "
                   "program, with uneven and empty shards, odd heads and large scores: {}.",
    },
    "PARALLEL_STRATEGIES.zh-CN.md": {
        "machine": "测量于 {date}，{cpu}，{cores} 核，{model}，bf16，提交 {commit}；{threads}。"
                   "不同机器的结果会不同：请比较各行之间的关系，而不是绝对数值。",
        "threads": "每进程线程数：{}",
        "of": "{}（{} 个进程）",
        "between": ("、", "；"),
        "times": ["提示长度", "进程数", "策略", "算法", "prefill ms", "± ms", "ms/token", "tokens/s",
                  "decode ms/token", "tokens/s", "总时间 ms", "分数内存", "相对 L2"],
        "bytes": ["进程数", "策略", "阶段", "reduce", "kv", "query", "partial", "logits", "合计"],
        "bytes_note": "同一次基准测试（提示 {prompt}，生成 {gen} 个 token）中计得的字节数，所有进程合计，单位为每 token KiB：",
        "phases": {"prefill": "prefill", "decode": "decode"},
        "correctness": ["进程数", "策略", "算法", "输入", "用例数", "相对 L2", "最大差", "发送字节数", "结果"],
        "values": {"replicated": "复制", "sharded": "分片", "PASS": "通过", "FAIL": "失败"},
        "counts": "{} 项通过，{} 项失败",
        "verdict": "差异相对于 float64；用例包括因果与非因果、有掩码与无掩码。程序的全部形状"
                   "（含不均匀和空的分片、特殊的头数、很大的分数）：{}。",
    },
}


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def table(heading, rows, left):
    """Markdown; the first `left` columns are text, the rest are numbers."""
    marks = ["---"] * left + ["---:"] * (len(heading) - left)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [heading, marks] + rows)


def size(number):
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.4g} {unit}"
        number /= 1024
    return f"{number:.4g} GiB"


def times(words, results, machine):
    rows = []
    for r in results:
        name = f"{r['strategy']} {r['grid']}" if r["strategy"] == "hybrid" else r["strategy"]
        rows.append([r["n_prompt"], r["n_ranks"], name, r["algorithm"], f"{r['prefill_ms']:.1f}",
                     f"{r['prefill_ms_deviation']:.1f}", f"{r['prefill_ms_per_token']:.3f}",
                     f"{r['prefill_tokens_per_second']:.1f}", f"{r['decode_ms_per_token']:.2f}",
                     f"{r['decode_tokens_per_second']:.2f}", f"{r['total_ms']:.1f}", size(r["score_bytes"]),
                     f"{r['relative_l2']:.1e}"])
    of_ranks = sorted({(r["n_ranks"], r["n_threads"]) for r in results})
    threads = words["between"][0].join(words["of"].format(t, n) for n, t in of_ranks)
    note = words["machine"].format(threads=words["threads"].format(threads), **machine)
    return table(words["times"], rows, 4) + "\n\n" + note


def counted(words, results):
    results = [r for r in results if r["n_ranks"] > 1 and r["algorithm"] == "online_softmax"]
    if not results:
        return ""
    longest = max(r["n_prompt"] for r in results)
    rows = []
    for r in (r for r in results if r["n_prompt"] == longest):
        for phase, tokens in (("prefill", r["n_prompt"]), ("decode", r["n_gen"])):
            per_token = [r[f"{phase}_{kind}_bytes"] / 1024 / tokens / r["batch_size"] for kind in KINDS]
            rows.append([r["n_ranks"], r["strategy"], words["phases"][phase]]
                        + [f"{b:.2f}" if b else "–" for b in per_token] + [f"{sum(per_token):.2f}"])
    gen = results[0]["n_gen"]
    return words["bytes_note"].format(prompt=longest, gen=gen) + "\n\n" + table(words["bytes"], rows, 3)


def correctness(words, directory):
    """The rows of the fixed shape, and the verdict over all shapes, that test_parallel_strategies prints."""
    row = re.compile(r"^(\w+) \+ (\w+) +(replicated|sharded) +64 x 8/4 heads x 64 +(\d+) +(\S+) +(\S+) +\S+ +(\d+)"
                     r" +(\w+)$")
    rows, verdicts = [], []
    for path in sorted(directory.glob("correctness-*.txt"), key=lambda p: int(p.stem.split("-")[1])):
        ranks, lines = int(path.stem.split("-")[1]), path.read_text(encoding="utf-8").splitlines()
        counts = re.match(r"(\d+) passed, (\d+) failed$", lines[-1]).groups()
        verdicts.append(words["of"].format(words["counts"].format(*counts), ranks))
        for found in filter(None, map(row.match, lines)):
            rows.append([ranks, *(words["values"].get(cell, cell) for cell in found.groups())])
    assert rows or not verdicts, "test_parallel_strategies: no row of the fixed shape found"
    verdict = words["verdict"].format(words["between"][1].join(verdicts))
    return table(words["correctness"], rows, 4) + "\n\n" + verdict if rows else ""


def replace(text, name, content):
    pattern = re.compile(rf"(<!-- measured:{name} begin -->\n).*?(<!-- measured:{name} end -->)", re.S)
    assert pattern.search(text), f"no place for {name}"
    return pattern.sub(lambda m: m.group(1) + content + "\n" + m.group(2), text) if content else text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    machine = dict(line.split("=", 1) for line in (directory / "machine.txt").read_text().splitlines())
    short, long = read_lines(directory / "short.jsonl"), read_lines(directory / "long.jsonl")
    for page, words in WORDS.items():
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        text = replace(text, "correctness", correctness(words, directory))
        text = replace(text, "short", times(words, short, machine) if short else "")
        text = replace(text, "long", times(words, long, machine) if long else "")
        text = replace(text, "bytes", counted(words, short))
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
