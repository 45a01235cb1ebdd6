#!/usr/bin/env python3
"""qwen3 pack: a packed model gives the logits of its checkpoint bit for bit, for odd shapes and files x dtypes x
levels that it was packed for and that run x strategies x algorithms x ranks; and what it refuses."""
import itertools
import json
import shutil
import struct
import sys

import numpy as np

import e2e
from e2e import BIN, FULL, RANKS, Checks, has_level, rng, run, scratch

import make_checkpoint

Shape = make_checkpoint.Shape
MODELS = {
    "heads3": (Shape(hidden=96, inter=160, heads=3, kv_heads=3, head_dim=32, vocab=512, tied=False),
               {"dtype": "bf16", "shards": 5}),
    "f16": (Shape(hidden=90, inter=101, heads=10, kv_heads=2, head_dim=32, vocab=331), {"dtype": "f16"}),
    "qwen2": (Shape(hidden=96, inter=101, layers=2, heads=6, kv_heads=2, head_dim=32, vocab=257, model_type="qwen2"),
              {"dtype": "bf16"}),
    "moe": (Shape(hidden=90, inter=101, layers=3, heads=6, kv_heads=3, head_dim=32, vocab=257, model_type="qwen3_moe",
                  experts=7, chosen=2, moe_inter=96, dense_layers=(1,)), {"dtype": "bf16", "shards": 2}),
    "panels": (Shape(hidden=101, inter=203, layers=2, heads=8, kv_heads=4, head_dim=64, vocab=257), {"dtype": "f32"}),
}
DTYPES = ("f32", "bf16", "q8", "q4")
# Each is asked for by name, so that these small models are computed as large ones.
LEVELS = [isa for isa in reversed(e2e.LEVELS) if has_level(isa)]
STRATEGIES = ("headwise", "sequence", "hybrid")
ALGORITHMS = ("standard", "online_softmax")
FEW = 3  # ranks
# What chat reads beside the weights and config.json.
COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


def logits(folder, ranks, model, *arguments):
    """The bytes that qwen3 logits writes, and the outcome."""
    output = folder / "logits"
    output.unlink(missing_ok=True)
    outcome = run(ranks, "qwen3", "logits", "--model", model, "--output", output, "--all", *arguments)
    return output.read_bytes() if outcome.ok else b"", outcome


def endless_layouts(random):
    """(ranks, strategy), each as often as any other; each strategy meets one number of many ranks, which take long."""
    few, many = [n for n in RANKS if n <= FEW], [n for n in RANKS if n > FEW]
    while True:
        random.shuffle(many)
        layouts = list(itertools.product(few, STRATEGIES)) + list(zip(many, STRATEGIES))
        random.shuffle(layouts)
        yield from layouts


def check_same(checks, folder, random):
    layouts = endless_layouts(random)
    for name, (shape, options) in MODELS.items():
        source = folder / name
        make_checkpoint.make_checkpoint(source, shape, **options)
        for companion in COMPANIONS:
            (source / companion).write_text(f'{{"file": "{companion}"}}')
        for dtype in DTYPES:
            packed_for = LEVELS[random.randint(len(LEVELS))]
            packed = folder / f"{name}-{dtype}"
            outcome = run(1, "qwen3", "pack", "--model", source, "--dtype", dtype, "--isa", packed_for, "--output",
                          packed)
            if not checks.true(f"pack {name} {dtype}", outcome.ok, outcome):
                continue
            for companion in ("config.json", *COMPANIONS):
                checks.true(f"{companion} is copied", (packed / companion).is_file() and
                            (packed / companion).read_bytes() == (source / companion).read_bytes())
            for ranks, strategy in itertools.product(RANKS, STRATEGIES) if FULL else itertools.islice(layouts, 1):
                level = packed_for if random.randint(2) else LEVELS[random.randint(len(LEVELS))]
                arguments = ["--tokens", ",".join(map(str, random.randint(257, size=random.randint(2, 40)))),
                             "--decode-from", 2, "--parallel-strategy", strategy, "--attention-algo",
                             ALGORITHMS[random.randint(2)], "--isa", level]
                what = f"{name} {dtype} packed for {packed_for}: {ranks} ranks {' '.join(map(str, arguments))}"
                expected, outcome = logits(folder, ranks, source, "--dtype", dtype, *arguments)
                checks.true(f"{what}: checkpoint", outcome.ok and expected, outcome)
                got, outcome = logits(folder, ranks, packed, *arguments)
                checks.true(what, outcome.ok and got == expected, outcome)
        # A packed model can be packed again, for another level.
        again = folder / f"{name}-again"
        outcome = run(1, "qwen3", "pack", "--model", folder / f"{name}-q4", "--dtype", "q4", "--isa", "c", "--output",
                      again)
        checks.true(f"{name}: packing a packed model", outcome.ok, outcome)
        arguments = ("--tokens", "1,2,3", "--isa", LEVELS[-1])
        checks.true(f"{name}: packed twice", logits(folder, 1, again, *arguments)[0] ==
                    logits(folder, 1, source, "--dtype", "q4", *arguments)[0])


def mix64(z):
    """The finaliser of SplitMix64 (src/base/random.h)."""
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & 2**64 - 1
    z = (z ^ z >> 27) * 0x94d049bb133111eb & 2**64 - 1
    return z ^ z >> 31


def checksum(data):
    """src/io/checksum.h, as digits."""
    steps = np.frombuffer(data + bytes(-len(data) % 64), "<u4").reshape(-1, 16).astype(np.uint64)
    a = steps.sum(axis=0) % 2**32
    b = (steps * np.arange(len(steps), 0, -1, dtype=np.uint64)[:, None] % 2**32).sum(axis=0) % 2**32
    value = mix64(len(data))
    for lane in range(16):
        value = mix64(value + (int(b[lane]) << 32 | int(a[lane])) & 2**64 - 1)
    return f"{value:016x}"


HEADER = b'{"__metadata__":{"header_checksum":"'
CHUNK = 16 << 20


def tensors(fields):
    """(name, begin, end) in the order of the data."""
    offsets = {name: value["data_offsets"] for name, value in fields.items() if name != "__metadata__"}
    return sorted(((name, *place) for name, place in offsets.items()), key=lambda tensor: tensor[1])


def data_checksums(fields, body):
    return "".join(checksum(body[at:min(at + CHUNK, end)]) for _, begin, end in tensors(fields)
                   for at in range(begin, end, CHUNK))


def parts(model):
    """The header as an object and the data of a packed file."""
    old = (model / "packed.safetensors").read_bytes()
    length = struct.unpack("<Q", old[:8])[0]
    return json.loads(old[8:8 + length]), old[8 + length:]


def write(model, fields, body, pad=0):
    """A packed file with the checksum of its header."""
    fields["__metadata__"]["header_checksum"] = "0" * 16
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 4096 + pad)
    text = struct.pack("<Q", len(text)) + text
    at = 8 + len(HEADER)
    assert text[8:at] == HEADER
    (model / "packed.safetensors").write_bytes(text[:at] + checksum(text).encode() + text[at + 16:] + body)


def rewrite(model, header=None, data=None):
    """Changes the header (an object) or the data of a packed file, whose checksums are right again."""
    fields, body = parts(model)
    if header:
        header(fields)
    if data:
        body = data(body)
        fields["__metadata__"]["data_checksums"] = data_checksums(fields, body)
    write(model, fields, body)


def metadata(key, value):
    return lambda model: rewrite(model, header=lambda fields: fields["__metadata__"].__setitem__(key, value))


def change_config(model):
    config = json.loads((model / "config.json").read_text())
    config["rope_theta"] = 12345.0
    (model / "config.json").write_text(json.dumps(config))


def shift(model):
    """Data that are not aligned."""
    write(model, *parts(model), pad=64)


def exchange_sizes(model):
    """Two tensors of unlike sizes under each other's names."""
    def swap(fields):
        a, b = "model.layers.0.self_attn.k_proj.weight", "model.layers.0.mlp.up_proj.weight"
        fields[a], fields[b] = fields[b], fields[a]
    rewrite(model, header=swap)


def drop(model):
    """A tensor under another name."""
    rewrite(model, header=lambda fields: fields.__setitem__("x", fields.pop("model.layers.1.self_attn.k_proj.weight")))


FAULTS = {  # what is done to a good packed model, and words of the message
    "truncated": (lambda m: rewrite(m, data=lambda body: body[:-5000]), ["packed.safetensors"]),
    "too long": (lambda m: rewrite(m, data=lambda body: body + b"x"), ["packed.safetensors"]),
    "version": (metadata("format", "qwen3-packed-1"), ["format", "pack the model again"]),
    "no checksum": (lambda m: rewrite(m, header=lambda fields: fields["__metadata__"].pop("data_checksums")),
                    ["data_checksums"]),
    "dtype": (metadata("dtype", "q5"), ["dtype", "q5"]),
    "other dtype": (metadata("dtype", "q4"), ["bytes"]),
    "no height": (metadata("nr", ""), ["nr"]),
    "negative height": (metadata("nr", "-16"), ["nr", "-16"]),
    "odd height": (metadata("nr", "48"), ["nr", "48"]),
    "great height": (metadata("nr", "128"), ["nr", "128"]),
    "config.json": (change_config, ["config.json", "12345"]),
    "alignment": (shift, ["4096"]),
    "sizes": (exchange_sizes, ["bytes"]),
    "missing": (drop, ["model.layers.1.self_attn.k_proj.weight", "missing"]),
}


def refused(checks, what, outcome, *words):
    checks.true(f"{what} is refused", outcome.code not in (0, None) and outcome.code > 0, outcome)
    for word in words:
        checks.true(f"{what}: the message has {word!r}", word in outcome.err, outcome)


def check_refusals(checks, folder):
    source = folder / "source"
    make_checkpoint.make_checkpoint(source, Shape(layers=2), "bf16")
    pack = ("pack", "--model", source, "--dtype", "q8", "--output")
    good = folder / "good"
    checks.true("packed", run(max(RANKS), "qwen3", *pack, good).ok)
    checks.true("the good one runs", logits(folder, 1, good, "--tokens", "1,2")[0])
    for number, (name, (fault, words)) in enumerate(FAULTS.items()):
        packed = folder / name.replace(" ", "-")
        shutil.copytree(good, packed)
        fault(packed)
        for ranks in RANKS if FULL else RANKS[:2] if number % 3 == 0 else RANKS[:1]:
            refused(checks, name, logits(folder, ranks, packed, "--tokens", "1,2")[1], *words)
    before = (good / "packed.safetensors").read_bytes()
    refused(checks, "an existing target", run(max(RANKS), "qwen3", *pack, good), "good", "exists")
    checks.true("an existing target stays", (good / "packed.safetensors").read_bytes() == before)
    refused(checks, "another dtype", logits(folder, max(RANKS), good, "--tokens", "1", "--dtype", "bf16")[1], "bf16",
            "packed as q8")
    outcome = run(max(RANKS[:2]), "benchmark_qwen3", "--model", good, "--verify", "--prompt-len", 4, "--gen-len", 1)
    refused(checks, "--verify of another type than its reference", outcome, "--verify", "f32", "packed as q8")
    refused(checks, "packing as another dtype", run(1, "qwen3", "pack", "--model", good, "--dtype", "q4", "--output",
                                                    folder / "x"), "q4", "packed as q8")
    refused(checks, "synthetic weights", run(1, "qwen3", "pack", "--model", "synthetic:tiny", "--output", folder / "x"),
            "synthetic:tiny")
    refused(checks, "no parent", run(1, "qwen3", *pack, folder / "none" / "x"), "none/x")
    # UCX, below MPICH, keeps its shared memory in files, which the limit would forbid too: one rank needs none.
    outcome = run(1, "/bin/bash", "-c", "trap '' XFSZ; ulimit -f 50; UCX_TLS=self exec \"$@\"", "bash", BIN / "qwen3",
                  *pack, folder / "x")
    refused(checks, "a full disk", outcome, "packed.safetensors", "cannot write")
    checks.true("nothing is left of what failed", not list(folder.glob("x*")), list(folder.glob("x*")))
    outcome = run(1, "qwen3", "info", "--model", good)
    checks.true("info", outcome.ok and "packed as            q8" in outcome.out, outcome)


def check_checksums(checks, folder, random):
    """A bit that flips anywhere in the file is refused, and in data its tensor is named."""
    source, packed = folder / "whole", folder / "flipped"
    make_checkpoint.make_checkpoint(source, Shape(hidden=96, inter=101, layers=2, heads=6, kv_heads=2, head_dim=32,
                                                  vocab=257), "bf16")
    checks.true("packed", run(1, "qwen3", "pack", "--model", source, "--dtype", "q4", "--output", packed).ok)
    fields, body = parts(packed)
    path = packed / "packed.safetensors"
    whole = path.read_bytes()
    begin = len(whole) - len(body)
    checks.true("the checksums of the data", fields["__metadata__"]["data_checksums"] == data_checksums(fields, body))
    write(packed, fields, body)
    checks.true("the checksum of the header", path.read_bytes() == whole)
    # Headers are small: as many bits of them as of data.
    places = [*random.randint(begin, size=30), *random.randint(begin, len(whole), size=30)]
    for at, bit in zip(map(int, places), random.randint(8, size=len(places))):
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        named = [name for name, first, end in tensors(fields) if first <= at - begin < end]
        ranks = RANKS[random.randint(min(2, len(RANKS)))]
        outcome = logits(folder, ranks, packed, "--tokens", "1,2")[1]
        refused(checks, f"bit {bit} of byte {at}, {named or 'the header'}", outcome, "packed.safetensors", *named)
    outcome = run(1, "qwen3", "pack", "--model", packed, "--output", folder / "again")
    refused(checks, "packing a damaged model again", outcome, "packed.safetensors", *named)


def check_not_a_number(checks, folder, random):
    """Weights that are not numbers give no logits and no text, at no level and in no type."""
    source = folder / "numbers"
    make_checkpoint.make_checkpoint(source, Shape(hidden=128, inter=192, layers=2, heads=4, kv_heads=2, head_dim=64,
                                                  vocab=257), "bf16")
    for dtype, level in itertools.product(DTYPES, LEVELS):
        packed = folder / f"nan-{dtype}-{level}"
        run(1, "qwen3", "pack", "--model", source, "--dtype", dtype, "--isa", level, "--output", packed)
        _, begin, end = next(t for t in tensors(parts(packed)[0]) if t[0] == "model.layers.0.self_attn.q_proj.weight")
        rewrite(packed, data=lambda body: body[:begin] + b"\xff" * (end - begin) + body[end:])
        for tokens in ("1,2", ",".join(map(str, range(1, 41)))):
            kv_type = ("f32", "bf16", "q8")[random.randint(3)]
            outcome = logits(folder, 1, packed, "--tokens", tokens, "--isa", level, "--kv-dtype", kv_type)[1]
            refused(checks, f"NaN in {dtype} at {level}, keys in {kv_type}, tokens {tokens}", outcome,
                    "a logit is not a number")
    outcome = logits(folder, max(RANKS[:2]), packed, "--tokens", "1,2,3", "--parallel-strategy", "sequence")[1]
    refused(checks, "NaN on ranks", outcome, "a logit is not a number")


def main():
    checks, random = Checks(), rng()
    with scratch() as folder:
        check_same(checks, folder, random)
        check_refusals(checks, folder)
        check_checksums(checks, folder, random)
        check_not_a_number(checks, folder, random)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
