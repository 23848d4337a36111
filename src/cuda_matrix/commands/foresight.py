"""Owns what the verbs that foretell share: the registries' answers, the forecast over a plan, which machine is meant.

Must not know how a prediction is worked out (predict) or shown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

_WORDS_LIMIT = 300  # characters of what is wrong with an option
_PROBLEMS_SHOWN = 20
_NO_DRIVER = "unknown-driver"  # the rule that says so
_REFS_SHOWN = 3  # of the images that share a reason
_WIDTH = 100  # columns of prose, as in the report
_SMI_LIMIT_S = 15.0  # many cards without the persistence daemon take some seconds to answer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cuda_matrix.errors import Problem
    from cuda_matrix.examination import SeenCard
    from cuda_matrix.host_facts import HostFacts
    from cuda_matrix.image_facts import ImageFacts
    from cuda_matrix.plan import Plan
    from cuda_matrix.prediction import Prediction
    from cuda_matrix.tables import Reference


def ask_registries(refs: Collection[str], *, needed: Collection[str] = ()) -> dict[str, ImageFacts | str]:
    """What the registries say: reference → facts, or the reason why there are none. No Docker daemon is needed.

    Raises:
        InfrastructureError: of the references in `needed`, no registry could be reached for any.
    """
    if not refs:
        return {}
    from cuda_matrix.adapters.registry import Registry
    from cuda_matrix.errors import InfrastructureError

    registry = Registry(os.environ)
    answers = registry.facts(sorted(refs))
    if needed and registry.out_of_reach.issuperset(needed):
        first = min(needed)
        msg = f"no registry answers: {first}: {answers[first]}"
        raise InfrastructureError(msg, hint="`--offline` goes on without them")
    return answers


def digests(asked: Mapping[str, ImageFacts | str]) -> dict[str, str]:
    """Reference → digest, or the reason why it is unknown: what `matrix.with_digests` reads."""
    return {
        ref: answer if isinstance(answer, str) else answer.digest or "the registry gave no digest"
        for ref, answer in asked.items()
    }


def foretold(plan: Plan, asked: Mapping[str, ImageFacts | str], *, skip: bool) -> Plan:
    """The plan with its predictions; with `skip`, without the cells that are sure to fail."""
    from cuda_matrix.forecast import with_predictions, without_doomed
    from cuda_matrix.reference import load_reference

    reference = load_reference()
    plan = with_predictions(plan, asked, reference)
    return without_doomed(plan, reference) if skip else plan


def detected_hosts(reference: Reference) -> tuple[HostFacts, ...]:
    """The different cards of this machine as its nvidia-smi tells them; empty where there is none."""
    from cuda_matrix.adapters import nvidia_smi
    from cuda_matrix.adapters.programs import Programs
    from cuda_matrix.examination import named_cards

    programs = Programs(os.environ.get("PATH", os.defpath), os.environ, _SMI_LIMIT_S)
    seen = dict.fromkeys(named_cards(nvidia_smi.ask(programs)))
    return tuple(dict.fromkeys(this_machine(card, reference) for card in seen))


def this_machine(card: SeenCard, reference: Reference) -> HostFacts:
    """This machine with one of its cards, which needs no row in the table: what nvidia-smi says serves most rules."""
    import platform

    from cuda_matrix.forecast import Machine, host_of

    known = host_of(Machine(card.name, card.driver, platform.machine(), "hook"), reference)
    if card.capability is None or known.compute_capability == card.capability:
        return known
    return known.model_copy(update={"card": None, "compute_capability": card.capability})


def is_same_card(asked: HostFacts, gpu: str | None, reference: Reference) -> bool:
    """Whether a name means the card that was asked for: by its names, or by the capability that was given instead."""
    from cuda_matrix.cards import same_card
    from cuda_matrix.forecast import Machine, host_of

    if gpu is None or asked.gpu is None:
        return False
    if asked.card is None and asked.gpu == asked.compute_capability:
        return host_of(Machine(gpu, None, asked.machine, "hook"), reference).compute_capability == asked.gpu
    names = {asked.gpu, asked.card.name if asked.card else asked.gpu}
    return any(same_card(name, gpu, reference.cards) or same_card(gpu, name, reference.cards) for name in names)


def configured_hosts(config: str | None, reference: Reference) -> list[tuple[str, HostFacts]]:
    """(runner, its machine) for every runner with a card; empty where there is no configuration at all.

    Raises:
        ConfigurationError: the configuration is wrong.
    """
    from cuda_matrix import config_files
    from cuda_matrix.forecast import host_of, machine_of

    if config is None and not has_configuration():
        return []
    loaded = config_files.load(config)
    runners = [runner for runner in loaded.expansion.runners.values() if runner.gpu is not None]
    return [(row.id, host_of(machine_of(row, loaded.config.container), reference)) for row in runners]


def has_configuration() -> bool:
    """Whether this folder holds one, right or wrong."""
    from cuda_matrix.config_files import DIRECTORY, SINGLE_FILE

    return Path(DIRECTORY).is_dir() or Path(SINGLE_FILE).exists()


def check_driver(driver: str | None) -> None:
    """Refuse what is no driver version.

    Raises:
        ConfigurationError: `--driver` is not one.
    """
    from pydantic import TypeAdapter, ValidationError

    from cuda_matrix.config import DriverVersion
    from cuda_matrix.errors import ConfigurationError

    try:
        TypeAdapter(DriverVersion | None).validate_python(driver)
    except ValidationError as error:
        words = error.errors()[0]["msg"].removeprefix("Value error, ")
        msg = f"--driver: {words if len(words) < _WORDS_LIMIT else 'that is no driver version'}"
        raise ConfigurationError(msg) from error


def show_unanswered(answers: Mapping[str, ImageFacts | str]) -> None:
    """On stderr: the images of which only tag and configuration are known, and why. One note per reason."""
    from cuda_matrix.report.numbers import plural

    by_reason: dict[str, list[str]] = {}
    for ref, reason in answers.items():
        if isinstance(reason, str):
            by_reason.setdefault(reason.replace(ref, "the image"), []).append(ref)
    for reason, refs in by_reason.items():
        named = ", ".join(refs[:_REFS_SHOWN]) + (", …" if len(refs) > _REFS_SHOWN else "")
        which = named if len(refs) == 1 else f"{plural(len(refs), 'image')} ({named})"
        click.echo(wrapped(f"note: predicted without a registry: {which}: {reason}"), err=True)


def driverless(plan: Plan, known: Collection[str] = ()) -> tuple[str, ...]:
    """One line per runner of which nobody says the driver, where that leaves its cells without a prediction.

    `known`: runners whose driver something else than the configuration tells.
    """
    unsaid = {cell.runner for cell in plan.cells if cell.prediction and cell.prediction.rule == _NO_DRIVER}
    return tuple(
        f"{key} has no `driver:`: its predictions are unknown; add it to the runner, or give --driver to `predict`"
        for key, runner in plan.runners.items()
        if key in unsaid and runner.driver is None and key not in known
    )


def wrapped(text: str, indent: int = 0) -> str:
    """Text that came from anywhere, cleaned, in lines to be read; those after the first are indented by 2 more."""
    import textwrap

    from cuda_matrix.report.escape import console_text

    return textwrap.fill(
        console_text(text),
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def show_unread(problems: Sequence[Problem]) -> None:
    """On stderr: the files of results that say nothing here, because nobody can read them."""
    from cuda_matrix.report.escape import console_text

    for problem in problems[:_PROBLEMS_SHOWN]:
        click.echo(f"note: not read: {console_text(str(problem))}", err=True)
    if len(problems) > _PROBLEMS_SHOWN:
        click.echo(f"note: and {len(problems) - _PROBLEMS_SHOWN} more files that cannot be read", err=True)


def symbol(prediction: Prediction) -> str:
    """The symbol that a report gives the verdict of the same name."""
    from cuda_matrix.model import Verdict
    from cuda_matrix.report.words import WORDS

    verdict = Verdict.INCONCLUSIVE if prediction.verdict == "unknown" else Verdict(prediction.verdict)
    return WORDS[verdict].symbol


def said(prediction: Prediction) -> str:
    """`fail: driver-too-old`."""
    return f"{prediction.verdict}: {prediction.cause}" if prediction.cause else prediction.verdict
