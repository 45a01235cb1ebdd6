#!/usr/bin/env python3
"""qwen3 serve and clients that are slow, broken or hostile: each gets a reply or loses its connection, and the others
notice nothing."""
import contextlib
import json
import os
import random
import socket
import sys
import time

from e2e import SEED, Checks

from serve_client import Server, built_without_server
from test_serve import eventually, never_ends

BODY = json.dumps({"messages": [{"role": "user", "content": "Hello!"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY


def read(sock):
    """All until the other side closes; b"" where it broke."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while True:
            piece = sock.recv(65536)
            if not piece:
                break
            received += piece
    return received


def talk(s, *pieces, pause=0.0, end=False):
    with contextlib.closing(s.socket()) as sock:
        with contextlib.suppress(OSError):
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(pause)
            if end:
                sock.shutdown(socket.SHUT_WR)
        return read(sock)


def answered(received):
    head, _, body = received.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 200") and b"chat.completion" in body


def check_pieces(c, s):
    c.true("whole", answered(talk(s, WHOLE)))
    c.true("byte by byte", answered(talk(s, *(WHOLE[i:i + 1] for i in range(len(WHOLE))))))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(BODY[i:i + 7]), BODY[i:i + 7]) for i in range(0, len(BODY), 7))
    chunked = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks + b"0\r\n\r\n"
    c.true("a body in chunks", answered(talk(s, chunked)))
    two = talk(s, WHOLE.replace(b"Connection: close\r\n", b"") + WHOLE)
    c.true("two requests at once", two.count(b"HTTP/1.1 200") == two.count(b"chat.completion") == 2, two)
    expecting = WHOLE.replace(b"Connection: close\r\n", b"Connection: close\r\nExpect: 100-continue\r\n")
    head, _, body = expecting.partition(b"\r\n\r\n")
    received = talk(s, head + b"\r\n\r\n", body, pause=0.1)
    c.true("a client that waits to be told to continue", received.startswith(b"HTTP/1.1 100")
           and b"chat.completion" in received, received)
    old = talk(s, WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"{", b'{"stream": true, ', 1)
               .replace(b"Content-Length: %d" % len(BODY), b"Content-Length: %d" % (len(BODY) + 16)))
    c.true("a stream in HTTP/1.0", old.rstrip().endswith(b"data: [DONE]"), old)


def check_broken(c, s):
    cases = [b"\r\n\r\n", b"GET\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
             bytes(range(256)) * 8,
             b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", b"GET " + b"/x" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200000 + b"\r\n\r\n",
             b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
             HEAD + b"Content-Length: -5\r\n\r\n", HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
             HEAD + b"Content-Length: 10\r\nContent-Length: 20\r\n\r\n" + BODY,
             HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
             HEAD + b"Transfer-Encoding: nonsense\r\n\r\nabc",
             HEAD + b"Content-Length: 1000\r\n\r\n" + BODY, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
    for case in cases:
        received = talk(s, case, end=True)
        c.true(f"broken: {case[:50]}", not answered(received), received)
    huge = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    received = talk(s, huge, *([b"10000\r\n" + b" " * 65536 + b"\r\n"] * 300))
    c.true("a body in chunks without end", not answered(received), received)
    received = talk(s, HEAD + b"Content-Length: 9000000000\r\n\r\n", b" " * 100000)
    c.true("a length that is too large", received.startswith(b"HTTP/1.1 413"), received)
    c.true("it goes on", answered(talk(s, WHOLE)))


def check_random(c, s):
    rng = random.Random(SEED)
    for _ in range(150):
        text = bytearray(WHOLE)
        for _ in range(rng.randrange(1, 6)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        with contextlib.closing(s.socket()) as sock, contextlib.suppress(OSError):
            sock.sendall(text[:rng.randrange(len(text) + 1)])
            if rng.random() < 0.3:
                sock.shutdown(socket.SHUT_WR)
            if rng.random() < 0.3:
                sock.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    sock.recv(10)
    c.true("after random requests", answered(talk(s, WHOLE)))


def check_slow(c, s):
    """Clients that send nothing more, and one that does not read, hold up nobody, and are dropped."""
    idle = [s.socket() for _ in range(20)]
    for i, sock in enumerate(idle):
        sock.sendall(WHOLE[:i * 7])
    endless = {"messages": [{"role": "user", "content": "Hello!"}], "stream": True, "max_tokens": 1400,
               "logit_bias": never_ends(s)}
    text = json.dumps(endless).encode()
    deaf = s.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(text) + text)
    begin = time.monotonic()
    c.true("beside slow clients", answered(talk(s, WHOLE)) and time.monotonic() - begin < 5)
    time.sleep(1.5)
    dropped = [read(sock) for sock in idle]
    c.true("slow clients are dropped", not any(answered(d) for d in dropped), dropped)
    for sock in (*idle, deaf):
        sock.close()
    c.true("nothing goes on for them", eventually(lambda: s.metric("qwen3_answers_running") == 0))


def check_half(c, s):
    """A client that closes its half of the connection has gone, whether or not it would read."""
    talk(s, WHOLE, end=True)
    c.true("after a client that closed its half", answered(talk(s, WHOLE)))


def check_connections(c):
    with Server("--connections", 4, "--timeout", 60) as s:
        idle = [s.socket() for _ in range(4)]
        waiting = s.socket(timeout=0.5)
        waiting.sendall(WHOLE)
        try:
            early = waiting.recv(100)
        except TimeoutError:
            early = b""
        except ConnectionError:
            early = b"closed"
        c.true("no more connections than allowed", not early.startswith(b"HTTP"), early)
        for sock in (*idle, waiting):
            sock.close()
        c.true("and room again", eventually(lambda: answered_or_refused(s)))


def answered_or_refused(s):
    try:
        return answered(talk(s, WHOLE))
    except ConnectionError:
        return False


def main():
    c = Checks()
    if built_without_server():
        print("skipped: built without libmicrohttpd")
        return 77
    with Server("--timeout", 1) as s:
        files = f"/proc/{s.pid()}/fd"
        talk(s, WHOLE)
        before = len(os.listdir(files))
        for check in (check_pieces, check_broken, check_random, check_slow, check_half):
            check(c, s)
        c.true("no descriptor is left", eventually(lambda: len(os.listdir(files)) <= before),
               (before, os.listdir(files)))
        status = s.stop()
        c.true("ends", status == 0 and s.errors().count("\n") == 1, (status, s.errors()))
    check_connections(c)
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
