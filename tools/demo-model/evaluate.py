#!/usr/bin/env python3
"""Examines the demo model through `qwen3 chat`: conversations that tell facts, then ask for them.

    evaluate.py PROGRAM MODEL SEED CONVERSATIONS [LENGTH,... [QUESTIONS [OPTION...]]]

Of each LENGTH, the tokens of what is told, as many CONVERSATIONS, with QUESTIONS each (10). OPTIONs go to qwen3 chat,
which runs once. An answer is right where it is the expected one, letter for letter.
"""
import collections
import json
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import generate  # noqa: E402

LENGTHS = (100, 200, 400, 600, 800, 1000, 1150)
QUESTIONS = 10


def examinations(seed, conversations, lengths, questions, invent=0.0):
    """[(length, [(what the user says, right answer, kind)])]"""
    rng = random.Random(seed)
    return [(length, generate.examination(rng, length, questions, invent)) for length in lengths
            for _ in range(conversations)]


def script(exams):
    """What is typed: each conversation line by line, then a new one."""
    return "".join(text + "\n" for _, exam in exams for text in [line for line, _, _ in exam] + ["/reset"])


def answers(output):
    """[(answer, tokens of its prompt)] of the events of `qwen3 chat --json`."""
    found, text = [], ""
    for event in map(json.loads, output.splitlines()):
        if event["event"] == "text":
            text += event["text"]
        elif event["event"] == "done":
            found.append((text, event["prompt_tokens"]))
            text = ""
    return found


def judge(exams, found):
    """[(length, kind, tokens of the prompt, question, right answer, answer)] of the questions."""
    said = [(length, *line) for length, exam in exams for line in exam]
    if len(said) != len(found):
        sys.exit(f"{len(found)} answers to {len(said)} lines")
    return [(length, kind, tokens, text, right, got)
            for (length, text, right, kind), (got, tokens) in zip(said, found) if kind != "told"]


def table(title, judged, key):
    groups = collections.defaultdict(list)
    for entry in judged:
        groups[key(entry)].append(entry)
    print(f"| {title} | tokens of the prompt | right |\n|---|---|---|")
    for name, entries in sorted(groups.items()):
        right = sum(entry[4] == entry[5] for entry in entries)
        tokens = [entry[2] for entry in entries]
        print(f"| {name} | {min(tokens)} to {max(tokens)} | {right} of {len(entries)} |")


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    program, model, seed, conversations = sys.argv[1:5]
    lengths = [int(length) for length in sys.argv[5].split(",")] if len(sys.argv) > 5 else LENGTHS
    questions = int(sys.argv[6]) if len(sys.argv) > 6 else QUESTIONS
    exams = examinations(int(seed), int(conversations), lengths, questions)
    done = subprocess.run([program, "chat", "--model", model, "--json", *sys.argv[7:]], input=script(exams),
                          stdout=subprocess.PIPE, text=True, check=True)
    judged = judge(exams, answers(done.stdout))
    table("told, tokens", judged, lambda entry: entry[0])
    table("kind", judged, lambda entry: entry[1])
    wrong = [entry for entry in judged if entry[4] != entry[5]]
    for _, _, _, text, right, got in wrong:
        print(f"wrong: {text[-80:]} -> {got}, expected {right}")
    print(f"{len(judged) - len(wrong)} of {len(judged)} right, {1 - len(wrong) / len(judged):.2%}")


if __name__ == "__main__":
    main()
