"""Owns the verb `recommend`: which card and driver are meant, what was measured on it, and how the answer looks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cuda_matrix.host_facts import HostFacts
    from cuda_matrix.plan import Plan
    from cuda_matrix.recommend import Candidate, Choice, Recommendation, Trial
    from cuda_matrix.result import CellResult
    from cuda_matrix.tables import Reference

DEFAULT_RESULTS = Path("results")  # where `run` writes them
SHOWN = 20  # of one list; the document has all


@dataclass(frozen=True)
class Options:
    """The verb's options, as click gives them."""

    gpu: str | None
    driver: str | None
    results: Path | None
    config: str | None
    offline: bool
    as_json: bool


@click.command(short_help="Say which image to use on a card and driver; exit 0 or 1.")
@click.option("--gpu", metavar="NAME", help="A card (RTX 3090, A800 80GB). Default: this machine's.")
@click.option("--driver", metavar="V", help="For example 550.54.15. Default: this machine's, else the runner's.")
@click.option(
    "--results",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR",
    help="What was measured. Default: results/, where there is one.",
)
@click.option(
    "--config", metavar="PATH", help="Directory of YAML files, or one file. Default: matrix/, else cuda-matrix.yml."
)
@click.option("--offline", is_flag=True, help="Ask no registry: what the references and the configuration tell.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(**values: Any) -> None:
    """Say which image to use on a card and driver; exit 0 or 1.

    Images that were measured on such a card come first, the fastest first; images that are only predicted to work come
    after them, marked. Then those that do not fit, and why. Exit 1: no image of this matrix is known to work there.
    """
    from cuda_matrix.commands import foresight
    from cuda_matrix.errors import ExitCode
    from cuda_matrix.recommend import recommend
    from cuda_matrix.reference import load_reference

    options = Options(**values)
    foresight.check_driver(options.driver)
    reference = load_reference()
    results, plan = _material(options)
    plan = _without_machines_themselves(plan, results)
    plan = foresight.foretold(plan, _answers(options, plan), skip=False)
    host = _host(options, plan, results, reference)
    trials = [_trial(result) for result in results if _speaks(result, host, reference)]
    found = recommend(_candidates(plan), trials, host, reference)
    click.echo(json.dumps(_document(found, host), indent=2) if options.as_json else "\n".join(_text(found, host)))
    click.get_current_context().exit(ExitCode.GOOD if found.fits else ExitCode.GATE_SAYS_NO)


def _material(options: Options) -> tuple[tuple[CellResult, ...], Plan]:
    """The results that count, and the images to choose from: of the configuration, and of results that were named.

    Raises:
        ConfigurationError: there is neither.
    """
    from cuda_matrix import config_files, matrix
    from cuda_matrix.commands import foresight
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.result_files import read_results

    folder = options.results or (DEFAULT_RESULTS if DEFAULT_RESULTS.is_dir() else None)
    found = read_results([folder]) if folder else None
    foresight.show_unread(found.problems if found else ())
    results = found.results if found else ()
    if options.config is not None or foresight.has_configuration():
        loaded = config_files.load(options.config)
        lanes = max(matrix.MAX_JOBS, len(loaded.expansion.runners))
        plan = matrix.make_plan(loaded.expansion, loaded.config, max_jobs=lanes)
        if options.results is not None and found is not None and found.plan is not None:
            images, runners = {**found.plan.images, **plan.images}, {**found.plan.runners, **plan.runners}
            plan = plan.model_copy(update={"images": images, "runners": runners})
        return results, plan
    if found is None or found.plan is None:
        msg = "no images to choose from: there is no configuration here, and no results with their plan"
        raise ConfigurationError(
            msg, hint="give --config PATH or --results DIR; `cuda-matrix init` writes a configuration"
        )
    return results, found.plan


def _without_machines_themselves(plan: Plan, results: tuple[CellResult, ...]) -> Plan:
    """The plan without what only the local engine ran: a machine's own Python is no image that anybody could use."""
    from cuda_matrix.model import EngineName, image_key

    engines: dict[str, set[EngineName]] = {}
    for result in results:
        engines.setdefault(image_key(result.image.id, result.image.variant), set()).add(result.engine)
    local = {key for key, names in engines.items() if names == {EngineName.LOCAL}}
    if not local:
        return plan
    kept = {key: row for key, row in plan.images.items() if key not in local}
    cells, lanes = (), ()  # of no use here, and they name the images that go
    return plan.model_copy(update={"images": kept, "cells": cells, "lanes": lanes, "skipped": ()})


def _answers(options: Options, plan: Plan) -> dict[str, Any]:
    from cuda_matrix.commands import foresight

    answers = {} if options.offline else foresight.ask_registries({row.ref for row in plan.images.values()})
    foresight.show_unanswered(answers)
    return answers


def _host(options: Options, plan: Plan, results: tuple[CellResult, ...], reference: Reference) -> HostFacts:
    """The machine that is meant: named, else this one, else the only kind that the configuration has.

    Raises:
        ConfigurationError: card or driver are not known.
    """
    from cuda_matrix.commands import foresight
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.forecast import host_of, machine_of
    from cuda_matrix.predict import host_facts

    runners = [row for row in plan.runners.values() if row.gpu is not None]
    here = foresight.detected_hosts(reference)
    if options.gpu is not None:
        host = host_facts(options.gpu, None, reference)
    elif here:
        host = here[0]
    elif len({row.gpu for row in runners}) == 1:
        host = host_of(machine_of(runners[0], plan.container), reference).model_copy(update={"driver": None})
    else:
        cards = ", ".join(sorted({row.gpu for row in runners if row.gpu}))
        msg = "which card? No nvidia-smi answers here"
        raise ConfigurationError(msg, hint=f"give --gpu NAME{f'; the runners have: {cards}' if cards else ''}")
    if options.driver is not None:
        return host.model_copy(update={"driver": options.driver, "driver_cuda": None})
    of_card = [row for row in runners if foresight.is_same_card(host, row.gpu, reference)]
    drivers = [seen.driver for seen in here if foresight.is_same_card(host, seen.gpu, reference)]
    seen_there = [r for r in results if r.runner in {row.id for row in of_card}]
    drivers += [r.facts.driver for r in seen_there if not r.simulated]
    drivers += [row.driver for row in of_card]
    drivers += [r.facts.driver for r in seen_there if r.simulated]
    driver = next((driver for driver in (host.driver, *drivers) if driver), None)
    if driver is None:
        msg = f"which driver? No configuration, no result and no nvidia-smi tells one for {host.gpu}"
        raise ConfigurationError(msg, hint="give --driver, as nvidia-smi shows it, for example --driver 550.54.15")
    return host.model_copy(update={"driver": driver})


def _candidates(plan: Plan) -> list[Candidate]:
    from cuda_matrix.forecast import NO_CUDA
    from cuda_matrix.recommend import Candidate

    images = [(key, row) for key, row in plan.images.items() if row.expect.get("cuda") != NO_CUDA]
    return [Candidate(key, row.ref, row.facts) for key, row in images if row.facts is not None]


def _speaks(result: CellResult, host: HostFacts, reference: Reference) -> bool:
    """Whether a result is of this card, and says yes or no of the image; a machine that failed says neither.

    The local engine runs no image at all: what it shows is of the machine's own Python.
    """
    from cuda_matrix.commands import foresight
    from cuda_matrix.gate import GOOD
    from cuda_matrix.model import EngineName, Verdict

    if result.engine is EngineName.LOCAL or result.verdict not in GOOD | {Verdict.FAIL, Verdict.EXPECTED_FAIL}:
        return False
    seen = result.facts.device_name or next((gpu.name for gpu in result.facts.gpus), None)
    return foresight.is_same_card(host, seen or result.gpu, reference)


def _trial(result: CellResult) -> Trial:
    from cuda_matrix.gate import GOOD, cause_of
    from cuda_matrix.model import image_key
    from cuda_matrix.recommend import Trial
    from cuda_matrix.report.performance import figure

    found = figure(result)
    on_card = found if found and not found.cpu else None
    works = result.verdict in GOOD
    return Trial(
        image=image_key(result.image.id, result.image.variant),
        driver=result.facts.driver,
        works=works,
        cause="" if works else cause_of(result),
        images_per_s=on_card.images_per_s if on_card else None,
        stable=not (on_card and on_card.drifting),
        simulated=result.simulated,
    )


def _document(found: Recommendation, host: HostFacts) -> dict[str, Any]:
    return {
        "gpu": host.gpu,
        "driver": host.driver,
        "recommended": found.fits[0].image if found.fits else None,
        "fits": [_form(choice) for choice in found.fits],
        "does_not_fit": [_form(choice) for choice in found.unfit],
        "unknown": [_form(choice) for choice in found.unknown],
        "needs_driver": None if found.fits else found.needs_driver,
    }


def _form(choice: Choice) -> dict[str, Any]:
    trial = choice.trial
    measured: dict[str, Any] | None = None
    if trial is not None:
        measured = {"works": trial.works, "cause": trial.cause or None, "driver": trial.driver}
        measured |= {"images_per_s": trial.images_per_s, "stable": trial.stable, "simulated": trial.simulated}
    prediction = choice.prediction.model_dump(mode="json")
    return {
        "image": choice.image,
        "ref": choice.ref,
        "basis": choice.basis,
        "measured": measured,
        "prediction": prediction,
    }


def _text(found: Recommendation, host: HostFacts) -> Iterator[str]:
    from cuda_matrix.commands.foresight import wrapped
    from cuda_matrix.report.escape import console_text

    where = console_text(f"{host.gpu}, driver {host.driver}")
    if found.fits:
        yield f"On {where}, use:"
        yield from _numbered([_fits(choice, host) for choice in found.fits])
    else:
        yield f"On {where}, no image of this matrix is known to work."
        if found.needs_driver:
            names = [c.image for c in found.unfit if c.prediction.needs_driver == found.needs_driver]
            yield wrapped(f"With driver {found.needs_driver} or newer: {', '.join(names[:SHOWN])}")
    for head, choices in (("Does not fit", found.unfit), ("Not known", found.unknown)):
        if choices:
            yield ""
            yield f"{head}:"
            yield from _listed([_reason(choice) for choice in choices])
            yield from _sources(choices)


def _numbered(lines: list[str]) -> Iterator[str]:
    from cuda_matrix.commands.foresight import wrapped

    yield from (wrapped(f"{number}. {line}", 2) for number, line in enumerate(lines[:SHOWN], 1))
    yield from _rest(len(lines))


def _listed(lines: list[str]) -> Iterator[str]:
    from cuda_matrix.commands.foresight import wrapped

    yield from (wrapped(line, 2) for line in lines[:SHOWN])
    yield from _rest(len(lines))


def _rest(count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f"  … and {count - SHOWN} more (--json shows all)"


def _fits(choice: Choice, host: HostFacts) -> str:
    from cuda_matrix.report.numbers import quantity

    trial = choice.trial
    parts: list[str] = [choice.basis]
    if trial is None:
        said = choice.prediction
        parts.append(f"{said.explanation.rstrip('.')} (rule {said.rule})")
    else:
        parts += [quantity(trial.images_per_s, "images/s")] if trial.images_per_s else ["no speed"]
        parts += [] if trial.stable else ["not stable"]
        if trial.driver != host.driver:
            parts.append(f"on driver {trial.driver}, for which the rules say the same")
    return f"{choice.image} ({choice.ref}): {', '.join(parts)}"


def _reason(choice: Choice) -> str:
    said, trial = choice.prediction, choice.trial
    if trial is not None:
        driver = f" on driver {trial.driver}" if trial.driver else ""
        return f"{choice.image}: {choice.basis}: {trial.cause or 'fails'}{driver}"
    needs = f"; needs driver {said.needs_driver} or newer" if said.needs_driver else ""
    why = f"{said.explanation.rstrip('.')} (rule {said.rule}){needs}"
    return f"{choice.image}: {said.cause or said.verdict}, predicted: {why}"


def _sources(choices: tuple[Choice, ...]) -> Iterator[str]:
    """Each rule that the list names with its source, once."""
    from cuda_matrix.commands.foresight import wrapped

    rules = {choice.prediction.rule: choice.prediction.source for choice in choices[:SHOWN] if choice.trial is None}
    yield from (wrapped(f"rule {rule}: {source}", 2) for rule, source in rules.items())
