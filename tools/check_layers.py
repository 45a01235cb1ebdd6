#!/usr/bin/env python3
"""Checks that every file includes only what its layer may see (docs/ARCHITECTURE.md, "Layers").

A layer sees itself, the layers listed for it, and the public headers. Programs and examples see the public
headers and their own folder only. Algorithms of attention see no communication, strategies' messages stay in
comm/, and mpi.h is known to the MPI backend and to the one file that takes an MPI_Comm from the caller.
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = {"qwen3.h", "qwen3_mpi.h"}
LAYERS = {
    "base": set(),
    "kernels": {"base"},
    "comm": {"base"},
    "io": {"base"},
    "attention": {"base", "kernels", "comm"},
    "model": {"base", "kernels", "comm", "io", "attention"},
    "blocks": {"base", "kernels", "comm", "io", "attention", "model"},
    "engine": {"base", "kernels", "comm", "io", "attention", "model", "blocks"},
}
# Attention without messages: the algorithms and the arithmetic of partials.
ALGORITHMS = re.compile(r"src/attention/(algorithms|standard|online_softmax|partial|kv_block|run)\w*\.c$")
USES_MPI = re.compile(r"(src/comm/(mpi\w*\.c|comm_mpi\.h)|src/engine/forward_mpi\.c|include/qwen3_mpi\.h)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def allowed(path, name):
    """Whether `path` may include the quoted header `name`."""
    parts = Path(path).parts
    local = (ROOT / path).parent / name
    if parts[0] == "include":
        return name in PUBLIC
    if parts[0] == "src":
        layer, target = parts[1], name.split("/")[0]
        if name in PUBLIC or ("/" not in name and local.exists()):
            return True
        if ALGORITHMS.search(path) and target == "comm":
            return False
        return target == layer or target in LAYERS[layer]
    if parts[0] == "programs":
        return name in PUBLIC or name.startswith(("common/", parts[1] + "/")) or ("/" not in name and local.exists())
    if parts[0] == "examples":
        return name in PUBLIC
    return True


def main():
    files = subprocess.run(["git", "ls-files", "*.c", "*.h"], cwd=ROOT, check=True, capture_output=True, text=True)
    faults = []
    for path in files.stdout.split():
        parts = Path(path).parts
        if parts[0] == "src" and parts[1] not in LAYERS:
            faults.append(f"{path}: unknown layer '{parts[1]}'")
            continue
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            quoted, name = found.group(1) == '"', found.group(2)
            if quoted and not allowed(path, name):
                faults.append(f"{path}:{number}: may not include \"{name}\"")
            if name in ("mpi.h", "qwen3_mpi.h") and parts[0] in ("src", "include") and not USES_MPI.search(path):
                faults.append(f"{path}:{number}: {name} is for the MPI backend only")
    print("\n".join(faults) if faults else "layers: ok")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
