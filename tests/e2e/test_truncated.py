#!/usr/bin/env python3
"""A weight file that becomes shorter while a program has it mapped ends the program with one sentence."""
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

import e2e
from e2e import BIN, RANKS, Checks, run, scratch


def check_truncation(checks, folder):
    packed = folder / "shorter"
    for ranks in RANKS[:2]:
        run(1, "qwen3", "pack", "--model", e2e.ROOT / "models" / "demo", "--output", packed)
        command = [*e2e.EMULATOR, BIN / "qwen3", "chat", "--model", packed]
        if ranks > 1:
            command = [e2e.LAUNCH, e2e.MPIEXEC, str(ranks), *command]
        with (tempfile.TemporaryFile("w+") as err, subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, env=e2e.ENVIRONMENT) as chat):
            chat.stdin.write(b"Hello\n")
            chat.stdin.flush()
            chat.stdout.read(1)
            os.truncate(packed / "packed.safetensors", 4096)
            with contextlib.suppress(BrokenPipeError):
                chat.stdin.write(b"And now?\n")
                chat.stdin.close()
            chat.stdout.read()
            code = chat.wait(60)
            err.seek(0)
            text = err.read()
        checks.true(f"a file that becomes shorter, {ranks} ranks: exit status", code == 2 if ranks == 1 else code != 0,
                    code)
        checks.true(f"a file that becomes shorter, {ranks} ranks: message", "a model file became shorter" in text, text)
        shutil.rmtree(packed)


def main():
    checks = Checks()
    with scratch() as folder:
        check_truncation(checks, folder)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
