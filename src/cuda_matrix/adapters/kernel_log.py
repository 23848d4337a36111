"""Owns how this machine's kernel log is read from one moment on: /dev/kmsg, else `dmesg`, else `journalctl -k`.

Only the kernel's own messages count: what a program wrote into the log carries another facility. Everything is bounded
in time and size, and nothing here raises: where the log cannot be read, it is said why.
Must not know what the lines mean (xids).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cuda_matrix.adapters.programs import Programs
from cuda_matrix.xids import PREFIX, HostLog, slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cuda_matrix.xids import Slot

_RECORD = 8192  # bytes; the kernel hands out one record a read, and refuses a smaller buffer
_RECORDS = 1 << 17  # more than a ring buffer holds
_PENDING = 1 << 16  # bytes of a line that does not end
_OUTPUT = 16 << 20  # bytes of one command; the largest ring buffer that distributions configure
_LINES = 10_000
_LINE = 1000  # characters

_KMSG = re.compile(r"(\d{1,5}),\d+,\d+,[^;]*;(.*)")
# `dmesg -S -r`; where the kernel is built to say who wrote a line, `[ T123]` stands behind the time
_RAW = re.compile(r"<(\d{1,5})>\[\s*(\d+\.\d+)\](?:\[\s*[TC]\d+\])? ?(.*)")
_JOURNAL = re.compile(r"\[\s*\d+\.\d+\] \S+ kernel: (.*)")
_CURSOR = re.compile(r"^-- cursor: (\S+)$", re.MULTILINE)
_OVERWRITTEN = "the kernel has overwritten a part of its log since the cell began"
_TOO_MUCH = "the kernel's log is longer than is read"


class _Source(Protocol):
    """A place in the log: (the Xid lines after it, why not all of them)."""

    def since(self) -> tuple[list[str], str]: ...

    def close(self) -> None: ...


class _Unreadable(Exception):
    """This way to the log is closed; the text says why."""


@dataclass(frozen=True)
class Places:
    """Where things are on a machine. `search_path` is where `dmesg` and `journalctl` are looked for."""

    search_path: str
    device: str = "/dev/kmsg"
    driver: str = "/proc/driver/nvidia"
    limit_s: float = 5.0


class HostKernelLog:
    """The kernel log of the machine that this process runs on.

    `daemon` gives the address of the Docker daemon behind a runner's `docker_host`; None is one of this machine.
    """

    def __init__(self, places: Places, daemon: Callable[[str | None], str | None]) -> None:
        self._places = places
        self._daemon = daemon
        self._refused = ""  # every way was tried once: not again for each cell

    @contextlib.contextmanager
    def watch(self, docker_host: str | None) -> Iterator[Callable[[], HostLog]]:
        """Inside, a call gives what the kernel has said since the beginning."""
        address = self._daemon(docker_host)
        if address is not None and "unix:" not in address.split("//")[0]:
            why = f"the Docker daemon is reached by {address.split(':')[0]}: the log of its machine is not read"
            yield lambda: HostLog(why=why)
            return
        before = _cards(self._places.driver)
        source = self._open()
        if source is None:
            yield lambda: HostLog(why=self._refused)
            return
        try:
            yield lambda: self._read(source, before)
        finally:
            source.close()

    def _read(self, source: _Source, before: dict[Slot, str]) -> HostLog:
        if not Path(self._places.driver).is_dir():
            # Inside WSL and other virtual machines the driver, and with it its log, is somebody else's.
            return HostLog(why="this machine's kernel runs no NVIDIA driver")
        # A card's UUID may be known only while it is in use, and a lost card may be gone by now.
        now = _cards(self._places.driver)
        cards = {place: now.get(place) or before.get(place, "") for place in {*before, *now}}
        texts, why = source.since()
        return HostLog(tuple(texts), why, cards)

    def _open(self) -> _Source | None:
        if self._refused:
            return None
        refusals = []
        for way in (_Device, _Dmesg, _Journal):
            try:
                return way(self._places)
            except _Unreadable as error:  # noqa: PERF203 - three ways, once in a run
                refusals.append(str(error))
        self._refused = "; ".join(refusals)
        return None


class _Device:
    """/dev/kmsg, held open at its end: the kernel itself keeps the place."""

    def __init__(self, places: Places) -> None:
        self._limit_s = places.limit_s
        try:
            self._descriptor = os.open(places.device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            msg = f"{places.device}: {error.strerror}"
            raise _Unreadable(msg) from error
        with contextlib.suppress(OSError):  # a pipe has no end to go to; what it holds is read off instead
            os.lseek(self._descriptor, 0, os.SEEK_END)
        _, why = self.since()  # it opens for everybody, and may refuse to be read
        if why not in {"", _OVERWRITTEN}:
            self.close()
            msg = f"{places.device}: {why}"
            raise _Unreadable(msg)

    def since(self) -> tuple[list[str], str]:
        found: list[str] = []
        pending, overwritten = b"", False
        end = time.monotonic() + self._limit_s
        for _ in range(_RECORDS):
            try:
                data = os.read(self._descriptor, _RECORD)
            except BrokenPipeError:  # the next read goes on with the oldest that is left
                overwritten = True
                continue
            except BlockingIOError:  # no more
                return found, _OVERWRITTEN if overwritten else ""
            except OSError as error:
                return found, error.strerror or str(error)
            if not data:  # the end of a plain file
                return found, _OVERWRITTEN if overwritten else ""
            *lines, pending = (pending + data).split(b"\n")
            found += _of_the_kernel(_KMSG.match(line.decode("utf-8", "replace")) for line in lines)
            if time.monotonic() > end or len(found) > _LINES or len(pending) > _PENDING:
                break
        return found[:_LINES], _TOO_MUCH

    def close(self) -> None:
        os.close(self._descriptor)


class _Dmesg:
    """`dmesg -S -r`: the lines with a later time stamp than the newest at the beginning."""

    def __init__(self, places: Places) -> None:
        # Out of /dev/kmsg it would print the priority without the facility; out of the system call (-S) it does not.
        self._programs = _programs(places)
        stamps = [float(match[2]) for match in self._matches()]
        if not stamps:
            msg = "dmesg: it shows no line with a time stamp"
            raise _Unreadable(msg)
        self._newest_s = max(stamps)

    def _matches(self) -> list[re.Match[str]]:
        lines = _answer(self._programs, "dmesg", "-S", "-r").split("\n")  # not splitlines(): a name may hold U+2028
        return [match for line in lines if (match := _RAW.match(line))]

    def since(self) -> tuple[list[str], str]:
        try:
            matches = self._matches()
        except _Unreadable as error:
            return [], str(error)
        later = [match for match in matches if float(match[2]) > self._newest_s]
        found = list(_of_the_kernel((match[1], match[3]) for match in later))
        return found[:_LINES], _OVERWRITTEN if len(later) == len(matches) else ""

    def close(self) -> None:
        """Nothing is held."""


class _Journal:
    """`journalctl -k`: the lines behind the cursor of the newest at the beginning."""

    def __init__(self, places: Places) -> None:
        # The match keeps out what programs wrote into the kernel's log; a line of several indents all but the first.
        kernel = ["-k", "-q", "--no-pager", "-o", "short-monotonic", "SYSLOG_FACILITY=0"]
        self._command = ("journalctl", *kernel)
        self._programs = _programs(places)
        cursor = _CURSOR.search(_answer(self._programs, *self._command, "-n", "1", "--show-cursor"))
        if cursor is None:
            msg = "journalctl: it shows no message of the kernel"
            raise _Unreadable(msg)
        self._cursor = cursor[1]

    def since(self) -> tuple[list[str], str]:
        try:
            text = _answer(self._programs, *self._command, f"--after-cursor={self._cursor}")
        except _Unreadable as error:
            return [], str(error)
        matches = [match for line in text.split("\n") if (match := _JOURNAL.match(line))]
        return list(_of_the_kernel(("0", match[1]) for match in matches))[:_LINES], ""

    def close(self) -> None:
        """Nothing is held."""


def _of_the_kernel(records: Iterable[re.Match[str] | tuple[str, str] | None]) -> Iterator[str]:
    """The Xid lines among (priority, text). A priority is 8 × facility + level, and facility 0 is the kernel's."""
    for record in records:
        if record is not None:
            priority, text = (record[1], record[2]) if isinstance(record, re.Match) else record
            if int(priority) < 8 and text.startswith(PREFIX):
                yield text[:_LINE]


def _cards(driver: str) -> dict[Slot, str]:
    """UUID of each card by its slot, as the driver lists them; empty while it does not know one."""
    found = {}
    with contextlib.suppress(OSError):
        for folder in sorted(Path(driver, "gpus").iterdir()):
            place = slot(folder.name)
            if place is not None:
                found[place] = ""
                with contextlib.suppress(OSError):
                    text = (folder / "information").read_text(encoding="utf-8", errors="replace")
                    uuid = re.search(r"^GPU UUID:\s*(GPU-[0-9a-f-]+)\s*$", text, re.MULTILINE)
                    found[place] = uuid[1] if uuid else ""
    return found


def _programs(places: Places) -> Programs:
    return Programs(places.search_path, {}, places.limit_s, _OUTPUT)


def _answer(programs: Programs, *command: str) -> str:
    """What a command prints. Neither a silent nor an endless one holds the run up.

    Raises:
        _Unreadable: it is not there, failed, took too long, or printed too much.
    """
    answer = programs.ask(*command)
    if not answer.good:
        raise _Unreadable(answer.trouble)
    return answer.out
