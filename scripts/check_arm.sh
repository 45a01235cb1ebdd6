#!/bin/sh
# check_arm.sh, without arguments: builds for 64-bit Arm with Debian's cross compiler (one rank, no MPI) and runs tests
# under qemu-user: on a processor with BF16 instructions, which has all levels of kernels, all that can differ from
# x86-64; those of kernels and products also on one without, and on one without dot products of bytes either.
# Installs what is missing, which includes libraries of the foreign architecture arm64. Says nothing about speed.
set -eu
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
-*)
    echo "check_arm.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.."
build="build-aarch64"

scripts/install_deps.sh build test arm
cmake -S . -B $build -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DQWEN3_MPI=OFF "-DQWEN3_WERROR=${WERROR:-OFF}"
cmake --build $build --parallel "$(nproc)"

# on CPU CTEST-OPTION...
on() {
    QEMU_CPU=$1
    export QEMU_CPU
    shift
    echo "qemu-aarch64 -cpu $QEMU_CPU"
    ctest --test-dir $build --parallel "$((2 * $(nproc)))" --output-on-failure --no-tests=error "$@"
}

status=0
# Emulated arithmetic is slow: fewer random cases. Left out are tests in which no kernel takes part, the many answers of
# the demo model, which take minutes, and what measures the machine.
QWEN3_TEST_CASES=15
export QWEN3_TEST_CASES
programs='bad_input|programs|chat_template|determinism|reference|get_model|gguf|demo_model|plan|figures|results'
on max -LE "api|attack" -E "^(e2e\.($programs)|scripts\..*|unit\.machine|ranks\.allocation.*)\$" || status=1
for cpu in neoverse-n1 cortex-a72; do
    on $cpu -R '^unit\.(kernels|gemm)$' || status=1
done
exit $status
