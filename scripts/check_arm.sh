#!/bin/sh
# check_arm.sh: builds for 64-bit Arm with Debian's cross compiler (one rank, no MPI) and runs the tests under qemu-user:
# all but the slow ones on a processor with BF16 instructions, those of kernels, products and attention also on one without, and
# on one without dot products of bytes either.
# Installs what is missing, which includes libraries of the foreign architecture arm64. Says nothing about speed.
set -eu
cd "$(dirname "$0")/.."
build="build-aarch64"

scripts/install_deps.sh build test arm
cmake -S . -B $build -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DQWEN3_MPI=OFF
cmake --build $build --parallel "$(nproc)"

# on CPU CTEST-OPTION...
on() {
    QEMU_CPU=$1
    export QEMU_CPU
    shift
    echo "qemu-aarch64 -cpu $QEMU_CPU"
    ctest --test-dir $build --parallel "$(nproc)" --output-on-failure --no-tests=error "$@"
}

status=0
on max -LE api || status=1
for cpu in neoverse-n1 cortex-a72; do
    on $cpu -R '^unit\.(kernels|gemm|attention)$' || status=1
done
exit $status
