#!/usr/bin/env python3
"""OpenAI's own client against qwen3 serve. Skipped unless there is node, and the npm package openai in the folder that
QWEN3_NODE_MODULES names: (mkdir DIR && cd DIR && npm install openai), QWEN3_NODE_MODULES=DIR."""
import sys

from serve_client import run_node_suite

if __name__ == "__main__":
    sys.exit(run_node_suite("openai_client.mjs", "openai", 18))
