"""Owns the verb `predict`: what is asked of which image and machine. The matrix as a whole is what_if's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cuda_matrix.host_facts import HostFacts
    from cuda_matrix.image_facts import ImageFacts
    from cuda_matrix.prediction import Prediction
    from cuda_matrix.tables import Reference

FACTS_LIMIT_BYTES = 1 << 20  # of a file of facts
_NO_FACT = frozenset({"ref", "origins"})
_OF_NO_USE = frozenset({"mutable_tag", "flavour"})  # no rule asks for them, and they say nothing to an operator


@dataclass(frozen=True)
class Options:
    """The verb's options, as click gives them."""

    image: str | None
    gpu: str | None
    driver: str | None
    config: str | None
    results: Path | None
    offline: bool
    as_json: bool


class Answer(NamedTuple):
    """One image on one machine. `runner` is empty where the machine is not one of the configuration."""

    runner: str
    image: str
    facts: ImageFacts
    host: HostFacts
    said: Prediction


@click.command(short_help="Say whether an image will run on a card, before any pull.")
@click.option(
    "--image", metavar="REF", help="A reference, or facts: torch=2.2.0,cuda=12.1, a JSON object, a file.json of one."
)
@click.option("--gpu", metavar="NAME", help="A card (RTX 3090, A800 80GB) or a compute capability (8.6).")
@click.option("--driver", metavar="V", help="For example 550.54.15. Without --image: what would change with it.")
@click.option(
    "--config", metavar="PATH", help="Directory of YAML files, or one file. Default: matrix/, else cuda-matrix.yml."
)
@click.option(
    "--results",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR",
    help="Without --image: compare with the drivers and verdicts that these results measured.",
)
@click.option("--offline", is_flag=True, help="Ask no registry: what the reference and the configuration tell.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(**values: Any) -> None:
    """Say whether an image will run on a card and driver, before any pull.

    Card and driver that are left out are this machine's; where it has none, those of the configuration's runners.
    Without --image it speaks of the whole matrix; `--driver V` then shows which cells would turn, either way.
    Exit 0 whatever the answer is: it is a prediction, no verdict.
    """
    from cuda_matrix.commands import foresight
    from cuda_matrix.reference import load_reference

    options = Options(**values)
    foresight.check_driver(options.driver)
    reference = load_reference()
    if options.image is None:
        from cuda_matrix.commands.what_if import Question, show

        question = Question(options.config, options.gpu, options.driver, options.results, options.offline)
        show(question, reference, as_json=options.as_json)
        return
    if options.results is not None:
        msg = "--results goes with the whole matrix: leave --image out"
        raise click.UsageError(msg)
    answers = list(_answers(options, options.image, reference))
    click.echo(_document(answers) if options.as_json else "\n\n".join(map(_text, answers)))


def _answers(options: Options, image: str, reference: Reference) -> Iterator[Answer]:
    from cuda_matrix.predict import predict

    facts = facts_of(image, reference, offline=options.offline)
    for runner, host in _hosts(options, reference):
        yield Answer(runner, facts.ref or image, facts, host, predict(facts, host, reference))


def facts_of(text: str, reference: Reference, *, offline: bool) -> ImageFacts:
    """What is known of the image that a user names, or describes.

    Raises:
        ConfigurationError: it is neither a reference nor facts.
        InfrastructureError: its registry does not answer, and the reference itself says nothing.
    """
    from cuda_matrix.commands import foresight
    from cuda_matrix.errors import ConfigurationError, InfrastructureError
    from cuda_matrix.image_reference import problem_of
    from cuda_matrix.image_tags import facts_given, facts_of_ref

    said_in_file = _file_text(text)
    given = facts_given(said_in_file or text)
    if given is not None:
        return given
    if said_in_file:
        msg = f"{text} holds no facts of an image"
        raise ConfigurationError(msg, hint='write a JSON object, for example {"torch": "2.2.0", "cuda": "12.1"}')
    problem = problem_of(text)
    if problem:
        raise ConfigurationError(problem, hint="or give facts: --image torch=2.2.0,cuda=12.1")
    said = facts_of_ref(text, reference.schemes)
    if offline:
        return said
    answer = foresight.ask_registries([text])[text]
    if not isinstance(answer, str):
        return answer.over(said)
    if said.torch is None and said.cuda is None:
        msg = f"nothing is known of {text}: {answer}"
        raise InfrastructureError(msg, hint="give what you know of it: --image torch=2.2.0,cuda=12.1")
    from cuda_matrix.report.escape import console_text

    click.echo(f"note: predicted from the tag alone: {console_text(answer)}", err=True)
    return said


def _file_text(text: str) -> str:
    """The text of a file of facts; empty where the argument is no such file."""
    from cuda_matrix.errors import ConfigurationError

    if not text.endswith(".json"):
        return ""
    if Path(text).exists() and not Path(text).is_file() and not Path(text).is_dir():
        msg = f"{text} is no regular file"
        raise ConfigurationError(msg)
    with Path(text).open("rb") as file:
        data = file.read(FACTS_LIMIT_BYTES + 1)
    if len(data) > FACTS_LIMIT_BYTES:
        msg = f"{text} is larger than {FACTS_LIMIT_BYTES >> 20} MB: no facts of an image are"
        raise ConfigurationError(msg)
    return data.decode(errors="replace").strip() or "{}"


def _hosts(options: Options, reference: Reference) -> list[tuple[str, HostFacts]]:
    """The machines that are meant, each with its runner's name where it has one."""
    from cuda_matrix.commands import foresight
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.predict import host_facts

    if options.gpu is not None:
        return [("", host_facts(options.gpu, options.driver, reference))]
    here = foresight.detected_hosts(reference)
    found = [("", host) for host in here] or foresight.configured_hosts(options.config, reference)
    if not found:
        msg = "which card? No nvidia-smi answers here, and no configuration names runners with a card"
        raise ConfigurationError(msg, hint='give --gpu and --driver, for example --gpu "RTX 3090" --driver 550.54.15')
    if options.driver is None:
        return found
    update = {"driver": options.driver, "driver_cuda": None}
    return [(runner, host.model_copy(update=update)) for runner, host in found]


def known_facts(facts: ImageFacts) -> dict[str, dict[str, Any]]:
    """Name → value and origin of every fact that is known."""
    values = facts.model_dump(mode="json", exclude_defaults=True, exclude=set(_NO_FACT))
    return {name: {"value": value, "origin": facts.origins.get(name, "")} for name, value in values.items()}


def _form(answer: Answer) -> dict[str, Any]:
    runner = {"runner": answer.runner} if answer.runner else {}
    return {
        **runner,
        "image": answer.image,
        "gpu": answer.host.gpu,
        "driver": answer.host.driver,
        **answer.said.model_dump(mode="json"),
        "facts": known_facts(answer.facts),
    }


def _document(answers: list[Answer]) -> str:
    forms = [_form(answer) for answer in answers]
    return json.dumps(forms[0] if len(forms) == 1 else {"cells": forms}, indent=2)


def _text(answer: Answer) -> str:
    from cuda_matrix.commands.foresight import symbol, wrapped
    from cuda_matrix.report.escape import console_text

    said, host = answer.said, answer.host
    where = [host.gpu or "an unknown card", f"driver {host.driver}" if host.driver else "an unknown driver"]
    runner = f" ({answer.runner})" if answer.runner else ""
    cause = f", {said.cause}" if said.cause else ""
    lines = [
        console_text(
            f"{symbol(said)} {said.verdict}{cause}: {answer.image or 'the image'} on {', '.join(where)}{runner}"
        ),
        wrapped(said.explanation, 2),
        wrapped(f"rule {said.rule}, confidence {said.confidence:.0%}: {said.source}", 2),
    ]
    lines += [wrapped(f"needs driver {said.needs_driver} or newer", 2)] if said.needs_driver else []
    lines += [wrapped(f"remark: {remark}", 2) for remark in said.remarks]
    known = {name: fact for name, fact in known_facts(answer.facts).items() if name not in _OF_NO_USE}
    lines += ["  facts used:"] if known else ["  no fact of the image is known"]
    for name, fact in known.items():
        value = fact["value"] if isinstance(fact["value"], str) else json.dumps(fact["value"])
        origin = f" ({fact['origin']})" if fact["origin"] else ""
        lines.append(wrapped(f"{name} = {value}{origin}", 4))
    return "\n".join(lines)
