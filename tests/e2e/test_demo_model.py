"""models/demo through `qwen3 chat`: facts are told, then asked for. What it answers is right, and the same whatever
the ranks, strategies and algorithms."""
import sys

import e2e

sys.path.insert(0, str(e2e.TOOLS / "demo-model"))
import evaluate  # noqa: E402

MODEL = e2e.ROOT / "models" / "demo"
LENGTHS = (100, 400, 700, 1000)  # tokens of what is told; questions and answers come on top
LEAST = 0.99  # right answers: of many it is 99.5 % (tools/demo-model/README.md)


def chat(ranks, exams, *options):
    """The outcome, and an answer to every line."""
    outcome = e2e.run(ranks, "qwen3", "chat", "--model", MODEL, "--json", *options,
                      stdin=evaluate.script(exams).encode())
    return outcome, evaluate.answers(outcome.out) if outcome.ok else []


def check_answers(checks, seed):
    exams = evaluate.examinations(seed, conversations=4, lengths=LENGTHS, questions=12)
    for dtype in ("bf16", "q8"):
        outcome, found = chat(1, exams, "--dtype", dtype)
        if not checks.true(f"{dtype}: chat ends well", outcome.ok, outcome):
            continue
        judged = evaluate.judge(exams, found)
        wrong = [f"{text[-80:]} -> {got}, expected {right}" for _, _, _, text, right, got in judged if got != right]
        print(f"{dtype}: {len(judged) - len(wrong)} of {len(judged)} answers right")
        checks.true(f"{dtype}: at least {LEAST:.0%} of the answers are right",
                    len(wrong) <= (1 - LEAST) * len(judged), "\n".join(wrong))


def check_same_everywhere(checks, seed):
    exams = evaluate.examinations(seed, conversations=1, lengths=[150], questions=4)
    expected = chat(1, exams)[1]
    for ranks in e2e.RANKS[:3]:
        for strategy in ("headwise", "sequence", "hybrid") if ranks > 1 else ("auto",):
            for algorithm in ("standard", "online_softmax") if ranks < 3 else ("online_softmax",):
                outcome, found = chat(ranks, exams, "--parallel-strategy", strategy, "--attention-algo", algorithm)
                checks.true(f"{ranks} ranks, {strategy}, {algorithm}: the same answers",
                            outcome.ok and found == expected, f"{found}\n{outcome}")


def main():
    checks = e2e.Checks()
    seed = int(e2e.rng().randint(1 << 30))
    check_answers(checks, seed)
    check_same_everywhere(checks, seed)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
