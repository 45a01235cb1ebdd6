#!/usr/bin/env python3
"""load_serve.py - loads a server with the OpenAI interface (qwen3 serve, or another) and prints what clients see.

    build/bin/qwen3 serve --model models/Qwen3-0.6B &
    bench/load_serve.py --clients 8 --requests 64 --prompt 256 --tokens 128

Each of the clients sends one request after the other over /v1/completions, as a stream. Prompts are random words, of
about so many tokens; those of a request are the same in every run, and all begin alike for --prefix words. Answers
have exactly --tokens tokens where the tokens that end them are forbidden (--end-tokens, --ignore-eos). Percentiles are
over the requests:

    first token   from sending a request to its first piece of text
    gap           the longest time between two pieces of one answer
    whole         from sending a request to its end
"""
import argparse
import http.client
import json
import random
import sys
import threading
import time
import urllib.parse

WORDS = ("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they "
         "which one you were all her she there would their we him been has when who will no more if out so up said "
         "what its about than into them can only other time new some could these two may first then do").split()
PERCENTILES = (50, 90, 99, 100)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", help="API key")
    parser.add_argument("--clients", type=int, default=8, help="requests at once (default 8)")
    parser.add_argument("--requests", type=int, default=32, help="requests in all (default 32)")
    parser.add_argument("--prompt", type=int, default=256, help="words of a prompt (default 256)")
    parser.add_argument("--prefix", type=int, default=0, help="words that all prompts begin with (default 0)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an answer, at most (default 128)")
    parser.add_argument("--end-tokens", type=int, nargs="*", default=[], help="ids that are forbidden by logit_bias")
    parser.add_argument("--ignore-eos", action="store_true", help="send ignore_eos, which some servers have")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def make_prompt(options, number):
    common, own = random.Random(options.seed), random.Random(f"{options.seed} {number}")
    words = [common.choice(WORDS) for _ in range(options.prefix)]
    words += [own.choice(WORDS) for _ in range(max(options.prompt - options.prefix, 1))]
    return " ".join(words)


class Load:
    def __init__(self, options):
        self.options, self.next, self.lock = options, 0, threading.Lock()
        self.first, self.gaps, self.whole, self.errors, self.tokens, self.prompt_tokens = [], [], [], [], 0, 0
        self.url = urllib.parse.urlsplit(options.url)

    def take_number(self):
        with self.lock:
            self.next += 1
            return self.next - 1 if self.next <= self.options.requests else None

    def client(self):
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=3600)
        while (number := self.take_number()) is not None:
            try:
                self.ask(connection, number)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                with self.lock:
                    self.errors.append(f"request {number}: {error!r}")
                connection.close()
        connection.close()

    def ask(self, connection, number):
        o = self.options
        body = {"prompt": make_prompt(o, number), "max_tokens": o.tokens, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}}
        if o.end_tokens:
            body["logit_bias"] = {str(token): -100 for token in o.end_tokens}
        if o.ignore_eos:
            body["ignore_eos"] = True
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {o.key}"} if o.key else {})}
        begin = time.perf_counter()
        connection.request("POST", self.url.path.rstrip("/") + "/v1/completions", json.dumps(body), headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"status {response.status}: {response.read(300)}")
        times, usage = [], {}
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[len("data: "):])
            if "error" in event:
                raise ValueError(event["error"]["message"])
            usage = event.get("usage") or usage
            if event["choices"] and event["choices"][0].get("text"):
                times.append(time.perf_counter())
        self.note(begin, times, usage)

    def note(self, begin, times, usage):
        end = time.perf_counter()
        with self.lock:
            self.tokens += usage.get("completion_tokens", len(times))
            self.prompt_tokens += usage.get("prompt_tokens", 0)
            self.whole.append(end - begin)
            if times:
                self.first.append(times[0] - begin)
                self.gaps.append(max((b - a for a, b in zip(times, times[1:])), default=0.0))

    def run(self):
        threads = [threading.Thread(target=self.client) for _ in range(self.options.clients)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begin


def percentiles(values):
    ordered = sorted(values)
    return {p: ordered[min(len(ordered) - 1, len(ordered) * p // 100)] for p in PERCENTILES} if ordered else {}


def main():
    options = parse_options()
    load = Load(options)
    seconds = load.run()
    times = {"first token": load.first, "gap": load.gaps, "whole": load.whole}
    result = {"clients": options.clients, "requests": len(load.whole), "errors": len(load.errors), "seconds": seconds,
              "prompt_tokens": load.prompt_tokens, "tokens": load.tokens, "tokens_per_second": load.tokens / seconds,
              **{name.replace(" ", "_"): percentiles(values) for name, values in times.items()}}
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{len(load.whole)} requests of {options.clients} clients in {seconds:.1f} s: {load.prompt_tokens} "
              f"tokens of prompts, {load.tokens} of answers, {load.tokens / seconds:.1f} tokens/s of all")
        print(f"{'ms':<12}" + "".join(f"{f'{p} %':>10}" for p in PERCENTILES))
        for name, values in times.items():
            print(f"{name:<12}" + "".join(f"{1000 * value:>10.1f}" for value in percentiles(values).values()))
    for error in load.errors[:10]:
        print(error, file=sys.stderr)
    return 1 if load.errors else 0


if __name__ == "__main__":
    sys.exit(main())
