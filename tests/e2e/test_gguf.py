#!/usr/bin/env python3
"""GGUF files, written by gguf_file.py: weights of every type have, bit for bit, the values that the format defines, on
any number of ranks; configuration, tokenizer, chat template and stop tokens are those of the same model as a
directory.

QWEN3_TEST_TOKENIZER=DIR: also ids of a published tokenizer, as in test_tokenizer.py.
"""
import json
import os
import pathlib
import shutil
import struct
import sys

import numpy as np

import gguf_file
from e2e import DATA, RANKS, ROOT, Checks, best_level, relative_l2, rng, run, scratch

import make_checkpoint
from text_model import TextModel

Shape = make_checkpoint.Shape
FEW = [n for n in RANKS if n <= 3]
DEMO = ROOT / "models" / "demo"
NOTE = "weights are rounded to bf16"


def medium(name, shape):
    """As "Q4_K_M" files are: the embedding and some matrices in more bits."""
    if "embed" in name or "lm_head" in name or "v_proj" in name:
        return "Q6_K"
    return "Q5_0" if "layers.1.mlp.down" in name else "Q4_K"


# name: (shape, type or function of name and shape)
MODELS = {name: (Shape(hidden=256, inter=512, layers=2, heads=4, kv_heads=2, head_dim=64, vocab=300, tied=i % 2 == 0),
                 name) for i, name in enumerate(gguf_file.TYPES)}
MODELS["mixed"] = (Shape(hidden=256, inter=256, layers=2, heads=8, kv_heads=4, head_dim=64, vocab=300, tied=False),
                   medium)
MODELS["wide"] = (Shape(hidden=512, inter=768, layers=2, heads=4, kv_heads=2, head_dim=128, vocab=300, tied=True),
                  medium)
MODELS["yarn"] = (Shape(hidden=96, inter=160, layers=2, heads=3, kv_heads=3, head_dim=32, vocab=200,
                        yarn={"factor": 4.0, "original_max_position_embeddings": 64}), "Q8_0")
MODELS["qwen2"] = (Shape(hidden=128, inter=160, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=200,
                         model_type="qwen2"), "Q4_1")
MODELS["experts"] = (Shape(hidden=256, inter=256, layers=2, heads=4, kv_heads=2, head_dim=64, vocab=200,
                           model_type="qwen3_moe", experts=5, chosen=2, moe_inter=256),
                     lambda name, _: "Q6_K" if "down_proj" in name else "Q4_K")


class Pair:
    """The same weights as a GGUF file and as a checkpoint of F32."""

    def __init__(self, folder, name, seed):
        shape, kind = MODELS[name]
        self.shape, self.path, self.twin = shape, folder / f"{name}.gguf", folder / f"{name}-twin"
        make_checkpoint.make_checkpoint(folder / name, shape, dtype="f32", seed=seed)
        self.file, values = gguf_file.convert(folder / name, kind if callable(kind) else lambda *_: kind)
        if kind in gguf_file.HALVES:
            self.replace("model.layers.0.mlp.up_proj.weight", kind, values, np.random.RandomState(seed))
        self.path.write_bytes(self.file.bytes())
        gguf_file.write_twin(folder / name, self.twin, values)

    def replace(self, name, kind, values, random):
        """One matrix has random blocks."""
        shape, stored = values[name].shape, gguf_file.gguf_name(name)
        data = gguf_file.random_blocks(kind, values[name].size, random)
        values[name] = gguf_file.values_of(data, kind, shape)
        self.file.tensors = [(n, dims, number, data if n == stored else raw)
                             for n, dims, number, raw in self.file.tensors]


def logits(folder, ranks, model, *arguments):
    output = folder / "logits"
    output.unlink(missing_ok=True)
    outcome = run(ranks, "qwen3", "logits", "--model", model, "--output", output, "--all", *arguments)
    return output.read_bytes() if outcome.ok else b"", outcome


def packed_tensors(directory):
    """{name: (type, bytes)} of a packed model."""
    raw = (directory / "packed.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    return {name: (info["dtype"], raw[8 + length + info["data_offsets"][0] : 8 + length + info["data_offsets"][1]])
            for name, info in header.items() if name != "__metadata__"}


def widened(tensors):
    """The embedding may be stored as BF16."""
    return {name: np.frombuffer(raw, "<u2").astype("<u4").__lshift__(16).tobytes() if dtype == "BF16" else raw
            for name, (dtype, raw) in tensors.items()}


def check_values(checks, folder, name, pair):
    """Packed as f32, all tensors have the bits of those of the twin."""
    found = []
    for model in (pair.path, pair.twin):
        output = folder / f"packed-{name}-{model.name}"
        outcome = run(1, "qwen3", "pack", "--model", model, "--dtype", "f32", "--output", output)
        if checks.true(f"{name}: pack {model.name}", outcome.ok, outcome):
            found.append(widened(packed_tensors(output)))
    if len(found) == 2:
        wrong = [key for key in found[1] if found[0].get(key) != found[1][key]]
        checks.true(f"{name}: every value is that of the format", found[0].keys() == found[1].keys() and not wrong,
                    wrong)
        tokens = ["--tokens", "1,2,3,4,5"]
        expected, _ = logits(folder, 1, pair.path, "--dtype", "f32", *tokens)
        got, outcome = logits(folder, FEW[-1], folder / f"packed-{name}-{pair.path.name}", "--deterministic", *tokens)
        same, _ = logits(folder, 1, pair.path, "--dtype", "f32", "--deterministic", *tokens)
        checks.true(f"{name}: the packed model's logits", got and got == same, outcome)
        checks.true(f"{name}: deterministic or not", relative_l2(np.frombuffer(got, "<f4"),
                                                                 np.frombuffer(expected, "<f4")) < 1e-5)


def check_logits(checks, folder, name, pair, random):
    """As stored: weights are those of the file, so in f32 the logits are those of the twin."""
    exact, stored = name in ("BF16",), name not in gguf_file.ELEMENTS
    for ranks in FEW:
        for strategy in ("headwise", "sequence") if ranks > 1 else ("auto",):
            tokens = ",".join(map(str, random.randint(0, pair.shape.vocab, random.randint(2, 70))))
            for dtype in ("f32", "bf16", "q8", None) if ranks == 1 else ("f32", None):
                arguments = ["--tokens", tokens, "--parallel-strategy", strategy]
                options = ["--dtype", dtype] if dtype else []
                what = f"{name}: {ranks} ranks {strategy} {dtype or 'auto'}"
                expected, outcome = logits(folder, ranks, pair.twin, "--dtype", dtype or ("f32" if stored else "bf16"),
                                           *arguments)
                checks.true(f"{what}: checkpoint", outcome.ok, outcome)
                got, outcome = logits(folder, ranks, pair.path, *options, *arguments)
                checks.true(what, got and (got == expected if dtype or not stored else close(got, expected, 1e-5)),
                            outcome)
                checks.true(f"{what}: says what is rounded",
                            (NOTE in outcome.err) == (dtype is None and not exact and not stored), outcome)


# Mixed types; groups of 128 in heads of 64 and of 128; experts; a minimum without scales; a table of levels.
LARGE = ("mixed", "wide", "experts", "Q5_1", "IQ4_XS")

# Rounding each input of a product to 8 bits, with a scale for every 32: the relative error of the logits of these
# shapes is at most so large. Weights add nothing to it. A router may choose another expert where two are nearly equal.
EIGHT_BITS, OTHER_EXPERTS = 0.04, 0.3


def close(got, expected, bound):
    if len(got) != len(expected) or not got:
        return False
    return relative_l2(np.frombuffer(got, "<f4"), np.frombuffer(expected, "<f4")) < bound


def check_large(checks, folder, name, pair, random):
    """As a large model is computed, with activations of 8 bits where the level has them; the packed model too."""
    packed, level = folder / f"packed-stored-{name}", ["--isa", best_level()]
    outcome = run(1, "qwen3", "pack", "--model", pair.path, "--output", packed)
    checks.true(f"{name}: pack as stored", outcome.ok and NOTE not in outcome.err, outcome)
    info = run(1, "qwen3", "info", "--model", packed)
    checks.true(f"{name}: its types", info.ok and all(kind in info.out for kind in ("Q4_K", "Q6_K")
                                                      if name == "mixed"), info)
    for length in (3, 40):  # few rows and many
        tokens = ["--tokens", ",".join(map(str, random.randint(0, pair.shape.vocab, length)))]
        expected, outcome = logits(folder, 1, pair.twin, "--dtype", "f32", "--kv-dtype", "f32", *tokens)
        checks.true(f"{name}: reference", outcome.ok, outcome)
        same, bound = None, OTHER_EXPERTS if name == "experts" else EIGHT_BITS
        for ranks in FEW:
            for options in ([["--parallel-strategy", s] for s in ("headwise", "sequence")] + [["--deterministic"]]
                            if ranks > 1 else [[], ["--deterministic"]]):
                what = f"{name}: {length} tokens, {ranks} ranks {' '.join(options)}"
                got, outcome = logits(folder, ranks, pair.path, *level, *options, *tokens)
                checks.true(what, close(got, expected, bound), outcome)
                if options == ["--deterministic"]:
                    same = same or got
                    checks.true(f"{what}: the same bits", got == same)
                if length > 3:
                    continue
                again, outcome = logits(folder, ranks, packed, *level, *options, *tokens)
                split = "would split blocks" in outcome.err
                checks.true(f"{what}: packed", again == got or (split and pair.shape.head_dim % 128 != 0), outcome)


def check_split(checks, folder, name, pair):
    parts = pair.file.split(3)
    directory = folder / "split"
    directory.mkdir()
    paths = [directory / gguf_file.part_name("model", i, 3) for i in range(3)]
    for path, part in zip(paths, parts):
        path.write_bytes(part.bytes())
    tokens = ["--tokens", "7,8,9", "--dtype", "f32"]
    expected, _ = logits(folder, 1, pair.path, *tokens)
    for ranks in FEW:
        got, outcome = logits(folder, ranks, paths[0], *tokens)
        checks.true(f"{name} in three parts on {ranks}", outcome.ok and (ranks > 1 or got == expected), outcome)
    packed = folder / "split-packed"
    outcome = run(1, "qwen3", "pack", "--model", paths[0], "--dtype", "f32", "--output", packed)
    checks.true("parts are packed", outcome.ok, outcome)
    checks.true("the packed parts' logits", logits(folder, 1, packed, *tokens)[0] == expected)
    again = folder / "split-again"
    outcome = run(1, "qwen3", "pack", "--model", packed, "--isa", "c", "--dtype", "f32", "--output", again)
    checks.true("packed again", outcome.ok, outcome)
    checks.true("logits of what was packed again", logits(folder, 1, again, *tokens, "--isa", "c")[0] ==
                logits(folder, 1, pair.path, *tokens, "--isa", "c")[0])


def check_info(checks, pair):
    outcome = run(1, "qwen3", "info", "--model", pair.path, "--tensors")
    checks.true("info", outcome.ok and all(f" {kind}\n" in outcome.out for kind in ("Q4_K", "Q6_K", "Q5_0", "F32")),
                outcome)
    outcome = run(1, "benchmark_qwen3", "--model", pair.path, "-p", 2, "-n", 1, "-r", 1)
    checks.true("benchmark_qwen3", outcome.ok and "STORED" in outcome.out, outcome)


# ---- Text -------------------------------------------------------------------------------------------


def text_gguf(directory, path, kind):
    """The model of a directory with its tokenizer; returns the values of the tensors."""
    rows = json.loads((directory / "config.json").read_text())["vocab_size"]
    file, values = gguf_file.convert(directory, lambda *_: kind, gguf_file.tokenizer_keys(directory, rows))
    path.write_bytes(file.bytes())
    return values


def check_ids(checks, directory, path, texts):
    lines = "".join(json.dumps(text) + "\n" for text in texts).encode()
    for options in ([], ["--plain"]):
        expected = run(1, "qwen3", "tokenize", "--model", directory, "--batch", *options, stdin=lines)
        for model in (path, path.parent / "text-packed"):
            outcome = run(1, "qwen3", "tokenize", "--model", model, "--batch", *options, stdin=lines)
            checks.true(f"ids from {model.name} {options}", outcome.ok and outcome.out == expected.out, outcome)
    outcome = run(1, "qwen3", "detokenize", "--model", path, "--batch", stdin=expected.out.encode())
    back = run(1, "qwen3", "detokenize", "--model", directory, "--batch", stdin=expected.out.encode())
    checks.true("text from ids", outcome.ok and outcome.out == back.out, outcome)


def check_text(checks, folder, directory, kind):
    path, twin = folder / f"{directory.name}.gguf", folder / f"{directory.name}-twin"
    gguf_file.write_twin(directory, twin, text_gguf(directory, path, kind))
    shutil.rmtree(folder / "text-packed", ignore_errors=True)
    outcome = run(1, "qwen3", "pack", "--model", path, "--output", folder / "text-packed")
    checks.true(f"pack {path.name}", outcome.ok, outcome)
    texts = (DATA / "text.txt").read_text(encoding="utf-8").split("\n\n")
    check_ids(checks, directory, path, texts + ["<|im_start|>user\n<|im_end|><think></think> <|im_end", "", "a\u0301"])
    messages = json.dumps([{"role": "user", "content": "The red box holds 4711. What does the red box hold?"}]).encode()
    expected = run(1, "qwen3", "template", "--model", directory, stdin=messages)
    outcome = run(1, "qwen3", "template", "--model", path, stdin=messages)
    checks.true("the chat template", outcome.ok and outcome.out == expected.out, outcome)
    prompt = ["The red box holds 4711. What does the red box hold?", "--max-tokens", 40]
    for ranks in FEW:
        expected = run(ranks, "qwen3", "run", "--model", twin, *prompt, "--temperature", 0)
        for model in (path, folder / "text-packed"):
            outcome = run(ranks, "qwen3", "run", "--model", model, *prompt, "--temperature", 0)
            checks.true(f"{model.name} on {ranks}: the same answer", outcome.ok and outcome.out == expected.out,
                        f"{expected}\n{outcome}")


def check_published(checks, folder, directory):
    path, golden = folder / "published.gguf", directory / "encode-golden.jsonl"
    rows = [json.loads(line) for line in golden.open(encoding="utf-8")]
    path.write_bytes(gguf_file.File(gguf_file.tokenizer_keys(directory, 151936), []).bytes())
    outcome = run(1, "qwen3", "tokenize", "--model", path, "--batch",
                  stdin="".join(json.dumps(row["text"]) + "\n" for row in rows).encode())
    found = [json.loads(line) for line in outcome.out.split("\n") if line]
    checks.true("ids of the published tokenizer", outcome.ok and found == [row["ids"] for row in rows], outcome)


def main():
    checks, random = Checks(), rng()
    with scratch() as folder:
        for seed, name in enumerate(MODELS):
            pair = Pair(folder, name, seed + 1)
            check_values(checks, folder, name, pair)
            check_logits(checks, folder, name, pair, random)
            if name in LARGE:
                check_large(checks, folder, name, pair, random)
            if name == "mixed":
                check_split(checks, folder, name, pair)
                check_info(checks, pair)
        check_text(checks, folder, DEMO, "Q8_0")
        text = TextModel(folder / "text").directory
        check_text(checks, folder, text, "F16")
        if os.environ.get("QWEN3_TEST_TOKENIZER"):
            check_published(checks, folder, pathlib.Path(os.environ["QWEN3_TEST_TOKENIZER"]))
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
