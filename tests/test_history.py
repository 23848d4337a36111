"""One file per run, and a series read back out of many."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from builders import DIGEST, PAYLOAD, STARTED, make_benchmark, make_diagnosis, make_facts, make_plan, make_result
from cuda_matrix import history
from cuda_matrix.gate import judge, newest_date
from cuda_matrix.history import Series, decode, encode, last, path_of
from cuda_matrix.model import CheckStatus, Verdict
from cuda_matrix.result import CellResult

PLAN = make_plan(("good", "bad", "absent"))
TRAIN = "resnet50.train"


def lines(*results: CellResult) -> bytes:
    return encode(PLAN, judge(PLAN, results, newest_date(results)))


def test_a_line_for_every_cell_that_was_to_run() -> None:
    broken = make_benchmark(10, id="gemm.fp16", status=CheckStatus.FAIL)
    good = make_result("good@rtx4090", benchmarks=(make_benchmark(900.25), broken))
    bad = make_result("bad@rtx4090", Verdict.FAIL, diagnosis=make_diagnosis())
    points = {point.cell: point for point in decode(lines(good, bad))}
    assert list(points) == ["absent@rtx4090", "bad@rtx4090", "good@rtx4090"]
    assert points["absent@rtx4090"].verdict is Verdict.NOT_RUN
    assert points["bad@rtx4090"].cause == "driver-too-old"
    found = points["good@rtx4090"]
    assert (found.digest, found.payload, found.date, found.driver) == (DIGEST, PAYLOAD, STARTED, "550.54.15")
    assert (found.card, found.card_hash) == ("NVIDIA GeForce RTX 4090", "9f3a5c7712de")
    assert found.medians == {TRAIN: 900.25}, "a benchmark that failed has no figure"


def test_the_file_is_named_by_its_run_and_dated_by_its_results() -> None:
    late = make_result("good@rtx4090", started_at=datetime(2027, 1, 1, 3, tzinfo=timezone(timedelta(hours=8))))
    assert path_of("77", "2", [late, make_result("bad@rtx4090")]) == "history/2026/11/77-2.jsonl"
    assert path_of("77", "2", [late]) == "history/2026/12/77-2.jsonl", "in UTC"
    assert path_of("77", "2", []) == ""


def test_hostile_lines_are_left_out() -> None:
    data = (
        b"garbage\n[]\n" + b'{"history_version":9,"cell":"x","verdict":"pass"}\n' + lines(make_result("good@rtx4090"))
    )
    assert len(list(decode(data + b"x" * (1 << 20)))) == 3
    assert list(decode(b'{"cell":"x","verdict":"pass","medians":{"a":NaN}}')) == []


def files(count: int) -> dict[str, bytes]:
    """A run every ten days, the figure its number; every third on another driver."""
    made = {}
    for number in range(count):
        moment = STARTED + timedelta(days=10 * number)
        facts = make_facts(driver="570.0" if number % 3 == 2 else "550.54.15")
        result = make_result("good@rtx4090", images_per_s=number + 1, started_at=moment, facts=facts)
        made[f"reports/{path_of(str(number + 1), '1', [result])}"] = lines(result)
    return made


def test_the_last_figures_of_a_series_oldest_first() -> None:
    found = files(30)
    series = Series("good@rtx4090", TRAIN, driver="550.54.15")
    assert [value for _, value in last(found, found.__getitem__, series, 4)] == [25, 26, 28, 29]
    assert [value for _, value in last(found, found.__getitem__, Series("good@rtx4090", TRAIN), 2)] == [29, 30]
    assert last(found, found.__getitem__, Series("good@rtx4090", "gemm.fp16"), 4) == []
    assert last(found, found.__getitem__, Series("other@rtx4090", TRAIN), 4) == []
    assert last(found, found.__getitem__, series, 0) == []
    assert len(last(found, found.__getitem__, series, 999)) == 20


def test_no_more_months_are_read_than_it_takes() -> None:
    found, read = files(30), []

    def reading(path: str) -> bytes:
        read.append(path)
        return found[path]

    paths = [*found, "reports/history/2026/11/evil.jsonl", "reports/results.jsonl", "history/9999/1/1-1.jsonl"]
    last(paths, reading, Series("good@rtx4090", TRAIN), 3)
    assert len(read) <= 7
    assert history.FOLDER == "history"
