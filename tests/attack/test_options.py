#!/usr/bin/env python3
"""Options: help and unknown options of every program and script, what each option is given, what --model names."""
import os
import re
import shutil
import subprocess
import sys

from refusals import BIN, EMULATOR, ENVIRONMENT, FEW, SANITIZED, Attacks, execute

from e2e import ROOT, scratch

import make_checkpoint

SUBCOMMANDS = "chat run logits pack info tokenize detokenize template".split()
PROGRAMS = [["benchmark_qwen3"], ["test_parallel_strategies"], *(["qwen3", name] for name in SUBCOMMANDS)]
SHAPE = make_checkpoint.Shape(hidden=32, inter=48, layers=2, heads=4, kv_heads=2, head_dim=32, vocab=64, tied=False,
                              max_positions=16)


def check_help(a):
    """Of everything that a user can start: --help is the text, an unknown option is refused, neither does anything."""
    paths = sorted((ROOT / "scripts").iterdir()) + sorted(BIN.iterdir())
    paths = [path for path in paths if path.is_file() and os.access(path, os.X_OK)]
    for path in paths:
        emulator = EMULATOR if path.parent == BIN else []
        for option in ("--help", "--no-such-option"):
            done = subprocess.run([*emulator, path, option], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  env=ENVIRONMENT, timeout=60)
            good = (done.returncode == 0 and done.stdout and not done.stderr if option == "--help"
                    else done.returncode not in (0, None) and not done.stdout and done.stderr)
            a.true(f"{path.name} {option}", good, f"{done.returncode}\n{done.stdout}\n{done.stderr}")
    left = [name for folder in (ROOT, os.getcwd()) for name in os.listdir(folder) if name.startswith("-")]
    a.true("no script takes an option for a folder", not left, left)


def check_help_without_ranks(a):
    """One process alone prints help and version without MPI, which takes longer to start than they to print."""
    # Open MPI finds no such component and ends a program that starts it.
    env = {"OMPI_MCA_pml": "nonsense", "OMPI_MCA_btl": "nonsense"}
    for program in PROGRAMS:
        for option in ("--version", "-V", "--help", "-h"):
            out = a.works(f"{program} {option} without MPI", *program, option, env=env).out
            a.true(f"{program} {option} prints", program[-1] in out, out)
    for words in (["--version"], ["--help"], ["help"], ["help", "run"]):
        a.works(f"qwen3 {words} without MPI", "qwen3", *words, env=env)
    a.refused("help is no word of other programs", "unexpected argument", "benchmark_qwen3", "help")


def options_of(a, program):
    """[(name, whether it takes a value)] as --help lists them."""
    text = execute(1, *program, "--help").out
    found = re.findall(r"^  (?:-\w, )?--([\w-]+)( \S+)?", text, re.MULTILINE)
    a.true(f"{program} has options", len(found) > 2, text)
    return [(name, bool(value)) for name, value in found if name not in ("help", "version")]


def check_values(a):
    """Every option of every program: without its value, with an empty one, with bytes that are no text, with a value
    that it does not take."""
    # Paths, and what is checked after the model.
    text_options = {"model", "output", "file", "tools", "machine", "machine-save", "tokens", "logit-bias",
                    "chat-template"}
    for program in PROGRAMS:
        for name, takes_value in options_of(a, program):
            if not takes_value:
                a.refused(f"{program} --{name}=1", rf"--{name}", *program, f"--{name}=1")
                continue
            a.refused(f"{program} --{name} at the end", rf"--{name}.*missing", *program, f"--{name}")
            a.refused(f"{program} --{name} empty", rf"--{name}: got \"\"", *program, f"--{name}", "")
            if name not in text_options:
                a.refused(f"{program} --{name} of no text", rf"--{name}: ", *program, f"--{name}", b"\xff\xfe")


def check_threads(a, model):
    logits = ["qwen3", "logits", "--model", model, "--tokens", "1", "--output", os.devnull]
    words = r"got 4096, expected at most \d+: 32 for each of the \d+ CPU"
    for ranks in FEW:
        a.refused("far too many threads", "--threads: " + words, *logits, "--threads", 4096, ranks=ranks, timeout=20)
        a.refused("far too many threads by OpenMP's variable", "OMP_NUM_THREADS: " + words, *logits, ranks=ranks,
                  env={"OMP_NUM_THREADS": "4096"}, timeout=20)
    a.refused("of a benchmark", "--threads: " + words, "benchmark_qwen3", "-m", model, "-t", 4096, timeout=20)
    a.refused("of pack", "--threads: " + words, "qwen3", "pack", "-m", model, "-t", 4096, "--output", model / "packed",
              timeout=20)
    a.works("a few more threads than CPUs", *logits, "--threads", 5)


def check_model(a, model, directory):
    """What --model names: a file of a checkpoint is taken for it; anything else is told what is wanted."""
    logits = ["--tokens", "1", "--output", os.devnull]
    for name in ("model.safetensors", "config.json"):
        a.works(f"{name} for its directory", "qwen3", "logits", "--model", model / name, *logits)
        a.works(f"{name} for its directory", "qwen3", "info", "--model", model / name, ranks=FEW[-1])
        a.works(f"{name} for this directory", "qwen3", "logits", "--model", name, *logits, cwd=model)
        a.works(f"{name} measured", "benchmark_qwen3", "-m", model / name, "-p", 2, "-n", 0, "-r", 1)
    gguf, other, alone = directory / "x.gguf", directory / "notes.txt", directory / "alone.safetensors"
    for path in (gguf, other, alone):
        path.write_bytes(b"GGUF\3\0\0\0")
    programs = [["benchmark_qwen3"], *(["qwen3", name] for name in ("chat", "run", "info", "pack", "template"))]
    for program in (*programs, ["qwen3", "logits", *logits]):
        output = ["--output", directory / "packed"] if "pack" in program else []
        a.refused("a damaged GGUF file", r"x\.gguf: has 8 bytes", *program, "-m", gguf, *output)
        a.refused("some file", r"notes\.txt: is a file, expected .*DIR|notes\.txt: is a file, expected the dir",
                  *program, "-m", other)
        a.refused("weights without a configuration", r"alone\.safetensors: is a file", *program, "-m", alone)
        a.refused("a device", r"/dev/null: is a file", *program, "-m", os.devnull)
    a.refused("a damaged GGUF file for its words", r"x\.gguf: has 8 bytes", "qwen3", "tokenize", "-m", gguf)
    a.refused("a file on two ranks", r"notes\.txt: is a file", "qwen3", "logits", "-m", other, *logits, ranks=FEW[-1])


# Fails the allocation of the sums of a communicator, of 2 ranks, on rank $BAD_RANK.
SHIM = """#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
void *malloc(size_t n)
{
    static void *(*real)(size_t);
    const char *bad = getenv("BAD_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    rank = rank ? rank : getenv("PMI_RANK");
    if (n == ((1 << 20) + 2) * sizeof(float) && bad && rank && strcmp(bad, rank) == 0)
        return NULL;
    if (!real)
        real = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    return real(n);
}
"""


def check_start(a, directory):
    """Ranks that cannot start for want of memory on one of them say so once."""
    compiler, shim = shutil.which("cc"), directory / "shim.so"
    if 2 not in FEW or EMULATOR or not compiler or SANITIZED:
        print("ranks that cannot start: skipped")
        return
    (directory / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, directory / "shim.c", "-ldl"], check=True)
    for bad in (0, 1):
        a.refused(f"no memory on rank {bad}", "communicator of 2 ranks: out of memory", "qwen3", "logits", "--model",
                  "synthetic:tiny", "--tokens", 1, "--output", os.devnull, ranks=2,
                  env={"LD_PRELOAD": str(shim), "BAD_RANK": str(bad)})


def main():
    a = Attacks()
    with scratch() as directory:
        model = directory / "model"
        make_checkpoint.make_checkpoint(model, SHAPE, "bf16")
        check_help(a)
        check_help_without_ranks(a)
        check_values(a)
        check_threads(a, model)
        check_model(a, model, directory)
        check_start(a, directory)
    return a.finish()


if __name__ == "__main__":
    sys.exit(main())
