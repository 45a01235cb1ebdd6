"""What the attacks share: a run that must be refused, once, by name, soon, without a crash."""
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from e2e import BIN, EMULATOR, ENVIRONMENT, FULL, LAUNCH, MPIEXEC, RANKS, Checks, Outcome  # noqa: E402

REFUSED = 2
MESSAGE = re.compile(r"^qwen3: error: (?:rank \d+ on \S+: )?(.*)$", re.MULTILINE)
CRASH = re.compile(r"Sanitizer|runtime error:|[Ss]egmentation fault|core dumped|on signal \d|Assertion")
SANITIZED = b"__asan_init" in (BIN / "qwen3").read_bytes()
FEW = [n for n in RANKS if n <= 2] or RANKS[:1]
TURN = 10  # of so many cases one is tried on two ranks as well


def execute(ranks, program, *arguments, stdin=b"", env=None, cwd=None, timeout=60):
    """Outcome of a program of the build or a path; arguments may be bytes, and so need not be UTF-8."""
    words = [part if isinstance(part, bytes) else str(part) for part in arguments]
    command = [*EMULATOR, str(BIN / program), *words]
    if ranks > 1:
        command = [LAUNCH, MPIEXEC, str(ranks), *command]
    try:
        done = subprocess.run(command, input=stdin, env={**ENVIRONMENT, **(env or {})}, cwd=cwd, capture_output=True,
                              timeout=timeout)
    except subprocess.TimeoutExpired as late:
        return Outcome(command, None, *((text or b"").decode(errors="replace") for text in (late.stdout, late.stderr)))
    return Outcome(command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


class Attacks(Checks):
    def __init__(self):
        super().__init__()
        self.cases = 0

    def refused(self, what, words, program, *arguments, ranks=1, **options):
        """One message, on standard error, with these words (a pattern); nothing on standard output."""
        self.cases += 1
        if ranks in RANKS:
            self.refuse(what, words, ranks, program, *arguments, **options)
        if ranks == 1 and 2 in RANKS and (FULL or self.cases % TURN == 0):
            self.refuse(what, words, 2, program, *arguments, **options)

    def refuse(self, what, words, ranks, program, *arguments, **options):
        outcome = execute(ranks, program, *arguments, **options)
        messages = MESSAGE.findall(outcome.err)
        faults = []
        if outcome.code is None:
            faults.append("hangs")
        elif outcome.code != REFUSED if ranks == 1 else outcome.code == 0:
            faults.append(f"exit status {outcome.code}")
        if CRASH.search(outcome.err):
            faults.append("crashes")
        if len(messages) != 1:
            faults.append(f"{len(messages)} messages")
        elif not re.search(words, messages[0]):
            faults.append(f"the message does not say {words!r}")
        if outcome.out:
            faults.append("writes to standard output")
        self.true(f"{what} on {ranks}: {', '.join(faults)}", not faults, outcome)

    def works(self, what, program, *arguments, ranks=1, **options):
        outcome = execute(ranks, program, *arguments, **options)
        self.true(f"{what} on {ranks}", outcome.ok and not CRASH.search(outcome.err), outcome)
        return outcome
