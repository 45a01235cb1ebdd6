#!/usr/bin/env python3
"""Makes golden.jsonl: conversations and what the templates beside this file make of them by Jinja2, one object a line.
With QWEN3_CODER_TEMPLATES=DIR, which holds qwen3-coder.jinja and qwen3-coder-revised.jinja, also golden-coder.jsonl.

The templates are those of the published models, which their authors put under the Apache License 2.0: qwen3 (Qwen3 as
first published), qwen3-revised (the same, later), qwen3-thinking-2507 and qwen3-instruct-2507."""
import json
import os
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "e2e"))

import chat_conversations  # noqa: E402

random = np.random.RandomState(20250429)
with open(HERE / "golden.jsonl", "w", encoding="utf-8") as file:
    for template in chat_conversations.TEMPLATES:
        render = chat_conversations.reference(template)
        for _ in range(8):
            conversation = chat_conversations.conversation(random, template)
            line = {"template": template, **conversation, "prompt": render(conversation)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

coder = os.environ.get("QWEN3_CODER_TEMPLATES")
if coder:
    with open(HERE / "golden-coder.jsonl", "w", encoding="utf-8") as file:
        for template in chat_conversations.CODER:
            render = chat_conversations.reference_of(pathlib.Path(coder) / f"{template}.jinja")
            for _ in range(8):
                conversation = chat_conversations.coder_conversation(random)
                line = {"template": template, **conversation, "prompt": render(conversation)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
