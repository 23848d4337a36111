"""Owns the remarks at files of a pull request: one for each required cell that stands in the way of a release.

Must not know check runs or workflow commands. Texts come out of containers: each is made harmless and bounded here.
The runner cuts a message of a workflow command at 4,096 characters (actions/runner, ExecutionContext.cs).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from pydantic import ValidationError

from cuda_matrix.changes import touched as touched_file
from cuda_matrix.forge import Annotation, Level
from cuda_matrix.gate import GateVerdict, Judgement
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Place, Plan, PlannedImage
from cuda_matrix.report.differences import BAD
from cuda_matrix.report.escape import console_text, short
from cuda_matrix.report.sections import section, word, works_here
from cuda_matrix.report.view import Section

TITLE_CHARACTERS = 255
MESSAGE_CHARACTERS = 4_096

_TEXT = 900  # characters of one part of a message: evidence, explanation, one step
_STEPS = 2
_LEVELS: dict[Verdict, Level] = {Verdict.HOST_FAILED: "warning", Verdict.INCONCLUSIVE: "warning"}
_RECIPE = re.compile(
    r"(?:.*/)?(?:(?:Dockerfile|Containerfile)(?:[.-][^/]*)?|[^/]*\.(?:Dockerfile|Containerfile))", re.IGNORECASE
)


def of(plan: Plan, gate: GateVerdict, touched: Collection[str] = ()) -> tuple[Annotation, ...]:
    """One annotation per failing required cell, in plan order.

    It stands at line 1 of the Dockerfile that the image is built from, where `touched` (files of the repository that
    the pull request changes) names one that the image's `paths` cover; else where the image is configured. A cell of
    which neither is known has none: it is in the report.
    """
    return tuple(_annotations(plan, gate, touched))


def _annotations(plan: Plan, gate: GateVerdict, touched: Collection[str]) -> Iterator[Annotation]:
    places: dict[str, Place | None] = {}
    for judged in gate.cells.values():
        if not judged.required or judged.verdict not in BAD:
            continue
        if judged.image not in places:
            places[judged.image] = _place(plan.images[judged.image], touched)
        place = places[judged.image]
        if place is not None:
            title = short(console_text(f"{judged.cell}: {word(judged)}"), TITLE_CHARACTERS)
            level = _LEVELS.get(judged.verdict, "failure")
            yield Annotation(place.file, place.line, level, title, _message(judged, gate))


def _place(image: PlannedImage, touched: Collection[str]) -> Place | None:
    changed = touched_file(image, sorted(file for file in touched if _RECIPE.fullmatch(file)))
    try:
        return Place(file=changed, line=1) if changed else image.place
    except ValidationError:  # a fork may name its files as it likes
        return image.place


def _message(judged: Judgement, gate: GateVerdict) -> str:
    if judged.result is None:
        return short(f"No result: {_line(judged.reason)}", MESSAGE_CHARACTERS)
    said = section(judged, works_here(judged, gate.cells.values()))
    return short("\n".join(line for line in _lines(said) if line), MESSAGE_CHARACTERS)


def _lines(said: Section) -> Iterator[str]:
    yield _line(said.evidence)
    yield _line(said.explanation or said.reason)
    yield from (_line(f"{number}. {step}") for number, step in enumerate(said.steps[:_STEPS], 1))


def _line(text: str) -> str:
    return console_text(short(text, _TEXT))
