"""The ledger's lines: what is kept, what is left out, and what a hostile file does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import make_benchmark, make_facts, make_plan, make_result
from cuda_matrix import ledger
from cuda_matrix.ledger import Ledger, LedgerTooLargeError, decode, encode
from cuda_matrix.model import CheckStatus, Verdict
from cuda_matrix.result import CheckResult, Library
from cuda_matrix.result_files import read_results

GOOD = make_result(
    "good@rtx4090",
    images_per_s=900,
    facts=make_facts(libraries=(Library(soname="libcuda.so.1", path="/usr/lib/libcuda.so.1"),)),
    checks=(CheckResult(id="torch.import", status=CheckStatus.PASS, log="much", evidence="kept"),),
    log="what it printed",
)
BAD = make_result(
    "bad@rtx4090",
    Verdict.FAIL,
    checks=(
        CheckResult(id="torch.import", status=CheckStatus.PASS, log="much"),
        CheckResult(id="first-kernel", status=CheckStatus.FAIL, log="RuntimeError"),
    ),
    log="why it failed\u2028\x85 and so on",
)
PLAN = make_plan(("good", "bad", "absent"))
LEDGER = Ledger(PLAN, {result.cell: result for result in (GOOD, BAD)})


def test_a_ledger_is_a_line_for_the_plan_and_one_per_cell_sorted() -> None:
    lines = encode(LEDGER).decode().split("\n")
    assert [json.loads(line).get("cell") for line in lines[:-1]] == [None, "bad@rtx4090", "good@rtx4090"]
    assert json.loads(lines[0])["ledger_version"] == 1
    assert lines[-1] == ""


def test_logs_of_good_checks_are_left_out_and_those_of_bad_ones_stay() -> None:
    found = {result.cell: result for result in decode(encode(LEDGER)).results}
    good, bad = found["good@rtx4090"], found["bad@rtx4090"]
    assert (good.log, good.checks[0].log, good.facts.libraries) == ("", "", ())
    assert good.checks[0].evidence == "kept"
    assert good.benchmarks == GOOD.benchmarks
    assert (bad.log, bad.checks[0].log, bad.checks[1].log) == (BAD.log, "", "RuntimeError")


def test_what_was_read_is_written_again_byte_for_byte() -> None:
    data = encode(LEDGER)
    found = decode(data)
    assert found.plan == PLAN
    assert encode(Ledger(PLAN, {result.cell: result for result in found.results})) == data


def test_a_ledger_that_is_too_large_loses_logs_then_passed_checks_and_then_says_so() -> None:
    whole = len(encode(LEDGER))
    for less in (1, 40, 80):
        shorter = encode(LEDGER, whole - less)
        assert len(shorter) <= whole - less
    silent = {result.cell: result for result in decode(encode(LEDGER, whole - 1)).results}
    assert [check.log for check in silent["bad@rtx4090"].checks] == ["", ""]
    bare = {result.cell: result for result in decode(encode(LEDGER, whole - 80)).results}
    assert [check.id for check in bare["bad@rtx4090"].checks] == ["first-kernel"]
    assert bare["good@rtx4090"].benchmarks == GOOD.benchmarks
    with pytest.raises(LedgerTooLargeError, match=r"2 cells take .* bytes; 100 fit"):
        encode(LEDGER, 100)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the first line is not complete JSON"),
        (b"[]\n", "the first line is not a JSON object"),
        (b"{}\n", "the first line has no ledger_version"),
        (b'{"ledger_version": 2}\n', "the first line has ledger_version 2; this program reads 1"),
        (b'{"ledger_version": 1, "plan": []}\n', "the first line is not a JSON object"),
        (b'{"ledger_version": 1, "plan": {}, "x": 1}\n', "the first line holds something else than a plan"),
        (b"\xff\xfe\n", "the first line is not complete JSON"),
    ],
)
def test_a_first_line_that_is_no_plan_is_said(data: bytes, said: str) -> None:
    found = decode(data)
    assert found.plan is None
    assert found.problems[0].line == 1
    assert found.problems[0].message.startswith(said)
    assert ledger.is_plan_problem(found.problems[0])


def test_bad_lines_are_said_with_their_place_and_the_others_count() -> None:
    lines = encode(LEDGER).split(b"\n")
    evil = json.loads(lines[1]) | {"cell": "../../etc/passwd"}
    lines[1:1] = [b"garbage", json.dumps(evil).encode(), b'{"result_version": 1, "cell": 3}']
    found = decode(b"\n".join(lines), "reports/results.jsonl")
    assert [str(problem).partition(": ")[0] for problem in found.problems] == [
        f"reports/results.jsonl:{line}:1" for line in (2, 3, 4)
    ]
    assert [result.cell for result in found.results] == ["bad@rtx4090", "good@rtx4090"]
    assert not any(map(ledger.is_plan_problem, found.problems))


def test_a_huge_file_is_not_parsed() -> None:
    found = decode(b"x" * (ledger.LEDGER_LIMIT_BYTES + 1))
    assert (found.plan, found.results) == (None, ())
    assert "larger than 32 MiB" in found.problems[0].message


def test_a_committed_folder_is_a_folder_of_results(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(encode(LEDGER))
    (tmp_path / "report.json").write_text('{"report_version": 1}')
    (tmp_path / "badge.json").write_text('{"schemaVersion": 1}')
    history = tmp_path / "history/2026/11"
    history.mkdir(parents=True)
    (history / "1-1.jsonl").write_text('{"history_version":1}\n')
    for path in (tmp_path, tmp_path / "results.jsonl"):
        found = read_results([path])
        assert found.problems == ()
        assert found.plan == PLAN
        assert [result.cell for result in found.results] == ["bad@rtx4090", "good@rtx4090"]


def test_a_ledger_without_a_readable_plan_is_a_plan_problem(tmp_path: Path) -> None:
    data = encode(LEDGER)
    (tmp_path / "results.jsonl").write_bytes(b"{" + data)
    found = read_results([tmp_path])
    assert found.plan is None
    assert [str(problem)[:18] for problem in found.plan_problems] == ["results.jsonl:1:1:"]


def test_figures_survive_exactly() -> None:
    odd = make_benchmark(0.1 + 0.2)
    result = make_result("good@rtx4090", benchmarks=(odd,))
    data = encode(Ledger(PLAN, {result.cell: result}))
    assert decode(data).results[0].benchmarks == (odd,)
