#!/usr/bin/env python3
"""Ranks that were not started alike, that read other files than rank 0, or that never arrive: the job ends with one
message that names what differs and which ranks, and never waits. Instruction sets and threads may differ."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from e2e import BIN, EMULATOR, LAUNCH, MPIEXEC, ROOT, Checks, run, scratch  # noqa: E402

DEMO = ROOT / "models" / "demo"
HYDRA = "HYDRA" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True, check=False).stdout
QWEN3 = [*EMULATOR, BIN / "qwen3"]
TIMEOUT = 3  # of the start, where a rank is missing


def job(ranks, timeout=60, **environment):
    """Runs one command on each rank."""
    arguments = [MPIEXEC, 1]
    for number, command in enumerate(ranks):
        arguments += [":", "-n", 1, *command] if number else command
    variables = {name.upper(): str(value) for name, value in environment.items()}
    return run(1, LAUNCH, *arguments, timeout=timeout, env=variables)


def errors(outcome):
    return [line for line in outcome.err.splitlines() if line.startswith("qwen3: error: ")]


def refused(checks, what, outcome, *expected):
    """The job has failed with one message, and it says all that is expected."""
    said = errors(outcome)
    checks.true(f"{what}: ends with a failure", outcome.code not in (None, 0), outcome)
    checks.true(f"{what}: one message", len(said) == 1, outcome)
    for text in expected:
        checks.true(f"{what}: says '{text}'", said and text in said[0], outcome)


# ---- Command lines ----------------------------------------------------------------------------------------------

LOGITS = ["logits", "--model", "synthetic:tiny", "--tokens", "1,2,3", "--output", os.devnull]
RUN = ["run", "--model", DEMO, "Hello", "-n", 4]


def test_command_lines(checks):
    cases = [  # what all ranks have, what rank 0 adds, what the other one adds, the message
        (LOGITS, ["--parallel-strategy", "headwise"], ["--parallel-strategy", "sequence"],
         'argument after "--parallel-strategy": got "sequence", rank 0 has "headwise"'),
        (LOGITS, ["--grid", "1x2"], ["--grid", "2x1"], 'argument after "--grid": got "2x1", rank 0 has "1x2"'),
        (LOGITS, [], ["--all"], f'argument after "{os.devnull}": got "--all", rank 0 has nothing'),
        (LOGITS, ["--decode-from", 2], [], f'argument after "{os.devnull}": got nothing, rank 0 has "--decode-from"'),
        (LOGITS, ["--dtype", "f32"], ["--dtype", "bf16"], 'argument after "--dtype": got "bf16", rank 0 has "f32"'),
        (LOGITS, [], ["--help"], 'got "--help", rank 0 has nothing'),
        (LOGITS, ["--version"], [], 'got nothing, rank 0 has "--version"'),
        (LOGITS, [], ["--no-such-option"], 'got "--no-such-option", rank 0 has nothing'),
        (LOGITS, ["--threads"], ["--dtype"], 'got "--dtype", rank 0 has nothing'),
        (RUN, ["--temperature", 1], ["--temperature", 2], 'argument after "--temperature": got "2", rank 0 has "1"'),
        (RUN, ["--seed", 1], ["--seed", 2], 'argument after "--seed": got "2", rank 0 has "1"'),
        (RUN, ["--context", 1000], ["--context", 100], 'got "100", rank 0 has "1000"'),
        ([], ["info", "--model", DEMO], ["tokenize", "--model", DEMO],
         'first argument: got "tokenize", rank 0 has "info"'),
        ([], ["--help"], ["--version"], 'first argument: got "--version", rank 0 has "--help"'),
        ([], [], ["help"], 'first argument: got "help", rank 0 has nothing'),
    ]
    for common, first, other, message in cases:
        outcome = job([[*QWEN3, *common, *first], [*QWEN3, *common, *other]])
        what = " ".join(map(str, [*common[:1], *first, "/", *other]))
        refused(checks, what, outcome, "the ranks were not started alike: ", message, "(ranks that differ: 1)",
                "rank 1 on ")
        checks.true(f"{what}: prints nothing else", not outcome.out.startswith(("Usage", "qwen3 0")), outcome)
    outcome = job([[*QWEN3, *LOGITS], [*EMULATOR, BIN / "benchmark_qwen3", "--all"]])
    refused(checks, "another program", outcome, 'program: got "benchmark_qwen3", rank 0 has "qwen3"')
    seeds = [[*QWEN3, *RUN, "--seed", seed] for seed in (1, 2, 1, 2, 3)]
    refused(checks, "three of five", job(seeds), 'got "2", rank 0 has "1" (ranks that differ: 1, 3-4)')


def test_exit_status(checks, folder):
    """Also those ranks fail that had nothing to object to."""
    record = 'status=$1; shift; "$@"; echo $? >> "$status"'
    shell = ["/bin/sh", "-c", record, "sh", folder / "status", *QWEN3]
    job([[*shell, *LOGITS], [*shell, *LOGITS, "--all"], [*shell, *LOGITS]])
    status = (folder / "status").read_text().split()
    checks.true("every rank ends with status 2", status == ["2"] * 3, status)


def test_build(checks, folder):
    """A library whose version is another one."""
    library = next(path for path in (BIN.parent / "lib").glob("libqwen3.so.*.*.*"))
    content = library.read_bytes()
    version = subprocess.run([*QWEN3, "--version"], capture_output=True, text=True, check=False).stdout.split()[1]
    old = f"{version} (".encode()
    checks.true("the library holds its build", old in content)
    other = folder / "other"
    other.mkdir()
    (other / library.name).write_bytes(content.replace(old, b"9" + old[1:]))
    for link in (BIN.parent / "lib").glob("libqwen3.so*"):
        if link.is_symlink():
            (other / link.name).symlink_to(library.name)
    ranks = [[*QWEN3, *LOGITS], ["env", f"LD_LIBRARY_PATH={other}", *QWEN3, *LOGITS]]
    refused(checks, "another build", job(ranks), f"rank 1 runs qwen3 9{version[1:]} (", f"rank 0 {version} (",
            "start all ranks with the same build")


# ---- What may differ ----------------------------------------------------------------------------------------------

def test_legitimate(checks, folder):
    def logits(ranks, name, **environment):
        output = folder / name
        command = [*QWEN3, *LOGITS[:-1], output, "--parallel-strategy", "sequence"]
        outcome = job([[*command, *own] for own in ranks], **environment)
        checks.true(f"{name}: runs", outcome.ok, outcome)
        return output.read_bytes() if output.exists() else name, outcome.err

    plain, note = logits([[], []], "alike")
    checks.true("alike: says nothing of instruction sets", "instruction sets" not in note, note)
    for name, ranks in {"threads": ([], ["--threads", 2]), "threads alike": (["-t", 2], ["--threads=1"]),
                        "short threads": (["-t1"], ["-t", 3])}.items():
        checks.true(f"{name}: the same bits", logits(ranks, name)[0] == plain)
    lowest, note = logits([["--isa", "c"], ["--isa", "c"]], "all c")
    checks.true("all c: says nothing of instruction sets", "instruction sets" not in note, note)
    best = subprocess.run([*QWEN3, *LOGITS, "--isa", "avx2"], capture_output=True, check=False).returncode == 0
    for name, ranks in {"one c": ([], ["--isa", "c"]), "first c": (["--isa=c"], []),
                        "one avx2": (["--isa", "avx2"], ["--isa", "c"])}.items():
        if name == "one avx2" and not best:
            continue
        bits, note = logits(ranks, name)
        checks.true(f"{name}: the bits of plain C", bits == lowest)
        checks.true(f"{name}: says so", not best or "unlike instruction sets" in note and "all use c" in note, note)


# ---- Files --------------------------------------------------------------------------------------------------------

def patch_tensor(path, name, at):
    """Changes one bit of a tensor: of byte `at`, from its end where it is negative."""
    with open(path, "r+b") as file:
        length, = struct.unpack("<Q", file.read(8))
        begin, end = json.loads(file.read(length))[name]["data_offsets"]
        place = 8 + length + (begin if at >= 0 else end) + at
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def yarn(**values):
    return {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 768, **values}}


def places(folder, change, base=None):
    """Two folders with a model each, "m", of which the second one is changed."""
    for number in range(2):
        place = folder / str(number)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(DEMO, place / "m")
        if base:
            edit_json(place / "m" / "config.json", **base)
    change(folder / "1" / "m")


def in_places(folder, command, order=(0, 1)):
    """Each rank in its folder."""
    return [["/bin/sh", "-c", 'cd "$0" && exec "$@"', folder / str(number), *command] for number in order]


def test_files(checks, folder):
    weights, config = "model.safetensors", "config.json"
    layer = "model.layers.2."

    def set_config(**values):
        return lambda model: edit_json(model / config, **values)

    def flip(name, at):
        return lambda model: patch_tensor(model / weights, name, at)

    def grow(model):
        """A longer header: what it says is the same."""
        content = (model / weights).read_bytes()
        length, = struct.unpack("<Q", content[:8])
        (model / weights).write_bytes(struct.pack("<Q", length + 8) + content[8:8 + length] + b" " * 8
                                      + content[8 + length:])

    cases = [  # what, change on rank 1, what all have, message
        ("a value in the middle of a norm", flip(layer + "input_layernorm.weight", 100), None,
         f'm: {layer}input_layernorm.weight: got "contents '),
        ("the beginning of a matrix", flip(layer + "mlp.up_proj.weight", 0), None,
         f"m: {layer}mlp.up_proj.weight: got"),
        ("the end of a matrix", flip("model.embed_tokens.weight", -1), None, "m: model.embed_tokens.weight: got"),
        ("a header", grow, None, f"m: {weights}: got"),
        ("positions", set_config(max_position_embeddings=1024), None,
         'm: max_position_embeddings: got "1024", rank 0 has "1536"'),
        ("theta", set_config(rope_theta=10000), None, 'm: rope_theta: got "10000", rank 0 has "1000000"'),
        ("YaRN on one rank", set_config(**yarn()), None, 'm: rope factor: got "2", rank 0 has "0"'),
        ("factor", set_config(**yarn(factor=4.0)), yarn(), 'm: rope factor: got "4", rank 0 has "2"'),
        ("beta", set_config(**yarn(beta_fast=16)), yarn(), 'm: beta_fast: got "16", rank 0 has "32"'),
        ("attention", set_config(**yarn(attention_factor=1.5)), yarn(), 'm: attention_factor: got "1.5", rank 0 has'),
        ("original positions", set_config(**yarn(original_max_position_embeddings=512)), yarn(),
         'm: original_max_position_embeddings: got "512", rank 0 has "768"'),
    ]
    logits = [*QWEN3, "logits", "--model", "m", "--tokens", "1,2,3", "--output", os.devnull]
    for what, change, base, message in cases:
        places(folder, change, base)
        refused(checks, what, job(in_places(folder, logits)), message, "(ranks that differ: 1)", "rank 1 on ",
                "expected the same options and files everywhere")
    outcome = job(in_places(folder, logits, (1, 0, 1)))
    refused(checks, "rank 0 is alone", outcome, "(ranks that differ: 1)")
    outcome = job(in_places(folder, logits, (0, 1, 1)))
    refused(checks, "rank 0 against two", outcome, "(ranks that differ: 1-2)")
    # The same with other programs that open a model.
    places(folder, flip("model.norm.weight", 6))
    for command in ([*QWEN3, "run", "--model", "m", "Hello"], [*QWEN3, "chat", "--model", "m"],
                    [*EMULATOR, BIN / "benchmark_qwen3", "--model", "m", "--prompt-len", 4, "--gen-len", 2]):
        refused(checks, f"{command[-3]}: the final norm", job(in_places(folder, command)), "m: model.norm.weight: got")
    places(folder, set_config(max_position_embeddings=64))
    for order in ((0, 1), (1, 0)):
        outcome = job(in_places(folder, [*QWEN3, "run", "--model", "m", "Hello " * 100, "-n", 3], order))
        refused(checks, f"run: positions {order}", outcome, "max_position_embeddings")
    # One rank has a packed model.
    packed = run(1, "qwen3", "pack", "--model", DEMO, "--output", folder / "packed")
    checks.true("pack", packed.ok, packed)

    def pack(model):
        shutil.rmtree(model)
        shutil.copytree(folder / "packed", model)

    places(folder, pack)
    refused(checks, "packed", job(in_places(folder, [*logits, "--dtype", "bf16"])), "packed.safetensors")
    for number in range(2):
        pack(folder / str(number) / "m")
    matrix = layer + "self_attn.o_proj.weight"
    patch_tensor(folder / "1" / "m" / "packed.safetensors", matrix, 0)
    refused(checks, "a packed matrix", job(in_places(folder, logits)), f"m: {matrix}: got")
    shutil.rmtree(folder / "1" / "m")
    refused(checks, "no model", job(in_places(folder, logits)), "rank 1 on ", "--model: m: no such file")


def test_generation_config(checks, folder):
    """What rank 0 has holds for all."""
    def answer(order):
        outcome = job(in_places(folder, [*QWEN3, "run", "--model", "m", "Tell me of the sea.", "-n", 40, "--seed", 7],
                                order))
        checks.true(f"generation_config.json: {order} runs", outcome.ok, outcome)
        return outcome.out

    for change in ({"do_sample": True, "temperature": 1.5}, {"eos_token_id": list(range(20, 36))},
                   {"do_sample": True, "top_k": 3}, {"repetition_penalty": 1.8}):
        places(folder, lambda model, change=change: edit_json(model / "generation_config.json", **change))
        checks.true(f"{change}: rank 0's", answer((0, 1)) == answer((0, 0)) and answer((1, 0)) == answer((1, 1)))
    places(folder, lambda model: (model / "generation_config.json").write_text("{"))
    checks.true("a broken one on rank 1 is not read", answer((0, 1)) == answer((0, 0)))
    bias = [*QWEN3, "run", "--model", "m", "Hello", "-n", 5, "--logit-bias", "100=90", "--json"]
    outcome = job(in_places(folder, bias))
    checks.true("a bias is that of all ranks", outcome.ok and "[100,100,100,100,100]" in outcome.out, outcome)


# ---- Ranks that do not arrive -------------------------------------------------------------------------------------

def test_missing(checks):
    def limited(kibibytes):
        return ["/bin/sh", "-c", f'ulimit -v {kibibytes}; exec "$@"', "sh", *QWEN3, *LOGITS]

    first = f"the ranks have not come together within {TIMEOUT} s (QWEN3_START_TIMEOUT): rank"
    ended = "has ended or was not started"
    present = [*QWEN3, *LOGITS]
    cases = [
        ("true", [present, ["/bin/true"]], ["rank 0 of 2 is on", f"rank 1 {ended}"]),
        ("true first", [["/bin/true"], present], ["rank 1 of 2 is on", f"rank 0 {ended}"]),
        ("another program", [present, ["sleep", 100], present], ["ranks 0, 2 of 3 are on", 'rank 1 runs "sleep"']),
        ("two others", [present, ["/bin/sh", "-c", "sleep 100; true"], ["/bin/true"]],
         ["rank 0 of 3 is on", "rank 1 runs", f"rank 2 {ended}"]),
        ("stopped", [present, ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *present]], ["rank 1 is stopped"]),
    ]
    for what, ranks, expected in cases:
        outcome = job(ranks, timeout=30, qwen3_start_timeout=TIMEOUT)
        if ["/bin/true"] in ranks and 'did not call "init" before exiting' in outcome.err:
            checks.true(f"missing: {what}: Open MPI has seen it first", outcome.code not in (None, 0), outcome)
        else:
            refused(checks, f"missing: {what}", outcome, first, *expected)
    # Here the launcher, MPI or the rank itself may end the job: with whatever message, but it ends.
    for what, other in {"no such program": ["/no/such/program"], "3 MB": limited(3000), "30 MB": limited(30000),
                        "60 MB": limited(60000), "100 MB": limited(100000), "150 MB": limited(150000)}.items():
        for ranks in ([present, other], [other, present]):
            outcome = job(ranks, timeout=30, qwen3_start_timeout=TIMEOUT)
            checks.true(f"missing: {what}: ends", outcome.code is not None, outcome)
            checks.true(f"missing: {what}: says why", outcome.ok or outcome.err or outcome.out, outcome)
    # The watch ends with the start: no later pause is counted.
    slow = [*QWEN3, "logits", "--model", "synthetic:0.6B", "--tokens", "1", "--output", os.devnull]
    outcome = job([slow, slow], qwen3_start_timeout=2)
    checks.true("a start that is soon over", outcome.ok, outcome)
    late = ["/bin/sh", "-c", 'sleep 3; exec "$@"', "sh", *present]
    for seconds in (0, 30):
        outcome = job([present, late], qwen3_start_timeout=seconds)
        checks.true(f"a rank that comes late, {seconds} s", outcome.ok, outcome)
    for value in ("-1", "1.5", "soon", "", "99999999999999999999"):
        outcome = job([present, present], qwen3_start_timeout=value)
        refused(checks, f"QWEN3_START_TIMEOUT={value}", outcome,
                f'environment variable QWEN3_START_TIMEOUT: got "{value}", expected seconds from 0')


def main():
    checks = Checks()
    with scratch() as folder:
        test_command_lines(checks)
        test_exit_status(checks, folder)
        test_build(checks, folder)
        test_legitimate(checks, folder)
        test_files(checks, folder)
        test_generation_config(checks, folder)
        test_missing(checks)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
