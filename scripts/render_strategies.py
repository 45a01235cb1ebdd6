#!/usr/bin/env python3
"""render_strategies.py DIRECTORY: puts the results of measure_strategies.sh into the two pages of the strategies.

Each table stands between <!-- measured:NAME begin --> and <!-- measured:NAME end -->; nothing else is touched.
"""
import json
import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
KINDS = ("reduce", "kv", "query", "partial", "logits")
WORDS = {
    "PARALLEL_STRATEGIES.md": {
        "machine": "Measured {date} on {cpu}, {cores} cores, {model} in bf16, commit {commit}; "
                   "{threads}. Other machines will differ: compare rows, not absolute numbers.",
        "threads": "threads per rank: {}",
        "of": "{} on {} ranks",
        "times": ["prompt", "ranks", "strategy", "algorithm", "prefill ms", "± ms", "ms per token", "tokens/s",
                  "decode ms per token", "tokens/s", "total ms", "score memory", "relative L2"],
        "bytes": ["ranks", "strategy", "phase", "reduce", "kv", "query", "partial", "logits", "all"],
        "bytes_note": "Bytes counted in one run of the same benchmark (prompt {prompt}, {gen} tokens generated), all "
                      "ranks together, in KiB per token:",
        "phases": {"prefill": "prefill", "decode": "decode"},
        "ranks": "{} ranks",
        "rank": "1 rank",
    },
    "PARALLEL_STRATEGIES.zh-CN.md": {
        "machine": "测量于 {date}，{cpu}，{cores} 核，{model}，bf16，提交 {commit}；{threads}。"
                   "不同机器的结果会不同：请比较各行之间的关系，而不是绝对数值。",
        "threads": "每进程线程数：{}",
        "of": "{1} 个进程时 {0}",
        "times": ["提示长度", "进程数", "策略", "算法", "prefill ms", "± ms", "ms/token", "tokens/s",
                  "decode ms/token", "tokens/s", "总时间 ms", "分数内存", "相对 L2"],
        "bytes": ["进程数", "策略", "阶段", "reduce", "kv", "query", "partial", "logits", "合计"],
        "bytes_note": "同一次基准测试（提示 {prompt}，生成 {gen} 个 token）中计得的字节数，所有进程合计，单位为每 token KiB：",
        "phases": {"prefill": "prefill", "decode": "decode"},
        "ranks": "{} 个进程",
        "rank": "1 个进程",
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
        rows.append([r["prompt_len"], r["ranks"], name, r["algorithm"], f"{r['prefill_ms']:.1f}",
                     f"{r['prefill_ms_deviation']:.1f}", f"{r['prefill_ms_per_token']:.3f}",
                     f"{r['prefill_tokens_per_second']:.1f}", f"{r['decode_ms_per_token']:.2f}",
                     f"{r['decode_tokens_per_second']:.2f}", f"{r['total_ms']:.1f}", size(r["score_bytes"]),
                     f"{r['relative_l2']:.1e}"])
    threads = ", ".join(words["of"].format(t, n) for n, t in sorted({(r["ranks"], r["threads"]) for r in results}))
    note = words["machine"].format(threads=words["threads"].format(threads), **machine)
    return table(words["times"], rows, 4) + "\n\n" + note


def counted(words, results):
    results = [r for r in results if r["ranks"] > 1 and r["algorithm"] == "online_softmax"]
    if not results:
        return ""
    longest = max(r["prompt_len"] for r in results)
    rows = []
    for r in (r for r in results if r["prompt_len"] == longest):
        for phase, tokens in (("prefill", r["prompt_len"]), ("decode", r["gen_len"])):
            per_token = [r[f"{phase}_{kind}_bytes"] / 1024 / tokens / r["batch_size"] for kind in KINDS]
            rows.append([r["ranks"], r["strategy"], words["phases"][phase]]
                        + [f"{b:.2f}" if b else "–" for b in per_token] + [f"{sum(per_token):.2f}"])
    gen = results[0]["gen_len"]
    return words["bytes_note"].format(prompt=longest, gen=gen) + "\n\n" + table(words["bytes"], rows, 3)


def correctness(words, directory):
    parts = []
    for path in sorted(directory.glob("correctness-*.txt"), key=lambda p: int(re.findall(r"\d+", p.stem)[0])):
        ranks = int(re.findall(r"\d+", path.stem)[0])
        title = words["rank"] if ranks == 1 else words["ranks"].format(ranks)
        parts.append(f"{title}:\n\n```\n{path.read_text(encoding='utf-8').strip()}\n```")
    return "\n\n".join(parts)


def replace(text, name, content):
    pattern = re.compile(rf"(<!-- measured:{name} begin -->\n).*?(<!-- measured:{name} end -->)", re.S)
    assert pattern.search(text), f"no place for {name}"
    return pattern.sub(lambda m: m.group(1) + content + "\n" + m.group(2), text) if content else text


def main():
    directory = Path(sys.argv[1])
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
