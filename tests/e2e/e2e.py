"""What the end-to-end tests share: where things are, running a program on some ranks, counting checks.

Environment (set by ctest): QWEN3_BIN, folder of the programs; QWEN3_LAUNCH, tests/launch.sh;
QWEN3_MPIEXEC, the launcher of the MPI that was built with, empty without MPI; QWEN3_EMULATOR, what the
programs run under where they are of another architecture; QWEN3_TEST_RANKS, the numbers of ranks to use;
QWEN3_TEST_SEED, seed of randomised tests; QWEN3_TEST_FULL=1, every combination.
"""
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS, DATA = ROOT / "tools", ROOT / "tests" / "data"
sys.path.insert(0, str(TOOLS))  # for the tests: import make_checkpoint, reference

BIN = pathlib.Path(os.environ.get("QWEN3_BIN", ROOT / "build" / "bin"))
LAUNCH = os.environ.get("QWEN3_LAUNCH", str(ROOT / "tests" / "launch.sh"))
MPIEXEC = os.environ["QWEN3_MPIEXEC"] if "QWEN3_MPIEXEC" in os.environ else shutil.which("mpiexec") or ""
EMULATOR = os.environ.get("QWEN3_EMULATOR", "").split()
RANKS = sorted({int(n) for n in re.split(r"[ ,;]+", os.environ.get("QWEN3_TEST_RANKS", "1 2 3")) if n})
RANKS = RANKS if MPIEXEC else [1]
FULL = os.environ.get("QWEN3_TEST_FULL") == "1"
SEED = int(os.environ.get("QWEN3_TEST_SEED", "20240917"))
OPEN_MPI = tempfile.TemporaryDirectory(prefix="qwen3-test-")
# Open MPI alone reads these. A rank that was started without launcher starts a daemon, which takes half of the time and
# on a busy machine sometimes fails; and ranks of which one has failed get a second between SIGTERM and SIGKILL.
QUICK_START = {"OMPI_MCA_ess_singleton_isolated": "1", "OMPI_MCA_odls_base_sigkill_timeout": "0",
               "OMPI_MCA_pml": "ob1", "OMPI_MCA_orte_tmpdir_base": OPEN_MPI.name}  # these as in launch.sh
ENVIRONMENT = {"OMP_NUM_THREADS": "1", **QUICK_START, **os.environ}  # many ranks share few cores


def rng():
    print(f"seed {SEED} (QWEN3_TEST_SEED)", flush=True)
    return np.random.RandomState(SEED)


@contextlib.contextmanager
def scratch():
    with tempfile.TemporaryDirectory(prefix="qwen3-test-") as name:
        yield pathlib.Path(name)


class Checks:
    """Counts what was checked, prints what failed, and says the result at the end."""

    def __init__(self):
        self.done = self.failed = 0
        self.begin = time.monotonic()

    def true(self, what, condition, detail=""):
        self.done += 1
        if not condition:
            self.failed += 1
            detail = detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
            print(f"FAILED: {what}" + (f"\n    {detail.strip()[-2000:]}" if detail else ""), flush=True)
        return bool(condition)

    def finish(self):
        script = pathlib.Path(sys.argv[0]).name
        print(f"{script}: {self.done} checks, {self.failed} failed, {time.monotonic() - self.begin:.0f} s")
        return 1 if self.failed or not self.done else 0


class Outcome:
    """How a run ended. code None: it hung and was killed."""

    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    @property
    def ok(self):
        return self.code == 0

    def __str__(self):
        return f"$ {' '.join(map(str, self.command))}\nexit status {self.code}\n{self.out[-1000:]}\n{self.err[-1500:]}"


def run(ranks, program, *arguments, timeout=60, env=None, stdin=b""):
    """Runs a program of the build (or a path) on `ranks` ranks; kills the whole group on timeout. One rank is
    started as users start it: without the launcher. stdin: bytes."""
    program = BIN / program  # an absolute path stays what it is
    if not program.exists():
        sys.exit(f"{program} is missing: build it, or set QWEN3_BIN")
    environment = {**ENVIRONMENT, **(env or {})}
    command = []
    for part in (program, *arguments):  # the program of the build may be the argument of a script
        command += [*EMULATOR, str(part)] if pathlib.Path(str(part)).parent == BIN else [str(part)]
    if ranks > 1:
        command = [LAUNCH, MPIEXEC, str(ranks), *command]
    with (tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as out, tempfile.TemporaryFile("w+") as err,
          tempfile.TemporaryFile() as given):
        given.write(stdin)
        given.seek(0)
        child = subprocess.Popen(command, stdin=given, stdout=out, stderr=err, start_new_session=True, env=environment)
        try:
            code = child.wait(4 * timeout if EMULATOR else timeout)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(child.pid, signal.SIGTERM)  # launchers pass it on to their ranks
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return Outcome(command, code, *texts)


@functools.lru_cache(maxsize=None)
def has_level(isa):
    """Whether the CPU that the programs run on has this instruction-set level."""
    arguments = ("--model", "synthetic:tiny", "--tokens", 1, "--isa", isa, "--output", os.devnull)
    return run(1, "qwen3", "logits", *arguments).ok


# A model of at most 64 MiB keeps activations, keys and values in f32, unless a level is asked for: then it is computed
# as large ones are.
PRECISIONS = ("small", "large")
LEVELS = ("amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2", "neon_i8mm", "neon_bf16", "neon_dot", "neon",
          "c")  # the best first


@functools.lru_cache(maxsize=None)
def check_memory(checks, model):
    """What info says that the types of a file need on the fullest rank, beside what ranks hold, in MiB to one digit."""
    info = run(1, "qwen3", "info", "--model", model, "--no-speed")
    rows = [line.split() for line in info.out.splitlines() if line.split()[:1] == ["stored"]]
    said = {row[1]: row[2:] for row in rows}
    most = 1 if RANKS[-1] == 1 else 4
    for strategy in ("headwise", "sequence", "hybrid"):
        for at, ranks in enumerate((1, 2, 4, 8)):
            if ranks > most or (strategy == "hybrid" and ranks < 4):
                continue
            outcome = run(ranks, "benchmark_qwen3", "--model", model, "-p", 2, "-n", 0, "-r", 1, "-o", "json",
                          "--parallel-strategy", strategy)
            held = f"{json.loads(outcome.out)[0]['weight_bytes'] / 2**20:.1f}" if outcome.ok else ""
            checks.true(f"{model.name}: memory on {ranks} ranks {strategy}: {held}, {said}",
                        said.get(strategy) and said[strategy][at] == held, outcome)


def best_level():
    """QWEN3_ISA, or the best level of the CPU that the programs run on."""
    wanted = os.environ.get("QWEN3_ISA", "").lower()
    return next(filter(has_level, (wanted, *LEVELS) if wanted in LEVELS else LEVELS))


def precision_options(precision):
    """Options under which a small model is computed as it would be, or as a large one."""
    return ["--isa", best_level()] if precision == "large" else []


def relative_l2(value, expected):
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))
