#!/usr/bin/env python3
"""Files and directories that the programs write are whole under their names, or what was there before: whatever ends
the job, and however full the disk is. And what a program does when a standard file is closed, a signal comes, the
stack is small or memory ends."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from e2e import BIN, EMULATOR, ENVIRONMENT, MPIEXEC, RANKS, ROOT, Checks, Outcome, run, scratch

import make_checkpoint

DEMO = ROOT / "models" / "demo"
REFUSED = 2
OLD = b"an older file\n"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
OPEN_MPI = bool(MPIEXEC) and "open" in subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True,
                                                      check=False).stdout.lower()
SANITIZED = b"libasan" in (BIN / "qwen3").read_bytes()
# UCX, below MPICH, keeps its shared memory in files, which a limit of their size would forbid too.
LIMIT = 'UCX_TLS=self; export UCX_TLS; ulimit -f "$0"; exec "$@"'  # 512 bytes each


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Job:
    """A program that runs while the test looks on. All its processes have a mark in their environment."""

    def __init__(self, ranks, *command, stdin=subprocess.DEVNULL):
        self.mark = f"QWEN3_TEST_MARK={os.getpid()}-{time.monotonic_ns()}".encode()
        self.command = [*([MPIEXEC, "-n", str(ranks)] if ranks > 1 else []), *EMULATOR, *map(str, command)]
        if ranks > 1 and OPEN_MPI:
            self.command[1:1] = ["--oversubscribe", "--allow-run-as-root", "--mca", "mpi_yield_when_idle", "1"]
        environment = {**ENVIRONMENT, "QWEN3_TEST_MARK": self.mark.decode().partition("=")[2]}
        environment["OMPI_MCA_odls_base_sigkill_timeout"] = "3"  # seconds; a busy machine may need more than 1
        self.child = subprocess.Popen(self.command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      env=environment, start_new_session=True, preexec_fn=default_signals)

    def processes(self):
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
        return found

    def wait_for(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.child.poll() is None:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def end(self, seconds=20, said=None):
        """The outcome, and the processes that are left a while later. code None: it did not end. said: its input."""
        try:
            out, err = self.child.communicate(said, timeout=seconds)
            code = self.child.returncode
        except subprocess.TimeoutExpired:
            code, out, err = None, b"", b""
        end = time.monotonic() + 2
        while time.monotonic() < end and self.processes():
            time.sleep(0.05)
        left = self.processes()
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.child.wait()
        return Outcome(self.command, code, out.decode(errors="replace"), err.decode(errors="replace")), left


def default_signals():
    """A test that is run in the background may have been started without SIGINT and SIGQUIT."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def limited(blocks, program, *arguments, said=b""):
    """Files may not grow beyond so many blocks; pipes, to which the output goes, may."""
    return Job(1, "/bin/sh", "-c", LIMIT, blocks, BIN / program, *arguments, stdin=subprocess.PIPE).end(60, said)[0]


def refused(checks, what, outcome, *words):
    checks.true(f"{what}: is refused", outcome.code == REFUSED and outcome.err.count("qwen3: error: ") == 1 and
                all(str(word) in outcome.err for word in words), f"expected {words}\n{outcome}")


def logits(output, *arguments, ranks=1, model=DEMO, **more):
    return run(ranks, "qwen3", "logits", "--model", model, "--tokens", "1,2,3", "--output", output, *arguments, **more)


# ---- logits --------------------------------------------------------------------------------------------------------


def check_logits(checks, folder):
    """An older output stays until the job has succeeded."""
    output = folder / "out.f32"
    checks.true("a new file", logits(output).ok and names(folder) == ["out.f32"], names(folder))
    expected = output.read_bytes()
    output.write_bytes(OLD)
    output.chmod(0o640)
    damaged = folder / "damaged"
    shutil.copytree(DEMO, damaged)
    os.truncate(damaged / "model.safetensors", 2_000_000)
    outcome = logits(output, model=damaged)
    checks.true("damaged weights leave the older file", outcome.code == REFUSED and output.read_bytes() == OLD, outcome)
    shutil.rmtree(damaged)
    outcome = limited(2, "qwen3", "logits", "--model", DEMO, "--tokens", "1", "--all", "--output", output)
    refused(checks, "a file that may not grow", outcome, "--output: cannot write", "File too large")
    checks.true("a full quota leaves the older file", output.read_bytes() == OLD and names(folder) == ["out.f32"],
                names(folder))
    checks.true("success replaces it, with its mode", logits(output).ok and output.read_bytes() == expected
                and output.stat().st_mode & 0o777 == 0o640)
    (folder / "link").symlink_to("out.f32")
    output.write_bytes(OLD)
    checks.true("a link is followed", logits(folder / "link").ok and (folder / "link").is_symlink()
                and output.read_bytes() == expected)
    (folder / "lost").symlink_to("nowhere")
    refused(checks, "a link that leads nowhere", logits(folder / "lost"), "leads nowhere")
    refused(checks, "a directory", logits(folder), folder, "Is a directory")
    refused(checks, "no directory", logits(folder / "none" / "x"), "none/x", "No such file")
    checks.true("nothing else is there", names(folder) == ["link", "lost", "out.f32"], names(folder))
    for path in folder.iterdir():
        path.unlink()
    return expected


def check_direct(checks, folder, expected):
    """Pipes, devices and descriptors are written as they are."""
    output = folder / "whole"
    command = [BIN / "qwen3", "logits", "--model", DEMO, "--tokens", "1,2,3", "--output"]
    script = 'printf head; "$@"'
    for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with output.open("wb") as out:
            subprocess.run(["/bin/sh", "-c", script, "sh", *command, name], stdout=out, env=ENVIRONMENT, check=False)
        checks.true(f"{name} is standard output", output.read_bytes() == b"head" + expected)
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        outcome = logits(pipe)
        checks.true("a pipe", outcome.ok and reader.communicate()[0] == expected and pipe.is_fifo(), outcome)
    checks.true("/dev/null", logits("/dev/null").ok and not pathlib.Path("/dev/null").is_file())
    refused(checks, "/dev/full", logits("/dev/full"), "/dev/full", "No space left")
    checks.true("only these files", names(folder) == ["pipe", "whole"], names(folder))


def check_killed(checks, folder, ranks):
    """A signal in the middle of the work."""
    ids = folder / "ids"
    ids.write_text(" ".join(str(i * 7 % 251) for i in range(8000)))
    output = folder / "killed.f32"
    for number in SIGNALS:
        what = f"logits on {ranks} ranks, {signal.Signals(number).name}"
        output.write_bytes(OLD)
        job = Job(ranks, BIN / "qwen3", "logits", "--model", "synthetic:tiny", "--tokens", f"@{ids}", "--decode-from",
                  1, "--all", "--output", output)
        started = job.wait_for(lambda: any(path.stat().st_size for path in folder.glob("killed.f32.partial-*")))
        checks.true(f"{what}: writes beside", started, names(folder))
        job.child.send_signal(number)
        outcome, left = job.end()
        # Hydra 4.0 itself may say 0, and Open MPI's mpirun handles no SIGQUIT: its ranks see that it is gone.
        checks.true(f"{what}: ends", outcome.code == -number if ranks == 1 else outcome.code is not None, outcome)
        checks.true(f"{what}: no process is left", not left, outcome)
        # Hydra sends its processes SIGTERM and, without waiting, SIGKILL, which may be faster than a handler.
        killed = ranks > 1 and (number in (signal.SIGQUIT, signal.SIGHUP) or not OPEN_MPI)
        checks.true(f"{what}: the older file stays", output.read_bytes() == OLD, names(folder))
        checks.true(f"{what}: nothing is left", names(folder) == ["ids", "killed.f32"] or killed, names(folder))
        for path in folder.glob("killed*"):
            path.unlink()
    ids.unlink()


def check_model_is_safe(checks, folder):
    """No output takes the place of a file of the model."""
    model, blobs = folder / "model", folder / "blobs"
    blobs.mkdir()
    shutil.copytree(DEMO, model)
    shutil.move(model / "model.safetensors", blobs / "0af1")  # as in a download cache
    (model / "model.safetensors").symlink_to("../blobs/0af1")
    (folder / "link").symlink_to("model/config.json")
    before = {path: path.read_bytes() for path in (*model.iterdir(), blobs / "0af1")}
    for path, words in ((model / "model.safetensors", ["model.safetensors of the model"]),
                        (model / "config.json", ["config.json of the model"]),
                        (blobs / "0af1", ["model.safetensors of the model"]), (folder / "link", ["config.json of"]),
                        (model / "new.f32", ["is inside the model"]), (model / "none" / "x", [""])):
        refused(checks, f"--output {path.relative_to(folder)}", logits(path, model=model), *words)
    refused(checks, "in the current directory", run(1, "/bin/sh", "-c", f'cd {model}; exec "$@"', "sh", BIN / "qwen3",
            "logits", "--model", ".", "--tokens", 1, "--output", "out"), "is inside the model .")
    refused(checks, "pack", run(1, "qwen3", "pack", "--model", model, "--output", model / "x"), "is inside the model")
    refused(checks, "--machine-save", run(1, "benchmark_qwen3", "--model", model, "--machine-save",
            model / "config.json", "-p", 1, "-n", 1), "--machine-save", "of the model")
    said = chat(model, f"/save {model}/config.json\n/save {model}/new.json\n")
    checks.true("/save", said.err.count("of the model") == 1 and said.err.count("is inside the model") == 1, said)
    checks.true("the model is what it was", {path: path.read_bytes() for path in before} == before
                and len(names(model)) == len(before) - 1)


# ---- pack, chat, machine files --------------------------------------------------------------------------------------


def chat(model, text, limit="unlimited"):
    """A chat with these lines of input."""
    return limited(limit, "qwen3", "chat", "--model", model, "--no-thinking", "-n", 4, said=text.encode())


def check_pack_killed(checks, folder):
    source = folder / "source"
    make_checkpoint.make_checkpoint(source, make_checkpoint.Shape(hidden=512, inter=2048, layers=8), "bf16")
    for number in SIGNALS:
        what = f"pack, {signal.Signals(number).name}"
        job = Job(1, BIN / "qwen3", "pack", "--model", source, "--threads", 1, "--output", folder / "packed")
        started = job.wait_for(lambda: any(folder.glob("packed.partial-*/config.json")))
        job.child.send_signal(number)
        outcome, _ = job.end()
        checks.true(f"{what}: nothing is left", started and outcome.code == -number and names(folder) == ["source"],
                    f"{names(folder)}\n{outcome}")


def check_limits(checks, folder):
    """Files that may not grow: what was there stays."""
    pack = ("pack", "--model", DEMO, "--output", folder / "packed")
    refused(checks, "pack", limited(500, "qwen3", *pack), "packed.safetensors", "File too large")
    checks.true("pack leaves nothing", not names(folder), names(folder))
    outcome = run(1, "qwen3", *pack)
    checks.true("pack", outcome.ok and names(folder) == ["packed"], outcome)
    shutil.rmtree(folder / "packed")
    saved, machine = folder / "saved.json", folder / "machine.json"
    saved.write_bytes(OLD)
    machine.write_bytes(OLD)
    said = chat(DEMO, f"hello\n/save {saved}\nhello\n", limit=0)
    checks.true("/save: says so and goes on", said.ok and "/save: cannot write" in said.err and "File too large" in
                said.err and said.out.count("\n") >= 2, said)
    outcome = limited(0, "benchmark_qwen3", "--model", "synthetic:tiny", "--machine-save", machine, "-p", 1, "-n", 1)
    checks.true("--machine-save: says so", outcome.code == REFUSED and "machine.json" in outcome.err
                and "File too large" in outcome.err, outcome)
    checks.true("older files stay", saved.read_bytes() == OLD == machine.read_bytes() and
                names(folder) == ["machine.json", "saved.json"], names(folder))
    said = chat(DEMO, f"hello\n/save {saved}\n")
    checks.true("/save replaces", said.ok and len(json.loads(saved.read_text())["messages"]) == 2, said)


def check_full_disk(checks, folder):
    """A disk of its own that is full."""
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True,
                      check=False).returncode:
        print("no full disk: mounting one needs root", flush=True)
        return
    try:
        saved, output = disk / "saved.json", disk / "out.f32"
        saved.write_bytes(OLD)
        output.write_bytes(OLD)
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(512))
        said = chat(DEMO, f"hello\n/save {saved}\n")
        checks.true("a full disk: /save says so", said.ok and "No space left on device" in said.err, said)
        refused(checks, "a full disk: logits", logits(output, "--all"), "No space left on device")
        checks.true("a full disk: older files stay", saved.read_bytes() == OLD == output.read_bytes()
                    and len(names(disk)) == 3, names(disk))
        refused(checks, "a full disk: pack", run(1, "qwen3", "pack", "--model", DEMO, "--output", disk / "packed"),
                "No space left on device")
        checks.true("a full disk: pack leaves nothing", len(names(disk)) == 3, names(disk))
    finally:
        subprocess.run(["umount", disk], check=True)


# ---- Signals, standard files, links, the stack ---------------------------------------------------------------------


def check_waiting_chat(checks, ranks):
    """A chat that waits for input ends at a signal to it, or to its launcher, and leaves nothing running."""
    for number in (*SIGNALS, signal.SIGKILL):
        what = f"a waiting chat on {ranks} ranks, {signal.Signals(number).name}"
        job = Job(ranks, BIN / "qwen3", "chat", "--model", DEMO, "--no-thinking", "-n", 4, stdin=subprocess.PIPE)
        job.child.stdin.write(b"hello\n")
        job.child.stdin.flush()
        os.set_blocking(job.child.stdout.fileno(), False)
        checks.true(f"{what}: answers", job.wait_for(lambda job=job: job.child.stdout.read()))
        time.sleep(0.5)
        job.child.send_signal(number)
        outcome, left = job.end()
        # What MPICH's mpiexec makes of a signal to itself is its own: it may say 0, for any program.
        right = outcome.code == -number if ranks == 1 else outcome.code is not None and (not OPEN_MPI or outcome.code)
        checks.true(f"{what}: ends", right, outcome)
        checks.true(f"{what}: leaves nothing running", not left, left)


def check_closed(checks, folder):
    """Standard files that are closed."""
    answer = f'{BIN / "qwen3"} run --model {DEMO} --no-thinking -n 4'
    talk = f'{BIN / "qwen3"} chat --model {DEMO} --no-thinking -n 4'
    output = folder / "out.f32"
    for script, code in ((f"{answer} <&- >&- 2>&-", REFUSED), (f"{answer} hello >&-", REFUSED),
                         (f"{answer} hello <&- >/dev/null 2>&-", 0), (f"{answer} <&-", REFUSED),
                         (f"{talk} <&-", REFUSED), (f"{talk} --json <&-", REFUSED), (f"{talk} <{folder}", REFUSED),
                         (f"echo hello | {talk} >&-", REFUSED), (f'{BIN / "qwen3"} --help >&-', REFUSED),
                         (f'{BIN / "benchmark_qwen3"} -m synthetic:tiny -p 4 -n 2 -r 1 >&-', REFUSED),
                         (f'{BIN / "test_parallel_strategies"} --help >&-', REFUSED),
                         (f'{BIN / "qwen3"} logits --model {DEMO} --tokens 1,2,3 --output {output} <&- >&- 2>&-', 0)):
        outcome = run(1, "/bin/sh", "-c", script)
        checks.true(f"{script.removeprefix(str(BIN))}: status {code}", outcome.code == code, outcome)
        if code and "2>&-" not in script:
            checks.true(f"{script.removeprefix(str(BIN))}: says why", outcome.err.count("qwen3: error: standard ") == 1
                        or "standard input" in outcome.err, outcome)
    checks.true("what is opened takes no standard file's place", logits(folder / "again").ok and
                output.read_bytes() == (folder / "again").read_bytes())


def check_links(checks, folder):
    """A link that leads nowhere, as in an incomplete download cache, is no absent file."""
    for name in sorted(path.name for path in DEMO.iterdir()) + ["chat_template.jinja"]:
        for kind, target in (("nowhere", "../blobs/0af1"), ("to itself", name)):
            model = folder / f"{name}-{kind.replace(' ', '-')}"
            shutil.copytree(DEMO, model)
            (model / name).unlink(missing_ok=True)
            (model / name).symlink_to(target)
            what = f"{name} is a link {kind}"
            refused(checks, f"{what}: pack", run(1, "qwen3", "pack", "--model", model, "--output", folder / "packed"),
                    name)
            checks.true(f"{what}: nothing is left", not list(folder.glob("packed*")))
            refused(checks, f"{what}: run", run(1, "qwen3", "run", "--model", model, "-n", 2, "hello"), name)


def check_stack(checks):
    """Small stacks are refused, not overrun. Three threads: one may get the larger stack of a thread that has ended."""
    job = f'exec {BIN / "qwen3"} run --model {DEMO} --threads 3 -n 4 hello'
    big = f'exec {BIN / "benchmark_qwen3"} --model synthetic:tiny --dtype q4 --threads 3 -p 100 -n 2 -r 1'
    for limit, words in (("ulimit -s 64", "stack"), ("ulimit -s 128", "ulimit -s"),
                         ("export OMP_STACKSIZE=16k", "OMP_STACKSIZE"), ("export OMP_STACKSIZE=64k", "OMP_STACKSIZE")):
        for program in (job, big):
            outcome = run(1, "/bin/sh", "-c", f"{limit}; {program}")
            checks.true(f"{limit}; {program.split()[1].rpartition('/')[2]}: is refused",
                        outcome.code == REFUSED and words in outcome.err, outcome)
    for limit in ("ulimit -s 512", "export OMP_STACKSIZE=256k"):
        outcome = run(1, "/bin/sh", "-c", f"{limit}; {big}")
        checks.true(f"{limit}: is enough", outcome.ok, outcome)


def main():
    checks = Checks()
    with scratch() as folder:
        rooms = (folder / str(number) for number in range(100))

        def room():
            path = next(rooms)
            path.mkdir()
            return path

        expected = check_logits(checks, room())
        check_direct(checks, room(), expected)
        for ranks in RANKS[:2]:
            check_killed(checks, room(), ranks)
        check_model_is_safe(checks, room())
        check_pack_killed(checks, room())
        check_limits(checks, room())
        check_full_disk(checks, room())
        for ranks in RANKS[:2]:
            check_waiting_chat(checks, ranks)
        check_closed(checks, room())
        check_links(checks, room())
        if not SANITIZED:  # which take more
            check_stack(checks)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
