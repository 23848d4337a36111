#!/bin/sh
# Finds a Python >= 3.7 and starts the payload beside it; where there is none, says so itself (docs/payload-protocol.md).
# POSIX shell with built-ins only: an image without Python may lack sed, timeout and all the rest, too.

case $0 in
    */*) here=${0%/*} ;;
    *) here=. ;;
esac
here=$(CDPATH='' cd -- "$here" && pwd -P) || exit 70

tried=
child=

# PID 1 has no default handlers: without this, `docker stop` waits for its time limit.
trap '[ -n "$child" ] && kill -TERM "$child" 2>/dev/null; stopped=1' TERM INT
stopped=

# try PYTHON: runs the payload and exits with its code. Returns where this Python cannot run it:
# 97 too old, 98 incomplete, 1 and 2 broken before our first line, 126 and 127 not to be executed.
try() {
    path=$(command -v "$1" 2>/dev/null) || return 0
    [ -n "$path" ] || return 0
    case "$tried" in *" $path ("*) return 0 ;; esac
    "$path" -B -u "$here/__main__.py" &
    child=$!
    wait "$child"
    code=$?
    while [ -n "$stopped" ] && kill -0 "$child" 2>/dev/null; do
        wait "$child"
        code=$?
    done
    child=
    [ -z "$stopped" ] || exit 143
    case $code in
        97) tried="$tried $path (older than 3.7)," ;;
        98) tried="$tried $path (its standard library is incomplete)," ;;
        1 | 2 | 126 | 127) tried="$tried $path (does not start, exit code $code)," ;;
        *) exit "$code" ;;
    esac
}

for candidate in python3 python \
    /opt/conda/bin/python /usr/local/bin/python3 /usr/bin/python3 /opt/venv/bin/python /venv/bin/python \
    /opt/conda/envs/*/bin/python /opt/miniconda3/bin/python /opt/miniforge3/bin/python /opt/mambaforge/bin/python \
    /opt/anaconda3/bin/python /root/miniconda3/bin/python /root/anaconda3/bin/python /usr/local/bin/python \
    /workspace/venv/bin/python /databricks/python3/bin/python \
    /usr/local/bin/python3.[789] /usr/local/bin/python3.[123][0-9] /usr/bin/python3.[789] /usr/bin/python3.[123][0-9] \
    /usr/libexec/platform-python /usr/bin/python; do
    try "$candidate"
done

# ---- no Python: the shell reports what it can see ----
LC_ALL=C # bytes, not characters, in the patterns below; Python never gets to see this
seconds_for_nvidia_smi=20
IFS= read -r marker <"$here/marker" || [ -n "$marker" ] || exit 70

# json TEXT: sets $quoted to TEXT as a JSON string. Bytes beyond ASCII become "?": they might be no UTF-8.
json() {
    rest=$1
    quoted=
    count=0
    while [ -n "$rest" ] && [ "$count" -lt 1900 ]; do
        count=$((count + 1))
        first=${rest%"${rest#?}"}
        rest=${rest#?}
        case $first in
            \" | \\) quoted="$quoted\\$first" ;;
            [\ -~]) quoted=$quoted$first ;;
            '
') quoted="$quoted\\n" ;;
            "	") quoted="$quoted\\t" ;;
            *) quoted="$quoted?" ;;
        esac
    done
    quoted="\"$quoted\""
}

# emit JSON: one event. The first ends a line that a broken Python may have left open.
newline='
'
emit() {
    printf '%s%s %s\n' "$newline" "$marker" "$1"
    newline=
}

fact() { # NAME TEXT
    json "$2"
    emit "{\"event\": \"fact\", \"name\": \"$1\", \"value\": $quoted}"
}

# driver_of TEXT: sets $driver to the version in /proc/driver/nvidia/version (closed or open kernel module).
driver_of() {
    driver=
    set -f
    for word in $1; do
        case $word in
            *[!0-9.]*) ;;
            [0-9]*.[0-9]*)
                driver=$word
                break
                ;;
        esac
    done
    set +f
}

read_os() {
    os=
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            PRETTY_NAME=*)
                os=${line#PRETTY_NAME=}
                os=${os#[\"\']}
                os=${os%[\"\']}
                ;;
        esac
    done 2>/dev/null </etc/os-release
}

ask_nvidia_smi() {
    smi=missing
    for path in "$(command -v nvidia-smi 2>/dev/null)" /usr/bin/nvidia-smi /usr/local/nvidia/bin/nvidia-smi \
        /usr/lib/wsl/lib/nvidia-smi; do
        [ -x "$path" ] || continue
        smi=$(
            "$path" --query-gpu=driver_version --format=csv,noheader,nounits 2>&1 &
            asked=$!
            (
                sleep "$seconds_for_nvidia_smi" && kill -9 "$asked"
            ) >/dev/null 2>&1 &
            watch=$!
            wait "$asked"
            code=$?
            kill "$watch" 2>/dev/null
            [ "$code" -ne 137 ] || printf 'nvidia-smi did not answer within %s s' "$seconds_for_nvidia_smi"
            exit "$code"
        ) && {
            driver_of "$smi"
            [ -z "$driver" ] || smi=ok
        }
        return 0
    done
}

read_runtimes() {
    runtimes=
    for path in /usr/local/cuda*/lib64/libcudart.so.*.*.* /usr/local/cuda*/targets/*/lib/libcudart.so.*.*.* \
        /usr/lib/*/libcudart.so.*.*.* /opt/conda/lib/libcudart.so.*.*.*; do
        [ -f "$path" ] || continue
        json "${path##*libcudart.so.}"
        version=$quoted
        json "$path"
        runtimes="${runtimes:+$runtimes, }{\"path\": $quoted, \"version\": $version}"
    done
}

emit '{"event": "hello", "protocol": 1, "python": null}'
emit '{"event": "plan", "items": [{"id": "python", "kind": "check", "limit_s": 60}]}'
emit '{"event": "start", "id": "python"}'
[ -r /etc/os-release ] && read_os && [ -n "$os" ] && fact os "$os"
driver=
if [ -r /proc/driver/nvidia/version ]; then
    IFS= read -r line </proc/driver/nvidia/version
    driver_of "$line"
fi
kernel_driver=$driver
ask_nvidia_smi
fact nvidia_smi "$smi"
driver=${driver:-$kernel_driver}
[ -z "$driver" ] || fact driver "$driver"
read_runtimes
[ -z "$runtimes" ] || emit "{\"event\": \"fact\", \"name\": \"cuda_runtimes\", \"value\": [$runtimes]}"
evidence="no Python >= 3.7 in PATH ($PATH) or in the usual places"
[ -z "$tried" ] || evidence="$evidence; tried:${tried%,}"
json "$evidence"
emit "{\"event\": \"end\", \"id\": \"python\", \"status\": \"fail\", \"summary\": \"this image has no Python that can run the payload\", \"cause\": \"python-missing\", \"evidence\": $quoted}"
emit '{"event": "done", "seconds": 0}'
