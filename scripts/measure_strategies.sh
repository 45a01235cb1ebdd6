#!/usr/bin/env bash
# measure_strategies.sh [BUILD_DIRECTORY]: measures what docs/PARALLEL_STRATEGIES.md promises its reader and rewrites
# the tables there and in the Chinese page. About 15 minutes on 2 cores; run it on a machine that does nothing else.
#   RANKS="1 2 4"  SHORT="64 128"  LONG="512 2048"  LONG_RANKS="2"  MODEL=synthetic:0.6B  ITERS=3  change the matrix
# Raw results stay in BUILD_DIRECTORY/measure/; `scripts/render_strategies.py DIRECTORY` renders them again.
set -euo pipefail
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
-*)
    echo "measure_strategies.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
build=${1:-build}
results=$build/measure
model=${MODEL:-synthetic:0.6B}
ranks=${RANKS:-1 2 4}
launcher=$(sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' "$build/CMakeCache.txt")

launch() {
    # Threads are the programs' choice here, not the one per rank that the tests take.
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(threads "$1")} tests/launch.sh "$launcher" "$@"
}

threads() {
    local n=$(($(nproc) / $1))
    echo $((n > 0 ? n : 1))
}

pairs() {
    launch "$1" "$build/bin/benchmark_qwen3" --model "$model" --dtype bf16 --pairs --verify --phase both \
        --prompt-len "$2" --gen-len 16 --iters "${ITERS:-3}" --warmup 1 --output jsonl 2>>"$results/notes.txt"
}

rm -rf "$results"
mkdir -p "$results"
{
    echo "cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
    echo "cores=$(nproc)"
    echo "date=$(date +%Y-%m-%d)"
    echo "commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "model=$model"
} >"$results/machine.txt"

for n in $ranks; do
    echo "correctness, $n ranks"
    launch "$n" "$build/bin/test_parallel_strategies" >"$results/correctness-$n.txt"
done
for length in ${SHORT:-64 128}; do
    for n in $ranks; do
        echo "prompt $length, $n ranks"
        pairs "$n" "$length" >>"$results/short.jsonl"
    done
done
for length in ${LONG:-512 2048}; do
    for n in ${LONG_RANKS:-2}; do
        echo "prompt $length, $n ranks"
        pairs "$n" "$length" >>"$results/long.jsonl"
    done
done
scripts/render_strategies.py "$results"
