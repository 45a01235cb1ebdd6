#!/usr/bin/env python3
"""render_strategies.py [--write] DIRECTORY: the tables of docs/PARALLEL_STRATEGIES.md, in both languages, from the
records that measure_strategies.sh left. Prints them, or with --write puts them into the pages.

A table is between <!-- measured:NAME begin --> and <!-- measured:NAME end -->; nothing else is touched.
"""
import argparse
import json
import re
import statistics
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
KINDS = ("reduce", "kv", "query", "partial", "logits")
BYTES_PROMPT = 128
WORDS = {
    "PARALLEL_STRATEGIES.md": {
        "machine": "Measured {date} on {cpu}, {cores} cores, {model} in {dtype}, commit {commit}; threads per rank: "
                   "{threads}; hosts are emulated, one core each, {rate}. Times are medians of {rounds} runs in turns, "
                   "and the lowest and highest of them; the limit is what the machine's multiply-add peak and read "
                   "bandwidth, measured around the runs of one rank, allow. Other machines will differ: compare rows.",
        "hosts": "{} hosts", "of": "{} ({} ranks)",
        "prefill": ["prompt", "ranks", "strategy", "algorithm", "prefill ms", "lowest to highest", "tokens/s",
                    "% of limit", "KiB sent per token", "score memory"],
        "decode": ["ranks", "strategy", "algorithm", "ms per token", "lowest to highest", "tokens/s", "% of limit",
                   "KiB sent per token", "relative L2"],
        "prefill_title": "### {model}: prefill", "decode_title": "### {model}: decode, {gen} tokens",
        "figures": {"time-over-length": "Time of a prompt over its length", "speed-over-ranks": "Speed over ranks",
                    "bytes-by-kind": "Bytes by kind"},
        "bytes": ["ranks", "strategy", "phase", "reduce", "kv", "query", "partial", "logits", "all"],
        "bytes_note": "Bytes counted in one run (prompt {prompt}, {gen} tokens generated), all ranks together, in KiB "
                      "per token:",
        "correctness": ["ranks", "strategy", "algorithm", "input", "cases", "relative L2", "largest difference",
                        "bytes sent", "result"],
        "verdict": "Differences are from float64, cases are causal or not and masked or not. All shapes of the "
                   "program, with uneven and empty shards, odd heads and large scores: {}.",
        "count": "{} passed, {} failed ({} ranks)", "between": (", ", "; "), "values": {},
    },
    "PARALLEL_STRATEGIES.zh-CN.md": {
        "machine": "测量于 {date}，{cpu}，{cores} 核，{model}，{dtype}，提交 {commit}；每进程线程数：{threads}；"
                   "主机为模拟，各一核，{rate}。时间为 {rounds} 次轮流运行的中位数及最低与最高值；上限由单进程运行前后"
                   "测得的机器乘加峰值和读带宽算出。不同机器的结果会不同：请比较各行之间的关系。",
        "hosts": "{} 台主机", "of": "{}（{} 个进程）",
        "prefill": ["提示长度", "进程数", "策略", "算法", "prefill ms", "最低至最高", "tokens/s", "占上限 %",
                    "每 token 发送 KiB", "分数内存"],
        "decode": ["进程数", "策略", "算法", "ms/token", "最低至最高", "tokens/s", "占上限 %", "每 token 发送 KiB",
                   "相对 L2"],
        "prefill_title": "### {model}：prefill", "decode_title": "### {model}：decode，{gen} 个 token",
        "figures": {"time-over-length": "提示耗时与长度", "speed-over-ranks": "速度与进程数",
                    "bytes-by-kind": "各类字节数"},
        "bytes": ["进程数", "策略", "阶段", "reduce", "kv", "query", "partial", "logits", "合计"],
        "bytes_note": "一次运行（提示 {prompt}，生成 {gen} 个 token）中计得的字节数，所有进程合计，单位为每 token KiB：",
        "correctness": ["进程数", "策略", "算法", "输入", "用例数", "相对 L2", "最大差", "发送字节数", "结果"],
        "verdict": "差异相对于 float64；用例包括因果与非因果、有掩码与无掩码。程序的全部形状"
                   "（含不均匀和空的分片、特殊的头数、很大的分数）：{}。",
        "count": "{} 项通过，{} 项失败（{} 个进程）", "between": ("、", "；"),
        "values": {"replicated": "复制", "sharded": "分片", "PASS": "通过", "FAIL": "失败"},
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


def key_of(record):
    """What a row is; rows are in this order."""
    order = ("headwise", "sequence", "hybrid"), ("standard", "online_softmax")
    return (record["n_prompt"], record["n_nodes"], record["n_ranks"], order[0].index(record["strategy"]),
            order[1].index(record["algorithm"]))


def grouped(records):
    rows = {}
    for record in records:
        rows.setdefault(key_of(record), []).append(record)
    return [rows[key] for key in sorted(rows)]


def names(words, r):
    ranks = words["hosts"].format(r["n_ranks"]) if r["n_nodes"] > 1 else r["n_ranks"]
    return [ranks, f"{r['strategy']} {r['grid']}" if r["strategy"] == "hybrid" else r["strategy"], r["algorithm"]]


def limits_of(records):
    """{test: tokens per second that the machine allows}."""
    limits = {}
    for r in records:
        if r["limit_ts"] is not None:
            limits.setdefault(r["test"], []).append(r["limit_ts"])
    return {test: statistics.median(values) for test, values in limits.items()}


def summary(runs, limits, phase, field, digits):
    """Median, lowest to highest, tokens per second, share of the limit, KiB a token."""
    tokens = runs[0]["n_prompt"] or runs[0]["n_gen"]
    times = [run[field] for run in runs]
    middle = statistics.median(times)
    rate = statistics.median(run["avg_ts"] for run in runs)
    limit = limits.get(runs[0]["test"])
    return [f"{middle:.{digits}f}", f"{min(times):.{digits}f}–{max(times):.{digits}f}", f"{rate:.1f}",
            f"{100 * rate / limit:.0f}" if limit else "–",
            f"{runs[0][f'{phase}_comm_bytes'] / 1024 / tokens:.1f}"]


def model_of(records):
    """synthetic:0.6B is the shape of Qwen3-0.6B."""
    return records[0]["model_filename"].replace("synthetic:", "Qwen3-")


def figures(words, *which):
    """Those that scripts/plot.py has drawn."""
    return [f"![{words['figures'][name]}](strategies/{name}.svg)" for name in which
            if (DOCS / "strategies" / f"{name}.svg").exists()]


def machine_note(words, records, machine):
    counts = sorted({len(runs) for runs in grouped(records)}, reverse=True)
    few = sorted({str(runs[0]["n_prompt"]) for runs in grouped(records) if len(runs) == counts[-1]}, key=int)
    rounds = str(counts[0])
    if len(counts) > 1:
        rounds += f" ({', '.join(few)}: {counts[-1]})"
    threads = sorted({(r["n_ranks"], r["n_threads"]) for r in records if r["n_nodes"] == 1})
    first = records[0]
    return words["machine"].format(
        date=first["test_time"][:10], cpu=first["cpu_info"], commit=first["commit"], dtype=first["dtype"],
        model=first["model_filename"], rounds=rounds,
        threads=words["between"][0].join(words["of"].format(t, n) for n, t in threads), **machine)


def prefill(words, records, machine):
    records, limits = [r for r in records if r["n_prompt"]], limits_of(records)
    rows = [[runs[0]["n_prompt"], *names(words, runs[0]), *summary(runs, limits, "prefill", "prefill_ms", 1),
             size(runs[0]["score_bytes"])] for runs in grouped(records)]
    return "\n\n".join([words["prefill_title"].format(model=model_of(records)), table(words["prefill"], rows, 4),
                        machine_note(words, records, machine),
                        *figures(words, "time-over-length", "speed-over-ranks")])


def decode(words, records, verified):
    worst = {key_of(r)[1:]: r["relative_l2"] for r in verified}
    records, limits = [r for r in records if r["n_gen"]], limits_of(records)
    rows = [[*names(words, runs[0]), *summary(runs, limits, "decode", "decode_ms_per_token", 2),
             f"{worst[key_of(runs[0])[1:]]:.1e}"] for runs in grouped(records)]
    title = words["decode_title"].format(model=model_of(records), gen=records[0]["n_gen"])
    return "\n\n".join([title, table(words["decode"], rows, 3)])


def counted(words, records):
    """One prompt and one decode of each strategy on several ranks of one node."""
    rows, gen = [], next(r["n_gen"] for r in records if r["n_gen"])
    lengths = {r["n_prompt"] for r in records if r["n_prompt"]}
    prompt = BYTES_PROMPT if BYTES_PROMPT in lengths else max(lengths)
    chosen = [r for r in records if r["n_ranks"] > 1 and r["n_nodes"] == 1 and r["algorithm"] == "online_softmax"
              and (r["n_gen"] or r["n_prompt"] == prompt)]
    for runs in sorted(grouped(chosen), key=lambda runs: (key_of(runs[0])[1:], not runs[0]["n_prompt"])):
        r, phase = runs[0], "prefill" if runs[0]["n_prompt"] else "decode"
        per_token = [r[f"{phase}_{kind}_bytes"] / 1024 / (r["n_prompt"] or r["n_gen"]) for kind in KINDS]
        rows.append([r["n_ranks"], r["strategy"], phase]
                    + [f"{b:.2f}" if b else "–" for b in per_token] + [f"{sum(per_token):.2f}"])
    return "\n\n".join([words["bytes_note"].format(prompt=prompt, gen=gen), table(words["bytes"], rows, 3),
                        *figures(words, "bytes-by-kind")])


def correctness(words, records):
    """The rows of the fixed shape, and the verdict over all."""
    values = words["values"]
    rows = [[r["n_ranks"], *r["pair"].split(" + "), values.get(r["layout"], r["layout"]), r["cases"],
             f"{r['relative_l2']:.2e}", f"{r['max_difference']:.2e}", r["comm_bytes"],
             values.get(r["result"], r["result"])]
            for r in records if r["layout"] and r["class"] == records[0]["class"]]
    results = {}
    for r in records:
        results.setdefault(r["n_ranks"], []).append(r["result"])
    verdicts = [words["count"].format(results[n].count("PASS"), results[n].count("FAIL"), n) for n in sorted(results)]
    return table(words["correctness"], rows, 4) + "\n\n" + words["verdict"].format(words["between"][1].join(verdicts))


def replace(text, name, content):
    pattern = re.compile(rf"(<!-- measured:{name} begin -->\n).*?(<!-- measured:{name} end -->)", re.S)
    assert pattern.search(text), f"no place for {name}"
    return pattern.sub(lambda m: m.group(1) + content + "\n" + m.group(2), text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    machine = dict(line.split("=", 1) for line in (arguments.directory / "machine.txt").read_text().splitlines())
    runs, verified, checks = (read_lines(arguments.directory / f"{name}.jsonl")
                              for name in ("runs", "verified", "correctness"))
    for page, words in WORDS.items():
        tables = {"correctness": correctness(words, checks), "prefill": prefill(words, runs, machine),
                  "decode": decode(words, runs, verified)}
        if any(r["n_ranks"] > 1 and r["n_nodes"] == 1 for r in runs):
            tables["bytes"] = counted(words, runs)
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        for name, content in tables.items():
            text = replace(text, name, content)
            if not arguments.write:
                print(f"<!-- {page}, measured:{name} -->\n{content}\n")
        if arguments.write:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
