#!/usr/bin/env python3
"""qwen3 run: what it generates is what the logits say, what is shown is what was generated, and what ends it."""
import os
import sys

import numpy as np

from e2e import BIN, PRECISIONS, RANKS, Checks, precision_options, run, scratch

from text_model import TextModel, events, joined, last

REFUSED = 2
PROMPT = "The rank computes"
GREEDY = ["--temperature", 0]


class Runs:
    def __init__(self, checks, model, precision="small"):
        self.checks, self.model, self.precision = checks, model, precision
        self.options = ["--model", model.directory, *precision_options(precision)]

    def holds(self, what, *condition):
        return self.checks.true(f"as a {self.precision} model: {what}", *condition)

    def run(self, *arguments, ranks=1, stdin=b""):
        return run(ranks, "qwen3", "run", *self.options, *arguments, stdin=stdin)

    def events(self, *arguments, ranks=1, stdin=b""):
        outcome = self.run("--json", *arguments, ranks=ranks, stdin=stdin)
        self.holds(f"run {' '.join(map(str, arguments))} on {ranks}", outcome.ok, outcome)
        return events(outcome.out) if outcome.ok else [{"event": "done", "tokens": []}]


def check_greedy(r, directory):
    """Each token has the largest logit of the program that writes logits, and the text is the tokens'."""
    prompt = r.model.tokenizer.encode(PROMPT)
    found = r.events("--raw", PROMPT, "-n", 24, *GREEDY)
    done, start = last(found, "done"), last(found, "start")
    tokens = done["tokens"]
    r.holds("start and counts", start.get("prompt_tokens") == len(prompt) == done["prompt_tokens"]
            and done["generated_tokens"] == len(tokens) == 24 and done["reason"] == "length"
            and done["reused_tokens"] == 0 and done["context_tokens"] == len(prompt) + 23, found)
    r.holds("the text is that of the tokens", joined(found, "text") == r.model.text(tokens), found)
    output = directory / "logits.f32"
    outcome = run(1, "qwen3", "logits", *r.options, "--all", "--decode-from", len(prompt), "--tokens",
                  ",".join(map(str, prompt + tokens[:-1])), "--output", output)
    logits = np.fromfile(output, "<f4").reshape(len(prompt) + 23, -1)[len(prompt) - 1:, :r.model.n_tokens]
    r.holds("each token has the largest logit", list(logits.argmax(axis=1)) == tokens, outcome)
    outcome = r.run("--raw", PROMPT, "-n", 24, *GREEDY)
    r.holds("to a pipe, the text and nothing else", outcome.ok and outcome.out == r.model.text(tokens)
            and outcome.err == "", outcome)
    return tokens


def check_sources(r):
    """Argument, file and pipe; a newline at the end of these two is not part of the prompt."""
    expected = r.run(PROMPT, "-n", 8, *GREEDY)
    path = r.model.directory / "prompt.txt"
    path.write_text(PROMPT + "\n")
    for name, outcome in (("file", r.run("--file", path, "-n", 8, *GREEDY)),
                          ("pipe", r.run("-n", 8, *GREEDY, stdin=PROMPT.encode()))):
        r.holds(f"{name} as argument", outcome.ok and outcome.out == expected.out, outcome)
    outcome = r.run("--stats", PROMPT, "-n", 8, *GREEDY)
    r.holds("statistics go to standard error", outcome.out == expected.out and "8 tokens generated" in outcome.err,
            outcome)
    # A control token that a user writes is text: many tokens instead of one.
    counts = [last(r.events(text, "-n", 1), "start").get("prompt_tokens", 0) for text in ("x", "<|im_end|>")]
    r.holds("users write no control tokens", counts[1] >= counts[0] + 4, counts)
    raw = last(r.events("--raw", "<|im_end|>", "-n", 1), "start").get("prompt_tokens")
    r.holds("raw text has control tokens", raw == 1, raw)


def check_stop(r, tokens):
    """A stop string is never shown, nor part of it, wherever tokens cut it."""
    text = r.model.text(tokens)
    borders = np.cumsum([len(r.model.text([token])) for token in tokens])
    for begin, length in ((borders[4] - 1, 3), (borders[9] - 2, 4), (borders[14], 1), (0, 2)):
        stop = text[begin:begin + length]
        first = text.find(stop)
        found = r.events("--raw", PROMPT, "-n", 24, *GREEDY, "--stop", "never this", "--stop", stop)
        r.holds(f"stops before {stop!r}", joined(found, "text") == text[:first]
                and (last(found, "done")["reason"], last(found, "done").get("stop")) == ("stop", stop), found)
    unfinished = text[-3:] + "and more"
    found = r.events("--raw", PROMPT, "-n", 24, *GREEDY, "--stop", unfinished)
    r.holds("what only began a stop string is shown", joined(found, "text") == text, found)
    # the longer one, which is waited for, never comes: the other one, inside it, counts
    inside, around = text[-3:-1], text[-4:] + "and more"
    found = r.events("--raw", PROMPT, "-n", 24, *GREEDY, "--stop", around, "--stop", inside)
    r.holds("one inside another that does not come", joined(found, "text") == text[:text.find(inside)], found)


def check_ends(r):
    end = r.model.id["<|im_end|>"]
    found = r.events(PROMPT, "--logit-bias", f"{end}=1e4", *GREEDY)
    done = last(found, "done")
    r.holds("an end token ends, and is not shown", joined(found, "text") == "" and done["reason"] == "end"
            and done["tokens"] == [end], found)
    prompt = done["prompt_tokens"]
    found = r.events(PROMPT, "--logit-bias", f"{end}=-inf", "--logit-bias", f"{r.model.id['<|endoftext|>']}=-inf",
                     "--context", prompt + 3, *GREEDY)
    done = last(found, "done")
    r.holds("a full context ends", done["reason"] == "context" and done["generated_tokens"] == 4
            and done["context_tokens"] == prompt + 3, found)


def check_thinking(checks, directory, precision):
    """A template that opens reasoning: it is told apart, shown as it was written, or hidden."""
    model = TextModel(directory / f"thinking-{precision}", template="qwen3-thinking-2507", ends=False)
    r = Runs(checks, model, precision)
    close = r.model.id["</think>"]
    for seed in range(40):  # the first answer whose reasoning ends once, in the middle
        arguments = [PROMPT, "-n", 12, "--temperature", 1, "--seed", seed, "--logit-bias", f"{close}=4",
                     "--logit-bias", f"{r.model.id['<think>']}=-inf"]
        found = r.events(*arguments)
        tokens = last(found, "done")["tokens"]
        at = tokens.index(close) if close in tokens else 0
        thinking, text = r.model.text(tokens[:at]), r.model.text(tokens[at + 1:]).lstrip("\n")
        if tokens.count(close) == 1 and 2 < at < 10:
            break
    r.holds("the reasoning ends within", tokens.count(close) == 1 and 2 < at < 10, tokens)
    r.holds("reasoning and answer", (joined(found, "thinking"), joined(found, "text")) == (thinking, text), found)
    outcome = r.run(*arguments)
    r.holds("what the model wrote", outcome.out == r.model.text(tokens), outcome)
    outcome = r.run(*arguments, "--hide-thinking")
    r.holds("--hide-thinking", outcome.out == text, outcome)
    outcome = r.run(PROMPT, "-n", 1)
    r.holds("greedy because the file does not say", outcome.ok and outcome.err.count("\n") == 1 and
            "generation_config.json does not say do_sample" in outcome.err, outcome)
    outcome = r.run(PROMPT, "-n", 1, "--temperature", 0)
    r.holds("greedy because it was asked for", outcome.ok and outcome.err == "", outcome)
    outcome = r.run(PROMPT, "--no-thinking")
    r.holds("--no-thinking where it always reasons", outcome.code == REFUSED and "always reasons" in outcome.err,
            outcome)


def check_sampling(r):
    """Draws are reproducible, on any number of ranks where no BF16 makes more of another order of sums, and follow the
    options."""
    arguments = [PROMPT, "-n", 30, "--temperature", 1.1, "--top-p", 0.9, "--min-p", 0.001, "--top-k", 50,
                 "--presence-penalty", 0.5, "--frequency-penalty", 0.1, "--repetition-penalty", 1.1]
    many = RANKS[:3] if r.precision == "small" else RANKS[:3][-1:] * 2
    found = [last(r.events(*arguments, "--seed", seed, ranks=ranks), "done")["tokens"]
             for seed, ranks in [(7, n) for n in many] + [(8, 1)]]
    r.holds(f"a seed gives the same on {many} ranks", all(tokens == found[0] for tokens in found[:-1]), found)
    r.holds("another one gives something else", found[0] != found[-1], found)
    first, second = (r.events(*arguments) for _ in range(2))
    r.holds("no seed, another one each time", last(first, "start")["seed"] != last(second, "start")["seed"], first)
    again = r.events(*arguments, "--seed", last(first, "start")["seed"])
    r.holds("and it is told", last(again, "done")["tokens"] == last(first, "done")["tokens"], again)
    forced = last(r.events(*arguments, "--logit-bias", "300=1e4", "-n", 3), "done")["tokens"]
    r.holds("--logit-bias", forced == [300] * 3, forced)


def check_refusals(r, directory):
    short = TextModel(directory / "short", positions=3)
    cases = [
        ([PROMPT, "--temperature", -1], "--temperature: got \"-1\", expected a number from 0"),
        ([PROMPT, "--temperature", "nan"], "--temperature: got \"nan\""),
        ([PROMPT, "--temperature", "1e-9"], "temperature"),
        ([PROMPT, "--top-k", -1], "--top-k: got \"-1\""),
        ([PROMPT, "--top-p", 1.5], "--top-p: got \"1.5\", expected a number from 0 to 1"),
        ([PROMPT, "--min-p", "x"], "--min-p: got \"x\""),
        ([PROMPT, "--presence-penalty", "1e9"], "--presence-penalty: got"),
        ([PROMPT, "--frequency-penalty", ""], "--frequency-penalty: got \"\""),
        ([PROMPT, "--repetition-penalty", 0], "--repetition-penalty: got \"0\""),
        ([PROMPT, "--logit-bias", "5"], "--logit-bias: got \"5\", expected ID=VALUE"),
        ([PROMPT, "--logit-bias", "5=inf"], "--logit-bias: got \"5=inf\""),
        ([PROMPT, "--logit-bias", f"{r.model.n_tokens}=1"], str(r.model.n_tokens)),
        ([PROMPT, "--seed", -1], "--seed: got \"-1\""),
        ([PROMPT, "--max-tokens", 0], "--max-tokens: got \"0\""),
        ([PROMPT, "--context", 40961], "--context: got 40961, expected at most max_position_embeddings, 40960"),
        ([PROMPT, "--context", 3], "the context holds 3 (--context makes more room)"),
        ([PROMPT, "--model", short.directory], "the context holds 3 (the model's maximum, max_position_embeddings)"),
        ([PROMPT, "--stop", ""], "--stop: got \"\""),
        ([PROMPT, "more"], "unexpected argument \"more\": several words need quotes to be one PROMPT"),
        ([PROMPT, "--file", "x"], "--file contradicts"),
        ([PROMPT, "--thinking", "--no-thinking"], "--thinking contradicts --no-thinking"),
        ([PROMPT, "--raw", "--system", "x"], "--system contradicts --raw"),
        (["--file", directory / "nothing"], "--file: cannot open"),
        (["--raw"], "prompt: is empty"),
        (["--file", os.devnull], "prompt: is empty"),
        ([b"\xff"], "not well-formed UTF-8"),
        ([PROMPT, "--model", "synthetic:tiny"], "synthetic:tiny has no tokenizer"),
    ]
    for arguments, words in cases:
        outcome = r.run(*(a.decode("utf-8", "surrogateescape") if isinstance(a, bytes) else a for a in arguments))
        r.holds(f"{arguments} says {words!r}", outcome.code == REFUSED and outcome.out == "" and
                outcome.err.count("qwen3: error: ") == 1 and words in outcome.err, outcome)
    # one of them on several ranks, and a fault in the middle of an answer: all ranks end
    ranks = RANKS[:3][-1]
    outcome = r.run(PROMPT, "--context", 3, ranks=ranks)
    r.holds(f"one message on {ranks} ranks", outcome.code not in (0, None)
            and outcome.err.count("qwen3: error: ") == 1, outcome)
    outcome = run(ranks, "/bin/sh", "-c", 'exec "$@" >/dev/full', "sh", BIN / "qwen3", "run", "--model",
                  r.model.directory, PROMPT, "-n", 50)
    r.holds(f"a full disk ends {ranks} ranks", outcome.code not in (0, None)
            and outcome.err.count("standard output: cannot write") == 1, outcome)


def check_unknown_template(checks, directory):
    r = Runs(checks, TextModel(directory / "unknown", template=None))
    (r.model.directory / "chat_template.jinja").write_text("{{ messages }}")
    outcome = r.run(PROMPT)
    r.holds("an unknown template says the way out", outcome.code == REFUSED and "run --raw" in outcome.err, outcome)
    outcome = r.run(PROMPT, "--raw", "-n", 2)
    r.holds("plain completion needs none", outcome.ok, outcome)


def main():
    checks = Checks()
    with scratch() as directory:
        model = TextModel(directory / "model", sampling={"do_sample": True, "temperature": 0.6, "top_k": 20})
        for precision in PRECISIONS:
            r = Runs(checks, model, precision)
            check_stop(r, check_greedy(r, directory))
            check_sources(r)
            check_ends(r)
            check_sampling(r)
            check_thinking(checks, directory, precision)
        check_refusals(Runs(checks, model), directory)
        check_unknown_template(checks, directory)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
