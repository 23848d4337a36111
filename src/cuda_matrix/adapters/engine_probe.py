"""Owns looking at container toolkit and engine of this machine: programs, `docker info`, files under /etc, disk.

Needs no root and no daemon. Must not know what a finding means (engine_rules).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuda_matrix.adapters.host_probe import read
from cuda_matrix.examination import Account, CdiSpec, ProgramAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cuda_matrix.adapters.programs import Programs

TOOLS = ("nvidia-ctk", "nvidia-container-cli", "nvidia-container-runtime-hook", "nvidia-container-runtime")
_WITHOUT_VERSION = frozenset({"nvidia-container-runtime-hook", "nvidia-container-runtime"})  # they wait for a container
DATA_ROOT = "/var/lib/docker"
CONTAINERD_ROOT = "/var/lib/containerd"  # where images lie when containerd keeps them
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
_SPECS = 32
_SPEC_BYTES = 4 << 20
_DRIVER_FILE = re.compile(r"\.so\.(\d{3,4}\.\d{1,4}(?:\.\d{1,4})?)\b")


def probes(root: Path, programs: Programs) -> dict[str, Callable[[], dict[str, object]]]:
    """The looks, each independent of the others: name → a call that gives fields of EngineSeen."""
    return {
        "container toolkit": lambda: {"tools": {name: _tool(name, programs) for name in TOOLS}},
        "Docker": lambda: _docker(root, programs),
        "account": lambda: _account(root),
        "configuration": lambda: _daemon_json(root),
        "shared memory": lambda: {"shm_bytes": _space(root / "dev/shm")[1], "char_links": _char_links(root)},
    }


def unseen() -> dict[str, Callable[[str], dict[str, object]]]:
    """What stands in the place of a look that did not come back: name → why → fields."""
    return {
        "container toolkit": lambda why: {"tools": {TOOLS[0]: ProgramAnswer(name=TOOLS[0], path=TOOLS[0], why=why)}},
        "Docker": lambda why: {
            "program": "docker",
            "answer": ProgramAnswer(name="docker", path="docker", why=why),
            "free_why": why,
        },
        "configuration": lambda why: {"daemon_json_why": why},
    }


def _tool(name: str, programs: Programs) -> ProgramAnswer:
    """A program that speaks no version is only looked for."""
    if name not in _WITHOUT_VERSION:
        return programs.ask(name, "--version")
    return ProgramAnswer(name=name, path=shutil.which(name, path=programs.search_path), code=0)


def _docker(root: Path, programs: Programs) -> dict[str, object]:
    """Program, daemon, and what depends on what the daemon says: its disk and its CDI folders."""
    path = shutil.which("docker", path=programs.search_path)
    version = programs.ask("docker", "--version")
    answer = programs.ask("docker", "info", "--format", "{{json .}}")
    info = None if answer.why else _object(answer.out)
    if info is not None and (info.get("ServerErrors") or not info.get("ServerVersion")):
        # The client describes itself even where no daemon answers.
        said = "; ".join(map(str, info.get("ServerErrors") or [answer.err.strip() or "no server in its answer"]))
        answer, info = answer.model_copy(update={"code": 1, "err": said}), None
    folders = [str(each) for each in (info or {}).get("CDISpecDirs") or CDI_FOLDERS]
    elsewhere = _elsewhere(info or {})
    free, why = (None, elsewhere) if elsewhere else _free(root, info or {})
    return {
        "program": os.path.realpath(path) if path else None,
        "version": version,
        "answer": answer,
        "info": info,
        "elsewhere": elsewhere,
        "cdi": _cdi(root, folders),
        "free_bytes": free,
        "free_why": why,
    }


def _object(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _account(root: Path) -> dict[str, object]:
    text = read(root / "etc/group") or ""
    row = next((line.split(":") for line in text.splitlines() if line.startswith("docker:")), [])
    names = row[3].split(",") if len(row) > 3 else []
    number = int(row[2]) if len(row) > 2 and row[2].isdigit() else None
    here = Account(
        in_group_file=_user() in names,
        in_session=number is not None and number in {*os.getgroups(), os.getgid()},
    )
    return {"account": here, "socket": (root / "var/run/docker.sock").exists()}


def _user() -> str:
    import pwd  # noqa: PLC0415 - beside its only use

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account that no file names, as in many containers
        return ""


def _daemon_json(root: Path) -> dict[str, object]:
    path = root / "etc/docker/daemon.json"
    if not path.exists():
        return {"daemon_json": {}}
    text = read(path)
    if text is None:
        return {"daemon_json_why": "/etc/docker/daemon.json cannot be read by this account"}
    document = _object(text)
    return {"daemon_json": document} if document is not None else {"daemon_json_why": "it is no JSON object"}


def _cdi(root: Path, folders: list[str]) -> tuple[CdiSpec, ...]:
    found = []
    for folder in folders:
        place = root / folder.lstrip("/")
        names = sorted(place.glob("*.yaml")) + sorted(place.glob("*.json")) if place.is_dir() else []
        for path in names[:_SPECS]:
            name = f"{folder.rstrip('/')}/{path.name}"
            try:
                with path.open("rb") as file:
                    text = file.read(_SPEC_BYTES).decode("utf-8", "replace")
            except OSError:
                found.append(CdiSpec(path=name, versions=(), refused=True))
                continue
            if "nvidia" in text:
                versions = tuple(sorted(set(_DRIVER_FILE.findall(text))))
                found.append(CdiSpec(path=name, versions=versions))
    return tuple(found)


def _char_links(root: Path) -> bool | None:
    """Whether /dev/char has links for NVIDIA's devices (major 195): what keeps them after `systemctl daemon-reload`."""
    try:
        return any(place.name.startswith("195:") for place in (root / "dev/char").iterdir())
    except OSError:
        return None


def _elsewhere(info: dict[str, Any]) -> str:
    """Why the programs, files and disks of this machine are not the daemon's; empty where they are."""
    if info.get("OperatingSystem") == "Docker Desktop":
        return "the daemon runs inside Docker Desktop's virtual machine"
    if info.get("Name") not in (None, "", os.uname().nodename):
        return "the daemon runs on another machine, or this process in a container"
    return ""


def _free(root: Path, info: dict[str, Any]) -> tuple[int | None, str]:
    place = str(info.get("DockerRootDir") or DATA_ROOT)
    free, _ = _space(root / place.lstrip("/"))
    if free is None:
        return None, f"{place} is not on this machine"
    # https://docs.docker.com/engine/storage/containerd/: images then lie outside the daemon's own folder.
    theirs = _space(root / CONTAINERD_ROOT.lstrip("/"))[0] if "io.containerd.snapshotter" in str(info) else None
    return min(free, theirs if theirs is not None else free), ""


def _space(path: Path) -> tuple[int | None, int | None]:
    """(free for this account, size) in bytes. A folder that may not be entered still tells the space of its disk."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None, None
    return found.f_frsize * found.f_bavail, found.f_frsize * found.f_blocks
