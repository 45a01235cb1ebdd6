#!/usr/bin/env bash
# measure_strategies.sh [BUILD_DIRECTORY]: measures the tables of docs/PARALLEL_STRATEGIES.md: every strategy with every
# algorithm on 1, 2 and 4 ranks and on 2 emulated hosts. In each round every configuration runs once, as a process of
# its own, so that what disturbs the machine disturbs all of them; the tables have medians over the rounds. About 20
# minutes on 2 cores; run it on a machine that does nothing else.
#
#   RANKS="1 2 4"  HOSTS="2"  LENGTHS="64 128 512 2048"  GEN=16  ROUNDS=5  MODEL=synthetic:0.6B  RATE=10gbit
#   LONG="8192"  LONG_ROUNDS=2     lengths that are measured less often and without warming up
#
# change the matrix; HOSTS="" leaves the emulated hosts out, which need root. Raw results stay in
# ${RESULTS:-BUILD_DIRECTORY/measure}/*.jsonl (columns: docs/RESULTS.md). The tables are printed in both languages. To
# put figures and tables into the pages:
#   scripts/plot.py results build/measure/runs.jsonl
#   scripts/render_strategies.py --write build/measure
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
results=${RESULTS:-$build/measure}
model=${MODEL:-synthetic:0.6B}
ranks=${RANKS-1 2 4}
hosts=${HOSTS-2}
lengths=${LENGTHS-64 128 512 2048}
long=${LONG-8192}
launcher=$(sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' "$build/CMakeCache.txt")

# Threads are the programs' choice here, not the one per rank that the tests take.
threads() {
    local n=$(($(nproc) / $1))
    echo $((n > 0 ? n : 1))
}

on_ranks() {
    OMP_NUM_THREADS=$(threads "$1") tests/launch.sh "$launcher" "$@"
}

# Hosts of one core each.
on_hosts() {
    local n=$1
    shift
    OMP_NUM_THREADS=1 scripts/emulate_hosts.sh -n "$n" -r "${RATE:-10gbit}" -c 1 "$launcher" --allow-run-as-root \
        --bind-to none -n "$n" "$@"
}

# everywhere FILE OPTION...: all pairs on every configuration, a record for each test to FILE.
everywhere() {
    local file=$results/$1 n pairs
    shift
    local command=("$build/bin/benchmark_qwen3" --model "$model" --dtype bf16 --pairs --repetitions 1 --output jsonl
        "$@")
    for n in $ranks; do
        pairs=()
        # All strategies are the same on one rank, which measures the limits for all configurations.
        if [ "$n" = 1 ]; then pairs=(--parallel-strategy headwise --roofline); fi
        on_ranks "$n" "${command[@]}" "${pairs[@]}" >>"$file" 2>>"$results/notes.txt"
    done
    for n in $hosts; do on_hosts "$n" "${command[@]}" >>"$file" 2>>"$results/notes.txt"; done
}

if [ -n "$hosts" ] && ! scripts/emulate_hosts.sh true; then
    echo "measure_strategies.sh: without emulated hosts" >&2
    hosts=
fi
rm -rf "$results"
mkdir -p "$results"
printf 'cores=%s\nrate=%s\n' "$(nproc)" "${RATE:-10gbit}" >"$results/machine.txt"
for n in $ranks; do
    on_ranks "$n" "$build/bin/test_parallel_strategies" --output jsonl >>"$results/correctness.jsonl"
done
everywhere verified.jsonl --verify --warmup 0 -n 0 -p "${lengths%% *}"
for ((round = 1; round <= ${ROUNDS:-5}; round++)); do
    echo "round $round, $(date -u +%H:%M:%S)" >&2
    everywhere runs.jsonl -p "${lengths// /,}" -n "${GEN:-16}"
    if [ -n "$long" ] && [ "$round" -le "${LONG_ROUNDS:-2}" ]; then
        everywhere runs.jsonl --warmup 0 -n 0 -p "${long// /,}"
    fi
done
scripts/render_strategies.py "$results"
