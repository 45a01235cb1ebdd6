#!/bin/sh
# expect.sh FILE COMMAND...: the command must succeed and print all lines of the file, each maybe as a part of its own.
set -u
expected=$1
shift
output=$("$@") || { echo "exit status $?: $*"; exit 1; }
printf '%s\n' "$output"
status=0
while IFS= read -r line; do
    case $output in
    *"$line"*) ;;
    *) echo "expected: $line"; status=1 ;;
    esac
done <"$expected"
exit $status
