"""Owns the choice of an image for one card and driver: what was measured there first, what is predicted after it.

Must not know where results lie, how a card is detected, or how the answer looks (commands).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cuda_matrix.facts import version_key
from cuda_matrix.host_facts import HostFacts
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.predict import predict
from cuda_matrix.prediction import Prediction
from cuda_matrix.tables import Reference

Basis = Literal["measured", "simulated", "predicted"]


class Candidate(NamedTuple):
    """One image that may be recommended. `image` is its key: id, or id+variant."""

    image: str
    ref: str
    facts: ImageFacts


class Trial(NamedTuple):
    """What one run showed of an image on the very card that is asked for. `images_per_s` is None without a figure."""

    image: str
    driver: str | None
    works: bool
    cause: str = ""
    images_per_s: float | None = None
    stable: bool = True
    simulated: bool = False


@dataclass(frozen=True)
class Choice:
    """One image, on what its place rests, and what the rules say of it here. `trial` is what it was measured by."""

    image: str
    ref: str
    basis: Basis
    prediction: Prediction
    trial: Trial | None = None


@dataclass(frozen=True)
class Recommendation:
    """`fits`: best first. `unfit`: newest first. `unknown`: a fact is missing, so that nobody can say.

    `needs_driver`: the oldest driver with which at least one image that does not fit would; None where none helps.
    """

    fits: tuple[Choice, ...]
    unfit: tuple[Choice, ...]
    unknown: tuple[Choice, ...]
    needs_driver: str | None


def recommend(
    candidates: Iterable[Candidate], trials: Sequence[Trial], host: HostFacts, reference: Reference
) -> Recommendation:
    """Rank the images for one machine.

    A trial on another driver counts only where the rules say the same of both drivers. A simulated trial counts only
    where nothing was measured at all, and is then called simulated.
    """
    measured = [trial for trial in trials if not trial.simulated]
    counting = measured or trials
    ages = {}
    choices = []
    for candidate in candidates:
        said = predict(candidate.facts, host, reference)
        trial = _trial(candidate, said, counting, host, reference)
        basis: Basis = "predicted" if trial is None else "simulated" if trial.simulated else "measured"
        choices.append(Choice(candidate.image, candidate.ref, basis, said, trial))
        ages[candidate.image] = _age(candidate.facts)
    choices.sort(key=lambda choice: ages[choice.image], reverse=True)  # newest first, where nothing else decides
    fits = sorted((choice for choice in choices if _works(choice)), key=_rank)
    unfit = [choice for choice in choices if _works(choice) is False]
    helps = [choice.prediction.needs_driver for choice in unfit if choice.prediction.fails]
    drivers = [driver for driver in helps if driver is not None]
    return Recommendation(
        fits=tuple(fits),
        unfit=tuple(unfit),
        unknown=tuple(choice for choice in choices if _works(choice) is None),
        needs_driver=min(drivers, key=version_key, default=None),
    )


def _works(choice: Choice) -> bool | None:
    """What was measured has the last word; None where neither side says anything."""
    if choice.trial is not None:
        return choice.trial.works
    return True if choice.prediction.runs else False if choice.prediction.fails else None


def _trial(
    candidate: Candidate, said: Prediction, trials: Sequence[Trial], host: HostFacts, reference: Reference
) -> Trial | None:
    """The trial that speaks for this machine: of its own driver, else of one that changes nothing."""
    own = [trial for trial in trials if trial.image == candidate.image]
    here = next((trial for trial in own if trial.driver is not None and trial.driver == host.driver), None)
    if here is not None or said.verdict == "unknown":
        return here
    for trial in own:
        there = host.model_copy(update={"driver": trial.driver, "driver_cuda": None})
        if trial.driver is not None and predict(candidate.facts, there, reference).verdict == said.verdict:
            return trial
    return None


def _rank(choice: Choice) -> tuple[int, bool, float]:
    """Measured before predicted; of the measured, stable and fast ones first; of the others, those without a `warn`."""
    if choice.trial is None:
        return 1, choice.prediction.verdict != "pass", 0.0
    speed = choice.trial.images_per_s
    return 0, speed is None or not choice.trial.stable, -(speed or 0.0)


def _age(facts: ImageFacts) -> tuple[tuple[int, ...], ...]:
    """How new an image is: by its PyTorch, then by its CUDA. What is not known counts as old."""
    return version_key(facts.torch or ""), version_key(facts.cuda or "")
