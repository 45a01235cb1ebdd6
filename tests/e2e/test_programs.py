#!/usr/bin/env python3
"""benchmark_qwen3 and qwen3 as a user meets them: every option acts, every output format can be read, the verdict of
--verify is the exit status, help and version are printed once, contradictions are refused."""
import csv
import dataclasses
import io
import json
import re
import sys

import numpy as np

from e2e import BIN, RANKS, Checks, has_level, relative_l2, run, scratch

import make_checkpoint
import reference

QUICK = ["--model", "synthetic:tiny", "--prompt-len", 12, "--gen-len", 3, "--iters", 2, "--warmup", 1, "--threads", 1]
REFUSED = 2  # exit status; 1 is the verdict of --verify
ERROR = re.compile(r"^qwen3: error: ", re.MULTILINE)


def numbers(result):
    return {key: value for key, value in result.items() if isinstance(value, (int, float))}


class Programs:
    def __init__(self, checks):
        self.checks = checks
        self.holds = checks.true
        self.few = [n for n in RANKS if n <= 3]

    def benchmark(self, ranks, *options, output="json", code=0):
        """(first result as a dictionary, outcome)"""
        outcome = run(ranks, "benchmark_qwen3", *QUICK, "--output", output, *options, timeout=120)
        what = f"benchmark_qwen3 {' '.join(map(str, options))} --output {output} on {ranks}"
        fits = self.checks.true(f"{what}: exit status {code}", outcome.code == code, outcome)
        if not fits or output != "json" or code == REFUSED:
            return {}, outcome
        try:
            return json.loads(outcome.out)[0], outcome
        except (ValueError, KeyError, IndexError) as error:
            self.checks.true(f"{what}: {error!r}", False, outcome)
            return {}, outcome


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def check_formats(p):
    """The same fields in json, jsonl and csv; a table that Markdown accepts; topology apart from the results."""
    ranks = p.few[-1]
    result, outcome = p.benchmark(ranks)
    p.holds("topology and plan go to standard error", re.search(r"(?m)^ranks .*\n(.*\n)*plan ", outcome.err)
            and outcome.out.startswith("["), outcome)
    p.holds("what was asked for is in the result",
            [result.get(key) for key in ("n_ranks", "n_prompt", "n_gen", "repetitions", "batch_size", "n_threads",
                                         "model_filename", "test", "phase", "tokens")]
            == [ranks, 12, 3, 2, 1, 1, "synthetic:tiny", "pp12+tg3", "both", "greedy"], result)
    _, outcome = p.benchmark(ranks, output="jsonl")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    p.holds("jsonl: one object a line, the same keys", len(lines) == 1 and lines[0].keys() == result.keys(), outcome)
    _, outcome = p.benchmark(ranks, output="csv")
    rows = list(csv.DictReader(io.StringIO(outcome.out), strict=True))
    p.holds("csv: a header and one row, the same keys", len(rows) == 1 and list(rows[0]) == list(result)
            and None not in rows[0].values() and float(rows[0]["prefill_ms"]) > 0, outcome)
    _, outcome = p.benchmark(ranks, output="md")
    table = [cells(line) for line in outcome.out.splitlines()]
    p.holds("md: a table of equal rows", len(table) > 10 and len(set(map(len, table))) == 1
            and all(re.fullmatch(":?-{3,}:?", cell) for cell in table[1]), outcome)
    _, outcome = p.benchmark(ranks, output="table")
    p.holds("table: topology, plan and results",
            all(word in outcome.out for word in ("rank", "plan", "strategy", "tokens/s")), outcome)


def check_numbers(p):
    """Rates, times and counts of a result agree with each other."""
    for ranks in p.few:
        result, outcome = p.benchmark(ranks, "--batch-size", 2, "--parallel-strategy", "headwise")
        if not result:
            continue
        r = result
        p.holds("prefill rate is tokens over time", np.isclose(r["prefill_tokens_per_second"] * r["prefill_ms"],
                                                               1e3 * 2 * 12, rtol=1e-3), r)
        p.holds("decode rate is tokens over time", np.isclose(r["decode_tokens_per_second"] * r["decode_ms"],
                                                              1e3 * 2 * 3, rtol=1e-3), r)
        p.holds("the first token comes after prefill", r["first_token_ms"] >= r["prefill_ms"], r)
        p.holds("the duration is that of prefill and decode, the total has the choice of the first token too",
                np.isclose(r["avg_ns"], 1e6 * (r["prefill_ms"] + r["decode_ms"]), rtol=1e-4)
                and np.isclose(r["total_ms"], r["first_token_ms"] + r["decode_ms"]), r)
        p.holds("no number is negative or not finite", all(np.isfinite(v) and v >= 0 for v in numbers(r).values()), r)
        p.holds("memory is reported", r["weight_bytes"] > 0 and r["kv_bytes"] > 0, r)
        # Two reductions a layer of 24 rows of 64 floats; whatever their algorithm, all ranks send something.
        p.holds("one rank sends nothing, several do", (r["prefill_reduce_bytes"] > 0) == (ranks > 1)
                and (r["decode_reduce_bytes"] > 0) == (ranks > 1), r)
        p.holds("the kinds add up", np.isclose(r["prefill_comm_bytes"], sum(
            r[f"prefill_{kind}_bytes"] for kind in ("reduce", "kv", "query", "partial", "logits", "control"))), r)


def check_phases(p):
    ranks = p.few[-1]
    prefill, _ = p.benchmark(ranks, "--phase", "prefill")
    decode, _ = p.benchmark(ranks, "--phase", "decode")
    p.holds("prefill alone has no decode numbers", prefill.get("prefill_ms") and prefill.get("decode_ms") is None,
            prefill)
    p.holds("prefill alone is a test of a prompt", (prefill.get("test"), prefill.get("phase"), prefill.get("n_gen"))
            == ("pp12", "prefill", 0), prefill)
    p.holds("decode follows a real prefill", decode.get("decode_ms") and decode.get("first_token_ms"), decode)
    p.holds("decode alone is a test of generation after its prompt", decode.get("prefill_ms") is None
            and [decode.get(key) for key in ("test", "phase", "n_prompt", "n_depth", "n_gen")]
            == ["tg3 @ d12", "decode", 0, 12, 3], decode)
    generated, _ = p.benchmark(ranks, "--phase", "decode", "--gen-len", 3)
    p.holds("--gen-len", generated.get("n_gen") == 3, generated)
    outcome = run(ranks, "benchmark_qwen3", *[part for part in QUICK if part not in ("--gen-len", 3)], "--generate", 2,
                  "--output", "json")
    p.holds("--generate is the old name of --gen-len",
            outcome.ok and json.loads(outcome.out)[0]["n_gen"] == 2, outcome)


def check_choices(p):
    """Each choice is visible in the result."""
    for ranks in p.few:
        for strategy in ("headwise", "sequence"):
            for algorithm in ("standard", "online_softmax"):
                r, _ = p.benchmark(ranks, "--parallel-strategy", strategy, "--attention-algo", algorithm,
                                   "--dtype", "f32", "--verify")
                p.holds(f"{strategy}, {algorithm} on {ranks} is verified", r.get("verified") == "pass"
                        and r["relative_l2"] <= 1e-5 and (r["strategy"], r["algorithm"], r["dtype"])
                        == (strategy, algorithm, "f32"), r)
    ranks = p.few[-1]
    r, _ = p.benchmark(ranks, "--grid", f"{ranks}x1", "--verify", "--dtype", "bf16")
    p.holds("a grid means hybrid; bf16 is verified", r.get("strategy") == "hybrid" and r["verified"] == "pass"
            and 0 <= r["relative_l2"] <= 1e-2, r)
    for dtype, least, most in (("q8", 1e-3, 5e-2), ("q4", 5e-2, 0.5)):
        r, _ = p.benchmark(ranks, "--dtype", dtype, "--verify")
        p.holds(f"{dtype} is verified, and is not something better", r.get("verified") == "pass"
                and r["dtype"] == dtype and least <= r["relative_l2"] <= most, r)
        for isa in filter(has_level, ("avx512_vnni", "neon_dot")):
            r, _ = p.benchmark(ranks, "--dtype", dtype, "--isa", isa, "--verify")
            p.holds(f"{dtype} with activations of 8 bits is verified", r.get("verified") == "pass"
                    and r["isa"] == isa and least <= r["relative_l2"] <= most, r)
    for dtype, least, most in (("f32", 1e-4, 3e-2), ("q8", 1e-3, 8e-2)):
        r, _ = p.benchmark(ranks, "--dtype", dtype, "--kv-dtype", "q8", "--verify")
        p.holds(f"{dtype} with keys and values in q8 is verified, and is not something better",
                r.get("verified") == "pass" and least <= r["relative_l2"] <= most, r)
    r, _ = p.benchmark(ranks, "--dtype", "bf16", "--kv-dtype", "f32", "--verify")
    p.holds("bf16 with keys and values in f32 is verified", r.get("verified") == "pass", r)
    blocks = ["--q-block-size", 5, "--kv-block-size", 64, "--token-split-min", 1, "--seed", 7, "--verify"]
    r, _ = p.benchmark(ranks, *blocks)
    p.holds("block sizes, threshold and seed keep the result right", r.get("verified") == "pass" and r["seed"] == "7",
            r)
    for method, isa, many in (("baseline", "c", 1), ("avx2", "avx2", 1), ("mpi+avx2", "avx2", ranks)):
        there = has_level(isa)
        r, _ = p.benchmark(many, "--method", method, "--verify", code=0 if there else REFUSED)
        p.holds(f"--method {method}", not there or r.get("isa") == isa and r["verified"] == "pass"
                and r["n_ranks"] == many, r)
    r, _ = p.benchmark(ranks, "--method", "mpi")
    p.holds("--method mpi", r.get("n_ranks") == ranks, r)
    _, outcome = p.benchmark(ranks, "--pairs", "--verify", output="jsonl")
    pairs = {(r["strategy"], r["algorithm"]): r["verified"] for r in map(json.loads, outcome.out.splitlines())}
    p.holds("--pairs runs and verifies every pair", len(pairs) >= 4 and set(pairs.values()) == {"pass"}, outcome)


def check_placement(p):
    """--verbose tells where CPUs and weights are; binding threads does not change how many there are."""
    ranks = p.few[-1]
    _, outcome = p.benchmark(ranks, "--verbose")
    weights = r"(?:unknown|(?:\d+: \d+ %(?:, )?)+)"
    lines = re.findall(rf"(?m)^rank \d+ +NUMA nodes: CPUs \S+, weights {weights}; threads ", outcome.err)
    p.holds("--verbose tells the NUMA nodes of every rank", len(lines) == ranks, outcome)
    threads = []
    for binding in ("false", "close"):
        outcome = run(1, "/usr/bin/env", "-u", "OMP_NUM_THREADS", f"OMP_PROC_BIND={binding}", BIN / "benchmark_qwen3",
                      "--model", "synthetic:tiny", "--phase", "prefill", "--prompt-len", 4, "--iters", 1, "--warmup", 0,
                      "--output", "json")
        threads.append(outcome.ok and json.loads(outcome.out)[0]["n_threads"])
    p.holds("threads that are bound are as many", threads[0] and threads[0] == threads[1], f"{threads}\n{outcome}")
    # hwloc describes another machine than this one: two NUMA nodes, then two with a second kind of memory each
    for machine, noted in (("node:2 core:3 pu:1", True), ("node:1 core:6 pu:1", False),
                           ("[numa] [numa] core:6 pu:1", False)):
        outcome = run(1, "/usr/bin/env", "-u", "OMP_NUM_THREADS", f"HWLOC_SYNTHETIC={machine}", BIN / "benchmark_qwen3",
                      "--model", "synthetic:tiny", "--phase", "prefill", "--prompt-len", 4, "--iters", 1, "--warmup", 0)
        found = "has the cores of 2 NUMA nodes" in outcome.err and "ppr:1:numa:PE=3" in outcome.err
        p.holds(f"the note of several NUMA nodes, on a machine {machine}: {noted}", outcome.ok and found == noted,
                outcome)


def check_old_attention(p):
    for old, new in (("standard", "standard"), ("streaming", "online_softmax")):
        for ranks in p.few[:2]:
            r, outcome = p.benchmark(ranks, "--attention", old)
            p.holds(f"--attention {old} maps", (r.get("strategy"), r.get("algorithm")) == ("headwise", new), r)
            p.holds(f"--attention {old} warns once", len(re.findall("warning.*--attention", outcome.err)) == 1, outcome)


def test_list(p, ranks, *options, output="json", code=0):
    """(results of a list of tests, outcome)"""
    arguments = ["--model", "synthetic:tiny", "--threads", 1, *options, *(["-o", output] if output else [])]
    outcome = run(ranks, "benchmark_qwen3", *arguments, timeout=120)
    what = f"benchmark_qwen3 {' '.join(map(str, arguments))} on {ranks}"
    if not p.holds(f"{what}: exit status {code}", outcome.code == code, outcome) or output != "json" or code:
        return [], outcome
    return json.loads(outcome.out), outcome


def check_tests(p):
    """A list of tests in the manner of llama-bench: which tests it makes, their names and columns, all formats."""
    names = ["pp5", "pp9", "tg3", "pp4+tg2", "pp5 x2", "pp9 x2", "tg3 x2", "pp4+tg2 x2"]
    names += [f"{name} @ d6" for name in names]
    options = ["-p", "5,9", "-n", 3, "-pg", "4,2", "-d", "0,6", "-b", "1,2", "-r", 3]
    for ranks in p.few:
        results, outcome = test_list(p, ranks, *options, "--parallel-strategy", "headwise")
        found = [r["test"] for r in results]
        p.holds("every combination is a test with the name it has there", found == names, results)
        for r in results:
            tokens = r["batch_size"] * (r["n_prompt"] + r["n_gen"])
            p.holds("rates are tokens of all sequences over the time", len(r["samples_ns"]) == len(r["samples_ts"]) == 3
                    and np.allclose(np.multiply(r["samples_ns"], r["samples_ts"]), 1e9 * tokens, rtol=1e-3), r)
            p.holds("means and deviations are those of the samples", all(
                np.isclose(r[f"avg_{unit}"], np.mean(r[f"samples_{unit}"]), rtol=1e-9)
                and np.isclose(r[f"stddev_{unit}"], np.std(r[f"samples_{unit}"], ddof=1), rtol=1e-6)
                for unit in ("ns", "ts")), r)
            p.holds("what was run is in the result", (r["n_ranks"], r["n_threads"], r["repetitions"], r["n_depth"])
                    == (ranks, 1, 3, 6 if "d6" in r["test"] else 0) and r["type_k"] == r["type_v"] == "f32"
                    and "headwise" == r["strategy"] and r["limit_ts"] is None, r)
    _, outcome = test_list(p, 1, *options, output="jsonl")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    p.holds("jsonl: one test a line, the same keys", [line["test"] for line in lines] == names
            and lines[0].keys() == results[0].keys(), outcome)
    _, outcome = test_list(p, 1, *options, output="csv")
    rows = list(csv.DictReader(io.StringIO(outcome.out), strict=True))
    p.holds("csv: the same keys", [row["test"] for row in rows] == names and list(rows[0]) == list(results[0])
            and float(rows[0]["avg_ts"]) > 0, outcome)
    for output in (None, "md"):
        _, outcome = test_list(p, p.few[-1], *options, output=output)
        table = [cells(line) for line in outcome.out.splitlines()]
        columns = ["model", "size", "params", "backend", "threads", "test", "t/s"]
        p.holds("md, the default: the columns of llama-bench", table[0] == columns
                and len(table) == 2 + len(names) and all(len(row) == 7 for row in table), outcome)
        p.holds("md: names, and rates with their deviation", [row[5] for row in table[2:]] == names
                and all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", row[6]) for row in table[2:]), outcome)
        backend = f"MPI {p.few[-1]} ranks, " if p.few[-1] > 1 else "1 rank, "
        p.holds("md: ranks and what they compute with", all(row[3].startswith(backend) for row in table[2:]), outcome)
    _, outcome = test_list(p, 1, *options, output="table")
    p.holds("table: topology, plan and results",
            all(word in outcome.out for word in ("rank ", "plan ", *names)), outcome)


def check_test_defaults(p):
    """What is not asked for is as there: a prompt of 512 and 128 generated tokens; 0 takes one away."""
    for options, names in ((["-r", 1], ["pp512", "tg128"]), (["-p", 7], ["pp7", "tg128"]), (["-n", 0], ["pp512"]),
                           (["-p", 0, "-n", 2, "-n", 3], ["tg2", "tg3"]),
                           (["-p", 0, "-n", 0, "--pg", "2,1", "-pg", "1,2"], ["pp2+tg1", "pp1+tg2"])):
        results, outcome = test_list(p, p.few[-1], *options, *([] if "-r" in options else ["-r", 2]))
        p.holds(f"tests of {options}", [r["test"] for r in results] == names, outcome)
    results, outcome = test_list(p, 1, "-p", 3, "-n", 0, "--warmup", 0)
    p.holds("five repetitions; warm-up can be left away", [len(r["samples_ts"]) for r in results] == [5]
            and results[0]["warmup"] == 0, outcome)


def check_combinations(p):
    """Both kinds of options make one list; pairs, --compare-kv-cache and --verify hold for every test of it."""
    ranks = p.few[-1]
    results, outcome = test_list(p, ranks, "-p", 5, "-n", 2, "-r", 2, "--pairs", "--verify")
    half = len(results) // 2
    pairs = [(r["strategy"], r["algorithm"]) for r in results]
    p.holds("pairs of every test, one test after the other", half >= 4 and [r["test"] for r in results]
            == ["pp5"] * half + ["tg2"] * half and len(set(pairs[:half])) == half and pairs[:half] == pairs[half:],
            outcome)
    for r in results:
        p.holds("a pair of a test is verified, without greedy choice", (r["verified"], r["tokens"], r["repetitions"])
                == ("pass", "drawn", 2) and r["verified_rows"] == r["n_prompt"] + r["n_gen"], r)
        phase, other = ("prefill", "decode") if r["n_prompt"] else ("decode", "prefill")
        p.holds("it has times and bytes of its phase alone", r["phase"] == phase
                and r[f"{other}_ms"] is None and r[f"{other}_comm_bytes"] is None and r[f"{phase}_ms"] > 0
                and np.isclose(r["avg_ns"], 1e6 * r[f"{phase}_ms"], rtol=1e-4)
                and (r[f"{phase}_comm_bytes"] > 0) == (ranks > 1) and r["weight_bytes"] > 0 and r["kv_bytes"] > 0, r)
        p.holds("a prompt has a first token", (r["first_token_ms"] or 0) > 0 if r["n_prompt"]
                else r["first_token_ms"] is None, r)

    results, outcome = test_list(p, ranks, "-p", 5, "-n", 0, "--prompt-len", 7, "--gen-len", 3, "-b", "1,2", "-d", 4,
                                 "--iters", 2, "--verify")
    p.holds("a list and the test of --phase", [(r["test"], r["tokens"], r["repetitions"], r["verified"])
                                              for r in results]
            == [(f"{name}{batch} @ d4", tokens, 2, "pass") for batch in ("", " x2")
                for name, tokens in (("pp5", "drawn"), ("pp7+tg3", "greedy"))], outcome)
    results, outcome = test_list(p, ranks, "--phase", "decode", "--prompt-len", 7, "--gen-len", 3, "-d", 4, "-r", 2)
    p.holds("--phase with a depth adds no other test", [(r["test"], r["n_depth"], len(r["samples_ns"]))
                                                       for r in results] == [("tg3 @ d11", 11, 2)]
            and results[0]["first_token_ms"] > 0, outcome)
    results, outcome = test_list(p, 1, "-b", "1,2")
    p.holds("several numbers of sequences of the default test", [(r["test"], r["repetitions"]) for r in results]
            == [("pp128+tg32", 3), ("pp128+tg32 x2", 3)], outcome)

    several = ["-p", 3, "-n", 2, "-pg", "4,2", "-d", 6, "-r", 2, "--compare-kv-cache", "--verify"]
    results, outcome = test_list(p, ranks, *several)
    names = ["pp3 @ d6"] + [f"{name} @ d6{cache}" for name in ("tg2", "pp4+tg2") for cache in ("", " no KV cache")]
    p.holds("tests that generate, with and without the KV cache", [r["test"] for r in results] == names
            and [r["kv_cache"] for r in results] == [None, "yes", "no", "yes", "no"], outcome)
    p.holds("both ways are verified, and the speed-up is that of decode", all(r["verified"] == "pass" for r in results)
            and all(np.isclose(a["kv_cache_speedup"], b["decode_ms"] / a["decode_ms"])
                    for a, b in zip(results[1::2], results[2::2])), results)

    check_combined_formats(p, ranks, ["-p", 3, "-n", 2, "--prompt-len", 4, "--gen-len", 2, "-r", 2, "--pairs",
                                      "--verify"])


def check_combined_formats(p, ranks, options):
    """Every format has every test of a mixed list, and the columns that tell pairs apart."""
    results, _ = test_list(p, ranks, *options)
    keys = [(r["strategy"], r["algorithm"], r["test"]) for r in results]
    p.holds("a mixed list", len(set(keys)) == len(keys) and {key[2] for key in keys} == {"pp3", "tg2", "pp4+tg2"}, keys)
    _, outcome = test_list(p, ranks, *options, output="jsonl")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    p.holds("jsonl: the same tests and keys", [(r["strategy"], r["algorithm"], r["test"]) for r in lines] == keys
            and all(line.keys() == results[0].keys() for line in lines), outcome)
    _, outcome = test_list(p, ranks, *options, output="csv")
    rows = list(csv.DictReader(io.StringIO(outcome.out), strict=True))
    p.holds("csv: the same tests, and nothing where a phase is missing",
            [(r["strategy"], r["algorithm"], r["test"]) for r in rows] == keys
            and all((r["decode_ms"] == "") == (r["test"] == "pp3") for r in rows), outcome)
    columns = ["threads", "strategy", "grid", "algorithm", "dtype", "test", "prefill ms", "prompt tok/s",
               "decode ms/token", "gen tok/s", "total ms", "prefill KiB sent", "decode KiB sent", "scores KiB",
               "rel. L2", "top-1 %", "verified"]
    _, outcome = test_list(p, ranks, *options, output=None)
    table = [cells(line) for line in outcome.out.splitlines()]
    p.holds("md, the default: a row for every pair of every test", table[0] == columns
            and [(row[1], row[3], row[5]) for row in table[2:]] == keys
            and all(len(row) == len(columns) and row[-1] == "pass" for row in table[2:]), outcome)
    _, outcome = test_list(p, ranks, *options, output="table")
    results_of_table = outcome.out[outcome.out.rfind("\n\n") + 2:].splitlines()
    p.holds("table: the same rows below topology and plan", "plan " in outcome.out
            and re.split(r"  +", results_of_table[0].strip()) == columns and len(results_of_table) == 1 + len(keys),
            outcome)


def check_test_limits(p):
    """Limits are the work of the test over what was measured around its repetitions. Measuring them takes the time."""
    several, keys = p.few[:2][-1], ("read_bandwidth", "peak_flops", "limit_ts", "limit_fraction")
    results, outcome = test_list(p, 1, "-p", 64, "-n", 2, "-d", "0,1000", "-r", 1, "--roofline")
    by_name = {r["test"]: r for r in results}
    repeated, _ = test_list(p, several, "-p", 8, "-n", 0, "-r", 2, "--roofline")
    p.holds("a limit for every repetition", [len(r["samples_limit_ts"]) for r in repeated] == [2], repeated)
    for r in results + repeated:
        p.holds("limit and fraction", all((r[key] or 0) > 0 for key in keys)
                and np.isclose(r["limit_ts"], np.mean(r["samples_limit_ts"]))
                and np.isclose(r["limit_fraction"], r["avg_ts"] / r["limit_ts"]), r)
    # Where reading is what limits a step, as on any real machine; an emulated one computes slower than it reads.
    if results and all(r["peak_flops"] > 8 * r["read_bandwidth"] for r in results):
        # Bytes of a step; without depth, the weights and on average 1.5 tokens.
        decode, deep = (by_name[name]["read_bandwidth"] / by_name[name]["limit_ts"] for name in ("tg2", "tg2 @ d1000"))
        token = (decode - by_name["tg2"]["model_size"]) / 1.5
        p.holds("a decode step reads the weights, and the tokens of its depth", np.isclose(deep - decode, 1000 * token,
                rtol=0.1), (decode, deep, outcome))
        prefill, deep = (by_name[name]["peak_flops"] / by_name[name]["limit_ts"] for name in ("pp64", "pp64 @ d1000"))
        p.holds("attention to the depth is work", deep > 1.5 * prefill, (prefill, deep, outcome))
    results, outcome = test_list(p, 1, "-p", 64, "-n", 2, "--prompt-len", 64, "--gen-len", 2, "-r", 1, "--roofline")
    for r in results:
        p.holds("fractions of the limits of each phase, in every test", [r[key] is not None and r[key] > 0 for key in (
            "prefill_fraction", "decode_fraction")] == [r["n_prompt"] > 0, r["n_gen"] > 0], r)
        if r["n_prompt"]:
            p.holds("that of prefill is its work over its time and the peak", np.isclose(r["prefill_fraction"],
                    r["prefill_flops"] / (1e-3 * r["prefill_ms"]) / r["peak_flops"]), r)
        if r["n_gen"]:
            p.holds("that of decode is its reads over its time and the bandwidth", np.isclose(r["decode_fraction"],
                    r["decode_bytes_per_step"] / (1e-3 * r["decode_ms_per_step"]) / r["read_bandwidth"]), r)
    _, outcome = test_list(p, 1, "-p", 8, "-n", 0, "-r", 1, "--roofline", output="md")
    p.holds("limit and fraction are columns", cells(outcome.out.splitlines()[0])[-2:] == ["limit t/s", "% of limit"],
            outcome)


def check_kv_cache(p):
    ranks = p.few[-1]
    r, _ = p.benchmark(ranks, "--use-kv-cache", "--verify")
    p.holds("--use-kv-cache", r.get("kv_cache") == "yes" and r["verified"] == "pass", r)
    r, _ = p.benchmark(ranks, "--no-kv-cache", "--verify")
    p.holds("--no-kv-cache gives the same logits", r.get("kv_cache") == "no" and r["verified"] == "pass", r)
    r, outcome = p.benchmark(ranks, "--compare-kv-cache", "--prompt-len", 64)
    both = json.loads(outcome.out) if outcome.ok else []
    p.holds("--compare-kv-cache runs both and says the speed-up",
            [r["kv_cache"] for r in both] == ["yes", "no"] and (both[0].get("kv_cache_speedup") or 0) > 0, outcome)


    results, outcome = test_list(p, ranks, "-p", 0, "-n", 2, "-r", 1, "--pairs", "--compare-kv-cache")
    ways = [(r["strategy"], r["algorithm"], r["kv_cache"], r["kv_cache_speedup"] is not None) for r in results]
    p.holds("--pairs runs both ways in every pair", len(ways) >= 8 and ways == [
        (*pair[:2], way, way == "yes") for pair in ways[::2] for way in ("yes", "no")], outcome)


def check_verdict(p, directory):
    """BF16 destroys this model, which lives from small differences in the embedding; --verify must say so."""
    shape = make_checkpoint.Shape(layers=1, tied=False)
    make_checkpoint.make_checkpoint(directory, shape, "f32")
    path = directory / "model.safetensors"
    raw, tensors = bytearray(path.read_bytes()), reference.read_safetensors(path)
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    for name, change in (("model.embed_tokens.weight", lambda w: 1 + w),
                         ("lm_head.weight", lambda w: w - w.mean(axis=1, keepdims=True)),
                         ("model.norm.weight", np.ones_like),
                         ("model.layers.0.self_attn.o_proj.weight", np.zeros_like),
                         ("model.layers.0.mlp.down_proj.weight", np.zeros_like)):
        begin, end = header[name]["data_offsets"]
        raw[start + begin : start + end] = change(tensors[name][1].astype(np.float64)).astype("<f4").tobytes()
    path.write_bytes(raw)
    options = ["--model", directory, "--verify"]
    for ranks in p.few[:2]:
        r, _ = p.benchmark(ranks, *options, "--dtype", "f32")
        p.holds("f32 holds its tolerance", r.get("verified") == "pass", r)
        r, outcome = p.benchmark(ranks, *options, "--dtype", "bf16", code=1)
        p.holds("bf16 does not, and the result says so", r.get("verified") == "fail" and r["relative_l2"] > 1e-2,
                outcome)
        _, outcome = test_list(p, ranks, *options, "--dtype", "bf16", "-p", 5, "-n", 2, "-r", 1, code=1)
        p.holds("nor does it in a list, whose every test is judged",
                len(re.findall("verification failed: (?:pp5|tg2), ", outcome.err)) == 2
                and [r["verified"] for r in json.loads(outcome.out)] == ["fail"] * 2, outcome)


def check_once(p):
    """Help and version are printed by one rank."""
    for ranks in p.few[:2]:
        for program in (["benchmark_qwen3"], ["qwen3"], ["qwen3", "logits"], ["qwen3", "info"]):
            for option, pattern in (("--help", "(?im)^usage"), ("--version", r"\d+\.\d+\.\d+")):
                outcome = run(ranks, *program, option)
                once = len(re.findall(pattern, outcome.out)) == 1 and not ERROR.search(outcome.err)
                p.holds(f"{' '.join(program)} {option} on {ranks}: once, and good", outcome.ok and once, outcome)
    for words, same in ((["help"], ["--help"]), (["help", "run"], ["run", "--help"])):
        outcome, expected = run(1, "qwen3", *words), run(1, "qwen3", *same)
        p.holds(f"qwen3 {words}", outcome.ok and outcome.out == expected.out, outcome)
    help_text = run(1, "benchmark_qwen3", "--help").out
    p.holds("--help says the default model", "(default synthetic:0.6B)" in " ".join(help_text.split()), help_text)
    names = """model phase method parallel-strategy grid attention-algo dtype kv-dtype batch-size prompt-len gen-len
        generate iters warmup threads q-block-size kv-block-size use-kv-cache no-kv-cache compare-kv-cache verify seed
        output verbose help version attention roofline pairs n-prompt n-gen n-depth pg repetitions
        deterministic""".split()
    p.holds("--help names every option", all(f"--{name}" in help_text for name in names),
            [name for name in names if f"--{name}" not in help_text])


def check_contradictions(p):
    refused = [
        (["--use-kv-cache", "--no-kv-cache"], "kv-cache"), (["--compare-kv-cache", "--no-kv-cache"], "kv-cache"),
        (["--attention", "streaming", "--parallel-strategy", "sequence"], "--attention"),
        (["--attention", "streaming", "--attention-algo", "standard"], "--attention"),
        (["--generate", "3"], "--generate"), (["--phase", "prefill", "--no-kv-cache"], "--no-kv-cache"),
        (["--grid", "1x1", "--parallel-strategy", "headwise"], "--grid"), (["--grid", "3x5"], "--grid"),
        (["--method", "avx2", "--isa", "c"], "--isa"),
    ]
    plain = [  # without the options of QUICK
        (["-p", "5", "-n", "0", "--no-kv-cache"], "--no-kv-cache: no test generates"),
        (["-p", "5", "-n", "0", "--compare-kv-cache"], "--compare-kv-cache: no test generates"),
        (["--phase", "prefill", "--compare-kv-cache"], "--compare-kv-cache: no test generates"),
        (["-n", "5", "--phase", "prefill", "--generate", "3"], "--generate contradicts --phase prefill"),
        (["-p", "5", "--pairs", "--grid", "1x1"], "--pairs contradicts --grid"),
        (["-n", "5", "--compare-kv-cache", "--no-kv-cache"], "--compare-kv-cache contradicts --no-kv-cache"),
        (["-p", "5", "--gen-len", "4000000"], "positions"),
        (["-r", "2", "--iters", "2"], "--iters contradicts --rep"), (["-p", "0", "-n", "0"], "at least one test"),
        (["-b", "1,0"], "--batch-size: got"), (["-p", "5,"], "--n-prompt: got"),
        (["-n", "x"], "--n-gen: got"),
        (["-p", ",".join(["1"] * 65)], "--n-prompt: got"), (["-pg", "5"], "--pg: got"), (["-pg", "5,0"], "--pg: got"),
        (["-pg", "1,2,3"], "--pg: got"), (["-r", "0"], "--repetitions: got"), (["-d", "-1"], "--n-depth: got"),
        (["-d", "4000000"], "positions"),
    ]
    for number, (options, culprit) in enumerate(plain):
        ranks = p.few[-1] if number % 6 == 0 else 1
        outcome = run(ranks, "benchmark_qwen3", "--model", "synthetic:tiny", *options)
        messages = [line for line in outcome.err.splitlines() if ERROR.match(line)]
        p.holds(f"{' '.join(options)} is refused by name", outcome.code == REFUSED and len(messages) == 1
                and culprit in messages[0] and not outcome.out, outcome)
    many = [(["--method", "baseline"], "--method"), (["--method", "avx2"], "--method")]
    for options, culprit in refused + (many if p.few[-1] > 1 else []):
        _, outcome = p.benchmark(p.few[-1] if (options, culprit) in many else 1, *options, code=REFUSED)
        messages = [line for line in outcome.err.splitlines() if ERROR.match(line)]
        p.holds(f"{' '.join(options)} is refused by name", len(messages) == 1 and culprit in messages[0]
                and not outcome.out, outcome)


def check_roofline(p):
    r, _ = p.benchmark(p.few[0], "--roofline", "--prompt-len", 128)
    p.holds("--roofline measures both limits and the fractions", all((r.get(key) or 0) > 0 for key in (
        "read_bandwidth", "peak_flops", "prefill_fraction", "decode_fraction")), r)


def check_info(p, directory):
    shape = make_checkpoint.Shape(hidden=48, inter=101, heads=6, kv_heads=3, vocab=331, tied=False)
    make_checkpoint.make_checkpoint(directory, shape, "f16", shards=3)
    count = sum(int(np.prod(dims)) for dims, _ in make_checkpoint.tensor_shapes(shape).values())
    for ranks in p.few[:2]:
        outcome = run(ranks, "qwen3", "info", "--model", directory, "--tensors")
        digits = outcome.out.replace(",", "").replace("_", "").replace("'", "")
        p.holds("qwen3 info counts the parameters", outcome.ok and str(count) in digits, outcome)
        names = make_checkpoint.tensor_shapes(shape)
        listed = [len(re.findall(rf"{re.escape(name)}\s", outcome.out)) for name in names]
        p.holds("qwen3 info lists every tensor once", set(listed) == {1}, outcome)
    outcome = run(1, "qwen3", "info", "--model", "synthetic:0.6B", "--no-speed")
    p.holds("qwen3 info of a named size", outcome.ok and "151936" in outcome.out and "3072" in outcome.out, outcome)
    for arguments, sequence in (((), (1137.0, 568.6)), (("--nodes", 2), (1137.0, 988.6))):
        outcome = run(1, "qwen3", "info", "--model", "synthetic:0.6B", "--no-speed", *arguments)
        row = re.search(r"bf16 +sequence +([\d.]+) +([\d.]+)", outcome.out)
        p.holds(f"qwen3 info {' '.join(map(str, arguments))}: memory of 1 and 2", row and
                (float(row[1]), float(row[2])) == sequence, outcome)


def check_logits(p, directory):
    """Standard output as output; synthetic weights are the same on any number of ranks, and follow the seed."""
    shape = dataclasses.replace(make_checkpoint.Shape(), vocab=77)
    make_checkpoint.make_checkpoint(directory / "model", shape, "bf16")
    expected = reference.forward(directory / "model", [5, 76, 5], all_positions=False)
    output = directory / "piped.f32"
    script = directory / "pipe.sh"
    script.write_text('#!/bin/sh\nout=$1; shift\n"$@" > "$out.$$"\nstatus=$?\n[ -s "$out.$$" ] && mv "$out.$$" "$out"\n'
                      "exit $status\n")
    script.chmod(0o755)
    for ranks in p.few[:2]:
        output.unlink(missing_ok=True)
        outcome = run(ranks, script, output, BIN / "qwen3", "logits", "--model", directory / "model",
                      "--tokens", "5 76,5", "--output", "-", "--dtype", "f32")
        logits = np.fromfile(output, "<f4") if output.exists() else np.empty(0)
        p.holds(f"logits to standard output on {ranks}",
                outcome.ok and len(logits) == 77 and relative_l2(logits, expected[0]) < 1e-5, outcome)
    results = {}
    for ranks, seed in [(n, 1) for n in p.few] + [(1, 2)]:
        file = directory / f"{ranks}-{seed}.f32"
        outcome = run(ranks, "qwen3", "logits", "--model", "synthetic:tiny", "--tokens", "1,2,3", "--output", file,
                      "--seed", seed, "--dtype", "f32", "--parallel-strategy", "headwise")
        if p.holds(f"synthetic weights, seed {seed} on {ranks}", outcome.ok, outcome):
            results[ranks, seed] = np.fromfile(file, "<f4")
    first = results.get((p.few[0], 1))
    if first is not None:
        for (ranks, seed), value in results.items():
            same = relative_l2(value, first) < 1e-5
            p.holds(f"synthetic weights follow the seed alone (ranks {ranks}, seed {seed})", same == (seed == 1), value)


def main():
    p = Programs(Checks())
    check_once(p)
    check_contradictions(p)
    check_formats(p)
    check_numbers(p)
    check_phases(p)
    check_choices(p)
    check_placement(p)
    check_old_attention(p)
    check_tests(p)
    check_test_defaults(p)
    check_combinations(p)
    check_kv_cache(p)
    with scratch() as directory:
        check_verdict(p, directory / "verdict")
        check_info(p, directory / "info")
        (directory / "logits").mkdir()
        check_logits(p, directory / "logits")
    check_roofline(p)
    check_test_limits(p)
    return p.checks.finish()


if __name__ == "__main__":
    sys.exit(main())
