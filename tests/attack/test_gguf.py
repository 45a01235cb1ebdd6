#!/usr/bin/env python3
"""GGUF files that are damaged, hostile or of other models: each is refused with a message that names file and key or
tensor, before anything is allocated or read that the file does not have."""
import dataclasses
import os
import struct
import sys

import numpy as np

from refusals import FEW, FULL, Attacks

from e2e import scratch

import gguf_file
import make_checkpoint
from gguf_file import ARRAY, BOOL, F32, I32, STRING, U8, U16, U32, U64, File
from text_model import UNUSED_ROWS, TextModel

SHAPE = make_checkpoint.Shape(hidden=64, inter=96, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=64, tied=False)
LOGITS = ["--tokens", "1,2", "--output", os.devnull]
HUGE = (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 61, 1 << 40


class Files:
    def __init__(self, folder, shape=SHAPE):
        self.folder = folder
        make_checkpoint.make_checkpoint(folder / "model", shape, "f32")
        self.good, _ = gguf_file.convert(folder / "model", lambda *_: "Q8_0")

    def put(self, data, name="bad.gguf"):
        path = self.folder / name
        path.write_bytes(data.bytes() if isinstance(data, File) else data)
        return path

    def with_keys(self, **changes):
        """Dots are double underscores; None: without it."""
        keys = {name.replace("__", "."): value for name, value in changes.items()}
        kept = {name: value for name, value in {**self.good.keys, **keys}.items() if value is not None}
        return File(kept, self.good.tensors)

    def with_tensor(self, name, dims=None, kind=None, data=None, to=None):
        def change(n, d, k, raw):
            return (to or n, d if dims is None else dims, k if kind is None else kind, raw if data is None else data)

        changed = [change(*tensor) if tensor[0] == name else tensor for tensor in self.good.tensors]
        return File(self.good.keys, changed)

    def __call__(self, a, what, words, data, ranks=1):
        a.refused(what, rf"bad\.gguf: .*({words})", "qwen3", "logits", "--model", self.put(data), *LOGITS, ranks=ranks)


def check_truncations(a, files):
    whole, g = files.good.bytes(), files.good
    keys, infos = len(g.header()), len(g.header()) + len(g.values())
    data = infos + len(g.infos())
    for at in (2, 3, 4, 6, 8, 12, 20, keys - 1, keys, keys + 3, keys + 8, keys + 12, keys + 28, infos - 1, infos,
               infos + 4, infos + 10, data - 1, data, len(whole) - 33):
        files(a, f"the first {at} bytes", "truncated|begin with|can hold", whole[:at])
    for at in range(5, data, 61 if FULL else 977):
        files(a, f"the first {at} bytes", "truncated|can hold", whole[:at])
    a.refused("no bytes", r"bad\.gguf: is empty", "qwen3", "logits", "--model", files.put(b""), *LOGITS)


def check_headers(a, files):
    g = files.good
    rest = g.values() + g.infos()
    for what, words, start in (
            ("version 1", "version 1, expected 2 or 3", b"GGUF" + struct.pack("<IQQ", 1, 1, 1)),
            ("version 4", "version 4", b"GGUF" + struct.pack("<IQQ", 4, 1, 1)),
            ("big-endian", "big-endian", b"GGUF" + struct.pack(">IQQ", 3, 1, 1)),
            ("another format", "does not begin with", b"GGML" + struct.pack("<IQQ", 3, 1, 1))):
        files(a, what, words, start + rest)
    for n in HUGE:
        files(a, f"{n} keys", "keys: more than|key .* ends after", g.header(n_keys=n) + rest)
        files(a, f"{n} tensors", "tensors: more than", g.header(n_tensors=n) + rest)
    files(a, "one key too many", "key|tensor", g.header(n_keys=len(g.keys) + 1) + rest + g.data())
    files(a, "one tensor too many", "name|tensor|describ", g.header(n_tensors=len(g.tensors) + 1) + rest + b"\0" * 4000)


def one_key(key, kind, data):
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<I", kind) + data + b"\0" * 64


def check_keys(a, files):
    name = gguf_file.text("general.x")
    for n in HUGE:
        files(a, f"a key of {n} bytes", "key 0 ends after", one_key(struct.pack("<Q", n), U8, b""))
        files(a, f"a string of {n} bytes", "general.x: string 0 of 1 ends", one_key(name, STRING, struct.pack("<Q", n)))
        for of in (U8, U32, U64, STRING):
            files(a, f"an array of {n} of {of}", "general.x: its value of .* ends|general.x: string 0 of",
                  one_key(name, ARRAY, struct.pack("<IQ", of, n)))
        files(a, f"an array of a string of {n} bytes", "string 0 of 1",
              one_key(name, ARRAY, struct.pack("<IQQ", STRING, 1, n)))
    for kind in (13, 99, 1 << 31):
        files(a, f"kind {kind}", f"general.x: kind of value {kind}", one_key(name, kind, b"\0" * 8))
        files(a, f"an array of kind {kind}", f"kind of value {kind} in an array",
              one_key(name, ARRAY, struct.pack("<IQ", kind, 0)))
    files(a, "an array of arrays", "kind of value 9 in an array", one_key(name, ARRAY, struct.pack("<IQ", ARRAY, 1)))
    for key in (b"", b"a\nb", b"a\0b", "\u00e4".encode(), b"x" * 65536):
        files(a, f"key {key[:8]}", "key 0: expected 1 to 65535 printable", one_key(gguf_file.text(key), U8, b"\0"))
    twice = files.good
    files(a, "a key that is there twice", "key general.name: is there twice",
          twice.header(n_keys=len(twice.keys) + 1) + twice.values() + gguf_file.text("general.name") +
          struct.pack("<IB", U8, 0) + twice.infos() + twice.data())
    for value, words in (((U32, 0), "got 0"), ((U32, 4), "got 4"), ((U32, 24), "got 24"),
                         ((STRING, "32"), "an integer"),
                         ((U64, (1 << 64) - 1), "2\\^63"), ((U64, 1 << 40), "power of two")):
        files(a, f"alignment {value}", f"general.alignment: .*{words}", files.with_keys(general__alignment=value))


def check_tensors(a, files):
    g, name = files.good, "blk.0.ffn_up.weight"
    raw = next(data for n, _, _, data in g.tensors if n == name)
    for what, words, data in (
            ("no dimensions", "has 0 dimensions", files.with_tensor(name, dims=())),
            ("five dimensions", "has 5 dimensions", files.with_tensor(name, dims=[64, 96, 1, 1, 1])),
            ("a dimension of 0", "dimension 1: got 0", files.with_tensor(name, dims=[64, 0])),
            ("dimensions that overflow", "less than 2\\^63 values", files.with_tensor(name, dims=[1 << 40, 1 << 40])),
            ("a dimension of 2^63", "dimension 0", files.with_tensor(name, dims=[1 << 63, 1])),
            ("bytes that overflow", "less than 2\\^63 bytes", files.with_tensor(name, dims=[1 << 62, 1], kind=0)),
            ("more than the file has", "bytes of data", files.with_tensor(name, dims=[64, 1 << 40])),
            ("rows that are no blocks", "a multiple of 32 for type Q8_0", files.with_tensor(name, dims=[48, 128])),
            ("type 4", "got type type .number 4.", files.with_tensor(name, kind=4)),
            ("type 2^31", "number 2147483648", files.with_tensor(name, kind=1 << 31)),
            ("IQ3_S", "got type IQ3_S .number 21., expected F32", files.with_tensor(name, kind=21)),
            ("a long name", "the name of tensor .* 1 to 63", files.with_tensor(name, to="x" * 64)),
            ("a name with a newline", "the name of tensor", files.with_tensor(name, to="a\nb")),
            ("another shape", r"got dimensions \[96, 64\], .* \[64, 96\]", files.with_tensor(name, dims=[96, 64])),
            ("three dimensions", r"got dimensions \[64, 48, 2\]", files.with_tensor(name, dims=[64, 48, 2])),
            ("another name", "is missing", files.with_tensor(name, to="blk.0.ffn_upper.weight")),
            ("quantised norms", "output_norm.weight: got type Q8_0, expected F32", files.with_tensor(
                "output_norm.weight", kind=8, data=b"\0" * 68)),
            ("no embedding", "token_embd.weight is missing", files.with_tensor("token_embd.weight", to="x")),
            ("more than it should have", "blk.0.attn_q.bias: is no part of a qwen3 model",
             File(g.keys, [*g.tensors, ("blk.0.attn_q.bias", [128], 0, b"\0" * 512)])),
            ("a layer more", "blk.2.attn_norm.weight: is no part",
             File(g.keys, [*g.tensors, ("blk.2.attn_norm.weight", [64], 0, b"\0" * 256)])),
            ("a tensor twice", "tensor .*output_norm.weight: is there twice", File(g.keys, [*g.tensors, next(
                t for t in g.tensors if t[0] == "output_norm.weight")])),
            ("NaN", "NaN|infinite", files.with_tensor(name, data=b"\xff\x7f" + raw[2:]))):
        if what == "NaN":
            a.refused(what, "up_proj.weight: NaN or infinite", "qwen3", "logits", "--model", files.put(data), *LOGITS)
        else:
            files(a, what, words, data)
    offsets = np.cumsum([0] + [-(-len(t[3]) // 32) * 32 for t in g.tensors])[:-1].tolist()
    before = g.header() + g.values()
    for what, words, changed in (
            ("an offset between two", "multiple of the alignment", [offsets[1] + 8, *offsets[1:]]),
            ("an offset behind the file", "bytes of data", [1 << 62, *offsets[1:]]),
            ("the largest offset", "bytes of data", [(1 << 64) - 32, *offsets[1:]]),
            ("data that overlap", "its data overlap those of", [offsets[1], *offsets[1:]]),
            ("all data in one place", "its data overlap those of", [0] * len(offsets))):
        head = before + g.infos(changed)
        files(a, what, words, head + b"\0" * (-len(head) % 32) + g.data())


def check_models(a, files):
    config = [key for key in files.good.keys if key.startswith("qwen3.") and "value_length" not in key and
              "head_count_kv" not in key]
    for key in ("general.architecture", *config):
        for value, words in ((None, "is missing"), ((STRING, "x") if "arch" not in key else (U8, 1), "expected"),
                             ((ARRAY, (U32, [1, 2])), "got an array of u32")):
            files(a, f"{key} {value}", f"{key}.*{words}", files.with_keys(**{key.replace(".", "__"): value}))
    for key, value, words in (
            ("general.architecture", (STRING, "llama"), 'got "llama", expected qwen3 or qwen3moe or qwen2'),
            ("general.architecture", (STRING, "qwen3\0"), "general.architecture"),
            ("qwen3.attention.sliding_window", (U32, 4096), "sliding_window: got 4096"),
            ("qwen3.attention.value_length", (U32, 64), "value_length: got 64"),
            ("qwen3.rope.dimension_count", (U32, 16), "dimension_count: got 16"),
            ("qwen3.rope.scaling.type", (STRING, "linear"), 'got "linear", expected none or yarn'),
            ("qwen3.rope.scaling.type", (STRING, "yarn"), "rope.scaling.factor is missing"),
            ("qwen3.attention.causal", (BOOL, False), "causal: got 0"),
            ("qwen3.attention.causal", (BOOL, 7), "a bool"),
            ("qwen3.attention.head_count_kv", (U32, 3), "head_count: .* multiple of qwen3.attention.head_count_kv"),
            ("qwen3.attention.layer_norm_rms_epsilon", (F32, float("nan")), "norm_rms_epsilon: got nan"),
            ("qwen3.rope.freq_base", (F32, -1.0), "qwen3.rope.freq_base: got -1"),
            ("qwen3.embedding_length", (U32, 0), "qwen3.embedding_length: got 0"),
            ("qwen3.embedding_length", (U32, 128), "got dimensions"),
            ("qwen3.block_count", (U32, 3), "blk.2.* is missing"),
            ("qwen3.block_count", (U32, 1), "is no part of"),
            ("qwen3.block_count", (U64, (1 << 64) - 1), "less than 2\\^63"),
            ("qwen3.block_count", (I32, -1), "got -1"),
            ("tokenizer.ggml.tokens", None, "tokens is missing"),
            ("tokenizer.ggml.tokens", (ARRAY, (STRING, ["a"] * 63)), "got dimensions")):
        for ranks in FEW if "block_count" in key else FEW[:1]:
            files(a, f"{key} {value}", words, files.with_keys(**{key.replace(".", "__"): value}), ranks=ranks)
    for program in (["qwen3", "info"], ["qwen3", "pack", "--output", files.folder / "packed"],
                    ["benchmark_qwen3", "-p", 2, "-n", 1, "-r", 1]):
        a.refused("another architecture", 'bad.gguf: .*got "gpt2"', *program, "--model",
                  files.put(files.with_keys(general__architecture=(STRING, "gpt2"))))


def check_experts(a, folder):
    folder.mkdir()
    files = Files(folder, dataclasses.replace(SHAPE, model_type="qwen3_moe", experts=4, chosen=2, moe_inter=96))
    a.works("the good experts", "qwen3", "logits", "--model", files.put(files.good, "good.gguf"), *LOGITS)
    for key, value, words in (
            ("expert_count", None, "expert_count is missing"),
            ("expert_count", (U32, 0), "expert_count: got 0, expected at least 1"),
            ("expert_count", (U32, 5), r"ffn_gate_inp.weight: got dimensions \[64, 4\], .* demand \[64, 5\]"),
            ("expert_used_count", (U32, 5), "qwen3moe.expert_used_count: got 5, expected 1 to 4"),
            ("expert_feed_forward_length", (U32, 64), r"ffn_gate_exps.weight: got .* demand \[64, 64, 4\]"),
            ("expert_weights_norm", (U32, 1), "a bool")):
        files(a, f"{key} {value}", words, files.with_keys(**{f"qwen3moe__{key}": value}))
    stack = "blk.1.ffn_up_exps.weight"
    files(a, "another stack", f"{stack}: got dimensions", files.with_tensor(stack, dims=[64, 48, 8]))
    files(a, "no stack", f"{stack} is missing", files.with_tensor(stack, to="blk.1.other.weight"))


def check_splits(a, files):
    parts = files.good.split(3)
    paths = [files.put(part, gguf_file.part_name("m", i, 3)) for i, part in enumerate(parts)]

    def refused(what, words, first=paths[0]):
        for ranks in FEW:
            a.refused(what, words, "qwen3", "logits", "--model", first, *LOGITS, ranks=ranks)

    a.works("three parts", "qwen3", "logits", "--model", paths[0], *LOGITS)
    refused("the second part", r"m-00002-of-00003\.gguf: is part 2 of 3, expected the first one, .*m-00001-of-00003",
            paths[1])
    refused("a part under another name", r'other\.gguf: is part 1 of 3.* ends in "-00001-of-00003\.gguf"',
            files.put(parts[0], "other.gguf"))
    paths[2].unlink()
    refused("a part that is missing", r"part 3 of 3 is missing: no file .*m-00003-of-00003\.gguf")
    files.put(parts[1], paths[2].name)
    refused("a part that is another one", "m-00003-of-00003.gguf: says that it is part 2 of 3, expected 3 of 3")
    files.put(File({}, parts[2].tensors), paths[2].name)
    refused("a part that is none", "says that it is part 1 of 1, expected 3 of 3")
    files.put(File(parts[2].keys, parts[1].tensors), paths[2].name)
    refused("a tensor in two parts", r"m-0000\d-of-00003\.gguf: tensor .* is there twice, also in .*m-0000\d-of")
    files.put(File(parts[2].keys, parts[2].tensors[1:]), paths[2].name)
    refused("a part with less", "split.tensors.count: got .*, but the 3 parts have")
    for count, no in ((0, 0), (100000, 0), (65535, 65535), (3, 3)):
        refused(f"part {no} of {count}", "split.no .*, split.count",
                files.put(File({**parts[0].keys, "split.count": (U32, count), "split.no": (U16, no)}, parts[0].tensors),
                          "bad.gguf"))
    refused("no number", "split.no is missing",
            files.put(File({k: v for k, v in parts[0].keys.items() if k != "split.no"}, parts[0].tensors), "bad.gguf"))


def check_text(a, files, directory):
    good = gguf_file.tokenizer_keys(directory, TextModel(directory).n_tokens + UNUSED_ROWS)
    config, _ = gguf_file.convert(directory, lambda *_: "F16", good)
    tokens, types = (list(good[f"tokenizer.ggml.{key}"][1][1]) for key in ("tokens", "token_type"))
    merges = good["tokenizer.ggml.merges"][1][1]

    def changed(key, value):
        return files.put(File({k: v for k, v in {**config.keys, key: value}.items() if v is not None}, config.tensors))

    def listed(values, i, value, kind=STRING):
        return ARRAY, (kind, [*values[:i], value, *values[i + 1 :]])

    t = "tokenizer.ggml."
    for key, value, words in (
            (t + "model", (STRING, "llama"), 'model: got "llama", expected gpt2'),
            (t + "pre", (STRING, "llama-bpe"), 'pre: got "llama-bpe", expected qwen2'),
            (t + "pre", None, "pre is missing"),
            (t + "tokens", (ARRAY, (U32, [1])), "got an array of u32, expected an array of strings"),
            (t + "token_type", None, "token_type is missing"),
            (t + "token_type", (ARRAY, (I32, types[:-1])), "expected one for each of"),
            (t + "token_type", listed(types, 3, 2, I32), "token 3 has type 2"),
            (t + "tokens", listed(tokens, 3, tokens[4]), "ids 3 and 4 are the same token"),
            (t + "tokens", listed(tokens, 3, "a b"), "token 3 is not in the byte-level alphabet"),
            (t + "tokens", listed(tokens, 3, ""), "id 3 has 0 bytes"),
            (t + "tokens", listed(tokens, 3, "x" * 5000), "id 3 has 5000 bytes"),
            (t + "tokens", listed(tokens, 3, b"\xff"), "token 3 is not in"),
            (t + "tokens", listed(tokens, 0, "!!!!"), "no token for the byte 0x"),
            (t + "merges", None, "merges is missing"),
            (t + "merges", listed(merges, 1, "ab"), "merge 1: expected two tokens"),
            (t + "merges", listed(merges, 1, "zzz yyy"), "merge 1: expected two tokens"),
            (t + "merges", listed(merges, 1, merges[0]), "merge 1 is there twice"),
            (t + "merges", (ARRAY, (STRING, merges[::-1])), "merge .* uses what merge")):
        a.refused(f"{key} {str(value)[:40]}", f"bad.gguf: .*({words})", "qwen3", "tokenize", "--model",
                  changed(key, value), stdin=b"x")
    for key, value, words in ((t + "eos_token_id", (U32, len(tokens)), "eos_token_id: got .* expected the id"),
                              (t + "eos_token_id", (I32, -1), "eos_token_id: got -1"),
                              (t + "eot_token_id", (STRING, "x"), "eot_token_id: got string"),
                              ("general.sampling.temp", (F32, -1.0), "general.sampling.temp"),
                              ("general.sampling.top_p", (STRING, "1"), "general.sampling.top_p: got string"),
                              ("tokenizer.chat_template", None, "chat_template is missing"),
                              ("tokenizer.chat_template", (BOOL, True), "chat_template: got bool")):
        a.refused(f"{key} {value}", f"bad.gguf: .*({words})", "qwen3", "run", "--model", changed(key, value), "x")
    outcome = a.works("general.sampling", "qwen3", "run", "--model", changed("general.sampling.top_k", (I32, -1)), "x",
                      "--max-tokens", 2)
    a.true("an answer", outcome.ok, outcome)


def main():
    a = Attacks()
    with scratch() as directory:
        files = Files(directory)
        a.works("the good file", "qwen3", "logits", "--model", files.put(files.good, "good.gguf"), *LOGITS)
        check_truncations(a, files)
        check_headers(a, files)
        check_keys(a, files)
        check_tensors(a, files)
        check_models(a, files)
        check_experts(a, directory / "experts")
        check_splits(a, files)
        check_text(a, files, directory / "text")
    return a.finish()


if __name__ == "__main__":
    sys.exit(main())
