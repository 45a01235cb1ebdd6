#!/usr/bin/env python3
"""qwen3 tokenize and detokenize against tools/reference_tokenizer.py, on a small vocabulary that is trained here.

QWEN3_TEST_TOKENIZER=DIR: also on a published one; where DIR has encode-golden.jsonl ({"text": ..., "ids": ...} on each
line, made by another implementation), against that.
"""
import json
import os
import pathlib
import sys
import unicodedata

from e2e import DATA, RANKS, Checks, rng, run, scratch

import reference_tokenizer

CORPUS = DATA / "text.txt"
MERGES = 250
TEXTS = [
    "", " ", "\n", "a", "Hello, world!", "it's IT'S it'\u017f we'Ll they'VE I'D 'tis ''s",
    "e\u0301\u0323 \u212b \u212a's",
    "1234567890 \u0661\u0662\u0663 \u2167 \u00bd x\u00b2", "a\r\n\r\nb \n c\t\td  \n\n  e   ",
    "   leading", "trailing   ",
    "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\u4e16\u754c\u3002\u304b\u3099\u30ac",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0639\u064e\u0631\u064e\u0628",
    "\u1112\u1161\u11ab \ud55c\uae00", "\u0915\u093c\u0958 \u0e01\u0e33",
    "\x00\x01\x1b[0m\x7f\x85\xa0\u200b\u200e\ufeff\ufffd\ufffe", "<|im_start|>user\n<|im_end|><|im_end|<think></think>",
    "x" * 700, " " * 700 + "y", "\n" * 700, "\u0301\u0323" * 200, "7" * 700, "ab" * 300 + "\u00e9" * 100, "=-" * 300,
]


def random_texts(random, n):
    """Characters of every kind that this Python knows as well as the library."""
    pool = [chr(c) for c in [*range(0x250), *range(0x300, 0x700), *range(0x900, 0xA00), *range(0x1100, 0x1200),
                             *range(0x1E00, 0x2100), *range(0x3000, 0x3100), *range(0x4E00, 0x4F00),
                             *range(0xAC00, 0xAC80), *range(0x1F300, 0x1F400)] if unicodedata.category(chr(c)) != "Cn"]
    pieces = ["'s", "'T", " ", "  ", "\n", "\r\n", "the", "rank", " of", "<think>", "<|im_end|>", "1", "'", "\u017f",
              "-"]
    texts = []
    for _ in range(n):
        length = random.randint(1, 30)
        texts.append("".join(pool[random.randint(len(pool))] if random.randint(2) else
                             pieces[random.randint(len(pieces))] for _ in range(length)))
    return texts


class Tokenizers:
    def __init__(self, checks, directory):
        self.checks, self.holds = checks, checks.true
        self.directory = directory
        self.reference = reference_tokenizer.Tokenizer(directory / "tokenizer.json")

    def run(self, command, stdin, *options, ranks=1):
        return run(ranks, "qwen3", command, "--model", self.directory, *options, stdin=stdin)

    def lines(self, command, values, *options, ranks=1):
        """One JSON value a line, in and out."""
        text = "".join(json.dumps(value) + "\n" for value in values).encode()
        outcome = self.run(command, text, "--batch", *options, ranks=ranks)
        if not self.holds(f"{command} --batch", outcome.ok, outcome):
            return [None] * len(values)
        found = [json.loads(line) for line in outcome.out.split("\n") if line]
        self.holds(f"{command} --batch: {len(values)} lines", len(found) == len(values), len(found))
        return found + [None] * (len(values) - len(found))


def check_texts(t, texts):
    """Ids as the reference has them; back again, form C."""
    ids = t.lines("tokenize", texts)
    for text, found in zip(texts, ids):
        t.holds(f"ids of {text[:60]!r}", found == t.reference.encode(text), found)
    for text, found in zip(texts, t.lines("detokenize", ids)):
        t.holds(f"text of {text[:60]!r}", found == unicodedata.normalize("NFC", text), found)
    for text, found in zip(texts, t.lines("tokenize", texts, "--plain")):
        t.holds(f"plain ids of {text[:60]!r}", found == t.reference.encode(text, plain=True), found)
    for some, found in zip(ids, t.lines("detokenize", ids, "--skip-special")):
        t.holds(f"text without special tokens of {some}", found == t.reference.decode(some, skip_special=True), found)


def check_streams(t):
    """Standard input as it is, in each form, and bytes that are no text."""
    text = "It's <|im_end|>\n caf\u00e9 \u4e16\r\n"
    ids = t.reference.encode(text)
    for ranks in [n for n in RANKS if n <= 2]:
        outcome = t.run("tokenize", text.encode(), ranks=ranks)
        t.holds(f"ids on {ranks} ranks", outcome.ok and outcome.out == " ".join(map(str, ids)) + "\n", outcome)
    outcome = t.run("tokenize", text.encode(), "--json")
    t.holds("ids as JSON", outcome.ok and json.loads(outcome.out) == ids, outcome)
    for form in (" ".join(map(str, ids)), ",".join(map(str, ids)) + "\n", json.dumps(ids)):
        outcome = t.run("detokenize", form.encode())
        t.holds(f"text of {form}", outcome.ok and outcome.out == text, outcome)
    outcome = t.run("detokenize", json.dumps(ids).encode(), "--json")
    t.holds("text as JSON", outcome.ok and json.loads(outcome.out) == text, outcome)
    damaged = b"a\xff\xe4\xb8b\xf0\x9f\x8f"
    outcome = t.run("tokenize", damaged, "--json")
    t.holds("ids of bytes that are not UTF-8", outcome.ok and
            json.loads(outcome.out) == t.reference.encode(damaged.decode(errors="replace")), outcome)
    outcome = t.run("tokenize", b"")
    t.holds("no text, no ids", outcome.ok and outcome.out == "\n", outcome)
    outcome = t.run("detokenize", b"")
    t.holds("no ids, no text", outcome.ok and outcome.out == "", outcome)


def check_refusals(t):
    last = max(t.reference.tokens)
    cases = [
        ("tokenize", b'"a"\n"b\n', ["--batch"], "line 2: expected a JSON string"),
        ("tokenize", b'"a"\n\n', ["--batch"], "line 2: expected a JSON string"),
        ("tokenize", b'[1]\n', ["--batch"], "line 1: expected a JSON string"),
        ("tokenize", b'"\\ud800"\n', ["--batch"], "line 1: expected a JSON string"),
        ("tokenize", b'"\xff"\n', ["--batch"], "line 1: expected a JSON string"),
        ("tokenize", b"", ["--batch", "--json"], "--json contradicts --batch"),
        ("detokenize", b"[1]\n1\n", ["--batch"], "line 2: expected a JSON array of token ids"),
        ("detokenize", b"[1,]\n", ["--batch"], "line 1: expected a JSON array"),
        ("detokenize", b"[1", ["--batch"], "line 1: expected a JSON array"),
        ("detokenize", b"[1] 2", ["--batch"], "line 1: expected a JSON array"),
        ("detokenize", b"[-1]", ["--batch"], "line 1: expected a JSON array"),
        ("detokenize", b"[99999999999]", ["--batch"], "line 1: expected a JSON array"),
        ("detokenize", b"[1,%d]" % (last + 1), ["--batch"], f"line 1: token id {last + 1} at index 1"),
        ("detokenize", b"1 x", [], "expected token ids"),
        ("detokenize", b"1\x002", [], "expected token ids"),
        ("detokenize", b"%d" % (last + 1), [], f"token id {last + 1} at index 0"),
    ]
    for command, stdin, options, words in cases:
        outcome = t.run(command, stdin, *options)
        t.holds(f"{command} {options} of {stdin!r} says {words!r}", outcome.code == 2 and
                outcome.err.count("qwen3: error: ") == 1 and words in outcome.err, outcome)
    for command in ("tokenize", "detokenize"):
        outcome = run(1, "qwen3", command)
        t.holds(f"{command} without --model", outcome.code == 2 and "--model is missing" in outcome.err, outcome)
        outcome = run(1, "qwen3", command, "--model", t.directory / "nowhere")
        t.holds(f"{command} without a file", outcome.code == 2 and "nowhere: no such file" in outcome.err, outcome)


def check_published(checks, directory, texts):
    t = Tokenizers(checks, directory)
    check_texts(t, texts)
    golden = directory / "encode-golden.jsonl"
    rows = [json.loads(line) for line in golden.open(encoding="utf-8")] if golden.exists() else []
    for row, found in zip(rows, t.lines("tokenize", [row["text"] for row in rows]) if rows else []):
        checks.true(f"golden ids of {row['text'][:60]!r}", found == row["ids"], found)
    for row, found in zip(rows, t.lines("detokenize", [row["ids"] for row in rows]) if rows else []):
        checks.true(f"golden text of {row['text'][:60]!r}", found == unicodedata.normalize("NFC", row["text"]), found)


def main():
    checks = Checks()
    random = rng()
    corpus = CORPUS.read_text(encoding="utf-8")
    with scratch() as directory:
        trained = reference_tokenizer.train(corpus, MERGES, reference_tokenizer.ADDED)
        (directory / "tokenizer.json").write_text(json.dumps(trained, indent=2, ensure_ascii=False), encoding="utf-8")
        t = Tokenizers(checks, directory)
        check_texts(t, TEXTS + random_texts(random, 400) + corpus.split("\n\n"))
        check_streams(t)
        check_refusals(t)
    if os.environ.get("QWEN3_TEST_TOKENIZER"):
        check_published(checks, pathlib.Path(os.environ["QWEN3_TEST_TOKENIZER"]), TEXTS + random_texts(random, 400))
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
