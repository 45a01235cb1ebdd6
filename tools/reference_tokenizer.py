#!/usr/bin/env python3
"""The tokenizer of the family, slow and plain: the executable specification of src/io/tokenizer*.c. And a trainer of
small vocabularies, so that tests need no published one.

    reference_tokenizer.py encode TOKENIZER_JSON < text        ids, with one space between them
    reference_tokenizer.py train TEXT MERGES OUTPUT            a tokenizer.json in the published layout

The split pattern runs on a word of one letter for each character, its kind, because Python's re does not know \\p{L}:
L letter, N number, S white space, B carriage return or line feed, _ a blank, O anything else.
"""
import collections
import json
import re
import sys
import unicodedata
from pathlib import Path

PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")
CONTRACTION = re.compile(r"'(?:[stmd]|re|ve|ll)", re.IGNORECASE)  # the long s counts as s
KINDS = re.compile(r"[S_O]?L+|N|_?O+B*|[S_B]*B+|[S_B]+(?![^S_B])|[S_B]+")
SPACES = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def alphabet():
    """byte -> the character that stands for it in byte-level vocabularies."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


ALPHABET = alphabet()
BYTES = {character: byte for byte, character in ALPHABET.items()}


def kind(character):
    if character in "\r\n":
        return "B"
    if ord(character) in SPACES:
        return "_" if character == " " else "S"
    category = unicodedata.category(character)[0]
    return category if category in "LN" else "O"


def split(text):
    """Form C -> pieces."""
    kinds = "".join(map(kind, text))
    at = 0
    while at < len(text):
        end = (CONTRACTION.match(text, at) or KINDS.match(kinds, at)).end()
        yield text[at:end]
        at = end


class Tokenizer:
    def __init__(self, path):
        parsed = json.loads(Path(path).read_text(encoding="utf-8"))
        self.vocab = parsed["model"]["vocab"]
        pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
                 for merge in parsed["model"]["merges"]]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.added = {token["content"]: token["id"] for token in parsed["added_tokens"]}
        # The first alternative wins: the longest first.
        longest = sorted(self.added, key=len, reverse=True)
        self.added_pattern = re.compile("|".join(map(re.escape, longest))) if longest else re.compile(r"(?!)")
        self.special = {token["id"] for token in parsed["added_tokens"] if token["special"]}
        self.tokens = {id: bytes(BYTES[c] for c in token) for token, id in self.vocab.items()}
        self.tokens.update({id: token.encode() for token, id in self.added.items()})

    def merge(self, piece):
        symbols = [ALPHABET[byte] for byte in piece.encode()]
        while len(symbols) > 1:
            rank, place = min((self.ranks.get(pair, len(self.ranks)), i) for i, pair in
                              enumerate(zip(symbols, symbols[1:])))
            if rank == len(self.ranks):
                break
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        return [self.vocab[symbol] for symbol in symbols]

    def encode_stretch(self, text):
        return [id for piece in split(unicodedata.normalize("NFC", text)) for id in self.merge(piece)]

    def encode(self, text, plain=False):
        if plain:
            return self.encode_stretch(text)
        ids, at = [], 0
        for match in self.added_pattern.finditer(text):
            ids += self.encode_stretch(text[at : match.start()]) + [self.added[match.group()]]
            at = match.end()
        return ids + self.encode_stretch(text[at:])

    def decode(self, ids, skip_special=False):
        kept = (id for id in ids if not (skip_special and id in self.special))
        return b"".join(self.tokens[id] for id in kept).decode(errors="replace")


# ---- Training


def train(text, n_merges, added):
    """The most frequent pair becomes a token, n_merges times (ties: the pair that sorts first). -> tokenizer.json"""
    words = collections.Counter(split(unicodedata.normalize("NFC", text)))
    words = {tuple(ALPHABET[byte] for byte in word.encode()): count for word, count in words.items()}
    vocab = {ALPHABET[byte]: i for i, byte in enumerate(BYTES[character] for character in sorted(BYTES))}
    merges = []
    while len(merges) < n_merges:
        pairs = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                if pair[0] + pair[1] not in vocab:  # a token has one merge that makes it, as in published files
                    pairs[pair] += count
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append([left, right])
        vocab[left + right] = len(vocab)
        joined = {}
        for word, count in words.items():
            symbols = list(word)
            i = 0
            while i + 1 < len(symbols):
                if (symbols[i], symbols[i + 1]) == (left, right):
                    symbols[i : i + 2] = [left + right]
                i += 1
            joined[tuple(symbols)] = count
        words = joined
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": len(vocab) + i, "content": content, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": special}
                         for i, (content, special) in enumerate(added.items())],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}, level]},
        "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }


ADDED = {"<|endoftext|>": True, "<|im_start|>": True, "<|im_end|>": True, "<tool_call>": False, "</tool_call>": False,
         "<think>": False, "</think>": False}


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "encode":
        print(*Tokenizer(sys.argv[2]).encode(sys.stdin.buffer.read().decode(errors="replace")))
    elif len(sys.argv) == 5 and sys.argv[1] == "train":
        text = Path(sys.argv[2]).read_text(encoding="utf-8")
        Path(sys.argv[4]).write_text(json.dumps(train(text, int(sys.argv[3]), ADDED), indent=2, ensure_ascii=False),
                                     encoding="utf-8")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
