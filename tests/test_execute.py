"""Running cells, with a double at the boundary: an engine that plays back bytes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import pytest

from builders import make_plan
from cuda_matrix import protocol
from cuda_matrix.errors import InfrastructureError, Interrupted
from cuda_matrix.execute import Job, LaunchFailed, Run, Session, gpu_arguments, run_cells
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.reference import load_reference
from cuda_matrix.result import CellResult, Exit, ImageIdentity

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


def run_all(engine: PlaybackEngine) -> tuple[list[CellResult], Watcher, BaseException | None]:
    plan = make_plan(images=("good", "other"))
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
