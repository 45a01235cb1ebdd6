#!/usr/bin/env python3
"""The `ai` SDK against qwen3 serve. Skipped unless there is node, and the npm packages ai and @ai-sdk/openai-compatible
in the folder that QWEN3_NODE_MODULES names: (mkdir DIR && cd DIR && npm install ai @ai-sdk/openai-compatible),
QWEN3_NODE_MODULES=DIR."""
import sys

from serve_client import run_node_suite

if __name__ == "__main__":
    sys.exit(run_node_suite("ai_client.mjs", "@ai-sdk/openai-compatible", 11))
