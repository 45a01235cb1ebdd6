#!/usr/bin/env python3
"""Checks that every file includes only what its layer may see (docs/ARCHITECTURE.md, "Layers").

A layer sees itself, the layers listed for it, and the public headers. Programs and examples see the public
headers and their own folder only. mpi.h is known to the MPI backend and to the one file that takes an MPI_Comm
from the caller.

Inside a layer there are no circles: no headers that include each other, and no files that use each other's
functions, except files that implement the same header.

Algorithms of attention and their tiles see no communication, neither directly nor through another header.
"""
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

PUBLIC = {"qwen3.h", "qwen3_grammar.h", "qwen3_mpi.h", "qwen3_scheduler.h"}
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
ALGORITHMS = re.compile(
    r"src/attention/((algorithms|standard|online_softmax|partial|kv_block|kv_shard|run|tile)\.[ch]|attention\.h)$"
)
USES_MPI = re.compile(r"(src/comm/(mpi\w*\.c|comm_mpi\.h)|src/engine/forward_mpi\.c|include/qwen3_mpi\.h)$")
# What the files that implement a header share: to be implemented together with it.
INSIDE = {
    "src/comm/comm_backend.h": "src/comm/comm.h",
    "src/comm/levels.h": "src/comm/comm.h",
    "src/comm/shm.h": "src/comm/comm.h",
    "src/model/source_backend.h": "src/model/source.h",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# What is no code: comments, preprocessor lines, strings.
NO_CODE = re.compile(r'/\*.*?\*/|^[ \t]*#(?:\\\n|[^\n])*|"(?:\\.|[^"\\\n])*"', re.S | re.M)
# At the beginning of a line: type and name, parameters, then a body or, with attributes before it, a semicolon.
SIGNATURE = r"^(?!static\b|typedef\b)[A-Za-z_][\w \t\n*]*?[ \n*](\w+)\([^;{}]*\)"
DEFINITION = re.compile(SIGNATURE + r"\s*\{", re.M)
DECLARATION = re.compile(SIGNATURE + r"[^;{}]*;", re.M)
# A name, but not that of a member.
USED = re.compile(r"(?<![\w.>])[A-Za-z_]\w*")


def folder(path):
    return str(PurePosixPath(path).parent)


class Tree:
    """The source files of a repository, {path: text}, and what they include."""

    def __init__(self, files):
        self.files = files
        self.includes = {path: self._includes(path, text) for path, text in files.items()}
        self.code = {path: NO_CODE.sub("", text) for path, text in files.items() if path.startswith("src/")}

    def _includes(self, path, text):
        """[(line number, whether quoted, name as written, path in this tree or None)]"""
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                quoted, name = match.group(1) == '"', match.group(2)
                places = (f"src/{name}", f"include/{name}", f"programs/{name}", f"{folder(path)}/{name}")
                target = next((p for p in places if p in self.files), None) if quoted else None
                found.append((number, quoted, name, target))
        return found

    def allowed(self, path, name):
        """Whether `path` may include the quoted header `name`."""
        parts = PurePosixPath(path).parts
        local = "/" not in name and f"{folder(path)}/{name}" in self.files
        if parts[0] == "include":
            return name in PUBLIC
        if parts[0] == "src":
            target = name.split("/")[0]
            return name in PUBLIC or local or target == parts[1] or target in LAYERS[parts[1]]
        if parts[0] == "programs":
            return name in PUBLIC or name.startswith(("common/", parts[1] + "/")) or local
        if parts[0] == "examples":
            return name in PUBLIC or local
        return True

    def layer_faults(self):
        for path, includes in self.includes.items():
            parts = PurePosixPath(path).parts
            if parts[0] == "src" and parts[1] not in LAYERS:
                yield f"{path}: unknown layer '{parts[1]}'"
                continue
            for number, quoted, name, _ in includes:
                if quoted and not self.allowed(path, name):
                    yield f"{path}:{number}: may not include \"{name}\""
                if name in ("mpi.h", "qwen3_mpi.h") and parts[0] in ("src", "include") and not USES_MPI.search(path):
                    yield f"{path}:{number}: {name} is for the MPI backend only"

    def message_faults(self):
        """Algorithms that see comm/: the shortest way of includes to it."""
        for path in filter(ALGORITHMS.search, self.files):
            ways, seen = [[path]], {path}
            while ways:
                way = ways.pop(0)
                if way[-1].startswith("src/comm/"):
                    yield f"{way[0]}: an algorithm may not see messages: " + " -> ".join(way[1:])
                    break
                for *_, target in self.includes[way[-1]]:
                    if target and target not in seen:
                        seen.add(target)
                        ways.append(way + [target])

    def functions(self):
        """{(folder, name): (header, file)}: functions that a header declares and a file beside it defines"""
        declared, found = {}, {}
        for path, code in self.code.items():
            if path.endswith(".h"):
                declared.update({(folder(path), name): path for name in DECLARATION.findall(code)})
        for path, code in self.code.items():
            if path.endswith(".c"):
                for name in DEFINITION.findall(code):
                    if (folder(path), name) in declared:
                        found[folder(path), name] = (declared[folder(path), name], path)
        return found

    def uses(self):
        """{file: {file whose functions it uses: the name of one}}, both of one layer and of no common header"""
        functions = self.functions()
        implements = {path: {f"{path[:-2]}.h"} for path in self.code}
        for header, path in functions.values():
            implements[path].add(header)
        for headers in implements.values():
            headers.update([INSIDE[h] for h in headers if h in INSIDE])
        uses = {path: {} for path in self.code}
        for path, code in self.code.items():
            for name in USED.findall(code):
                _, other = functions.get((folder(path), name), (None, path))
                if not implements[path] & implements[other]:
                    uses[path].setdefault(other, name)
        return uses

    def circle_faults(self):
        included = {path: {target: "" for *_, target in self.includes[path]
                           if target in self.code and folder(target) == folder(path)} for path in self.code}
        for what, graph in (("include", included), ("use", self.uses())):
            for circle in circles(graph):
                lines = [f"{folder(circle[0])}: files {what} each other in a circle:"]
                lines += [f"    {a} -> {b} {graph[a][b]}".rstrip() for a in circle for b in circle if b in graph[a]]
                yield "\n".join(lines)

    def faults(self):
        return [*self.layer_faults(), *self.message_faults(), *self.circle_faults()]


def circles(graph):
    """Strongly connected components of more than one node, sorted."""
    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for node in graph[todo.pop()]:
                if node not in seen:
                    seen.add(node)
                    todo.append(node)
        return seen

    reached = {node: reach(node) for node in graph}
    found = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph if a in reached[a]}
    return sorted(found)


def main():
    root = Path(__file__).resolve().parent.parent
    listed = subprocess.run(["git", "ls-files", "*.c", "*.h"], cwd=root, check=True, capture_output=True, text=True)
    tree = Tree({path: (root / path).read_text(encoding="utf-8") for path in listed.stdout.split()})
    faults = tree.faults()
    print("\n".join(faults) if faults else "layers: ok")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
