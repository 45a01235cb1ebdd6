#!/usr/bin/env python3
"""Prints the hashes of the pieces of chat templates, as src/io/chat_template_known.c has them: pieces.py FILE..."""
import re
import sys

TAG = re.compile(r"\{([%{#])-?(.*?)-?[%}#]\}", re.S)
SPACES = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\s+""", re.S)


def pieces(text):
    """The hash (FNV-1a) of each tag: its kind, and what it says without the white space that has no effect."""
    at, out = 0, []
    for tag in TAG.finditer(text):
        assert not text[at:tag.start()].strip(), text[at:tag.start()]
        at = tag.end()
        if tag[1] == "#":
            continue
        inside = SPACES.sub(lambda found: found[1] or " ", tag[2]).strip()
        value = 0x811C9DC5
        for byte in (tag[1] + inside).encode():
            value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
        out.append(value)
    assert not text[at:].strip()
    return out


for name in sys.argv[1:]:
    hashes = pieces(open(name, encoding="utf-8", newline="").read())
    print(f"/* {name}: {len(hashes)} */")
    print(", ".join(f"0x{value:08x}" for value in hashes))
