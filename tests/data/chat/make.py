#!/usr/bin/env python3
"""Makes golden.jsonl: conversations and what the templates beside this file make of them by Jinja2, one object a line.

The templates are those of the published models, which their authors put under the Apache License 2.0: qwen3 (Qwen3 as
first published), qwen3-revised (the same, later), qwen3-thinking-2507 and qwen3-instruct-2507."""
import json
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
