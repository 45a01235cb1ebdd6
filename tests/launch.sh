#!/bin/sh
# launch.sh MPIEXEC RANKS PROGRAM [ARGUMENT...]: runs a test program on any number of ranks of this machine,
# with Open MPI or MPICH, as root or not. MPIEXEC "none" or empty: without MPI, RANKS must be 1.
set -eu
mpiexec=$1 ranks=$2
shift 2
# One thread a rank unless the test says otherwise: the ranks share few cores.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export OMP_NUM_THREADS
if [ "${mpiexec:-none}" = none ]; then
    [ "$ranks" = 1 ] || { echo "launch.sh: this build has no MPI; cannot run $ranks ranks" >&2; exit 2; }
    exec "$@"
fi
if "$mpiexec" --version 2>/dev/null | grep -qi 'open.*mpi\|openrte\|prte'; then
    if [ "$(id -u)" = 0 ]; then
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
    fi
    # On one machine no other network is needed: looking for it is a third of the time of the start.
    OMPI_MCA_pml=${OMPI_MCA_pml:-ob1}
    export OMPI_MCA_pml
    # A job that ends removes the folder in which all jobs of a user have theirs, and one that begins at that moment
    # fails with "orte_init failed": each gets a folder of its own.
    if [ -z "${OMPI_MCA_orte_tmpdir_base:-}" ]; then
        OMPI_MCA_orte_tmpdir_base=$(mktemp -d)
        export OMPI_MCA_orte_tmpdir_base
        trap 'rm -rf "$OMPI_MCA_orte_tmpdir_base"' EXIT
    fi
    trap 'exit 143' TERM # when the launcher, which gets it as well, has ended
    # More ranks than cores must not spin while they wait.
    status=0
    "$mpiexec" --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n "$ranks" "$@" || status=$?
    exit $status
fi
exec "$mpiexec" -n "$ranks" "$@"
