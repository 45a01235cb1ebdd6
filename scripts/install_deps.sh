#!/bin/sh
# install_deps.sh [--check] PURPOSE...: installs the Debian packages of these purposes (packages.txt) that are
# missing. Touches apt only when something is missing; needs root or sudo then. --check only says what is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
check=no
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
--check)
    check=yes
    shift
    ;;
-*)
    echo "install_deps.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac

wanted=
for purpose in "$@"; do
    line=$(sed -n "s/^$purpose: *//p" "$here/packages.txt")
    [ -n "$line" ] || { echo "install_deps.sh: unknown purpose '$purpose' (see packages.txt)" >&2; exit 2; }
    wanted="$wanted $line"
done

if ! command -v dpkg-query >/dev/null 2>&1; then
    [ $check = yes ] || echo "Not a Debian system: install the equivalents of these yourself:$wanted" >&2
    exit 0
fi

# A library can be installed for several architectures; that of this machine, or the one named, counts.
native=$(dpkg --print-architecture)
missing=
for package in $wanted; do
    case $package in
    *:*) architecture=${package#*:} ;;
    *) architecture=$native ;;
    esac
    dpkg-query -W -f '${Architecture} ${Status}\n' "$package" 2>/dev/null |
        grep -qE "^($architecture|all) install ok installed\$" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ $check = yes ]; then
    echo "Missing packages:$missing" >&2
    echo "Install them with 'make deps', or: apt-get install$missing" >&2
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    echo "Missing packages:$missing" >&2
    echo "Neither root nor sudo is available: have an administrator run: apt-get install$missing" >&2
    exit 1
fi
echo "Installing:$missing"
for package in $missing; do
    case $package in
    *:*) $as_root dpkg --add-architecture "${package#*:}" ;; # its package lists are asked for from now on
    esac
done
# A fresh image has no package lists, an old one has stale ones: refresh them once before installing.
$as_root apt-get update -q
# shellcheck disable=SC2086 # the list is meant to be split
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
