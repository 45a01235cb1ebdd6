#!/bin/sh
# make_pages.sh BIN OUTPUT VERSION [EMULATOR...]: man pages and completion for bash and zsh, made of what the programs
# in BIN print for --help, so that none of them can lack an option. EMULATOR: what the programs run under.
set -eu
case ${1-} in
-h | --help)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$0"
    exit
    ;;
-*)
    echo "make_pages.sh: unknown option $1 (see --help)" >&2
    exit 2
    ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
bin=$1 output=$2 version=$3
shift 3

# One rank without launcher; what Open MPI leaves behind at the end is not looked for.
OMPI_MCA_ess_singleton_isolated=1 ASAN_OPTIONS=detect_leaks=0 LC_ALL=C
export OMPI_MCA_ess_singleton_isolated ASAN_OPTIONS LC_ALL

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
man=$output/man/man1 bash=$output/bash-completion/completions zsh=$output/zsh/site-functions
rm -rf "$output"
mkdir -p "$man" "$bash" "$zsh"

# page COMMAND...: its man page and what it says for --help, in a file of its name.
page() {
    program=$1
    shift
    name=$program${1:+-$1}
    "$bin/$program" "$@" --help >"$work/help" </dev/null
    awk -v name="$name" -v version="$version" -v others="$others" \
        -f "$here/help.awk" -f "$here/man.awk" "$work/help" >"$man/$name.1"
    awk -v command="$program${1:+ $1}" -f "$here/help.awk" -f "$here/options.awk" "$work/help" >>"$work/options"
}

programs="qwen3 benchmark_qwen3 test_parallel_strategies"
bin_path=$bin
if [ $# -gt 0 ]; then # under an emulator: scripts of the programs' names
    bin=$work/bin
    mkdir "$bin"
    for program in $programs; do
        printf '#!/bin/sh\nexec %s "%s/%s" "$@"\n' "$*" "$bin_path" "$program" >"$bin/$program"
        chmod +x "$bin/$program"
    done
fi

commands=$("$bin/qwen3" --help </dev/null | awk '/^$/ { inside = 0 } inside { print $1 } /^Commands:/ { inside = 1 }')
others=$programs
for command in $commands; do
    others="$others qwen3-$command"
done
for program in $programs; do
    page "$program"
done
for command in $commands; do
    page qwen3 "$command"
done

for shell in bash zsh; do
    awk -F '\t' -v shell=$shell -f "$here/completion.awk" "$work/options" >"$work/$shell"
done
for program in $programs; do # bash looks for a file of the program's name
    cp "$work/bash" "$bash/$program"
done
cp "$work/zsh" "$zsh/_qwen3"
: >"$output/made"
