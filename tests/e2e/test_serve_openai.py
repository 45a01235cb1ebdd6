#!/usr/bin/env python3
"""OpenAI's own client against qwen3 serve. Skipped unless there is node, and the npm package openai in the folder that
QWEN3_NODE_MODULES names: (mkdir DIR && cd DIR && npm install openai), QWEN3_NODE_MODULES=DIR."""
import os
import pathlib
import shutil
import subprocess
import sys

from e2e import Checks

from serve_client import Server, built_without_server

SUITE = pathlib.Path(__file__).with_name("openai_client.mjs")


def main():
    folder = pathlib.Path(os.environ.get("QWEN3_NODE_MODULES", ""))
    if built_without_server() or not shutil.which("node") or not (folder / "node_modules" / "openai").is_dir():
        print("skipped: needs libmicrohttpd, node, and QWEN3_NODE_MODULES")
        return 77
    c = Checks()
    with Server() as s:
        outcome = subprocess.run(["node", SUITE, s.address], capture_output=True, text=True, timeout=60, check=False)
        lines = outcome.stdout.splitlines()
        for line in lines:
            c.true(line.partition(": ")[2], line.startswith("ok: "), line)
        c.true("the suite ends", outcome.returncode == 0 and len(lines) >= 11, outcome)
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
