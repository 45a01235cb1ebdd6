#!/bin/bash
# emulate_hosts.sh [-n HOSTS] [-s SLOTS] [-r RATE] [-c CORES] COMMAND [ARGUMENT...]
# Runs a command on the first of several emulated hosts, as in a job of a cluster: what mpirun or mpiexec, of Open MPI
# or MPICH, starts in there is spread over the hosts and talks over TCP. For example, two hosts of one core:
#   scripts/emulate_hosts.sh -n 2 -r 10gbit -c 1 mpirun -n 2 build/bin/benchmark_qwen3 --model synthetic:0.6B
#
#   -n HOSTS   number of hosts (2)
#   -s SLOTS   ranks on each host (1); ranks 0 to SLOTS - 1 are on the first host
#   -r RATE    what each host may send, as tc writes it: 10gbit, 1gbit; none: no limit (none)
#   -c CORES   cores of each host: host i has cores i CORES to (i + 1) CORES - 1, modulo the cores of this machine.
#              Without it all hosts share all cores.
#
# A host is a network, a UTS and an IPC namespace: it has an address 10.77.0.x and a host name host0, host1, ... of its
# own, and libraries below MPI that look for shared memory by themselves do not find another host's. So MPI takes it
# for another node. A bridge joins the hosts; a token bucket limits what each sends. All of it is in
# namespaces of this script, processes and temporary files of MPI as well: nothing is visible outside, several runs
# at once do not meet, and nothing is left when the script ends, however it ends. A process that the command leaves
# behind is reported and makes the status 1.
#
# Needs root, iproute2 and util-linux. Status: that of the command; 77 where hosts cannot be emulated.
set -euo pipefail

hosts=2 slots=1 rate=none cores=
if [ "${1-}" = --help ]; then
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
fi
while getopts hn:s:r:c: option; do
    case $option in
    h) exec "$0" --help ;;
    n) hosts=$OPTARG ;;
    s) slots=$OPTARG ;;
    r) rate=$OPTARG ;;
    c) cores=$OPTARG ;;
    *) exit 2 ;;
    esac
done

cannot() {
    echo "emulate_hosts.sh: hosts cannot be emulated here: $1" >&2
    exit 77
}

# Outside of the namespaces: this process waits for the script inside. It ends everything in there by ending `unshare`.
if [ -z "${QWEN3_EMULATED_HOSTS-}" ]; then
    [ $OPTIND -le $# ] || { echo "emulate_hosts.sh: expected a command" >&2; exit 2; }
    [ "$(id -u)" = 0 ] || cannot "only root may make network namespaces."
    command -v ip tc nsenter >/dev/null || cannot "iproute2 and util-linux are needed."
    new=(unshare --mount --uts --net --pid --fork --kill-child --mount-proc)
    why=$("${new[@]}" true 2>&1) || cannot "$why."
    mkdir -p /run/netns # where the private files are mounted; `ip netns` makes it as well
    QWEN3_EMULATED_HOSTS=$hosts setpriv --pdeathsig KILL "${new[@]}" "$0" "$@" <&0 &
    trap 'kill -KILL $!; exit 143' HUP INT TERM
    wait $!
    exit
fi
shift $((OPTIND - 1))

# Inside. Private files: namespaces, temporary files, shared memory.
files=/run/netns
mount -t tmpfs -o mode=755 tmpfs $files
mount -t tmpfs tmpfs /dev/shm

# Sets `enter`, the command line before a command on a host: host0, host1, ...
set_enter() {
    local host=$1 first=$((${1#host} * ${cores:-0})) all list
    enter=(nsenter "--net=$files/$host" "--uts=$files/$host.uts" "--ipc=$files/$host.ipc")
    [ -n "$cores" ] || return 0
    all=$(nproc --all)
    list=$(for ((i = first; i < first + cores; i++)); do echo $((i % all)); done | paste -sd,)
    enter+=(taskset -c "$list")
}

# What MPI takes for ssh: [OPTION...] HOST COMMAND...
{
    printf '#!/bin/bash\nfiles=%s cores=%s\n' $files "$cores"
    declare -f set_enter
    # shellcheck disable=SC2016 # expanded when the agent runs
    echo 'while [[ $1 == -* ]]; do shift; done; set_enter $1; shift; exec "${enter[@]}" sh -c "$*"'
} >$files/agent
chmod +x $files/agent

ip link add switch type bridge || cannot "the kernel has no bridges."
ip link set switch up
echo "127.0.0.1 localhost" >$files/names
for ((i = 0; i < hosts; i++)); do
    ip netns add host$i
    touch $files/host$i.uts $files/host$i.ipc
    unshare --uts=$files/host$i.uts --ipc=$files/host$i.ipc hostname host$i
    ip link add port$i master switch type veth peer name eth0 netns host$i || cannot "the kernel has no veth devices."
    ip link set port$i up
    ip -n host$i address add 10.77.0.$((i + 1))/24 dev eth0
    ip -n host$i link set eth0 up
    ip -n host$i link set lo up
    [ "$rate" = none ] || tc -n host$i qdisc replace dev eth0 root tbf rate "$rate" burst 256kb latency 50ms ||
        cannot "the kernel has no token buckets, or '$rate' is no rate."
    echo "10.77.0.$((i + 1)) host$i" >>$files/names
    echo "host$i:$slots" >>$files/hydra
    echo "host$i slots=$slots" >>$files/openmpi
done
mount --bind $files/names /etc/hosts

# Open MPI. It need not be told which interface to take: a host has only eth0.
export OMPI_MCA_orte_default_hostfile=$files/openmpi OMPI_MCA_plm_rsh_agent=$files/agent
export OMPI_MCA_orte_tmpdir_base=$files OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self,vader
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# MPICH.
export HYDRA_HOST_FILE=$files/hydra HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC=$files/agent HYDRA_IFACE=eth0

# Sets `left`, the processes other than this one. One may end before its command line is read.
set_left() {
    local process
    left=()
    for process in /proc/[0-9]*; do
        [ "${process#/proc/}" = $$ ] || left+=("$(tr '\0' ' ' 2>/dev/null <"$process/cmdline" || true)")
    done
}

status=0
set_enter host0
"${enter[@]}" "$@" || status=$?
for ((i = 0; i < 20; i++)); do # daemons that end at this moment are no fault
    set_left
    [ ${#left[@]} -gt 0 ] || exit $status
    sleep 0.1
done
echo "emulate_hosts.sh: the command left processes behind:" >&2
printf '  %s\n' "${left[@]}" >&2
[ $status != 0 ] || status=1
exit $status
