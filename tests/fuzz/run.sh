#!/usr/bin/env bash
# run.sh BUILD_DIRECTORY SECONDS JOBS [TARGET...]: runs every fuzz target, or those named, for so many seconds, JOBS of
# them at once. Each begins with its corpus in tests/fuzz/corpus and with what earlier runs have found in
# BUILD_DIRECTORY/fuzz/corpus. Prints a line for each; fails if one has a finding, which is then in
# BUILD_DIRECTORY/fuzz/findings.
set -uo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")" && pwd)
fuzz=$1/fuzz
seconds=$2
jobs=$3
shift 3
targets=("$@")
[ ${#targets[@]} -gt 0 ] ||
    mapfile -t targets < <(cd "$root" && printf '%s\n' fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')

# Of a single target, in its log: how often it ran, edges of the program that it has covered.
report() {
    local log=$fuzz/$1.log runs covered
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    printf '%-16s %12s runs %8s edges   %s\n' "$1" "${runs:-?}" "${covered:-?}" "$2"
}

run() {
    local target=$1 dictionary=()
    [ -f "$root/$target.dict" ] && dictionary=("-dict=$root/$target.dict")
    mkdir -p "$fuzz/corpus/$target" "$fuzz/findings"
    if "$fuzz/fuzz_$target" -max_total_time="$seconds" -max_len=16384 -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$fuzz/findings/$target-" "${dictionary[@]}" \
        "$fuzz/corpus/$target" "$root/corpus/$target" >"$fuzz/$target.log" 2>&1; then
        report "$target" "no finding"
    else
        report "$target" "FINDING"
        grep -E '^SUMMARY|Test unit written|runtime error' "$fuzz/$target.log" | head -n 5
        return 1
    fi
}

status=0
running=0
for target in "${targets[@]}"; do
    if [ "$running" -ge "$jobs" ]; then
        wait -n || status=1
        running=$((running - 1))
    fi
    run "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || status=1
    running=$((running - 1))
done
exit $status
