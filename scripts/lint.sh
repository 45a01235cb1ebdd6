#!/bin/sh
# lint.sh BUILD_DIRECTORY: formatting, layer rules, left-overs, shell scripts, static analysis. The directory must be
# configured for clang (its compile_commands.json is read). Runs everything, fails if anything failed.
set -u
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
-*)
    echo "lint.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
cd "$(dirname "$0")/.." || exit 2
build=$1
failed=

check() {
    name=$1
    shift
    if "$@"; then
        echo "lint: $name: ok"
    else
        echo "lint: $name: FAILED" >&2
        failed="$failed $name"
    fi
}

sources() {
    git ls-files '*.c' '*.h'
}

formatting() {
    sources | xargs clang-format --dry-run -Werror
}

# Work that is not done belongs into an issue, code that is not used nowhere.
left_overs() {
    ! git grep -nE '\b(TODO|FIXME|XXX)\b' -- ':!scripts/lint.sh' ':!*.md'
}

# C is clang-format's, Markdown is not wrapped, and lists of arguments of CMake and make are not cut.
line_lengths() {
    ! LC_ALL=C.UTF-8 git grep -nE '.{121,}' -- '*.py' '*.sh' .ci/run
}

# Only main ends the process, and only programs print.
library_manners() {
    ! git grep -nE '\b(exit|abort|printf|puts|perror)\(' -- 'src/*.c'
}

shell_scripts() {
    git ls-files '*.sh' .ci/run | xargs shellcheck
}

python_scripts() {
    git ls-files '*.py' | xargs python3 -m py_compile
}

# clang-tidy has no parallelism of its own; headers are seen through the files that include them. What a build for
# x86-64 does not compile is left out.
tidy() {
    git ls-files 'src/*.c' 'programs/*.c' 'examples/*.c' ':!src/kernels/arm' |
        xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p "$build" 2>&1 |
        grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -' >"$build/clang-tidy.log"
    ! { grep -E '(warning|error):' -A 4 "$build/clang-tidy.log"; }
}

# Suppressed: arenas of typed parts are cut out of bytes (invalidPointerCast), and two checks that are wrong here.
cpp_check() {
    cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr -j "$(nproc)" \
        --suppress=missingIncludeSystem --suppress=preprocessorErrorDirective --suppress=invalidPointerCast \
        --suppress=uninitdata --suppress=arrayIndexThenCheck \
        -Iinclude -Isrc -Iprograms src programs examples
}

check formatting formatting
check layers tools/check_layers.py
check left-overs left_overs
check line-lengths line_lengths
check library-manners library_manners
check shellcheck shell_scripts
check python python_scripts
check cppcheck cpp_check
check clang-tidy tidy
[ -z "$failed" ] || { echo "lint: failed:$failed" >&2; exit 1; }
