#!/usr/bin/env python3
"""Text: bytes that are no text in every option, path and conversation, hostile conversations and templates, and what
goes to a pipe."""
import json
import os
import re
import shutil
import sys

from refusals import FEW, FULL, Attacks

from e2e import DATA, ROOT, rng, scratch

from text_model import TextModel, events, last

NO_TEXT = [b"\xff", b"a\xc0\xaf", b"\xed\xa0\x80", b"cut \xe4\xbd", b"\xf5\x80\x80\x80"]  # from the bounds of UTF-8
TEMPLATE = (DATA / "chat" / "qwen3-revised.jinja").read_bytes()
GREEDY = ["--temperature", 0, "-n", 4]


def check_options(a, model):
    """Text that is not UTF-8 is refused by name, wherever it comes from, and nothing is answered without it."""
    for text in NO_TEXT:
        for command in ("run", "chat"):
            for option in ("--system", "--stop"):
                a.refused(f"{command} {option} {text}", f"^{option}: is not well-formed UTF-8", "qwen3", command, "-m",
                          model.directory, option, text)
        a.refused(f"the prompt {text}", "^PROMPT: is not well-formed UTF-8", "qwen3", "run", "-m", model.directory,
                  text)
        path = model.directory / "prompt.txt"
        path.write_bytes(text)
        for raw in ([], ["--raw"]):
            a.refused(f"{raw} a pipe with {text}", "^prompt: standard input is not", "qwen3", "run", "-m",
                      model.directory, *raw, stdin=text)
            a.refused(f"{raw} a file with {text}", "^prompt: .*prompt.txt is not", "qwen3", "run", "-m",
                      model.directory, *raw, "--file", path)
    for option in ("--system", "--stop"):
        a.refused(f"{option} on several ranks", f"{option}: is not well-formed UTF-8", "qwen3", "run", "-m",
                  model.directory, option, b"\xff", "x", ranks=FEW[-1])
    said = a.works("a chat that is told no text", "qwen3", "chat", "-m", model.directory, *GREEDY,
                   stdin=b"/system \xff\n\xff\n/save \xff/x\n").err
    a.true("the chat says so", said.count("not well-formed UTF-8") == 2 and "cannot" in said, said)


def check_paths(a, model):
    """Paths need not be text: they work, and JSON shows them with \\xNN."""
    strange = os.fsencode(model.directory.parent) + b"/m\xff\xe9"
    shown = os.fsdecode(os.fsencode(model.directory.parent)) + "/m\\xff\\xe9"
    packed = strange + b"-packed"
    shutil.copytree(os.fsencode(model.directory), strange)
    for ranks in FEW:
        out = a.works("run --json", "qwen3", "run", "--json", "-m", strange, "x", *GREEDY, ranks=ranks).out
        a.true("names its model", last(events(out), "start").get("model") == shown, out)
        out = a.works("chat --json", "qwen3", "chat", "--json", "-m", strange, *GREEDY, ranks=ranks, stdin=b"x\n").out
        a.true("names its model", last(events(out), "start").get("model") == shown, out)
        a.works("pack", "qwen3", "pack", "-m", strange, "--output", packed, ranks=ranks)
        a.works("run what was packed", "qwen3", "run", "-m", packed, "x", *GREEDY, ranks=ranks)
        shutil.rmtree(packed)
    for form in ("json", "jsonl", "csv", "md", "table"):
        a.works(f"benchmark to {form}", "benchmark_qwen3", "-m", strange, "-p", 4, "-n", 0, "-r", 1, "-o", form)
    out = a.works("benchmark", "benchmark_qwen3", "-m", strange, "-p", 4, "-n", 0, "-r", 1, "-o", "json").out
    a.true("benchmark names its model", json.loads(out)[0]["model_filename"] == shown, out)
    for command in ("info", "tokenize"):
        a.works(command, "qwen3", command, "-m", strange, stdin=b"x")
    a.refused("a path that leads nowhere", "no such file", "qwen3", "run", "-m", strange + b"-", "x")
    shutil.rmtree(strange)


def check_pipe(a, model):
    """To a pipe goes what the model says: reasoning of which there is none leaves no trace."""
    demo = ["-m", ROOT / "models" / "demo", "--temperature", 0, "My name is Ada."]
    done = last(events(a.works("the demo model's events", "qwen3", "run", "--json", *demo).out), "done")
    shown = a.works("the demo model", "qwen3", "run", *demo)
    hidden = a.works("without reasoning", "qwen3", "run", "--hide-thinking", *demo)
    a.true("its reasoning was empty", len(done["tokens"]) > 4 and shown.out == hidden.out, (done, shown, hidden))
    a.true("nothing but text", shown.out.strip() == shown.out and "<" not in shown.out and not shown.err, shown)
    # A model that closes what it did not open, and one that opens and closes reasoning.
    close, opened, end = (model.id[name] for name in ("</think>", "<think>", "<|im_end|>"))
    bias = ["--temperature", 0, "--presence-penalty", 1e5]
    for what, first in (("closed", [close]), ("opened and closed", [opened, close])):
        strong = [x for i, token in enumerate([*first, end]) for x in ("--logit-bias", f"{token}={30000 - 9000 * i}")]
        command = ["qwen3", "run", "-m", model.directory, *bias, *strong, "x"]
        tokens = last(events(a.works(what, *command, "--json").out), "done").get("tokens")
        a.true(f"reasoning {what}", tokens == [*first, end], tokens)
        outcome = a.works(what, *command)
        a.true(f"nothing is shown of reasoning {what}", outcome.out == ("" if opened in first else "</think>"), outcome)


# (conversation, pattern of the message)
def conversations():
    deep = 3000
    yield b'[{"role": "user\\u0000", "content": ""}]', r'role: got "user\\u0000", expected'
    yield b'[{"role": "user\\u0000tool", "content": ""}]', r'role: got "user\\u0000tool", expected'
    yield b'[{"role": "", "content": ""}]', r'role: got ""'
    yield b'[{"role": "User", "content": ""}]', r'role: got "User"'
    yield b'[{"role": "user ", "content": ""}]', r'role: got "user "'
    yield b'[{"role": ["user"], "content": ""}]', r"role: got \["
    yield b'[{"role\\u0000": "user", "content": ""}]', r"NUL|role is missing"
    yield b"[" * deep + b"]" * deep, r"depth"
    yield b'{"a": ' * deep + b"1" + b"}" * deep, r"depth"
    yield b"\0", r"conversation: line 1"
    yield b'[{"role": "user", "content": "\0"}]', r"control character|line 1"
    yield b'[{"role": "user", "content": ""}] []', r"end of file expected|line 1"
    yield b'[{"role": "user", "content": "\xff"}]', r"unable to decode byte 0xff"
    yield (b'{"messages": [{"role": "user", "content": ""}], "tools": [{"limit": 1e999}]}',
           r"limit: real number overflow")
    big = "99999999999999999999"
    for key, text in (("limit", '{"limit": %s}'), ("b", '{"a": {"b": [1, %s]}}'), ("a", '{"a": [[{"x": 1}, %s]]}'),
                      (r'q\\"', '{"q\\"": %s}'), ("last", '{"first": "\\\\", "last": [{}, [], %s]}')):
        tools = (text % big).encode()
        yield (b'{"messages": [{"role": "user", "content": ""}], "tools": [' + tools + b"]}",
               rf": {key}: too big integer near '{big}'")


def check_conversations(a, model):
    for text, words in conversations():
        a.refused(f"the conversation {text[:60]}", words, "qwen3", "template", "-m", model.directory, stdin=text)
    a.refused("a conversation on several ranks", "role", "qwen3", "template", "-m", model.directory, ranks=FEW[-1],
              stdin=b'[{"role": "user\\u0000", "content": ""}]')
    # A chat refuses to load what a template refuses, and goes on.
    path = model.directory / "loaded.json"
    for text, words in list(conversations())[:6]:
        path.write_bytes(text)
        outcome = a.works(f"a chat that loads {text[:60]}", "qwen3", "chat", "-m", model.directory,
                          stdin=b"/load " + os.fsencode(path) + b"\n")
        a.true(f"it says {words}", re.search(words, outcome.err), outcome)
    # Zero bytes in contents are text.
    out = a.works("a zero byte", "qwen3", "template", "-m", model.directory,
                  stdin=b'[{"role": "user", "content": "a\\u0000b"}]').out
    a.true("is text", "a\0b" in out, out)


def mutations(random):
    """What makes another template of a known one: a word, a mark or a character less, more or another."""
    words = [m.span() for m in re.finditer(rb"[\w.]+|[^\w\s]", TEMPLATE)]
    of_loops = (b"for", b"in", b"endfor", b"loop.last", b"loop.index0")
    loop = [span for span in words if TEMPLATE[slice(*span)] in of_loops]
    some = loop + [words[i] for i in random.randint(0, len(words), 400 if FULL else 40)]
    for begin, end in some:
        yield TEMPLATE[:begin] + TEMPLATE[end:]
        yield TEMPLATE[:begin] + TEMPLATE[begin:end] * 2 + TEMPLATE[end:]
    for begin, end in loop:
        for other in (b"for\0", b"continue", b"loop"):
            yield TEMPLATE[:begin] + other + TEMPLATE[end:]
    yield TEMPLATE + b"{%- if x %}{%- endif %}"
    yield b"\xef\xbb\xbf" + TEMPLATE
    yield TEMPLATE + b"\0"
    yield TEMPLATE.replace(b"{%-", b"{%", 1)
    yield TEMPLATE[:-1] * 2
    yield TEMPLATE[:len(TEMPLATE) // 2]


def check_templates(a, model, directory):
    question = b'[{"role": "user", "content": ""}]'
    folder = directory / "templates"
    folder.mkdir()
    jinja, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    jinja.write_bytes(TEMPLATE)
    a.works("the template itself", "qwen3", "template", "-m", folder, stdin=question)
    for i, text in enumerate(mutations(rng())):
        jinja.write_bytes(text)
        if {*re.findall(rb"<\|.*?\|>", text)} != {b"<|im_start|>", b"<|im_end|>"}:
            a.refused(f"template {i}", "chat_template.jinja: has the control token", "qwen3", "template", "-m", folder,
                      stdin=question)
            continue
        outcome = a.works(f"template {i}", "qwen3", "template", "-m", folder, stdin=question)
        # Between tags of blocks a line break has no effect, with a dash or without.
        a.true(f"template {i} is known to be another one", outcome.err.count("\n") == 1 and
               "chat_template.jinja: is none of" in outcome.err or
               text.replace(b"{%-", b"{%") == TEMPLATE.replace(b"{%-", b"{%"), outcome)
    # Control tokens of other families are not replaced by ours, and without our own nothing is left to render.
    for text, words in ((TEMPLATE.replace(b"<|im_end|>", b"<|eot_id|>", 1), "control token <.eot_id.>"),
                        (TEMPLATE.replace(b"<|im_end|>", b"</s>"), "no <.im_end.>"), (b"", "is empty"),
                        (b"\0" * 1000, "no <.im_start.>"), (b"{%" * 100000, "no <.im_start.>")):
        jinja.write_bytes(text)
        a.refused(f"template {text[:20]}", f"chat_template.jinja: .*{words}", "qwen3", "template", "-m", folder,
                  stdin=question)
    jinja.write_bytes(b"<|im_start|><|im_end|>" + b"{{ x }}\n" * 200000)
    a.works("a template of many tags", "qwen3", "template", "-m", folder, stdin=question)
    # Whatever stands under the name is not passed over for the template of tokenizer_config.json.
    config.write_text(json.dumps({"chat_template": TEMPLATE.decode()}))
    for what, target, words in (("a loop", "chat_template.jinja", "cannot open: Too many levels"),
                                ("a dangling link", "nothing", "cannot open: No such file"),
                                ("an empty file", os.devnull, "a device, expected a regular file")):
        jinja.unlink()
        jinja.symlink_to(target)
        a.refused(what, f"chat_template.jinja: .*{words}", "qwen3", "template", "-m", folder, stdin=question)
        shutil.copy(config, model.directory)
        link = model.directory / "chat_template.jinja"
        link.unlink()
        link.symlink_to(target)
        a.refused(f"{what} for run", f"chat_template.jinja: .*{words}.*run --raw", "qwen3", "run", "-m",
                  model.directory, "x")
    jinja.unlink()
    a.works("the template of the configuration", "qwen3", "template", "-m", folder, stdin=question)


def main():
    a = Attacks()
    with scratch() as directory:
        model = TextModel(directory / "model")
        check_options(a, model)
        check_paths(a, model)
        check_pipe(a, TextModel(directory / "pipe"))
        check_conversations(a, model)
        check_templates(a, model, directory)
    return a.finish()


if __name__ == "__main__":
    sys.exit(main())
