#!/usr/bin/env python3
"""Bad input through the programs: damaged checkpoints, contradicting configurations, absurd options, a rank that
cannot see what the others see, copies that a foreign launcher started.

Every case must end within a minute, with an exit status that is not 0 on any rank, nothing on standard output,
and exactly one message, on standard error, that names the culprit.
"""
import dataclasses
import json
import os
import re
import shutil
import struct
import subprocess
import sys

from e2e import BIN, FULL, LAUNCH, MPIEXEC, RANKS, Checks, run, scratch

import make_checkpoint

SHAPE = make_checkpoint.Shape(hidden=32, inter=48, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=64, tied=False,
                              max_positions=16)
MESSAGE = re.compile(r"^qwen3: error: (.*)$", re.MULTILINE)
CRASH = re.compile(r"Sanitizer|runtime error:|[Ss]egmentation fault|core dumped|on signal \d|Assertion")
LAYER0 = "model.layers.0."
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

# Runs a program on one rank and records how it ended. On rank $BAD_RANK the argument $GOOD becomes $BAD.
WRAPPER = """#!/bin/sh
rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}
if [ "$rank" = "${BAD_RANK:-none}" ]; then
    for argument do
        shift
        [ "$argument" = "$GOOD" ] && argument=$BAD
        set -- "$@" "$argument"
    done
fi
"$@"
status=$?
echo $status > "$STATUS_DIR/$rank"
exit $status
"""


# ---- Ways to damage a checkpoint: functions of its directory ---------------------------------------


def read_file(path):
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_file(path, header, data, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def header(change, file="model.safetensors"):
    """change(header): alters the parsed header in place, or returns the text to write instead."""
    def damage(directory):
        parsed, data = read_file(directory / file)
        text = change(parsed)
        write_file(directory / file, text if isinstance(text, bytes) else parsed, data)
    return damage


def tensor(name, **fields):
    return header(lambda parsed: parsed[name].update(fields))


def rename(old, new):
    return header(lambda parsed: parsed.update({new: parsed.pop(old)}))


def twice(parsed):
    """The first tensor's name stands twice in the header."""
    name = LAYER0 + "input_layernorm.weight"
    return json.dumps(parsed).replace("{", '{"%s": %s, ' % (name, json.dumps(parsed[name])), 1).encode()


def shift_offsets(name, begin, end):
    def change(parsed):
        offsets = parsed[name]["data_offsets"]
        parsed[name]["data_offsets"] = [offsets[0] + begin, offsets[1] + end]
    return header(change)


def value(name, index, bits):
    """Puts a BF16 into a tensor, at a flat index."""
    def damage(directory):
        path = directory / WEIGHTS
        parsed, data = read_file(path)
        begin = parsed[name]["data_offsets"][0] + 2 * index
        write_file(path, parsed, data[:begin] + struct.pack("<H", bits) + data[begin + 2 :])
    return damage


def content(file, change):
    """change(bytes) -> bytes."""
    return lambda directory: (directory / file).write_bytes(change((directory / file).read_bytes()))


def remove(file):
    return lambda directory: (directory / file).unlink()


def config(**fields):
    """Sets keys of config.json; None stands for null."""
    return content("config.json", lambda raw: json.dumps({**json.loads(raw), **fields}).encode())


def without(key):
    def change(raw):
        parsed = json.loads(raw)
        del parsed[key]
        return json.dumps(parsed).encode()
    return content("config.json", change)


def index(change):
    def edit(raw):
        parsed = json.loads(raw)
        change(parsed)
        return json.dumps(parsed).encode()
    return content(INDEX, edit)


def second_copy(directory):
    """A tensor of the second shard stands in the first one, too."""
    names = sorted(file.name for file in directory.glob("*.safetensors"))
    first, data = read_file(directory / names[0])
    second, more = read_file(directory / names[1])
    name = next(key for key in second if key != "__metadata__")
    begin, end = second[name]["data_offsets"]
    first[name] = {**second[name], "data_offsets": [len(data), len(data) + end - begin]}
    write_file(directory / names[0], first, data + more[begin:end])


def replace_by_directory(file):
    def damage(directory):
        (directory / file).unlink()
        (directory / file).mkdir()
    return damage


SHARD = "model-00002-of-00003.safetensors"
Q, NORM = LAYER0 + "self_attn.q_proj.weight", LAYER0 + "input_layernorm.weight"

# (what, damage, pattern that the message must contain); the program that is run is any that opens a model.
FILES = [
    ("no weights", remove(WEIGHTS), WEIGHTS),
    ("no config", remove("config.json"), "config.json"),
    ("config is a directory", replace_by_directory("config.json"), "config.json"),
    ("weights are a directory", replace_by_directory(WEIGHTS), WEIGHTS),
    ("empty weights", content(WEIGHTS, lambda raw: b""), WEIGHTS),
    ("file ends in the header length", content(WEIGHTS, lambda raw: raw[:7]), WEIGHTS),
    ("file ends in the header", content(WEIGHTS, lambda raw: raw[:100]), WEIGHTS),
    ("file ends in the data", content(WEIGHTS, lambda raw: raw[:-1]), WEIGHTS),
    ("bytes after the data", content(WEIGHTS, lambda raw: raw + b"\0" * 8), WEIGHTS),
    ("header longer than the file", content(WEIGHTS, lambda raw: struct.pack("<Q", len(raw)) + raw[8:]), WEIGHTS),
    ("header length 2^64 - 1", content(WEIGHTS, lambda raw: b"\xff" * 8 + raw[8:]), WEIGHTS),
    ("header length 0", content(WEIGHTS, lambda raw: b"\0" * 8 + raw[8:]), WEIGHTS),
    ("header is not JSON", content(WEIGHTS, lambda raw: raw[:8] + b"}" + raw[9:]), WEIGHTS),
    ("header is a list", header(lambda parsed: b"[]"), WEIGHTS),
    ("a tensor is a number", header(lambda parsed: parsed.update({NORM: 1})), NORM),
    ("a tensor without offsets", header(lambda parsed: parsed[NORM].pop("data_offsets")), NORM),
    ("a tensor without shape", header(lambda parsed: parsed[NORM].pop("shape")), NORM),
    ("offset is text", tensor(NORM, data_offsets=["0", "64"]), NORM),
    ("offsets are negative", tensor(NORM, data_offsets=[-64, 0]), NORM),
    ("offsets end before they begin", tensor(NORM, data_offsets=[64, 0]), NORM),
    ("offset beyond the file", shift_offsets("model.norm.weight", 1 << 40, 1 << 40), "model.norm.weight"),
    ("offset beyond 63 bits", tensor(NORM, data_offsets=[0, 1 << 64]), WEIGHTS),
    ("tensors overlap", shift_offsets(Q, -64, -64), r"q_proj|k_norm|q_norm|offset"),
    ("tensor larger than its shape", shift_offsets("model.norm.weight", -2, 0), "model.norm.weight"),
    ("tensor named twice", header(twice), WEIGHTS),
    ("tensor missing", rename(Q, "model.layers.0.self_attn.qq_proj.weight"), "q_proj"),
    ("final norm missing", rename("model.norm.weight", "model.other.weight"), "model.norm.weight"),
    ("output head missing", rename("lm_head.weight", "lm_tail.weight"), "lm_head.weight"),
    ("bias of a known layer", header(lambda parsed: parsed.update(
        {LAYER0 + "self_attn.q_proj.bias": parsed.pop(LAYER0 + "self_attn.q_norm.weight")})), "q_proj.bias|q_norm"),
    ("layer beyond the last", config(num_hidden_layers=1), r"layers\.1\.|num_hidden_layers"),
    ("layer missing", config(num_hidden_layers=3), r"layers\.2\."),
    ("shape transposed", tensor(LAYER0 + "self_attn.o_proj.weight", shape=[128, 32]), r"o_proj\.weight"),
    ("vector stored as matrix", tensor(NORM, shape=[1, 32]), NORM),
    ("shape product overflows", tensor(NORM, shape=[1 << 62, 1 << 62]), NORM),
    ("negative shape", tensor(NORM, shape=[-1, -32]), NORM),
    ("dtype unknown", tensor(NORM, dtype="X99"), NORM),
    ("dtype not handled", tensor(NORM, dtype="I16"), NORM),
    ("config is not JSON", content("config.json", lambda raw: raw[:-20]), "config.json"),
    ("config is a list", content("config.json", lambda raw: b"[1]"), "config.json"),
    ("config names a key twice", content("config.json", lambda raw: raw.replace(b"{", b'{"vocab_size": 7,', 1)),
     "vocab_size|duplicate"),
    *[(f"config without {key}", without(key), key) for key in
      ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
       "num_key_value_heads", "rms_norm_eps", "rope_theta", "max_position_embeddings")],
    ("config without architecture", content("config.json", lambda raw: raw.replace(b"model_type", b"type").replace(
        b"architectures", b"buildings")), "architectures"),
    ("hidden_size is text", config(hidden_size="32"), "hidden_size"),
    ("hidden_size 0", config(hidden_size=0), "hidden_size"),
    ("vocab_size negative", config(vocab_size=-64), "vocab_size"),
    ("intermediate_size beyond memory", config(intermediate_size=1 << 62), "intermediate_size|gate_proj"),
    ("layers beyond reason", config(num_hidden_layers=1 << 40), "num_hidden_layers"),
    ("heads not divisible by KV heads", config(num_key_value_heads=3), "num_key_value_heads"),
    ("more KV heads than heads", config(num_key_value_heads=8), "num_key_value_heads"),
    ("odd head_dim", config(head_dim=31), "head_dim"),
    ("rms_norm_eps negative", config(rms_norm_eps=-1), "rms_norm_eps"),
    ("rope_theta 0", config(rope_theta=0), "rope_theta"),
    ("another architecture", config(architectures=["MistralForCausalLM"]), "MistralForCausalLM|architectures"),
    ("another activation", config(hidden_act="gelu"), "hidden_act"),
    ("attention bias", config(attention_bias=True), "attention_bias"),
    ("sliding window", config(use_sliding_window=True, sliding_window=8), "sliding_window"),
    ("rope type unknown", config(rope_scaling={"rope_type": "linear", "factor": 2}), "linear|rope_type"),
    ("yarn without factor", config(rope_scaling={"rope_type": "yarn", "original_max_position_embeddings": 8}),
     "factor"),
    ("wrong vocab_size", config(vocab_size=63), r"embed_tokens\.weight|lm_head\.weight"),
]
SHARDED = [
    ("shard missing", remove(SHARD), SHARD),
    ("shard cut short", content(SHARD, lambda raw: raw[:-1]), SHARD),
    ("index is not JSON", content(INDEX, lambda raw: raw[:50]), INDEX),
    ("index without weight_map", index(lambda parsed: parsed.pop("weight_map")), "weight_map"),
    ("index leads out by ..", index(lambda parsed: parsed["weight_map"].update({Q: "../" + SHARD})), r"\.\./"),
    ("index leads to the root", index(lambda parsed: parsed["weight_map"].update({Q: "/etc/passwd"})), "/etc/passwd"),
    ("index names a number", index(lambda parsed: parsed["weight_map"].update({Q: 7})), "q_proj|weight_map"),
    ("index names the wrong shard", index(lambda parsed: parsed["weight_map"].update(
        {"model.norm.weight": "model-00001-of-00003.safetensors"})), "model.norm.weight"),
    ("index names a tensor too many", index(lambda parsed: parsed["weight_map"].update(
        {"model.layers.0.extra.weight": SHARD})), "extra"),
    ("tensor in two shards", second_copy, r"model-0000[12]-of-00003"),
]
# Damage that only reading the values can find.
VALUES = [
    ("NaN in a matrix", value(Q, 1000, 0x7FC0), r"q_proj\.weight"),
    ("infinity in a matrix", value(LAYER0 + "mlp.down_proj.weight", 1535, 0x7F80), r"down_proj\.weight"),
    ("NaN in a norm", value(NORM, 31, 0xFFC0), "input_layernorm"),
    ("NaN in the embedding of token 2", value("model.embed_tokens.weight", 2 * 32, 0x7FC0),
     "embed_tokens|not a number"),
    ("NaN in the output head", value("lm_head.weight", 5, 0x7FC0), "lm_head"),
]
# Options of qwen3 logits that replace the good ones; None removes the option.
OPTIONS = [
    ("no model", {"--model": None}, "--model"),
    ("model directory missing", {"--model": "/nowhere/at/all"}, "/nowhere/at/all.*README"),
    ("a published model that was not fetched", {"--model": "models/qwen3-1.7b-base/"},
     r"qwen3-1\.7b-base.*get-model\.sh Qwen3-1\.7B-Base.* models/Qwen3-1\.7B-Base$"),
    ("empty model name", {"--model": ""}, "--model"),
    ("unknown synthetic size", {"--model": "synthetic:9000B"}, "9000B"),
    ("no tokens", {"--tokens": None}, "--tokens"),
    ("empty tokens", {"--tokens": ""}, "--tokens"),
    ("token out of range", {"--tokens": "1,64,2"}, "64"),
    ("token negative", {"--tokens": "1,-1"}, "-1"),
    ("token is a word", {"--tokens": "1,two"}, "two"),
    ("token beyond 32 bits", {"--tokens": "4294967297"}, "4294967297"),
    ("token file missing", {"--tokens": "@/nowhere/ids"}, "/nowhere/ids"),
    ("sequence longer than the model's positions", {"--tokens": ",".join(["1"] * 17)}, "17|16"),
    ("no output", {"--output": None}, "--output"),
    ("output cannot be made", {"--output": "/nowhere/out.f32"}, "/nowhere/out.f32"),
    ("output device is full", {"--output": "/dev/full"}, "/dev/full"),
    ("unknown option", {"--no-such-option": "1"}, "--no-such-option"),
    ("unknown strategy", {"--parallel-strategy": "diagonal"}, "diagonal"),
    ("unknown algorithm", {"--attention-algo": "magic"}, "magic"),
    ("unknown dtype", {"--dtype": "f17"}, "f17"),
    ("keys and values are not kept in q4", {"--kv-dtype": "q4"}, "kv-dtype.*q4.*q8"),
    ("dtype f16 is not kept in memory", {"--dtype": "f16"}, "f16"),
    ("threads 0", {"--threads": "0"}, "--threads"),
    ("threads negative", {"--threads": "-2"}, "--threads"),
    ("threads is text", {"--threads": "2x"}, "--threads"),
    ("threads beyond 64 bits", {"--threads": "99999999999999999999"}, "--threads"),
    ("grid is no grid", {"--grid": "two"}, "--grid"),
    ("grid with zero", {"--grid": "0x1"}, "--grid"),
    ("grid of too many ranks", {"--grid": "7x11"}, "--grid"),
    ("grid contradicts strategy", {"--grid": "1x1", "--parallel-strategy": "sequence"}, "--grid"),
    ("decode from 0", {"--decode-from": "0"}, "--decode-from"),
    ("decode from beyond the prompt", {"--decode-from": "4"}, "--decode-from"),
    ("token-split-min 0", {"--token-split-min": "0"}, "--token-split-min"),
]
BENCHMARK = [
    ("phase unknown", ["--phase", "encode"], "--phase"),
    ("method unknown", ["--method", "magic"], "--method"),
    ("batch of none", ["--batch-size", "0"], "--batch-size"),
    ("prompt of none", ["--prompt-len", "0"], "--prompt-len"),
    ("negative generation", ["--gen-len", "-3"], "--gen-len"),
    ("no iterations", ["--iters", "0"], "--iters"),
    ("warm-up negative", ["--warmup", "-1"], "--warmup"),
    ("output format unknown", ["--output", "xml"], "--output"),
    ("prompt beyond the model's positions", ["--prompt-len", "99999999"], "prompt-len|position|memory"),
    ("prompt beyond 64 bits", ["--prompt-len", "18446744073709551617"], "--prompt-len"),
    ("old attention type unknown", ["--attention", "flash"], "--attention"),
]


class Runner:
    def __init__(self, checks, directory):
        self.checks = checks
        self.directory = directory
        self.wrapper = directory / "wrapper.sh"
        self.wrapper.write_text(WRAPPER)
        self.wrapper.chmod(0o755)
        self.good = {kind: directory / kind for kind in ("single", "sharded")}
        make_checkpoint.make_checkpoint(self.good["single"], SHAPE, "bf16")
        make_checkpoint.make_checkpoint(self.good["sharded"], SHAPE, "bf16", shards=3)

    def damaged(self, kind, damage):
        copy = self.directory / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.good[kind], copy)
        damage(copy)
        return copy

    def logits(self, **options):
        """Command of a good run, with options replaced."""
        good = {"--model": self.good["single"], "--tokens": "1,2,3", "--output": self.directory / "out.f32"}
        good.update(options)
        given = [(name, text) for name, text in good.items() if text is not None]
        return ["qwen3", "logits", *(part for pair in given for part in pair)]

    def run(self, ranks, command, env=None):
        """(outcome, exit statuses by rank; a rank that its launcher killed first has none)"""
        status = self.directory / "status"
        shutil.rmtree(status, ignore_errors=True)
        status.mkdir()
        outcome = run(ranks, self.wrapper, BIN / command[0], *command[1:],
                      env={"STATUS_DIR": str(status), **(env or {})})
        return outcome, {int(file.name): int(file.read_text()) for file in status.iterdir() if file.read_text()}

    def refused(self, what, ranks, command, culprit, env=None):
        if ranks not in RANKS:  # one rank is tested in another build
            return
        outcome, statuses = self.run(ranks, command, env)
        messages = MESSAGE.findall(outcome.err)
        faults = []
        if outcome.code is None:
            faults.append("hangs")
        if outcome.code == 0 or 0 in statuses.values() or not statuses:
            faults.append(f"exit status {outcome.code}, of the ranks {statuses}")
        if any(code > 125 for code in statuses.values()) or CRASH.search(outcome.err):
            faults.append("crashes")
        if len(messages) != 1:
            faults.append(f"{len(messages)} messages")
        elif not re.search(culprit, messages[0]):
            faults.append(f"the message does not name {culprit!r}")
        if outcome.out:
            faults.append("writes to standard output")
        self.checks.true(f"{what} ({command[0]} {command[1]}, {ranks} ranks): {', '.join(faults)}", not faults, outcome)


def benchmark(model, *options):
    lengths = ["--prompt-len", 4, "--gen-len", 2, "--iters", 1, "--warmup", 0]
    return ["benchmark_qwen3", "--model", model, "--output", "json", *lengths, *options]


def check_checkpoints(runner, ranks):
    """All through one rank; through several, and through the other programs, a part of the cases in turn."""
    for kind, cases in (("single", FILES + VALUES), ("sharded", SHARDED)):
        for number, (what, damage, culprit) in enumerate(cases):
            model = runner.damaged(kind, damage)
            reads_values = (what, damage, culprit) in VALUES
            commands = [(ranks[0], runner.logits(**{"--model": model}))]
            if ranks[1:] and (FULL or number % 3 == 0 or reads_values):
                commands.append((ranks[-1], runner.logits(**{"--model": model})))
            if (FULL or number % 3 == 1) and not reads_values:
                commands.append((ranks[0], ["qwen3", "info", "--model", model]))
            if (FULL or number % 6 == 2) and not reads_values:
                commands.append((ranks[-1], benchmark(model)))
            for n, command in commands:
                runner.refused(what, n, command, culprit)


def check_options(runner, ranks):
    """All on one rank, some on several: all ranks read the same words, and agree as on any other error."""
    empty = runner.directory / "empty"
    empty.write_text(" \n")
    small_heads = runner.directory / "small-heads"
    make_checkpoint.make_checkpoint(small_heads, dataclasses.replace(SHAPE, head_dim=16), "bf16")
    commands = [(what, runner.logits(**options), culprit) for what, options, culprit in OPTIONS]
    commands += [("token file is empty", runner.logits(**{"--tokens": f"@{empty}"}), "tokens|empty"),
                 ("unknown subcommand", ["qwen3", "lodgings"], "lodgings"),
                 ("help on an unknown subcommand", ["qwen3", "help", "lodgings"], "lodgings"),
                 ("blocks of q8 would lie in two heads",
                  runner.logits(**{"--model": small_heads, "--dtype": "q8"}), "q8.*head_dim 16.*32"),
                 ("argument too many", runner.logits() + ["surplus"], "surplus")]
    commands += [(what, benchmark("synthetic:tiny", *options), culprit) for what, options, culprit in BENCHMARK]
    names = "chat", "run", "info", "pack", "tokenize", "template"
    programs = [["benchmark_qwen3"], *(["qwen3", name] for name in names)]
    commands += [("a published model that was not fetched", [*program, "--model", "Qwen3-8B"], "get-model.sh Qwen3-8B")
                 for program in programs]
    for number, (what, command, culprit) in enumerate(commands):
        runner.refused(what, ranks[0], command, culprit)
        if ranks[1:] and (FULL or number % 6 == 0):
            runner.refused(what, ranks[-1], command, culprit)


def check_one_bad_rank(runner):
    """One rank cannot open what the others can: the message says which, and nobody waits for it."""
    absent = runner.directory / "absent"
    damaged = runner.damaged("single", content(WEIGHTS, lambda raw: raw[:-1]))
    for ranks in (n for n in RANKS if 2 <= n <= 3):
        for bad_rank in range(ranks):
            for bad in (absent, damaged):
                env = {"BAD_RANK": str(bad_rank), "GOOD": str(runner.good["single"]), "BAD": str(bad)}
                culprit = (rf"rank {bad_rank}\b.*" if bad_rank else "") + re.escape(bad.name)
                runner.refused(f"rank {bad_rank} has {bad.name}", ranks, runner.logits(), culprit, env)
                if bad_rank == ranks - 1:
                    command = benchmark(runner.good["single"])
                    runner.refused(f"rank {bad_rank} has {bad.name}", ranks, command, culprit, env)


def check_unwired_launcher(runner):
    """Copies that do not share an MPI: the launcher's environment says 2, MPI says 1. By the environment of the
    MPI that was not built with, and by its launcher where the machine has one."""
    with_open_mpi = "open" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout.lower()
    foreign = shutil.which("mpiexec.mpich" if with_open_mpi else "mpiexec.openmpi")
    command = [str(BIN / "qwen3"), *map(str, runner.logits()[1:])]
    setting = {"PMI_SIZE": "2", "PMI_RANK": "0"} if with_open_mpi else {"OMPI_COMM_WORLD_SIZE": "2",
                                                                       "OMPI_COMM_WORLD_RANK": "0"}
    attempts = [("by its environment", command, setting)]
    if foreign:
        attempts.append(("under the other launcher", [LAUNCH, foreign, "2", *command], {}))
    for what, line, env in attempts:
        done = subprocess.run(line, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
        messages = MESSAGE.findall(done.stderr)
        runner.checks.true(f"unwired copies stop, {what}",
                           done.returncode != 0 and len(messages) == 1 and "2" in messages[0],
                           f"{done.returncode}\n{done.stdout}\n{done.stderr}")


def main():
    checks = Checks()
    ranks = [1] + [n for n in RANKS if n == 2]
    with scratch() as directory:
        runner = Runner(checks, directory)
        for n in ranks:
            outcome, statuses = runner.run(n, runner.logits())
            good = outcome.ok and set(statuses.values()) == {0}
            checks.true(f"the undamaged checkpoint runs on {n} ranks", good, outcome)
        check_checkpoints(runner, ranks)
        check_options(runner, ranks)
        check_one_bad_rank(runner)
        if MPIEXEC:
            check_unwired_launcher(runner)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
