#!/usr/bin/env python3
"""Checkpoints of FP8 in blocks of 128 x 128, whose edges are no multiples of them, beside the float64 reference: types,
strategies and ranks whose shares begin inside a block; packed; what is refused."""
import json
import struct

import numpy as np

from e2e import RANKS, Checks, relative_l2, run, scratch

import make_checkpoint
import reference

SHAPE = make_checkpoint.Shape(hidden=160, inter=208, layers=2, heads=6, kv_heads=3, head_dim=32, vocab=300, tied=False)
TOKENS = [5, 17, 299, 0, 3, 3, 120, 44, 81]
LIMITS = {"f32": 2e-5, "bf16": 3e-2, "q8": 5e-2}
QUANTIZED = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
             "modules_to_not_convert": ["lm_head"]}


def nearest_codes(values):
    """The codes of the finite E4M3 values that are nearest."""
    codes = np.array([c for c in range(256) if c & 127 != 127])
    table = reference.widen(codes.astype("u1"), "F8_E4M3")
    order = np.argsort(table, kind="stable")
    places = np.searchsorted((table[order][1:] + table[order][:-1]) / 2, values)
    return codes[order][places].astype("u1")


def to_fp8(directory, scale_type="BF16"):
    """Matrices of layers become F8 with scales, as in published checkpoints; the rest stays."""
    path = directory / "model.safetensors"
    header, data = {}, b""

    def add(name, dtype, array):
        nonlocal data
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data),
                                                                                    len(data) + array.nbytes]}
        data += array.tobytes()

    for name, (dtype, stored) in reference.read_safetensors(path).items():
        if "_proj" not in name:
            add(name, dtype, np.array(stored))
            continue
        values = reference.widen(stored, dtype)
        blocks = [-(-n // 128) for n in values.shape]
        padded = np.zeros([128 * n for n in blocks])
        padded[: values.shape[0], : values.shape[1]] = values
        scales = np.abs(padded.reshape(blocks[0], 128, blocks[1], 128)).max(axis=(1, 3)) / 448
        scales = reference.round_to_bf16(scales) if scale_type == "BF16" else scales.astype("<f4").astype(float)
        spread = np.repeat(np.repeat(scales, 128, 0), 128, 1)[: values.shape[0], : values.shape[1]]
        add(name, "F8_E4M3", nearest_codes(values / spread))
        bits = np.ascontiguousarray(scales, dtype="<f4")
        add(name + "_scale_inv", scale_type, (bits.view("<u4") >> 16).astype("<u2") if scale_type == "BF16" else bits)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    set_config(directory, quantization_config=QUANTIZED)


def set_config(directory, **values):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def logits(ranks, directory, output, *options):
    output.unlink(missing_ok=True)
    outcome = run(ranks, "qwen3", "logits", "--model", directory, "--tokens", ",".join(map(str, TOKENS)), "--all",
                  "--output", output, *options)
    return (np.fromfile(output, "<f4").reshape(len(TOKENS), -1) if outcome.ok else None), outcome


def check(checks, directory, output, expected):
    for dtype, limit in LIMITS.items():
        for ranks in RANKS:
            for strategy in ("headwise", "sequence") if dtype == "f32" else ("headwise",):
                got, outcome = logits(ranks, directory, output, "--dtype", dtype, "--kv-dtype", "f32",
                                      "--parallel-strategy", strategy)
                error = relative_l2(got, expected) if got is not None else np.inf
                checks.true(f"{directory.name} {dtype} {strategy} on {ranks} ranks: {error}", error < limit, outcome)


def main():
    checks = Checks()
    with scratch() as directory:
        model, output = directory / "model", directory / "logits"
        for scale_type in ("F32", "BF16"):
            make_checkpoint.make_checkpoint(model, SHAPE, "bf16", seed=3)
            plain = reference.forward(model, TOKENS)
            to_fp8(model, scale_type)
            expected = reference.forward(model, TOKENS)
            checks.true("quantised", 1e-3 < relative_l2(expected, plain) < 0.3, relative_l2(expected, plain))
            got, outcome = logits(1, model, output, "--dtype", "f32", "--kv-dtype", "f32")
            checks.true(f"scales of type {scale_type}", got is not None and relative_l2(got, expected) < 2e-5, outcome)
        check(checks, model, output, expected)
        outcome = run(1, "qwen3", "info", "--model", model)
        checks.true("info names the type", "14 F8_E4M3" in outcome.out, outcome)
        outcome = run(1, "qwen3", "pack", "--model", model, "--output", directory / "packed", "--dtype", "f32")
        got, outcome = logits(1, directory / "packed", output, "--kv-dtype", "f32") if outcome.ok else (None, outcome)
        checks.true("packed", got is not None and relative_l2(got, expected) < 2e-5, outcome)
        raw = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(raw.replace(b"_scale_inv", b"_scale_xyz"))
        got, outcome = logits(1, model, output)
        checks.true("no scales", outcome.code == 2 and "has no scales" in outcome.err, outcome)
        for what, words in (({"quant_method": "bitsandbytes"}, "quant_method"), ({**QUANTIZED, "fmt": "e5m2"}, "fmt"),
                            ({**QUANTIZED, "weight_block_size": [64, 64]}, "weight_block_size")):
            set_config(model, quantization_config=what)
            got, outcome = logits(1, model, output)
            checks.true(f"refused {what}", outcome.code == 2 and words in outcome.err, outcome)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
