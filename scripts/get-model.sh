#!/usr/bin/env bash
# get-model.sh [--verify] NAME[:TYPE] [DIRECTORY]: see usage().
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/get-model.sh [--verify] NAME[:TYPE] [DIRECTORY]

Fetches a published model from Hugging Face into DIRECTORY (models/ and the model's name): the files that the programs
read, no others. Each is checked against its published checksum before it appears under its name. What is there already
is left alone; a fetch that was interrupted goes on where it stopped when the same command is given again.

NAME: a model of https://huggingface.co/Qwen, or OWNER/MODEL. Dense ones are
    Qwen3-0.6B  Qwen3-1.7B  Qwen3-4B  Qwen3-8B  Qwen3-14B  Qwen3-32B  Qwen3-4B-Instruct-2507  Qwen3-4B-Thinking-2507
    Qwen3-0.6B-Base  Qwen3-1.7B-Base  Qwen3-4B-Base  Qwen3-8B-Base  Qwen3-14B-Base
mixtures of experts (about 2 GB for every billion of weights)
    Qwen3-30B-A3B  Qwen3-30B-A3B-Instruct-2507  Qwen3-30B-A3B-Thinking-2507  Qwen3-235B-A22B
    Qwen3-235B-A22B-Instruct-2507  Qwen3-235B-A22B-Thinking-2507  Qwen3-Coder-30B-A3B-Instruct
    Qwen3-Coder-480B-A35B-Instruct  Qwen3-30B-A3B-Base
with 8-bit weights
    Qwen3-0.6B-FP8  Qwen3-1.7B-FP8  Qwen3-4B-FP8  Qwen3-8B-FP8  Qwen3-14B-FP8  Qwen3-32B-FP8
    Qwen3-4B-Instruct-2507-FP8  Qwen3-4B-Thinking-2507-FP8  Qwen3-30B-A3B-FP8  Qwen3-30B-A3B-Instruct-2507-FP8
    Qwen3-30B-A3B-Thinking-2507-FP8  Qwen3-235B-A22B-FP8  Qwen3-235B-A22B-Instruct-2507-FP8
    Qwen3-235B-A22B-Thinking-2507-FP8  Qwen3-Coder-30B-A3B-Instruct-FP8  Qwen3-Coder-480B-A35B-Instruct-FP8
    Qwen3-0.6B-GPTQ-Int8  Qwen3-1.7B-GPTQ-Int8
with 4-bit weights
    Qwen3-4B-AWQ  Qwen3-8B-AWQ  Qwen3-14B-AWQ  Qwen3-32B-AWQ  Qwen3-30B-A3B-GPTQ-Int4  Qwen3-235B-A22B-GPTQ-Int4
for embeddings and for ranking
    Qwen3-Embedding-0.6B  Qwen3-Embedding-4B  Qwen3-Embedding-8B  Qwen3-Reranker-0.6B  Qwen3-Reranker-4B
    Qwen3-Reranker-8B
and as GGUF files, with the type of weights behind the name, as in Qwen3-4B-GGUF:Q4_K_M (without it the error lists
the types)
    Qwen3-0.6B-GGUF  Qwen3-1.7B-GGUF  Qwen3-4B-GGUF  Qwen3-8B-GGUF  Qwen3-14B-GGUF  Qwen3-32B-GGUF  Qwen3-30B-A3B-GGUF
    Qwen3-235B-A22B-GGUF  Qwen3-Embedding-0.6B-GGUF  Qwen3-Embedding-4B-GGUF  Qwen3-Embedding-8B-GGUF

  --verify   fetch nothing, check the files in DIRECTORY against the published checksums
  --help     this text

Environment: HF_ENDPOINT, address of a mirror (https://huggingface.co); HF_TOKEN, for models that ask for one;
https_proxy, as for curl.
END
}

fail() {
    echo "get-model.sh: error: $*" >&2
    exit 1
}

endpoint=${HF_ENDPOINT:-https://huggingface.co}
endpoint=${endpoint%/}
attempts=5 # that bring nothing, one after the other, before a file is given up

# What a status of HTTP or of curl means: explain CURL_STATUS CODES WHAT
explain() {
    local what=$3 connect=${2:0:3} code=${2:3}
    case $connect in
    '' | 000 | 2??) ;;
    407) code=407 ;;
    *) fail "$what: the proxy (https_proxy) answers with HTTP status $connect" ;;
    esac
    case $code in
    401) fail "$what: HTTP status 401: no such model (--help shows names), or one that asks for a token (HF_TOKEN)" ;;
    403) fail "$what: HTTP status 403: no access: agree to the model's terms on its page, and set HF_TOKEN" ;;
    404) fail "$what: HTTP status 404: not there (--help shows names)" ;;
    407) fail "$what: HTTP status 407: the proxy asks for a password (https_proxy=http://NAME:PASSWORD@HOST:PORT)" ;;
    429 | 5??) fail "$what: HTTP status $code: the server is busy or broken; try again later" ;;
    4??) fail "$what: HTTP status $code" ;;
    esac
    case $1 in
    5) fail "$what: the address of the proxy (https_proxy) cannot be resolved" ;;
    6) fail "$what: the address cannot be resolved: no network? (HF_ENDPOINT names a mirror)" ;;
    7) fail "$what: no server answers: no network? (HF_ENDPOINT names a mirror)" ;;
    22) fail "$what: HTTP status $code" ;;
    23) fail "$what: cannot write in $directory: is the disk full?" ;;
    35 | 51 | 60 | 77) fail "$what: no secure connection (curl status $1); are ca-certificates installed?" ;;
    16 | 18 | 28 | 52 | 55 | 56 | 92) fail "$what: the connection broke; the same command goes on where it stopped" ;;
    *) fail "$what: curl ended with status $1" ;;
    esac
}

# may_pass CURL_STATUS CODES: a broken connection, or a server that is busy.
may_pass() {
    case $1:$2 in
    16:* | 18:* | 28:* | 52:* | 55:* | 56:000* | 56:2* | 92:*) ;;
    22:???429 | 22:???5??) ;;
    *) return 1 ;;
    esac
}

# request URL OPTION...: prints two HTTP statuses, that of a proxy and that of the server, 000 where there is none. At a
# redirection to another host, as of large files, curl leaves the token out. It is not for the command line, which all
# users can read.
request() {
    curl --location --fail --proto '=http,https' --connect-timeout 30 --speed-limit 1 --speed-time 60 \
        --write-out '%{http_connect}%{http_code}' "${@:2}" \
        --config <(if [ -n "${HF_TOKEN:-}" ]; then printf 'header = "Authorization: Bearer %s"\n' "$HF_TOKEN"; fi) "$1"
}

# needed_files TYPE: lines "FILE SIZE sha256|blob HASH" of the files that are needed, from the answer of the server on
# standard input. Large files have a SHA-256; small ones are known by what git calls them, SHA-1 of a header and the
# content. GGUF files may be in a folder. Where those of several models are there, and not one of them is meant: a line
# "types TYPE...".
needed_files() {
    python3 -c '
import json, re, sys
GGUF = re.compile(r"((?:\w[\w-]*/)?(?!mmproj|imatrix)\w[\w.-]*?[-.](\w+))(?:-\d{5}-of-\d{5})?\.gguf", re.I)
NEEDED = re.compile(r"(tokenizer|tokenizer_config|generation_config|config|model\.safetensors\.index)\.json"
                    r"|chat_template\.jinja|model(-\d+-of-\d+)?\.safetensors")
wanted = sys.argv[1].lower()
try:
    files = [file for file in json.load(sys.stdin) if file["type"] == "file"]
    models = {match[1]: match[2] for match in (GGUF.fullmatch(file["path"]) for file in files) if match}
    if wanted or not any(file["path"] == "config.json" for file in files):
        chosen = {stem for stem, kind in models.items() if not wanted or kind.lower() == wanted}
        if models and len(chosen) != 1:
            print("types", *sorted(set(models.values())))
            sys.exit()
        NEEDED = re.compile("(" + "|".join(map(re.escape, chosen)) + r")(-\d{5}-of-\d{5})?\.gguf")
    for file in files:
        if NEEDED.fullmatch(file["path"]):
            lfs = file.get("lfs")
            size, hash = (lfs["size"], lfs["oid"]) if lfs else (file["size"], file["oid"])
            if not re.fullmatch("[0-9a-f]{64}" if lfs else "[0-9a-f]{40}", hash):
                raise ValueError(hash)
            print(file["path"], int(size), "sha256" if lfs else "blob", hash)
except (ValueError, KeyError, TypeError, AttributeError):
    sys.exit(1)
' "$1"
}

bytes_of() {
    stat -c %s "$1" 2>/dev/null || echo 0
}

# matches PATH SIZE KIND HASH
matches() {
    local found
    [ "$(bytes_of "$1")" = "$2" ] || return 1
    if [ "$3" = sha256 ]; then
        found=$(sha256sum <"$1")
    else
        found=$({ printf 'blob %s\0' "$2" && cat "$1"; } | sha1sum)
    fi
    [ "${found%% *}" = "$4" ]
}

# fetch FILE SIZE KIND HASH
fetch() {
    local file=$1 size=$2 part=$directory/$1.part url=$endpoint/$model/resolve/main/$1 before status codes failures=0
    [ "$(bytes_of "$part")" -le "$size" ] || rm -f "$part"
    while before=$(bytes_of "$part") && { [ "$before" -lt "$size" ] || [ ! -e "$part" ]; }; do
        status=0
        codes=$(request "$url" "${progress[@]}" --continue-at - --output "$part") || status=$?
        [ $status != 0 ] || break
        if [ $status = 33 ]; then # a server that cannot go on in the middle
            rm -f "$part"
        elif ! may_pass $status "$codes"; then
            explain $status "$codes" "$endpoint/$model: $file"
        fi
        failures=$(($(bytes_of "$part") > before ? 0 : failures + 1))
        [ $failures -lt $attempts ] || explain $status "$codes" "$endpoint/$model: $file"
        sleep $((failures * failures))
    done
    if ! matches "$part" "${@:2}"; then
        rm -f "$part"
        fail "$directory/$file: what arrived does not have the published checksum and was deleted; fetch it again"
    fi
    mv "$part" "$directory/$file"
}

# A disk that is too small should be known before hours have gone by.
check_space() {
    local missing=0 free name size
    while read -r name size _; do
        name=$directory/$name
        [ "$(bytes_of "$name")" = "$size" ] || missing=$((missing + size - $(bytes_of "$name.part")))
    done <<<"$files"
    free=$(df -Pk "$directory" | awk 'NR == 2 { print $4 }')
    [ $((missing / 1024)) -le "$free" ] ||
        fail "$directory: $((missing / 1000000)) MB are missing, $((free * 1024 / 1000000)) MB are free on this disk"
}

verify=no
while [[ ${1-} == -* ]]; do
    case $1 in
    --verify) verify=yes ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) fail "unknown option $1 (--help shows the known ones)" ;;
    esac
    shift
done
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    usage >&2
    exit 2
fi
model=${1%:*} type=
[[ $1 != *:* ]] || type=${1##*:}
[[ $model == */* ]] || model=Qwen/$model
[[ $model:$type =~ ^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z0-9_]*$ ]] ||
    fail "$1: expected the name of a model, or OWNER/MODEL, perhaps with :TYPE (--help shows names)"
directory=${2:-models/${model#*/}}
for program in curl python3 sha256sum; do
    command -v $program >/dev/null ||
        fail "$program is not installed (Debian: apt-get install curl ca-certificates python3)"
done
progress=(--silent)
[ ! -t 2 ] || progress=(--progress-bar)

for ((failures = 1; ; failures++)); do
    status=0
    answer=$(request "$endpoint/api/models/$model/tree/main?recursive=true" --silent) || status=$?
    codes=${answer: -6} # --write-out's, behind what the server sent
    [ $status != 0 ] || break
    if [ $failures = $attempts ] || ! may_pass $status "$codes"; then
        explain $status "$codes" "$endpoint/$model"
    fi
    sleep $((failures * failures))
done
files=$(needed_files "$type" <<<"${answer%??????}") || fail "$endpoint: the answer is no list of a model's files"
if [[ $files == types\ * ]]; then
    fail "$endpoint/$model: expected one type of its GGUF files, as in ${model#*/}:${files##* }; there: ${files#types }"
fi
[[ $files == *.gguf\ * || ($'\n'$files == *$'\n'config.json\ * && $files == *.safetensors\ *) ]] ||
    fail "$endpoint/$model: no config.json and *.safetensors, and no *.gguf: not a model that the programs can read"

if [ $verify = yes ]; then
    bad=0
    while read -r file size kind hash; do
        if matches "$directory/$file" "$size" "$kind" "$hash"; then
            echo "$directory/$file: ok"
        else
            what=missing
            [ ! -e "$directory/$file" ] || what="differs from the published file; delete it and fetch it again"
            echo "get-model.sh: error: $directory/$file: $what" >&2
            bad=1
        fi
    done <<<"$files"
    exit $bad
fi

mkdir -p "$directory" || fail "$directory: cannot be made"
check_space
while read -r file size kind hash; do
    if [ "$(bytes_of "$directory/$file")" = "$size" ] && [ -e "$directory/$file" ]; then
        echo "$directory/$file: there already"
    else
        echo "$directory/$file: $size bytes"
        mkdir -p "$(dirname "$directory/$file")" || fail "$directory/$file: its folder cannot be made"
        fetch "$file" "$size" "$kind" "$hash"
    fi
done <<<"$files"
if [[ $files == *.gguf\ * ]]; then
    echo "$model is complete: --model $directory/$(sort <<<"$files" | head -n 1 | cut -d ' ' -f 1)"
else
    echo "$model is complete in $directory"
fi
