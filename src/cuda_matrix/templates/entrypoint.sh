#!/bin/sh
# Says at container start whether the GPU can be used, and if not, why; then becomes the command.
# Made by `cuda-matrix init --entrypoint` (cuda-matrix @VERSION@). In a Dockerfile:
#
#   COPY --chmod=755 entrypoint.sh /usr/local/bin/gpu-entrypoint
#   ENTRYPOINT ["/usr/local/bin/gpu-entrypoint"]
#   CMD ["bash"]            # ENTRYPOINT drops the CMD of the base image: say it again
#
# A base image with an entrypoint of its own: ENTRYPOINT ["/usr/local/bin/gpu-entrypoint", "/its/own/entrypoint.sh"].
# It speaks on stderr only; CUDA_MATRIX_SELF_CHECK=off keeps it silent. It never stops a start: it starts no program,
# and looks in a subshell, so that nothing of it is left in the command's environment.

# CUDA and the oldest driver that runs it, newest first: https://docs.nvidia.com/deploy/cuda-compatibility/
# From CUDA 11 on, every toolkit of a major runs on the major's oldest driver; before, each needs its own.
set_floors() {
    floors='@FLOORS@'
}

problem() { # what is wrong, what to do
    problems="$problems
gpu-check: $1
gpu-check:   tip: $2"
}

older() { # version, version: whether the first is the older one
    left=$1 right=$2
    while [ -n "$right" ]; do
        [ "${left%%.*}" -ge "${right%%.*}" ] 2>/dev/null || return 0
        [ "${left%%.*}" -eq "${right%%.*}" ] || return 1
        case $left in *.*) left=${left#*.} ;; *) left=0 ;; esac
        case $right in *.*) right=${right#*.} ;; *) right= ;; esac
    done
    return 1
}

# Only a version is a version: what else stands in its place is not shown.
only_version() {
    case $1 in *[!0-9A-Za-z.+_-]*) version= ;; *) version=$1 ;; esac
}

value_of() { # line of version.py: sets $version to what stands behind "=", without quotes
    version=${1#*=}
    version=${version# }
    version=${version#[\'\"]}
    only_version "${version%%[\'\" ]*}"
}

read_torch() { # site-packages…: the first of them that holds torch; sets $torch and $cuda ("None": no CUDA build)
    for folder do
        [ -r "$folder/torch/version.py" ] || continue
        lines=0
        while [ "$lines" -lt 50 ] && { IFS= read -r line || [ -n "$line" ]; }; do
            lines=$((lines + 1))
            case $line in
                __version__*=*) value_of "$line" && torch=$version ;;
                cuda:*=* | cuda\ =* | cuda=*) value_of "$line" && cuda=$version ;;
            esac
        done <"$folder/torch/version.py"
        [ -n "$torch" ] && return 0
    done
    return 1
}

find_torch() { # where Python itself would look first, then the usual places
    set -f
    IFS=:
    # shellcheck disable=SC2086 # split at colons
    set -- ${PYTHONPATH-}
    read_torch "$@" && return 0
    # shellcheck disable=SC2086
    set -- ${PATH-}
    unset IFS
    set +f
    for bin do
        [ -x "$bin/python3" ] || [ -x "$bin/python" ] || continue
        prefix=${bin%/*}
        read_torch "$prefix"/local/lib*/python3*/*-packages "$prefix"/lib*/python3*/*-packages && return 0
    done
    for prefix in "${VIRTUAL_ENV:-/opt/conda}" "${CONDA_PREFIX:-/opt/conda}" /opt/conda/envs/* /opt/* \
        /usr/local /usr "${HOME:-/root}/.local"; do
        read_torch "$prefix"/lib*/python3*/*-packages && return 0
    done
    return 1
}

find_driver() { # the kernel module says its version; where it does not (WSL 2), it stays unknown
    line=
    [ ! -r /proc/driver/nvidia/version ] || IFS= read -r line </proc/driver/nvidia/version
    set -f
    for word in $line; do
        case $word in
            *[!0-9.]*) ;;
            [1-9]*.[0-9]*) driver=$word && break ;;
        esac
    done
    set +f
}

find_libcuda() { # as the loader searches: LD_LIBRARY_PATH first; sets $libcuda
    set -f
    IFS=:
    # shellcheck disable=SC2086 # split at colons
    set -- ${LD_LIBRARY_PATH-}
    unset IFS
    set +f
    for folder in "$@" /usr/lib/*-linux-gnu /usr/lib/*-linux-gnu/tegra /usr/lib/*-linux-gnu/nvidia /usr/lib64 /lib64 \
        /usr/lib /lib /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/wsl/lib; do
        [ ! -e "$folder/libcuda.so.1" ] || {
            libcuda=$folder/libcuda.so.1
            return 0
        }
    done
}

count_cards() { # sets $cards. /dev/dxg is WSL 2, /dev/nvmap a Jetson: one card each
    for path in /dev/nvidia[0-9]* /dev/dxg /dev/nvmap; do
        [ ! -e "$path" ] || cards=$((cards + 1))
    done
}

find_compat() { # sets $compat where the image brings a forward-compatibility driver
    for path in /usr/local/cuda*/compat/libcuda.so.1 /usr/local/cuda*/compat/lib*/libcuda.so.1; do
        [ ! -e "$path" ] || compat=$path
    done
}

find_floor() { # sets $floor for $cuda, and $runnable to the newest CUDA for which $driver is new enough
    for pair in $floors; do
        key=${pair%%=*}
        case $cuda in "$key" | "$key".*) floor=${pair#*=} ;; esac
        [ -n "$driver" ] && [ -z "$runnable" ] && ! older "$driver" "${pair#*=}" && runnable=$key
    done
    case $runnable in '' | *.*) ;; *) runnable=$runnable.x ;; esac
}

look_for_card() {
    smi=
    if command -v nvidia-smi >/dev/null 2>&1 || [ -x /usr/lib/wsl/lib/nvidia-smi ]; then smi=1; fi
    if [ "$cards" = 0 ]; then
        missing=/dev/nvidia0
        [ -n "$smi" ] || missing="nvidia-smi and /dev/nvidia0"
        problem "no GPU in this container: $missing missing" \
            "docker run --gpus all ...; where Docker refuses that, the host needs its NVIDIA driver and the NVIDIA Container Toolkit. No GPU wanted? CUDA_MATRIX_SELF_CHECK=off"
        return 1
    fi
    [ -n "$smi" ] || problem "nvidia-smi is missing, although there is a GPU" \
        "it comes from the host: NVIDIA_DRIVER_CAPABILITIES=compute,utility and the NVIDIA Container Toolkit"
    case ${CUDA_VISIBLE_DEVICES-all} in
        '' | -1 | NoDevFiles) problem "CUDA_VISIBLE_DEVICES=\"$CUDA_VISIBLE_DEVICES\" hides every GPU" "unset it, or name a GPU: 0" ;;
    esac
}

look_for_libcuda() { # 1 where the driver in use is not the host's
    case $libcuda in
        '')
            problem "libcuda.so.1 is in none of the usual places" \
                "it comes from the host: NVIDIA_DRIVER_CAPABILITIES=compute,utility, and --gpus all through the NVIDIA Container Toolkit"
            ;;
        */stubs/*)
            problem "LD_LIBRARY_PATH puts a stub before the driver: $libcuda" \
                "take the stubs folder out of LD_LIBRARY_PATH: it is for linking only"
            return 1
            ;;
        */compat/*)
            problem "a forward-compatibility driver is used in place of the host's: $libcuda" \
                "it works on data-centre cards only (elsewhere: error 803 or 804): take the compat folder out of LD_LIBRARY_PATH"
            return 1
            ;;
    esac
}

look_at_versions() {
    if [ "$cuda" = None ]; then
        problem "torch $torch is no CUDA build: it will not use the GPU" \
            "install one: pip install torch --index-url https://download.pytorch.org/whl/cu126"
    elif [ -n "$cuda" ] && [ -n "$driver" ] && [ -n "$floor" ] && older "$driver" "$floor"; then
        wrong="the GPU cannot be used: CUDA $cuda needs driver $floor or newer, the host has $driver"
        # The NVIDIA Container Toolkit may have put the image's own driver in its place.
        [ -z "$compat" ] || wrong="CUDA $cuda needs driver $floor or newer, the host has $driver: only data-centre cards can go on with the image's own $compat"
        problem "$wrong" "update the host's driver${runnable:+, or take an image built for CUDA $runnable}"
    fi
}

self_check() {
    set +efu
    unset IFS
    torch='' cuda='' driver='' libcuda='' compat='' floor='' runnable='' problems='' cards=0
    set_floors
    find_torch
    find_driver
    find_libcuda
    find_compat
    count_cards
    if [ -n "$torch" ]; then
        case $cuda in None) build=", no CUDA build" ;; '') build=", its CUDA unknown" ;; *) build=", CUDA $cuda" ;; esac
        found="torch $torch$build"
    else
        only_version "${PYTORCH_VERSION-}"
        found="torch ${version:-not found}"
        only_version "${CUDA_VERSION-}"
        cuda=$version
        found="$found, CUDA ${cuda:-unknown}"
    fi
    find_floor
    # One thing at a time where the second follows from the first.
    look_for_card && look_for_libcuda && look_at_versions
    case $cards in 1) cards="1 GPU" ;; *) cards="$cards GPUs" ;; esac
    [ -n "$problems" ] || cards="$cards: nothing in the way"
    printf '%s\n' "gpu-check: $found; host driver ${driver:-unknown}; $cards$problems" >&2
}

[ "${CUDA_MATRIX_SELF_CHECK-}" = off ] || (self_check) || :

case ${1-} in
    '')
        [ "$#" = 0 ] || {
            echo "${0##*/}: the command is empty" >&2
            exit 127
        }
        # As base images do: a shell. (An image that sets ENTRYPOINT loses the CMD of its base image.)
        if [ -x /bin/bash ]; then set -- /bin/bash; else set -- /bin/sh; fi
        [ "${CUDA_MATRIX_SELF_CHECK-}" = off ] || echo "gpu-check: no command given, starting $1" >&2 || :
        ;;
    -*)
        echo "${0##*/}: $1 is an option, not a command" >&2
        exit 127
        ;;
esac
exec "$@"
