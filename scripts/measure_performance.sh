#!/usr/bin/env bash
# measure_performance.sh [BUILD_DIRECTORY]: prints the performance table of docs/PERFORMANCE.md: prefill and decode of
# one rank, against the limits of the machine that benchmark_qwen3 --roofline measures around them. About 15 minutes on
# 2 cores; run it on a machine that does nothing else.
#   ROUNDS=5                 every figure is the median of so many runs; all rows take turns in each round
#   MODEL=synthetic:0.6B     or a checkpoint
#   THREADS=N                all cores where not given
#   ROWS="1 2 9"             some of the rows, by number; all where not given
#   UNDER="numactl -N 0"     a command to run every measurement under
# Beside another engine, its runs taking turns with ours:
#   LLAMA_BENCH=PROGRAM      a llama-bench that you have built
#   GGUF_bf16=FILE GGUF_f32=FILE GGUF_q8=FILE GGUF_q4=FILE   the same model in its format, for the rows of each
#   GGUF_Q8_0=FILE GGUF_Q4_0=FILE GGUF_Q6_K=FILE GGUF_Q4_K_M=FILE   which both run; rows without a file are left out
#   LLAMA_BENCH_OPTIONS="-fa 1"                              more options for it
# Raw results stay in BUILD_DIRECTORY/performance/; `scripts/render_performance.py DIRECTORY` prints the table again.
set -euo pipefail
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
-*)
    echo "measure_performance.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
build=${1:-build}
results=$build/performance
model=${MODEL:-synthetic:0.6B}
threads=${THREADS:-$(nproc)}
read -ra under <<<"${UNDER:-}"
read -ra peer_options <<<"${LLAMA_BENCH_OPTIONS--fa 1}"

# name | weights | options of ours | options of llama-bench, "-" where it has no such test
# Short tests, several times: the limits of a shared machine change within seconds, and ours has them measured between
# any two. Both run each test once before it counts: ours as its warm-up, the other's first repetition is left away.
# Prompts of 8192 take long enough to go without.
rows=(
    "prefill of 512|bf16|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "prefill of 512|f32|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "prefill of 512|q8|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "prefill of 512|q4|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "prefill of 2048|bf16|-p 2048 -n 0 -r 2|-p 2048 -n 0 -r 2"
    "prefill of 8192|bf16|-p 8192 -n 0 -r 1 --warmup 0|-p 8192 -n 0 -r 1"
    "decode of 32|bf16|-p 0 -n 32 -r 4|-p 0 -n 32 -r 5"
    "decode of 32|q8|-p 0 -n 32 -r 4|-p 0 -n 32 -r 5"
    "decode of 32|q4|-p 0 -n 32 -r 4|-p 0 -n 32 -r 5"
    "decode of 32 after 2048|bf16|-p 0 -n 32 -d 2048 -r 2|-p 0 -n 32 -d 2048 -r 2"
    "decode of 32 after 2048|q4|-p 0 -n 32 -d 2048 -r 2|-p 0 -n 32 -d 2048 -r 2"
    "prefill of 512|Q8_0|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "prefill of 512|Q4_0|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "prefill of 512|Q6_K|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "prefill of 512|Q4_K_M|-p 512 -n 0 -r 3|-p 512 -n 0 -r 4"
    "decode of 32|Q8_0|-p 0 -n 32 -r 4|-p 0 -n 32 -r 5"
    "decode of 32|Q4_0|-p 0 -n 32 -r 4|-p 0 -n 32 -r 5"
    "decode of 32|Q6_K|-p 0 -n 32 -r 4|-p 0 -n 32 -r 5"
    "decode of 32|Q4_K_M|-p 0 -n 32 -r 4|-p 0 -n 32 -r 5"
    "decode of 32, 8 sequences|bf16|-p 0 -n 32 -b 8 -r 2|-"
    "prefill of 512, AVX2 kernels|f32|-p 512 -n 0 -r 2 --isa avx2|-"
)

# ours ROW-ROUND WEIGHTS OPTIONS: nothing for types of GGUF files without such a file.
ours() {
    local options file="GGUF_$2" weights=(--model "$model" --dtype "$2")
    if [[ $2 = Q* ]]; then
        [ -n "${!file:-}" ] || return 0
        weights=(--model "${!file}")
    fi
    read -ra options <<<"$3"
    "${under[@]}" "$build/bin/benchmark_qwen3" "${weights[@]}" --threads "$threads" "${options[@]}" --roofline \
        --output json >"$results/ours-$1.json" 2>>"$results/notes.txt"
}

# theirs ROW-ROUND WEIGHTS OPTIONS: nothing without a program, a model and such a test.
# Versions that know no depth have "-gp PROMPT,N", generation after a prompt that is not timed.
theirs() {
    local options file="GGUF_$2"
    [ "$3" != - ] && [ -n "${LLAMA_BENCH:-}" ] && [ -n "${!file:-}" ] || return 0
    read -ra options <<<"$3"
    if [[ " ${options[*]} " == *" -d "* && $help != *"--n-depth"* ]]; then
        read -ra options <<<"$(sed -E 's/-n ([0-9]+) -d ([0-9]+)/-n 0 -gp \2,\1/' <<<"$3")"
    fi
    "${under[@]}" "$LLAMA_BENCH" -m "${!file}" -t "$threads" "${peer_options[@]}" "${options[@]}" -o json \
        >"$results/theirs-$1.json" 2>>"$results/notes.txt"
}

help=
[ -z "${LLAMA_BENCH:-}" ] || help=$("$LLAMA_BENCH" --help 2>&1 || true)
rm -rf "$results"
mkdir -p "$results"
{
    echo "cores=$(nproc)"
    echo "date=$(date +%Y-%m-%d)"
    echo "commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
} >"$results/machine.txt"
printf '%s\n' "${rows[@]}" >"$results/rows.txt"
for ((round = 1; round <= ${ROUNDS:-5}; round++)); do
    for row in ${ROWS:-$(seq ${#rows[@]})}; do
        IFS='|' read -r name weights our_options their_options <<<"${rows[row - 1]}"
        echo "round $round: $name, $weights" >&2
        ours "$row-$round" "$weights" "$our_options"
        theirs "$row-$round" "$weights" "$their_options"
    done
done
scripts/render_performance.py "$results"
