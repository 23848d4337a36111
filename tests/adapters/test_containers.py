"""Whose a container is, and what is copied into it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from cuda_matrix.adapters.containers import Ownership, is_abandoned, payload_archive, process_owner


def ownership(now: float = 1000.0, owner: str | None = None) -> Ownership:
    return Ownership(run_id="run-1", owner=owner or process_owner(os.getpid()), now=lambda: now)


def fake_proc(folder: Path, pid: int, start_time: int) -> Path:
    (folder / "sys/kernel/random").mkdir(parents=True)
    (folder / "sys/kernel/random/boot_id").write_text("boot-a\n")
    (folder / "self/ns").mkdir(parents=True)
    (folder / "self/ns/pid").symlink_to("pid:[4026]")
    (folder / str(pid)).mkdir()
    # The command name is chosen by the process: it may hold spaces and brackets.
    fields = ["S", *["0"] * 18, str(start_time), "0"]
    (folder / str(pid) / "stat").write_text(f"{pid} (evil) name (x)) {' '.join(fields)}\n")
    return folder


def test_owner_names_boot_pid_and_start_time(tmp_path: Path) -> None:
    assert process_owner(42, fake_proc(tmp_path, 42, 777)) == "boot-a/4026:42:777"


@pytest.mark.parametrize(
    ("labels_owner", "expires", "abandoned"),
    [
        ("boot-a/4026:42:777", "9999", False),  # alive
        ("boot-a/4026:42:778", "9999", True),  # the pid was given to another process
        ("boot-a/4026:43:777", "9999", True),  # no such process
        ("boot-b/4026:43:777", "9999", False),  # another boot or machine: only the lease can tell
        ("boot-b/4026:43:777", "999", True),  # … and it is over
        ("boot-a/4027:43:777", "9999", False),  # another container of the same machine
        ("", "9999", False),
        ("boot-a/4026:not-a-pid:1", "9999", False),
    ],
)
def test_abandoned(tmp_path: Path, labels_owner: str, expires: str, abandoned: bool) -> None:
    proc = fake_proc(tmp_path, 42, 777)
    labels = {"cuda-matrix.owner": labels_owner, "cuda-matrix.expires": expires}
    assert is_abandoned(labels, ownership(owner="boot-a/4026:1:1"), proc) is abandoned


def test_own_container_is_never_abandoned() -> None:
    mine = ownership()
    assert not is_abandoned(mine.labels("a@b", limit_s=60), mine)


def test_lease_outlives_the_cell() -> None:
    assert int(ownership(now=1000).labels("a@b", limit_s=60)["cuda-matrix.expires"]) > 1060


def test_name_holds_only_what_docker_allows() -> None:
    assert ownership().container_name("torch2.2+cu118@rtx3090") == "cuda-matrix-run-1-torch2.2-cu118-rtx3090"


def test_archive_is_readable_by_any_user_and_reproducible() -> None:
    files = {"start.sh": b"echo", "cuda_matrix_payload/worker.py": b"pass"}
    data = payload_archive(files, "/cuda-matrix")
    assert data == payload_archive(dict(reversed(files.items())), "/cuda-matrix")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name: member for member in archive}
    assert set(members) == {
        "cuda-matrix",
        "cuda-matrix/start.sh",
        "cuda-matrix/cuda_matrix_payload",
        "cuda-matrix/cuda_matrix_payload/worker.py",
    }
    assert all(member.mode & 0o444 == 0o444 for member in members.values())
    assert all(member.mode & 0o111 == 0o111 for member in members.values() if member.isdir())
