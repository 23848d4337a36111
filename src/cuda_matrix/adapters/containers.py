"""Owns whose a container is: its name, its labels, the archive copied into it, and what is left of killed runs.

Must not know how a container is run (docker_engine).
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker.errors import APIError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LABEL_RUN = "cuda-matrix.run"
LABEL_CELL = "cuda-matrix.cell"
LABEL_OWNER = "cuda-matrix.owner"
LABEL_EXPIRES = "cuda-matrix.expires"
LEASE_MARGIN_S = 3600.0  # a container this much older than its limit belongs to nobody, whoever started it


@dataclass(frozen=True)
class Ownership:
    """Marks containers as this run's. `owner` is `process_owner()`; `now` gives Unix time in seconds."""

    run_id: str
    owner: str
    now: Callable[[], float]

    def container_name(self, cell: str) -> str:
        """A name that only this run uses, readable in `docker ps`."""
        return f"cuda-matrix-{self.run_id}-{re.sub(r'[^A-Za-z0-9_.-]', '-', cell)}"

    def labels(self, cell: str, limit_s: float) -> dict[str, str]:
        """Labels of one container: enough for any later run to tell whether it is still wanted."""
        return {
            LABEL_RUN: self.run_id,
            LABEL_CELL: cell,
            LABEL_OWNER: self.owner,
            LABEL_EXPIRES: str(int(self.now() + limit_s + LEASE_MARGIN_S)),
        }


def process_owner(pid: int, proc: Path = Path("/proc")) -> str:
    """`boot id/pid namespace:pid:start time` of a process: a later process with the same pid is another owner."""
    return f"{_pid_space(proc)}:{pid}:{_start_time(pid, proc)}"


def _pid_space(proc: Path) -> str:
    """Where a pid means anything: this boot of this machine, and this pid namespace of it."""
    with contextlib.suppress(OSError):
        namespace = re.sub(r"\D", "", str((proc / "self/ns/pid").readlink()))
        return f"{_read(proc / 'sys/kernel/random/boot_id')}/{namespace}"
    return ""


def _start_time(pid: int, proc: Path) -> str:
    # Field 22 of /proc/PID/stat; the command name before it may hold spaces and brackets (man 5 proc_pid_stat).
    return (_read(proc / str(pid) / "stat").rpartition(")")[2].split() + [""] * 20)[19]


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def is_abandoned(labels: Mapping[str, str], ownership: Ownership, proc: Path = Path("/proc")) -> bool:
    """True where the process that started a container is gone, or its lease is over.

    A pid can be judged only where it was given; a runner in another container or on another machine must wait
    for the end of the lease.
    """
    expires = labels.get(LABEL_EXPIRES, "")
    if expires.isdigit() and int(expires) < ownership.now():
        return True
    space, _, rest = labels.get(LABEL_OWNER, "").partition(":")
    pid, _, start_time = rest.partition(":")
    if not space or space != ownership.owner.partition(":")[0] or not pid.isdigit():
        return False
    return _start_time(int(pid), proc) != start_time


def remove_abandoned(client: Any, ownership: Ownership) -> int:
    """Remove the containers that killed runs left on this daemon; never those of a run that still lives."""
    removed = 0
    for container in client.containers(all=True, filters={"label": LABEL_RUN}):
        if is_abandoned(container.get("Labels") or {}, ownership):
            with contextlib.suppress(APIError):  # another run may be faster
                client.remove_container(container["Id"], force=True, v=True)
                removed += 1
    return removed


def payload_archive(files: Mapping[str, bytes], directory: str) -> bytes:
    """A tar of `directory` with these files: readable by any user of the image, the same bytes every time."""
    buffer = io.BytesIO()
    root = directory.strip("/")
    folders = sorted({root, *(f"{root}/{Path(name).parent}" for name in files if "/" in name)})
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{root}/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
