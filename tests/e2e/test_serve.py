#!/usr/bin/env python3
"""qwen3 serve: every route, streams that are the whole replies in pieces, refusals in OpenAI's form, and the end."""
import base64
import contextlib
import json
import math
import signal
import struct
import sys
import threading
import time

from e2e import RANKS, Checks, run, scratch

from serve_client import DEMO, FACTS, Server, built_without_server

QUESTIONS = ["Hello!", "What can you do?", f"{FACTS} What does the red box hold?", "Where does Anna live?",
             "Thank you!"]
CONVERSATION = [{"role": "user", "content": FACTS}, {"role": "assistant", "content": "I will remember that."},
                {"role": "user", "content": "What does the red box hold?"}]
NEEDLE = "The red box holds 4711."


def whole(reply):
    return reply.json["choices"][0]["message"]["content"]


def joined(events, name="content", index=0):
    return "".join(choice["delta"].get(name) or "" for event in events for choice in event["choices"]
                   if choice["index"] == index)


def check_routes(c, s):
    c.true("health", s.get("/health").json == {"status": "ok"})
    models = s.get("/v1/models").json
    c.true("models", models["object"] == "list" and [m["id"] for m in models["data"]] == ["demo"], models)
    c.true("a model", s.get("/v1/models/demo").json["id"] == "demo" and s.get("/v1/models/other").status == 404)
    page = s.get("/")
    c.true("the page", page.status == 200 and page.text.startswith("<!doctype html>")
           and "text/html" in page.headers["Content-Type"])
    c.true("the page asks nobody else", not any(f"{scheme}://" in page.text for scheme in ("http", "https")))
    text = "What does the red box hold? \u00e4\U0001f600"
    ids = s.post("/tokenize", {"content": text}).json
    c.true("tokenize", ids["count"] == len(ids["tokens"]) > 5, ids)
    c.true("and back", s.post("/detokenize", {"tokens": ids["tokens"]}).json == {"content": text})
    special = [s.post("/tokenize", {"content": "<|im_end|>", "parse_special": on}).json["count"]
               for on in (True, False)]
    c.true("control tokens only where they are wanted", special[0] == 1 < special[1], special)
    prompt = s.post("/tokenize", {"messages": CONVERSATION}).json["count"]
    reply = s.chat(CONVERSATION).json
    c.true("tokens of messages are those of the prompt", reply["usage"]["prompt_tokens"] == prompt, reply)
    c.true("HEAD", s.request("HEAD", "/health").status == 200)
    metrics = s.get("/metrics").text
    c.true("metrics", "qwen3_generated_tokens_total" in metrics
           and 'qwen3_first_token_seconds_bucket{le="+Inf"}' in metrics, metrics)


def check_chat(c, s):
    reply = s.chat(CONVERSATION)
    body = reply.json
    c.true("the answer", reply.status == 200 and whole(reply) == NEEDLE, body)
    c.true("its form", body["object"] == "chat.completion" and body["model"] == "demo"
           and body["choices"][0]["finish_reason"] == "stop" and body["id"].startswith("chatcmpl-"), body)
    usage = body["usage"]
    c.true("usage", usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], usage)
    for question in QUESTIONS:
        expected, options = s.chat(question).json, {"stream": True, "stream_options": {"include_usage": True}}
        events = s.chat(question, **options).events
        last, message = [e for e in events if e["choices"]][-1], expected["choices"][0]["message"]
        c.true(f"stream of {question!r}", joined(events) == message["content"]
               and joined(events, "reasoning_content") == message.get("reasoning_content", "")
               and last["choices"][0]["finish_reason"] == expected["choices"][0]["finish_reason"]
               and events[0]["choices"][0]["delta"]["role"] == "assistant"
               and len({e["id"] for e in events}) == 1, events)
        counts = [{n: u[n] for n in ("prompt_tokens", "completion_tokens", "total_tokens")}
                  for u in (events[-1]["usage"], expected["usage"])]
        c.true("usage of a stream", counts[0] == counts[1] and events[-1]["choices"] == [], events[-1])
    c.true("no usage where it is not wanted", all("usage" not in e for e in s.chat("Hello!", stream=True).events))
    short = s.chat(CONVERSATION, max_tokens=4).json
    c.true("max_tokens", short["choices"][0]["finish_reason"] == "length"
           and short["usage"]["completion_tokens"] == 4, short)
    both = s.chat(CONVERSATION, max_tokens=9, max_completion_tokens=3).json["usage"]["completion_tokens"]
    c.true("max_completion_tokens goes before it", both == 3, both)
    parts = [{"role": "user", "content": [{"type": "text", "text": FACTS},
                                          {"type": "text", "text": "What does the red box hold?"}]}]
    c.true("parts of a content", s.chat(parts).status == 200)
    for options in ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}},
                    {"reasoning_effort": "none"}):
        off = s.chat(CONVERSATION, **options).json
        c.true(f"no reasoning with {options}", off["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
               and "reasoning_content" not in off["choices"][0]["message"]
               and off["usage"]["prompt_tokens"] > usage["prompt_tokens"], off)
    harmless = s.chat("Hello!", user="me", metadata={"a": "b"}, store=False, temperature=None)
    c.true("what changes nothing is accepted", harmless.status == 200, harmless.text)


def check_stop(c, s):
    for stop in ("47", "s 4", ["never", "711"], "The red", NEEDLE[-1]):
        first = min(NEEDLE.find(x) for x in ([stop] if isinstance(stop, str) else stop) if x in NEEDLE)
        reply = s.chat(CONVERSATION, stop=stop)
        events = s.chat(CONVERSATION, stop=stop, stream=True).events
        c.true(f"stop {stop!r}", whole(reply) == joined(events) == NEEDLE[:first]
               and reply.json["choices"][0]["finish_reason"] == "stop", reply.text)
    broken = [{"role": "user", "content": "Hello!"}]
    c.true("a line break that belongs to a mark is none", whole(s.chat(broken, stop="\n")) == whole(s.chat(broken)))
    c.true("a stop string that does not come", whole(s.chat(CONVERSATION, stop="nothing of it")) == NEEDLE)


def check_sampling(c, s):
    warm = {"temperature": 1.5, "max_tokens": 12}
    texts = [whole(s.chat("Hello!", seed=seed, **warm)) for seed in (5, 5, 6, 7, 8)]
    c.true("a seed", texts[0] == texts[1] and len(set(texts)) > 1, texts)
    several = s.chat("Hello!", seed=5, n=4, **warm).json["choices"]
    c.true("n answers have the seeds from the first on", [x["index"] for x in several] == [0, 1, 2, 3]
           and [x["message"]["content"] for x in several] == [texts[0], *texts[2:]], several)
    events = s.chat("Hello!", seed=5, n=4, stream=True, **warm).events
    c.true("and so they are streamed", [joined(events, index=i) for i in range(4)] == [texts[0], *texts[2:]])
    ids = s.post("/tokenize", {"content": " red"}).json["tokens"]
    forbidden = s.complete("The", logit_bias={str(i): -100 for i in ids}, max_tokens=3, temperature=0).json
    forced = s.complete("The", logit_bias={str(ids[0]): 100}, max_tokens=3, temperature=0).json
    c.true("logit_bias", forced["choices"][0]["text"] == " red red red"
           and " red" not in forbidden["choices"][0]["text"], (forced, forbidden))
    plain, calm = (s.complete("The red box", max_tokens=8, frequency_penalty=p).json["choices"][0]["text"]
                   for p in (0, 2))
    c.true("frequency_penalty", plain != calm, (plain, calm))


def check_logprobs(c, s):
    reply = s.chat(CONVERSATION, logprobs=True, top_logprobs=3).json["choices"][0]
    entries = reply["logprobs"]["content"]
    text = b"".join(bytes(e["bytes"]) for e in entries).decode()
    c.true("log probabilities of the content", text.lstrip("\n") == NEEDLE, entries)
    c.true("greedy takes the likeliest", all(e["top_logprobs"][0]["token"] == e["token"] and len(e["top_logprobs"]) == 3
           and abs(e["logprob"] - e["top_logprobs"][0]["logprob"]) < 1e-4 <= 0.5 and e["logprob"] <= 0
           and sum(math.exp(t["logprob"]) for t in e["top_logprobs"]) < 1.001 for e in entries), entries)
    events = s.chat(CONVERSATION, logprobs=True, top_logprobs=3, stream=True).events
    streamed = [e for event in events for x in event["choices"] for e in (x["logprobs"] or {}).get("content") or []]
    c.true("and so they are streamed", [e["token"] for e in streamed] == [e["token"] for e in entries], streamed)
    old = s.complete("The red box", logprobs=2, max_tokens=3).json["choices"][0]
    c.true("of completions", "".join(old["logprobs"]["tokens"]) == old["text"]
           and [len(t) for t in old["logprobs"]["top_logprobs"]] == [2, 2, 2]
           and old["logprobs"]["text_offset"][0] == 0, old)


SCHEMA = {"type": "object", "properties": {"box": {"enum": ["red", "blue"]},
                                           "number": {"type": "integer", "minimum": 1, "maximum": 9999},
                                           "tags": {"type": "array", "items": {"type": "string", "maxLength": 5},
                                                    "maxItems": 2}},
          "required": ["box", "number", "tags"], "additionalProperties": False}


def meets_schema(value):
    return (set(value) == {"box", "number", "tags"} and value["box"] in ("red", "blue")
            and 1 <= value["number"] <= 9999 and len(value["tags"]) <= 2
            and all(isinstance(tag, str) and len(tag) <= 5 for tag in value["tags"]))


def check_formats(c, s):
    """Whatever the model would like to say, and also where its draws are wild, answers are of the format."""
    schema = {"type": "json_schema", "json_schema": {"name": "box", "schema": SCHEMA, "strict": True}}
    for thinking in (True, False):
        for seed, temperature in ((1, 0), (2, 1.5), (3, 2)):
            options = {"seed": seed, "temperature": temperature, "enable_thinking": thinking, "max_tokens": 900}
            choice = s.chat(CONVERSATION, response_format=schema, **options).json["choices"][0]
            text = choice["message"]["content"]
            c.true(f"schema, thinking {thinking}, temperature {temperature}", choice["finish_reason"] == "length"
                   or meets_schema(json.loads(text)), choice)
            c.true("its end", choice["finish_reason"] == "stop" or temperature > 0, choice)
            events = s.chat(CONVERSATION, response_format=schema, stream=True, **options).events
            c.true("and so it is streamed", joined(events) == text, events)
    short = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "maxProperties": 1,
             "additionalProperties": {"type": "boolean"}}}}
    several = s.chat("Hello!", response_format=short, n=3, temperature=1, seed=5, enable_thinking=False,
                     logit_bias={str(s.post("/tokenize", {"content": '"'}).json["tokens"][0]): 20}).json["choices"]
    c.true("several answers of a format", all(isinstance(json.loads(x["message"]["content"]), dict) for x in several
                                              if x["finish_reason"] == "stop"), several)
    free = s.chat("Hello!", response_format={"type": "json_object"}, enable_thinking=False, max_tokens=30).json
    c.true("json_object", free["choices"][0]["message"]["content"].lstrip().startswith("{"), free)


def call_of(reply):
    calls = reply.json["choices"][0]["message"].get("tool_calls") or []
    return [(x["function"]["name"], json.loads(x["function"]["arguments"])) for x in calls]


def check_tool_choice(c, s):
    first = {"type": "function", "function": {"name": "look", "strict": True, "parameters": SCHEMA}}
    second = {"type": "function", "function": {"name": "add", "parameters": {
        "$ref": "#/$defs/pair", "$defs": {"pair": {
            "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a"], "additionalProperties": False}}}}}
    once = {"parallel_tool_calls": False, "max_tokens": 900}
    for choice, names in (("required", {"look", "add"}), ("add", {"add"}), ("look", {"look"})):
        wanted = choice if choice == "required" else {"type": "function", "function": {"name": choice}}
        for thinking in (True, False):
            reply = s.chat(CONVERSATION, tools=[first, second], tool_choice=wanted, enable_thinking=thinking, **once)
            calls = call_of(reply)
            good = len(calls) == 1 and calls[0][0] in names and (
                meets_schema(calls[0][1]) if calls[0][0] == "look"
                else list(calls[0][1]) == ["a"] and 0 <= calls[0][1]["a"] <= 99)
            answer = reply.json["choices"][0]
            c.true(f"tool_choice {choice}, thinking {thinking}", good and not answer["message"]["content"]
                   and answer["finish_reason"] == "tool_calls", reply.text)
    auto = s.chat(CONVERSATION, tools=[first, second], max_tokens=300)
    c.true("strict tools that need not be called", auto.status == 200, auto.text)
    none = s.chat(CONVERSATION, tools=[first, second], tool_choice="none")
    c.true("tool_choice none", none.status == 200 and not call_of(none), none.text)


def check_completions(c, s):
    prompts = ["The red box", "Anna lives", s.post("/tokenize", {"content": "Ben's cat"}).json["tokens"]]
    single = [s.complete(p, max_tokens=6).json["choices"][0]["text"] for p in prompts]
    several = s.complete(prompts, max_tokens=6).json
    c.true("several prompts", [x["text"] for x in several["choices"]] == single
           and several["usage"]["completion_tokens"] <= 18, several)
    echo = s.complete(prompts[0], max_tokens=6, echo=True).json["choices"][0]["text"]
    c.true("echo", echo == prompts[0] + single[0], echo)
    events = s.complete(prompts[0], max_tokens=6, echo=True, stream=True).events
    c.true("echo in a stream", "".join(e["choices"][0]["text"] for e in events) == echo, events)
    raw = run(1, "qwen3", "run", "--model", DEMO, "--raw", prompts[0], "-n", 6)
    c.true("as qwen3 run", raw.out == single[0], raw)


def check_embeddings(c, s):
    texts = ["The red box holds 4711.", "Anna lives in Paris."]
    both = s.post("/v1/embeddings", {"input": texts}).json
    vectors = [e["embedding"] for e in both["data"]]
    one = s.post("/v1/embeddings", {"input": texts[1]}).json["data"][0]["embedding"]
    c.true("embeddings", len(vectors[0]) == 128 and max(abs(a - b) for a, b in zip(one, vectors[1])) < 1e-4
           and all(abs(sum(x * x for x in v) - 1) < 1e-4 for v in vectors), both["usage"])
    coded = s.post("/v1/embeddings", {"input": texts, "encoding_format": "base64"}).json["data"][0]["embedding"]
    values = struct.unpack("<128f", base64.b64decode(coded))
    c.true("base64", max(abs(a - b) for a, b in zip(values, vectors[0])) < 1e-4)
    short = s.post("/v1/embeddings", {"input": texts, "dimensions": 16}).json["data"][0]["embedding"]
    norm = math.sqrt(sum(x * x for x in vectors[0][:16]))
    c.true("dimensions", max(abs(a - b / norm) for a, b in zip(short, vectors[0])) < 1e-4 and len(short) == 16)
    many = s.post("/v1/embeddings", {"input": [f"Text {i}" for i in range(300)]})
    c.true("more texts than the line holds", many.status == 200 and len(many.json["data"]) == 300, many.text[:200])


def check_refusals(c, s):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    refused_tool = {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}
    messages = [{"role": "user", "content": "Hello!"}]
    cases = [({}, "messages"), ({"messages": []}, "messages"), ({"messages": "x"}, "messages"),
             ({"messages": [{"role": "nobody", "content": "x"}]}, "role"), ({"temperature": 3}, "temperature"),
             ({"temperature": "hot"}, "temperature"), ({"top_p": -1}, "top_p"), ({"n": 0}, "n: "), ({"n": 1000}, "n: "),
             ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"), ({"stop": [""]}, "stop"),
             ({"stop": ["a"] * 17}, "stop"), ({"logit_bias": {"x": 1}}, "logit_bias"),
             ({"logit_bias": {"999999": 1}}, "logit_bias"), ({"logit_bias": {"1": 1000}}, "logit_bias"),
             ({"top_logprobs": 2}, "logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
             ({"stream_options": {}}, "stream"), ({"tool_choice": "required"}, "tool_choice"),
             ({"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [tool]}, "tool_choice"),
             ({"tool_choice": "perhaps", "tools": [tool]}, "tool_choice"), ({"tools": [{"type": "function"}]}, "tools"),
             ({"tool_choice": "required", "tools": [refused_tool]}, "tools[0].function.parameters: #/not"),
             ({"response_format": {"type": "json_schema"}}, "response_format"),
             ({"response_format": {"type": "xml"}}, "response_format"),
             ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"items": {"not": {}}}}}},
              "#/items/not"), ({"reasoning_effort": "much"}, "none"),
             ({"seed": 2 ** 70}, ""), ({"unheard_of": 1}, "unheard_of"), ({"model": "other"}, "other"),
             ({"chat_template_kwargs": {"x": 1}}, "x"), ({"modalities": ["audio"]}, "modalities"),
             ({"messages": [{"role": "user", "content": "word " * 3000}]}, "context")]
    for change, word in cases:
        body = change if not change or "messages" in change else {"messages": messages, **change}
        reply = s.post("/v1/chat/completions", body)
        expected = 404 if "model" in change else 400
        c.true(f"refused: {str(change)[:80]}", reply.status == expected and word in reply.error and reply.error,
               reply.text)
    for body in (b"", b"{", b"[1]", b"nothing", b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
                 b'{"a": 1, "a": 2}', b"[" * 100000, b"\x00\x01"):
        reply = s.post("/v1/chat/completions", body)
        c.true(f"no JSON: {body[:30]}", reply.status == 400 and reply.error, reply.text)
    for path, body in (("/v1/completions", {}), ("/v1/completions", {"prompt": [[]]}),
                       ("/v1/completions", {"prompt": ""}),
                       ("/v1/completions", {"prompt": "a", "suffix": "b"}), ("/v1/completions", {"prompt": [99999]}),
                       ("/v1/completions", {"prompt": ["a"] * 65}), ("/v1/embeddings", {"input": []}),
                       ("/v1/embeddings", {"input": "a", "dimensions": 1000}),
                       ("/v1/embeddings", {"input": "word " * 3000}),
                       ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}), ("/tokenize", {}),
                       ("/tokenize", {"content": "a", "messages": messages}), ("/detokenize", {"tokens": [-1]}),
                       ("/detokenize", {"tokens": "x"})):
        reply = s.post(path, body)
        c.true(f"refused: {path} {str(body)[:60]}", reply.status == 400 and reply.error, reply.text)
    c.true("no such path", s.get("/v1/nothing").status == 404 and s.get("/v1/nothing").error)
    c.true("no such method", s.get("/v1/completions").status == 405 and s.request("DELETE", "/health").error)


def check_company(c, s):
    """Answers among others are those that a request gets alone, and all come."""
    alone = [whole(s.chat(question)) for question in QUESTIONS]
    found = [None] * 20

    def ask(i):
        found[i] = whole(s.chat(QUESTIONS[i % len(QUESTIONS)]))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    c.true("alone and among others", found == [alone[i % len(alone)] for i in range(len(found))], found)
    return alone


def check_keys(c, directory):
    keys = directory / "keys"
    keys.write_text("first-key\nsecond-key\n")
    path = directory / "socket"
    with Server("--socket", path, "--api-key-file", keys, "--cors-origin", "https://example.org") as s:
        c.true("health needs no key", s.get("/health").status == 200)
        for key, status in (("first-key", 200), ("second-key", 200), ("first-keY", 401), ("", 401),
                            ("first", 401), ("first-keyfirst-key", 401)):
            reply = s.get("/v1/models", Authorization=f"Bearer {key}")
            c.true(f"key {key!r}", reply.status == status and (status == 200 or reply.error), reply.text)
        reply = s.chat("Hello!")
        c.true("no key", reply.status == 401 and "Bearer" in reply.headers["WWW-Authenticate"], reply.text)
        c.true("origin", s.get("/health").headers["Access-Control-Allow-Origin"] == "https://example.org")
        asked = s.request("OPTIONS", "/v1/chat/completions", headers={"Access-Control-Request-Headers": "x-a"})
        c.true("before a request of another origin", asked.status == 204
               and asked.headers["Access-Control-Allow-Headers"] == "x-a", dict(asked.headers))
        c.true("ends by SIGINT", s.stop(signal.SIGINT) == 0, s.errors())
    c.true("the socket is removed", not path.exists())
    with Server(env={"QWEN3_API_KEY": "k"}) as s:
        c.true("key of the environment", s.get("/v1/models").status == 401
               and s.get("/v1/models", Authorization="Bearer k").status == 200)


def check_limits(c):
    with Server("--running", 1, "--waiting", 3, "--body-size", 16) as s:
        big = s.chat("x" * 20000)
        c.true("a body that is too large", big.status == 413 and big.error, big.text)
        long = {"stream": True, "max_tokens": 1200, "logit_bias": never_ends(s), "n": 3}
        with stream(s, **long):
            full = s.chat("Hello!", n=3)
            c.true("the line is full", full.status == 429 and full.error and int(full.headers["Retry-After"]) > 0,
                   full.text)
        c.true("and empty again", eventually(lambda: s.chat("Hello!").status == 200))


def never_ends(s):
    """Bias against the tokens that end an answer."""
    ends = [s.post("/tokenize", {"content": text}).json["tokens"] for text in ("<|im_end|>", "<|endoftext|>")]
    return {str(ids[0]): -100 for ids in ends if len(ids) == 1}


@contextlib.contextmanager
def stream(s, **options):
    """A stream of which the first token has come; closed in the middle."""
    with contextlib.closing(s.connect()) as connection:
        body = {"messages": [{"role": "user", "content": "Hello!"}], "stream": True, **options}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        response = connection.getresponse()
        line = b"-"
        while line and b'"delta":{"content"' not in line:
            line = response.readline()
        assert line, "the stream ended at once"
        yield response


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def check_leaving(c, s):
    """A client that goes away makes room."""
    endless = {"max_tokens": 1400, "logit_bias": never_ends(s)}
    left = s.metric("qwen3_clients_left_total")
    with stream(s, **endless):
        pass
    c.true("a stream that is left", eventually(lambda: s.metric("qwen3_clients_left_total") == left + 1
                                               and s.metric("qwen3_answers_running") == 0))
    with contextlib.closing(s.connect()) as connection:
        connection.request("POST", "/v1/chat/completions",
                           json.dumps({"messages": [{"role": "user", "content": "Hello!"}], "n": 8, **endless}))
        time.sleep(0.05)  # several answers at once take longer, even where nothing else runs
    c.true("an answer that is left", eventually(lambda: s.metric("qwen3_clients_left_total") == left + 2
                                                and s.metric("qwen3_answers_running") == 0))


def check_end(c, ranks):
    """SIGTERM: answers have time to end; what is left after it gets an error."""
    with Server("--grace", 20, ranks=ranks) as s:
        with stream(s, max_tokens=40) as response:
            s.child.poll()
            stopper = threading.Thread(target=lambda: setattr(s, "status", s.stop()))
            stopper.start()
            text = response.read().decode()
        stopper.join()
        c.true(f"an answer ends before the server, {ranks} ranks", text.rstrip().endswith("data: [DONE]")
               and s.status == 0, (text[-300:], s.status, s.errors()))
    with Server("--grace", 0, ranks=ranks) as s:
        with stream(s, max_tokens=1400, logit_bias=never_ends(s)) as response:
            stopper = threading.Thread(target=lambda: setattr(s, "status", s.stop()))
            stopper.start()
            text = response.read().decode()
        stopper.join()
        c.true(f"an answer that is cut off has an error, {ranks} ranks", "shutting down" in text and s.status == 0,
               (text[-300:], s.status, s.errors()))


def check_options(c):
    for arguments, word in ((["--host", "no.such.host.invalid"], "--host"), (["--host", "203.0.113.7"], "--host"),
                            (["--socket", "/nowhere/socket"], "--socket"), (["--socket", "x" * 200], "--socket"),
                            (["--socket", "x", "--port", 1], "--socket"), (["--api-key-file", "/dev/null"], "no key"),
                            (["--context", 100000], "--context"),
                            (["--running", 16, "--step-tokens", 2], "--step-tokens")):
        outcome = run(1, "qwen3", "serve", "--model", DEMO, *arguments)
        c.true(f"serve {arguments}", outcome.code == 2 and word in outcome.err, outcome)
    with Server("--no-thinking", "--seed", 3, "--temperature", 1.5, "--draft-tokens", 4) as s:
        port = s.address.rsplit(":", 1)[1]
        outcome = run(1, "qwen3", "serve", "--model", DEMO, "--port", port)
        c.true("a port that is taken", outcome.code == 2 and "in use" in outcome.err, outcome)
        texts = {whole(s.chat("Hello!")) for _ in range(3)}
        c.true("options are what requests do not say", len(texts) == 1
               and whole(s.chat("Hello!", seed=4)) not in texts, texts)


def main():
    c = Checks()
    if built_without_server():
        print("skipped: built without libmicrohttpd")
        return 77
    answers = []
    for ranks in sorted({RANKS[0], 2} & set(RANKS)):
        with Server("--deterministic", ranks=ranks) as s:
            check_chat(c, s)
            answers.append(check_company(c, s))
            check_leaving(c, s)
            if ranks == 1:
                for check in (check_routes, check_stop, check_sampling, check_logprobs, check_completions,
                              check_formats, check_tool_choice,
                              check_embeddings, check_refusals):
                    check(c, s)
            status = s.stop()
            c.true(f"ends on {ranks}", status == 0, (status, s.errors()))
        check_end(c, ranks)
    c.true("the same answers on all numbers of ranks", all(a == answers[0] for a in answers), answers)
    with scratch() as directory:
        check_keys(c, directory)
    check_limits(c)
    check_options(c)
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
