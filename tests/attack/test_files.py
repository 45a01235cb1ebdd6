#!/usr/bin/env python3
"""Files: what e2e/test_bad_input.py does not damage. Configurations, tokenizers and sampling defaults with each value
replaced, numbers that do not fit, links and special files, memory without /proc, and what is printed before a fault."""
import copy
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np

from refusals import BIN, EMULATOR, ENVIRONMENT, FEW, FULL, SANITIZED, Attacks, execute

from e2e import RANKS, scratch

import make_checkpoint
import test_gptq_awq
from test_bad_input import FILES, SHAPE, VALUES, config, content, read_file, write_file
from text_model import TextModel

LOGITS = ["--tokens", "1,2", "--output", os.devnull]
BENCHMARK = ["-p", 2, "-n", 1, "-r", 1]
BIG = "99999999999999999999"
# Values that a key may be given instead of its own.
OTHERS = [None, True, False, -1, 0, 0.5, 1e300, 1 << 40, "", "x", [], [1], {}, {"a": 1}]


class Damages:
    def __init__(self, good):
        self.good = good

    def __call__(self, damage):
        damaged = self.good.parent / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(self.good, damaged)
        damage(damaged)
        return damaged


def check_configurations(a, damaged):
    """Each key of a configuration with values of every kind: none may pass that makes another model of it."""
    if 1 not in RANKS:
        return
    keys = json.loads((damaged.good / "config.json").read_text())
    unread = {"transformers_version", "torch_dtype", "eos_token_id", "bos_token_id", "initializer_range", "use_cache",
              "attention_dropout", "sliding_window", "max_window_layers"}  # of training, or of windows that are off
    for key in sorted(set(keys) - unread):
        for value in OTHERS if FULL else [o for i, o in enumerate(OTHERS) if (i + len(key)) % 3 == 0]:
            if value == keys[key] or (not value and key == "rope_scaling") or (
                    value is None and key in ("model_type", "architectures", "use_sliding_window")):
                continue
            words = rf"{key}|{key.split('_')[0]}|weight|model_type"  # or a tensor that has another shape then
            outcome = execute(1, "qwen3", "logits", "--model", damaged(config(**{key: value})), *LOGITS)
            if outcome.ok:  # where it may be any positive number
                positive = isinstance(value, (int, float)) and value > 0
                a.true(f"{key} = {value!r} is taken", positive and
                       key in ("rms_norm_eps", "rope_theta", "max_position_embeddings"), outcome)
            else:
                a.refused(f"{key} = {value!r}", words, "qwen3", "logits", "--model", damaged.good.parent / "damaged",
                          *LOGITS)


def check_layer_types(a, damaged):
    full, layers = "full_attention", SHAPE.layers
    for value, words in ((full, "expected an array"), ({}, "expected an array"), (1, "expected an array"),
                         ([], "has 0 entries, expected num_hidden_layers"),
                         ([full] * (layers + 1), f"has {layers + 1} entries"), ([full] * (layers - 1), "has 1 entries"),
                         ([full, None], "got null"), ([full, full + " "], 'got "full_attention "'),
                         ([full, "sliding_attention"], "sliding_attention")):
        for ranks in FEW:
            a.refused(f"layer_types {value}", f"layer_types.*{words}", "qwen3", "logits", "--model",
                      damaged(config(layer_types=value)), *LOGITS, ranks=ranks)
    a.works("layer_types of every layer", "qwen3", "logits", "--model", damaged(config(layer_types=[full] * layers)),
            *LOGITS)


def numbers(text):
    """Config text -> the text with `vocab_size` written so."""
    return content("config.json", lambda raw: re.sub(rb'"vocab_size": *\d+', b'"vocab_size": ' + text, raw))


def check_numbers(a, damaged):
    """A number that does not fit is named with its key, in whatever file."""
    def nested(directory):
        path = directory / "config.json"
        text = path.read_text().rstrip().removesuffix("}")
        path.write_text(text + f', "more": {{"type": "\\\\\\"", "factor": [1, {{"x": 2}}, {BIG}]}}}}')

    def tensor(directory):
        header, data = read_file(directory / "model.safetensors")
        name = "model.norm.weight"
        header[name]["shape"] = [7777777]
        text = json.dumps(header).replace("7777777", BIG).encode()
        write_file(directory / "model.safetensors", text, data)

    def generation(directory):
        (directory / "generation_config.json").write_text(f'{{"do_sample": true, "top_k": {BIG}}}')

    for what, damage, words, command in (
            ("an integer", numbers(BIG.encode()), f"vocab_size: too big integer near '{BIG}'", "logits"),
            ("a negative one", numbers(b"-" + BIG.encode()), "vocab_size: too big negative integer", "logits"),
            ("a real", numbers(b"1e999"), "vocab_size: real number overflow", "logits"),
            ("a nested one", nested, f"factor: too big integer near '{BIG}'", "logits"),
            ("one of a tensor", tensor, "model.safetensors: .*shape: too big integer", "logits"),
            ("one of sampling", generation, "generation_config.json: .*top_k: too big integer", "run")):
        options = LOGITS if command == "logits" else ["x"]
        a.refused(what, words, "qwen3", command, "--model", damaged(damage), *options)
        a.refused(what, words, "qwen3", command, "--model", damaged(damage), *options, ranks=FEW[-1])


def check_special_files(a, damaged):
    """No name of a model's directory makes a program wait, whatever stands under it, or is passed over."""
    def pipe(path):
        os.mkfifo(path)

    def loop(path):
        path.symlink_to(path.name)

    def dangling(path):
        path.symlink_to("nothing")

    def device(path):
        path.symlink_to("/dev/zero")

    def huge(path):
        with path.open("wb") as file:
            file.truncate(101 << 20)

    kinds = {pipe: "is a pipe", loop: "Too many levels of symbolic links", dangling: "No such file", device: "a device",
             huge: "bytes|line 1|header", pathlib.Path.mkdir: "is a directory"}
    for name in ("config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        for make, words in kinds.items():
            def damage(directory):
                (directory / name).unlink()
                make(directory / name)
            if make is huge and name == "chat_template.jinja":
                words = "has no <.im_start.>"
            a.refused(f"{name} is {make.__name__}", rf"{re.escape(name)}.*({words})", "qwen3", "run", "--model",
                      damaged(damage), "x")
    a.refused("a pipe on several ranks", "config.json: is a pipe", "qwen3", "run", "--model",
              damaged(lambda d: ((d / "config.json").unlink(), pipe(d / "config.json"))), "x", ranks=FEW[-1])


def paths_of(value, path=()):
    """The places of a JSON value, each once for elements of long arrays and objects."""
    yield path
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, child in inner if len(inner) < 20 else [inner[0], inner[len(inner) // 2], inner[-1]]:
        yield from paths_of(child, (*path, key))


def replaced(value, path, other):
    value = copy.deepcopy(value)
    at = value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = other
    return value


def check_tokenizers(a, damaged):
    """Each value of a tokenizer, settings and tables, replaced by one of another kind."""
    good = json.loads((damaged.good / "tokenizer.json").read_text(encoding="utf-8"))
    # These may say what they like, or have no effect.
    free = {"version", "truncation", "padding", "single_word", "trim_offsets", "add_prefix_space", "use_regex"}
    number = 0
    for path in list(paths_of(good))[1:] if 1 in RANKS else []:
        for other in (None, 7, "zz", [], {"zz": 1}):
            number += 1
            at = good
            for key in path:
                at = at[key]
            if other == at or type(other) is type(at) is not str or not (FULL or number % 5 == 0):
                continue
            text = json.dumps(replaced(good, path, other), ensure_ascii=False).encode()
            outcome = execute(1, "qwen3", "tokenize", "--model", damaged(content("tokenizer.json", lambda _: text)),
                              stdin=b"zz and more")
            where = ".".join(map(str, path))
            if outcome.ok:
                a.true(f"{where} = {other!r} is taken", path[-1] in free or other is None or "added_tokens" in path or
                       "vocab" in path, outcome)
            else:
                a.refused(f"{where} = {other!r}", "tokenizer.json: ", "qwen3", "tokenize", "--model",
                          damaged.good.parent / "damaged", stdin=b"zz and more")
    raw = (damaged.good / "tokenizer.json").read_bytes()
    for what, text in (("cut short", raw[:-20]), ("cut in half", raw[:len(raw) // 2]), ("not UTF-8", b"\xff" + raw),
                       ("with bytes behind", raw + b"{}"), ("twice", raw + raw), ("zeros", b"\0" * 1000),
                       ("a GGUF file", b"GGUF\3\0\0\0" + b"\0" * 100), ("deep", b"[" * 100000),
                       ("deep in a section", raw.replace(b'"truncation": null', b'"truncation": ' + b"[" * 100000, 1)),
                       ("a big id", re.sub(rb'"id": *\d+', b'"id": ' + BIG.encode(), raw, count=1))):
        a.refused(f"a tokenizer {what}", "tokenizer.json: ", "qwen3", "tokenize", "--model",
                  damaged(content("tokenizer.json", lambda _: text)), stdin=b"x")


def check_generation(a, damaged):
    for key, value, words in (("temperature", "1", "temperature"), ("temperature", -1, "temperature"),
                              ("top_k", 1.5, "top_k"), ("top_k", -5, "top_k"), ("top_k", 1 << 40, "top_k"),
                              ("top_p", 7, "top_p"), ("min_p", [], "min_p"), ("repetition_penalty", 0, "repetition"),
                              ("do_sample", "yes", "do_sample"), ("eos_token_id", -1, "eos_token_id"),
                              ("eos_token_id", [1, "2"], "eos_token_id"), ("eos_token_id", list(range(1000)), "more")):
        damage = content("generation_config.json", lambda _: json.dumps({"do_sample": True, key: value}).encode())
        for ranks in FEW if FULL or key == "top_k" else FEW[:1]:
            a.refused(f"{key} {value!r}"[:60], f"generation_config.json: .*{words}", "qwen3", "run", "--model",
                      damaged(damage), "x", ranks=ranks)


def check_benchmark(a, damaged):
    """A bad checkpoint is reported before anything of the table is printed, in the form for people, too."""
    for number, (what, damage, words) in enumerate(FILES + VALUES):
        if what == "NaN in the embedding of token 2" or not (FULL or number % 4 == 0 or number >= len(FILES)):
            continue
        for options in (["-o", "table"], ["--prompt-len", 4, "--gen-len", 2, "--verify"]):
            a.refused(f"benchmark {options}: {what}", words, "benchmark_qwen3", "-m", damaged(damage), *options,
                      *([] if len(options) > 2 else BENCHMARK))
    a.refused("benchmark on several ranks", VALUES[0][2], "benchmark_qwen3", "-m", damaged(VALUES[0][1]), "-o", "table",
              *BENCHMARK, ranks=FEW[-1])
    out = a.works("a good one", "benchmark_qwen3", "-m", damaged.good, "-o", "table", *BENCHMARK).out
    a.true("topology, plan and table are on standard output", re.match("ranks .*\nprocessor .*\nrank 0 .*\nplan ", out),
           out)


def check_without_proc(a, model):
    """Where /proc is missing, as in some containers, there is still memory."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if EMULATOR or SANITIZED or subprocess.run([*hidden, "true"], capture_output=True).returncode:
        print("without /proc: skipped, needs root and namespaces, and no sanitizer")
        return
    done = subprocess.run([*hidden, BIN / "qwen3", "logits", "--model", model, *map(str, LOGITS)], text=True,
                          capture_output=True, timeout=60,
                          env={**ENVIRONMENT, "LD_LIBRARY_PATH": str(BIN.parent / "lib")})  # $ORIGIN needs /proc
    if "Init_thread" in done.stderr:
        print("without /proc: skipped, this MPI does not start there")
        return
    a.true("a model is loaded without /proc", done.returncode == 0, done.stderr)


def check_groups(a, directory):
    """Matrices of GPTQ and AWQ: every tensor beside them, their types and shapes, and what config.json says of them."""
    stem = "model.layers.1.mlp.up_proj"
    random = np.random.RandomState(5)
    models = {name: (directory / name, test_gptq_awq.make_model(directory / name, *test_gptq_awq.FORMS[name], random))
              for name in ("gptq", "awq")}
    groups = models["gptq"][1][f"{stem}.g_idx"][1]
    ordered = {**test_gptq_awq.GPTQ, "desc_act": True}

    def other(place, value):
        changed = groups.copy()
        changed[place] = value
        return ("I32", changed)

    for name, ending, value, config, words in (
            ("gptq", "qzeros", None, None, "up_proj.qweight: has no qzeros beside it"),
            ("awq", "scales", None, None, "up_proj.qweight: has no scales beside it"),
            ("awq", "qweight", None, None, "up_proj.weight is missing"),
            ("gptq", "g_idx", None, ordered, "has no g_idx, and config.json says desc_act"),
            ("gptq", "g_idx", other(159, 4), None, "g_idx: got group 4 for column 159, expected 0 to 3"),
            ("gptq", "g_idx", other(0, -1), None, "g_idx: got group -1 for column 0"),
            ("gptq", "g_idx", other(7, -(2**31)), None, "g_idx: got group -2147483648 for column 7"),
            ("gptq", "g_idx", ("I32", groups[:-1]), None, "g_idx: got shape .159., config.json demands .160."),
            ("gptq", "g_idx", ("F32", groups), None, "g_idx: got type F32, expected I32"),
            ("gptq", "scales", ("I32", np.zeros((4, 208), "<i4")), None, "scales: got type I32"),
            ("gptq", "scales", ("F16", np.full((4, 208), np.inf, "<f2")), None, "up_proj.weight: NaN or infinite"),
            ("gptq", "scales", ("F16", np.ones((3, 208), "<f2")), None, "scales: got shape .3, 208., .* .4, 208."),
            ("gptq", "qzeros", ("I32", np.zeros((4, 208), "<i4")), None, "qzeros: got shape .4, 208., .* .4, 26."),
            ("gptq", "qweight", ("F32", np.zeros((20, 208), "<f4")), None, "qweight: got type F32, expected I32"),
            ("awq", "qweight", ("I32", np.zeros((20, 208), "<i4")), None, "qweight: got shape .20, 208., .*160, 26"),
            ("gptq", "qweight", ("I32", np.zeros(4160, "<i4")), None, "qweight: got shape .4160."),
            ("gptq", "none", None, {**test_gptq_awq.GPTQ, "group_size": 2**62}, "got shape .4, .* .1, "),
            ("gptq", "none", None, {**test_gptq_awq.GPTQ, "group_size": 2}, "got shape .4, .* .80, "),
            ("gptq", "none", None, {**test_gptq_awq.GPTQ, "bits": 8}, "qweight: got shape .* .40, "),
            ("gptq", "none", None, test_gptq_awq.AWQ, "qweight: got shape .20, "),
            ("awq", "none", None, {"quant_method": "fp8", "weight_block_size": [128, 128]},
             "has no quantization_config of quant_method"),
            ("awq", "none", None, False, "quantization_config: got false"),
            ("awq", "none", None, {**test_gptq_awq.AWQ, "bits": 3}, "quantization_config.bits: got 3, expected 4")):
        model, tensors = models[name]
        damaged = {key: tensors[key] for key in tensors if key != f"{stem}.{ending}"}
        test_gptq_awq.write(model / "model.safetensors", damaged | ({f"{stem}.{ending}": value} if value else {}))
        test_gptq_awq.set_config(model, quantization_config=test_gptq_awq.FORMS[name][0] if config is None else config)
        a.refused(f"{name}: {ending} {config}", words, "qwen3", "logits", "--model", model, *LOGITS)


def main():
    a = Attacks()
    with scratch() as directory:
        text = TextModel(directory / "text", sampling={"do_sample": True}).directory
        make_checkpoint.make_checkpoint(directory / "model", SHAPE, "bf16")
        model = Damages(directory / "model")
        check_configurations(a, model)
        check_layer_types(a, model)
        check_numbers(a, Damages(text))
        check_special_files(a, Damages(text))
        check_tokenizers(a, Damages(text))
        check_generation(a, Damages(text))
        check_benchmark(a, model)
        check_without_proc(a, model.good)
        check_groups(a, directory)
    return a.finish()


if __name__ == "__main__":
    sys.exit(main())
