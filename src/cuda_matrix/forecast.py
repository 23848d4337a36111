"""Owns the forecast: what is said of each cell of a plan before a pull, and which doomed cells are left out.

Must not know how a prediction is worked out (predict), who asked a registry (adapters) or if it came true (report).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from cuda_matrix.config import ContainerOptions
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.host_facts import Access, HostFacts
from cuda_matrix.image_facts import CONFIGURED, ImageFacts, Requirements
from cuda_matrix.image_tags import facts_of_ref
from cuda_matrix.plan import Plan, PlannedCell, PlannedImage, PlannedRunner, SkippedCell
from cuda_matrix.plan_union import without_cells
from cuda_matrix.predict import host_facts, predict
from cuda_matrix.prediction import Prediction
from cuda_matrix.requirement import go_bool
from cuda_matrix.result import Facts
from cuda_matrix.tables import Reference

SURE = 0.9  # of 1: the least confidence with which a cell may be left out
Turn = Literal["green", "red", "stays", "unknown"]  # what another driver makes of a cell
NO_CUDA = "none"  # `expect: {cuda: "none"}` declares a CPU image

OF_NO_RULE = frozenset({"ref", "digest", "cudnn", "python", "size_bytes", "created", "entrypoint", "user"})  # facts
_CONFIGURED = ("torch", "cuda", "cudnn", "python")  # what `expect` says that rules ask for
_RUNTIME_FOLDER = re.compile(r"(?:^|/)cuda-(\d{1,2}\.\d{1,2})(?:/|:|$)")
_DRIVER = re.compile(r"\d{2,4}\.\d{1,3}(?:\.\d{1,3})?")
_CAPABILITY = re.compile(r"\d{1,2}\.\d")
_MACHINES = {"x86_64", "aarch64"}
_NAME_LIMIT = 100  # characters of a card's name that came out of a container
_REASON_LIMIT = 600


class Machine(NamedTuple):
    """What of a runner a prediction depends on: runners that agree here share their predictions."""

    gpu: str | None
    driver: str | None
    machine: str | None  # None: nobody says; the card may tell
    access: Access


def machine_of(runner: PlannedRunner, container: ContainerOptions) -> Machine:
    """The machine that the configuration says. Its CPU is what GitHub's own labels say: ARM64 or x64."""
    labels = {label.lower() for label in runner.labels}
    machine = "aarch64" if labels & {"arm64", "aarch64"} else "x86_64" if labels & {"x64", "x86_64"} else None
    return Machine(runner.gpu, runner.driver, machine, "cdi" if container.gpus == "cdi" else "hook")


def host_of(machine: Machine, reference: Reference) -> HostFacts:
    """The machine with what the tables know of its card. A card that they lack is no error: its driver counts."""
    gpu, driver, name, access = machine
    try:
        return host_facts(gpu, driver, reference, machine=name, access=access)
    except ConfigurationError:
        assumed = name or "x86_64"
        return HostFacts(gpu=gpu, driver=driver, machine=assumed, machine_assumed=name is None, access=access)


def image_facts(image: PlannedImage, asked: ImageFacts | None, reference: Reference) -> ImageFacts:
    """What is known of an image: its variant's environment, over the registry, over `expect`, over the tag."""
    below = _configured(image).over(facts_of_ref(image.ref, reference.schemes))
    return _with_environment(image.env, (asked or ImageFacts()).over(below))


def asks_for_card(image: PlannedImage, runner: PlannedRunner, container: ContainerOptions) -> bool:
    """False where a cell works on the CPU on purpose: what the rules say of cards and drivers is then nothing to it."""
    return runner.gpu is not None and container.gpus != "none" and image.expect.get("cuda") != NO_CUDA


def with_predictions(plan: Plan, asked: Mapping[str, ImageFacts | str], reference: Reference) -> Plan:
    """The plan with the facts of its images, and a prediction for each cell to run that asks for a card.

    `asked` is what the registries said: reference → facts, or the reason why there are none.
    """
    images = {key: row.model_copy(update={"facts": _facts(row, asked, reference)}) for key, row in plan.images.items()}
    machines = {key: machine_of(runner, plan.container) for key, runner in plan.runners.items()}
    hosts = {machine: host_of(machine, reference) for machine in machines.values()}
    alike = {key: _what_rules_ask(row.facts) for key, row in images.items() if row.facts is not None}
    made: dict[tuple[str, Machine], Prediction] = {}
    cells = []
    for cell in plan.cells:
        image, machine = images[cell.image], machines[cell.runner]
        if image.facts is not None and asks_for_card(image, plan.runners[cell.runner], plan.container):
            asked_for = (alike[cell.image], machine)
            known = made.get(asked_for) or predict(image.facts, hosts[machine], reference)
            made[asked_for] = known
            cells.append(cell.model_copy(update={"prediction": known}))
        else:
            cells.append(cell.model_copy(update={"prediction": None}))
    return plan.model_copy(update={"images": images, "cells": tuple(cells)})


def without_doomed(plan: Plan, reference: Reference) -> Plan:
    """The plan with its doomed cells skipped, each with its reason."""
    doomed = [cell for cell in plan.cells if cell.prediction is not None and is_doomed(cell.prediction, reference)]
    return without_cells(plan, [_skipped(cell) for cell in doomed])


def is_doomed(prediction: Prediction, reference: Reference) -> bool:
    """Whether a cell may be left out for it: sure to fail, by a rule that is itself sure."""
    rule = reference.rules.get(prediction.rule)
    return prediction.fails and prediction.confidence >= SURE and rule is not None and rule.decides


def prediction_here(image: PlannedImage, planned: Machine, seen: Facts, reference: Reference) -> Prediction | None:
    """What the rules say of the driver and card that a run found; None where the plan meant just these.

    `seen` came out of a container: what does not look like a driver or a capability counts as not seen.
    """
    if image.facts is None:
        return None
    before = host_of(planned, reference)
    here = before.model_copy(update=_seen(seen, before, reference))
    same = (here.driver, here.compute_capability, here.machine) == (
        before.driver,
        before.compute_capability,
        before.machine,
    )
    return None if same else predict(image.facts, here, reference)


def said_of(image: PlannedImage, machine: Machine, reference: Reference) -> Prediction:
    """The prediction for an image of a plan with predictions on any machine."""
    return predict(image.facts or ImageFacts(), host_of(machine, reference), reference)


def turn(before: Prediction, after: Prediction, measured: bool | None = None) -> Turn:
    """What another driver would change for one cell. `measured`: whether it works now, None where nobody looked.

    Where the rules foretold something else than was measured now, they say nothing of what another driver does.
    """
    if measured is not None and (before.runs if measured else before.fails) is False:
        return "unknown"
    if before.verdict == "unknown" or after.verdict == "unknown":
        return "unknown"
    if before.fails == after.fails:
        return "stays"
    return "red" if after.fails else "green"


def _facts(image: PlannedImage, asked: Mapping[str, ImageFacts | str], reference: Reference) -> ImageFacts:
    answer = asked.get(image.ref)
    return image_facts(image, answer if isinstance(answer, ImageFacts) else None, reference)


def _what_rules_ask(facts: ImageFacts) -> str:
    """The same for images that no rule tells apart: a large matrix has few kinds of them."""
    return facts.model_dump_json(exclude=set(OF_NO_RULE))


def _configured(image: PlannedImage) -> ImageFacts:
    known = {name: image.expect[name] for name in _CONFIGURED if image.expect.get(name)}
    return ImageFacts(**known, origins=dict.fromkeys(known, CONFIGURED))


def _with_environment(env: Mapping[str, str], known: ImageFacts) -> ImageFacts:
    """What a variant sets is what the container has, whatever the image says."""
    origins = dict(known.origins)
    update: dict[str, object] = {}
    asks: Requirements = {name: value for name, value in env.items() if name.startswith("NVIDIA_REQUIRE_")}
    if asks:
        update["require"] = {**known.require, **asks}
        origins["require"] = f"{CONFIGURED} env {', '.join(sorted(asks))}"
    if "NVIDIA_DISABLE_REQUIRE" in env:
        update["disable_require"] = go_bool(env["NVIDIA_DISABLE_REQUIRE"])
        origins["disable_require"] = f"{CONFIGURED} env NVIDIA_DISABLE_REQUIRE"
    runtime = _RUNTIME_FOLDER.search(env.get("LD_LIBRARY_PATH", ""))
    if runtime:
        update["cuda"] = runtime[1]
        origins["cuda"] = f"{CONFIGURED} env LD_LIBRARY_PATH"
    return known.model_copy(update={**update, "origins": origins}) if update else known


def _skipped(cell: PlannedCell) -> SkippedCell:
    said = cell.prediction
    assert said is not None
    cause = f"{said.cause}: " if said.cause else ""
    reason = f"{cause}{said.explanation}"[:_REASON_LIMIT]
    return SkippedCell(
        id=cell.id, image=cell.image, runner=cell.runner, kind="predicted", reason=reason, prediction=said
    )


def _seen(seen: Facts, before: HostFacts, reference: Reference) -> dict[str, object]:
    """What a run found of its machine, as far as it can be read."""
    found: dict[str, object] = {}
    if seen.driver and _DRIVER.fullmatch(seen.driver):
        found |= {"driver": seen.driver, "driver_cuda": None}
    capability = seen.device_capability or next((gpu.compute_capability for gpu in seen.gpus), None)
    if capability and _CAPABILITY.fullmatch(capability) and capability != before.compute_capability:
        name = (seen.device_name or next((gpu.name for gpu in seen.gpus), ""))[:_NAME_LIMIT] or None
        found |= {"gpu": name, "card": None, "compute_capability": capability}
        with contextlib.suppress(ConfigurationError):
            named = host_facts(name, None, reference)
            if named.compute_capability == capability:
                found["card"] = named.card
    if seen.machine in _MACHINES:
        found |= {"machine": seen.machine, "machine_assumed": False}
    return found
