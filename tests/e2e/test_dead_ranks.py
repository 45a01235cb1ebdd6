#!/usr/bin/env python3
"""A rank that dies ends the whole job: within 10 s, with a message, a non-zero status, and nothing left behind. A rank
that stops for 5 s and goes on changes nothing. On one node, and on emulated hosts where they can be had."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid

from e2e import BIN, ENVIRONMENT, LAUNCH, MPIEXEC, ROOT, Checks, Outcome, scratch

DEADLINE = 10  # seconds from the death of a rank to the end of the job
STOPPED = 5
HOSTS = [str(ROOT / "scripts" / "emulate_hosts.sh"), "-n", "2", "-r", "1gbit"]
PLACES = {"one node": [], "two hosts": HOSTS}
RANKS = 2
COMPUTING = 0.2  # seconds of CPU time that a rank has used when it has started and computes
# Too long to end before a rank is killed.
PHASES = {"prefill": ["--n-prompt", 40000, "--n-gen", 0], "decode": ["--n-prompt", 0, "--n-gen", 40000]}


def environment_of(process):
    try:
        text = pathlib.Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return {}
    return dict(part.split("=", 1) for part in text.decode(errors="replace").split("\0") if "=" in part)


class Job:
    """A program on two ranks. All of its processes, on whatever host, have a mark in their environment."""

    def __init__(self, hosts, program, *arguments):
        self.mark = uuid.uuid4().hex
        self.command = [*hosts, LAUNCH, MPIEXEC, str(RANKS), str(BIN / program), *map(str, arguments)]
        self.name = program[:15]
        self.out, self.err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        environment = {**ENVIRONMENT, "QWEN3_TEST_MARK": self.mark}
        if hosts:
            environment = {key: value for key, value in environment.items() if not key.startswith("OMPI_MCA_")}
        self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
                                      start_new_session=True, env=environment)

    def processes(self):
        """{process: environment}"""
        found = ((int(path.name), environment_of(path.name)) for path in pathlib.Path("/proc").glob("[0-9]*"))
        return {process: environment for process, environment in found
                if environment.get("QWEN3_TEST_MARK") == self.mark}

    def rank(self, number):
        """The process of this rank, or None while there is none."""
        for process, environment in self.processes().items():
            try:
                name = pathlib.Path(f"/proc/{process}/comm").read_text().strip()
            except OSError:
                continue
            if name == self.name and str(number) in (environment.get("OMPI_COMM_WORLD_RANK"),
                                                     environment.get("PMI_RANK")):
                return process
        return None

    def computes(self, number):
        process = self.rank(number)
        if process is None:
            return False
        ticks = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") > COMPUTING

    def text(self, file):
        file.seek(0)
        return file.read()

    def wait_for(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.child.poll() is None:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def end(self, seconds):
        """The outcome; code None: it did not end within this time."""
        try:
            code = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        outcome = Outcome(self.command, code, self.text(self.out), self.text(self.err))
        for process in self.processes() if code is None else ():
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.wait()
        return outcome

    def left(self):
        """The processes that are still there 1 s after the end."""
        end = time.monotonic() + 1
        while time.monotonic() < end and self.processes():
            time.sleep(0.05)
        return self.processes().keys()


def shared_memory(process):
    """The files in /dev/shm that this process has mapped."""
    maps = pathlib.Path(f"/proc/{process}/maps").read_text().splitlines()
    return {line.split()[5] for line in maps if "/dev/shm/" in line}


def test_killed(checks, where, phase, strategy, victim):
    what = f"{where}: rank {victim} is killed in {phase}, {strategy}"
    job = Job(PLACES[where], "benchmark_qwen3", "--model", "synthetic:tiny", *PHASES[phase], "--repetitions", 100,
              "--warmup", 0, "--parallel-strategy", strategy)
    started = job.wait_for(lambda: "measuring" in job.text(job.err)) and job.wait_for(lambda: job.computes(victim))
    process = job.rank(victim)
    if not (started and process):
        checks.true(f"{what}: starts", False, job.end(0))
        return
    memory = shared_memory(process)
    begin = time.monotonic()
    os.kill(process, signal.SIGKILL)
    outcome = job.end(DEADLINE)
    print(f"{what}: status {outcome.code} after {time.monotonic() - begin:.1f} s", flush=True)
    checks.true(f"{what}: ends within {DEADLINE} s with a failure", outcome.code not in (None, 0), outcome)
    said = re.search(r"signal 9|EXIT CODE: 9", outcome.out + outcome.err)  # by Open MPI, by Hydra on standard output
    checks.true(f"{what}: says what happened", said, outcome)
    left = job.left()
    checks.true(f"{what}: leaves no process", not left, f"{left}\n{outcome}")
    left = [name for name in memory if os.path.exists(name)]
    checks.true(f"{what}: leaves no shared memory", not left, left)


def test_fails(checks, where):
    """One rank does not find the model."""
    what = f"{where}: a rank fails"
    other = 'test "$OMPI_COMM_WORLD_RANK$PMI_RANK" = 0 || cd /; exec "$@"'
    job = Job(PLACES[where], "/bin/sh", "-c", f'cd "{ROOT}/models"; {other}', "sh", BIN / "qwen3", "logits", "--output",
              os.devnull, "--tokens", 1, "--model", "demo")
    outcome = job.end(DEADLINE)
    checks.true(f"{what}: ends within {DEADLINE} s with a failure", outcome.code not in (None, 0), outcome)
    said = re.findall("qwen3: error: .*", outcome.err)
    checks.true(f"{what}: says it once", len(said) == 1 and "rank 1" in said[0] and "demo" in said[0], outcome)
    checks.true(f"{what}: leaves no process", not job.left(), outcome)


def test_stopped(checks, cases):
    """cases: (where, tokens, tokens of the prefill, strategy). All of them at once."""
    with scratch() as directory:
        jobs = []
        for where, tokens, prefill, strategy in cases:
            ids = directory / f"ids{tokens}"
            ids.write_text(" ".join(str(i * 7 % 251) for i in range(tokens)))
            arguments = ["logits", "--model", "synthetic:tiny", "--tokens", f"@{ids}", "--decode-from", prefill,
                         "--parallel-strategy", strategy, "--output"]
            what = f"{where}: a rank is stopped, {prefill} of {tokens} tokens in the prefill, {strategy}"
            output = directory / str(len(jobs))
            expected = Job(PLACES[where], "qwen3", *arguments, f"{output}-expected").end(120)
            checks.true(f"{what}: runs", expected.ok, expected)
            job = Job(PLACES[where], "qwen3", *arguments, output)
            process = job.wait_for(lambda job=job: job.computes(1)) and job.rank(1)
            if checks.true(f"{what}: starts", process):
                os.kill(process, signal.SIGSTOP)
            jobs.append((what, job, output, process))
        time.sleep(STOPPED)
        for what, job, output, process in jobs:
            checks.true(f"{what}: the others wait", job.child.poll() is None)
            if process:
                os.kill(process, signal.SIGCONT)
            outcome = job.end(120)
            same = outcome.ok and output.read_bytes() == pathlib.Path(f"{output}-expected").read_bytes()
            checks.true(f"{what}: the same logits", same, outcome)


def main():
    checks = Checks()
    if subprocess.run([*HOSTS, "true"], check=False).returncode == 77:
        del PLACES["two hosts"]
    killed = [("one node", "prefill", "sequence", 1), ("one node", "decode", "headwise", 0),
              ("two hosts", "prefill", "sequence", 0), ("two hosts", "decode", "headwise", 1)]
    stopped = [("one node", 4000, 1, "headwise"), ("two hosts", 2500, 1, "sequence"),
               ("two hosts", 12000, 11999, "sequence")]
    for case in killed:
        if case[0] in PLACES:
            test_killed(checks, *case)
    for where in PLACES:
        test_fails(checks, where)
    test_stopped(checks, [case for case in stopped if case[0] in PLACES])
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
