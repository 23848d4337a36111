"""The host's side of docs/payload-protocol.md: nothing out of a container is believed without its marker and schema."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuda_matrix import protocol
from cuda_matrix.model import CheckStatus
from cuda_matrix.protocol import LINE_LIMIT, EventStream
from cuda_matrix.reference import load_reference
from cuda_matrix.result import LOG_LIMIT, Exit
from cuda_matrix.verdict import Outcome

MARKER = "0123456789abcdef0123456789abcdef"
PLAN = {
    "event": "plan",
    "items": [
        {"id": "first-kernel", "kind": "check", "limit_s": 60},
        {"id": "resnet50.train", "kind": "benchmark", "limit_s": 60},
    ],
}
HELLO = {"event": "hello", "protocol": 1, "python": "3.11.2"}
SAMPLES = {"n": 3, "median": 10.0, "p5": 9.0, "p95": 11.0, "cv": 0.1}
GOOD = [
    HELLO,
    PLAN,
    {"event": "fact", "name": "torch", "value": "2.2.0+cu121"},
    {"event": "start", "id": "first-kernel"},
    {"event": "end", "id": "first-kernel", "status": "pass", "device": "cuda:0", "numbers": {"max_error": 1e-6}},
    {"event": "start", "id": "resnet50.train"},
    {"event": "end", "id": "resnet50.train", "status": "pass", "unit": "images/s", "samples": SAMPLES},
    {"event": "done", "seconds": 3.5},
]


def line(event: Any, marker: str = MARKER) -> bytes:
    text = event if isinstance(event, str) else json.dumps(event)
    return f"{marker} {text}\n".encode()


def read(*events: Any, exit_: Exit | None = None) -> tuple[Outcome, list[str]]:
    stream = EventStream(MARKER)
    for event in events:
        stream.feed(event if isinstance(event, bytes) else line(event))
    return stream.outcome(exit_ or Exit(code=0)), stream.anomalies


def test_a_whole_stream() -> None:
    outcome, anomalies = read(*GOOD)
    assert anomalies == []
    assert (outcome.hello, outcome.done, outcome.facts.torch) == (True, True, "2.2.0+cu121")
    assert [(check.id, check.status, check.numbers) for check in outcome.checks] == [
        ("first-kernel", CheckStatus.PASS, {"max_error": 1e-6})
    ]
    assert outcome.benchmarks[0].samples is not None
    assert outcome.benchmarks[0].samples.median == 10.0


@given(st.integers(1, 200), st.binary(max_size=300).filter(lambda noise: MARKER.encode() not in noise))
def test_chunks_and_noise_change_nothing(size: int, noise: bytes) -> None:
    data = noise + b"\n" + noise.join(line(event) for event in GOOD)
    whole, _ = read(*GOOD)
    stream = EventStream(MARKER)
    for begin in range(0, len(data), size):
        stream.feed(data[begin : begin + size])
    outcome = stream.outcome(Exit(code=0))
    assert stream.anomalies == []
    assert outcome.model_copy(update={"log": ""}) == whole.model_copy(update={"log": ""})


ANY_EVENT = st.one_of(st.text(max_size=80), st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=5)))


@given(st.lists(ANY_EVENT))
def test_no_event_can_raise(events: list[Any]) -> None:
    read(HELLO, PLAN, *(line(event).replace(b"\n", b" ") + b"\n" for event in events))


@pytest.mark.parametrize(
    "event",
    [
        '{"event": "end", "id": "first-kernel", "status": "pass", "numbers": {"x": NaN}}',
        '{"event": "end", "id": "first-kernel", "status": "pass", "seconds": 1e999}',
        '{"event": "end", "id": "first-kernel", "status": "pass", "seconds": -1}',
        '{"event": "end", "id": "first-kernel", "status": "splendid"}',
        '{"event": "end", "id": "first-kernel", "status": "invalid"}',
        '{"event": "end", "id": "first-kernel", "status": "pass", "unknown": 1}',
    ],
)
def test_an_impossible_check_is_never_a_pass(event: str) -> None:
    outcome, anomalies = read(HELLO, PLAN, {"event": "start", "id": "first-kernel"}, event)
    assert anomalies
    assert [check.status for check in outcome.checks] == [CheckStatus.CRASH]


@pytest.mark.parametrize(
    "samples",
    [
        {**SAMPLES, "median": -5.0},
        {**SAMPLES, "n": 0},
        {**SAMPLES, "p5": 12.0},
        {**SAMPLES, "cv": -0.1},
        {"n": 3, "median": 10.0},
    ],
)
def test_impossible_samples_are_invalid(samples: dict[str, float]) -> None:
    end = {"event": "end", "id": "resnet50.train", "status": "pass", "unit": "images/s", "samples": samples}
    outcome, anomalies = read(HELLO, PLAN, end)
    assert anomalies == ["the result of resnet50.train cannot be"]
    assert outcome.benchmarks[0].status is CheckStatus.INVALID
    assert outcome.benchmarks[0].samples is None


def test_the_first_end_counts_and_strangers_do_not() -> None:
    failed = {"event": "end", "id": "first-kernel", "status": "fail"}
    forged = {"event": "end", "id": "first-kernel", "status": "pass"}
    stranger = {"event": "end", "id": "not-planned", "status": "pass"}
    outcome, anomalies = read(HELLO, PLAN, failed, forged, stranger, {"event": "done", "seconds": 1}, forged, PLAN)
    assert [(check.id, check.status) for check in outcome.checks] == [("first-kernel", CheckStatus.FAIL)]
    assert len(anomalies) == 4


def test_a_foreign_marker_is_noise() -> None:
    outcome, anomalies = read(HELLO, PLAN, line({"event": "done", "seconds": 1}, marker="f" * 32))
    assert (outcome.done, anomalies) == (False, [])
    assert "f" * 32 in outcome.log


@pytest.mark.parametrize(
    ("exit_", "status", "cause"),
    [
        (Exit(code=139, signal=11), CheckStatus.CRASH, None),
        (Exit(code=137, signal=9, oom_killed=True), CheckStatus.CRASH, "host-oom-kill"),
        (Exit(code=137, signal=9, timed_out=True), CheckStatus.TIMEOUT, None),
        (Exit(interrupted=True), CheckStatus.UNKNOWN, None),
    ],
)
def test_a_start_without_its_end(exit_: Exit, status: CheckStatus, cause: str | None) -> None:
    outcome, _ = read(HELLO, PLAN, {"event": "start", "id": "first-kernel"}, exit_=exit_)
    assert [(check.status, check.cause) for check in outcome.checks] == [(status, cause)]


@pytest.mark.parametrize(
    ("name", "value"), [("gpus", [{"index": "zero"}]), ("cpu_count", "many"), ("nonsense", 1), ("memory_gb", {})]
)
def test_an_impossible_fact_is_dropped(name: str, value: object) -> None:
    outcome, anomalies = read(HELLO, {"event": "fact", "name": name, "value": value})
    assert len(anomalies) == 1
    assert outcome.facts.gpus == ()
    assert outcome.facts.cpu_count is None


def test_long_texts_are_cut_not_lost() -> None:
    end = {"event": "end", "id": "first-kernel", "status": "fail", "evidence": "x" * 9_000, "log": "y" * 30_000}
    outcome, anomalies = read(HELLO, PLAN, end)
    assert anomalies == []
    assert outcome.checks[0].status is CheckStatus.FAIL
    assert len(outcome.checks[0].log) == LOG_LIMIT


def test_an_event_line_without_end_is_dropped() -> None:
    outcome, anomalies = read(f"{MARKER} ".encode() + b"x" * (LINE_LIMIT + 10), b"x" * 10 + b"\n", HELLO)
    assert outcome.hello
    assert anomalies == ["an event line is longer than 64 KiB"]


def test_a_plan_of_more_items_than_a_result_may_hold_is_cut() -> None:
    items = [{"id": f"b{number}", "kind": "benchmark", "limit_s": 1} for number in range(200)]
    outcome, anomalies = read(HELLO, {"event": "plan", "items": items})
    assert len(outcome.planned) == protocol.BENCHMARK_LIMIT
    assert anomalies == ["more benchmarks than anybody plans"]


def test_many_long_logs_do_not_make_a_result_that_nobody_reads() -> None:
    items = [{"id": f"c{number}", "kind": "check", "limit_s": 1} for number in range(512)]
    ends = [{"event": "end", "id": item["id"], "status": "fail", "log": "x" * LOG_LIMIT} for item in items]
    outcome, anomalies = read(HELLO, {"event": "plan", "items": items}, *ends)
    assert anomalies == []
    assert len(outcome.checks) == 512
    assert sum(len(check.log) for check in outcome.checks) <= protocol.TEXT_BUDGET


def test_a_flood_costs_little_and_keeps_both_ends() -> None:
    stream = EventStream(MARKER)
    stream.feed(b"the beginning\n")
    chunk = b"flood flood\n" * 2_731  # 32 KiB, as Docker sends it
    begin = time.perf_counter()
    for _ in range(6_400):  # 200 MB
        stream.feed(chunk)
    assert time.perf_counter() - begin < 5.0
    stream.feed(b"the end\n" + line(HELLO))
    outcome = stream.outcome(Exit(code=0))
    assert outcome.hello
    assert len(outcome.log) <= LOG_LIMIT
    assert outcome.log.startswith("the beginning\n")
    assert outcome.log.endswith("the end\n")
    assert "bytes left out" in outcome.log


def test_progress_names_the_running_item() -> None:
    stream = EventStream(MARKER)
    for event in (HELLO, PLAN, {"event": "start", "id": "first-kernel"}):
        stream.feed(line(event))
    assert stream.running == "first-kernel"
    assert stream.progress == (0, 2)


def test_the_deployed_payload_is_whole_and_its_hash_follows_every_byte() -> None:
    sources = protocol.payload_sources(load_reference())
    assert {"start.sh", "__main__.py", "cuda_matrix_payload/__init__.py"} <= set(sources)
    assert not any(name.endswith(("ruff.toml", ".pyc")) for name in sources)
    changed = {**sources, "start.sh": sources["start.sh"] + b"\n"}
    assert protocol.payload_sha256(sources) != protocol.payload_sha256(changed)
    request = protocol.Request(
        marker=MARKER, profile="smoke", checks=("*",), benchmarks=(), gpu_required=True, expect={}, limit_s=60
    )
    files = protocol.deployment(sources, request)
    assert files["marker"] == f"{MARKER}\n".encode()
    assert json.loads(files["request.json"])["checks"] == ["*"]
