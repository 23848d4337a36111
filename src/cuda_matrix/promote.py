"""Owns what is promoted: which digests earned their release tags in these results, or every reason why none did.

Pure: plan, verdict and the clock's time are arguments. Must not know how a tag is given (adapters/registry_tags).
All or nothing: a release is a set of images that were judged together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cuda_matrix.config import Config
from cuda_matrix.explain import listed
from cuda_matrix.gate import GOOD, GateVerdict, Judgement, requires, selected, utc
from cuda_matrix.image_reference import problem_of
from cuda_matrix.matrix import Expansion
from cuda_matrix.model import EngineName, Verdict
from cuda_matrix.plan import Plan, PlannedImage, SkippedCell
from cuda_matrix.release_tags import release_findings

CLOCKS_APART = timedelta(minutes=10)  # two machines' clocks may differ by this much
_COUNTED = GOOD | {Verdict.EXPECTED_FAIL}


@dataclass(frozen=True)
class Promotion:
    """One image that may be released: `targets` are to name `digest`, which `ref` named when it was tested."""

    image: str
    ref: str
    digest: str
    targets: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """Promotions, or the reasons why there are none. Texts may hold words of a registry or a container."""

    promotions: tuple[Promotion, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# Image id → ids of its cells that the configuration requires, whether they were planned or not.
Demanded = Mapping[str, Sequence[str]]


def as_configured(plan: Plan, config: Config, expansion: Expansion) -> tuple[Plan, Demanded]:
    """The plan under the policy, references and release tags of a configuration, and the cells that it requires.

    An image that is released from another reference by now has no result: the gate says so.
    """
    images = {key: _as_configured(row, expansion.images.get(key)) for key, row in plan.images.items()}
    demanded: dict[str, list[str]] = {row.id: [] for row in expansion.images.values() if row.release}
    for cell in expansion.cells:
        row = expansion.images[cell.image]
        if row.release and requires(config.policy, cell.id):
            demanded[row.id].append(cell.id)
    return plan.model_copy(update={"images": images, "policy": config.policy}), demanded


def _as_configured(row: PlannedImage, configured: PlannedImage | None) -> PlannedImage:
    if configured is None:
        return row.model_copy(update={"release": ()})
    return row.model_copy(update={"release": configured.release, "ref": configured.ref})


def decide(plan: Plan, verdict: GateVerdict, now: datetime, demanded: Demanded | None = None) -> Decision:
    """Judge every image that has release tags. `now` has an offset.

    `demanded` comes from a configuration; without it the plan must hold the whole matrix, since nothing says whether
    the rest of it is required.
    """
    if not verdict.released:
        return Decision(reasons=tuple(reason.text for reason in verdict.reasons))
    part = selected(plan)
    if part and demanded is None:
        text = (
            f"only {part[0]:,} of {part[1]:,} cells of the matrix were selected: say with --config what the others are"
        )
        return Decision(reasons=(text,))
    unfit = tuple(_unfit(plan))
    if unfit:
        return Decision(reasons=unfit)
    cells = _cells_of_images(plan, verdict)
    found = [_Candidate(plan, image, cells.get(image, []), now) for image in _released(plan, demanded or {})]
    for candidate in found:
        candidate.judge((demanded or {}).get(candidate.image, ()))
    reasons = tuple(f"{each.image}: {reason}" for each in found for reason in each.reasons)
    notes = tuple(f"{each.image}: {note}" for each in found for note in each.notes)
    if reasons:
        return Decision(reasons=reasons, notes=notes)
    return Decision(promotions=tuple(each.promotion() for each in found), notes=notes)


def _released(plan: Plan, demanded: Demanded) -> list[str]:
    return list(dict.fromkeys([*(row.id for row in plan.images.values() if row.release), *demanded]))


def _unfit(plan: Plan) -> Iterator[str]:
    """What `validate` would say of the plan's references: a plan may come from another machine."""
    rows = list({row.id: row for row in plan.images.values() if row.release}.values())
    for row in rows:
        problem = problem_of(row.ref)
        if problem:
            yield f"{row.id}: {problem}"
    for finding in release_findings(list(enumerate(rows))):
        yield f"{rows[int(finding.path[1])].id}: {finding.message}"


def _cells_of_images(plan: Plan, verdict: GateVerdict) -> dict[str, list[Judgement]]:
    """Image id → its cells: variants are one image, and get their tags together."""
    cells: dict[str, list[Judgement]] = {}
    for judged in verdict.cells.values():
        cells.setdefault(plan.images[judged.image].id, []).append(judged)
    return cells


@dataclass
class _Candidate:
    """One image while it is judged."""

    plan: Plan
    image: str
    cells: list[Judgement]
    now: datetime
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    builds: dict[str, list[str]] = field(default_factory=dict)  # digest → what ran it

    @property
    def rows(self) -> list[PlannedImage]:
        return [row for row in self.plan.images.values() if row.id == self.image]

    def promotion(self) -> Promotion:
        """What is given, after `judge` found no reason against it."""
        (digest,) = self.builds
        row = self.rows[0]
        return Promotion(self.image, row.ref, digest, row.release, tuple(judged.cell for judged in self.cells))

    def judge(self, demanded: Sequence[str]) -> None:
        """Collect every reason, the notes and the digests."""
        known = {judged.cell for judged in self.cells}
        unplanned = [cell for cell in demanded if cell not in known]
        if unplanned:
            self.reasons.append(f"required, but not in the plan: {listed(unplanned)}")
        if not any(judged.required for judged in self.cells):
            self.reasons.append("no cell of it is required (policy.required), so nothing was demanded of it")
        skipped = {cell.id: cell for cell in self.plan.skipped}
        good = False
        for judged in self.cells:
            reason = self._reason(judged, skipped.get(judged.cell))
            if reason:
                self.reasons.append(f"{judged.cell}: {reason}")
            good |= judged.verdict in GOOD
        if not good and any(judged.skip_kind == "unchanged" for judged in self.cells):
            self.reasons.append("none of its cells passed in this run (unchanged since another): plan all of it anew")
        elif not good:
            self.reasons.append("none of its cells passed")
        if self.builds:
            for row in self.rows:
                if row.digest:
                    self.builds.setdefault(row.digest, []).append("the plan")
        if len(self.builds) > 1:
            told = "; ".join(f"{digest} ({listed(names)})" for digest, names in self.builds.items())
            self.reasons.append(f"different digests were tested: {told}")
        self.notes.extend(_notes(self.cells))

    def _reason(self, judged: Judgement, skipped: SkippedCell | None) -> str:
        """Why this cell forbids it; empty where it does not. Its digest is noted where it counts."""
        result = judged.result
        if result is not None and judged.verdict in _COUNTED:
            if result.engine is not EngineName.DOCKER:
                return f"its result is of the {result.engine.value} engine: no image was run for it"
            return self._build(judged, result.image.digest) or self._age(result.started_at)
        if judged.skip_kind == "unchanged" and skipped is not None:
            if skipped.digest is None or skipped.tested_at is None:
                return "it was skipped as unchanged, and the plan does not say since when, and with which digest"
            return self._build(judged, skipped.digest) or self._age(skipped.tested_at)
        return ""

    def _build(self, judged: Judgement, digest: str | None) -> str:
        if digest is None:
            return "its image has no digest of a registry: it was built on the machine, or never pushed"
        self.builds.setdefault(digest, []).append(judged.cell)
        return ""

    def _age(self, moment: datetime) -> str:
        age = self.now - utc(moment)
        most = timedelta(seconds=self.plan.policy.max_age)
        if age > most:
            return f"its result is {_amount(age)} old; policy.max_age is {_amount(most)}"
        if age < -CLOCKS_APART:
            return f"its result is from the future (by {_amount(-age)}): a clock is wrong"
        return ""


def _notes(cells: Sequence[Judgement]) -> Iterator[str]:
    """What is let through without having passed, in groups."""
    groups: dict[str, list[str]] = {}
    for judged in cells:
        if judged.verdict is Verdict.SKIPPED:
            groups.setdefault(f"not run ({judged.skip_kind})", []).append(judged.cell)
        elif judged.verdict is Verdict.EXPECTED_FAIL:
            groups.setdefault("failed as the policy expects", []).append(judged.cell)
        elif judged.verdict not in GOOD:
            groups.setdefault(f"{judged.verdict.value}, but not required", []).append(judged.cell)
    for what, names in groups.items():
        yield f"{what}: {listed(names)}"


def _amount(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    if hours >= 48:
        return f"{hours / 24:.1f} days".replace(".0 ", " ")
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"
