#!/usr/bin/env python3
"""soak_serve.py - many connections to a `qwen3 serve`, and requests of every kind: whole ones, streams, clients that go
away, malformed requests. Checks that each gets the right reply, and that the server keeps no memory and no open files.

    build/bin/qwen3 serve --model models/demo --connections 1100 & bench/soak_serve.py --pid $!
    bench/soak_serve.py --pid PID --connections 1000 --requests 10000

A first part of the load (--warm-up) is for buffers, caches and pages that a server keeps: memory and files after it are
compared with those at the end. 429 is a right reply while the waiting line is full. Ends with 1 if something is wrong.
Needs Linux. Many connections need `ulimit -n` above their number, for both.
"""
import argparse
import asyncio
import json
import os
import random
import re
import sys
import time
import urllib.parse

WORDS = "the red box holds a key and Anna lives in Paris with her cat which is called Luna".split()
TIMEOUT = 600  # seconds, of a request


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--pid", type=int, required=True, help="of the server (of rank 0)")
    parser.add_argument("--connections", type=int, default=1000, help="at once (default 1000)")
    parser.add_argument("--requests", type=int, default=10000, help="in all, after the first part (default 10000)")
    parser.add_argument("--warm-up", type=int, default=2000, help="requests of the first part (default 2000)")
    parser.add_argument("--tokens", type=int, default=8, help="tokens of an answer, at most (default 8)")
    parser.add_argument("--most-growth", type=float, default=1, help="of memory, in percent (default 1)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


class Wrong(Exception):
    """A reply that is not the right one."""


class Client:
    """One connection after the other, with HTTP by hand: what is malformed would not pass a library."""

    def __init__(self, host, port):
        self.host, self.port, self.reader, self.writer = host, port, None, None

    async def connect(self):
        if not self.writer:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    def close(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    def abort(self):
        """Closes without reading what has come: the server sees a reset."""
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def send(self, method, path, body=b"", length=None):
        await self.connect()
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
                          f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body)
        await self.writer.drain()

    async def read_head(self):
        line = await self.reader.readline()
        found = re.match(rb"HTTP/1\.1 (\d+) ", line)
        if not found:
            raise ConnectionError(f"closed before a reply: {line!r}")
        headers = {}
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return int(found[1]), headers

    async def read_chunk(self):
        """One of a chunked body; empty at its end."""
        line = await self.reader.readline()
        if not line:
            raise ConnectionError("closed inside a reply")
        data = await self.reader.readexactly(int(line, 16) + 2)
        return data[:-2]

    async def read_reply(self):
        status, headers = await self.read_head()
        if headers.get("transfer-encoding", "") == "chunked":
            body = b""
            while chunk := await self.read_chunk():
                body += chunk
        else:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, headers, body


class Soak:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        url = urllib.parse.urlsplit(options.url)
        self.host, self.port = url.hostname, url.port
        self.left, self.counts, self.wrong = 0, {}, []
        self.kinds = [(self.whole, 4), (self.stream, 4), (self.small, 2), (self.leave_stream, 3), (self.leave_early, 2),
                      (self.leave_body, 1), (self.refused, 3), (self.no_http, 1), (self.half_closed, 1)]

    def text(self):
        return " ".join(self.random.choices(WORDS, k=self.random.randint(1, 40)))

    def body(self, stream):
        """A good request: its path and body."""
        r, tokens = self.random, self.random.randint(1, self.options.tokens)
        options = {"stream": stream, "seed": r.randint(0, 99), "temperature": r.choice([0, 0, 1])}
        messages = [{"role": "user", "content": self.text()}]
        path = r.choice(["/v1/chat/completions", "/v1/completions", "/v1/responses"])
        if path == "/v1/responses":
            options |= {"input": messages, "max_output_tokens": tokens}
        elif path == "/v1/completions":
            options |= {"prompt": self.text(), "max_tokens": tokens}
        else:
            options |= {"messages": messages, "max_tokens": tokens, "n": r.choice([1, 1, 2])}
            if r.random() < 0.2:
                options |= {"response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 2}
        return path, json.dumps(options).encode()

    @staticmethod
    def demand(condition, *detail):
        if not condition:
            raise Wrong(*detail)

    def check_error(self, reply, expected):
        status, headers, body = reply
        error = json.loads(body)["error"]
        self.demand(status == expected and isinstance(error["message"], str) and error["type"], status, body)
        self.demand(status != 429 or int(headers["retry-after"]) > 0, headers)

    # ---- Kinds of requests ----

    async def whole(self, client):
        path, body = self.body(False)
        await client.send("POST", path, body)
        reply = await client.read_reply()
        if reply[0] == 429:
            self.check_error(reply, 429)
            return
        self.demand(reply[0] == 200 and "usage" in json.loads(reply[2]), path, body, reply)

    async def stream(self, client):
        path, body = self.body(True)
        await client.send("POST", path, body)
        status, headers, text = reply = await client.read_reply()
        if status == 429:
            self.check_error(reply, 429)
            return
        last = b"event: response." if path == "/v1/responses" else b"data: [DONE]"
        blocks = [block for block in text.split(b"\n\n") if block and not block.startswith(b":")]
        self.demand(status == 200 and "text/event-stream" in headers["content-type"]
                    and blocks[-1].startswith(last) and b'"error":{' not in text, path, body, text[-500:])

    async def small(self, client):
        """What needs no tokens, and embeddings."""
        method, path, body = self.random.choice([
            ("GET", "/health", b""), ("GET", "/metrics", b""), ("GET", "/v1/models", b""), ("GET", "/", b""),
            ("POST", "/tokenize", json.dumps({"content": self.text()}).encode()),
            ("POST", "/v1/embeddings", json.dumps({"input": [self.text()] * 2}).encode())])
        await client.send(method, path, body)
        reply = await client.read_reply()
        self.demand(reply[0] in (200, 429) and reply[2], path, reply)

    async def leave_stream(self, client):
        path, body = self.body(True)
        await client.send("POST", path, body)
        status, headers = await client.read_head()
        self.demand(status in (200, 429), status)
        for _ in range(self.random.randint(0, 3)):
            if status == 200 and "transfer-encoding" in headers and not await client.read_chunk():
                break
        self.random.choice([client.close, client.abort])()

    async def leave_early(self, client):
        path, body = self.body(self.random.random() < 0.5)
        await client.send("POST", path, body)
        await asyncio.sleep(self.random.random() * 0.2)
        self.random.choice([client.close, client.abort])()

    async def leave_body(self, client):
        path, body = self.body(True)
        await client.send("POST", path, body[:len(body) // 2], len(body))
        self.random.choice([client.close, client.abort])()

    async def refused(self, client):
        method, path, body, status = self.random.choice([
            ("POST", "/v1/chat/completions", b"{", 400), ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
            ("POST", "/v1/chat/completions", b'{"messages": []}', 400),
            ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user", "content": "x"}], "model": "y"}', 404),
            ("POST", "/v1/responses", b'{"input": 1}', 400), ("POST", "/v1/responses", b"[" * 5000, 400),
            ("POST", "/v1/completions", b'{"prompt": "a", "n": 1000}', 400),
            ("POST", "/v1/embeddings", b"", 400), ("GET", "/v1/completions", b"", 405), ("GET", "/nowhere", b"", 404),
            ("DELETE", "/health", b"", 405)])
        await client.send(method, path, body)
        self.check_error(await client.read_reply(), status)

    async def no_http(self, client):
        """Gets a reply of the HTTP library, or none, or waits for the rest of what it may have begun."""
        await client.connect()
        client.writer.write(self.random.choice([
            b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 100,
            b"GET / HTTP/1.1\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
            b"POST /tokenize HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]))
        try:
            await asyncio.wait_for(client.reader.read(), 0.5)
        except (TimeoutError, asyncio.TimeoutError):
            pass
        client.close()

    async def half_closed(self, client):
        """A client that has closed its half counts as gone: it gets a reply, or the connection is closed."""
        path, body = self.body(False)
        await client.send("POST", path, body)
        client.writer.write_eof()
        try:
            reply = await client.read_reply()
            self.demand(reply[0] in (200, 429), path, body, reply)
        except ConnectionError:
            pass
        client.close()

    # ---- The load ----

    async def work(self):
        client = Client(self.host, self.port)
        kinds, weights = zip(*self.kinds)
        while self.left > 0:
            self.left -= 1
            kind = self.random.choices(kinds, weights)[0]
            kept = client.writer is not None
            try:
                await asyncio.wait_for(kind(client), TIMEOUT)
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
            except Exception as error:  # whatever is wrong with a reply
                client.abort()
                if kept and isinstance(error, (ConnectionError, asyncio.IncompleteReadError)):
                    self.left += 1  # the server closed a connection that it had kept: a client tries again
                elif kind not in (self.no_http, self.half_closed) or not isinstance(error, ConnectionError):
                    self.wrong.append(f"{kind.__name__}: {error!r}"[:600])
        client.close()

    async def load(self, requests):
        self.left = requests
        await asyncio.gather(*(self.work() for _ in range(self.options.connections)))
        await self.idle()

    async def idle(self):
        """Waits until the server has nothing to do, and has closed its connections."""
        client = Client(self.host, self.port)
        for _ in range(300):
            await client.send("GET", "/metrics")
            text = (await client.read_reply())[2].decode()
            if all(f"\nqwen3_answers_{state} 0\n" in text for state in ("running", "waiting")):
                break
            await asyncio.sleep(0.1)
        client.close()
        await asyncio.sleep(3)  # the server looks after idle connections every second


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def main():
    options = parse_options()
    soak = Soak(options)
    asyncio.run(soak.load(options.warm_up))
    before = resident_bytes(options.pid), open_files(options.pid)
    begin = time.perf_counter()
    asyncio.run(soak.load(options.requests))
    seconds = time.perf_counter() - begin
    after = resident_bytes(options.pid), open_files(options.pid)
    growth = 100 * (after[0] / before[0] - 1)
    print(f"{options.requests} requests over {options.connections} connections in {seconds:.1f} s: "
          + ", ".join(f"{n} {name}" for name, n in sorted(soak.counts.items())))
    print(f"memory {before[0] / 2**20:.1f} MiB before, {after[0] / 2**20:.1f} after ({growth:+.2f} %), "
          f"open files {before[1]} and {after[1]}, {len(soak.wrong)} wrong replies")
    for line in soak.wrong[:10]:
        print(line, file=sys.stderr)
    return 1 if soak.wrong or growth > options.most_growth or after[1] != before[1] else 0


if __name__ == "__main__":
    sys.exit(main())
