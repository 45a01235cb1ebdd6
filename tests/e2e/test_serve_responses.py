#!/usr/bin/env python3
"""/v1/responses of qwen3 serve: golden streams, replies that are what streams build up, the same prompts as those of
/v1/chat/completions, and refusals. `test_serve_responses.py --write` writes the golden streams anew."""
import json
import re
import sys

from e2e import DATA, Checks

from serve_client import FACTS, Server, built_without_server

GOLDEN = DATA / "responses"
QUESTION = f"{FACTS} What does the red box hold?"
TOOL = {"type": "function", "name": "look", "description": "Looks into a box.",
        "parameters": {"type": "object", "properties": {"box": {"enum": ["red", "blue"]}}, "required": ["box"],
                       "additionalProperties": False}}
SCHEMA = {"type": "object", "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 9999}},
          "required": ["number"], "additionalProperties": False}
STREAMS = {
    "answer": {"input": QUESTION},
    "reasoning": {"input": QUESTION, "instructions": "Be brief.", "max_output_tokens": 6},
    "text_ends_early": {"input": QUESTION, "max_output_tokens": 3, "reasoning": {"effort": "none"}},
    "call": {"input": QUESTION, "tools": [TOOL], "tool_choice": {"type": "function", "name": "look"},
             "parallel_tool_calls": False},
    "format": {"input": QUESTION, "reasoning": {"effort": "none"},
               "text": {"format": {"type": "json_schema", "name": "number", "schema": SCHEMA, "strict": True}}},
    "log_probabilities": {"input": QUESTION, "reasoning": {"effort": "none"}, "max_output_tokens": 1,
                          "include": ["message.output_text.logprobs"]},
}


def events_of(reply):
    """Of a stream: the events, each of which is named by its type; none follows the last."""
    events = []
    for block in reply.text.split("\n\n"):
        found = re.fullmatch(r"event: (\S+)\ndata: (.*)", block)
        if found:
            events.append(json.loads(found[2]))
            assert events[-1]["type"] == found[1], block
        else:
            assert not block or block.startswith(":"), block
    return events


def without_accidents(value, ids):
    """Ids are numbered in the order in which they come; times are 0, and probabilities rounded."""
    if isinstance(value, dict):
        return {name: 0 if name == "created_at" else without_accidents(x, ids) for name, x in value.items()}
    if isinstance(value, list):
        return [without_accidents(x, ids) for x in value]
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str) and re.fullmatch(r"(resp|rs|msg|fc|call)_[0-9a-f]{16}", value):
        return ids.setdefault(value, f"{value.partition('_')[0]}_{len(ids)}")
    return value


def built_up(events):
    """The output that a client has after a stream, by its deltas alone."""
    items = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items) and event["item"]["status"] == "in_progress", event
            items.append({"id": event["item"]["id"], "type": event["item"]["type"], "text": ""})
        elif kind.endswith(".delta"):
            assert items[event["output_index"]]["id"] == event["item_id"], event
            items[event["output_index"]]["text"] += event["delta"]
    return items


def text_of(item):
    return item["arguments"] if item["type"] == "function_call" else "".join(part["text"] for part in item["content"])


def check_streams(c, s, write):
    for name, body in STREAMS.items():
        streamed, whole = s.post("/v1/responses", {**body, "stream": True}), s.post("/v1/responses", body)
        c.true(f"{name}: status", streamed.status == whole.status == 200, (streamed.text, whole.text))
        events = events_of(streamed)
        lines = "".join(json.dumps(without_accidents(event, ids), ensure_ascii=False) + "\n"
                        for ids in [{}] for event in events)
        path = GOLDEN / f"{name}.jsonl"
        if write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(lines, encoding="utf-8")
        c.true(f"{name}: golden stream", lines == path.read_text(encoding="utf-8"), lines)
        c.true(f"{name}: numbers", [event["sequence_number"] for event in events] == list(range(len(events))), events)
        last = events[-1]["response"]
        c.true(f"{name}: deltas are the items", [(x["id"], x["text"]) for x in built_up(events)]
               == [(x["id"], text_of(x)) for x in last["output"]], events)
        c.true(f"{name}: the whole reply is the last event", without_accidents(whole.json, {})["output"]
               == without_accidents(last, {})["output"] and whole.json["usage"]["output_tokens"]
               == last["usage"]["output_tokens"] and whole.json["status"] == last["status"], whole.text)


def answer(s, messages, **options):
    """Of the same conversation over both routes: content, tokens of the prompt, of the answer, and of its reasoning."""
    message = s.chat(messages, **options).json
    usage = message["usage"]
    return (message["choices"][0]["message"]["content"], usage["prompt_tokens"], usage["completion_tokens"],
            usage["completion_tokens_details"]["reasoning_tokens"])


def response(s, items, **options):
    reply = s.post("/v1/responses", {"input": items, **options}).json
    usage = reply["usage"]
    text = "".join(part["text"] for x in reply["output"] if x["type"] == "message" for part in x["content"])
    return (text, usage["input_tokens"], usage["output_tokens"], usage["output_tokens_details"]["reasoning_tokens"])


def check_prompts(c, s):
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"box\": \"red\"}"}}
    item = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{\"box\": \"red\"}"}
    user, said = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": "I look."}
    tools = [{"type": "function", "function": {name: x for name, x in TOOL.items() if name != "type"}}]
    cases = [
        ([user], QUESTION, {}, {}),
        ([{"role": "system", "content": "Be brief."}, user], QUESTION, {}, {"instructions": "Be brief."}),
        ([{"role": "system", "content": "Be brief."}, user],
         [{"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
          {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}], {}, {}),
        ([user, said, user], [user, {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                                     "content": [{"type": "output_text", "text": "I look.", "annotations": []}]}, user],
         {}, {}),
        ([user, {**said, "reasoning_content": "Which box?", "tool_calls": [call]},
          {"role": "tool", "tool_call_id": "call_1", "content": "4711"}],
         [user, {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None,
                 "content": [{"type": "reasoning_text", "text": "Which box?"}]}, said, item,
          {"type": "function_call_output", "call_id": "call_1", "output": "4711"}],
         {"tools": tools}, {"tools": [TOOL]}),
        ([user, {"role": "assistant", "content": "", "tool_calls": [call, call]},
          {"role": "tool", "tool_call_id": "call_1", "content": "4711"},
          {"role": "tool", "tool_call_id": "call_1", "content": "12"}],
         [user, item, item, {"type": "function_call_output", "call_id": "call_1", "output": "4711"},
          {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "12"}]}],
         {"tools": tools}, {"tools": [TOOL]}),
        ([user], [user], {"max_tokens": 5, "temperature": 1, "seed": 3, "enable_thinking": False},
         {"max_output_tokens": 5, "temperature": 1, "seed": 3, "reasoning": {"effort": "none", "summary": "auto"}}),
        ([user], [user], {"tools": tools, "tool_choice": "none"}, {"tools": [TOOL], "tool_choice": "none"}),
    ]
    for messages, items, chat, options in cases:
        expected, found = answer(s, messages, **chat), response(s, items, store=False, **options)
        c.true(f"the chat of {str(items)[-60:]} {options}", found == expected, (found, expected))
    turns = s.post("/v1/responses", {"input": QUESTION}).json
    again = s.post("/v1/responses", {"input": [user, *turns["output"], {"role": "user", "content": "Thank you!"}]})
    c.true("output is input of the next", again.status == 200 and again.json["output"], again.text)


def check_reply(c, s):
    asked = {"input": "Hello!", "metadata": {"a": "b"}, "instructions": "Be brief.", "temperature": 0.5,
             "tools": [TOOL], "tool_choice": "none", "max_output_tokens": 7, "include": ["reasoning.encrypted_content"],
             "truncation": "disabled", "user": "me", "stream_options": {"include_obfuscation": False}}
    reply = s.post("/v1/responses", asked).json
    c.true("what was asked is in the reply", all(reply[name] == asked[name] for name in (
        "metadata", "instructions", "temperature", "tools", "tool_choice", "max_output_tokens", "truncation")), reply)
    c.true("its form", reply["object"] == "response" and re.fullmatch("resp_[0-9a-f]{16}", reply["id"])
           and reply["store"] is False and reply["previous_response_id"] is None and reply["error"] is None, reply)
    short = s.post("/v1/responses", {"input": "Hello!", "max_output_tokens": 1}).json
    c.true("max_output_tokens", short["status"] == "incomplete"
           and short["incomplete_details"] == {"reason": "max_output_tokens"}, short)


def check_refusals(c, s):
    for change, word in (
            ({}, "input"), ({"input": []}, "input"), ({"input": 1}, "input"), ({"input": [1]}, "input[0]"),
            ({"input": [{"role": "nobody", "content": "a"}]}, "input[0].role"),
            ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "content[0]"),
            ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "stores none"),
            ({"input": [{"type": "function_call", "name": "f"}]}, "call_id"),
            ({"input": [{"type": "function_call_output", "output": "x"}]}, "call_id"),
            ({"input": [{"type": "reasoning", "content": [{}]}]}, "reasoning_text"),
            ({"previous_response_id": "resp_1"}, "stores nothing"), ({"store": True}, "stores no"),
            ({"background": True}, "background"), ({"conversation": "c"}, "stores nothing"),
            ({"truncation": "auto"}, "truncation"), ({"messages": []}, "messages"), ({"n": 2}, "n: "),
            ({"max_output_tokens": 0}, "max_output_tokens"), ({"instructions": 1}, "instructions"),
            ({"tools": [{"type": "web_search"}]}, "tools[0]"), ({"tools": [{"type": "function"}]}, "name"),
            ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": {"type": "function"}}, "tool_choice"),
            ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"), ({"include": ["x"]}, "include[0]"),
            ({"text": {"format": {"type": "xml"}}}, "text.format"), ({"text": {"verbosity": "low"}}, "verbosity"),
            ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}}, "#/not"),
            ({"reasoning": {"effort": "much"}}, "reasoning.effort"), ({"reasoning": {"summary": "concise"}}, "summary"),
            ({"temperature": 3}, "temperature"), ({"top_logprobs": 21}, "top_logprobs"),
            ({"input": "word " * 3000}, "context")):
        body = {**({} if change == {} else {"input": "Hello!"}), **change}
        reply = s.post("/v1/responses", {**body, "stream": True})
        c.true(f"refused: {str(change)[:80]}", reply.status == 400 and word in reply.error, reply.text)
    reply = s.post("/v1/responses", {"input": "word " * 3000}).json["error"]
    c.true("names of this route", reply["param"] == "input" and reply["code"] == "context_length_exceeded", reply)
    c.true("no such method", s.get("/v1/responses").status == 405)


def check_end(c):
    """A stream that the server breaks off ends with a fault that clients see."""
    with Server("--grace", 0) as s:
        ends = [s.post("/tokenize", {"content": text}).json["tokens"][0] for text in ("<|im_end|>", "<|endoftext|>")]
        connection = s.connect()
        connection.request("POST", "/v1/responses", json.dumps({
            "input": "Hello!", "stream": True, "max_output_tokens": 1400, "logit_bias": {str(x): -100 for x in ends}}))
        reply = connection.getresponse()
        while b".delta" not in reply.readline():
            pass
        status = s.stop()
        text = reply.read().decode()
        events = [json.loads(line[len("data: "):]) for line in text.split("\n") if line.startswith("data: ")]
        connection.close()
        c.true("the end of the server", status == 0 and events[-2]["type"] == "error" and "shutting down"
               in events[-2]["error"]["message"] and events[-1]["type"] == "response.failed"
               and events[-1]["response"]["status"] == "failed", events[-2:])


def main():
    c = Checks()
    if built_without_server():
        print("skipped: built without libmicrohttpd")
        return 77
    with Server("--deterministic") as s:
        end = s.post("/tokenize", {"content": "</think>"}).json["tokens"]
        STREAMS["reasoning"]["logit_bias"] = {str(end[0]): -100}  # the model would not reason
        check_streams(c, s, sys.argv[1:] == ["--write"])
        check_prompts(c, s)
        check_reply(c, s)
        check_refusals(c, s)
        c.true("ends", s.stop() == 0, s.errors())
    check_end(c)
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
