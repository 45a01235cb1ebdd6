#!/usr/bin/env bash
# slurm.sh BIN MPIEXEC: the programs in BIN under a real Slurm, which is started for this test and ended with it:
# munged, slurmctld, and slurmd for two nodes n1 and n2 of 2 CPUs each. Both are this machine under another host name
# (a UTS namespace), so that MPI sees two nodes and sends over TCP. MPIEXEC: of the MPI of the build, which decides the
# plugin of srun. Exit status 77: cannot run here, with a word why.
# shellcheck disable=SC2317 # functions are called by name
set -euo pipefail

bin=$1 mpiexec=$2
source_dir=$(cd "$(dirname "$0")/.." && pwd)
model=$source_dir/models/demo

if "$mpiexec" --version 2>/dev/null | grep -qi 'open.*mpi\|openrte\|prte'; then
    plugin=pmix
else
    plugin=pmi2
fi

skip() {
    echo "slurm: not tested: $1"
    exit 77
}
[ "$(id -u)" = 0 ] || skip "needs root, for host names of its own"
for tool in munged slurmctld slurmd srun sbatch unshare; do
    command -v $tool >/dev/null || skip "$tool is missing (Debian: munge, slurmctld, slurmd, slurm-client)"
done
unshare --uts true 2>/dev/null || skip "host names of its own (UTS namespaces) are not permitted"

dir=$(mktemp -d "${TMPDIR:-/tmp}/qwen3-slurm-XXXXXX")
chmod 755 "$dir" # munged wants it
daemons=()
failed=0

end() {
    local pid
    [ ! -s "$dir/nodes" ] || timeout 10 scancel --full --signal=KILL --user=root 2>/dev/null || true
    for pid in "${daemons[@]}"; do # slurmd ends its steps
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [ "$failed" != 0 ]; then
        tail -n 25 "$dir"/*.log
    fi
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 143' TERM INT

# ---- Slurm ----------------------------------------------------------------------------------------

read -r -a port < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(s.getsockname()[1] for s in sockets))')
cpus=$(nproc)
[ "$cpus" -le 2 ] || cpus=2
cat >"$dir/slurm.conf" <<EOF
ClusterName=qwen3-test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=${port[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/%n.pid
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
TmpFS=$dir/tmp.%n
NodeName=n1 NodeAddr=127.0.0.1 Port=${port[1]} CPUs=$cpus CoresPerSocket=$cpus
NodeName=n2 NodeAddr=127.0.0.1 Port=${port[2]} CPUs=$cpus CoresPerSocket=$cpus
PartitionName=test Nodes=n1,n2 Default=YES
EOF
export SLURM_CONF=$dir/slurm.conf
mkdir "$dir"/state "$dir"/{spool,tmp}.n{1,2}
(umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")

munged --foreground --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munge.pid" \
    --seed-file="$dir/munge.seed" --log-file="$dir/munge.log" >"$dir/munged.log" 2>&1 &
daemons+=($!)
wait_for() { # SECONDS WHAT COMMAND...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then
            failed=1
            echo "slurm: $what does not get ready"
            exit 1
        fi
        sleep 0.1
    done
}
wait_for 10 munged test -S "$dir/munge.socket"
slurmctld -D >"$dir/slurmctld.log" 2>&1 &
daemons=($! "${daemons[@]}")
for node in n1 n2; do
    unshare --uts sh -c "hostname $node && exec slurmd -D -N $node" >"$dir/$node.log" 2>&1 &
    daemons=($! "${daemons[@]}")
done
both_idle() {
    sinfo --noheader --Node --format=%T >"$dir/nodes" && [ "$(grep -cx idle "$dir/nodes")" = 2 ]
}
wait_for 30 "a node" both_idle

# ---- Tests ----------------------------------------------------------------------------------------

# The transport that is always there: TCP over the loopback interface.
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self,vader OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_oob_tcp_if_include=lo OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export QWEN3_SRUN_MPI=$plugin OMP_NUM_THREADS=1
two_nodes=(--nodes=2 --ntasks-per-node=1 --cpus-per-task="$cpus" --time=1)

# check WHAT COMMAND...: counts a failure, and shows what the last job printed.
check() {
    if "${@:2}"; then
        echo "ok      $1"
    else
        failed=1
        echo "FAILED  $1"
        tail -n 30 "$dir"/out "$dir"/err
    fi
}
# job OUTPUT COMMAND...: its output and messages into $dir/out and $dir/err.
job() {
    timeout 60 "$@" >"$dir/out" 2>"$dir/err"
}
# batch SBATCH_ARGUMENT...: the same for a batch job.
batch() {
    timeout 60 sbatch --wait --output="$dir/out" --error="$dir/err" --chdir="$source_dir" "$@" >/dev/null
}
same_text() { cmp "$dir/out" "$dir/expected"; }
has() { grep -q -- "$2" "$dir/$1"; }

run=("$bin/qwen3" run --model "$model" --temperature 0 --seed 1 --max-tokens 24 --no-thinking
    "The red box holds 4711. What does the red box hold?")
"${run[@]}" >"$dir/expected"
for strategy in headwise sequence hybrid; do
    check "srun on 2 nodes: qwen3 run, $strategy" job srun --mpi="$plugin" "${two_nodes[@]}" "${run[@]}" \
        --parallel-strategy $strategy
    check "srun on 2 nodes: $strategy gives the text of one rank" same_text
done

check "several-nodes.sbatch: benchmark_qwen3, all pairs, verified" batch "${two_nodes[@]}" \
    "$source_dir/examples/slurm/several-nodes.sbatch" "$bin/benchmark_qwen3" --model "$model" --pairs --verify \
    --prompt-len 32 --gen-len 4 --iters 1 --warmup 0 --verbose
check "several-nodes.sbatch: two nodes" has out "2 on 2 nodes"
check "several-nodes.sbatch: the CPUs that sbatch gives" has out "(node 1), CPUs.*: $cpus of"

if [ "$plugin" = pmix ]; then
    check "mpirun of Open MPI in a job of 2 nodes" batch "${two_nodes[@]}" --wrap \
        "$mpiexec --map-by ppr:1:node:PE=$cpus ${run[*]@Q}"
    check "mpirun: the text of one rank" same_text
fi

check "one-node.sbatch: qwen3 run" batch --nodes=1 --ntasks-per-node="$cpus" --cpus-per-task=1 --time=1 \
    "$source_dir/examples/slurm/one-node.sbatch" "${run[@]}"
check "one-node.sbatch: the text of one rank" same_text

if [ "$cpus" = 2 ]; then
    unset OMP_NUM_THREADS
    check "srun without --cpus-per-task in a job" batch "${two_nodes[@]}" --wrap \
        "srun --mpi=$plugin --cpu-bind=cores $bin/benchmark_qwen3 --model synthetic:tiny -p 4 -n 0 -r 1 --warmup 0"
    check "srun without --cpus-per-task: a warning that says what to do" has err "use srun --cpus-per-task=2"
fi
exit $failed
