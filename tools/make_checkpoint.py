#!/usr/bin/env python3
"""Writes a Qwen3, Qwen3-MoE, Qwen2 or Llama checkpoint of any shape with seeded random weights, in the layout, with the
names and in the order of the published ones: config.json and model.safetensors, or shards with
model.safetensors.index.json.

The values of a tensor depend on the seed and its name alone: not on the stored type (but for rounding),
the number of shards, or which other tensors there are. They come from numpy's RandomState, whose
stream is frozen, so that stored results stay valid. Matrices have the standard deviation 0.7 / sqrt(inputs),
embedding and output head 0.05, the weights of the norms are 1 +- 0.2, biases 0.5: activations keep their
magnitude from layer to layer, and attention is neither flat nor a single peak.
"""
import argparse
import dataclasses
import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

SIZES = {  # hidden, inter, layers, heads, kv_heads, head_dim, vocab, tied
    "tiny": (64, 160, 3, 4, 2, 32, 512, True),
    "0.6B": (1024, 3072, 28, 16, 8, 128, 151936, True),
    "1.7B": (2048, 6144, 28, 16, 8, 128, 151936, True),
    "4B": (2560, 9728, 36, 32, 8, 128, 151936, True),
    "8B": (4096, 12288, 36, 32, 8, 128, 151936, False),
    "14B": (5120, 17408, 40, 40, 8, 128, 151936, False),
    "32B": (5120, 25600, 64, 64, 8, 128, 151936, False),
}
ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM", "qwen2": "Qwen2ForCausalLM",
                 "llama": "LlamaForCausalLM"}
EXPERTS = ("experts", "chosen", "moe_inter")  # of qwen3_moe; --size has none
DTYPES = {"bf16": ("BF16", "bfloat16"), "f16": ("F16", "float16"), "f32": ("F32", "float32")}
ROWS_AT_ONCE = 4096  # large matrices are made in pieces


@dataclasses.dataclass
class Shape:
    """What config.json says. yarn: {"factor": ..., "original_max_position_embeddings": ..., ...} or None."""

    hidden: int = 64
    inter: int = 160
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    vocab: int = 512
    tied: bool = True
    theta: float = 1e6
    eps: float = 1e-6
    max_positions: int = 40960
    yarn: dict = None
    rope_parameters: bool = False  # the newer form of the file: rope_parameters with theta inside
    model_type: str = "qwen3"  # or "qwen3_moe", "qwen2", "llama"
    experts: int = 8  # of qwen3_moe, as what follows
    chosen: int = 2  # for each token
    moe_inter: int = 48
    norm_topk: bool = True
    sparse_step: int = 1  # layer i has experts if i + 1 is a multiple, and it is not in dense_layers
    dense_layers: tuple = ()
    local_experts: bool = False  # the newer name of num_experts
    router: float = 0.7  # its standard deviation times sqrt(hidden); 0: all experts are equal

    def has_experts(self, layer):
        return (self.model_type == "qwen3_moe" and (layer + 1) % self.sparse_step == 0
                and layer not in self.dense_layers)


def config_json(shape, dtype):
    config = {
        "architectures": [ARCHITECTURES[shape.model_type]],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643 if shape.vocab > 151643 else 0,
        "eos_token_id": 151645 if shape.vocab > 151645 else 1,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.inter,
        "max_position_embeddings": shape.max_positions,
        "max_window_layers": shape.layers,
        "mlp_bias": False,
        "model_type": shape.model_type,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": shape.eps,
    }
    rope = {"rope_type": "yarn", **shape.yarn} if shape.yarn else None
    if shape.rope_parameters:
        config["rope_parameters"] = {"rope_theta": shape.theta, **(rope or {"rope_type": "default"})}
    else:
        config["rope_scaling"] = rope
        config["rope_theta"] = int(shape.theta) if shape.theta == int(shape.theta) else shape.theta
    config.update(
        {
            "sliding_window": 4096 if shape.model_type == "qwen2" else None,
            "tie_word_embeddings": shape.tied,
            "torch_dtype": DTYPES[dtype][1],
            "transformers_version": "4.51.0",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": shape.vocab,
        }
    )
    if shape.model_type == "qwen3_moe":
        config.update({
            "decoder_sparse_step": shape.sparse_step,
            "mlp_only_layers": list(shape.dense_layers),
            "moe_intermediate_size": shape.moe_inter,
            "norm_topk_prob": shape.norm_topk,
            "num_local_experts" if shape.local_experts else "num_experts": shape.experts,
            "num_experts_per_tok": shape.chosen,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
        })
    # As published: each architecture has its own keys, and only Qwen3 always says how large heads are.
    absent = {
        "qwen3": {"mlp_bias", "pretraining_tp"},
        "qwen3_moe": {"mlp_bias", "pretraining_tp"},
        "qwen2": {"attention_bias", "mlp_bias", "pretraining_tp"},
        "llama": {"max_window_layers", "sliding_window", "use_sliding_window"},
    }[shape.model_type]
    if shape.model_type in ("qwen2", "llama") and shape.heads * shape.head_dim == shape.hidden:
        absent = absent | {"head_dim"}
    return {key: value for key, value in config.items() if key not in absent}


def tensor_shapes(shape, lm_head=False):
    """{name: (shape, standard deviation; None: of a norm)} in the published order, which is that of the names."""
    s, q, kv = shape, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def matrix(rows, cols):
        return (rows, cols), 0.7 / cols**0.5

    tensors = {"model.embed_tokens.weight": ((s.vocab, s.hidden), 0.05), "model.norm.weight": ((s.hidden,), None)}
    if lm_head or not s.tied:
        tensors["lm_head.weight"] = ((s.vocab, s.hidden), 0.05)
    for index in range(s.layers):
        layer = {
            "input_layernorm": ((s.hidden,), None),
            "post_attention_layernorm": ((s.hidden,), None),
            "self_attn.q_proj": matrix(q, s.hidden),
            "self_attn.k_proj": matrix(kv, s.hidden),
            "self_attn.v_proj": matrix(kv, s.hidden),
            "self_attn.o_proj": matrix(s.hidden, q),
        }
        if s.has_experts(index):
            layer["mlp.gate"] = (s.experts, s.hidden), s.router / s.hidden**0.5
        networks = [f"mlp.experts.{e}" for e in range(s.experts)] if s.has_experts(index) else ["mlp"]
        inter = s.moe_inter if s.has_experts(index) else s.inter
        for network in networks:
            layer[f"{network}.gate_proj"] = layer[f"{network}.up_proj"] = matrix(inter, s.hidden)
            layer[f"{network}.down_proj"] = matrix(s.hidden, inter)
        if s.model_type in ("qwen3", "qwen3_moe"):
            layer.update(dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), ((s.head_dim,), None)))
        tensors.update({f"model.layers.{index}.{name}.weight": value for name, value in layer.items()})
        if s.model_type == "qwen2":
            biases = {"q": ((q,), 0.5), "k": ((kv,), 0.5), "v": ((kv,), 0.5)}
            tensors.update({f"model.layers.{index}.self_attn.{x}_proj.bias": value for x, value in biases.items()})
    return dict(sorted(tensors.items()))


def encode(values, dtype):
    """float64 values as bytes of the stored type, rounded to nearest, ties to even."""
    if dtype == "bf16":
        bits = values.astype("<f4").view("<u4").astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"f16": "<f2", "f32": "<f4"}[dtype]).tobytes()


def tensor_bytes(name, dims, std, dtype, seed):
    """The tensor's bytes, in pieces."""
    random = np.random.RandomState([seed, zlib.crc32(name.encode())])
    for begin in range(0, dims[0], ROWS_AT_ONCE):
        piece = (min(ROWS_AT_ONCE, dims[0] - begin), *dims[1:])
        normal = random.standard_normal(piece)
        yield encode(1.0 + 0.2 * normal if std is None else std * normal, dtype)


def write_safetensors(path, tensors, dtype, seed):
    """One file; returns the bytes of its tensors."""
    item = 4 if dtype == "f32" else 2
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dims, _) in tensors.items():
        end = offset + item * int(np.prod(dims))
        header[name] = {"dtype": DTYPES[dtype][0], "shape": list(dims), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data start at a multiple of 8
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (dims, std) in tensors.items():
            for piece in tensor_bytes(name, dims, std, dtype, seed):
                file.write(piece)
    return offset


def make_checkpoint(directory, shape, dtype="bf16", shards=1, seed=1, lm_head=False):
    """lm_head: store an output head also where embeddings are tied (some published checkpoints do)."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = list(tensor_shapes(shape, lm_head).items())
    if not 1 <= shards <= len(tensors):
        raise ValueError(f"shards: got {shards}, expected 1 .. {len(tensors)}")
    weight_map, total = {}, 0
    for shard in range(shards):
        name = "model.safetensors" if shards == 1 else f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(tensors[shard * len(tensors) // shards : (shard + 1) * len(tensors) // shards])
        total += write_safetensors(directory / name, part, dtype, seed)
        weight_map.update(dict.fromkeys(part, name))
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (directory / "config.json").write_text(json.dumps(config_json(shape, dtype), indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description="Write a checkpoint with seeded random weights.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--size", choices=SIZES, default="tiny", help="the options below change this shape")
    parser.add_argument("--model-type", choices=ARCHITECTURES, default="qwen3")
    for name in ("hidden", "inter", "layers", "heads", "kv-heads", "head-dim", "vocab"):
        parser.add_argument(f"--{name}", type=int)
    for name, help_text in (("experts", "of qwen3_moe"), ("chosen", "experts of a token"),
                            ("moe-inter", "intermediate size of an expert")):
        parser.add_argument(f"--{name}", type=int, help=help_text)
    parser.add_argument("--dense-layers", type=int, nargs="+", default=(), help="layers of qwen3_moe without experts")
    tie = parser.add_mutually_exclusive_group()
    tie.add_argument("--tied", dest="tied", action="store_true", default=None, help="embedding = output head")
    tie.add_argument("--untied", dest="tied", action="store_false", default=None)
    parser.add_argument("--lm-head", action="store_true", help="store lm_head.weight also where tied")
    parser.add_argument("--theta", type=float, default=1e6)
    parser.add_argument("--yarn", metavar="FACTOR:ORIGINAL", help="YaRN scaling, for example 4:32768")
    parser.add_argument("--rope-parameters", action="store_true", help="the newer form of config.json")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shape = Shape(*SIZES[args.size], theta=args.theta, rope_parameters=args.rope_parameters,
                  model_type=args.model_type, dense_layers=tuple(args.dense_layers))
    for field in ("hidden", "inter", "layers", "heads", "kv_heads", "head_dim", "vocab", "tied", *EXPERTS):
        if getattr(args, field) is not None:
            setattr(shape, field, getattr(args, field))
    if args.yarn:
        factor, original = args.yarn.split(":")
        shape.yarn = {"factor": float(factor), "original_max_position_embeddings": int(original)}
    try:
        make_checkpoint(args.directory, shape, args.dtype, args.shards, args.seed, args.lm_head)
    except (OSError, ValueError) as error:
        sys.exit(f"make_checkpoint.py: {error}")


if __name__ == "__main__":
    main()
