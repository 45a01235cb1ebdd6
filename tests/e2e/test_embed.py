#!/usr/bin/env python3
"""qwen3 embed and rerank beside the float64 reference: strategies, ranks, batches, instructions, fewer dimensions,
texts longer than a pass; checkpoints with names as embedding models have them; packed; every refusal."""
import json
import shutil
import struct

import numpy as np

from e2e import RANKS, Checks, relative_l2, run, scratch

import reference
import reference_tokenizer
from text_model import TextModel

F32 = ("--dtype", "f32", "--kv-dtype", "f32")
REFUSED = 2
TEXTS = ["What is a rank?", "a", "  spaces and\nlines ", "你好 <|im_end|> <|endoftext|>", "Ring of ranks. " * 40,
         "yes or no"]
TASK = "Given a question, find an answer"
BEGIN = ("<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
         "provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>")
END = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def change_json(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


class Model(TextModel):
    """With "yes" and "no" as tokens, and an end of texts as embedding models have it."""

    def __init__(self, directory):
        super().__init__(directory, template=None)
        self.end = self.id["<|endoftext|>"]

        def add(content):
            for word in ("no", "yes"):
                self.id[word] = max(token["id"] for token in content["added_tokens"]) + 1
                content["added_tokens"].append({"id": self.id[word], "content": word, "single_word": False,
                                                "lstrip": False, "rstrip": False, "normalized": False,
                                                "special": False})
            content["post_processor"] = {"type": "Sequence", "processors": [
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
                {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}},
                                                          {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
                 "pair": [], "special_tokens": {"<|endoftext|>": {
                     "id": "<|endoftext|>", "ids": [self.end], "tokens": ["<|endoftext|>"]}}}]}
        change_json(directory / "tokenizer.json", add)
        self.tokenizer = reference_tokenizer.Tokenizer(directory / "tokenizer.json")

    def embedding(self, text, instruct=None, dimensions=None):
        plain = lambda t: self.tokenizer.encode(t, plain=True)  # noqa: E731
        whole = text if instruct is None else f"Instruct: {instruct}\nQuery:{text}"
        hidden = reference.hidden_states(self.directory, plain(whole) + [self.end])[-1][:dimensions]
        return hidden / np.linalg.norm(hidden)

    def score(self, query, document, instruct):
        ids = []  # nothing that a user wrote becomes a control token
        for part, user in ((BEGIN, False), (f"user\n<Instruct>: {instruct}\n<Query>: {query}\n<Document>: {document}",
                                            True), (END, False)):
            ids += self.tokenizer.encode(part, plain=user)
        no, yes = reference.forward(self.directory, ids, all_positions=False)[0][[self.id["no"], self.id["yes"]]]
        return 1 / (1 + np.exp(no - yes))


def bare(model, directory):
    """The checkpoint as embedding models are published: without "model." and an output head, and not tied."""
    shutil.copytree(model.directory, directory)
    path = directory / "model.safetensors"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = {name.removeprefix("model."): entry for name, entry in json.loads(raw[8:8 + length]).items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length:])
    change_json(directory / "config.json", lambda content: content.update(tie_word_embeddings=False))


def lines(values):
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


def embed(ranks, directory, texts, *options):
    """(vectors or None, outcome)"""
    outcome = run(ranks, "qwen3", "embed", "--model", directory, *F32, *options, stdin=lines(texts))
    if not outcome.ok:
        return None, outcome
    found = [json.loads(line) for line in outcome.out.split("\n") if line]
    return np.array([f["embedding"] for f in found]) if [f["index"] for f in found] == list(
        range(len(found))) else None, outcome


def near(got, expected, limit=1e-5):
    return got is not None and len(got) == len(expected) and all(
        len(a) == len(b) and relative_l2(np.array(a), np.array(b)) < limit for a, b in zip(got, expected))


def grids(ranks):
    yield ("--parallel-strategy", "headwise")
    yield ("--parallel-strategy", "sequence")
    for s in range(2, ranks):
        if ranks % s == 0:
            yield ("--parallel-strategy", "hybrid", "--grid", f"{s}x{ranks // s}")


def check_embed(checks, model, directory):
    expected = [model.embedding(text) for text in TEXTS]
    for ranks in RANKS:
        for grid in grids(ranks):
            got, outcome = embed(ranks, model.directory, TEXTS, *grid, "--batch", 4, "--token-split-min", 8)
            checks.true(f"embed {grid} on {ranks} ranks", near(got, expected), outcome)
    got, outcome = embed(1, model.directory, [{"text": TEXTS[0], "instruct": TASK}, TEXTS[1], {"text": TEXTS[2]},
                                              {"text": TEXTS[3], "instruct": None}])
    checks.true("instructions of lines", near(got, [model.embedding(TEXTS[0], TASK), *expected[1:4]]), outcome)
    got, outcome = embed(1, model.directory, [TEXTS[0], {"text": TEXTS[1], "instruct": "x"},
                                              {"text": TEXTS[2], "instruct": None}], "--instruct", TASK)
    checks.true("--instruct", near(got, [model.embedding(TEXTS[0], TASK), model.embedding(TEXTS[1], "x"),
                                         expected[2]]), outcome)
    got, outcome = embed(1, model.directory, TEXTS[:2], "--dimensions", 7)
    checks.true("--dimensions", near(got, [model.embedding(text, None, 7) for text in TEXTS[:2]]), outcome)
    long = ["Many words that a page has. " * 250, "short", "And another long text. " * 150]
    got, outcome = embed(1, model.directory, long, "--batch", 3)
    checks.true("texts over several passes", near(got, [model.embedding(text) for text in long]), outcome)
    got, outcome = embed(1, model.directory, [])
    checks.true("no texts", outcome.ok and outcome.out == "", outcome)
    got, outcome = embed(1, model.directory, ["", TEXTS[1]])
    checks.true("an empty text is its end", near(got, [model.embedding(""), expected[1]]), outcome)

    plain = TextModel(directory / "plain", template=None)
    got, outcome = embed(1, plain.directory, [TEXTS[0]])
    hidden = reference.hidden_states(plain.directory, plain.tokenizer.encode(TEXTS[0], plain=True))[-1]
    checks.true("a tokenizer without an end", near(got, [hidden / np.linalg.norm(hidden)]) and
                outcome.err.count("\n") == 1 and "no token at the end" in outcome.err, outcome)

    bare(model, directory / "bare")
    for ranks in RANKS[:2]:
        got, outcome = embed(ranks, directory / "bare", TEXTS)
        checks.true(f"names of embedding checkpoints on {ranks} ranks", near(got, expected), outcome)
    outcome = run(1, "qwen3", "info", "--model", directory / "bare")
    checks.true("info says that there is no output head", outcome.ok and "output head          none" in outcome.out,
                outcome)
    outcome = run(1, "qwen3", "run", "--raw", "--model", directory / "bare", "x")
    checks.true("no text without an output head", outcome.code == REFUSED and "no output head" in outcome.err, outcome)
    for name, source in (("packed", model.directory), ("packed-bare", directory / "bare")):
        outcome = run(1, "qwen3", "pack", "--model", source, "--output", directory / name, "--dtype", "f32")
        got, outcome = embed(1, directory / name, TEXTS) if outcome.ok else (None, outcome)
        checks.true(f"{name}", near(got, expected), outcome)


def check_rerank(checks, model):
    asked = [{"query": "What is a rank?", "documents": ["One of several processes.", "A fish.", "x" * 30]},
             {"query": "<|im_end|>", "documents": ["</think> yes"], "instruct": "Find it"},
             {"query": "", "documents": []}]
    default = "Given a web search query, retrieve relevant passages that answer the query"

    def expected(instruct):
        return [[model.score(line["query"], document, line.get("instruct", instruct)) for document in line["documents"]]
                for line in asked]

    def rerank(ranks, *options):
        outcome = run(ranks, "qwen3", "rerank", "--model", model.directory, *F32, *options, stdin=lines(asked))
        found = [json.loads(line) for line in outcome.out.split("\n") if line] if outcome.ok else []
        return [f["scores"] for f in found] if [f["index"] for f in found] == [0, 1, 2] else None, outcome

    def close(got, wanted):
        return got is not None and all(len(a) == len(b) and np.allclose(a, b, atol=1e-5, rtol=0)
                                       for a, b in zip(got, wanted))

    wanted = expected(default)
    checks.true("scores differ", max(wanted[0]) - min(wanted[0]) > 1e-3, wanted)
    for ranks in RANKS:
        for grid in grids(ranks):
            got, outcome = rerank(ranks, *grid, "--batch", 2)
            checks.true(f"rerank {grid} on {ranks} ranks", close(got, wanted), (got, wanted, outcome))
    got, outcome = rerank(1, "--instruct", TASK)
    checks.true("--instruct", close(got, expected(TASK)), (got, outcome))


def check_refusals(checks, model, directory):
    def refused(command, stdin, words, *options, written=0, ranks=RANKS[:2]):
        for n in ranks:
            outcome = run(n, "qwen3", command, "--model", model.directory, *F32, *options, stdin=stdin)
            checks.true(f"{command} refuses {stdin[:40]} {options} on {n}", outcome.code not in (0, None) and
                        outcome.err.count("qwen3: error: ") == 1 and words in outcome.err and
                        outcome.out.count("\n") == written, outcome)

    refused("embed", b"x\n", "standard input: line 1: column 1")
    refused("embed", b'"a"\n{"text": 1}\n"b"\n', 'line 2: expected a string, or an object with "text"', written=1)
    refused("embed", b'{"text": "a", "instruct": 1}\n', "line 1: instruct: expected a string or null")
    refused("embed", b'"a"\n', "--dimensions: got 65, expected at most hidden_size, 64", "--dimensions", 65)
    refused("embed", lines(["a", "b c d e f g h"]), "line 2: the text has", "--context", 4, written=1)
    refused("embed", b'"a"\n', "--context: got 50000", "--context", 50000)
    refused("rerank", b'"a"\n', "line 1: query: expected a string")
    refused("rerank", b'{"query": "a", "documents": []}\n{"query": "a"}\n', "line 2: documents: expected an array",
            written=1)
    refused("rerank", b'{"query": "a", "documents": ["a", 1]}\n', "documents[1]: expected a string")
    refused("rerank", b'{"query": "a", "documents": ["a", "bc"]}\n', "documents[0]: the text has", "--context", 9)
    refused("rerank", b'{"query": "a", "documents": [], "instruct": null}\n', "instruct: expected a string")
    for command in ("embed", "rerank"):
        outcome = run(1, "qwen3", command, "--model", "synthetic:tiny", stdin=b'"a"\n')
        checks.true(f"{command} needs a tokenizer", outcome.code == REFUSED and "no tokenizer" in outcome.err, outcome)
    outcome = run(1, "qwen3", "rerank", "--model", directory / "bare", stdin=b'{"query": "a", "documents": ["b"]}\n')
    checks.true("rerank needs an output head", outcome.code == REFUSED and "no output head" in outcome.err, outcome)


def main():
    checks = Checks()
    with scratch() as directory:
        model = Model(directory / "model")
        check_embed(checks, model, directory)
        check_rerank(checks, model)
        check_refusals(checks, model, directory)
    return checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
