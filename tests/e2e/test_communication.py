#!/usr/bin/env python3
"""Counted bytes against docs/PARALLEL_STRATEGIES.md: its formulas are read from the page and evaluated, so that neither
they nor its table of counted bytes can go stale. The Chinese page has the same formulas and numbers."""
import json
import re
import sys

from e2e import RANKS, ROOT, Checks, run

PAGES = [ROOT / "docs" / name for name in ("PARALLEL_STRATEGIES.md", "PARALLEL_STRATEGIES.zh-CN.md")]
TINY = {"h": 64, "Q": 128, "K": 64, "d": 32, "heads": 4, "layers": 3}  # synthetic:tiny, and tiny-moe
SHAPE_06B = {"h": 1024, "Q": 2048, "K": 1024, "d": 128, "heads": 16, "layers": 28}
BLOCK, TABLE, HEADER = 128, 576, 64  # positions of a block; bytes of its table, and of a message of keys
KINDS = ("reduce", "kv", "query", "partial")


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def read_formulas(page):
    """{(mode, kind): expression of Python}. The rows of a mode follow the first one, which names it."""
    formulas, mode = {}, None
    for line in page.read_text(encoding="utf-8").splitlines():
        row = cells(line)
        if len(row) != 5 or not line.startswith("|"):
            continue
        mode = {"many rows": "many", "行数多": "many", "few rows": "few", "行数少": "few"}.get(row[0]) or (
            None if row[0] else mode)
        kind = row[2].strip("`")
        if mode and kind in KINDS:
            text = row[3].replace("·头数", " heads").replace(" · ", "*")
            expression = re.sub(r"(\d) ?(?=[A-Za-z(])", r"\1*", text)
            formulas.setdefault((mode, kind), expression)
    return formulas


def evaluate(formula, shape, s, h, tokens, e, u):
    return eval(formula, {"S": s, "H": h, "R": s * h, "T": tokens, "P": 0, "e": e, "u": u, **shape})  # our own page


def beside_keys(tokens, shape, s, h, e, panel):
    """What keys take beside the formula, all ranks and one layer: tables, and keys up to a whole panel."""
    own = tokens // s
    slots = -own % panel if own % BLOCK else 0
    return s * h * (s - 1) * (-(-own // BLOCK) * TABLE + HEADER + slots * shape["K"] / h * e)


def expected(formulas, shape, s, h, phase, tokens, e, u, panel):
    """Bytes of each kind, all ranks and layers. Small sums are gathered: both of their counts are right."""
    ranks, mode = s * h, "many" if phase == "prefill" else "few"
    result = {kind: [0] for kind in KINDS}
    for kind in KINDS:
        if (mode, kind) not in formulas:
            continue
        steps, rows = (1, tokens) if mode == "many" else (tokens, 1)
        each = steps * evaluate(formulas[mode, kind], shape, s, h, rows, e, u) * ranks
        if kind == "kv" and s > 1:
            each += beside_keys(tokens, shape, s, h, e, panel)
        members = h if mode == "many" else ranks
        result[kind] = [shape["layers"] * each]
        if kind == "reduce":
            result[kind].append(shape["layers"] * each * members / 2)
    return result


def agrees(counted, values, tolerance):
    return any(abs(counted - value) <= tolerance * value for value in values)


def check_counted(c, formulas, ranks):
    """Plain C kernels, whose panels have 16 keys: lengths that fill them, and one that leaves the last open. Experts
    send what a dense network sends."""
    tests = ("--isa", "c", "--pairs", "--attention-algo", "online_softmax", "-p",
             f"{32 * ranks},{160 * ranks},{64 * ranks - ranks}", "-n", 12, "-r", 1, "--warmup", 0, "-o", "json")
    for model, kv, size in (("tiny", "f32", 4), ("tiny", "bf16", 2), ("tiny-moe", "f32", 4)):
        outcome = run(ranks, "benchmark_qwen3", "--model", f"synthetic:{model}", *tests, "--kv-dtype", kv)
        if not c.true(f"{ranks} ranks, {model}, {kv}", outcome.ok, outcome):
            continue
        for row in json.loads(outcome.out):
            s, h = map(int, row["grid"].split("x"))
            phase, tokens = ("prefill", row["n_prompt"]) if row["n_prompt"] else ("decode", row["n_gen"])
            values = expected(formulas, TINY, s, h, phase, tokens, size, 4, 16)
            for kind in KINDS:
                counted = row[f"{phase}_{kind}_bytes"]
                # Zigzag gives some ranks one position more where they do not divide.
                tolerance = 0 if phase == "decode" or tokens % (32 * ranks) == 0 else 0.1
                what = f"{ranks} ranks, {row['strategy']} {row['grid']}, {row['test']}, {model}, {kv}, {kind}"
                c.true(f"{what}: {counted}", agrees(counted, values[kind], tolerance), values[kind])


def check_table(c, formulas, page):
    """The bytes that are listed for 0.6B, prompt 128, on some processor: panels and queries of its kernels."""
    block = page.read_text(encoding="utf-8").split("<!-- measured:bytes begin -->")[1].split("<!-- measured:bytes")[0]
    rows = [cells(line) for line in block.splitlines() if line.startswith("| ") and line[2].isdigit()]
    c.true(f"{page.name}: a table of bytes", len(rows) >= 6, block)
    for ranks, strategy, phase, *numbers in rows:
        ranks = int(ranks)
        s, h = {"headwise": (1, ranks), "sequence": (ranks, 1), "hybrid": (2, ranks // 2)}[strategy]
        tokens = 128 if phase == "prefill" else 16
        for kind, number in zip(KINDS, numbers):
            counted = 0 if number == "–" else float(number) * 1024 * tokens
            values = [value for u in (2, 4) for panel in (16, 32, 64)
                      for value in expected(formulas, SHAPE_06B, s, h, phase, tokens, 2, u, panel)[kind]]
            c.true(f"{page.name}: {ranks} ranks, {strategy}, {phase}, {kind}: {number}",
                   agrees(counted, values, 0.001), [value / 1024 / tokens for value in values])
    return rows


def main():
    c = Checks()
    formulas = [read_formulas(page) for page in PAGES]
    c.true("formulas of all kinds", len(formulas[0]) == 5, formulas[0])
    c.true("both pages have the same formulas", formulas[0] == formulas[1], formulas)
    tables = [check_table(c, formulas[0], page) for page in PAGES]
    c.true("both pages have the same bytes", tables[0] == tables[1])
    for ranks in RANKS:
        if 1 < ranks <= 4:
            check_counted(c, formulas[0], ranks)
    return c.finish()


if __name__ == "__main__":
    sys.exit(main())
