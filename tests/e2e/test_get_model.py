#!/usr/bin/env python3
"""scripts/get-model.sh against a server of this test, which answers as Hugging Face does: a list of files with sizes
and checksums, and files behind a redirection, from any byte on; that of large files leads to another host, which takes
no token. It is a proxy as well. Nothing is asked of the network."""
import hashlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

from e2e import ROOT, Checks, scratch

SCRIPT = ROOT / "scripts" / "get-model.sh"
LARGE = "model-00002-of-00002.safetensors"
FILES = {
    "config.json": b'{"a": "\xc3\xa9"}', "tokenizer.json": b"[0]" * 5000, "chat_template.jinja": b"{{ x }}\n",
    "model.safetensors.index.json": b"{} ", LARGE: bytes(range(256)) * 4000,
}
GGUF = {"tiny-Q8_0.gguf": b"GGUF" * 100, "tiny-q4_k_m-00001-of-00002.gguf": b"GGUF" * 50,
        "tiny-q4_k_m-00002-of-00002.gguf": b"GGUF" * 60, "mmproj-tiny-F16.gguf": b"GGUF"}
FOLDER = {f"Q6_K/tiny-Q6_K-0000{i}-of-00002.gguf": b"GGUF" * (70 + i) for i in (1, 2)}
ALL = {**FILES, **GGUF, **FOLDER}
FEW = {name: FILES[name] for name in ("config.json", LARGE)}  # starting curl takes the time
WITHOUT_SLEEP = "sleep() { :; }; export -f sleep;"
NOT_NEEDED = {"README.md": b"#", "vocab.json": b"{}", "pytorch_model.bin": b"x" * 100, ".gitattributes": b"*"}


def listing(files):
    """What /api/models/OWNER/NAME/tree/main answers."""
    entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "figures"}]
    for name, data in files.items():
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "oid": blob, "size": len(data), "path": name}
        if name.endswith((".safetensors", ".bin", "tokenizer.json")):
            entry["oid"] = "1" * 40  # of the pointer
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entries.append(entry)
    return json.dumps(entries).encode()


class Server(http.server.ThreadingHTTPServer):
    """Serves Qwen/Tiny; the attributes say how it misbehaves, and what was asked of it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reset()

    def reset(self, files=FEW, cuts=0, ranges=True, token=None, damage=(), tree=None, status=0, busy=0):
        """cuts: so many answers end in the middle; negative: all end at their beginning. busy: every question gets so
        many answers that say so."""
        self.cuts, self.ranges, self.token, self.damage, self.status = cuts, ranges, token, damage, status
        self.busy, self.refusals, self.proxied = busy, {}, 0
        self.tree = listing({**files, **NOT_NEEDED}) if tree is None else tree
        self.asked = []  # (file, first byte)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self):
        self.answer(self.server.status)

    def do_GET(self):
        server = self.server
        server.proxied += self.path.startswith("http://")
        self.path = re.sub("^http://[^/]*", "", self.path)
        parts, large = self.path.split("/"), self.path.endswith(".safetensors")
        token = None if parts[1] == "cdn" and large else server.token
        server.refusals[self.path] = server.refusals.get(self.path, 0) + 1
        if self.headers["Authorization"] != (token and f"Bearer {token}"):
            self.answer(401 if token else 400)
        elif server.refusals[self.path] <= server.busy:
            self.answer(429 if large else 503)
        elif server.status:
            self.answer(server.status)
        elif self.path == "/api/models/Qwen/Tiny/tree/main?recursive=true":
            self.answer(200, server.tree)
        elif (name := self.path.removeprefix("/Qwen/Tiny/resolve/main/")) != self.path and name in ALL:
            other = f"http://localhost:{server.server_port}" if large and not server.proxied else ""
            self.answer(302 if large else 307, Location=f"{other}/cdn/{name}")
        elif parts[1] == "cdn":
            self.file(self.path.removeprefix("/cdn/"))
        else:
            self.answer(404, b"Entry not found")

    def file(self, name):
        server, data = self.server, ALL[name]
        if name in server.damage:
            data = data[:-1] + bytes([data[-1] ^ 1])
        begin = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        server.asked.append((name, begin))
        begin = begin if server.ranges else 0
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", len(data) - begin)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = len(data)
        if name == LARGE and server.cuts:
            end = begin + (end - begin) // 2 if server.cuts > 0 else begin
            server.cuts -= 1
        self.wfile.write(data[begin:end])


class Runner:
    def __init__(self, checks, directory, server):
        self.checks, self.directory, self.server = checks, directory, server
        self.address = f"http://127.0.0.1:{server.server_port}"

    def run(self, *arguments, before="", env=None):
        environment = {**os.environ, "HF_ENDPOINT": self.address, "HF_TOKEN": "", "no_proxy": "*", **(env or {})}
        return subprocess.run(["bash", "-c", before + ' exec "$@"', "bash", SCRIPT, *arguments], env=environment,
                              cwd=self.directory, capture_output=True, text=True, timeout=60)

    def fetched(self, what, done, directory, names=FEW):
        top = self.directory / directory
        found = {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        self.checks.true(what, done.returncode == 0 and found == {name: ALL[name] for name in names},
                         f"{done}\n{sorted(found)}\n{self.server.asked}")

    def refused(self, what, done, *words):
        """One message; no file stands under its name that is not the published one."""
        found = [path for path in self.directory.rglob("*") if path.name in ALL]
        self.checks.true(what, done.returncode == 1 and done.stderr.count("get-model.sh: error: ") == 1
                         and done.stderr.count("\n") == 1 and all(word in done.stderr for word in words)
                         and all(path.read_bytes() == ALL[path.name] for path in found), done)


def check_fetch(r):
    server = r.server
    server.reset(FILES)
    r.fetched("a complete fetch, under models/", r.run("Tiny"), "models/Tiny", FILES)
    r.checks.true("each file is asked for once, the others never", sorted(server.asked) ==
                  sorted((name, 0) for name in FILES), server.asked)
    server.reset(FILES)
    r.fetched("fetched again", r.run("Qwen/Tiny", "models/Tiny"), "models/Tiny", FILES)
    r.checks.true("nothing is asked for again", server.asked == [], server.asked)
    r.fetched("--verify of a good one", r.run("--verify", "Tiny"), "models/Tiny", FILES)
    server.reset(token="secret")
    r.fetched("a token", r.run("Tiny", "token", env={"HF_TOKEN": "secret"}), "token")
    server.reset()
    proxy = {"http_proxy": r.address, "no_proxy": "", "HF_ENDPOINT": "http://published.invalid"}
    r.fetched("by way of a proxy", r.run("Tiny", "proxy", env=proxy), "proxy")
    server.reset(busy=1)
    r.fetched("a server that is busy now and then", r.run("Tiny", "busy", before=WITHOUT_SLEEP), "busy")


def check_resume(r):
    server = r.server
    half = len(FILES[LARGE]) // 2
    server.reset(cuts=2)
    r.fetched("a connection that breaks twice", r.run("Tiny", "cut"), "cut")
    r.checks.true("it goes on where it was cut", [begin for name, begin in server.asked if name == LARGE] ==
                  [0, half, half + half // 2], server.asked)
    server.reset(FILES)
    (r.directory / "killed").mkdir()
    parts = {LARGE: FILES[LARGE][:1000], "config.json": FILES["config.json"], "tokenizer.json": b"[0]" * 9000}
    for name, part in parts.items():
        (r.directory / "killed" / f"{name}.part").write_bytes(part)
    r.fetched("what a killed fetch left", r.run("Tiny", "killed"), "killed", FILES)
    r.checks.true("parts are used, a complete one as it is, one too long not at all", (LARGE, 1000) in server.asked
                  and "config.json" not in dict(server.asked) and ("tokenizer.json", 0) in server.asked, server.asked)
    server.reset(cuts=1, ranges=False)
    r.fetched("a server that only knows whole files", r.run("Tiny", "whole"), "whole")


def check_refusals(r):
    server = r.server
    for name in (LARGE, "config.json"):
        server.reset(damage=[name])
        bad = f"bad-{name}"
        r.refused(f"{name} with another checksum", r.run("Tiny", bad), name, "checksum")
        r.checks.true(f"nothing is left of {name}", not list((r.directory / bad).glob(f"{name}*")))
    server.reset()
    r.fetched("and once more, from a good server", r.run("Tiny", bad), bad)
    r.refused("no such model", r.run("Nothing"), "Qwen/Nothing", "404")
    server.reset(token="secret")
    r.refused("a token is missing", r.run("Tiny", "x"), "401", "HF_TOKEN")
    for status, word in ((403, "terms"), (503, "later"), (418, "418"), (407, "the proxy asks")):
        server.reset(status=status)
        r.refused(f"status {status}", r.run("Tiny", "x", before=WITHOUT_SLEEP), str(status), word)
    proxy = {"https_proxy": r.address, "no_proxy": "", "HF_ENDPOINT": "https://published.invalid"}
    for status, word in ((407, "asks for a password"), (403, "the proxy (https_proxy) answers")):
        server.reset(status=status)
        r.refused(f"a proxy's {status}", r.run("Tiny", "x", env=proxy), str(status), word)
    r.refused("no proxy there", r.run("Tiny", "x", env={**proxy, "https_proxy": "http://none.invalid"}), "of the proxy")
    for tree in (b"<html>", b"{}x", b'{"error": "x"}', b'[{"type": "file", "path": "config.json"}]'):
        server.reset(tree=tree)
        r.refused(f"the list is {tree}", r.run("Tiny", "x"), "no list")
    server.reset(tree=listing({"config.json": b"{}", "../model.safetensors": b"x"}))
    r.refused("no weights, and a name that leads out", r.run("Tiny", "x"), "not a model")
    server.reset(tree=listing({**FEW, "model-00003-of-00003.safetensors": b"x"}))
    r.refused("a file that the server has not", r.run("Tiny", "x"), "model-00003", "404")
    server.reset(cuts=-1)
    r.refused("a server that always cuts", r.run("Tiny", "cuts", before=WITHOUT_SLEEP), LARGE, "broke")
    server.reset()
    r.refused("a full disk", r.run("Tiny", "full", before="trap '' XFSZ; ulimit -f 50;"), "full", "disk")
    server.reset(tree=json.dumps([{"type": "file", "path": name, "size": 1 << 50, "oid": "0" * 40}
                                  for name in FILES]).encode())
    r.refused("a disk that is too small", r.run("Tiny", "small"), "small", "MB are free")
    r.checks.true("before anything is fetched", server.asked == [], server.asked)
    r.refused("no server", r.run("Tiny", "x", env={"HF_ENDPOINT": "http://127.0.0.1:1"}), "no server")
    r.refused("no network", r.run("Tiny", "x", env={"HF_ENDPOINT": "http://none.invalid"}), "resolved", "HF_ENDPOINT")
    r.refused("a name that is a path", r.run("../x"), "../x")
    r.refused("an unknown option", r.run("--quick", "Tiny"), "--quick")
    done = r.run()
    r.checks.true("no name", done.returncode == 2 and "Usage" in done.stderr, done)
    done = r.run("--help")
    r.checks.true("--help", done.returncode == 0 and "Qwen3-0.6B" in done.stdout and not done.stderr, done)


def check_gguf(r):
    server = r.server
    server.reset(tree=listing({**GGUF, **NOT_NEEDED, "params": b"{}"}))
    r.refused("several types", r.run("Tiny", "types"), "Tiny:", "Q8_0", "q4_k_m")
    r.refused("an unknown type", r.run("Tiny:Q2_K", "types"), "Q8_0")
    split = [name for name in GGUF if "q4_k_m" in name]
    done = r.run("Tiny:Q4_K_M", "split")
    r.fetched("the parts of a type", done, "split", split)
    r.checks.true("what to give to --model", done.stdout.endswith(f"--model split/{split[0]}\n"), done)
    r.fetched("another type", r.run("Qwen/Tiny:q8_0", "whole-gguf"), "whole-gguf", ["tiny-Q8_0.gguf"])
    server.reset(tree=listing({"tiny-Q8_0.gguf": GGUF["tiny-Q8_0.gguf"]}))
    r.fetched("the only type", r.run("Tiny", "only"), "only", ["tiny-Q8_0.gguf"])
    server.reset(tree=listing({**GGUF, **FOLDER, "a/b/tiny-Q5_K_M.gguf": b"", "../up/tiny-Q2_K.gguf": b""}))
    done = r.run("Tiny:Q6_K", "folder")
    r.fetched("files in a folder", done, "folder", FOLDER)
    r.checks.true("and where they are", done.stdout.endswith(f"--model folder/{min(FOLDER)}\n"), done)
    r.refused("folders that lead elsewhere", r.run("Tiny:Q2_K", "up"), "Q6_K", "Q8_0")
    server.reset()
    r.refused("a type of a checkpoint", r.run("Tiny:Q8_0", "none"), "not a model")
    r.refused("a type that is a path", r.run("Tiny:../x"), "TYPE")


def check_names(r):
    """--help has the models that a program knows when --model is one that is not there, each once, and GGUF files."""
    source = (ROOT / "programs" / "common" / "model_arguments.c").read_text()
    known = re.findall(r'^ +"(Qwen3-[\w.-]+)",$', source, re.MULTILINE)
    shown = re.findall(r"(?<= )Qwen3-[\w.-]+(?= |$)", r.run("--help").stdout, re.MULTILINE)
    r.checks.true("names are there once", len(set(shown)) == len(shown) > 60 and len(set(known)) == len(known), shown)
    r.checks.true("the programs know them", [name for name in shown if not name.endswith("-GGUF")] == known,
                  set(shown) ^ set(known))
    for wanted in ("30B-A3B", "30B-A3B-FP8", "30B-A3B-GPTQ-Int4", "14B-AWQ", "0.6B-GGUF", "Coder-30B-A3B-Instruct",
                   "Coder-30B-A3B-Instruct-FP8", "4B-Thinking-2507", "Embedding-0.6B", "Reranker-0.6B"):
        r.checks.true(wanted, f"Qwen3-{wanted}" in shown, shown)


def check_verify(r):
    server, directory = r.server, r.directory / "models" / "Tiny"
    server.reset(FILES)
    (directory / LARGE).write_bytes(FILES[LARGE][:-1] + b"x")
    (directory / "config.json").unlink()
    done = r.run("--verify", "Tiny")
    r.checks.true("--verify names what differs and what is missing", done.returncode == 1
                  and done.stderr.count("\n") == 2 and f"{LARGE}: differs" in done.stderr
                  and "config.json: missing" in done.stderr and done.stdout.count(": ok") == len(FILES) - 2, done)
    r.checks.true("and changes nothing",
                  server.asked == [] and (directory / LARGE).read_bytes()[-1:] == b"x")


def main():
    checks = Checks()
    with scratch() as directory, Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        r = Runner(checks, pathlib.Path(directory), server)
        check_fetch(r)
        check_resume(r)
        check_refusals(r)
        check_gguf(r)
        check_names(r)
        check_verify(r)
        server.shutdown()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
