#!/usr/bin/env python3
"""The float64 reference and the checkpoint maker against independent calculations: each step by naive
loops or complex numbers, a whole model in scalar Python from the raw bytes, identities that hold for any
weights, and the stored golden logits.

QWEN3_MODEL_GOLDEN=DIR: checkpoints DIR/*, each with token ids and logits.f32 of another implementation, are compared as
well."""
import cmath
import dataclasses
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

from e2e import DATA, TOOLS, Checks, rng, scratch

import make_checkpoint
import reference

SMALL = make_checkpoint.Shape(hidden=12, inter=10, layers=2, heads=4, kv_heads=2, head_dim=8, vocab=17, tied=False)


def close(a, b, tolerance=1e-12):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return a.shape == b.shape and np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())


def bf16_of_bits(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def check_number_formats(checks, random):
    bits = random.randint(0, 1 << 16, 2000)
    bits = bits[(bits & 0x7F80) != 0x7F80]
    checks.true("BF16 widens to the F32 with the same upper bits",
                np.array_equal(reference.widen(bits.astype("<u2"), "BF16"), [bf16_of_bits(int(b)) for b in bits]))
    x = random.standard_normal(2000).astype("<f4").astype(np.float64)
    below = [bf16_of_bits(struct.unpack("<I", struct.pack("<f", v))[0] >> 16) for v in x]
    above = [bf16_of_bits((struct.unpack("<I", struct.pack("<f", v))[0] >> 16) + 1) for v in x]
    nearest = [lo if abs(v - lo) <= abs(hi - v) else hi for v, lo, hi in zip(x, below, above)]
    checks.true("rounding to BF16 takes the nearer neighbour", np.array_equal(reference.round_to_bf16(x), nearest))
    ties = [1 + 2.0**-8, 1 + 3 * 2.0**-8]
    checks.true("ties go to the even one", np.array_equal(reference.round_to_bf16(ties), [1.0, 1 + 2.0**-6]))
    stored = make_checkpoint.encode(x, "bf16")
    checks.true("the maker stores the same BF16",
                np.array_equal(reference.widen(np.frombuffer(stored, "<u2"), "BF16"), nearest))


def check_steps(checks, random):
    x, w = random.standard_normal((5, 16)), random.standard_normal(16)
    naive = [[v * u / math.sqrt(math.fsum(t * t for t in row) / 16 + 1e-6) for v, u in zip(row, w)] for row in x]
    checks.true("rms_norm by loops", close(reference.rms_norm(x, w, 1e-6), naive))

    values = [-800.0, -30.0, -1.0, 0.0, 0.5, 40.0, 800.0]
    naive = [v / (1 + math.exp(-v)) if v > -700 else 0.0 for v in values]
    checks.true("silu by its definition, no overflow", close(reference.silu(np.array(values)), naive))

    x, positions, frequencies = random.standard_normal((3, 2, 8)), np.array([0.0, 7.0, 1000.0]), 10.0 ** -np.arange(4.0)
    turned = reference.rotate(x, positions, frequencies, 1.0)
    naive = np.empty_like(x)
    for t, head, i in np.ndindex(3, 2, 4):
        z = complex(x[t, head, i], x[t, head, i + 4]) * cmath.exp(1j * positions[t] * frequencies[i])
        naive[t, head, i], naive[t, head, i + 4] = z.real, z.imag
    checks.true("rotate is a complex multiplication of pairs (i, i + d/2)", close(turned, naive))
    q, k = random.standard_normal((2, 1, 1, 8))
    dots = [np.sum(reference.rotate(q, np.array([p + 5.0]), frequencies, 1.0) *
                   reference.rotate(k, np.array([p + 0.0]), frequencies, 1.0)) for p in (0, 3, 900)]
    checks.true("rotated dot products depend on the distance only", close(dots, [dots[0]] * 3, 1e-11))

    q, k, v = random.standard_normal((6, 4, 8)), random.standard_normal((6, 2, 8)), random.standard_normal((6, 2, 8))
    checks.true("attention by loops", close(reference.attention(q, k, v), naive_attention(q, k, v)))
    checks.true("attention survives scores of 1e4",
                close(reference.attention(q * 1e4, k, v), naive_attention(q * 1e4, k, v), 1e-9))


def check_router(checks):
    scores = np.log(np.array([[2.0, 4.0, 1.0, 4.0, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0]]))
    best, weights = reference.route(np.eye(2), scores.T, 3, False)
    checks.true("of equal experts the first", np.array_equal(best, [[1, 3, 0], [0, 1, 2]]))
    checks.true("weights are shares of all", close(weights, [[4 / 13, 4 / 13, 2 / 13], [0.2, 0.2, 0.2]]))
    weights = reference.route(np.eye(2), scores.T, 3, True)[1]
    checks.true("or of the chosen", close(weights, [[0.4, 0.4, 0.2], [1 / 3] * 3]))


def check_published(checks):
    """Checkpoints with logits of the published implementation, where there are some: DIR/*/logits.f32 and ids."""
    for file in sorted(Path(os.environ.get("QWEN3_MODEL_GOLDEN", "/nonexistent")).glob("*/logits.f32")):
        ids = [int(word) for word in (file.parent / "ids").read_text().replace(",", " ").split()]
        now, stored = reference.forward(file.parent, ids), np.fromfile(file, "<f4")
        checks.true(f"{file.parent.name}: published logits", close(now, stored.reshape(now.shape), 1e-6))


def naive_attention(q, k, v):
    tokens, heads, d = len(q), len(q[0]), len(q[0][0])
    group = heads // len(k[0])
    out = np.zeros((tokens, heads, d))
    for t in range(tokens):
        for head in range(heads):
            scores = [math.fsum(a * b for a, b in zip(q[t][head], k[s][head // group])) / math.sqrt(d)
                      for s in range(t + 1)]
            weights = [math.exp(score - max(scores)) for score in scores]
            for i in range(d):
                weighted = math.fsum(weight * v[s][head // group][i] for s, weight in enumerate(weights))
                out[t, head, i] = weighted / math.fsum(weights)
    return out


def check_yarn(checks, directory):
    """Against the algorithm of the paper, one pair at a time; the published setting: factor 4, 32768."""
    yarn = {"factor": 4.0, "original_max_position_embeddings": 32768}
    shape = dataclasses.replace(SMALL, head_dim=128, yarn=yarn)
    for form in (False, True):
        make_checkpoint.make_checkpoint(directory, dataclasses.replace(shape, rope_parameters=form))
        frequencies, factor = reference.rope_frequencies(reference.Config(directory))
        expected = []
        low = math.floor(128 * math.log(32768 / (32 * 2 * math.pi)) / (2 * math.log(1e6)))
        high = math.ceil(128 * math.log(32768 / (1 * 2 * math.pi)) / (2 * math.log(1e6)))
        for i in range(64):
            plain = 1e6 ** (-2 * i / 128)
            share = min(max((i - low) / (high - low), 0.0), 1.0)
            expected.append((1 - share) * plain + share * plain / 4)
        checks.true(f"YaRN frequencies, rope_parameters {form}",
                    close(frequencies, expected) and close(factor, 0.1 * math.log(4) + 1)
                    and frequencies[0] == 1.0 and close(frequencies[-1] * 4, 1e6 ** (-126 / 128)))


def scalar_forward(directory, tokens):
    """The whole model in scalar Python on lists, from the file's bytes (F32, one file, not tied)."""
    config = json.loads((directory / "config.json").read_text())
    raw = (directory / "model.safetensors").read_bytes()
    start = 8 + struct.unpack_from("<Q", raw)[0]
    header = json.loads(raw[8:start])

    def get(name):
        info = header[name]
        begin, end = info["data_offsets"]
        flat = struct.unpack(f"<{(end - begin) // 4}f", raw[start + begin : start + end])
        if len(info["shape"]) == 1:
            return list(flat)
        cols = info["shape"][1]
        return [list(flat[r * cols : (r + 1) * cols]) for r in range(info["shape"][0])]

    def times(matrix, x):
        return [math.fsum(a * b for a, b in zip(row, x)) for row in matrix]

    def norm(x, w):
        inverse = 1 / math.sqrt(math.fsum(v * v for v in x) / len(x) + config["rms_norm_eps"])
        return [v * inverse * u for v, u in zip(x, w)]

    d = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])

    def heads(x, w, position):
        rotated = []
        for begin in range(0, len(x), d):
            part = norm(x[begin : begin + d], w) if w else x[begin : begin + d]
            z = [complex(part[i], part[i + d // 2]) * cmath.exp(1j * position / config["rope_theta"] ** (2 * i / d))
                 for i in range(d // 2)]
            rotated.append([c.real for c in z] + [c.imag for c in z])
        return rotated

    rows = [get("model.embed_tokens.weight")[token] for token in tokens]
    for n in range(config["num_hidden_layers"]):
        w = {name.split(".", 3)[3].removesuffix(".weight"): get(name) for name in header
             if name.startswith(f"model.layers.{n}.")}
        normed = [norm(x, w["input_layernorm"]) for x in rows]

        def project(letter, y):
            z = times(w[f"self_attn.{letter}_proj"], y)
            bias = w.get(f"self_attn.{letter}_proj.bias")
            return [a + b for a, b in zip(z, bias)] if bias else z

        q = [heads(project("q", y), w.get("self_attn.q_norm"), t) for t, y in enumerate(normed)]
        k = [heads(project("k", y), w.get("self_attn.k_norm"), t) for t, y in enumerate(normed)]
        v = np.array([project("v", y) for y in normed]).reshape(len(rows), -1, d)
        o = naive_attention(q, k, v).reshape(len(rows), -1)
        rows = [[a + b for a, b in zip(x, times(w["self_attn.o_proj"], y))] for x, y in zip(rows, o)]

        def network(name, y, weight):
            gates, ups = times(w[f"{name}.gate_proj"], y), times(w[f"{name}.up_proj"], y)
            gated = [weight * g / (1 + math.exp(-g)) * u for g, u in zip(gates, ups)]
            return times(w[f"{name}.down_proj"], gated)

        for t, x in enumerate(rows):
            y = norm(x, w["post_attention_layernorm"])
            if "mlp.gate" not in w:
                rows[t] = [a + b for a, b in zip(x, network("mlp", y, 1.0))]
                continue
            p = [math.exp(score) for score in times(w["mlp.gate"], y)]
            p = [value / math.fsum(p) for value in p]
            best = sorted(range(len(p)), key=lambda e: (-p[e], e))[: config["num_experts_per_tok"]]
            total = math.fsum(p[e] for e in best) if config["norm_topk_prob"] else 1.0
            for e in best:
                rows[t] = [a + b for a, b in zip(rows[t], network(f"mlp.experts.{e}", y, p[e] / total))]
    return [times(get("lm_head.weight"), norm(x, get("model.norm.weight"))) for x in rows]


def check_model(checks, directory):
    tokens = [3, 10, 0, 3, 7]
    make_checkpoint.make_checkpoint(directory / "a", SMALL, "f32", seed=5)
    logits = reference.forward(directory / "a", tokens)
    checks.true("whole model against scalar Python", close(logits, scalar_forward(directory / "a", tokens)))
    for model_type, head_dim in (("qwen2", 4), ("qwen2", 8), ("llama", 4)):  # 4: not said in config.json
        shape = dataclasses.replace(SMALL, model_type=model_type, head_dim=head_dim, hidden=16)
        other = directory / f"{model_type}-{head_dim}"
        make_checkpoint.make_checkpoint(other, shape, "f32", seed=5)
        checks.true(f"{model_type} against scalar Python",
                    close(reference.forward(other, tokens), scalar_forward(other, tokens)))
    for label, changes in (("", {}), (" with dense layers", {"layers": 4, "sparse_step": 2, "dense_layers": (3,)}),
                           (", weights as they are", {"norm_topk": False, "local_experts": True, "chosen": 5})):
        shape = dataclasses.replace(SMALL, model_type="qwen3_moe", experts=6, moe_inter=7, **changes)
        other = directory / f"moe{len(label)}"
        make_checkpoint.make_checkpoint(other, shape, "f32", seed=5)
        checks.true(f"experts{label} against scalar Python",
                    close(reference.forward(other, tokens), scalar_forward(other, tokens)))
    checks.true("attention matters: the same token at two positions differs",
                not close(logits[0], logits[3], 1e-2))
    checks.true("causal: the past does not see the future",
                close(reference.forward(directory / "a", tokens[:3]), logits[:3]))
    checks.true("last position alone", close(reference.forward(directory / "a", tokens, False), logits[-1:]))

    make_checkpoint.make_checkpoint(directory / "b", SMALL, "f32", shards=7, seed=5)
    checks.true("shards change nothing", np.array_equal(reference.forward(directory / "b", tokens), logits))
    make_checkpoint.make_checkpoint(directory / "b16", SMALL, "bf16", seed=5)
    narrow = reference.Checkpoint(directory / "b16")
    rounded = reference.Checkpoint(directory / "a", bf16_weights=True)
    checks.true("a BF16 checkpoint is the F32 one, rounded",
                all(np.array_equal(narrow.get(name, shape), rounded.get(name, shape))
                    for name, (shape, std) in make_checkpoint.tensor_shapes(SMALL).items() if std))

    tied = dataclasses.replace(SMALL, tied=True)
    make_checkpoint.make_checkpoint(directory / "tied", tied, "f32", seed=5, lm_head=True)
    weights = reference.Checkpoint(directory / "tied")
    embed, head = (weights.get(name, (17, 12)) for name in ("model.embed_tokens.weight", "lm_head.weight"))
    hidden = np.linalg.lstsq(head, logits.T, rcond=None)[0]  # the same model but for the head
    checks.true("tied: the embedding is the head although lm_head is stored",
                close(reference.forward(directory / "tied", tokens), (embed @ hidden).T, 1e-9))


def check_layout(checks, directory):
    """What a reader of published checkpoints relies on."""
    make_checkpoint.make_checkpoint(directory, SMALL, "bf16", shards=2, seed=5)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    total, seen, aligned = 0, {}, True
    for file in sorted(directory.glob("*.safetensors")):
        raw = file.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header, offset = json.loads(raw[8 : 8 + length]), 0
        aligned &= length % 8 == 0 and header.pop("__metadata__") == {"format": "pt"}
        for name, info in header.items():
            aligned &= info["data_offsets"][0] == offset and info["dtype"] == "BF16"
            offset = info["data_offsets"][1]
            aligned &= offset - info["data_offsets"][0] == 2 * math.prod(info["shape"])
            seen[name] = file.name
        aligned &= len(raw) == 8 + length + offset
        total += offset
    checks.true("offsets follow each other, headers are padded", aligned)
    checks.true("the index names every tensor and the size",
                index == {"metadata": {"total_size": total}, "weight_map": seen} and len(seen) == 3 + 11 * SMALL.layers)


def check_command_line(checks, directory):
    make_checkpoint.make_checkpoint(directory, SMALL, "bf16", seed=5)
    (directory / "ids").write_text("3, 10\n0,3 7\n")
    expected = reference.forward(directory, [3, 10, 0, 3, 7]).astype("<f4")

    def call(*options):
        return subprocess.run([sys.executable, TOOLS / "reference.py", "--model", directory, *options],
                              capture_output=True, timeout=60)

    done = call("--tokens", f"@{directory / 'ids'}", "--all", "--output", "-")
    checks.true("--tokens @FILE --all to standard output", done.stdout == expected.tobytes(), done.stderr)
    done = call("--tokens", "3,10,0,3,7", "--decode-from", "2", "--output", directory / "last.f32")
    checks.true("the last row to a file", (directory / "last.f32").read_bytes() == expected[-1].tobytes(), done.stderr)
    for options, culprit in ((["--tokens", "3,17"], b"token 17"), (["--tokens", "-1"], b"--tokens"),
                             (["--tokens", "3", "--decode-from", "2"], b"--decode-from")):
        done = call(*options, "--output", "-")
        checks.true(f"refused: {' '.join(options)}", done.returncode and culprit in done.stderr and not done.stdout)


def check_golden(checks, directory):
    for golden in sorted(DATA.glob("golden-*")):
        made = directory / golden.name
        subprocess.run([golden / "make.sh", TOOLS, made], check=True, timeout=60,
                       env={**os.environ, "PYTHON": sys.executable})
        stored, now = (np.fromfile(d / "logits.f32", "<f4") for d in (golden, made))
        checks.true(f"{golden.name} is reproduced", close(now, stored, 1e-6))


def main():
    checks, random = Checks(), rng()
    check_number_formats(checks, random)
    check_steps(checks, random)
    check_router(checks)
    check_published(checks)
    with scratch() as directory:
        check_yarn(checks, directory / "yarn")
        check_model(checks, directory / "model")
        check_layout(checks, directory / "layout")
        check_command_line(checks, directory / "line")
        check_golden(checks, directory / "golden")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
