#!/bin/sh
# symbols.sh LIBRARY HEADER...: the functions declared QWEN3_API in the headers are the symbols that the library
# exports, no more and no fewer.
set -eu
library=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A declaration is everything from QWEN3_API to the first parenthesis; the name is its last word.
sed -n '/^QWEN3_API/{s/(.*//;s/.*[ *]//;p}' "$@" | sort >"$work/declared"
# Sanitized builds export markers of the sanitizer beside ours.
# The name of the version itself is an absolute symbol.
nm -D --defined-only "$library" | awk '$2 != "A" {print $3}' | sed 's/@.*//' |
    grep -vE '^(__odr_asan|__asan_|__ubsan_)' | sort >"$work/exported"

status=0
foreign=$(grep -v '^qwen3_' "$work/exported" || true)
[ -z "$foreign" ] || { echo "exported without the prefix:"; echo "$foreign"; status=1; }
comm -13 "$work/declared" "$work/exported" >"$work/undeclared"
[ ! -s "$work/undeclared" ] ||
    { echo "exported but not declared in a public header:"; cat "$work/undeclared"; status=1; }
comm -23 "$work/declared" "$work/exported" >"$work/missing"
[ ! -s "$work/missing" ] || { echo "declared in a public header but not exported:"; cat "$work/missing"; status=1; }
[ -s "$work/declared" ] || { echo "no declarations found in: $*"; status=1; }
[ $status = 0 ] && echo "$(wc -l <"$work/declared") functions declared and exported"
exit $status
