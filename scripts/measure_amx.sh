#!/usr/bin/env bash
# measure_amx.sh [--dry-run] [BUILD_DIRECTORY]: compares the AMX level with the vector levels below it, on a processor
# that has AMX, in under 5 minutes. Builds nothing. First every level is verified against plain C, then it prints a
# table of prefill and decode with the fractions of the limits that were measured around each (medians of ROUNDS,
# levels in turns), and last what bench_kernels says of the AMX level. Run it on a machine that does nothing else.
#   --dry-run                a tiny model, no limits and no bench_kernels, in seconds, to see that everything works
#   ROUNDS=2                 runs of each configuration
#   MODEL=synthetic:0.6B     or a checkpoint
#   LEVELS="..."             of this processor: amx avx512_bf16 avx512_vnni, or, without AMX, the best ones that it has
set -euo pipefail
dry=
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
--dry-run)
    dry=yes
    shift
    ;;
-*)
    echo "measure_amx.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
build=${1:-build}
benchmark=$build/bin/benchmark_qwen3
rounds=${ROUNDS:-2}
model=${MODEL:-synthetic:0.6B}
# name | options
tests=("prefill 512|-p 512 -n 0" "decode|-p 0 -n 16" "decode after 2048|-p 0 -n 16 -d 2048"
    "decode, 8 sequences|-p 0 -n 16 -b 8")
dtypes="bf16 q8 q4"
limits=(--roofline)
[ -z "$dry" ] || {
    model=synthetic:tiny
    rounds=1
    dtypes="bf16 q4"
    limits=()
    tests=("prefill 64|-p 64 -n 0" "decode|-p 0 -n 2")
}

has_level() {
    "$benchmark" -m synthetic:tiny -p 1 -n 0 -r 1 --isa "$1" >/dev/null 2>&1
}

if [ -z "${LEVELS:-}" ]; then
    LEVELS=
    for level in amx avx512_bf16 avx512_vnni avx512 avx2 neon_i8mm neon_bf16 neon c; do
        [ "$(wc -w <<<"$LEVELS")" -ge 3 ] || ! has_level "$level" || LEVELS="$LEVELS $level"
    done
    [[ $LEVELS == *amx* ]] || echo "This processor, or its system, has no AMX; levels:$LEVELS"
fi

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
for level in $LEVELS; do
    "$benchmark" -m synthetic:tiny -p 40 -n 4 -r 1 --warmup 0 --dtype "${dtypes// /,}" --isa "$level" --verify \
        >"$results/verify" 2>&1 || {
        cat "$results/verify" >&2
        echo "measure_amx.sh: level $level: results differ from plain C" >&2
        exit 1
    }
done
echo "verified: $LEVELS"

for ((round = 0; round < rounds; round++)); do
    for test in "${tests[@]}"; do
        read -ra options <<<"${test#*|}"
        for dtype in $dtypes; do
            for level in $LEVELS; do
                "$benchmark" -m "$model" "${options[@]}" -r 1 --warmup 1 --dtype "$dtype" --isa "$level" \
                    "${limits[@]}" --output jsonl 2>/dev/null |
                    sed "s/^{/{\"name\": \"${test%%|*}\", /" >>"$results/runs.jsonl"
            done
        done
    done
done

python3 - "$results/runs.jsonl" "$LEVELS" <<'END'
import json
import statistics
import sys

levels = sys.argv[2].split()
cells = {}
for line in open(sys.argv[1]):
    run = json.loads(line)
    row = cells.setdefault((run["name"], run["dtype"]), {level: [] for level in levels})
    row[run["isa"]].append((run["avg_ts"], run.get("limit_fraction")))
print("\nTokens per second (of the limit of that level)\n")
print("| test | weights | " + " | ".join(levels) + " |")
print("| --- | --- |" + " ---: |" * len(levels))
for (name, dtype), row in cells.items():
    shown = []
    for runs in (row[level] for level in levels):
        fractions = [fraction for _, fraction in runs if fraction is not None]
        of_limit = f" ({100 * statistics.median(fractions):.0f} %)" if fractions else ""
        shown.append(f"{statistics.median(speed for speed, _ in runs):.1f}{of_limit}")
    print(f"| {name} | {dtype} | " + " | ".join(shown) + " |")
END

[ -n "$dry" ] || [[ $LEVELS != *amx* ]] || {
    echo
    OMP_NUM_THREADS=1 timeout 100 "$build/bin/bench_kernels" amx || true
}
