"""Owns the verdict of one cell: what was seen, turned into one word, one line and a diagnosis.

Must not know who saw it (execute, protocol) or what the policy makes of it (gate). Absent is failed, a skip is
not a pass, unknown is not a pass: a cell is good only where something ran and nothing speaks against it.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from cuda_matrix.cards import same_card
from cuda_matrix.diagnose import UNKNOWN, Evidence, Fragment, diagnose
from cuda_matrix.model import CheckStatus, Frozen, Verdict
from cuda_matrix.particulars import Tables
from cuda_matrix.result import LIKELY, REMARKS_LIMIT, BenchmarkResult, CheckResult, Diagnosis, Exit, Facts, Log
from cuda_matrix.tables import Reference

LaunchStage = Literal["pull", "create", "start"]

NO_GPU = "gpu-not-exposed"
REMARK_LENGTH = 500

_BAD = frozenset({CheckStatus.FAIL, CheckStatus.CRASH, CheckStatus.TIMEOUT})
_GOOD = frozenset({CheckStatus.PASS, CheckStatus.WARN})
_DOUBTFUL = frozenset({CheckStatus.WARN, CheckStatus.UNKNOWN, CheckStatus.INVALID})


class LaunchFailure(Frozen):
    """The engine's words about a cell that never started."""

    stage: LaunchStage
    text: str


class PlannedItem(Frozen):
    """One check or benchmark that the payload said it would run."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    kind: Literal["check", "benchmark"]


class Outcome(Frozen):
    """What the event stream of one started cell has shown; checks and benchmarks in the order of the plan."""

    hello: bool
    planned: tuple[PlannedItem, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    benchmarks: tuple[BenchmarkResult, ...] = ()
    done: bool = False
    facts: Facts = Facts()
    log: Log = ""
    anomalies: tuple[str, ...] = Field(default=(), description="What came with the marker and could not be.")


class Expectation(Frozen):
    """What the configuration says of the machine. `gpu_required` is false for a CPU image on purpose."""

    gpu: str | None = None
    driver: str | None = None
    gpu_requested: bool = False
    gpu_required: bool = False
    in_container: bool = Field(default=True, description="False where the payload ran on the machine itself.")


class Judgement(NamedTuple):
    """The verdict, why in one line, what else a reader should know, and the cause where something failed."""

    verdict: Verdict
    reason: str
    remarks: tuple[str, ...]
    diagnosis: Diagnosis | None


def judge_cell(seen: LaunchFailure | Outcome, exit_: Exit, expectation: Expectation, reference: Reference) -> Judgement:
    """Judge one cell. The first rule that speaks wins; only a cell against which none speaks can pass."""
    if exit_.interrupted:
        return Judgement(Verdict.INCONCLUSIVE, "interrupted", (), None)
    if isinstance(seen, LaunchFailure):
        return _launch_failed(seen, exit_, expectation, reference)
    case = _Case(seen, exit_, expectation, reference)
    for rule in (_never_started, _other_card, _item_failed, _incomplete, _ran_on_cpu, _nothing_ran):
        judgement = rule(case)
        if judgement is not None:
            return judgement
    return _good(case)


class _Case(NamedTuple):
    outcome: Outcome
    exit: Exit
    expectation: Expectation
    reference: Reference

    @property
    def items(self) -> tuple[CheckResult, ...]:
        return (*self.outcome.checks, *self.outcome.benchmarks)

    def diagnose(self, fragments: tuple[Fragment, ...], exit_: Exit, hint: str | None = None) -> Diagnosis:
        evidence = Evidence(
            stage="run",
            fragments=fragments,
            exit=exit_,
            facts=self.outcome.facts,
            hint=hint,
            gpu_requested=self.expectation.gpu_requested,
        )
        return _diagnosed(evidence, self.reference)

    def diagnose_or(self, fallback: str, fragments: tuple[Fragment, ...], exit_: Exit) -> Diagnosis:
        """What the texts say, else the cause that the bare event stands for."""
        diagnosis = self.diagnose(fragments, exit_)
        return diagnosis if diagnosis.cause != UNKNOWN else self.diagnose(fragments, exit_, hint=fallback)

    def failed(self, diagnosis: Diagnosis, reason: str) -> Judgement:
        if diagnosis.cause == NO_GPU and not self.expectation.in_container:
            # Nothing stands between the payload and the machine that could have kept its card away.
            diagnosis = diagnosis.model_copy(update={"side": "host"})
        return Judgement(_blame(diagnosis), reason, _remarks(self), diagnosis)


def _diagnosed(evidence: Evidence, reference: Reference) -> Diagnosis:
    return diagnose(evidence, reference.catalogue, reference.drivers, Tables.of(reference))


def _blame(diagnosis: Diagnosis) -> Verdict:
    """Who must act. A guess excuses no image: what a machine is blamed for is not held against the image."""
    if diagnosis.side == "host":
        return Verdict.HOST_FAILED if diagnosis.confidence >= LIKELY else Verdict.FAIL
    return Verdict.INCONCLUSIVE if diagnosis.side == "registry" else Verdict.FAIL


def _launch_failed(failure: LaunchFailure, exit_: Exit, expectation: Expectation, reference: Reference) -> Judgement:
    evidence = Evidence(
        stage=failure.stage,
        fragments=(Fragment(where=failure.stage, text=failure.text),),
        exit=exit_,
        gpu_requested=expectation.gpu_requested,
    )
    diagnosis = _diagnosed(evidence, reference)
    verdict = _blame(diagnosis)
    if failure.stage == "pull" and diagnosis.cause == UNKNOWN:
        verdict = Verdict.INCONCLUSIVE  # the image never arrived: nothing is known of it
    return Judgement(verdict, f"{failure.stage}: {_headline(diagnosis)}", (), diagnosis)


def _never_started(case: _Case) -> Judgement | None:
    if case.outcome.hello:
        return None
    # A limit that ran out here is the entrypoint's own program, which never handed over: the kill was ours.
    exit_ = Exit(oom_killed=case.exit.oom_killed) if case.exit.timed_out else case.exit
    diagnosis = case.diagnose_or("payload-never-started", (Fragment(where="log", text=case.outcome.log),), exit_)
    return case.failed(diagnosis, f"the payload never spoke: {_headline(diagnosis)}")


def _other_card(case: _Case) -> Judgement | None:
    """The card that worked decides; a machine may hold another one beside it, for its display."""
    facts, configured = case.outcome.facts, case.expectation.gpu
    seen = [facts.device_name] if facts.device_name else [gpu.name for gpu in facts.gpus]
    if configured is None or not seen or any(same_card(configured, name, case.reference.cards) for name in seen):
        return None
    said = f"the machine has {', '.join(dict.fromkeys(seen))}; the configuration says {configured}"
    diagnosis = case.diagnose((Fragment(where="facts", text=said),), Exit(), hint="runner-card-mismatch")
    return case.failed(diagnosis, said)


def _item_failed(case: _Case) -> Judgement | None:
    """Blame the first bad item in the order of the plan: what comes after it may be its consequence.

    A skip that names a cause (the cell's time was up) is no harmless skip.
    """
    causes = case.reference.catalogue.causes
    bad = [i for i in case.items if i.status in _BAD or (i.status is CheckStatus.SKIP and i.cause in causes)]
    if not bad:
        return None
    root = bad[0]
    exit_ = _exit_of(root, case)
    diagnosis = case.diagnose(_fragments(root), exit_, hint=root.cause)
    if diagnosis.cause == UNKNOWN:
        everything = tuple(fragment for item in bad for fragment in _fragments(item))
        everything += (Fragment(where="log", text=case.outcome.log),)
        fallback = {
            CheckStatus.TIMEOUT: "cell-timeout" if case.exit.timed_out else "check-timeout",
            CheckStatus.CRASH: "native-crash",
        }.get(root.status, UNKNOWN)
        diagnosis = case.diagnose_or(fallback, everything, exit_)
    said = diagnosis.title if diagnosis.cause != UNKNOWN else root.summary or root.status.value
    others = [item.id for item in bad[1:] if item.status in _BAD]
    also = f" (also failed: {', '.join(others)})" if others else ""
    return case.failed(diagnosis, f"{root.id}: {said}{also}"[:REMARK_LENGTH])


def _fragments(item: CheckResult) -> tuple[Fragment, ...]:
    texts = [text for text in (item.evidence, item.log) if text.strip()] or [item.summary]
    return tuple(Fragment(where=item.id, text=text) for text in texts)


def _exit_of(item: CheckResult, case: _Case) -> Exit:
    """How the item's own process ended, where it says so (`numbers`: signal, exit_code), else the container."""
    signal, code = item.numbers.get("signal"), item.numbers.get("exit_code")
    if isinstance(signal, int) or isinstance(code, int):
        return Exit(
            signal=signal if isinstance(signal, int) else None,
            code=code if isinstance(code, int) else None,
            oom_killed=case.exit.oom_killed,
        )
    if case.outcome.done:
        return Exit(oom_killed=case.exit.oom_killed and item.status is CheckStatus.CRASH)
    return case.exit


def _incomplete(case: _Case) -> Judgement | None:
    ended = {item.id for item in case.items}
    missing = [item.id for item in case.outcome.planned if item.id not in ended]
    if case.outcome.done and not missing:
        return None
    diagnosis = case.diagnose_or("result-incomplete", (Fragment(where="log", text=case.outcome.log),), case.exit)
    what = f"no result of {', '.join(missing)}" if missing else "the stream was cut before its last line"
    return case.failed(diagnosis, f"{what}: {_headline(diagnosis)}"[:REMARK_LENGTH])


def _ran_on_cpu(case: _Case) -> Judgement | None:
    """The payload must report this itself; what it calls a pass is looked at again here."""
    if not case.expectation.gpu_required:
        return None
    on_cpu = [item for item in case.items if item.status in _GOOD and not (item.device or "cuda").startswith("cuda")]
    if not on_cpu:
        return None
    fragments = (Fragment(where=on_cpu[0].id, text=on_cpu[0].evidence or f"{on_cpu[0].id} ran on cpu"),)
    diagnosis = case.diagnose(fragments, Exit(), hint="silent-cpu-fallback")
    return case.failed(diagnosis, f"{on_cpu[0].id}: {diagnosis.title}")


def _nothing_ran(case: _Case) -> Judgement | None:
    good = [item for item in case.items if item.status in _GOOD]
    if not good:
        return Judgement(Verdict.INCONCLUSIVE, "no check was run", _remarks(case), None)
    if case.expectation.gpu_required and not any((item.device or "").startswith("cuda") for item in good):
        return Judgement(Verdict.INCONCLUSIVE, "no check was run on the GPU", _remarks(case), None)
    return None


def _good(case: _Case) -> Judgement:
    remarks = _remarks(case)
    doubtful = [item.id for item in case.items if item.status in _DOUBTFUL]
    skipped = sum(item.status is CheckStatus.SKIP for item in case.items)
    passed = sum(item.status is CheckStatus.PASS for item in case.items)
    counts = f"{passed} of {len(case.items)} passed" + (f", {skipped} skipped" if skipped else "")
    if not remarks:
        return Judgement(Verdict.PASS, counts, (), None)
    reason = f"{counts}; remarks on {', '.join(doubtful) or 'the machine'}"
    return Judgement(Verdict.WARN, reason[:REMARK_LENGTH], remarks, None)


def _remarks(case: _Case) -> tuple[str, ...]:
    """Everything that keeps a cell from a plain pass without failing it."""
    facts, expectation, exit_ = case.outcome.facts, case.expectation, case.exit
    found = [f"{item.id}: {item.summary or item.status.value}" for item in case.items if item.status in _DOUBTFUL]
    found += [f"event stream: {anomaly}" for anomaly in case.outcome.anomalies]
    if expectation.driver and facts.driver and facts.driver != expectation.driver:
        found.append(f"the machine has driver {facts.driver}; the configuration says {expectation.driver}")
    if case.outcome.done and exit_.timed_out:
        found.append("the container did not end by itself after its last result")
    elif case.outcome.done and (exit_.signal or exit_.code):
        how = f"signal {exit_.signal}" if exit_.signal else f"exit code {exit_.code}"
        found.append(f"the container ended with {how} after its last result")
    elif exit_.oom_killed:
        found.append("the memory limit killed a process of the container")
    return tuple(remark[:REMARK_LENGTH] for remark in found[:REMARKS_LIMIT])


def _headline(diagnosis: Diagnosis) -> str:
    return diagnosis.title if diagnosis.cause != UNKNOWN else (diagnosis.evidence or diagnosis.title)[:REMARK_LENGTH]
