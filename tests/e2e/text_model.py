"""A small model that can read and write: seeded random weights, a tokenizer trained here, a published chat template."""
import functools
import json
import shutil

from e2e import DATA

import make_checkpoint
import reference_tokenizer

CORPUS = DATA / "text.txt"  # of the tests alone: another text is another tokenizer, and another model
MERGES = 250
UNUSED_ROWS = 5  # of the output head, as published models have them


@functools.lru_cache(maxsize=None)
def trained_tokenizer():
    return reference_tokenizer.train(CORPUS.read_text(encoding="utf-8"), MERGES, reference_tokenizer.ADDED)


class TextModel:
    """A model directory. ends: it says which tokens end an answer."""

    def __init__(self, directory, template="qwen3-revised", ends=True, sampling=None, positions=40960):
        self.directory = directory
        directory.mkdir()
        trained = trained_tokenizer()
        (directory / "tokenizer.json").write_text(json.dumps(trained, ensure_ascii=False), encoding="utf-8")
        self.tokenizer = reference_tokenizer.Tokenizer(directory / "tokenizer.json")
        self.id = {token["content"]: token["id"] for token in trained["added_tokens"]}
        self.n_tokens = max(self.tokenizer.tokens) + 1
        make_checkpoint.make_checkpoint(directory, make_checkpoint.Shape(layers=2, vocab=self.n_tokens + UNUSED_ROWS,
                                                                         max_positions=positions))
        if not ends:
            config = json.loads((directory / "config.json").read_text())
            del config["eos_token_id"]
            (directory / "config.json").write_text(json.dumps(config))
        end = [self.id["<|im_end|>"], self.id["<|endoftext|>"]]
        (directory / "generation_config.json").write_text(
            json.dumps({**(sampling or {}), **({"eos_token_id": end} if ends else {})}))
        if template:
            shutil.copy(DATA / "chat" / f"{template}.jinja", directory / "chat_template.jinja")

    def text(self, ids, skip_special=True):
        return self.tokenizer.decode(ids, skip_special=skip_special)


def events(text):
    return [json.loads(line) for line in text.split("\n") if line]


def joined(events_of, kind):
    return "".join(event["text"] for event in events_of if event["event"] == kind)


def last(events_of, kind):
    return ([event for event in events_of if event["event"] == kind] or [{}])[-1]
