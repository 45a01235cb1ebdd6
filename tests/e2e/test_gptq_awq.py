#!/usr/bin/env python3
"""Checkpoints of GPTQ and AWQ: every value is the one that the format defines, so that a checkpoint of these values in
F32 gives the same bits, expanded or kept in groups; beside the float64 reference for types, strategies and ranks whose
shares begin inside a group; mixtures of experts; packed; what info says that they need."""
import json
import re
import struct

import numpy as np

from e2e import RANKS, Checks, best_level, check_memory, relative_l2, run, scratch

import make_checkpoint
import reference

SHAPE = make_checkpoint.Shape(hidden=160, inter=208, layers=2, heads=6, kv_heads=3, head_dim=32, vocab=300, tied=False)
MOE = make_checkpoint.Shape(hidden=96, inter=104, layers=2, heads=6, kv_heads=3, head_dim=32, vocab=300, tied=False,
                            model_type="qwen3_moe", experts=5, chosen=2, moe_inter=72)
# Heads of 64: ranks split groups of 128.
TIED = make_checkpoint.Shape(hidden=256, inter=640, layers=2, heads=6, kv_heads=3, head_dim=64, vocab=300, tied=True)
WIDE_MOE = make_checkpoint.Shape(hidden=128, inter=128, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=300,
                                 tied=False, model_type="qwen3_moe", experts=5, chosen=2, moe_inter=192)
TOKENS = [5, 17, 299, 0, 3, 3, 120, 44, 81]
LIMITS = {"f32": 2e-5, "bf16": 3e-2, "q8": 5e-2}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 48, "sym": True, "desc_act": False,
        "checkpoint_format": "gptq", "pack_dtype": "int32", "meta": {"quantizer": ["gptqmodel:2.2.0"]}}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True,
       "modules_to_not_convert": ["self_attn.k_proj"], "backend": "autoawq"}
FORMS = {  # name: (quantization_config, type of scales, shape)
    "gptq": (GPTQ, "F16", SHAPE),
    "gptq-all": ({**GPTQ, "group_size": -1, "sym": False}, "BF16", SHAPE),
    "gptq-order": ({**GPTQ, "desc_act": True}, "F16", SHAPE),
    "gptq-8": ({**GPTQ, "bits": 8, "checkpoint_format": "gptq_v2", "group_size": 16}, "F32", SHAPE),
    "gptq-moe": (GPTQ, "F16", MOE),
    "awq": (AWQ, "F16", SHAPE),
    "awq-all": ({**AWQ, "group_size": -1}, "BF16", SHAPE),
    "gptq-128": ({**GPTQ, "group_size": 128}, "F16", TIED),
    "gptq-64": ({**GPTQ, "group_size": 64, "sym": False}, "F16", WIDE_MOE),
    "gptq-f32": ({**GPTQ, "group_size": 32}, "F32", SHAPE),  # no scale that F16 has
}
# What matrices are held as without --dtype, where groups are kept. Those of 208 columns are no blocks of 32.
KEPT = {"gptq-all": {"G4_32", "bf16", "f32"}, "awq": {"G4_32", "bf16", "f32"}, "awq-all": {"G4_32", "bf16", "f32"},
        "gptq-128": {"G4_128", "bf16"}, "gptq-64": {"G4_32", "bf16"}}
# Rounding the inputs of products to 8 bits; a router may choose another expert where two are nearly equal.
EIGHT_BITS, OTHER_EXPERTS = 0.04, 0.3
NUMPY = {"F16": "<f2", "F32": "<f4"}


def pack(codes, bits, axis, order):
    """Codes along an axis into words of 32 bits: value order[i] of each run of them at place i."""
    per, codes = 32 // bits, np.moveaxis(codes, axis, -1).astype(np.uint32)
    words = np.zeros((*codes.shape[:-1], codes.shape[-1] // per), np.uint32)
    for place in range(per):
        words |= codes[..., (order[place] if order else place)::per] << np.uint32(bits * place)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis)).view("<i4")


def as_type(values, dtype):
    if dtype == "BF16":
        return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2")
    return np.ascontiguousarray(values, NUMPY[dtype])


def quantise(stem, weights, how, scale_type, random):
    """{name: (type, array)} of a matrix [out, in]; the zero points of asymmetric ones are anywhere."""
    awq, bits, (rows, cols) = how["quant_method"] == "awq", how["bits"], weights.shape
    size, most = how["group_size"] if how["group_size"] > 0 else cols, 2 ** how["bits"] - 1
    groups = np.arange(cols) // size
    if how.get("desc_act"):
        groups = random.permutation(groups)
    count = -(-cols // size)
    zeros = np.full((count, rows), 2 ** (bits - 1))
    if awq or not how["sym"]:
        zeros = random.randint(1, most + 1, (count, rows))
    scales = np.stack([np.abs(weights[:, groups == g]).max(1) for g in range(count)]) / (most / 2)
    scales = as_type(scales, scale_type)
    wide = reference.widen(scales, scale_type)
    codes = np.clip(np.rint(weights.T / wide[groups]) + zeros[groups], 0, most)
    stored = zeros - (not awq and how["checkpoint_format"] == "gptq")
    order = [0, 2, 4, 6, 1, 3, 5, 7] if awq else None
    tensors = {f"{stem}.qweight": ("I32", pack(codes, bits, 1 if awq else 0, order)),
               f"{stem}.qzeros": ("I32", pack(stored, bits, 1, order)), f"{stem}.scales": (scale_type, scales)}
    if not awq:
        tensors[f"{stem}.g_idx"] = ("I32", groups.astype("<i4"))
    return tensors


def write(path, tensors):
    header, data = {}, b""
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def set_config(directory, **values):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def make_model(directory, how, scale_type, shape, random):
    """The projections of layers are quantised, but for those of keys, as where modules_to_not_convert names them."""
    make_checkpoint.make_checkpoint(directory, shape, "bf16", seed=3)
    path, tensors = directory / "model.safetensors", {}
    for name, (dtype, stored) in reference.read_safetensors(path).items():
        if "_proj" in name and "k_proj" not in name:
            weights = reference.widen(stored, dtype)
            tensors |= quantise(name.removesuffix(".weight"), weights, how, scale_type, random)
        else:
            tensors[name] = (dtype, np.array(stored))
    write(path, tensors)
    set_config(directory, quantization_config=how)
    return tensors


def make_twin(directory, tensors, how):
    """The same values in F32."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    twin = directory.with_name(directory.name + "-f32")
    twin.mkdir()
    del config["quantization_config"]
    (twin / "config.json").write_text(json.dumps(config))
    plain = {}
    for name, (dtype, array) in tensors.items():
        stem, _, ending = name.rpartition(".")
        if ending == "qweight":
            plain[f"{stem}.weight"] = ("F32", np.ascontiguousarray(reference.in_groups(tensors, stem, how), "<f4"))
        elif ending not in ("qzeros", "scales", "g_idx"):
            plain[name] = (dtype, array)
    write(twin / "model.safetensors", plain)
    return twin


def logits(ranks, directory, *options):
    output = directory.with_name("logits")
    output.unlink(missing_ok=True)
    outcome = run(ranks, "qwen3", "logits", "--model", directory, "--tokens", ",".join(map(str, TOKENS)), "--all",
                  "--output", output, "--kv-dtype", "f32", *options)
    return (np.fromfile(output, "<f4").reshape(len(TOKENS), -1) if outcome.ok else None), outcome


def check_ranks(checks, directory, expected, strategy):
    for dtype in LIMITS:
        for ranks in RANKS if dtype == "f32" else RANKS[-1:]:
            got, outcome = logits(ranks, directory, "--dtype", dtype, "--parallel-strategy", strategy)
            error = relative_l2(got, expected) if got is not None else np.inf
            checks.true(f"{directory.name} {dtype} {strategy} on {ranks} ranks: {error}", error < LIMITS[dtype],
                        outcome)


def check_form(checks, directory, name, random):
    how, scale_type, shape = FORMS[name]
    model = directory / name
    tensors = make_model(model, how, scale_type, shape, random)
    twin = make_twin(model, tensors, how)
    got, outcome = logits(1, model, "--dtype", "f32")
    plain, _ = logits(1, twin, "--dtype", "f32")
    checks.true(f"{name}: the same bits as its values in F32", got is not None and np.array_equal(got, plain), outcome)
    expected = reference.forward(model, TOKENS)
    checks.true(f"{name}: reference", got is not None and relative_l2(got, expected) < LIMITS["f32"], outcome)
    if name in ("gptq-order", "awq"):
        check_ranks(checks, model, expected, "sequence" if name == "awq" else "headwise")
    outcome = run(1, "qwen3", "info", "--model", model)
    stored = "AWQ-4" if name.startswith("awq") else f"GPTQ-{how['bits']}"
    checks.true(f"{name}: info names the type", f" {stored}" in outcome.out, outcome)
    if name in KEPT:
        check_kept(checks, model, plain)
    else:
        _, outcome = logits(1, model)
        said = f"note: {stored} weights are rounded to bf16" in outcome.err
        checks.true(f"{name}: rounding is said", outcome.ok and said, outcome)
    return model, expected


def held_types(outcome):
    """Of matrices, as info says."""
    line = next((line for line in outcome.out.splitlines() if line.startswith("computed as")), "")
    return set(re.findall(r"\d+ (\w+)", line.partition(":")[2]))


def check_kept(checks, model, plain):
    """Without --dtype: computed with the values of the file, which are those of the twin."""
    name, kept, head_dim = model.name, KEPT[model.name], FORMS[model.name][2].head_dim
    outcome = run(1, "qwen3", "info", "--model", model, "--no-speed")
    checks.true(f"{name}: held as {kept}", held_types(outcome) == kept, outcome)
    got, outcome = logits(1, model)
    checks.true(f"{name}: kept, the same bits", got is not None and np.array_equal(got, plain), outcome)
    checks.true(f"{name}: what is expanded is said", "rounded" not in outcome.err and
                ("matrices are expanded to f32" in outcome.err) == ("f32" in kept), outcome)
    if name.endswith("all"):
        return
    packed = model.with_name(f"{name}-kept")
    outcome = run(1, "qwen3", "pack", "--model", model, "--output", packed)
    checks.true(f"{name}: pack", outcome.ok, outcome)
    got, outcome = logits(1, packed)
    # Keys are not quantised: where panels have several heads, they and queries are F32 then, as no packed model is.
    refused = head_dim % 64 != 0 and "would split blocks" in outcome.err
    checks.true(f"{name}: packed, the same bits", refused or (got is not None and np.array_equal(got, plain)), outcome)
    same, outcome = logits(1, model, "--deterministic")
    for ranks in RANKS[-1:]:
        got, outcome = logits(ranks, model, "--deterministic")
        checks.true(f"{name}: deterministic on {ranks} ranks", got is not None and np.array_equal(got, same), outcome)
        strategy = "headwise" if ranks % 2 else "sequence"
        for directory in (model, packed):
            got, outcome = logits(ranks, directory, "--parallel-strategy", strategy)
            split = directory == packed and head_dim % 128 != 0 and "would split blocks" in outcome.err
            checks.true(f"{name}: {directory.name} on {ranks} ranks", split or
                        (got is not None and relative_l2(got, plain) < LIMITS["f32"]), outcome)
    got, outcome = logits(1, model, "--isa", best_level())
    limit = OTHER_EXPERTS if "64" in name else EIGHT_BITS
    checks.true(f"{name}: inputs of 8 bits", got is not None and relative_l2(got, plain) < limit, outcome)


def check_packed(checks, model, expected):
    packed = model.with_name("packed")
    outcome = run(1, "qwen3", "pack", "--model", model, "--output", packed, "--dtype", "f32")
    got, outcome = logits(1, packed) if outcome.ok else (None, outcome)
    checks.true("packed", got is not None and relative_l2(got, expected) < LIMITS["f32"], outcome)


def main():
    checks, random = Checks(), np.random.RandomState(11)
    with scratch() as directory:
        for name in FORMS:
            model, expected = check_form(checks, directory, name, random)
            if name == "awq":
                check_packed(checks, model, expected)
            if name == "gptq-128":
                check_memory(checks, model)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
