"""Running cells, with a double at the boundary: an engine that plays back bytes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from builders import make_image, make_plan, make_runner
from cuda_matrix import protocol
from cuda_matrix.errors import InfrastructureError, Interrupted
from cuda_matrix.execute import Job, KernelLog, LaunchFailed, Run, Session, gpu_arguments, run_cells
from cuda_matrix.forecast import with_predictions
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.reference import load_reference
from cuda_matrix.result import CellResult, Exit, ImageIdentity
from cuda_matrix.xids import HostLog

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=timezone.utc)
IDENTITY = ImageIdentity(id="good", ref="example.org/good:1", digest="sha256:" + "12" * 32)


class PlaybackSession:
    """Plays a stream back; `exit_` is how it ends, `blocks` keeps it running until it is killed."""

    pull_s = 1.5
    start_s = 0.5
    identity = IDENTITY

    def __init__(self, chunks: list[bytes | BaseException], exit_: Exit) -> None:
        self._chunks = chunks
        self._exit = exit_

    def chunks(self) -> Iterator[tuple[str, bytes]]:
        for chunk in self._chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield "stdout", chunk

    def kill(self) -> None:
        raise AssertionError("nothing here takes long")

    def wait(self) -> Exit:
        return self._exit


class PlaybackEngine:
    """An engine whose cells print what `script` says; counts what it cleaned up."""

    name = EngineName.DOCKER

    def __init__(self, script: Callable[[Job], list[bytes | BaseException]], exit_: Exit | None = None) -> None:
        self.script = script
        self.exit = exit_ or Exit(code=0)
        self.jobs: list[Job] = []
        self.cleaned = 0

    @contextlib.contextmanager
    def launch(self, job: Job, progress: Callable[[str], None]) -> Iterator[Session]:
        progress("starting")
        self.jobs.append(job)
        try:
            yield PlaybackSession(self.script(job), self.exit)  # type: ignore[misc]
        finally:
            self.cleaned += 1


class Watcher:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.results: list[CellResult] = []

    def stage(self, cell: str, text: str) -> None:
        self.stages.append(f"{cell}: {text}")

    def finished(self, result: CellResult) -> None:
        self.results.append(result)


def events(job: Job, *values: dict[str, object]) -> list[bytes | BaseException]:
    return [f"{job.request.marker} {json.dumps(value)}\n".encode() for value in values]


def passing(job: Job) -> list[bytes | BaseException]:
    return events(
        job,
        {"event": "hello", "protocol": 1, "python": "3.11"},
        {"event": "plan", "items": [{"id": "first-kernel", "kind": "check", "limit_s": 60}]},
        {"event": "start", "id": "first-kernel"},
        {"event": "end", "id": "first-kernel", "status": "pass", "device": "cuda:0"},
        {"event": "done", "seconds": 1.0},
    )


def run_all(
    engine: PlaybackEngine, kernel_log: KernelLog | None = None, **plan_values: Any
) -> tuple[list[CellResult], Watcher, BaseException | None]:
    plan = plan_values.pop("plan", None) or make_plan(**{"images": ("good", "other"), **plan_values})
    watcher, recorded = Watcher(), []
    markers = iter(f"{number:032x}" for number in range(100))
    ticks = iter(range(10_000))
    run = Run(
        engine=engine,
        run_id="run-1",
        tool_version="0.1.0",
        sources={"start.sh": b""},
        reference=load_reference(),
        clock=lambda: NOW,
        elapsed=lambda: float(next(ticks)),
        new_marker=lambda: next(markers),
        progress=watcher,
        shield=contextlib.nullcontext,
        kernel_log=kernel_log,
    )
    try:
        run_cells(run, plan, plan.cells, {"other@rtx4090": 3}, recorded.append)
    except (Interrupted, InfrastructureError) as error:
        return recorded, watcher, error
    return recorded, watcher, None


def test_every_cell_is_judged_recorded_and_cleaned_up() -> None:
    engine = PlaybackEngine(passing)
    recorded, watcher, error = run_all(engine)
    assert error is None
    assert [(result.cell, result.verdict, result.attempt) for result in recorded] == [
        ("good@rtx4090", Verdict.PASS, 1),
        ("other@rtx4090", Verdict.PASS, 3),
    ]
    assert engine.cleaned == 2
    assert watcher.results == recorded
    first = recorded[0]
    assert (first.timings.pull_s, first.timings.start_s, first.started_at) == (1.5, 0.5, NOW)
    assert first.payload_sha256 == protocol.payload_sha256({"start.sh": b""})
    assert first.repro.startswith("docker run --rm --gpus all --entrypoint python3 example.org/good@sha256:1212")


def test_the_prediction_of_the_plan_is_recorded_and_one_for_the_driver_that_was_found() -> None:
    image = make_image("good", ref="pytorch/pytorch:2.2.0-cuda12.1-cudnn8-runtime")
    bare = make_plan(images=(image,), runners=(make_runner("rtx4090", driver="470.129.06"),))
    plan = with_predictions(bare, {}, load_reference())

    def found(driver: str) -> CellResult:
        def script(job: Job) -> list[bytes | BaseException]:
            first, *rest = passing(job)
            return [first, *events(job, {"event": "fact", "name": "driver", "value": driver}), *rest]

        recorded, _, _ = run_all(PlaybackEngine(script), plan=plan)
        assert recorded[0].facts.driver == driver
        assert recorded[0].prediction == plan.cells[0].prediction
        return recorded[0]

    as_meant = found("470.129.06")
    assert as_meant.prediction is not None
    assert as_meant.prediction.cause == "driver-too-old"
    assert as_meant.prediction_here is None
    newer = found("580.65.06").prediction_here
    assert newer is not None
    assert newer.verdict == "pass"


def test_without_a_prediction_none_is_recorded() -> None:
    recorded, _, _ = run_all(PlaybackEngine(passing))
    assert (recorded[0].prediction, recorded[0].prediction_here) == (None, None)


def test_every_cell_has_a_marker_of_its_own() -> None:
    engine = PlaybackEngine(passing)
    run_all(engine)
    assert len({job.request.marker for job in engine.jobs}) == 2


def test_a_launch_that_fails_is_a_result() -> None:
    class Refusing(PlaybackEngine):
        @contextlib.contextmanager
        def launch(self, job: Job, progress: Callable[[str], None]) -> Iterator[Session]:
            text = 'could not select device driver "" with capabilities: [[gpu]]'
            raise LaunchFailed(stage="start", text=text, identity=IDENTITY)
            yield  # a generator, as the context manager wants it

    recorded, _, error = run_all(Refusing(passing))
    assert error is None
    assert [result.verdict for result in recorded] == [Verdict.HOST_FAILED] * 2
    assert recorded[0].diagnosis is not None
    assert recorded[0].diagnosis.cause == "toolkit-missing"
    assert recorded[0].image == IDENTITY
    assert "could not select" in recorded[0].log


def test_an_interruption_keeps_what_the_cell_has_shown() -> None:
    engine = PlaybackEngine(lambda job: [*passing(job)[:3], Interrupted("SIGTERM")])
    recorded, _, error = run_all(engine)
    assert isinstance(error, Interrupted)
    assert engine.cleaned == 1
    assert [(result.cell, result.verdict, result.exit.interrupted) for result in recorded] == [
        ("good@rtx4090", Verdict.INCONCLUSIVE, True)
    ]
    assert [check.id for check in recorded[0].checks] == ["first-kernel"]


def test_broken_infrastructure_ends_the_run_and_invents_nothing() -> None:
    engine = PlaybackEngine(lambda job: [*passing(job)[:3], InfrastructureError("Docker is gone")])
    recorded, _, error = run_all(engine)
    assert isinstance(error, InfrastructureError)
    assert recorded == []
    assert engine.cleaned == 1


@pytest.mark.parametrize(
    ("gpus", "arguments"),
    [("all", ["--gpus", "all"]), ("cdi", ["--device", "nvidia.com/gpu=all"]), ((0, 1), ["--gpus", '"device=0,1"'])],
)
def test_the_repro_command_asks_for_the_same_cards(gpus: object, arguments: list[str]) -> None:
    assert gpu_arguments(gpus) == arguments  # type: ignore[arg-type]


XID = "NVRM: Xid (PCI:0000:65:00): 79, pid=77, name=python, GPU has fallen off the bus."


class PlayedLog:
    """A kernel log that says the same of every cell, and counts who watched and who read."""

    def __init__(self, said: HostLog) -> None:
        self.said = said
        self.watched: list[str | None] = []
        self.reads = self.closed = 0

    @contextlib.contextmanager
    def watch(self, docker_host: str | None) -> Iterator[Callable[[], HostLog]]:
        self.watched.append(docker_host)

        def read() -> HostLog:
            self.reads += 1
            return self.said

        try:
            yield read
        finally:
            self.closed += 1


def with_xid_check(**end: object) -> Callable[[Job], list[bytes | BaseException]]:
    """A payload that plans the check; without `end` it never comes to it."""
    check = "health.xid-host"

    def script(job: Job) -> list[bytes | BaseException]:
        items = [{"id": name, "kind": "check", "limit_s": 60} for name in ("first-kernel", check)]
        ends = [{"event": "start", "id": check}, {"event": "end", "id": check, **end}] if end else []
        return events(
            job,
            {"event": "hello", "protocol": 1, "python": "3.11"},
            {"event": "plan", "items": items},
            {"event": "start", "id": "first-kernel"},
            {"event": "end", "id": "first-kernel", "status": "pass", "device": "cuda:0"},
            *ends,
            {"event": "done", "seconds": 1.0},
        )

    return script


def test_the_host_s_kernel_log_stands_in_where_the_payload_saw_none() -> None:
    log = PlayedLog(HostLog((XID,)))
    recorded, _, error = run_all(PlaybackEngine(with_xid_check(status="skip", summary="not visible")), log)
    assert error is None
    first = recorded[0]
    assert (first.verdict, first.diagnosis and first.diagnosis.cause) == (Verdict.HOST_FAILED, "gpu-off-bus")
    assert [(check.id, check.status.value, check.evidence) for check in first.checks] == [
        ("first-kernel", "pass", ""),
        ("health.xid-host", "fail", XID),
    ]
    assert (log.watched, log.reads, log.closed) == ([None, None], 2, 2)


def test_a_quiet_kernel_log_passes_the_check_and_no_more() -> None:
    quiet = PlayedLog(HostLog())
    recorded, *_ = run_all(PlaybackEngine(with_xid_check(status="skip")), quiet)
    assert [(check.status.value, check.device) for check in recorded[0].checks] == [("pass", "cuda:0"), ("pass", None)]

    def nothing_else(job: Job) -> list[bytes | BaseException]:
        return [
            chunk.replace(b'"status": "pass"', b'"status": "skip"') if isinstance(chunk, bytes) else chunk
            for chunk in with_xid_check(status="skip")(job)
        ]

    recorded, *_ = run_all(PlaybackEngine(nothing_else), quiet)
    assert [check.status.value for check in recorded[0].checks] == ["skip", "pass"]
    assert recorded[0].verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "script",
    [passing, with_xid_check(status="pass", device="cuda:0"), with_xid_check()],
    ids=["not planned", "the payload told", "no result"],
)
def test_the_kernel_log_is_not_read_where_nobody_asks(script: Callable[[Job], list[bytes | BaseException]]) -> None:
    log = PlayedLog(HostLog((XID,)))
    recorded, *_ = run_all(PlaybackEngine(script), log)
    without, *_ = run_all(PlaybackEngine(script))
    assert recorded == without
    assert log.reads == 0


def test_an_unreadable_kernel_log_adds_its_reason_to_the_skip() -> None:
    script = with_xid_check(status="skip", summary="not visible")
    recorded, *_ = run_all(PlaybackEngine(script), PlayedLog(HostLog(why="/dev/kmsg: Permission denied")))
    check = recorded[0].checks[1]
    assert (check.status.value, check.summary) == ("skip", "not visible; on the host: /dev/kmsg: Permission denied")
    assert recorded[0].verdict is Verdict.PASS


def test_a_cell_without_a_card_is_not_watched() -> None:
    log = PlayedLog(HostLog((XID,)))
    run_all(PlaybackEngine(with_xid_check(status="skip")), log, runners=(make_runner("cpu", gpu=None),))
    assert log.watched == []


def test_the_watch_ends_with_the_cell_whatever_happens() -> None:
    log = PlayedLog(HostLog((XID,)))
    script = with_xid_check(status="unknown")
    for error in (Interrupted("SIGTERM"), InfrastructureError("Docker is gone")):
        recorded, _, raised = run_all(PlaybackEngine(lambda job, error=error: [*script(job)[:-1], error]), log)  # type: ignore[misc]
        assert raised is error
        assert all(check.status.value != "fail" for result in recorded for check in result.checks)
    assert (len(log.watched), log.closed, log.reads) == (2, 2, 0)
