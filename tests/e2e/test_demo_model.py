"""models/demo through `qwen3 chat`: facts are told, then asked for. What it answers is right, and the same whatever
the ranks, strategies and algorithms, computed as a small model and as a large one."""
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


def check_answers(checks, seed, precision):
    exams = evaluate.examinations(seed, conversations=4, lengths=LENGTHS, questions=12)
    for dtype in ("bf16", "q8"):
        what = f"{dtype} as a {precision} model"
        outcome, found = chat(1, exams, "--dtype", dtype, *e2e.precision_options(precision))
        if not checks.true(f"{what}: chat ends well", outcome.ok, outcome):
            continue
        judged = evaluate.judge(exams, found)
        wrong = [f"{text[-80:]} -> {got}, expected {right}" for _, _, _, text, right, got in judged if got != right]
        print(f"{what}: {len(judged) - len(wrong)} of {len(judged)} answers right")
        checks.true(f"{what}: at least {LEAST:.0%} of the answers are right",
                    len(wrong) <= (1 - LEAST) * len(judged), "\n".join(wrong))


def check_same_everywhere(checks, seed, precision):
    exams = evaluate.examinations(seed, conversations=1, lengths=[150], questions=4)
    options = e2e.precision_options(precision)
    expected = chat(1, exams)[1]  # the small model's, for the large one, too
    for ranks in e2e.RANKS[:3]:
        for strategy in ("headwise", "sequence", "hybrid") if ranks > 1 else ("auto",):
            for algorithm in ("standard", "online_softmax") if ranks < 3 else ("online_softmax",):
                outcome, found = chat(ranks, exams, "--parallel-strategy", strategy, "--attention-algo", algorithm,
                                      *options)
                checks.true(f"{ranks} ranks, {strategy}, {algorithm}, as a {precision} model: the same answers",
                            outcome.ok and found == expected, f"{found}\n{outcome}")


def main():
    checks = e2e.Checks()
    seed = int(e2e.rng().randint(1 << 30))
    for precision in e2e.PRECISIONS:
        check_answers(checks, seed, precision)
        check_same_everywhere(checks, seed, precision)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
