#!/usr/bin/env python3
"""Qwen3, Qwen3-MoE, Qwen2 and Llama in numpy and float64: the executable specification of the engine.

Reads a checkpoint in the published layout (config.json with model.safetensors, or with
model.safetensors.index.json and its shards) and computes logits, one step after the other as in the
model's description, with nothing clever. Weights are read as stored (BF16, F16, F32) and widened; all
arithmetic, the rotation angles too, is float64.

Letters in shapes: T tokens, h hidden size, n query heads, k KV heads, d head size, f intermediate size,
v vocabulary size, e experts.
"""
import argparse
import json
import math
import re
import struct
import sys
from pathlib import Path

import numpy as np


class ModelError(Exception):
    """The checkpoint or the request is not usable; the text names the culprit."""


# ---- Files ---------------------------------------------------------------------------------------

STORED = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F8_E4M3": np.dtype("u1"),
          "I32": np.dtype("<i4")}
BLOCK = 128  # rows and columns of an FP8 matrix that share a scale


def widen(stored, dtype):
    """Stored values as float64; a BF16 is the upper half of an F32."""
    if dtype == "BF16":
        return (stored.astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype == "F8_E4M3":  # sign, 4 bits of exponent, 3 of mantissa; no infinity, one NaN
        code = np.arange(256)
        exponent, mantissa = code >> 3 & 15, code & 7
        table = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
        table[(code & 127) == 127] = np.nan
        return np.where(code & 128, -table, table)[stored]
    return stored.astype(np.float64)


def round_to_bf16(x):
    """float64 values that fit F32, rounded to the nearest BF16 (ties to even), as float64."""
    bits = np.ascontiguousarray(x, dtype="<f4").view("<u4").astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return widen(bits.astype("<u2"), "BF16")


def read_safetensors(path):
    """{name: (dtype, array of stored values)} of one file; the arrays stay in the file (memory map)."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))  # u64 header length, JSON header, data
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r")[8 + length :]
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        if info["dtype"] not in STORED:
            raise ModelError(f"{path}: {name}: dtype {info['dtype']} is not BF16, F16, F32, F8_E4M3 or I32")
        begin, end = info["data_offsets"]
        values = np.frombuffer(data[begin:end], dtype=STORED[info["dtype"]]).reshape(info["shape"])
        tensors[name] = (info["dtype"], values)
    return tensors


AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where value i of eight is in its word


def unpack(words, bits, axis, order=None):
    """The codes in words of 32 bits, low bits first, which take the place of their word along an axis."""
    places = np.arange(32 // bits) if order is None else np.array(order)
    codes = np.stack([words.view("<u4") >> np.uint32(bits * place) & np.uint32(2**bits - 1) for place in places],
                     axis + 1)
    shape = list(words.shape)
    shape[axis] *= len(places)
    return codes.reshape(shape).astype(np.int64)


def in_groups(tensors, stem, how):
    """W [out, in] of GPTQ or AWQ, (q - z) times the scale of the group, from what quantization_config says."""
    awq, bits = how["quant_method"] == "awq", how["bits"]
    order = AWQ_ORDER if awq else None
    offset = 0 if awq or how.get("checkpoint_format") == "gptq_v2" else 1
    codes = unpack(tensors[f"{stem}.qweight"][1], bits, 1 if awq else 0, order)
    zeros = unpack(tensors[f"{stem}.qzeros"][1], bits, 1, order) + offset
    scales = widen(*reversed(tensors[f"{stem}.scales"]))
    groups = np.arange(len(codes)) // (how["group_size"] if how["group_size"] > 0 else len(codes))
    if f"{stem}.g_idx" in tensors:
        groups = tensors[f"{stem}.g_idx"][1]
    return ((codes - zeros[groups]) * scales[groups]).T


class Checkpoint:
    """The tensors of a model directory, widened when asked for.

    bf16_weights: round the matrices (not the vectors of the norms, nor routers, nor embeddings, which are looked up in
    the file) to BF16 first, as an engine does that keeps them so in memory."""

    def __init__(self, directory, bf16_weights=False):
        directory = Path(directory)
        self.bf16_weights = bf16_weights
        self.tensors = {}
        self.quantization = json.loads((directory / "config.json").read_text()).get("quantization_config")
        index = directory / "model.safetensors.index.json"
        names = {"model.safetensors"}
        if index.exists():
            names = set(json.loads(index.read_text())["weight_map"].values())
        for name in sorted(names):
            self.tensors.update(read_safetensors(directory / name))

    def get(self, name, shape, rows=None):
        """The tensor, or the rows of it that are looked up, after a check of its whole shape. Embedding checkpoints
        leave the prefix of names out."""
        stem = name.removesuffix(".weight")
        if name not in self.tensors and f"{stem}.qweight" not in self.tensors:
            name = name.removeprefix("model.")
        if f"{stem}.qweight" in self.tensors:
            dtype, values = "F64", in_groups(self.tensors, stem, self.quantization)
        elif name in self.tensors:
            dtype, values = self.tensors[name]
        else:
            raise ModelError(f"{name} is missing from the checkpoint")
        if values.shape != tuple(shape):
            raise ModelError(f"{name}: expected shape {list(shape)}, got {list(values.shape)}")
        if rows is not None:
            return widen(values[rows], dtype)
        wide = widen(values, dtype)
        if dtype == "F8_E4M3":
            scales = widen(*reversed(self.tensors[name + "_scale_inv"]))
            wide *= np.repeat(np.repeat(scales, BLOCK, 0), BLOCK, 1)[: shape[0], : shape[1]]
        rounded = self.bf16_weights and len(shape) > 1 and not name.endswith(".mlp.gate.weight")
        return round_to_bf16(wide) if rounded else wide


# What differs between architectures: norms of queries and keys by head, biases of q, k and v.
ARCHITECTURES = {  # qk_norm, qkv_bias
    "Qwen3ForCausalLM": (True, False),
    "Qwen3MoeForCausalLM": (True, False),
    "Qwen2ForCausalLM": (False, True),
    "LlamaForCausalLM": (False, False),
}


class Config:
    """config.json, nothing guessed: a missing key is an error."""

    def __init__(self, directory):
        path = Path(directory) / "config.json"
        raw = json.loads(path.read_text())

        def need(key, where=raw):
            if where.get(key) is None:
                raise ModelError(f"{path}: {key} is missing")
            return where[key]

        name = need("architectures")[0]
        if name not in ARCHITECTURES:
            raise ModelError(f"{path}: architectures: expected one of {list(ARCHITECTURES)}, got {name}")
        self.qk_norm, self.qkv_bias = ARCHITECTURES[name]
        for switch in ("attention_bias", "mlp_bias", "use_sliding_window"):
            if raw.get(switch):
                raise ModelError(f"{path}: {switch} is not supported")
        self.vocab = need("vocab_size")
        self.hidden = need("hidden_size")
        self.inter = need("intermediate_size")
        self.layers = need("num_hidden_layers")
        self.heads = need("num_attention_heads")
        self.kv_heads = need("num_key_value_heads")
        if name.startswith("Qwen3") or raw.get("head_dim") is not None:
            self.head_dim = need("head_dim")
        else:
            self.head_dim = self.hidden // self.heads
        self.eps = need("rms_norm_eps")
        self.tied = need("tie_word_embeddings")
        if self.heads % self.kv_heads:
            raise ModelError(f"{path}: {self.heads} heads are not divisible by {self.kv_heads} KV heads")

        self.experts = 0
        if name == "Qwen3MoeForCausalLM":
            self.experts = need("num_local_experts" if raw.get("num_experts") is None else "num_experts")
            self.chosen = need("num_experts_per_tok")
            self.moe_inter = need("moe_intermediate_size")
            self.norm_topk = need("norm_topk_prob")
            step, dense = raw.get("decoder_sparse_step") or 1, raw.get("mlp_only_layers") or []
            self.expert_layers = {i for i in range(self.layers) if (i + 1) % step == 0 and i not in dense}

        # Newer files keep theta inside rope_parameters, older ones beside rope_scaling.
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        self.theta = float(need("rope_theta", rope if raw.get("rope_parameters") else raw))
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "yarn"):
            raise ModelError(f"{path}: rope_type: expected default or yarn, got {kind}")
        self.yarn = None
        if kind == "yarn":
            factor = float(need("factor", rope))
            attention_factor = rope.get("attention_factor")
            self.yarn = {
                "factor": factor,
                "original": need("original_max_position_embeddings", rope),
                "beta_fast": rope.get("beta_fast") or 32.0,
                "beta_slow": rope.get("beta_slow") or 1.0,
                "attention_factor": attention_factor or 0.1 * math.log(max(factor, 1.0)) + 1.0,
            }


# ---- The steps of the model ----------------------------------------------------------------------


def rms_norm(x, weight, eps):
    """x [..., m], weight [m] -> [..., m]. (Zhang & Sennrich 2019)"""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rope_frequencies(config):
    """(angle per position of each pair [d/2], factor of cos and sin).

    Plain: theta^(-2i/d). YaRN (Peng et al. 2023, section 3.2): pairs that turn more than beta_fast times
    within the original length keep their frequency, those that turn less than beta_slow times are slowed
    down by `factor`, a ramp over the pair index between them."""
    d, theta = config.head_dim, config.theta
    frequencies = theta ** (-2.0 * np.arange(d // 2) / d)
    if config.yarn is None:
        return frequencies, 1.0

    yarn = config.yarn

    def pair_that_turns(times):
        return d * math.log(yarn["original"] / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(yarn["beta_fast"])), 0)
    high = min(math.ceil(pair_that_turns(yarn["beta_slow"])), d - 1)
    high += 0.001 if low == high else 0.0
    ramp = np.clip((np.arange(d // 2) - low) / (high - low), 0.0, 1.0)
    return frequencies * (1.0 - ramp) + frequencies / yarn["factor"] * ramp, yarn["attention_factor"]


def rotate(x, positions, frequencies, factor):
    """x [T, heads, d]: pairs (x[i], x[i + d/2]) turned by position * frequency[i]. (Su et al. 2021)"""
    angles = positions[:, None, None] * frequencies  # [T, 1, d/2]
    cos, sin = np.cos(angles) * factor, np.sin(angles) * factor
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention(q, k, v):
    """Causal self-attention: q [T, n, d], k and v [T, k, d] -> [T, n, d]. Query head j reads KV head
    j // (n / k). (Vaswani et al. 2017; grouped as in Ainslie et al. 2023)"""
    tokens, heads, d = q.shape
    group = heads // k.shape[1]
    hidden_from = np.triu(np.full((tokens, tokens), -np.inf), 1)  # a query sees itself and what stands before it
    out = np.empty_like(q)
    for head in range(heads):
        scores = q[:, head] @ k[:, head // group].T / math.sqrt(d) + hidden_from  # [T, T]
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, head // group]
    return out


def silu(x):
    """x * sigmoid(x); exp of a negative argument only, so that it cannot overflow."""
    e = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def route(y, router, chosen, normalise):
    """Of the rows y [T, h] the chosen experts [T, chosen], the best first, and their weights: softmax over all of
    them, router [e, h]; divided by their sum if asked for. Of equal experts the first is the better one."""
    scores = y @ router.T  # [T, e]
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :chosen]
    weights = np.take_along_axis(p, best, axis=1)
    return best, weights / weights.sum(axis=1, keepdims=True) if normalise else weights


def gated_network(y, tensor, name, hidden, inter):
    """silu(y Wgate^T) * (y Wup^T) Wdown^T: y [T, h] -> [T, h]. (Shazeer 2020)"""
    gate = y @ tensor(f"{name}.gate_proj", inter, hidden).T  # [T, f]
    up = y @ tensor(f"{name}.up_proj", inter, hidden).T
    return (silu(gate) * up) @ tensor(f"{name}.down_proj", hidden, inter).T


def mixture(y, tensor, config):
    """Each row through the experts that the router chooses for it: y [T, h] -> [T, h]. (Shazeer et al. 2017)"""
    c, out = config, np.zeros_like(y)
    best, weights = route(y, tensor("mlp.gate", c.experts, c.hidden), c.chosen, c.norm_topk)
    for expert in range(c.experts):
        rows, place = np.nonzero(best == expert)
        if len(rows):
            part = gated_network(y[rows], tensor, f"mlp.experts.{expert}", c.hidden, c.moe_inter)
            out[rows] += weights[rows, place, None] * part
    return out


def layer(x, weights, config, index):
    """One decoder layer: x [T, h] -> [T, h]."""
    c, tokens = config, len(x)

    def tensor(name, *shape):
        return weights.get(f"model.layers.{index}.{name}.weight", shape)

    def project(y, letter, heads):
        rows = heads * c.head_dim
        z = y @ tensor(f"self_attn.{letter}_proj", rows, c.hidden).T
        if c.qkv_bias:
            z = z + weights.get(f"model.layers.{index}.self_attn.{letter}_proj.bias", (rows,))
        return z.reshape(tokens, heads, c.head_dim)

    # Attention over the normed input.
    y = rms_norm(x, tensor("input_layernorm", c.hidden), c.eps)  # [T, h]
    q = project(y, "q", c.heads)  # [T, n, d]
    k = project(y, "k", c.kv_heads)  # [T, k, d]
    v = project(y, "v", c.kv_heads)
    if c.qk_norm:  # by head, with one weight [d] for all of them
        q = rms_norm(q, tensor("self_attn.q_norm", c.head_dim), c.eps)
        k = rms_norm(k, tensor("self_attn.k_norm", c.head_dim), c.eps)
    frequencies, factor = rope_frequencies(c)
    positions = np.arange(tokens, dtype=np.float64)
    q, k = rotate(q, positions, frequencies, factor), rotate(k, positions, frequencies, factor)
    o = attention(q, k, v).reshape(tokens, c.heads * c.head_dim)  # [T, n d]
    x = x + o @ tensor("self_attn.o_proj", c.hidden, c.heads * c.head_dim).T  # [T, h]

    # The gated feed-forward network, or a mixture of them.
    y = rms_norm(x, tensor("post_attention_layernorm", c.hidden), c.eps)  # [T, h]
    if c.experts and index in c.expert_layers:
        return x + mixture(y, tensor, c)
    return x + gated_network(y, tensor, "mlp", c.hidden, c.inter)


def hidden_states(directory, tokens, bf16_weights=False):
    """States [T, h] of a token sequence after the final norm. float64."""
    config, weights = Config(directory), Checkpoint(directory, bf16_weights)
    tokens = np.asarray(tokens, dtype=np.int64)
    if tokens.ndim != 1 or len(tokens) == 0:
        raise ModelError("no tokens")
    for token in tokens:
        if not 0 <= token < config.vocab:
            raise ModelError(f"token {token} is out of range: the vocabulary has {config.vocab}")

    x = weights.get("model.embed_tokens.weight", (config.vocab, config.hidden), tokens)  # [T, h]
    for index in range(config.layers):
        x = layer(x, weights, config, index)
    return rms_norm(x, weights.get("model.norm.weight", (config.hidden,)), config.eps)


def forward(directory, tokens, all_positions=True, bf16_weights=False):
    """Logits [T, v] of a token sequence, or [1, v] of its last position. float64."""
    config, weights = Config(directory), Checkpoint(directory, bf16_weights)
    x = hidden_states(directory, tokens, bf16_weights)
    x = x if all_positions else x[-1:]
    # Tied: the embedding is the output head, even where the file stores an lm_head too.
    head = "model.embed_tokens.weight" if config.tied else "lm_head.weight"
    return x @ weights.get(head, (config.vocab, config.hidden)).T  # [T, v]


# ---- Command line --------------------------------------------------------------------------------


def parse_tokens(text):
    """"1,2,3", or "@FILE" with ids separated by commas or white space."""
    if text.startswith("@"):
        text = Path(text[1:]).read_text()
    words = [word for word in re.split(r"[\s,]+", text) if word]
    for word in words:
        if not re.fullmatch(r"\d+", word):
            raise ModelError(f"--tokens: {word!r} is not a token id")
    return [int(word) for word in words]


def main():
    parser = argparse.ArgumentParser(description="Logits of a checkpoint, computed in float64.")
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--tokens", required=True, metavar="1,2,3|@FILE")
    parser.add_argument("--all", action="store_true", help="logits of every position, not of the last one only")
    parser.add_argument("--output", required=True, metavar="F.f32|-", help="raw little-endian float32")
    parser.add_argument("--bf16-weights", action="store_true", help="round the matrices to BF16 first")
    parser.add_argument("--decode-from", type=int, metavar="N", help="accepted for symmetry with qwen3 logits: "
                        "decoding gives the logits of prefill, by definition")
    args = parser.parse_args()
    try:
        tokens = parse_tokens(args.tokens)
        if args.decode_from is not None and not 1 <= args.decode_from <= len(tokens):
            raise ModelError(f"--decode-from: got {args.decode_from}, expected 1 .. {len(tokens)}")
        logits = forward(args.model, tokens, args.all, args.bf16_weights).astype("<f4").tobytes()
        if args.output == "-":
            sys.stdout.buffer.write(logits)
        else:
            Path(args.output).write_bytes(logits)
    except (ModelError, OSError, json.JSONDecodeError) as error:
        sys.exit(f"reference.py: {error}")


if __name__ == "__main__":
    main()
