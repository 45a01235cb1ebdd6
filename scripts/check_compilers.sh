#!/bin/sh
# check_compilers.sh [COMPILER...]: builds with the oldest and the newest compilers that Debian 12 has (one rank, no
# MPI, warnings are errors), runs the unit tests, and with the first compiler what is installed. gcc 12 and clang 14,
# which are its default ones, have their own steps in .ci/run.
set -eu
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
-*)
    echo "check_compilers.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
scripts/install_deps.sh build test clang compilers

# The newest clang is another one every few months; where none is offered, the oldest gcc is all.
if [ $# = 0 ]; then
    newest=$(apt-cache search --names-only '^clang-[0-9]+$' | sed 's/ .*//' | sort -t- -k2n | tail -n 1)
    if [ -n "$newest" ] && ! command -v "$newest" >/dev/null; then
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        $as_root apt-get install -y --no-install-recommends "$newest" >/dev/null || newest=
    fi
    [ -n "$newest" ] || echo "no newer clang is offered here: gcc alone"
    set -- gcc-11 ${newest:+"$newest"}
fi

# Debian has room for one version of LLVM's OpenMP, that of the default clang, and other ones do not look for it there.
openmp=$PWD/build-compilers/openmp
mkdir -p "$openmp"
ln -sf "$(dpkg -L libomp-14-dev | grep '/omp\.h$')" "$(dpkg -L libomp-14-dev | grep '/libomp\.so$')" "$openmp"

QWEN3_TEST_CASES=20 # random cases: this is about compilers
export QWEN3_TEST_CASES
status=0
labels='unit|install|examples'
for compiler in "$@"; do
    build=build-compilers/$compiler
    case $compiler in
    clang*) export C_INCLUDE_PATH="$openmp" LIBRARY_PATH="$openmp" ;;
    *) unset C_INCLUDE_PATH LIBRARY_PATH ;;
    esac
    echo "$compiler"
    cmake -S . -B "$build" -DCMAKE_C_COMPILER="$compiler" -DQWEN3_MPI=OFF -DQWEN3_WERROR=ON
    cmake --build "$build" --parallel "$(nproc)"
    ctest --test-dir "$build" --parallel "$((2 * $(nproc)))" --output-on-failure --no-tests=error -L "$labels" ||
        status=1
    labels=unit
done
exit $status
