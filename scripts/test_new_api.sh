#!/usr/bin/env bash
# test_new_api.sh [BUILD_DIRECTORY]: runs benchmark_qwen3 with every option, those of the earlier interface
# (docs/MIGRATION.md) and those of this one, each in every spelling, on a model of 0.2M parameters, and checks in the
# results that it took effect. About a minute. RANKS=2 changes the number of ranks. Status 1 where a check fails.
set -euo pipefail
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
-*)
    echo "test_new_api.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
build=${1:-build}
export OMP_NUM_THREADS=1
launcher=$(sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' "$build/CMakeCache.txt")
if grep -q '^QWEN3_MPI:BOOL=OFF' "$build/CMakeCache.txt"; then launcher=none; fi
if [ "$launcher" = none ]; then ranks=1; else ranks=${RANKS:-2}; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checks=0 failed=0

# fail WHAT: says what is wrong with the last run.
fail() {
    echo "FAILED: $1" >&2
    tail -n 5 "$work/notes" >&2
    failed=$((failed + 1))
}

# on RANKS OPTION...: one small test in JSON, unless the options say otherwise. Sets `status`.
on() {
    local n=$1 command=("$build/bin/benchmark_qwen3")
    shift
    if [ "$n" != 1 ]; then command=(tests/launch.sh "$launcher" "$n" "${command[@]}"); fi
    status=0
    "${command[@]}" "$@" >"$work/results" 2>"$work/notes" || status=$?
}
tiny=(--model synthetic:tiny --iters 1 --warmup 0 --output json)
small=("${tiny[@]}" --prompt-len 20 --gen-len 2)

# values FIELD: of all records.
values() {
    sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" "$work/results"
}
number_of_records() {
    grep -c '"version"' "$work/results" || true
}

# holds WHAT COMMAND...: a check of the last run.
holds() {
    local what=$1
    shift
    checks=$((checks + 1))
    "$@" || fail "$what"
}
# is FIELD VALUE: in every record of the last run, which succeeded.
is() {
    holds "$1 is $2: got $(values "$1" | paste -sd' ') (status $status)" \
        test "$status $(values "$1" | sort -u | paste -sd' ')" = "0 $2"
}
# effect FIELD VALUE OPTION...: a small run on all ranks.
effect() {
    local field=$1 value=$2
    shift 2
    on "$ranks" "${small[@]}" "$@"
    is "$field" "$value"
}
# alone FIELD VALUE OPTION...: on one rank.
alone() {
    local field=$1 value=$2
    shift 2
    on 1 "${small[@]}" "$@"
    is "$field" "$value"
}
# refused OPTION...: with status 2 and one message.
refused() {
    on 1 "${small[@]}" "$@"
    holds "$* is refused (status $status)" test "$status $(grep -c '^qwen3: error: ' "$work/notes")" = "2 1"
}
# says WORD OPTION...: in what is printed beside the results.
says() {
    local word=$1
    shift
    on "$ranks" "${small[@]}" "$@"
    holds "$* says $word (status $status)" grep -q -- "$word" "$work/notes"
}
has_level() {
    on 1 "${small[@]}" --isa "$1"
    [ $status = 0 ]
}
differs() {
    [ "$1" != "$2" ]
}

# ---- Of the earlier interface --------------------------------------------------------------------
effect model_filename synthetic:tiny
for phase in prefill decode both; do effect phase $phase --phase $phase; done
for method in auto mpi; do effect n_ranks "$ranks" --method $method; done
alone isa c --method baseline
if [ "$ranks" != 1 ]; then
    on "$ranks" "${small[@]}" --method baseline
    holds "--method baseline on $ranks ranks is refused" test $status = 2
fi
if has_level avx2; then
    alone isa avx2 --method avx2
    effect isa avx2 --method mpi+avx2
fi
for strategy in headwise head_wise head-wise HEADWISE; do effect strategy headwise --parallel-strategy $strategy; done
effect strategy sequence --parallel-strategy sequence
effect algorithm standard --attention-algo standard
effect algorithm online_softmax --attention-algo online_softmax
effect algorithm standard --attention standard
effect strategy headwise --attention standard
effect algorithm online_softmax --attention streaming
says deprecated --attention streaming
effect n_prompt 24 --prompt-len 24
effect n_gen 3 --gen-len 3
on "$ranks" "${tiny[@]}" --prompt-len 20 --generate 3
is n_gen 3
effect batch_size 3 --batch-size 3
effect repetitions 2 --iters 2
effect warmup 2 --warmup 2
effect n_threads 2 --threads 2
on 1 "${tiny[@]}" --prompt-len 300 --phase prefill --attention-algo online_softmax
before=$(values score_bytes)
for option in --q-block-size --kv-block-size; do
    on 1 "${tiny[@]}" --prompt-len 300 --phase prefill --attention-algo online_softmax $option 128
    holds "$option changes the memory of scores ($before)" differs "$(values score_bytes)" "$before"
done
effect kv_cache yes --use-kv-cache
effect kv_cache no --no-kv-cache
effect n_gen 2 --compare-kv-cache
holds "--compare-kv-cache decodes both ways" test "$(values kv_cache | paste -sd' ')" = "yes no"
holds "--compare-kv-cache gives the speed-up" test "$(values kv_cache_speedup | grep -vc null)" = 1
effect verified pass --verify
says "repetition 1:\|repetition *1:" --verbose
for option in --help --version; do
    on 1 $option
    holds "$option" test $status = 0
done
# Of the earlier interface, without a counterpart.
refused --mode mpi
refused --block-size 32
refused --prompt text

# ---- Of this one ---------------------------------------------------------------------------------
on 1 -m synthetic:tiny -r 1 -o json -t 2 -p 8 -n 3 -pg 4,2 -d 0,5 -b 1,2
is model_filename synthetic:tiny
is n_threads 2
holds "-p -n -pg -d -b make all tests" test "$(values test | paste -sd,)" = \
    "pp8,tg3,pp4+tg2,pp8 x2,tg3 x2,pp4+tg2 x2,pp8 @ d5,tg3 @ d5,pp4+tg2 @ d5,pp8 x2 @ d5,tg3 x2 @ d5,pp4+tg2 x2 @ d5"
on 1 --model synthetic:tiny --repetitions 2 --output json --n-prompt 8 --n-gen 0 --n-depth 5 --batch-size 2
is test "pp8 x2 @ d5"
is repetitions 2
on 1 --model synthetic:tiny --iters 1 --output json --pg 4,2
holds "--pg" grep -q '"pp4+tg2"' "$work/results"
effect dtype "bf16 f32 q4 q8" --dtype f32,bf16,q8,q4
for type in f32 bf16 q8; do effect type_k $type --kv-dtype $type; done
effect isa c --isa c
effect seed 7 --seed 7
effect strategy "headwise sequence" --parallel-strategy headwise,sequence
effect grid "${ranks}x1" --grid "${ranks}x1"
effect n_ranks "$ranks" --parallel-strategy auto --attention-algo auto
effect strategy "headwise sequence" --pairs
holds "--pairs: all pairs" test "$(number_of_records)" = 4
effect algorithm standard --pairs --attention-algo standard
effect phase prefill --phase prefill --roofline
holds "--roofline" differs "$(values limit_ts)" null
if [ "$ranks" != 1 ]; then
    effect prefill_kv_bytes 0 --parallel-strategy sequence --phase prefill --token-split-min 1000
    effect prefill_reduce_bytes 0 --parallel-strategy sequence --phase prefill --token-split-min 4
fi
effect deterministic yes --deterministic
# These change messages over several nodes, or what the launcher set; here, that they are taken.
for bind in auto inherit; do effect n_ranks "$ranks" --bind $bind; done
effect n_ranks "$ranks" --overlap-min-rows 64
effect n_ranks "$ranks" --wire bf16
for form in table md csv json jsonl; do
    on 1 "${small[@]}" --output $form
    case $form in
    table) pattern='^strategy  ' ;;
    md) pattern='^| result' ;;
    csv) pattern='^version,commit,' ;;
    json) pattern='^  {' ;;
    jsonl) pattern='^{"version"' ;;
    esac
    holds "--output $form" grep -q "$pattern" "$work/results"
done
on 1 --machine-save "$work/machine.json" -t 1
holds "--machine-save" test -s "$work/machine.json"
on 1 --plan --machine "$work/machine.json" --nodes 4 --ranks-per-node 2 --net 10gbit,30us -o json -p 64 -n 0
is nodes 4
is ranks_per_node 2
holds "--plan: every grid with both algorithms" test "$(number_of_records)" = 8
plan=$(values predicted_ts | head -n 1)
on 1 --plan --machine "$work/machine.json" --nodes 4 --ranks-per-node 2 --net 1gbit,30us -o json -p 64 -n 0
holds "--net changes the prediction" differs "$(values predicted_ts | head -n 1)" "$plan"

# ---- None is forgotten ---------------------------------------------------------------------------
on 1 --help
sed -n 's/^  \(-., \)\{0,1\}\(--[a-z0-9-]*\).*/\2/p' "$work/results" >"$work/names"
while read -r name; do
    holds "$name is tested" grep -q -- "$name\b" scripts/test_new_api.sh
done <"$work/names"

echo "test_new_api.sh: $checks checks, $failed failed"
[ $failed = 0 ]
