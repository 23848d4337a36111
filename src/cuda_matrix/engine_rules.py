"""Owns what follows from container toolkit and engine of a host as they were seen: what is wrong, what to do.

Must not look at anything itself (adapters/engine_probe). Rules:
https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/ and https://docs.docker.com/engine/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cuda_matrix.examination import EngineSeen, HostSeen, HostStep, ProgramAnswer
from cuda_matrix.facts import version_key

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPICAL_IMAGE_BYTES = 20 * 10**9  # a PyTorch image, packed and unpacked
UNPACKED_FACTOR = 3.0  # layers as pulled + what they unpack to, which is about twice that
FULL_BYTES = 2 * 10**9
_DEFAULT_SHM = "64 MiB"
# cgroup v2 needs libnvidia-container 1.8: https://github.com/NVIDIA/libnvidia-container/releases/tag/v1.8.0
_CGROUP_V2_TOOLKIT = (1, 8)
_VERSION = re.compile(r"\b(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?(?:[-~+][\w.~-]{1,20})?)")
_INSTALL = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


def judge_engine(seen: EngineSeen, host: HostSeen, need_bytes: int | None) -> tuple[HostStep, ...]:
    """Every step. `need_bytes`: what the image in question takes on the disk; None where no image is in question."""
    return (
        _docker(seen),
        _daemon(seen),
        _disk(seen, need_bytes),
        _toolkit(seen, host),
        _runtime(seen, host),
        _cdi(seen, host),
        _cgroup(seen, host),
        _shm(seen),
    )


def version_of(answer: ProgramAnswer | None) -> str:
    """The first version in what a program says of itself; empty where it says none."""
    match = _VERSION.search(answer.out[:2_000]) if answer is not None and answer.good else None
    return match[1] if match else ""


def _docker(seen: EngineSeen) -> HostStep:
    step = HostStep(id="docker", title="Docker's program", status="ok")
    if seen.program is None:
        why = "there is no docker on this machine's PATH"
        if seen.socket:
            why += "; /var/run/docker.sock is there"
        return step.model_copy(update={"status": "not-seen", "why": why})
    said = f"{seen.version.out.strip().splitlines()[0][:100]}" if seen.version.good and seen.version.out.strip() else ""
    text = f"{seen.program}{f': {said}' if said else ''}"
    if "podman" in said.lower() or "podman" in seen.program:
        do = "cuda-matrix speaks to a Docker daemon: install Docker Engine, or point DOCKER_HOST at one."
        return step.model_copy(update={"status": "warn", "seen": f"{text}: Podman under Docker's name", "do": do})
    if seen.program.startswith(("/snap/", "/var/lib/snapd/")) or seen.program.endswith("/snap"):
        do = "Docker's snap cannot use the NVIDIA Container Toolkit as installed by apt: take Docker's own packages."
        return step.model_copy(update={"status": "warn", "seen": f"{text}: a snap", "do": do})
    return step.model_copy(update={"seen": text})


def _daemon(seen: EngineSeen) -> HostStep:
    step = HostStep(id="daemon", title="Docker's daemon, and this account's way to it", status="ok", node="engine")
    info = seen.info
    if info is not None:
        rootless = any("rootless" in str(each) for each in info.get("SecurityOptions") or ())
        parts = [f"Docker Engine {info.get('ServerVersion')}", str(info.get("OperatingSystem") or "")]
        parts += ["rootless"] if rootless else []
        text = ", ".join(filter(None, parts))
        if rootless:
            do = "Rootless: set `no-cgroups = true` in ~/.config/nvidia-container-runtime/config.toml, or use CDI."
            return step.model_copy(update={"status": "warn", "seen": text, "do": do})
        return step.model_copy(update={"seen": text})
    if seen.program is None:
        do = "Install Docker Engine: https://docs.docker.com/engine/install/"
        return step.model_copy(update={"status": "not-seen", "why": "there is no docker to ask it with", "do": do})
    trouble = seen.answer.trouble or "`docker info` gives no data"
    wrong = step.model_copy(update={"status": "problem", "seen": trouble})
    if "permission denied" in trouble.lower():
        return wrong.model_copy(update={"do": _let_in(seen), "cause": "docker-sock-permission"})
    if seen.answer.why:
        return wrong.model_copy(update={"do": "The daemon hangs: `journalctl -u docker`, then restart it."})
    do = "Start it (`sudo systemctl start docker`), or set DOCKER_HOST to a daemon that runs."
    return wrong.model_copy(update={"do": do, "cause": "docker-daemon-down"})


def _let_in(seen: EngineSeen) -> str:
    if seen.account.in_group_file and not seen.account.in_session:
        return (
            "This account is in the group `docker`, and this session began before: log out and in (or `newgrp docker`)."
        )
    return "Join the group (`sudo usermod -aG docker $USER`) and log in again; its members are as good as root."


def _disk(seen: EngineSeen, need_bytes: int | None) -> HostStep:
    step = HostStep(id="disk", title="Room on the daemon's disk", status="ok", node="room")
    if seen.free_bytes is None:
        return step.model_copy(update={"status": "not-seen", "why": seen.free_why})
    need = need_bytes or TYPICAL_IMAGE_BYTES
    what = "this image" if need_bytes else "a typical PyTorch image"
    text = f"{seen.free_bytes / 1e9:.1f} GB free; {what} takes about {need / 1e9:.0f} GB"
    if seen.free_bytes >= need:
        return step.model_copy(update={"seen": text})
    do = "`docker image prune` and `docker builder prune` make room; `docker system df` says where it went."
    sure = need_bytes is not None or seen.free_bytes < FULL_BYTES
    status = "problem" if sure else "warn"
    return step.model_copy(update={"status": status, "seen": text, "do": do, "cause": "disk-full" if sure else None})


def _toolkit(seen: EngineSeen, host: HostSeen) -> HostStep:
    step = HostStep(id="toolkit", title="NVIDIA Container Toolkit", status="ok", node="toolkit")
    if seen.elsewhere:
        return step.model_copy(update={"status": "not-seen", "why": seen.elsewhere})
    tools = {name: answer for name, answer in seen.tools.items() if answer.path}
    if not tools:
        if host.no_card:
            return step.model_copy(update={"status": "not-seen", "why": "none is installed, and there is no card"})
        do = f"Install it: {_INSTALL}"
        text = "none of its programs is on this account's PATH"
        return step.model_copy(update={"status": "problem", "seen": text, "do": do, "cause": "toolkit-missing"})
    failing = [answer.trouble for answer in tools.values() if not answer.good]
    said = ", ".join(f"{name} {version_of(answer)}".strip() for name, answer in tools.items())
    version = version_of(tools.get("nvidia-container-cli")) or version_of(tools.get("nvidia-ctk"))
    two = str((seen.info or {}).get("CgroupVersion")) == "2"
    if two and version and version_key(version)[:2] < _CGROUP_V2_TOOLKIT:
        text = f"{said}: older than 1.8.0, the first that knows cgroup v2, which this host has"
        do = f"Upgrade it: {_INSTALL}"
        return step.model_copy(update={"status": "problem", "seen": text, "do": do, "cause": "cgroup-v2-toolkit"})
    if failing:
        do = "Install it anew; a program of it that does not start will not start a container either."
        return step.model_copy(update={"status": "warn", "seen": f"{said}; {'; '.join(failing)}", "do": do})
    return step.model_copy(update={"seen": said})


def _runtime(seen: EngineSeen, host: HostSeen) -> HostStep:
    """`--gpus` needs the hook on the daemon's PATH; the runtime `nvidia` is for `--runtime` and as the default."""
    step = HostStep(id="runtime", title="Docker's NVIDIA runtime", status="ok", node="toolkit")
    configured = "nvidia" in str((seen.daemon_json or {}).get("runtimes"))
    if seen.info is None:
        text = "the daemon did not answer" + ("; daemon.json names a runtime nvidia" if configured else "")
        return step.model_copy(
            update={"status": "not-seen", "why": "; ".join(filter(None, [text, seen.daemon_json_why]))}
        )
    names = sorted(map(str, seen.info.get("Runtimes") or ()))
    default = seen.info.get("DefaultRuntime") or "runc"
    text = f"runtimes {', '.join(names)}; default {default}"
    if "nvidia" in names or host.no_card:
        return step.model_copy(update={"seen": text})
    if seen.elsewhere:
        why = f"{text}; whether it has the hook that `--gpus` needs was not seen: {seen.elsewhere}"
        return step.model_copy(update={"status": "not-seen", "why": why})
    do = "`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`"
    if configured:
        text += "; daemon.json names nvidia, and the daemon was not restarted since"
        do = "`sudo systemctl restart docker`"
    hook = seen.tools.get("nvidia-container-runtime-hook")
    if hook is not None and hook.path:
        text += "; `--gpus` works without it, by the hook"
        return step.model_copy(update={"status": "warn", "seen": text, "do": do})
    return step.model_copy(update={"status": "problem", "seen": text, "do": do, "cause": "toolkit-not-registered"})


def _cdi(seen: EngineSeen, host: HostSeen) -> HostStep:
    step = HostStep(id="cdi", title="CDI specifications", status="ok")
    if seen.cdi is None or seen.elsewhere:
        why = seen.elsewhere or "the folders were not read"
        return step.model_copy(update={"status": "not-seen", "why": why})
    refused = [spec.path for spec in seen.cdi if spec.refused]
    if refused:
        why = f"this account may not read {', '.join(refused)}"
        return step.model_copy(update={"status": "not-seen", "why": why})
    if not seen.cdi:
        return step.model_copy(update={"seen": "none of NVIDIA's; `--gpus` works without them"})
    stale = [spec for spec in seen.cdi if host.loaded and spec.versions and host.loaded not in spec.versions]
    said = "; ".join(f"{spec.path} ({', '.join(spec.versions) or 'no version'})" for spec in seen.cdi)
    if stale:
        do = f"`sudo nvidia-ctk cdi generate --output={stale[0].path}`"
        text = f"{said}: not of the driver {host.loaded} that runs"
        return step.model_copy(update={"status": "warn", "seen": text, "do": do, "cause": "cdi-unresolved"})
    return step.model_copy(update={"seen": said})


def _cgroup(seen: EngineSeen, host: HostSeen) -> HostStep:
    """What systemd does not know of, a reload takes away: NVIDIA/nvidia-container-toolkit issue 48."""
    step = HostStep(id="cgroup", title="cgroup driver", status="ok")
    if seen.info is None:
        return step.model_copy(update={"status": "not-seen", "why": "the daemon did not answer"})
    driver, version = seen.info.get("CgroupDriver"), seen.info.get("CgroupVersion")
    text = f"{driver}, cgroup v{version}"
    if driver == "systemd" and not host.no_card and not seen.elsewhere and seen.char_links is False:
        text += "; /dev/char has no link to NVIDIA's devices"
        do = "`systemctl daemon-reload` may take the cards from running containers: `sudo nvidia-ctk system "
        do += "create-dev-char-symlinks --create-all`, or `native.cgroupdriver=cgroupfs`."
        return step.model_copy(update={"status": "warn", "seen": text, "do": do, "cause": "cgroup-device-lost"})
    return step.model_copy(update={"seen": text})


def _shm(seen: EngineSeen) -> HostStep:
    step = HostStep(id="shm", title="Shared memory of a container", status="ok")
    if seen.info is None or seen.elsewhere:
        return step.model_copy(update={"status": "not-seen", "why": seen.elsewhere or "the daemon did not answer"})
    if seen.daemon_json is None:
        return step.model_copy(update={"status": "not-seen", "why": seen.daemon_json_why})
    size = _text(seen.daemon_json, "default-shm-size") or _DEFAULT_SHM
    here = f"; /dev/shm of this host has {seen.shm_bytes / 1e9:.1f} GB" if seen.shm_bytes is not None else ""
    return step.model_copy(
        update={
            "seen": f"{size} unless `--shm-size` says more (cuda-matrix gives 8g; DataLoader workers need it){here}"
        }
    )


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return str(value)[:40] if value else ""
