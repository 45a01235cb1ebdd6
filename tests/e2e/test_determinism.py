#!/usr/bin/env python3
"""Same ranks, same threads, same input: the same bits, twice, for prefill and decoding. With --deterministic the same
bits for any number of ranks and threads and both strategies (ranks/test_deterministic.c tests much more)."""
import itertools
import sys

from e2e import PRECISIONS, RANKS, Checks, precision_options, rng, run, scratch

import make_checkpoint

SHAPE = make_checkpoint.Shape(hidden=96, inter=203, layers=2, heads=6, kv_heads=2, head_dim=64, vocab=499)
SETTINGS = [("headwise", "online_softmax", "bf16"), ("headwise", "standard", "f32"),
            ("sequence", "online_softmax", "f32"), ("sequence", "standard", "bf16"),
            ("headwise", "online_softmax", "q4"), ("sequence", "online_softmax", "q8")]


def logits(directory, ranks, threads, setting, precision, *more):
    """(outcome, bytes of the logits of all positions)"""
    strategy, algorithm, dtype = setting
    output = directory / "logits.f32"
    output.unlink(missing_ok=True)
    outcome = run(ranks, "qwen3", "logits", "--model", directory / "model", "--tokens", f"@{directory / 'ids'}",
                  "--all", "--decode-from", 196, "--output", output, "--parallel-strategy", strategy,
                  "--attention-algo", algorithm, "--dtype", dtype, "--threads", threads, *precision_options(precision),
                  *more)
    return outcome, output.read_bytes() if output.exists() else b""


def check_any_ranks(checks, directory):
    for algorithm, dtype in (("online_softmax", "f32"), ("standard", "bf16")):
        results = set()
        for ranks, strategy in itertools.product([n for n in RANKS if n <= 3], ("headwise", "sequence")):
            threads = 1 + (ranks + (strategy == "sequence")) % 2
            what = f"--deterministic, {ranks} ranks, {threads} threads, {strategy}, {algorithm}, {dtype}"
            setting = (strategy, algorithm, dtype)
            outcome, result = logits(directory, ranks, threads, setting, "large", "--deterministic")
            results.add(result)
            checks.true(f"{what}: the same bits", outcome.ok and result and len(results) == 1, outcome)
    outcome = run(max(n for n in RANKS if n <= 3), "test_parallel_strategies", "--deterministic", "--cases", 1)
    checks.true("test_parallel_strategies --deterministic", outcome.ok, outcome)


def main():
    checks, random = Checks(), rng()
    with scratch() as directory:
        make_checkpoint.make_checkpoint(directory / "model", SHAPE, "bf16", seed=3)
        (directory / "ids").write_text(" ".join(map(str, random.randint(0, SHAPE.vocab, 200))))
        cases = [(ranks, setting, precision) for ranks, setting, precision in
                 itertools.product([n for n in RANKS if n <= 3], SETTINGS, PRECISIONS)
                 if precision == "small" or setting[-1] != "f32"]  # which is computed in f32 in large models, too
        for ranks, setting, precision in cases:
            threads = 1 + (SETTINGS.index(setting) + ranks) % 2  # every setting meets both
            what = f"{ranks} ranks, {threads} threads, {', '.join(setting)}, as a {precision} model"
            outcome, first = logits(directory, ranks, threads, setting, precision)
            if checks.true(f"{what}: runs", outcome.ok and len(first) == 200 * SHAPE.vocab * 4, outcome):
                outcome, second = logits(directory, ranks, threads, setting, precision)
                checks.true(f"{what}: the same bits twice", first == second, outcome)
        check_any_ranks(checks, directory)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
