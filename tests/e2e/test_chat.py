#!/usr/bin/env python3
"""qwen3 chat: turns by lines and at a terminal (a pseudo-terminal, which Python plays the user of), alone and behind
the launcher. The answers of a conversation are those of its prompts computed from scratch, and nothing is computed
twice."""
import contextlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import numpy as np

from e2e import BIN, EMULATOR, LAUNCH, MPIEXEC, PRECISIONS, RANKS, Checks, precision_options, run, scratch

from text_model import TextModel, events, joined, last

FEW = [n for n in RANKS if n <= 2] or RANKS[:1]
GREEDY = ["--temperature", 0]
PATIENCE = 60  # seconds
IDLE = 0.6
TIE = 0.02  # of the root mean square of the logits: what BF16 may make of the worst row (test_logits.py)


class Chats:
    def __init__(self, checks, model, endless, directory, precision):
        self.checks, self.model, self.endless, self.directory, self.precision = (checks, model, endless, directory,
                                                                                 precision)

    def holds(self, what, *condition):
        return self.checks.true(f"as a {self.precision} model: {what}", *condition)

    def lines(self, *lines, options=(), ranks=1, model=None):
        return run(ranks, "qwen3", "chat", "--model", (model or self.model).directory, *GREEDY, *options,
                   *precision_options(self.precision), stdin="".join(line + "\n" for line in lines).encode())

    def events(self, *lines, **how):
        outcome = self.lines(*lines, **{**how, "options": ["--json", *how.get("options", ())]})
        self.holds(f"chat {lines}", outcome.ok, outcome)
        return events(outcome.out)

    def prompt(self, messages, **rest):
        """The prompt of a conversation, by the programs that only make prompts."""
        outcome = run(1, "qwen3", "template", "--model", self.model.directory,
                      stdin=json.dumps({"messages": messages, **rest}).encode())
        return outcome.out


def same_answer(c, prompt, tokens, expected):
    """The same tokens. Where rows are computed in steps of other sizes, sums are taken in another order, which a large
    model rounds to BF16: tokens may differ from where the largest two logits of the prompt's ids are as near to each
    other as that."""
    at = common(tokens, expected)
    if c.precision == "small" or at == min(len(tokens), len(expected)):
        return tokens == expected
    output = c.directory / "tie.f32"
    run(1, "qwen3", "logits", "--model", c.model.directory, *precision_options(c.precision), "--output", output,
        "--tokens", ",".join(map(str, prompt + expected[:at])))
    logits = np.fromfile(output, "<f4").astype(np.float64)
    return abs(logits[tokens[at]] - logits[expected[at]]) <= TIE * np.sqrt(np.mean(logits ** 2))


def turns_of(found):
    """Events by turn, each ended by its event "done"."""
    turns, turn = [], []
    for event in found:
        turn.append(event)
        if event["event"] == "done":
            turns.append(turn)
            turn = []
    return turns


def common(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def check_turns(c):
    """Every answer is that of its prompt alone, and only what is new in a prompt is computed."""
    saved = c.directory / "turns.json"
    questions = ["What is a rank?", "And a head?\\", "with two lines", "\"\"\"", "Quoted", "", "text", "\"\"\"", "Last"]
    expected = ["What is a rank?", "And a head?\nwith two lines", "Quoted\n\ntext", "Last"]
    found = c.events("/system Be short.", *questions, f"/save {saved}", options=["-n", 7], ranks=FEW[-1])
    turns, messages = turns_of(found), json.loads(saved.read_text())["messages"]
    asked = [m["content"] for m in messages if m["role"] == "user"]
    c.holds("system message, questions of several lines", asked == expected and messages[0]["content"] == "Be short."
            and len(turns) == 4, messages)
    held = []
    for i, turn in enumerate(turns):
        done = last(turn, "done")
        prompt = c.prompt(messages[:2 * i + 2])
        ids = c.model.tokenizer.encode(prompt)
        c.holds(f"turn {i}: counts", done["prompt_tokens"] == len(ids) and done["reused_tokens"] == common(held, ids)
                and done["computed_tokens"] == len(ids) - common(held, ids), (done, len(ids), common(held, ids)))
        c.holds(f"turn {i}: the answer is kept", messages[2 * i + 2]["content"] == joined(turn, "text"), turn)
        held = ids + done["tokens"][:-1]
        if i in (1, 3):
            outcome = run(1, "qwen3", "run", "--raw", "--json", "--model", c.model.directory, *GREEDY, "-n", 7,
                          *precision_options(c.precision), stdin=(prompt + "\n").encode())
            c.holds(f"turn {i}: as from scratch", outcome.ok and
                    same_answer(c, ids, done["tokens"], last(events(outcome.out), "done")["tokens"]), outcome)
    c.holds("later turns reuse", all(last(turn, "done")["reused_tokens"] > 20 for turn in turns[1:]), turns)


def check_text(c):
    """To a pipe: answers, and nothing else."""
    found = c.events("One", "Two", options=["-n", 5])
    outcome = c.lines("One", "", "/stats", "Two", "/nothing", options=["-n", 5, "--stats"])
    texts = [joined(turn, "text") for turn in turns_of(found)]
    c.holds("answers, a line end behind each", outcome.ok and
            outcome.out == "".join(text + "\n" * (text[-1:] != "\n") for text in texts), outcome)
    c.holds("all else on standard error", outcome.err.count("5 tokens generated") == 2
            and "/nothing: no such command" in outcome.err and "sampling " in outcome.err, outcome)


def check_commands(c):
    found = c.events("One", "/no_think", "/reset", "One", "/think", "/set temperature 1", "/set seed 5", "/stats",
                     "/set top-p 7", "/set nothing 1", "/set temperature", "/load", "/exit now", "//x", "/exit", "Two",
                     options=["-n", 3], ranks=FEW[-1])
    turns = turns_of(found)
    empty = len(c.model.tokenizer.encode("<think>\n\n</think>\n\n"))
    counts = [last(turn, "done")["prompt_tokens"] for turn in turns]
    c.holds("/no_think and /reset", len(turns) == 3 and counts[1] == counts[0] + empty, found)
    stats = last(found, "stats")
    c.holds("/set and /stats", (stats.get("temperature"), stats.get("seed"), stats.get("thinking"), stats["answers"],
                                stats["generated_tokens"]) == (1, "5", True, 2, 6), stats)
    errors = [event["message"] for event in found if event["event"] == "error"]
    words = ["--top-p: got \"7\"", "/set: got \"nothing\"", "expected NAME VALUE", "/load: expected FILE",
             "/exit: expected nothing"]
    c.holds("refusals", len(errors) == len(words) and all(w in e for w, e in zip(words, errors)), errors)


def check_save_load(c):
    """A conversation goes on as if it had not been interrupted; a bad file leaves it what it is."""
    saved, bad, plain = (c.directory / name for name in ("saved.json", "bad.json", "plain.json"))
    whole = turns_of(c.events("/no_think", "One", f"/save {saved}", "Two", options=["-n", 6]))
    bad.write_text('{"messages": [{"role": "robot", "content": ""}]}')
    plain.write_text('[{"role": "user", "content": "a"}')
    found = c.events(f"/load {saved}", f"/load {bad}", f"/load {plain}", "/load /nowhere", f"/save {c.directory}",
                     "Two", options=["-n", 6])
    messages = json.loads(saved.read_text())["messages"] + [{"role": "user", "content": "Two"}]
    ids = c.model.tokenizer.encode(c.prompt(messages, enable_thinking=False))
    c.holds("the loaded conversation goes on", last(found, "done")["prompt_tokens"] == len(ids) and
            last(whole[1], "done")["prompt_tokens"] == len(ids) and
            same_answer(c, ids, last(found, "done")["tokens"], last(whole[1], "done")["tokens"]), found)
    errors = [event["message"] for event in found if event["event"] == "error"]
    words = ["bad.json: messages[0].role: got \"robot\"", "plain.json: line 1", "/nowhere: cannot open",
             f"cannot write {c.directory}: Is a directory"]
    c.holds("files that cannot be used", len(errors) == 4 and all(w in e for w, e in zip(words, errors)), errors)


def check_overflow(c):
    lines = ["/system Be short.", *["A question of some length"] * 6]
    options = ["-n", 8, "--context", 170]
    found = c.events(*lines, "/reset", "Once more", options=options)
    errors = [event["message"] for event in found if event["event"] == "error"]
    turns = turns_of(found)
    ways = ["--overflow drop", "/reset", "170 (--context makes more room)"]
    c.holds("stop: refused, with the ways out", errors and all(way in e for e in errors for way in ways), errors)
    c.holds("stop: the rest is answered", len(turns) == 7 - len(errors) and 1 < len(turns) < 6, turns)
    saved = c.directory / "overflow.json"
    found = c.events(*lines, f"/save {saved}", options=[*options, "--overflow", "drop"])
    turns, notes = turns_of(found), [event for event in found if "left the prompt" in event.get("message", "")]
    counts = [last(turn, "done") for turn in turns]
    c.holds("drop: every question is answered, with room", len(turns) == 6 and notes
            and all(done["prompt_tokens"] + 8 <= 170 and done["reason"] == "length" for done in counts), found)
    messages = json.loads(saved.read_text())["messages"]
    ids = c.model.tokenizer.encode(c.prompt([messages[0], *messages[1 + 2 * 4:-1]]))
    c.holds("drop: the oldest turns, not the system message", counts[-1]["prompt_tokens"] in
            [len(c.model.tokenizer.encode(c.prompt([messages[0], *messages[1 + 2 * k:-1]]))) for k in (2, 3, 4)], ids)
    found = c.events("A question " * 40, "Short", options=[*options, "--overflow", "drop"])
    c.holds("drop: a question that is too long alone", "the question alone" in last(found, "error").get("message", "")
            and len(turns_of(found)) == 1, found)
    short = TextModel(c.directory / f"short-{c.precision}", positions=60)
    for policy in ["stop", "drop"]:
        found = c.events("A question " * 40, options=["--overflow", policy], model=short)
        c.holds(f"{policy}: no longer context than the model has", "60 (the model's maximum, max_position_embeddings)"
                in last(found, "error").get("message", ""), found)


# ---- While it answers


def command(ranks, *arguments):
    program = [*EMULATOR, str(BIN / "qwen3"), "chat", *map(str, arguments)]
    return [LAUNCH, MPIEXEC, str(ranks), *program] if ranks > 1 else program


def environment():
    return {"OMP_NUM_THREADS": "1", **os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}


def check_stop_line(c):
    """/stop as the next line ends an answer; a signal does, too. Both without a terminal."""
    for ranks in FEW:
        child = subprocess.Popen(command(ranks, "--model", c.endless.directory, "--json",
                                         *precision_options(c.precision)), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
                                 env=environment(), start_new_session=True)
        watch = subprocess.Popen(["/bin/sh", "-c", f"sleep {PATIENCE}; kill -9 {child.pid}"], start_new_session=True)
        reasons = []
        for ending in ["/stop\n"] * 2 + ([signal.SIGINT] if ranks == 1 else []):
            child.stdin.write("A question\n")
            child.stdin.flush()
            for line in child.stdout:
                event = json.loads(line)
                if event["event"] == "text" and ending:
                    if ending == signal.SIGINT:
                        child.send_signal(ending)
                    else:
                        child.stdin.write(ending)
                        child.stdin.flush()
                    ending = None
                if event["event"] == "done":
                    reasons.append((event["reason"], event["generated_tokens"] < 40000))
                    break
        _, err = child.communicate()
        os.killpg(watch.pid, signal.SIGKILL)
        watch.wait()
        c.holds(f"answers end when told on {ranks} ranks", reasons == [("interrupted", True)] * (4 - ranks)
                and child.returncode == 0, (reasons, child.returncode, err))


class Terminal:
    """A user at a terminal with a program on it."""

    def __init__(self, arguments):
        self.text, self.read = "", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(arguments[0], arguments, environment())
        self.modes = self.modes_left = termios.tcgetattr(self.fd)

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self, pattern):
        """Reads on until the pattern appears behind what was waited for before; False where it does not come."""
        until = time.monotonic() + PATIENCE
        while True:
            match = re.compile(pattern, re.DOTALL).search(self.text, self.read)
            if match:
                self.read = match.end()
                return match.group()
            if time.monotonic() > until or not self.more(1):
                return ""

    def more(self, seconds):
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            data = b""
        self.text += data.decode(errors="replace")
        return bool(data)

    def drain(self):
        while select.select([self.fd], [], [], 0.05)[0] and self.more(0):
            pass

    def end(self):
        """Exit status; None where it had to be killed."""
        until = time.monotonic() + PATIENCE / 4
        status = None
        while status is None and time.monotonic() < until:
            with contextlib.suppress(ChildProcessError):
                pid, code = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    status = os.waitstatus_to_exitcode(code)
            if not self.more(0.05):
                time.sleep(0.05)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.modes_left = termios.tcgetattr(self.fd)
        os.close(self.fd)
        return status


def descendants(pid):
    """CPU seconds of the programs below a process, by process."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(") ")
            fields = rest.split()
            found[int(path.parent.name)] = (int(fields[1]), name.partition("(")[2],
                                            (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))

    def below(one):
        return one == pid or one in found and below(found[one][0])
    return {one: seconds for one, (_, name, seconds) in found.items() if name == "qwen3" and below(one)}


def letters(text):
    """Of an answer, in which reasoning and text may change several times."""
    return sorted(re.sub("</?think>|[^a-z]", "", text))


def check_terminal(c, ranks):
    what = f"terminal, {ranks} ranks: "
    arguments = command(ranks, "--model", c.endless.directory, *precision_options(c.precision))
    t = Terminal(arguments)

    def holds(say, condition):
        return c.holds(what + say, condition, t.text[-1500:])

    if not holds("a prompt", t.wait("/help shows") and t.wait("> ")):
        t.end()
        return
    t.type("ein Gru\u00dcx\x7f\x7f\u00df ohne Ende\r")
    holds("what is typed is seen", t.wait("ohne Ende"))
    begin = t.read
    while len(t.text) < begin + 2000 and t.more(1):
        pass
    time.sleep(0.3)  # the terminal is full by then: Ctrl-C finds the program writing
    t.type("\x03")
    holds("Ctrl-C ends the answer", t.wait(r"interrupted\]"))
    # The terminal echoes the key wherever the program has come to.
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", t.text[begin:t.read].replace("^C", ""))
    shown = shown[:shown.rfind("[")]
    holds("no control character of the answer", len(shown) > 200 and
          not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", shown))
    holds("and the program goes on", t.wait("> "))
    if ranks > 1:
        before, _ = descendants(t.pid), time.sleep(IDLE)
        used = {pid: seconds - before.get(pid, 0) for pid, seconds in descendants(t.pid).items()}
        holds(f"ranks that wait do not keep CPUs busy: {used}", len(used) == ranks and max(used.values()) < IDLE / 2)
    saved = c.directory / f"terminal-{ranks}.json"
    t.type(f"/save {saved}\r")
    holds("lines are edited by characters", t.wait("2 messages saved") and t.wait("> ")
          and json.loads(saved.read_text())["messages"][0]["content"] == "ein Gru\u00df ohne Ende")
    answer = json.loads(saved.read_text())["messages"][1]
    holds("at Ctrl-C nothing of the answer was lost", letters(shown) ==
          letters(answer.get("reasoning_content", "") + answer["content"]))
    t.type("/stats\r")
    holds("/stats", t.wait("answers       1") and t.wait("> "))
    t.type("\x1b[200~/set seed 1\r\n\x1b[201~")
    t.drain()
    t.type("\x03")  # clears what was pasted
    holds("Ctrl-C at the prompt clears the line", t.wait("Ctrl-C once more") and t.wait("> "))
    t.type("\x1b[A\x1b[A\x1b[A\r")  # up: the question again
    holds("history", t.wait("ein Gru\u00df ohne Ende"))
    while len(t.text) < t.read + 500 and t.more(1):
        pass
    t.type("\x03")
    holds("another answer", t.wait(r"interrupted\]") and t.wait("> "))
    t.type("\x04" if ranks == 1 else "/exit\r")
    status = t.end()
    holds(f"the end: {status}", status == 0)
    holds("the terminal has the modes that it had", t.modes_left == t.modes)


def check_plain_terminal(c, ranks):
    """A terminal without editing: the launcher reads it, and the line /stop ends an answer."""
    t = Terminal(command(ranks, "--model", c.endless.directory, "--no-editing",
                         *precision_options(c.precision)))
    c.holds(f"a prompt without editing, {ranks} ranks", t.wait("/help shows") and t.wait("> "), t.text[-1500:])
    t.type("A question\n")
    begin = len(t.text)
    while len(t.text) < begin + 500 and t.more(1):
        pass
    t.type("/stop\n")
    c.holds("/stop ends the answer", t.wait(r"interrupted\]") and t.wait("> "), t.text[-1500:])
    t.type("/exit\n")
    status = t.end()
    c.holds(f"the end: {status}", status == 0, t.text[-1500:])


def check_loading(c):
    """A line says how far the weights are, where they take longer than a second, and is erased."""
    arguments = command(1, "--model", "synthetic:0.6B:layers=1", "--tokens", "1", "--dtype", "q4", "--threads", "1",
                        "--output", c.directory / "loaded")
    arguments[arguments.index("chat")] = "logits"
    begin = time.monotonic()
    t = Terminal(arguments)
    while t.more(1):
        pass
    seconds, status = time.monotonic() - begin, t.end()
    lines = re.findall(r"\rLoading \[#*-*\] (\d+) %: \d+ of \d+ MB, [\d.]+ MB/s", t.text)
    c.holds(f"loading on a terminal: {status}, {seconds:.1f} s", status == 0 and (len(lines) > 0 or seconds < 2) and
            lines == sorted(lines, key=int) and (not lines or t.text.endswith("\r\x1b[K")), t.text[-1500:])


def main():
    checks = Checks()
    with scratch() as directory:
        models = TextModel(directory / "model"), TextModel(directory / "endless", ends=False, sampling={
            "do_sample": True, "temperature": 1.0, "top_k": 40})
        for precision in PRECISIONS:
            c = Chats(checks, *models, directory, precision)
            check_turns(c)
            check_text(c)
            check_commands(c)
            check_save_load(c)
            check_overflow(c)
            check_stop_line(c)
        for ranks in FEW:  # whose answers are not looked at: once
            check_terminal(c, ranks)
        check_plain_terminal(c, FEW[-1])
        check_loading(c)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
