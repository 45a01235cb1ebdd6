#!/bin/sh
# functions.sh LIBRARY COMMAND...: every function that the library exports has a case in the test of misuses (COMMAND,
# test_api.c, prints "covered NAME" for each).
set -eu
library=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$@" >"$work/output" || { cat "$work/output"; exit 1; }
sed -n 's/^covered //p' "$work/output" | sort >"$work/covered"
nm -D --defined-only "$library" | awk '{print $3}' | sed 's/@.*//' | grep '^qwen3_' | sort >"$work/exported"
[ -s "$work/exported" ] || { echo "no functions found in $library"; exit 1; }
comm -23 "$work/exported" "$work/covered" >"$work/forgotten"
[ ! -s "$work/forgotten" ] || { echo "without a case in tests/attack/test_api.c:"; cat "$work/forgotten"; exit 1; }
echo "$(wc -l <"$work/exported") functions have cases"
