#!/usr/bin/env python3
"""qwen3 template: prompts that the published templates made, random conversations beside Jinja2 where that is
installed (Debian: python3-jinja2), and every refusal.

QWEN3_CHAT_GOLDEN=DIR: a model's directory with chat-golden.jsonl in it, in the form of tests/data/chat, is compared as
well."""
import json
import os
import pathlib
import shutil
import subprocess
import sys

from e2e import BIN, DATA, EMULATOR, ENVIRONMENT, FULL, RANKS, Checks, rng, run, scratch

import chat_conversations

CHAT = DATA / "chat"
REFUSED = 2


def json_lines(text):
    """Not splitlines(), which ends lines at U+2028, too."""
    return [json.loads(line) for line in text.split("\n") if line]


def render(directory, stdin, *options):
    """(exit status, standard output, standard error) of qwen3 template."""
    text = stdin if isinstance(stdin, bytes) else (stdin if isinstance(stdin, str) else json.dumps(stdin)).encode()
    done = subprocess.run([*EMULATOR, BIN / "qwen3", "template", "--model", directory, *options], input=text,
                          env=ENVIRONMENT, capture_output=True, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def render_batch(directory, conversations):
    code, out, err = render(directory, "".join(json.dumps(c, ensure_ascii=i % 2 == 0) + "\n"
                                               for i, c in enumerate(conversations)), "--batch")
    return json_lines(out) if code == 0 else [err] * len(conversations)


def compare(checks, what, directory, conversations, prompts):
    rendered = render_batch(directory, conversations)
    checks.true(f"{what}: as many prompts as conversations", len(rendered) == len(prompts))
    for conversation, got, expected in zip(conversations, rendered, prompts):
        checks.true(what, got == expected, f"{json.dumps(conversation)}\n    got {got!r}\n    expected {expected!r}")


def check_golden(checks, directories):
    lines = json_lines((CHAT / "golden.jsonl").read_text(encoding="utf-8"))
    for template, directory in directories.items():
        some = [line for line in lines if line["template"] == template]
        compare(checks, f"golden prompts of {template}", directory, some, [line["prompt"] for line in some])
    other = os.environ.get("QWEN3_CHAT_GOLDEN")
    if other:
        lines = json_lines((pathlib.Path(other) / "chat-golden.jsonl").read_text(encoding="utf-8"))
        compare(checks, f"golden prompts of {other}", other, lines, [line["prompt"] for line in lines])


def check_random(checks, directories):
    try:
        import jinja2
    except ImportError:
        print("without Jinja2: random conversations are not compared")
        return
    random = rng()
    for template, directory in directories.items():
        reference = chat_conversations.reference(template)
        conversations = [chat_conversations.conversation(random, template) for _ in range(20000 if FULL else 1000)]
        compare(checks, f"{template} beside Jinja2", directory, conversations, [reference(c) for c in conversations])
        # What the template cannot render is refused.
        for c in ({"messages": []}, {"messages": [{"role": "system"}]},
                  {"messages": [{"role": "system", "content": None}]},
                  {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]}):
            try:
                reference(c)
                checks.true(f"{template}: Jinja2 refuses {c}", False)
            except (jinja2.UndefinedError, TypeError):
                checks.true(f"{template} refuses {c}", render(directory, c)[0] == REFUSED)


def check_options(checks, directories, scratch_directory):
    question = [{"role": "user", "content": "1 + 1?"}]
    user, opening = "<|im_start|>user\n1 + 1?<|im_end|>\n", "<|im_start|>assistant\n"
    empty = "<think>\n\n</think>\n\n"
    tools = scratch_directory / "tools.json"
    tools.write_text('[{"name": "add"}]')
    for template, plain, without in (("qwen3", opening, opening + empty), ("qwen3-revised", opening, opening + empty),
                                     ("qwen3-thinking-2507", opening + "<think>\n", None),
                                     ("qwen3-instruct-2507", opening, opening)):
        directory = directories[template]
        checks.true(f"{template}: generation prompt", render(directory, question) == (0, user + plain, ""))
        checks.true(f"{template}: an object", render(directory, {"messages": question}) == (0, user + plain, ""))
        checks.true(f"{template}: --no-generation-prompt",
                    render(directory, question, "--no-generation-prompt") == (0, user, ""))
        code, out, err = render(directory, question, "--no-thinking")
        checks.true(f"{template}: --no-thinking", out == user + without if without else
                    code == REFUSED and "--no-thinking" in err, (code, out, err))
        both = render(directory, {"messages": question, "tools": [{"name": "add"}]}), render(directory, question,
                                                                                            "--tools", tools)
        checks.true(f"{template}: --tools", both[0] == both[1] and
                    '<tools>\n{"name": "add"}\n</tools>' in both[0][1], both)
    code, out, err = render(directories["qwen3"], "")
    checks.true("an empty batch is none", render(directories["qwen3"], "", "--batch") == (0, "", ""))
    for ranks in RANKS[:2]:  # standard input is empty
        outcome = run(ranks, "qwen3", "template", "--model", directories["qwen3"])
        checks.true(f"one message on {ranks} ranks", outcome.code not in (0, None) and outcome.out == ""
                    and outcome.err.count("qwen3: error: ") == 1, outcome)


def check_choice(checks, directories, scratch_directory):
    """--chat-template, and the warning about a template that is not known."""
    question = [{"role": "user", "content": "1 + 1?"}]
    opening = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    changed = scratch_directory / "changed.jinja"
    changed.write_text((CHAT / "qwen3-thinking-2507.jinja").read_text().replace("is string", "is not mapping"))
    for directory in directories.values():
        checks.true("a name", render(directory, question, "--chat-template", "qwen3-thinking-2507") ==
                    (0, opening + "<think>\n", ""))
        code, out, err = render(directory, question, "--chat-template", changed)
        checks.true("a file that is not known", (code, out) == (0, opening + "<think>\n") and err.count("\n") == 1 and
                    err.startswith("qwen3: warning: ") and "qwen3-thinking-2507" in err and "line 20: {%- if" in err,
                    err)
    done = subprocess.run([*EMULATOR, BIN / "qwen3", "template", "--chat-template", "qwen3"], text=True, timeout=120,
                          input=json.dumps(question), env=ENVIRONMENT, capture_output=True)
    checks.true("a name needs no model", (done.returncode, done.stdout) == (0, opening), done)
    code, out, err = render(directories["qwen3"], question, "--chat-template", "qwen4")
    checks.true("an unknown name", code == REFUSED and "qwen3-coder-revised" in err, err)


def check_coder(checks, scratch_directory):
    """Prompts that Jinja2 made of Qwen3-Coder's templates. QWEN3_CODER_TEMPLATES=DIR with their texts, NAME.jinja:
    random conversations beside Jinja2, and the texts are recognised."""
    lines = json_lines((CHAT / "golden-coder.jsonl").read_text(encoding="utf-8"))
    for template in chat_conversations.CODER:
        def rendered(conversations, *options):
            code, out, err = render(scratch_directory, "".join(json.dumps(c) + "\n" for c in conversations), "--batch",
                                    *options)
            return json_lines(out) if code == 0 and err == "" else [err] * len(conversations)

        some = [line for line in lines if line["template"] == template]
        for line, got in zip(some, rendered(some, "--chat-template", template)):
            checks.true(f"golden prompts of {template}", got == line["prompt"], (line, got))
        texts = os.environ.get("QWEN3_CODER_TEMPLATES")
        if texts:
            random, path = rng(), pathlib.Path(texts) / f"{template}.jinja"
            reference = chat_conversations.reference_of(path)
            conversations = [chat_conversations.coder_conversation(random) for _ in range(20000 if FULL else 1000)]
            for c, got in zip(conversations, rendered(conversations, "--chat-template", path)):
                checks.true(f"{template} beside Jinja2", got == reference(c), (c, got, reference(c)))


def check_forms(checks, directories):
    """What clients write beside the form of the published examples."""
    for template, directory in directories.items():
        def same(what, messages, plain):
            checks.true(f"{template}: {what}", render(directory, messages) == render(directory, plain) != (2, "", ""),
                        render(directory, messages))

        def parts(*texts):
            return [{"type": "text", "text": text} for text in texts]

        same("content in parts", [{"role": "system", "content": parts("Be brief.")},
                                  {"role": "user", "content": parts("a", "", "<|im_end|> b")},
                                  {"role": "assistant", "content": parts()}, {"role": "user", "content": "c"}],
             [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\n\n<|im_end|> b"},
              {"role": "assistant", "content": ""}, {"role": "user", "content": "c"}])
        same("a developer", [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "a"},
                             {"role": "developer", "content": "x"}, {"role": "user", "content": "b"}],
             [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"},
              {"role": "system", "content": "x"}, {"role": "user", "content": "b"}])


# (conversation, words of the message)
FAULTS = [
    ("", "conversation: line 1"),
    ("[{", "conversation: line 1"),
    ('[{"role":\n\n "user",}]', "conversation: line 3"),
    ('[{"role": "user", "content": "\ud800"}]'.encode("utf-8", "surrogatepass"), "decode byte"),
    (b'[{"role": "user", "content": "\\ud800"}]', "conversation: line 1"),
    ('[{"role": "user", "role": "user", "content": ""}]', "duplicate"),
    ("7", "array of messages"),
    ("{}", "messages is missing"),
    ('{"messages": "Hello"}', 'messages: got "Hello", expected an array'),
    ("[]", "messages: the array is empty"),
    ('["Hello"]', 'messages[0]: got "Hello", expected an object'),
    ('[{"content": ""}]', "messages[0].role is missing"),
    ('[{"role": "user", "content": ""}, {"role": "human", "content": ""}]', 'messages[1].role: got "human", expected'),
    ('[{"role": 1, "content": ""}]', "messages[0].role: got 1"),
    ('[{"role": "user"}]', "messages[0].content is missing, expected a string"),
    ('[{"role": "system", "content": null}]', "messages[0].content: got null, expected a string"),
    ('[{"role": "assistant", "tool_calls": []}]', "messages[0].content is missing"),
    ('[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]',
     'messages[0].content[0].type: got "image_url", expected "text"'),
    ('[{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}]',
     "messages[0].content[1].type is missing"),
    ('[{"role": "user", "content": [{"type": "text"}]}]', "messages[0].content[0].text is missing"),
    ('[{"role": "user", "content": ["a"]}]', 'messages[0].content[0]: got "a", expected an object'),
    ('[{"role": "assistant", "content": "", "reasoning_content": 1}]', "messages[0].reasoning_content: got 1"),
    ('[{"role": "assistant", "content": "", "tool_calls": {}}]', "messages[0].tool_calls: got {}, expected an array"),
    ('[{"role": "assistant", "content": "", "tool_calls": [1]}]', "messages[0].tool_calls[0]: got 1"),
    ('[{"role": "assistant", "content": "", "tool_calls": [{"function": 1}]}]',
     "messages[0].tool_calls[0].function: got 1"),
    ('[{"role": "assistant", "content": "", "tool_calls": [{"function": {"arguments": {}}}]}]',
     "messages[0].tool_calls[0].function.name is missing"),
    ('[{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]',
     "messages[0].tool_calls[0].arguments is missing"),
    ('{"messages": [{"role": "user", "content": ""}], "tools": {}}', "tools: got {}, expected an array"),
    ('{"messages": [{"role": "user", "content": ""}], "tools": [{}, "f"]}', 'tools[1]: got "f", expected an object'),
    ('{"messages": [{"role": "user", "content": ""}], "enable_thinking": "no"}', "enable_thinking: got"),
    ('{"messages": [{"role": "user", "content": ""}], "add_generation_prompt": 0}', "add_generation_prompt: got 0"),
    ('{"messages": [{"role": "user", "content": ""}], "tools": [{"a": 9223372036854775808}]}', "too big integer"),
]


def check_faults(checks, directories, scratch_directory):
    def refused(what, outcome, *words):
        code, out, err = outcome
        checks.true(f"refused: {what}", code == REFUSED and err.startswith("qwen3: error: ") and err.count("\n") == 1
                    and all(word in err for word in words), outcome)
        return out

    good, directory = '[{"role": "user", "content": ""}]', directories["qwen3-revised"]
    for text, words in FAULTS:
        checks.true("nothing on standard output", refused(text, render(directory, text), words) == "")
    out = refused("the second line of a batch", render(directory, good + "\n[]\n" + good + "\n", "--batch"),
                  "standard input: line 2: messages: the array is empty")
    checks.true("the lines before stand", out.count("\n") == 1)
    refused("null, in the first version", render(directories["qwen3"], good.replace('""', "null")),
            "messages[0].content: got null, expected a string")
    tools = scratch_directory / "bad.json"
    refused("no tools", render(directory, good, "--tools", tools), "--tools: cannot open", "bad.json")
    tools.write_text("[1]")
    refused("bad tools", render(directory, good, "--tools", tools), "tools[0]: got 1")
    tools.write_text("[{}]")
    refused("tools twice", render(directory, json.dumps({"messages": [{"role": "user", "content": ""}], "tools": []}),
                                  "--tools", tools), "tools: got them both")
    refused("no directory", render(scratch_directory / "none", good), "none: no such file")
    refused("an empty directory", render(scratch_directory, good), "tokenizer_config.json: cannot open")
    for name, content, words in (("tokenizer_config.json", "{}", "chat_template is missing"),
                                 ("tokenizer_config.json", '{"chat_template": []}', "chat_template: expected a string"),
                                 ("tokenizer_config.json", '{"chat_template": "{{ x }}"}',
                                  "has no <|im_start|>"),
                                 ("chat_template.jinja", "{%- if tools %}<|im_start|><|eot_id|>",
                                  "control token <|eot_id|>"),
                                 ("chat_template.jinja", "{%- if tools %}",
                                  "chat_template.jinja: has no <|im_start|>")):
        (scratch_directory / name).write_text(content)
        refused(f"{name} with {content}", render(scratch_directory, good), name, words)
    outcome = run(1, "qwen3", "template")
    checks.true("no model", outcome.code == REFUSED and "--model is missing" in outcome.err, outcome)


def main():
    checks = Checks()
    with scratch() as directory:
        directories = {}
        for template in chat_conversations.TEMPLATES:
            directories[template] = directory / template
            directories[template].mkdir()
            text = (CHAT / f"{template}.jinja").read_text(encoding="utf-8")
            if "2507" in template:
                shutil.copy(CHAT / f"{template}.jinja", directories[template] / "chat_template.jinja")
            else:
                (directories[template] / "tokenizer_config.json").write_text(json.dumps({"chat_template": text}))
        check_golden(checks, directories)
        check_random(checks, directories)
        check_options(checks, directories, directory)
        check_forms(checks, directories)
        check_choice(checks, directories, directory)
        check_coder(checks, directory)
        (directory / "faults").mkdir()
        check_faults(checks, directories, directory / "faults")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
