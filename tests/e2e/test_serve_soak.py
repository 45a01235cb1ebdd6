#!/usr/bin/env python3
"""A short form of bench/soak_serve.py: many connections and requests of every kind, good, broken off and malformed. All
replies are right, and no file remains open. What memory grows by says little in seconds: it is printed, not judged."""
import subprocess
import sys

from e2e import ROOT, Checks

from serve_client import Server, built_without_server


def main():
    c = Checks()
    if built_without_server():
        print("skipped: built without libmicrohttpd")
        return 77
    with Server("--waiting", 32) as s:
        command = [sys.executable, ROOT / "bench" / "soak_serve.py", "--url", s.address, "--pid", str(s.pid()),
                   "--connections", "60", "--requests", "400", "--warm-up", "200", "--most-growth", "1000"]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        print(outcome.stdout, end="")
        c.true("no wrong reply, and no file left open", outcome.returncode == 0, outcome)
        c.true("and it ends", s.stop() == 0, s.errors())
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
