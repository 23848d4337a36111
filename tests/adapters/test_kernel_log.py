"""Reading this machine's kernel log: stand-ins for /dev/kmsg, and commands that behave well and badly."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cuda_matrix.adapters.kernel_log import HostKernelLog, Places
from cuda_matrix.xids import HostLog

UUID = "GPU-9de4332b-3b09-a3b4-5589-30229f0c14fe"
XID = "NVRM: Xid (PCI:0000:65:00): {}, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def record(text: str, priority: int = 3, sequence: int = 1234) -> str:
    """As the kernel writes it: with a dictionary behind it, as device messages have."""
    return f"{priority},{sequence},5678901234,-;{text}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:65:00.0\n"


class Machine:
    """A machine with a driver, one card, `/dev/kmsg` as a file, and commands that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.device, self.driver, self.bin = folder / "kmsg", folder / "nvidia", folder / "bin"
        self.bin.mkdir()
        self.card(f"Model: \t\t NVIDIA RTX A6000\nGPU UUID: \t {UUID}\nBus Location: \t 0000:65:00.0\n")
        self.daemon: Callable[[str | None], str | None] = lambda _host: None
        self.limit_s = 5.0

    def card(self, information: str, address: str = "0000:65:00.0") -> None:
        folder = self.driver / "gpus" / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "information").write_text(information)

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def log(self) -> HostKernelLog:
        places = Places(str(self.bin), str(self.device), str(self.driver), self.limit_s)
        return HostKernelLog(places, self.daemon)

    def read(self, during: Callable[[], object] = lambda: None) -> HostLog:
        with self.log().watch(None) as said_since:
            during()
            return said_since()

    def write(self, text: str) -> None:
        with self.device.open("a") as stream:
            stream.write(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_only_what_came_since_and_only_xids(machine: Machine) -> None:
    machine.write(record(XID.format(79)))
    said = machine.read(lambda: machine.write(record("usb 1-1: new device") + record(XID.format(48)) + record("x")))
    assert said == HostLog((XID.format(48),), "", {(0, 0x65, 0): UUID})


def test_a_second_reading_begins_where_the_first_ended(machine: Machine) -> None:
    machine.write("")
    with machine.log().watch(None) as said_since:
        machine.write(record(XID.format(13)))
        assert len(said_since().texts) == 1
        machine.write(record(XID.format(31)))
        assert said_since().texts == (XID.format(31),)


@pytest.mark.parametrize(
    "forged",
    [
        record(XID.format(79), priority=12),  # facility user: what a program writes into /dev/kmsg
        record(XID.format(79), priority=30),  # facility daemon
        record(f"init: {XID.format(79)}"),
        record(rf"a\x0a3,9,9,-;{XID.format(79)}"),  # the kernel escapes a line's end
        f" {XID.format(79)}\n",
        f"{XID.format(79)}\n",
        f"<3>[ 99.0] {XID.format(79)}\n",
        f"99999999999,1,1,-;{XID.format(79)}\n",
    ],
)
def test_text_that_only_looks_like_one_does_not_count(machine: Machine, forged: str) -> None:
    machine.write("")
    assert machine.read(lambda: machine.write(forged)).texts == ()


def test_the_caller_of_a_record_may_be_named(machine: Machine) -> None:
    machine.write("")
    said = machine.read(lambda: machine.write(f"3,7,5678,-,caller=T1207;{XID.format(119)}\n"))
    assert said.texts == (XID.format(119),)


def test_an_endless_log_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.write("")
    read, begun = os.read, []

    def reading(descriptor: int, size: int) -> bytes:
        return record(XID.format(62)).encode() if begun else read(descriptor, size)

    machine.limit_s = 0.5
    begin = time.monotonic()
    with machine.log().watch(None) as said_since:
        monkeypatch.setattr(os, "read", reading)
        begun.append(True)
        said = said_since()
    assert time.monotonic() - begin < 5
    assert said.why == "the kernel's log is longer than is read"
    assert 0 < len(said.texts) <= 10_000


def test_a_log_that_is_endless_from_the_start_is_no_log(machine: Machine) -> None:
    machine.device = Path("/dev/zero")
    assert machine.read().why.startswith("/dev/zero: the kernel's log is longer than is read; ")


def test_a_pipe_holds_what_came_since(machine: Machine) -> None:
    os.mkfifo(machine.device)
    writer = os.open(machine.device, os.O_RDWR)
    os.write(writer, record(XID.format(79)).encode())
    try:
        said = machine.read(lambda: os.write(writer, record(XID.format(62)).encode()))
    finally:
        os.close(writer)
    assert (said.texts, said.why) == ((XID.format(62),), "")


def test_a_flood_is_kept_within_bounds_and_said_to_be_cut(machine: Machine) -> None:
    machine.write("")
    said = machine.read(lambda: machine.write(record(XID.format(13) + "y" * 3000) * 12_000))
    assert len(said.texts) == 10_000
    assert max(len(text) for text in said.texts) == 1000
    assert said.why == "the kernel's log is longer than is read"


def test_a_line_without_an_end_is_left(machine: Machine) -> None:
    machine.write("")
    said = machine.read(lambda: machine.write("3,1,1,-;" + "z" * 1_000_000))
    assert (said.texts, said.why) == ((), "the kernel's log is longer than is read")


def test_overwritten_records_are_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real device answers EPIPE once, and goes on with the oldest record that is left."""
    machine.write("")
    read, lost = os.read, [BrokenPipeError()]

    def reading(descriptor: int, size: int) -> bytes:
        if lost and machine.device.stat().st_size:
            raise lost.pop()
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", reading)
    said = machine.read(lambda: machine.write(record(XID.format(79))))
    assert said.texts == (XID.format(79),)
    assert "overwritten" in said.why


def test_no_way_to_the_log(machine: Machine) -> None:
    said = machine.read()
    assert said.why == (
        f"{machine.device}: No such file or directory; there is no dmesg on this machine's PATH; "
        "there is no journalctl on this machine's PATH"
    )


def test_without_permission_it_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no file refuses: the system's answer is played."""
    open_ = os.open

    def refusing(path: str, flags: int, *rest: int) -> int:
        if path == str(machine.device):
            raise PermissionError(1, "Operation not permitted")
        return open_(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    machine.program("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    machine.program("journalctl", "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1")
    assert machine.read().why == (
        f"{machine.device}: Operation not permitted; dmesg (exit code 1): dmesg: read kernel buffer "
        "failed: Operation not permitted; "
        "journalctl (exit code 1): No journal files were opened due to insufficient permissions."
    )


def test_a_device_that_opens_and_refuses_to_be_read(machine: Machine) -> None:
    machine.device.mkdir()
    said = machine.read()
    assert said.texts == ()
    assert re.match(
        rf"{machine.device}: (Is a directory|Invalid argument); there is no dmesg ", said.why
    )  # by file system


def test_a_refusal_is_not_asked_for_again(machine: Machine, tmp_path: Path) -> None:
    machine.program("dmesg", f"echo asked >> {tmp_path}/asked; exit 1")
    log = machine.log()
    for _ in range(3):
        with log.watch(None) as said_since:
            assert "dmesg (exit code 1): it says nothing" in said_since().why
    assert (tmp_path / "asked").read_text() == "asked\n"


OLD = f"<6>[    0.000000] Linux version 6.8\n<3>[  100.500000] {XID.format(79)}\n"


def dmesg(machine: Machine, tmp_path: Path, before: str = OLD) -> Path:
    ring = tmp_path / "ring"
    ring.write_text(before)
    machine.program("dmesg", f'[ "$*" = "-S -r" ] && exec /bin/cat {ring}')
    return ring


def test_dmesg_stands_in(machine: Machine, tmp_path: Path) -> None:
    ring = dmesg(machine, tmp_path)
    new = f"<6>[  100.600000] x\n<3>[  101.000000] {XID.format(48)}\n<3>[  102.000000][ T1207] {XID.format(94)}\n"
    forged = f"<11>[  103.0] {XID.format(79)}\n{XID.format(79)}\n<3>[  104.0] a: {XID.format(79)}\n"
    forged += f"<4>[  105.0] \u2028<3>[  105.0] {XID.format(79)}\x0b<3>[  105.0] {XID.format(79)} segfault\n"
    said = machine.read(lambda: ring.write_text(OLD + new + forged))
    assert (said.texts, said.why) == ((XID.format(48), XID.format(94)), "")


def test_dmesg_whose_ring_went_round(machine: Machine, tmp_path: Path) -> None:
    ring = dmesg(machine, tmp_path)
    said = machine.read(lambda: ring.write_text(f"<3>[  101.000000] {XID.format(48)}\n"))
    assert said.texts == (XID.format(48),)
    assert "overwritten" in said.why


def test_dmesg_without_time_stamps_is_no_help(machine: Machine, tmp_path: Path) -> None:
    dmesg(machine, tmp_path, "<6>Linux version 6.8\n")
    assert "dmesg: it shows no line with a time stamp" in machine.read().why


def test_dmesg_that_fails_later(machine: Machine, tmp_path: Path) -> None:
    ring = dmesg(machine, tmp_path)
    said = machine.read(ring.unlink)
    assert said.texts == ()
    assert "No such file" in said.why


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exec sleep 600", "no answer within"),
        ("sleep 600 & echo '<6>[ 1.0] x'", "no answer within"),
        ("exec >&- 2>&-; exec sleep 600", "it does not end"),
    ],
)
def test_a_command_that_hangs_is_left_and_ended(machine: Machine, script: str, why: str) -> None:
    machine.limit_s = 0.5
    machine.program("dmesg", f"echo $$ > {machine.bin}/pid\nPATH=/bin:/usr/bin; {script}")
    begin = time.monotonic()
    assert f"dmesg: {why}" in machine.read().why
    assert time.monotonic() - begin < 5
    group = int((machine.bin / "pid").read_text())
    deadline = time.monotonic() + 5
    while alive(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(group) == []


def alive(group: int) -> list[str]:
    """The processes of a group; one that nobody has asked for yet is over all the same."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            found += [path.parent.name] if int(pgrp) == group and state != "Z" else []
    return found


def test_a_command_that_prints_without_end_is_left(machine: Machine) -> None:
    machine.program("dmesg", "exec /usr/bin/yes '<6>[ 1.0] again and again'")
    begin = time.monotonic()
    assert "dmesg: it says more than 16 MiB" in machine.read().why
    assert time.monotonic() - begin < 10


def test_the_journal_stands_in(machine: Machine, tmp_path: Path) -> None:
    """As journalctl answers: the cursor at the end, and a line of several indented."""
    new = tmp_path / "new"
    new.write_text("")
    machine.program(
        "journalctl",
        f"""case "$*" in
          "-k -q --no-pager -o short-monotonic SYSLOG_FACILITY=0 -n 1 --show-cursor")
            echo '[    5.000000] host kernel: {XID.format(79).replace("'", "")}'; echo '-- cursor: s=0639;i=4b;b=aa' ;;
          "-k -q --no-pager -o short-monotonic SYSLOG_FACILITY=0 --after-cursor=s=0639;i=4b;b=aa")
            exec /bin/cat {new} ;;
          *) exit 1 ;;
        esac""",
    )
    text = (
        f"[  101.000000] host kernel: {XID.format(48)}\n[  102.0] host init[1]: {XID.format(79)}\n"
        f"[  102.5] host kernel: a\u2028[  102.5] host kernel: {XID.format(79)}\n"
        f"[  103.000000] host kernel: two lines\n                            {XID.format(79)}\n"
    )
    said = machine.read(lambda: new.write_text(text))
    assert (said.texts, said.why) == ((XID.format(48),), "")


def test_a_journal_without_the_kernel_is_no_help(machine: Machine) -> None:
    machine.program("journalctl", "echo '-- No entries --'")
    assert "journalctl: it shows no message of the kernel" in machine.read().why


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ssh://gpu@lab.example", "the Docker daemon is reached by ssh: the log of its machine is not read"),
        ("tcp://lab.example:2375", "the Docker daemon is reached by tcp: the log of its machine is not read"),
        ("https://lab.example:2376", "the Docker daemon is reached by https: the log of its machine is not read"),
        ("unix:///var/run/docker.sock", ""),
        ("http+unix:///var/run/docker.sock", ""),
        (None, ""),
    ],
)
def test_only_a_daemon_of_this_machine(machine: Machine, address: str | None, why: str) -> None:
    machine.write("")
    machine.daemon = {"there": address}.__getitem__  # type: ignore[assignment]
    with machine.log().watch("there") as said_since:
        machine.write(record(XID.format(79)))
        said = said_since()
    assert (said.why, len(said.texts)) == (why, 0 if why else 1)


def test_a_kernel_without_the_driver_can_report_nothing(machine: Machine, tmp_path: Path) -> None:
    """WSL: the driver is Windows's, and so is its log. Silence here must not pass."""
    machine.driver = tmp_path / "absent"
    machine.write("")
    assert machine.read() == HostLog(why="this machine's kernel runs no NVIDIA driver")


def test_cards_as_the_driver_knows_them(machine: Machine) -> None:
    machine.card("Model: \t\t NVIDIA L4\nGPU UUID: \t GPU-????????-????-????-????-????????????\n", "0001:ca:00.0")
    machine.card("Model: \t\t NVIDIA L4\n", "0002:ca:00.0")
    (machine.driver / "gpus" / "odd").mkdir()
    machine.write("")
    assert machine.read().cards == {(0, 0x65, 0): UUID, (1, 0xCA, 0): "", (2, 0xCA, 0): ""}


def test_a_card_that_is_lost_or_idle_at_the_end_is_remembered(machine: Machine) -> None:
    machine.write("")
    said = machine.read(lambda: machine.card("Model: \t\t NVIDIA RTX A6000\n"))
    assert said.cards == {(0, 0x65, 0): UUID}


def test_nothing_stays_open(machine: Machine, tmp_path: Path) -> None:
    machine.write("")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        machine.read()
    machine.device.unlink()
    dmesg(machine, tmp_path)
    machine.read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_kernel_log_of_this_very_machine(machine: Machine) -> None:
    """Whatever this machine allows: an answer, or a reason, and at once."""
    begin = time.monotonic()
    places = Places(os.environ.get("PATH", os.defpath), driver=str(machine.driver))
    with HostKernelLog(places, lambda _host: None).watch(None) as said_since:
        said = said_since()
    assert said.texts == ()
    assert time.monotonic() - begin < 20
