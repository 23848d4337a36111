"""Owns what the host's kernel log says of a cell's cards: which messages are theirs, and what they mean.

The payload's check `health.xid-host` sees that log in few containers; where it did not, the host's view stands in.
Must not know how the log is read (adapters) nor when a cell begins (execute).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pydantic import model_validator

from cuda_matrix.model import CheckStatus, Frozen
from cuda_matrix.redaction import hashed
from cuda_matrix.result import TEXT_LIMIT, CheckResult

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECK = "health.xid-host"
PREFIX = "NVRM: Xid ("  # how every line begins that can matter here: a reader may drop all others
ORDER = ("gpu-off-bus", "gpu-ecc", "gpu-hardware-fault")  # the worst first: it is the one to blame

# `(PCI:0000:65:00)`, in driver's code; on a partitioned card ` GPU-I:01 GPU-CI:00` stands behind the address.
_MESSAGE = re.compile(
    r"NVRM: Xid \(PCI:((?:[0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{1,2}:[0-9a-fA-F]{1,2})[^)]{0,40}\): (\d{1,5}),"
)
_EVIDENCE_LIMIT = 500  # characters

Slot = tuple[int, int, int]  # PCI domain, bus, device


class Xid(Frozen):
    """One row of data/xids.yml, whose header explains every field."""

    number: int
    name: str
    cause: str | None = None
    program: bool = False
    sources: tuple[str, ...]

    @model_validator(mode="after")
    def _one_meaning(self) -> Xid:
        if self.program != (self.cause is None) or self.cause not in {None, *ORDER}:
            msg = f"Xid {self.number}: either a program's fault, or one of the causes {', '.join(ORDER)}"
            raise ValueError(msg)
        return self


class HostLog(NamedTuple):
    """What this machine's kernel has said since a cell began, and which cards the machine has.

    `texts`: lines that begin with PREFIX. `why`: why not all of them could be read; empty where all could.
    `cards`: UUID of each card by its slot, empty where the driver does not tell.
    """

    texts: tuple[str, ...] = ()
    why: str = ""
    cards: dict[Slot, str] = {}  # noqa: RUF012 - never changed


class CellCards(NamedTuple):
    """What is known of the cards of a cell: the hashed UUIDs that its payload saw, and whether it was given all."""

    uuid_hashes: tuple[str, ...]
    has_all: bool


def slot(address: str) -> Slot | None:
    """`0000:65:00`, `00000000:65:00.0` and `65:00.0` are one slot: the kernel, NVML and lspci write it differently."""
    try:
        parts = [int(part, 16) for part in ["0", *address.split(".", maxsplit=1)[0].split(":")][-3:]]
    except ValueError:
        return None
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None


def open_question(own: CheckResult) -> bool:
    """Whether the payload could not tell, so that the host may."""
    return own.status in {CheckStatus.SKIP, CheckStatus.UNKNOWN}


def judge(own: CheckResult, log: HostLog, cell: CellCards, table: Iterable[Xid]) -> CheckResult:
    """The result of the check: the payload's `own` where it told, or where the host cannot."""
    if not open_question(own):
        return own
    slots, why = _slots(log, cell)
    if slots is not None and not slots:
        return _not_read(own, why)
    rows = {row.number: row for row in table}
    messages = _messages(log.texts, slots)
    finding = _finding(own, messages, rows, sure=slots is not None or cell.has_all or len(log.cards) == 1)
    if own.cause is not None and (finding is None or finding.status is not CheckStatus.FAIL):
        # Why the check did not run (the cell's time was up) fails the cell: nothing milder may take its place.
        return own if finding is None else _not_read(own, finding.summary)
    if finding is not None:
        return finding
    if log.why:
        return _not_read(own, log.why)
    said = "no Xid since the cell began" if not messages else "only Xids that programs cause since the cell began"
    return _told(own, CheckStatus.PASS, f"{said} (the host's kernel log)", _numbers(messages, rows))


def _slots(log: HostLog, cell: CellCards) -> tuple[set[Slot] | None, str]:
    """The cell's slots; None where they are not known; none at all, and why, where its cards are not this machine's."""
    here = {hashed(uuid): place for place, uuid in log.cards.items() if uuid}
    wanted = set(filter(None, cell.uuid_hashes))
    if wanted and wanted <= set(here):
        return {here[uuid_hash] for uuid_hash in wanted}, ""
    if wanted and here and all(log.cards.values()):
        return set(), "the cell's cards are not this machine's"
    return None, ""


def _messages(texts: Iterable[str], slots: set[Slot] | None) -> list[tuple[int, str]]:
    """(number, line) of every Xid of these slots, of every card where they are not known."""
    found = []
    for text in texts:
        match = _MESSAGE.match(text)
        if match and (slots is None or slot(match[1]) in slots):
            found.append((int(match[2]), text))
    return found


def _finding(
    own: CheckResult, messages: list[tuple[int, str]], rows: dict[int, Xid], *, sure: bool
) -> CheckResult | None:
    """The worst of the messages; None where there is none but of programs."""

    def gravity(number: int) -> int:
        cause = rows[number].cause if number in rows else None
        return ORDER.index(cause) if cause is not None else len(ORDER)

    telling = [(number, text) for number, text in messages if number not in rows or not rows[number].program]
    if not telling:
        return None
    number, text = min(telling, key=lambda message: gravity(message[0]))
    all_numbers = ", ".join(str(each) for each in sorted({each for each, _ in telling})[:10])
    said = f"the driver reported Xid {all_numbers}" + (f" ({rows[number].name})" if number in rows else "")
    numbers = {**_numbers(messages, rows), "xid": number}
    cause = rows[number].cause if number in rows else None
    status = CheckStatus.WARN if cause is None else CheckStatus.FAIL
    if not sure:
        said += ", and it is not known whether of a card of this cell"
        cause, status = None, CheckStatus.UNKNOWN
    told = _told(own, status, f"{said} (the host's kernel log)", numbers)
    return told.model_copy(update={"evidence": text[:_EVIDENCE_LIMIT], "cause": cause})


def _numbers(messages: list[tuple[int, str]], rows: dict[int, Xid]) -> dict[str, int]:
    of_programs = sum(1 for number, _ in messages if number in rows and rows[number].program)
    return {"xids": len(messages), "xids_of_programs": of_programs}


def _told(own: CheckResult, status: CheckStatus, summary: str, numbers: dict[str, int]) -> CheckResult:
    """`device` stays empty: the log of a machine proves no work on a card."""
    told = {"status": status, "summary": summary[:TEXT_LIMIT], "numbers": numbers, "device": None}
    return own.model_copy(update=told)


def _not_read(own: CheckResult, why: str) -> CheckResult:
    summary = "; ".join(filter(None, (own.summary[: TEXT_LIMIT // 2], f"on the host: {why}")))
    return own.model_copy(update={"summary": summary[:TEXT_LIMIT]})
