"""GGUF files for tests, written from the definition of the format: keys and values, tensors in every type that is read,
and what values the blocks have. Nothing here comes from the code under test."""
import json
import pathlib
import struct

import numpy as np

import e2e  # noqa: F401  (puts tools/ on the path)

import reference

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACKED = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", I64: "<q",
          F64: "<d"}


# ---- Blocks -----------------------------------------------------------------------------------------


def half(x):
    """f32 [n] -> the 2 bytes [n, 2] of the nearest binary16."""
    return np.ascontiguousarray(x, np.float32).astype("<f2").view(np.uint8).reshape(-1, 2)


def from_half(raw):
    """[n, 2] bytes -> f32 [n, 1]."""
    return np.ascontiguousarray(raw).view("<f2").astype(np.float32)


def safe_divide(x, by):
    return np.divide(x, by, out=np.zeros_like(x), where=by != 0)


def pack_nibbles(q):
    """q [n, 32], 0..15 -> 16 bytes: value i below value 16 + i."""
    return (q[:, :16] | q[:, 16:] << 4).astype(np.uint8)


def unpack_nibbles(raw):
    return np.concatenate([raw & 15, raw >> 4], axis=1).astype(np.int32)


def pack_bits(bits):
    """[n, 32] of 0 or 1 -> 4 bytes, little-endian."""
    return np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")


def unpack_bits(raw):
    return np.unpackbits(np.ascontiguousarray(raw), axis=1, bitorder="little").astype(np.int32)


def signed_scale(x, levels):
    """The scale that takes the value of largest magnitude to -levels."""
    largest = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
    return from_half(half(largest / -levels))


def quantise_q4_0(x):
    d = signed_scale(x, 8)
    q = np.clip(np.rint(safe_divide(x, d)) + 8, 0, 15).astype(np.int32)
    return np.concatenate([half(d), pack_nibbles(q)], axis=1)


def values_q4_0(raw):
    return from_half(raw[:, :2]) * (unpack_nibbles(raw[:, 2:]) - 8).astype(np.float32)


def quantise_q5_0(x):
    d = signed_scale(x, 16)
    q = np.clip(np.rint(safe_divide(x, d)) + 16, 0, 31).astype(np.int32)
    return np.concatenate([half(d), pack_bits(q >> 4), pack_nibbles(q & 15)], axis=1)


def values_q5_0(raw):
    q = unpack_nibbles(raw[:, 6:]) | unpack_bits(raw[:, 2:6]) << 4
    return from_half(raw[:, :2]) * (q - 16).astype(np.float32)


def scale_and_minimum(x, levels):
    m = from_half(half(x.min(1)))
    return from_half(half((x.max(1) - m[:, 0]) / levels)), m


def quantise_q4_1(x):
    d, m = scale_and_minimum(x, 15)
    q = np.clip(np.rint(safe_divide(x - m, d)), 0, 15).astype(np.int32)
    return np.concatenate([half(d), half(m), pack_nibbles(q)], axis=1)


def values_q4_1(raw):
    return from_half(raw[:, :2]) * unpack_nibbles(raw[:, 4:]).astype(np.float32) + from_half(raw[:, 2:4])


def quantise_q5_1(x):
    d, m = scale_and_minimum(x, 31)
    q = np.clip(np.rint(safe_divide(x - m, d)), 0, 31).astype(np.int32)
    return np.concatenate([half(d), half(m), pack_bits(q >> 4), pack_nibbles(q & 15)], axis=1)


def values_q5_1(raw):
    q = unpack_nibbles(raw[:, 8:]) | unpack_bits(raw[:, 4:8]) << 4
    return from_half(raw[:, :2]) * q.astype(np.float32) + from_half(raw[:, 2:4])


def quantise_q8_0(x):
    d = from_half(half(np.abs(x).max(1) / 127))
    q = np.clip(np.rint(safe_divide(x, d)), -128, 127).astype(np.int8)
    return np.concatenate([half(d), q.view(np.uint8)], axis=1)


def values_q8_0(raw):
    return from_half(raw[:, :2]) * np.ascontiguousarray(raw[:, 2:]).view(np.int8).astype(np.float32)


def sub_blocks(x, levels):
    """x [n, 256] -> d, dmin [n, 1], 6-bit scales and minima [n, 8], q [n, 8, 32] in 0..levels."""
    parts = x.reshape(-1, 8, 32)
    low = np.maximum(-parts.min(2), 0)
    wide = (np.maximum(parts.max(2), 0) + low) / levels
    d, dmin = from_half(half(wide.max(1) / 63)), from_half(half(low.max(1) / 63))
    scales = np.clip(np.rint(safe_divide(wide, d)), 0, 63).astype(np.int32)
    minima = np.clip(np.rint(safe_divide(low, dmin)), 0, 63).astype(np.int32)
    by = np.broadcast_to((d * scales)[:, :, None], parts.shape)
    q = np.rint(safe_divide(parts + (dmin * minima)[:, :, None], by))
    return d, dmin, scales, minima, np.clip(q, 0, levels).astype(np.int32)


def pack_scales(scales, minima):
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minima[:, :4] | minima[:, 4:] >> 4 << 6
    return np.concatenate([first, second, (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4], axis=1).astype(np.uint8)


def unpack_scales(raw):
    raw = raw.astype(np.int32)
    a, b, c = raw[:, :4], raw[:, 4:8], raw[:, 8:12]
    scales = np.concatenate([a & 63, (c & 15) | a >> 6 << 4], axis=1)
    return scales, np.concatenate([b & 63, c >> 4 | b >> 6 << 4], axis=1)


def pack_k_nibbles(q):
    """q [n, 8, 32], 0..15 -> 128 bytes: sub-blocks 2 i and 2 i + 1 share 32 bytes."""
    return (q[:, 0::2] | q[:, 1::2] << 4).astype(np.uint8).reshape(-1, 128)


def unpack_k_nibbles(raw):
    pairs = raw.reshape(-1, 4, 1, 32)
    return np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32).astype(np.int32)


def k_values(raw, q):
    scales, minima = unpack_scales(raw[:, 4:16])
    d = from_half(raw[:, :2]) * scales.astype(np.float32)
    m = from_half(raw[:, 2:4]) * minima.astype(np.float32)
    return (d[:, :, None] * q.astype(np.float32) - m[:, :, None]).reshape(-1, 256)


def quantise_q4_k(x):
    d, dmin, scales, minima, q = sub_blocks(x, 15)
    return np.concatenate([half(d), half(dmin), pack_scales(scales, minima), pack_k_nibbles(q)], axis=1)


def values_q4_k(raw):
    return k_values(raw, unpack_k_nibbles(raw[:, 16:]))


def quantise_q5_k(x):
    d, dmin, scales, minima, q = sub_blocks(x, 31)
    high = ((q >> 4) << np.arange(8)[None, :, None]).sum(1).astype(np.uint8)
    return np.concatenate([half(d), half(dmin), pack_scales(scales, minima), high, pack_k_nibbles(q & 15)], axis=1)


def values_q5_k(raw):
    high = raw[:, None, 16:48].astype(np.int32) >> np.arange(8)[None, :, None] & 1
    return k_values(raw, unpack_k_nibbles(raw[:, 48:]) | high << 4)


def quantise_q6_k(x):
    parts = x.reshape(-1, 16, 16)
    wide = np.abs(parts).max(2) / 31
    d = from_half(half(wide.max(1) / 127))
    scales = np.clip(np.rint(safe_divide(wide, d)), -128, 127).astype(np.int8)
    scales[:, 1::2] *= -1  # the format has signed ones
    by = np.broadcast_to((d * scales)[:, :, None], parts.shape)
    q = (np.clip(np.rint(safe_divide(parts, by)), -32, 31).astype(np.int32) + 32).reshape(-1, 2, 4, 32)
    low, high = q & 15, q >> 4
    bottom = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
    top = (high << 2 * np.arange(4)[None, None, :, None]).sum(2).reshape(-1, 64)
    return np.concatenate([bottom.astype(np.uint8), top.astype(np.uint8), scales.view(np.uint8), half(d)], axis=1)


def values_q6_k(raw):
    bottom = raw[:, :128].reshape(-1, 2, 2, 32).astype(np.int32)
    top = raw[:, 128:192].reshape(-1, 2, 1, 32).astype(np.int32) >> 2 * np.arange(4)[None, None, :, None] & 3
    q = (np.concatenate([bottom & 15, bottom >> 4], axis=2) | top << 4) - 32
    scales = np.ascontiguousarray(raw[:, 192:208]).view(np.int8).astype(np.float32)
    d = from_half(raw[:, 208:210]) * scales
    return (d[:, :, None] * q.reshape(-1, 16, 16).astype(np.float32)).reshape(-1, 256)


LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])


def nearest_level(x):
    return np.abs(x[..., None] - LEVELS).argmin(-1)


def quantise_iq4_nl(x):
    d = from_half(half(np.abs(x).max(1) / 127))
    return np.concatenate([half(d), pack_nibbles(nearest_level(safe_divide(x, d)))], axis=1)


def values_iq4_nl(raw):
    return from_half(raw[:, :2]) * LEVELS[unpack_nibbles(raw[:, 2:])].astype(np.float32)


def quantise_iq4_xs(x):
    parts = x.reshape(-1, 8, 32)
    wide = np.abs(parts).max(2) / 127
    d = from_half(half(wide.max(1) / 31))
    scales = np.clip(np.rint(safe_divide(wide, d)), 0, 31).astype(np.int32) + 32
    by = np.broadcast_to((d * (scales - 32))[:, :, None], parts.shape)
    codes = nearest_level(safe_divide(parts, by))
    high = ((scales >> 4) << 2 * np.arange(8)).sum(1).astype("<u2")
    low = scales[:, 0::2] & 15 | (scales[:, 1::2] & 15) << 4
    nibbles = np.concatenate([pack_nibbles(codes[:, i]) for i in range(8)], axis=1)
    return np.concatenate([half(d), high.view(np.uint8).reshape(-1, 2), low.astype(np.uint8), nibbles], axis=1)


def values_iq4_xs(raw):
    high = np.ascontiguousarray(raw[:, 2:4]).view("<u2").astype(np.int32)
    low = np.stack([raw[:, 4:8] & 15, raw[:, 4:8] >> 4], axis=2).reshape(-1, 8).astype(np.int32)
    d = from_half(raw[:, :2]) * ((low | (high >> 2 * np.arange(8) & 3) << 4) - 32).astype(np.float32)
    codes = np.stack([unpack_nibbles(raw[:, 8 + 16 * i : 24 + 16 * i]) for i in range(8)], axis=1)
    return (d[:, :, None] * LEVELS[codes].astype(np.float32)).reshape(-1, 256)


def quantise_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").view(np.uint8).reshape(-1, 2)


def values_bf16(raw):
    return (np.ascontiguousarray(raw).view("<u2").astype(np.uint32) << 16).view(np.float32)


# name: (number, values of a block, bytes of a block, quantise [n, block] f32 -> bytes, the inverse)
TYPES = {
    "F32": (0, 1, 4, lambda x: x.astype("<f4").view(np.uint8), lambda raw: np.ascontiguousarray(raw).view("<f4")),
    "F16": (1, 1, 2, half, from_half),
    "Q4_0": (2, 32, 18, quantise_q4_0, values_q4_0),
    "Q4_1": (3, 32, 20, quantise_q4_1, values_q4_1),
    "Q5_0": (6, 32, 22, quantise_q5_0, values_q5_0),
    "Q5_1": (7, 32, 24, quantise_q5_1, values_q5_1),
    "Q8_0": (8, 32, 34, quantise_q8_0, values_q8_0),
    "Q4_K": (12, 256, 144, quantise_q4_k, values_q4_k),
    "Q5_K": (13, 256, 176, quantise_q5_k, values_q5_k),
    "Q6_K": (14, 256, 210, quantise_q6_k, values_q6_k),
    "IQ4_NL": (20, 32, 18, quantise_iq4_nl, values_iq4_nl),
    "IQ4_XS": (23, 256, 136, quantise_iq4_xs, values_iq4_xs),
    "BF16": (30, 1, 2, quantise_bf16, values_bf16),
}


# Those that are no blocks.
ELEMENTS = ("F32", "F16", "BF16")


def quantise(x, name):
    """f32 of any shape -> bytes."""
    _, block, size, encode, _ = TYPES[name]
    with np.errstate(over="ignore"):
        raw = encode(np.ascontiguousarray(x, np.float32).reshape(-1, block))
    assert raw.shape[1] == size, (name, raw.shape)
    return np.ascontiguousarray(raw).tobytes()


def values_of(raw, name, shape):
    """What the bytes mean, f32."""
    _, _, size, _, decode = TYPES[name]
    return decode(np.frombuffer(raw, np.uint8).reshape(-1, size)).reshape(shape).astype(np.float32)


# Where the binary16 numbers of a block are.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}


def random_blocks(name, values, random):
    """Blocks of any bits, those that no quantiser makes among them, with scales of either sign."""
    _, block, size, _, _ = TYPES[name]
    raw = random.randint(0, 256, (values // block, size)).astype(np.uint8)
    for at in HALVES[name]:
        raw[:, at : at + 2] = half(random.randn(len(raw)) * 10.0 ** random.randint(-7, -3, len(raw)))
    return raw.tobytes()


# ---- Files ------------------------------------------------------------------------------------------


def text(string):
    raw = string.encode() if isinstance(string, str) else string
    return struct.pack("<Q", len(raw)) + raw


def payload(kind, value):
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        of, values = value
        if of == STRING:
            return struct.pack("<IQ", of, len(values)) + b"".join(map(text, values))
        return struct.pack("<IQ", of, len(values)) + np.asarray(values, PACKED[of]).tobytes()
    return struct.pack(PACKED[kind], value)


class File:
    """keys: {name: (kind, value)}; tensors: [(name, dimensions as in the file, number of the type, bytes)]."""

    def __init__(self, keys, tensors, alignment=32, version=3):
        self.keys, self.tensors, self.alignment, self.version = dict(keys), list(tensors), alignment, version

    def header(self, n_tensors=None, n_keys=None):
        return b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors) if n_tensors is None else n_tensors,
                                     len(self.keys) if n_keys is None else n_keys)

    def values(self):
        return b"".join(text(key) + struct.pack("<I", kind) + payload(kind, value)
                        for key, (kind, value) in self.keys.items())

    def infos(self, offsets=None):
        parts, at = [], 0
        for i, (name, dims, kind, data) in enumerate(self.tensors):
            parts.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind,
                                                  at if offsets is None else offsets[i]))
            at += -(-len(data) // self.alignment) * self.alignment
        return b"".join(parts)

    def data(self):
        return b"".join(data + b"\0" * (-len(data) % self.alignment) for *_, data in self.tensors)

    def bytes(self):
        before = self.header() + self.values() + self.infos()
        return before + b"\0" * (-len(before) % self.alignment) + self.data()

    def split(self, parts):
        """The files of the same model in parts, the keys in the first one."""
        n, files = len(self.tensors), []
        for i in range(parts):
            keys = {**(self.keys if i == 0 else {}), "split.no": (U16, i), "split.count": (U16, parts),
                    "split.tensors.count": (I32, n)}
            files.append(File(keys, self.tensors[i * n // parts : (i + 1) * n // parts], self.alignment, self.version))
        return files


def part_name(stem, i, parts):
    return f"{stem}-{i + 1:05d}-of-{parts:05d}.gguf"


# ---- Models -----------------------------------------------------------------------------------------

LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp"}
EXPERT = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    stem, suffix = name.rsplit(".", 1)
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{suffix}"
    _, _, layer, inner = stem.split(".", 3)
    if inner.startswith("mlp.experts."):
        return f"blk.{layer}.{EXPERT[inner.split('.')[-1]]}.{suffix}"
    return f"blk.{layer}.{LAYER[inner]}.{suffix}"


def expert_of(name):
    """The number of the expert whose matrix it is, or None."""
    return int(name.split(".experts.")[1].split(".")[0]) if ".experts." in name else None


def config_keys(config, architecture="qwen3"):
    """Keys of a parsed config.json."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    heads = config["num_attention_heads"]
    keys = {
        "general.architecture": (STRING, architecture),
        "general.name": (STRING, "test"),
        f"{architecture}.block_count": (U32, config["num_hidden_layers"]),
        f"{architecture}.context_length": (U32, config["max_position_embeddings"]),
        f"{architecture}.embedding_length": (U32, config["hidden_size"]),
        f"{architecture}.feed_forward_length": (U32, config["intermediate_size"]),
        f"{architecture}.attention.head_count": (U32, heads),
        f"{architecture}.attention.head_count_kv": (U32, config["num_key_value_heads"]),
        f"{architecture}.rope.freq_base": (F32, config.get("rope_theta") or rope["rope_theta"]),
        f"{architecture}.attention.layer_norm_rms_epsilon": (F32, config["rms_norm_eps"]),
    }
    if config.get("head_dim"):
        keys[f"{architecture}.attention.key_length"] = (U32, config["head_dim"])
        keys[f"{architecture}.attention.value_length"] = (U32, config["head_dim"])
    if rope.get("rope_type") == "yarn":
        keys[f"{architecture}.rope.scaling.type"] = (STRING, "yarn")
        keys[f"{architecture}.rope.scaling.factor"] = (F32, rope["factor"])
        keys[f"{architecture}.rope.scaling.original_context_length"] = (U32, rope["original_max_position_embeddings"])
    if config.get("num_experts"):
        keys[f"{architecture}.expert_count"] = (U32, config["num_experts"])
        keys[f"{architecture}.expert_used_count"] = (U32, config["num_experts_per_tok"])
        keys[f"{architecture}.expert_feed_forward_length"] = (U32, config["moe_intermediate_size"])
    return keys


def tokenizer_keys(directory, rows):
    """Keys of a directory's tokenizer; rows of the output head beyond its tokens are unused ones."""
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    tokens, types = [f"[PAD{i}]" for i in range(rows)], [5] * rows
    for token, i in tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = token, 1
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], 3 if added["special"] else 4
    ids = {token: i for i, token in enumerate(tokens)}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    keys = {
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.pre": (STRING, "qwen2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)),
        "tokenizer.ggml.token_type": (ARRAY, (I32, types)),
        "tokenizer.ggml.merges": (ARRAY, (STRING, merges)),
        "tokenizer.ggml.eos_token_id": (U32, ids["<|im_end|>"]),
        "tokenizer.ggml.padding_token_id": (U32, ids["<|endoftext|>"]),
        "tokenizer.ggml.add_bos_token": (BOOL, False),
    }
    jinja = directory / "chat_template.jinja"
    config = directory / "tokenizer_config.json"
    template = jinja.read_text() if jinja.exists() else json.loads(config.read_text())["chat_template"]
    keys["tokenizer.chat_template"] = (STRING, template)
    return keys


def plain_tokens(rows):
    """Keys of a vocabulary that nothing is read from but its size."""
    return {"tokenizer.ggml.tokens": (ARRAY, (STRING, [f"t{i}" for i in range(rows)]))}


def convert(directory, type_of, keys=None):
    """The checkpoint in `directory` as a File, and {name in the checkpoint: its values in f32}. type_of(name, shape):
    the type of a matrix; vectors and routers are F32. The experts of a layer are one tensor."""
    directory = pathlib.Path(directory)
    config = json.loads((directory / "config.json").read_text())
    tensors, values, stacks = [], {}, {}
    stored = reference.Checkpoint(directory).tensors
    for name, (dtype, raw) in sorted(stored.items(), key=lambda item: expert_of(item[0]) or 0):
        wide = np.asarray(reference.widen(raw, dtype), np.float32)
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        kind = type_of(name, wide.shape) if wide.ndim == 2 and not name.endswith("mlp.gate.weight") else "F32"
        data = quantise(wide, kind)
        values[name] = values_of(data, kind, wide.shape)
        if expert_of(name) is None:
            tensors.append((gguf_name(name), list(wide.shape[::-1]), TYPES[kind][0], data))
        else:
            stacks.setdefault((gguf_name(name), wide.shape[::-1], TYPES[kind][0]), []).append(data)
    tensors += [(name, [*dims, len(data)], kind, b"".join(data)) for (name, dims, kind), data in stacks.items()]
    architecture = config["model_type"].replace("_", "")
    keys = keys if keys is not None else plain_tokens(config["vocab_size"])
    return File({**config_keys(config, architecture), **keys}, tensors), values


def write_twin(source, directory, values):
    """A checkpoint like `source` whose F32 tensors have these values."""
    directory.mkdir()
    for path in source.iterdir():
        if not path.name.startswith("model"):
            (directory / path.name).write_bytes(path.read_bytes())
    header, at, parts = {}, 0, []
    for name, value in sorted(values.items()):
        data = value.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"".join(parts))
