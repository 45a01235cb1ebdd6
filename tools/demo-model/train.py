#!/usr/bin/env python3
"""Trains the demo model on conversations that generate.py makes, on one CPU core.

    train.py WORK --stages LENGTH+...:TOKENS:STEPS:LR0:LR1:OTHER ...   trains, or goes on from WORK/checkpoint.pt
    train.py WORK --export OUTPUT                                      a model directory in the published layout

In each stage a step is TOKENS tokens in conversations of one LENGTH, drawn from those given, and the learning rate
goes from LR0 to LR1 in a line, over STEPS steps, or -STEPS seconds where that is negative. OTHER is the weight of
tokens that the model is not to write. Matrix products are taken in bf16 and all else in f32, on weights in f32: about
three times as fast as f32 where the CPU has bf16 instructions. Needs numpy and torch 1.13 or later.
"""
import argparse
import ctypes
import json
import math
import os
import random
import struct
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent))
import generate  # noqa: E402

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,  # set from the tokenizer, as eos_token_id and vocab_size are
    "eos_token_id": None,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": 1536,
    "max_window_layers": 4,
    "model_type": "qwen3",
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": None,
}
OTHER_SHARE = 0.3  # of the tokens that the model is not to write, drawn anew for each step: all would cost time
QUERIES = 256  # of one piece of attention: the keys behind its last query are left out

# ---- Products in bf16


class Linear(torch.autograd.Function):
    """x [N, in] times w [out, in] transposed."""

    @staticmethod
    def forward(ctx, x, w):
        x, w = x.bfloat16(), w.bfloat16()
        ctx.save_for_backward(x, w)
        return torch.mm(x, w.t()).float()

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        grad = grad.bfloat16()
        return torch.mm(grad, w).float(), torch.mm(grad.t(), x).float()


class Attention(torch.autograd.Function):
    """q [B, k, G, T, d] with G query heads for each of k KV heads, k and v [B, k, T, d] -> [B, k, G, T, d]."""

    @staticmethod
    def pieces(tokens):
        return [(begin, min(begin + QUERIES, tokens)) for begin in range(0, tokens, QUERIES)]

    @staticmethod
    def forward(ctx, q, k, v):
        batch, heads, group, tokens, d = q.shape
        q = (q / math.sqrt(d)).bfloat16()
        k, v = (x.bfloat16().reshape(batch * heads, tokens, d) for x in (k, v))
        out = torch.empty(q.shape)
        kept = []
        for begin, end in Attention.pieces(tokens):
            part = q[:, :, :, begin:end].reshape(batch * heads, -1, d)
            scores = torch.bmm(part, k[:, :end].transpose(1, 2)).float().view(batch * heads, group, -1, end)
            scores[..., begin:] += torch.full((end - begin, end - begin), -1e9).triu(1)
            weights = torch.softmax(scores, -1).view(batch * heads, -1, end)
            kept.append(weights)
            out[:, :, :, begin:end] = torch.bmm(weights.bfloat16(), v[:, :end]).float().view(
                batch, heads, group, -1, d)
        ctx.save_for_backward(q, k, v, *kept)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, *kept = ctx.saved_tensors
        batch, heads, group, tokens, d = q.shape
        dq, dk, dv = torch.empty(q.shape), torch.zeros(k.shape), torch.zeros(v.shape)
        for (begin, end), weights in zip(Attention.pieces(tokens), kept):
            dout = grad[:, :, :, begin:end].reshape(batch * heads, -1, d).bfloat16()
            dv[:, :end] += torch.bmm(weights.bfloat16().transpose(1, 2), dout)
            dweights = torch.bmm(dout, v[:, :end].transpose(1, 2)).float()
            dscores = torch._softmax_backward_data(dweights, weights, -1, torch.float32).bfloat16()
            dq[:, :, :, begin:end] = torch.bmm(dscores, k[:, :end]).float().view(batch, heads, group, -1, d)
            dk[:, :end] += torch.bmm(dscores.transpose(1, 2), q[:, :, :, begin:end].reshape(batch * heads, -1, d))
        return dq / math.sqrt(d), dk.view(batch, heads, tokens, d), dv.view(batch, heads, tokens, d)


def rms_norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]) * weight


# ---- Model


def new_weights(config):
    """Tensors under their published names."""
    h, d, f = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    n, k, layers = config["num_attention_heads"], config["num_key_value_heads"], config["num_hidden_layers"]

    def matrix(rows, columns, scale=1.0):
        return torch.randn(rows, columns) * scale / math.sqrt(columns)

    weights = {"model.embed_tokens.weight": torch.randn(config["vocab_size"], h) * 0.05}
    for i in range(layers):
        weights.update({f"model.layers.{i}.{name}.weight": value for name, value in {
            "input_layernorm": torch.ones(h),
            "self_attn.q_proj": matrix(n * d, h),
            "self_attn.k_proj": matrix(k * d, h),
            "self_attn.v_proj": matrix(k * d, h),
            "self_attn.o_proj": matrix(h, n * d, 1 / math.sqrt(2 * layers)),
            "self_attn.q_norm": torch.ones(d),
            "self_attn.k_norm": torch.ones(d),
            "post_attention_layernorm": torch.ones(h),
            "mlp.gate_proj": matrix(f, h),
            "mlp.up_proj": matrix(f, h),
            "mlp.down_proj": matrix(h, f, 1 / math.sqrt(2 * layers)),
        }.items()})
    weights["model.norm.weight"] = torch.ones(h)
    return weights


class Model:
    def __init__(self, config, weights):
        self.config, self.weights = config, weights
        half = config["head_dim"] // 2
        angles = np.arange(config["max_position_embeddings"])[:, None] * float(config["rope_theta"]) ** (
            -np.arange(half) / half)
        self.cos, self.sin = (torch.tensor(f(angles), dtype=torch.float32) for f in (np.cos, np.sin))

    def rotate(self, x):
        """x [B, T, heads, d], pairs (i, i + d/2)."""
        cos, sin = self.cos[: x.shape[1], None], self.sin[: x.shape[1], None]
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    def forward(self, ids):
        """ids [B, T] -> the last norm's output [B * T, h]."""
        c, (batch, tokens) = self.config, ids.shape
        n, k, d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        x = self.weights["model.embed_tokens.weight"][ids.reshape(-1)]
        for i in range(c["num_hidden_layers"]):
            def w(name, i=i):
                return self.weights[f"model.layers.{i}.{name}.weight"]

            y = rms_norm(x, w("input_layernorm"))
            qkv = Linear.apply(y, torch.cat([w(f"self_attn.{part}_proj") for part in "qkv"]))
            q, key, v = (part.view(batch, tokens, -1, d) for part in qkv.split([n * d, k * d, k * d], -1))
            q = self.rotate(rms_norm(q, w("self_attn.q_norm")))
            key = self.rotate(rms_norm(key, w("self_attn.k_norm")))
            o = Attention.apply(q.view(batch, tokens, k, n // k, d).permute(0, 2, 3, 1, 4), key.transpose(1, 2),
                                v.transpose(1, 2))
            x = x + Linear.apply(o.permute(0, 3, 1, 2, 4).reshape(-1, n * d), w("self_attn.o_proj"))
            y = rms_norm(x, w("post_attention_layernorm"))
            gate, up = Linear.apply(y, torch.cat([w("mlp.gate_proj"), w("mlp.up_proj")])).chunk(2, -1)
            x = x + Linear.apply(F.silu(gate) * up, w("mlp.down_proj"))
        return rms_norm(x, self.weights["model.norm.weight"])

    def logits(self, hidden):
        return Linear.apply(hidden, self.weights["model.embed_tokens.weight"])


# ---- Training


class Data:
    """Batches of conversations, each row one of them."""

    def __init__(self, tokenizer, seed):
        self.tokens = generate.Tokens(tokenizer)
        self.rng = random.Random(seed)
        self.pad = self.tokens.added["<|endoftext|>"]

    def batch(self, rows, length, other):
        """ids [rows, length + 1], weights of what ids[:, 1:] cost."""
        ids = np.full((rows, length + 1), self.pad)
        weights = np.zeros((rows, length + 1), np.float32)
        for row in range(rows):
            one, weight = generate.render(self.tokens, generate.conversation(self.rng, length * 0.97), self.rng)
            n = min(len(one), length + 1)
            ids[row, :n] = one[:n]
            drawn = np.random.default_rng(self.rng.getrandbits(32)).random(n) < OTHER_SHARE * (other > 0)
            weights[row, :n] = np.where(weight[:n], weight[:n], drawn * other)
        return torch.tensor(ids), torch.tensor(weights[:, 1:])


def step_loss(model, ids, weights):
    """(mean loss, share of right answers' tokens, share of wholly right answers) of a batch."""
    hidden = model.forward(ids[:, :-1])
    place = torch.arange(weights.numel())[(weights > 0).reshape(-1)]
    targets, weights = ids[:, 1:].reshape(-1)[place], weights.reshape(-1)[place]
    logits = model.logits(hidden[place])
    losses = F.cross_entropy(logits, targets, reduction="none")
    answer = weights >= 1
    right = (logits.detach().argmax(-1) == targets)[answer]
    number = (place[answer].diff(prepend=place[:1]) != 1).cumsum(0)  # of the stretch of tokens to be written
    wrong = torch.zeros(int(number[-1]) + 1).index_add_(0, number, (~right).float())[int(number[0]) :]
    return (losses * weights).sum() / weights.sum(), right.float().mean().item(), (wrong == 0).float().mean().item()


def train(work, stages, seed):
    config = json.loads((work / "config.json").read_text())
    saved = work / "checkpoint.pt"
    torch.manual_seed(seed)
    weights, moments, done = new_weights(config), None, 0
    if saved.exists():
        state = torch.load(saved)
        weights, moments, done = state["weights"], state["moments"], state["steps"]
    for value in weights.values():
        value.requires_grad_(True)
    model = Model(config, weights)
    matrices = [value for name, value in weights.items() if value.dim() > 1]
    vectors = [value for value in weights.values() if value.dim() == 1]
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0}],
                                  betas=(0.9, 0.98), eps=1e-9, foreach=True)
    if moments:
        optimiser.load_state_dict(moments)
    data = Data(work / "tokenizer.json", seed * 1000003 + done)
    begin, seen = time.time(), 0
    for lengths, size, steps, lr0, lr1, other in stages:
        sums, n, stage_begin, passed = np.zeros(3), 0, time.time(), 0.0
        while passed < 1:
            rate = lr0 + (lr1 - lr0) * passed
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (done + 1) / 200)
            length = data.rng.choice(lengths)
            loss, right, whole = step_loss(model, *data.batch(max(1, size // length), length, other))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
            optimiser.step()
            done, seen = done + 1, seen + size
            sums, n = sums + (loss.item(), right, whole), n + 1
            passed = passed + 1 / steps if steps > 0 else (time.time() - stage_begin) / -steps
            if done % 50 == 0 or passed >= 1:
                loss, right, whole = sums / n
                print(f"step {done} lengths {lengths} rate {rate:.2e} loss {loss:.4f} tokens right {right:.4f} "
                      f"answers right {whole:.4f} {seen / (time.time() - begin):.0f} tokens/s", flush=True)
                sums, n = np.zeros(3), 0
            if done % 100 == 0 or passed >= 1:
                torch.save({"weights": {k: v.detach() for k, v in weights.items()}, "steps": done,
                            "moments": optimiser.state_dict()}, work / "checkpoint.tmp")
                os.replace(work / "checkpoint.tmp", saved)


def keep_memory():
    """Asks the C library to keep what is freed: fresh pages for each large tensor would cost a third of the time."""
    libc = ctypes.CDLL(None)
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28), (-8, 1)):  # mmap_max, trim, top_pad, arenas
        libc.mallopt(option, value)


def start(work):
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer.json").exists():
        generate.make_tokenizer(work / "tokenizer.json")
    tokens = generate.Tokens(work / "tokenizer.json")
    used = max(tokens.tokenizer.tokens) + 1
    config = {**CONFIG, "bos_token_id": tokens.added["<|endoftext|>"], "eos_token_id": tokens.added["<|im_end|>"],
              "vocab_size": -(-used // 64) * 64}
    (work / "config.json").write_text(json.dumps(config, indent=2) + "\n")


# ---- The published layout


def write_safetensors(path, weights):
    """bf16, in the order of their names; the same weights give the same bytes."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(weights):
        blob = weights[name].bfloat16().contiguous().view(torch.int16).numpy().astype("<i2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(weights[name].shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def export(work, output):
    output.mkdir(parents=True, exist_ok=True)
    config = json.loads((work / "config.json").read_text())
    tokenizer = json.loads((work / "tokenizer.json").read_text())
    template = Path(__file__).resolve().parent.parent.parent / "tests/data/chat/qwen3.jinja"
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (output / "generation_config.json").write_text(json.dumps({
        "bos_token_id": config["bos_token_id"], "do_sample": False,
        "eos_token_id": [config["eos_token_id"], config["bos_token_id"]], "pad_token_id": config["bos_token_id"],
    }, indent=2) + "\n")
    (output / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1, ensure_ascii=False) + "\n")
    flags = ("lstrip", "normalized", "rstrip", "single_word", "special")
    (output / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": False, "add_prefix_space": False,
        "added_tokens_decoder": {str(token["id"]): {"content": token["content"], **{f: token[f] for f in flags}}
                                 for token in tokenizer["added_tokens"]},
        "additional_special_tokens": [token["content"] for token in tokenizer["added_tokens"]
                                      if token["special"] and token["content"] != "<|endoftext|>"],
        "bos_token": None, "chat_template": template.read_text(), "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": config["max_position_embeddings"],
        "pad_token": "<|endoftext|>", "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }, indent=2) + "\n")
    write_safetensors(output / "model.safetensors", torch.load(work / "checkpoint.pt")["weights"])


def stage(text):
    lengths, size, steps, *rates = text.split(":")
    lr0, lr1, other = map(float, rates)
    return [int(length) for length in lengths.split("+")], int(size), int(steps), lr0, lr1, other


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--stages", type=stage, nargs="+", default=[])
    parser.add_argument("--export", type=Path, metavar="OUTPUT")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    start(arguments.work)
    train(arguments.work, arguments.stages, arguments.seed)
    if arguments.export:
        export(arguments.work, arguments.export)


if __name__ == "__main__":
    main()
