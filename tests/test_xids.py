"""What the host's kernel log says of a cell's cards: the pure rule, and its table."""

from __future__ import annotations

import pytest

from cuda_matrix import xids
from cuda_matrix.model import CheckStatus
from cuda_matrix.payload import checks_health, nvidia
from cuda_matrix.reference import load_reference
from cuda_matrix.result import CheckResult
from cuda_matrix.xids import CellCards, HostLog, Xid, judge

REFERENCE = load_reference()
TABLE = REFERENCE.xids
UUID, OTHER = "GPU-9de4332b-3b09-a3b4-5589-30229f0c14fe", "GPU-9c468c54-b125-4903-1476-77c4d63270be"
MACHINE = {(0, 0x65, 0): UUID, (0, 0xCA, 0): OTHER}
CELL = CellCards((xids.hashed(UUID),), has_all=False)
SKIPPED = CheckResult(id=xids.CHECK, status=CheckStatus.SKIP, summary="the kernel's log is not visible", seconds=0.5)


def xid(number: int, where: str = "PCI:0000:65:00") -> str:
    return f"NVRM: Xid ({where}): {number}, pid=77, name=python, what happened"


def judged(*texts: str, own: CheckResult = SKIPPED, cell: CellCards = CELL, why: str = "") -> CheckResult:
    return judge(own, HostLog(texts, why, MACHINE), cell, TABLE)


def test_the_table_is_the_payload_s() -> None:
    def numbers(cause: str | None) -> set[int]:
        return {row.number for row in TABLE if row.cause == cause}

    assert numbers("gpu-off-bus") == set(checks_health._LOST_XIDS)
    assert numbers("gpu-ecc") == set(checks_health._MEMORY_XIDS)
    assert numbers("gpu-hardware-fault") == set(checks_health._FAULT_XIDS)
    assert numbers(None) == set(checks_health._PROGRAM_XIDS) == {row.number for row in TABLE if row.program}


def test_every_row_has_a_source_and_its_cause_blames_the_host() -> None:
    from cuda_matrix.reference import _rows

    assert {name for row in TABLE for name in row.sources} == set(_rows("xids.yml")["sources"])
    causes = REFERENCE.catalogue.causes
    assert {causes[row.cause].side for row in TABLE if row.cause is not None} == {"host"}


@pytest.mark.parametrize("row", [{"program": True, "cause": "gpu-ecc"}, {}, {"cause": "gpu-oom"}])
def test_a_row_has_one_meaning(row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either a program's fault"):
        Xid.model_validate({"number": 1, "name": "X", "sources": ("s",), **row})


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row.number))
def test_host_and_payload_judge_each_number_alike(row: Xid) -> None:
    told = judged(xid(row.number))
    payload = checks_health.judge_xid([xid(row.number)], ["00000000:65:00.0"])
    assert (told.status.value, told.cause, told.evidence) == (
        payload["status"],
        payload.get("cause"),
        payload.get("evidence", ""),
    )
    assert told.numbers == payload["numbers"]


def test_uuids_are_hashed_as_the_payload_does() -> None:
    assert xids.hashed(UUID) == nvidia.hashed(UUID)


def test_silence_passes() -> None:
    told = judged()
    assert (told.status, told.numbers) == (CheckStatus.PASS, {"xids": 0, "xids_of_programs": 0})
    assert told.summary == "no Xid since the cell began (the host's kernel log)"
    assert (told.id, told.seconds, told.device) == (xids.CHECK, 0.5, None)


def test_the_worst_is_blamed_and_every_number_is_named() -> None:
    told = judged(xid(13), xid(154), xid(119), xid(48), xid(79), xid(48))
    assert (told.status, told.cause, told.evidence) == (CheckStatus.FAIL, "gpu-off-bus", xid(79))
    assert told.numbers == {"xids": 6, "xids_of_programs": 1, "xid": 79}
    assert "Xid 48, 79, 119, 154 (ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS)" in told.summary


def test_a_number_that_nobody_knows_warns() -> None:
    told = judged(xid(999))
    assert (told.status, told.cause, told.evidence) == (CheckStatus.WARN, None, xid(999))


def test_faults_of_programs_are_only_counted() -> None:
    told = judged(xid(13), xid(31), xid(43), xid(45))
    assert (told.status, told.numbers) == (CheckStatus.PASS, {"xids": 4, "xids_of_programs": 4})
    assert "only Xids that programs cause" in told.summary


@pytest.mark.parametrize(
    "text",
    [
        xid(79, "PCI:0000:ca:00"),  # the other card
        xid(79, "PCI:0001:65:00"),  # another domain
        "python[77]: " + xid(79),
        "NVRM: Xid (PCI:0000:65:00): 79",  # the driver's line goes on with a comma
        "NVRM: Xid (PCI:0000:65:00): 7900000000000000000000, x",
        "NVRM: Xid (PCI:zz:65:00): 79, x",
        "nvrm: xid (pci:0000:65:00): 79, x",
    ],
)
def test_what_is_no_message_of_this_card_does_not_count(text: str) -> None:
    assert judged(text).numbers == {"xids": 0, "xids_of_programs": 0}


@pytest.mark.parametrize(
    "where", ["PCI:0000:65:00 GPU-I:01", "PCI:0000:65:00 GPU-I:01 GPU-CI:00", "PCI:00000000:65:00"]
)
def test_other_ways_to_name_the_card(where: str) -> None:
    """The driver names the part of a partitioned card; the payload reads it alike."""
    assert judged(xid(48, where)).cause == "gpu-ecc"
    assert checks_health.judge_xid([xid(48, where)], ["00000000:65:00.0"])["cause"] == "gpu-ecc"


@pytest.mark.parametrize("status", [s for s in CheckStatus if s not in {CheckStatus.SKIP, CheckStatus.UNKNOWN}])
def test_what_the_payload_told_stands(status: CheckStatus) -> None:
    own = SKIPPED.model_copy(update={"status": status})
    assert judged(xid(79), own=own) == own


def test_unknown_is_a_question_too() -> None:
    own = SKIPPED.model_copy(update={"status": CheckStatus.UNKNOWN})
    assert judged(own=own).status is CheckStatus.PASS


def test_an_unread_log_leaves_the_skip_with_both_reasons() -> None:
    told = judged(why="/dev/kmsg: Operation not permitted")
    assert (told.status, told.numbers) == (CheckStatus.SKIP, {})
    assert told.summary == "the kernel's log is not visible; on the host: /dev/kmsg: Operation not permitted"


def test_a_long_summary_does_not_push_the_reason_out() -> None:
    assert judged(own=SKIPPED.model_copy(update={"summary": "x" * 2000}), why="because").summary.endswith("because")


def test_half_a_log_can_accuse_and_cannot_acquit() -> None:
    assert judged(xid(79), why="overwritten").status is CheckStatus.FAIL
    assert judged(xid(13), why="overwritten").status is CheckStatus.SKIP


def test_cards_of_another_machine_say_nothing() -> None:
    """A socket may lead elsewhere: the UUIDs that the payload saw tell."""
    told = judged(xid(79), cell=CellCards((xids.hashed("GPU-elsewhere"),), has_all=True))
    assert told.status is CheckStatus.SKIP
    assert told.summary.endswith("on the host: the cell's cards are not this machine's")


def test_unknown_cards_count_where_the_cell_had_all() -> None:
    nobody = CellCards((), has_all=True)
    assert judged(xid(79, "PCI:0000:ca:00"), cell=nobody).cause == "gpu-off-bus"
    assert judged(xid(79, "PCI:0000:ca:00"), cell=nobody._replace(has_all=False)).status is CheckStatus.UNKNOWN
    assert judged(cell=nobody._replace(has_all=False)).status is CheckStatus.PASS


def test_a_card_whose_uuid_the_driver_does_not_tell_is_not_taken_for_another_machine_s() -> None:
    log = HostLog((xid(79),), "", {(0, 0x65, 0): "", (0, 0xCA, 0): OTHER})
    told = judge(SKIPPED, log, CELL, TABLE)
    assert (told.status, told.cause) == (CheckStatus.UNKNOWN, None)
    alone = HostLog((xid(79),), "", {(0, 0x65, 0): ""})
    assert judge(SKIPPED, alone, CELL, TABLE).cause == "gpu-off-bus"


def test_why_the_check_did_not_run_is_not_hidden_by_anything_milder() -> None:
    own = SKIPPED.model_copy(update={"summary": "the cell's time was up", "cause": "cell-timeout"})
    assert judged(own=own) == own
    milder = judged(xid(999), own=own)
    assert (milder.status, milder.cause) == (CheckStatus.SKIP, "cell-timeout")
    assert "Xid 999" in milder.summary
    assert judged(xid(79), own=own).cause == "gpu-off-bus"


@pytest.mark.parametrize("address", ["0000:65:00", "00000000:65:00.0", "65:00.0", "65:00"])
def test_one_slot_in_every_spelling(address: str) -> None:
    assert xids.slot(address) == (0, 0x65, 0)


@pytest.mark.parametrize("address", ["", "by-id", "65"])
def test_no_slot(address: str) -> None:
    assert xids.slot(address) is None
