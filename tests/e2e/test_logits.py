#!/usr/bin/env python3
"""qwen3 logits against the float64 reference: odd shapes and files x strategies and grids x algorithms x
dtypes x ranks x prompt lengths x ways to feed the prompt.

Every (ranks, strategy, grid) is run, on few ranks with both algorithms, each with a prompt, a checkpoint and the other
factors chosen so that nearly every pair of values of two factors meets at least once (seeded greedy cover).
QWEN3_TEST_FULL=1 runs the cross product of the main factors instead.
"""
import dataclasses
import itertools
import sys
from functools import lru_cache

import numpy as np

from e2e import FULL, RANKS, Checks, precision_options, relative_l2, rng, run, scratch

import make_checkpoint
import reference

Shape = make_checkpoint.Shape
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
ALGORITHMS = ("standard", "online_softmax")
FEW = 3  # ranks
LONGEST = 150  # more than two pages of the KV cache
# Relative L2, in every row. For these small models the engine keeps all but the weights in f32, and the reference
# rounds the same weights: bf16 is as exact as f32. "bf16 large" is what large models get: the reference with its
# activations, queries, keys, values and probabilities rounded to BF16 where the engine does, on the best level, gives
# 6e-3 to 9e-3 over many rows of these models and up to 1.7e-2 in the worst row, so it is judged over many rows, and few
# rows get twice the tolerance.
LARGE = "bf16 large"
TOLERANCE = {"f32": 1e-5, "bf16": 1e-5, LARGE: 1e-2}
MANY_ROWS = 16

# name: (shape, options of make_checkpoint). Hidden sizes, too, are divisible by little.
MODELS = {
    "gqa5-f16": (Shape(hidden=90, inter=101, heads=10, kv_heads=2, head_dim=32, vocab=331), {"dtype": "f16"}),
    "one-kv-f32": (Shape(hidden=72, inter=101, heads=6, kv_heads=1, head_dim=64, vocab=331, tied=False),
                   {"dtype": "f32"}),
    "heads3-shards": (Shape(hidden=96, inter=160, heads=3, kv_heads=3, head_dim=32, vocab=512, tied=False),
                      {"shards": 5}),
    "head-dim-128": (Shape(hidden=101, inter=203, layers=2, heads=4, kv_heads=2, head_dim=128, vocab=257),
                     {"lm_head": True}),
    "yarn": (Shape(hidden=64, inter=97, heads=8, kv_heads=4, head_dim=64, vocab=199, yarn=YARN), {"dtype": "f32"}),
    "yarn-new-config": (Shape(hidden=80, inter=67, layers=2, heads=5, kv_heads=1, head_dim=32, vocab=331, theta=5e6,
                              rope_parameters=True, yarn={**YARN, "beta_fast": 16, "attention_factor": 1.2}),
                        {"shards": 3}),
    "qwen2": (Shape(hidden=128, inter=101, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=331, model_type="qwen2"),
              {"dtype": "f32"}),
    "llama": (Shape(hidden=72, inter=203, heads=6, kv_heads=3, head_dim=32, vocab=257, tied=False, theta=1e4,
                    model_type="llama"), {"shards": 2}),
    "moe": (Shape(hidden=96, inter=101, layers=4, heads=6, kv_heads=3, head_dim=32, vocab=331, tied=False,
                  model_type="qwen3_moe", experts=12, chosen=3, moe_inter=40, sparse_step=1, dense_layers=(1,),
                  local_experts=True), {}),
    "moe-f32": (Shape(hidden=72, inter=97, heads=4, kv_heads=2, head_dim=64, vocab=257, model_type="qwen3_moe",
                      experts=5, chosen=2, moe_inter=203, norm_topk=False, sparse_step=2),
                {"dtype": "f32", "shards": 3}),
    # All experts are equal: the first two get all rows, and the others none.
    "moe-ties": (Shape(hidden=80, inter=97, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=199,
                       model_type="qwen3_moe", experts=6, chosen=2, moe_inter=64, router=0.0), {"dtype": "f16"}),
    "heads16": (Shape(hidden=128, inter=320, heads=16, kv_heads=8, head_dim=32, vocab=1000, rope_parameters=True), {}),
}
CHOOSING = {name for name, (shape, _) in MODELS.items() if shape.model_type == "qwen3_moe"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One run. decode: share of the prompt that is prefilled, None = all of it in one step."""

    ranks: int
    strategy: str
    grid: str
    algorithm: str
    model: str
    dtype: str
    length: int
    rows: str
    decode: float
    threads: int
    split: int

    def arguments(self):
        options = ["--attention-algo", self.algorithm, "--dtype", self.dtype.split()[0], "--threads", self.threads]
        options += precision_options("large" if self.dtype == LARGE else "small")
        options += ["--parallel-strategy", self.strategy]
        options += ["--grid", self.grid] if self.grid else []
        options += ["--all"] if self.rows == "all" else []
        options += ["--decode-from", max(1, int(self.length * self.decode))] if self.decode is not None else []
        options += ["--token-split-min", self.split] if self.split else []
        return options


def layouts():
    """(ranks, strategy, grid) for every rank count: all factorisations as hybrid, one of them left to the engine. Grids
    with a side of 1 are head-wise or sequence again: on few ranks they are asked for by name as well."""
    for ranks in RANKS:
        for strategy in ("headwise", "sequence", "auto", "hybrid"):
            yield ranks, strategy, ""
        for s in range(1, ranks + 1):
            if ranks % s == 0 and (FULL or ranks <= FEW or 1 < s < ranks):
                yield ranks, "hybrid", f"{s}x{ranks // s}"


def pairs_to_run():
    """Layouts with both algorithms; on many ranks, where starting them takes the time, one or the other."""
    for i, layout in enumerate(layouts()):
        for algorithm in ALGORITHMS if layout[0] <= FEW else ALGORITHMS[i % 2:][:1]:
            yield layout, algorithm


OTHERS = {
    "model": list(MODELS),
    "dtype": list(TOLERANCE),
    "length": [1, 3, 20, 64, 65, LONGEST],
    "rows": ["all", "last"],
    "decode": [None, 0.5, 0.9],
    "threads": [1, 2],
    "split": [0, 1, 10000],
}


def sensible(case):
    """Decoding by single steps is only worth its time over few steps; one token has nothing to decode. What is rounded
    on the way decides between experts that are nearly equal."""
    if case.dtype == LARGE and case.model in CHOOSING:
        return False
    return case.decode is None or case.length == 20 or (case.decode == 0.9 and case.length > 20)


def covering_cases(random):
    """Per case the candidate that meets most pairs not met yet."""
    def pairs(case):
        values = [(field, getattr(case, field)) for field in ("ranks", "strategy", "algorithm", *OTHERS)]
        return set(itertools.combinations(values, 2))

    met, cases = set(), []
    for layout, algorithm in pairs_to_run():
        candidates = [Case(*layout, algorithm, *(values[random.randint(len(values))] for values in OTHERS.values()))
                      for _ in range(150)]
        best = max(filter(sensible, candidates), key=lambda case: len(pairs(case) - met))
        met |= pairs(best)
        cases.append(best)
    return cases


def all_cases():
    for layout, algorithm, model, dtype, (length, decode), split in itertools.product(
            layouts(), ALGORITHMS, MODELS, OTHERS["dtype"],
            ((1, None), (3, None), (65, None), (LONGEST, None), (20, 0.5), (LONGEST, 0.9)), OTHERS["split"]):
        case = Case(*layout, algorithm, model, dtype, length, "all", decode, 1, split)
        if case.dtype != LARGE or case.model not in CHOOSING:
            yield case


class Reference:
    """Logits of the longest prompt of each model; those of a shorter one are its first rows (causality)."""

    def __init__(self, directory, random):
        self.directory = directory
        self.tokens = {}
        for seed, (name, (shape, options)) in enumerate(MODELS.items()):
            make_checkpoint.make_checkpoint(directory / name, shape, seed=seed + 1, **options)
            self.tokens[name] = random.randint(0, shape.vocab, LONGEST)

    @lru_cache(maxsize=None)
    def logits(self, model, dtype):
        return reference.forward(self.directory / model, self.tokens[model], bf16_weights=dtype != "f32")


def compare(case, values, expected):
    """(error text, relative L2)"""
    if values.size != expected.size:
        return f"{values.size} values, expected {expected.size}", np.inf
    values = values.reshape(expected.shape).astype(np.float64)
    if not np.isfinite(values).all():
        return "not finite", np.inf
    rows = [relative_l2(value, row) for value, row in zip(values, expected)]
    large = case.dtype == LARGE
    error = relative_l2(values, expected) if large else max(rows)
    worst = int(np.argmax(rows))
    tolerance = TOLERANCE[case.dtype] * (2 if large and len(rows) < MANY_ROWS else 1)
    return (f"relative L2 {error:.2e} (row {worst}: {rows[worst]:.2e})" if error > tolerance else ""), error


def run_case(checks, case, directory, truth, worst):
    tokens = truth.tokens[case.model][: case.length]
    output, ids = directory / "logits.f32", directory / "ids"
    output.unlink(missing_ok=True)
    text = ",".join(map(str, tokens))
    if case.length > 20:
        ids.write_text(text.replace(",", "\n"))
        text = f"@{ids}"
    outcome = run(case.ranks, "qwen3", "logits", "--model", directory / case.model, "--tokens", text,
                  "--output", output, *case.arguments())
    if not checks.true(case, outcome.ok and output.exists(), outcome):
        return
    expected = truth.logits(case.model, case.dtype)[: case.length]
    message, error = compare(case, np.fromfile(output, "<f4"), expected if case.rows == "all" else expected[-1:])
    worst[case.dtype] = max(worst[case.dtype], error)
    checks.true(case, not message, f"{message}\n{outcome}")


def check_overflow(checks, directory):
    """A router whose scores overflow: no expert is the right one, and no logit is a number."""
    shape = Shape(hidden=72, inter=97, heads=4, kv_heads=2, head_dim=32, vocab=257, model_type="qwen3_moe", experts=64,
                  moe_inter=32, router=4e38)
    make_checkpoint.make_checkpoint(directory / "overflow", shape, "f32")
    for ranks, dtype in itertools.product([ranks for ranks in RANKS if ranks <= FEW], ("f32", "q8")):
        outcome = run(ranks, "qwen3", "logits", "--model", directory / "overflow", "--tokens", "1,2,3,4", "--output",
                      directory / "overflow.f32", "--all", "--dtype", dtype, *precision_options("large"))
        checks.true(f"scores overflow, {dtype}, {ranks} ranks",
                    not outcome.ok and "row 0: a logit is not a number" in outcome.err, outcome)


def check_chunks(checks, directory, random):
    """A prompt far beyond the positions before YaRN, in passes of few tokens: the reference, and the same as in one
    pass with deterministic; keys and values of 8 bits are nearly as good."""
    shape, options = MODELS["yarn"]
    make_checkpoint.make_checkpoint(directory / "long", shape, **options)
    tokens = list(random.randint(shape.vocab, size=251))
    (directory / "ids").write_text("\n".join(map(str, tokens)))
    expected, whole = reference.forward(directory / "long", tokens), None
    output = directory / "long.f32"
    for ranks, chunk, kv_dtype in ((1, 999, "f32"), (1, 37, "f32"), (2, 64, "f32"), (3, 100, "f32"), (1, 50, "q8")):
        if ranks not in RANKS:
            continue
        outcome = run(ranks, "qwen3", "logits", "--model", directory / "long", "--tokens", f"@{directory / 'ids'}",
                      "--all", "--output", output, "--dtype", "f32", "--chunk", chunk, "--kv-dtype", kv_dtype,
                      "--deterministic")
        got = np.fromfile(output, "<f4").reshape(len(tokens), -1) if outcome.ok else expected * 0
        whole = got if whole is None else whole
        limit = 1e-5 if kv_dtype == "f32" else 2e-2
        checks.true(f"chunks of {chunk} on {ranks} ranks, {kv_dtype}: {relative_l2(got, expected)}",
                    relative_l2(got, expected) < limit, outcome)
        checks.true(f"chunks of {chunk} on {ranks} ranks: the same bits",
                    kv_dtype != "f32" or np.array_equal(got, whole))


def main():
    checks, random = Checks(), rng()
    with scratch() as directory:
        check_overflow(checks, directory)
        check_chunks(checks, directory, random)
        truth = Reference(directory, random)
        cases = list(all_cases()) if FULL else covering_cases(random)
        print(f"{len(cases)} runs on {RANKS} ranks", flush=True)
        worst = dict.fromkeys(TOLERANCE, 0.0)
        for case in cases:
            run_case(checks, case, directory, truth, worst)
        print("largest relative L2: " + ", ".join(f"{dtype} {error:.2e}" for dtype, error in worst.items()))
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
