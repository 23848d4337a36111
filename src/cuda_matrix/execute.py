"""Owns the running of cells: launch, stream, limit, judge, record. Defines the Engine that it needs.

Must not know Docker, subprocesses or scenarios (adapters), nor how results look on disk (result_files).
"""

from __future__ import annotations

import contextlib
import shlex
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from cuda_matrix import protocol, xids
from cuda_matrix.config import ContainerOptions
from cuda_matrix.errors import Interrupted
from cuda_matrix.forecast import machine_of, prediction_here
from cuda_matrix.model import EngineName, Frozen, Verdict
from cuda_matrix.plan import PlannedCell, PlannedImage, PlannedRunner, demand_sha256
from cuda_matrix.result import LOG_LIMIT, REMARKS_LIMIT, TEXT_LIMIT, CellResult, Exit, ImageIdentity, Timings
from cuda_matrix.verdict import Expectation, LaunchFailure, LaunchStage, Outcome, judge_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    from cuda_matrix.config import GpuRequest
    from cuda_matrix.plan import Plan
    from cuda_matrix.prediction import Prediction
    from cuda_matrix.tables import Reference

CONTAINER_PATH = "/cuda-matrix"  # where the payload lies in a container
OUTER_MARGIN_S = 15.0  # the payload ends itself at its limit; only after this does the host kill it

Channel = Literal["stdout", "stderr"]


class Job(Frozen):
    """One launch, as an engine sees it: nothing of checks or verdicts."""

    cell: PlannedCell
    image: PlannedImage
    runner: PlannedRunner
    container: ContainerOptions
    request: protocol.Request
    files: dict[str, bytes]
    limit_s: float
    demand_sha256: str


class LaunchFailed(Exception):
    """The cell never started: data for the verdict, carried to the one place that catches it."""

    def __init__(self, stage: LaunchStage, text: str, identity: ImageIdentity | None) -> None:
        super().__init__(text)
        self.stage = stage
        self.identity = identity


class Session(Protocol):
    """One started cell."""

    identity: ImageIdentity
    pull_s: float
    start_s: float

    def chunks(self) -> Iterator[tuple[Channel, bytes]]:
        """Output as it comes, until the process has ended."""

    def kill(self) -> None:
        """End it now; safe from another thread and more than once."""

    def wait(self) -> Exit:
        """How it ended; called after `chunks` is exhausted."""


class Engine(Protocol):
    """Something that can start a cell. Leaving the context removes every trace of it, on every path."""

    name: EngineName

    def launch(self, job: Job, progress: Callable[[str], None]) -> AbstractContextManager[Session]:
        """Start a cell.

        Raises:
            LaunchFailed: this cell cannot start.
            InfrastructureError: no cell can.
        """


class KernelLog(Protocol):
    """The kernel log of the machine that this process runs on. Bounded in time; says why where it cannot be read."""

    def watch(self, docker_host: str | None) -> AbstractContextManager[Callable[[], xids.HostLog]]:
        """Inside, a call gives what the kernel has said since the beginning; `docker_host` as in a runner."""


class Progress(Protocol):
    """Where a person sees how far the run is."""

    def stage(self, cell: str, text: str) -> None:
        """What the cell is doing now."""

    def finished(self, result: CellResult) -> None:
        """One cell has its result."""


@dataclass(frozen=True)
class Run:
    """What is the same for every cell of one run.

    `clock` gives UTC, `elapsed` monotonic seconds; inside `shield` no signal interrupts.
    """

    engine: Engine
    run_id: str
    tool_version: str
    sources: Mapping[str, bytes]
    reference: Reference
    clock: Callable[[], datetime]
    elapsed: Callable[[], float]
    new_marker: Callable[[], str]
    progress: Progress
    shield: Callable[[], AbstractContextManager[None]]
    kernel_log: KernelLog | None = None


def run_cells(
    run: Run,
    plan: Plan,
    cells: tuple[PlannedCell, ...],
    attempts: Mapping[str, int],
    record: Callable[[CellResult], object],
) -> None:
    """Run cells one after another; hand each result to `record` as soon as it is known.

    An interruption records what the running cell has shown so far, then goes on up.
    """
    for cell in cells:
        begin = run.elapsed()
        job = _job(run, plan, cell)
        stream = protocol.EventStream(job.request.marker)
        with _kernel_watch(run, job) as said_since:
            seen = _launch_and_follow(run, job, stream)
            with run.shield():  # what was seen is written, whatever arrives now
                seen.timings = seen.timings.model_copy(update={"total_s": run.elapsed() - begin})
                outcome = stream.outcome(seen.exit)
                if said_since is not None and seen.interrupted is None:
                    outcome = with_host_xids(outcome, job.container.gpus, said_since, run.reference.xids)
                result = _result(run, job, seen, outcome, attempts.get(cell.id, 1))
                record(result)
        run.progress.finished(result)
        if seen.interrupted is not None:
            raise seen.interrupted


def worth_again(result: CellResult) -> bool:
    """Whether a cell is tried a second time: its machine or a registry failed, and nobody stopped it."""
    return result.verdict in {Verdict.HOST_FAILED, Verdict.INCONCLUSIVE} and not result.exit.interrupted


def after(first: CellResult, second: CellResult) -> CellResult:
    """The second try, which says what the first one came to: a machine that works every other time is no good one."""
    cause = f", {first.diagnosis.cause}" if first.diagnosis else ""
    remark = f"second try; the first was {first.verdict.value}{cause}: {first.reason}"[:TEXT_LIMIT]
    return second.model_copy(update={"remarks": (remark, *second.remarks)[:REMARKS_LIMIT]})


def _kernel_watch(run: Run, job: Job) -> AbstractContextManager[Callable[[], xids.HostLog] | None]:
    if run.kernel_log is None or not job.request.gpu_required:
        return contextlib.nullcontext()
    return run.kernel_log.watch(job.runner.docker_host)


def with_host_xids(
    outcome: Outcome, gpus: GpuRequest, said_since: Callable[[], xids.HostLog], table: tuple[xids.Xid, ...]
) -> Outcome:
    """The host's view in the place of a check of the payload's plan that could not tell; the log is read only then."""
    own = next((check for check in outcome.checks if check.id == xids.CHECK), None)
    if own is None or not xids.open_question(own):
        return outcome
    cards = xids.CellCards(tuple(gpu.uuid_hash for gpu in outcome.facts.gpus), has_all=gpus in {"all", "cdi"})
    told = xids.judge(own, said_since(), cards, table)
    return outcome.model_copy(update={"checks": tuple(told if check is own else check for check in outcome.checks)})


def _result(run: Run, job: Job, seen: _Seen, outcome: Outcome, attempt: int) -> CellResult:
    judgement = judge_cell(seen.failure or outcome, seen.exit, _expectation(job, run.engine.name), run.reference)
    return CellResult(
        cell=job.cell.id,
        runner=job.runner.id,
        gpu=job.runner.gpu,
        image=seen.identity,
        run_id=run.run_id,
        tool_version=run.tool_version,
        payload_sha256=protocol.payload_sha256(run.sources),
        demand_sha256=job.demand_sha256,
        profile=job.request.profile,
        engine=run.engine.name,
        started_at=seen.started_at,
        attempt=attempt,
        timings=seen.timings,
        verdict=judgement.verdict,
        reason=judgement.reason[:TEXT_LIMIT],
        remarks=judgement.remarks,
        prediction=job.cell.prediction,
        prediction_here=_prediction_here(job, outcome, run.reference),
        facts=outcome.facts,
        checks=outcome.checks,
        benchmarks=outcome.benchmarks,
        diagnosis=judgement.diagnosis,
        exit=seen.exit,
        log=outcome.log if seen.failure is None else seen.failure.text[:LOG_LIMIT],
        repro=repro_command(run.engine.name, job, seen.identity),
    )


def _prediction_here(job: Job, outcome: Outcome, reference: Reference) -> Prediction | None:
    """The same rules for the driver and card that were found, where the configuration says others or none."""
    if job.cell.prediction is None:
        return None
    return prediction_here(job.image, machine_of(job.runner, job.container), outcome.facts, reference)


@dataclass
class _Seen:
    """What one launch has shown, filled in as far as it came."""

    identity: ImageIdentity
    started_at: datetime
    timings: Timings = field(default_factory=Timings)
    exit: Exit = field(default_factory=Exit)
    failure: LaunchFailure | None = None
    interrupted: Interrupted | None = None


def _launch_and_follow(run: Run, job: Job, stream: protocol.EventStream) -> _Seen:
    seen = _Seen(planned_identity(job.image), run.clock())
    try:
        with run.engine.launch(job, lambda text: run.progress.stage(job.cell.id, text)) as session:
            seen.identity = session.identity
            seen.timings = Timings(pull_s=session.pull_s, start_s=session.start_s)
            begin = run.elapsed()
            seen.exit = _follow(run, job, session, stream)
            seen.timings = seen.timings.model_copy(update={"payload_s": run.elapsed() - begin})
    except LaunchFailed as error:
        seen.failure = LaunchFailure(stage=error.stage, text=str(error)[:LOG_LIMIT])
        seen.identity = error.identity or seen.identity
    except Interrupted as error:
        # Kept as a value: what the cell has shown so far is a result too, and is written before the run ends.
        seen.interrupted, seen.exit = error, Exit(interrupted=True)
    return seen


def _follow(run: Run, job: Job, session: Session, stream: protocol.EventStream) -> Exit:
    """Read until the process ends; kill it when the limit and its margin are over."""
    timed_out = threading.Event()

    def kill() -> None:
        timed_out.set()
        session.kill()

    timer = threading.Timer(job.limit_s + OUTER_MARGIN_S, kill)
    timer.daemon = True
    timer.start()
    shown = None
    try:
        for channel, data in session.chunks():
            stream.feed(data, channel)
            if stream.running not in {shown, None}:
                shown = stream.running
                ended, planned = stream.progress
                run.progress.stage(job.cell.id, f"{shown} ({ended} of {planned} done)")
        exit_ = session.wait()
    finally:
        timer.cancel()
    return exit_.model_copy(update={"timed_out": True}) if timed_out.is_set() else exit_


def _job(run: Run, plan: Plan, cell: PlannedCell) -> Job:
    image, runner = plan.images[cell.image], plan.runners[cell.runner]
    request = protocol.Request(
        marker=run.new_marker(),
        profile=plan.payload.profile,
        checks=plan.payload.checks,
        benchmarks=plan.payload.benchmarks,
        gpu_required=_gpu_requested(runner, plan.container) and image.expect.get("cuda") != "none",
        expect=image.expect,
        limit_s=plan.payload.timeout,
    )
    return Job(
        cell=cell,
        image=image,
        runner=runner,
        container=plan.container,
        request=request,
        files=protocol.deployment(run.sources, request),
        limit_s=plan.payload.timeout,
        demand_sha256=demand_sha256(image, plan.payload, plan.container),
    )


def _gpu_requested(runner: PlannedRunner, container: ContainerOptions) -> bool:
    return runner.gpu is not None and container.gpus != "none"


def _expectation(job: Job, engine: EngineName) -> Expectation:
    return Expectation(
        gpu=job.runner.gpu,
        driver=job.runner.driver,
        gpu_requested=_gpu_requested(job.runner, job.container),
        gpu_required=job.request.gpu_required,
        in_container=engine is not EngineName.LOCAL,
    )


def planned_identity(image: PlannedImage) -> ImageIdentity:
    """The image as far as the plan alone tells: what was really run, an engine adds where it knows."""
    return ImageIdentity(id=image.id, variant=image.variant, ref=image.ref, env=image.env)


def repro_command(engine: EngineName, job: Job, identity: ImageIdentity) -> str:
    """One line that a reader can paste on the same machine; empty where there is none (a simulated cell)."""
    probe = "import torch; print(torch.__version__, torch.version.cuda); torch.zeros(1).cuda()"
    if not _gpu_requested(job.runner, job.container):
        probe = "import torch; print(torch.__version__, torch.ones(2, 2) @ torch.ones(2, 2))"
    if engine is EngineName.SIMULATED:
        return ""
    if engine is EngineName.LOCAL:
        return shlex.join(["python3", "-c", probe])
    words = ["docker", "run", "--rm"]
    if _gpu_requested(job.runner, job.container):
        words += gpu_arguments(job.container.gpus)
    for name, value in sorted(job.image.env.items()):
        words += ["-e", f"{name}={value}"]
    words += ["--entrypoint", "python3", exact_reference(identity), "-c", probe]
    return shlex.join(words)


def gpu_arguments(gpus: GpuRequest) -> list[str]:
    """The same request, as `docker run` spells it."""
    if gpus == "cdi":
        return ["--device", "nvidia.com/gpu=all"]
    if gpus == "all":
        return ["--gpus", "all"]
    return ["--gpus", f'"device={",".join(str(index) for index in gpus)}"']


def exact_reference(identity: ImageIdentity) -> str:
    """`repository@digest` where the digest is known, else the reference as configured."""
    if identity.digest is None or "@" in identity.ref:
        return identity.ref
    head, slash, last = identity.ref.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{identity.digest}"
