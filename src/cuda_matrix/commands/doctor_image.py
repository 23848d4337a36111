"""Owns what `doctor` says of one image: found or not, predicted, tried."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import TYPE_CHECKING

from cuda_matrix.adapters.image_probe import OFFLINE
from cuda_matrix.diagnose import Evidence, Fragment, diagnose
from cuda_matrix.examination import HostStep
from cuda_matrix.gate import GOOD
from cuda_matrix.host_rules import NO_CARD
from cuda_matrix.image_facts import ImageFacts
from cuda_matrix.image_reference import parts_of
from cuda_matrix.model import Verdict
from cuda_matrix.reference import load_reference, load_tree
from cuda_matrix.report.way import HOW, way
from cuda_matrix.tree import NO, YES, Known, walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cuda_matrix.examination import EngineSeen, HeldImage, HostSeen
    from cuda_matrix.prediction import Prediction
    from cuda_matrix.report.view import Way
    from cuda_matrix.result import CellResult

_PLACEHOLDER = "<registry>"  # in the catalogue's advice
_STATUS = {"pass": "ok", "warn": "warn", "fail": "problem", "host-failed": "problem", "unknown": "not-seen"}


def image_step(ref: str, held: HeldImage, answer: object, facts: ImageFacts) -> tuple[HostStep, dict[str, Known]]:
    """Where the image is, and what that answers in the tree."""
    step = HostStep(id="image", title=f"Image {ref}", status="ok")
    said = _said(facts)
    by_tag = said.replace("; ", "; by its tag: ", 1)
    if held.facts is not None:
        size = f", {held.unpacked_bytes / 1e9:.1f} GB" if held.unpacked_bytes is not None else ""
        here = Known(answer=YES, evidence="Docker holds it")
        return step.model_copy(update={"seen": f"on this machine{size}{said}"}), {"registry": here, "exists": here}
    absent = "not on this machine" if not held.why else f"whether Docker holds it was not seen ({held.why})"
    if isinstance(answer, ImageFacts):
        size = f", {facts.size_bytes / 1e9:.1f} GB packed" if facts.size_bytes else ""
        there = Known(answer=YES, evidence="its registry answers")
        text = f"in its registry, {absent}{size}{said}"
        return step.model_copy(update={"seen": text}), {"registry": there, "exists": there}
    reason = str(answer)[:300]
    if answer is None or reason == OFFLINE:
        why = f"{absent}; {reason if answer else 'no registry was asked'}{by_tag}"
        return step.model_copy(update={"status": "not-seen", "why": why}), {}
    reference = load_reference()
    evidence = Evidence(stage="pull", fragments=(Fragment(where="pull", text=reason),))
    found = diagnose(evidence, reference.catalogue, reference.drivers)
    wrong = step.model_copy(update={"status": "problem", "seen": f"{absent}; {reason}{by_tag}", "cause": found.cause})
    tree = load_tree()
    refused = found.cause in tree.causes_below["registry-says-no"]
    nowhere = found.cause in tree.causes_below["no-such-image"]
    known = {"registry": Known(answer=NO if refused else YES, evidence=reason)} if refused or nowhere else {}
    if nowhere:
        known["exists"] = Known(answer=NO, evidence=reason)
    return wrong.model_copy(update={"do": _for_registry(found.fix[0], ref) if found.fix else ""}), known


def _for_registry(advice: str, ref: str) -> str:
    """The catalogue's advice, with the host of the very registry that was asked."""
    from cuda_matrix.adapters.registry_client import host_of

    return advice.replace(_PLACEHOLDER, host_of(parts_of(ref).registry))


def _said(facts: ImageFacts) -> str:
    known = {"torch": facts.torch, "CUDA": facts.cuda, "Python": facts.python, "OS": facts.os}
    parts = [f"{name} {value}" for name, value in known.items() if value]
    return f"; {', '.join(parts)}" if parts else ""


def predicted(facts: ImageFacts, host: HostSeen) -> Prediction | None:
    """What the facts say; None where there is no card to say it of."""
    from cuda_matrix.commands.foresight import this_machine
    from cuda_matrix.examination import SeenCard
    from cuda_matrix.host_facts import HostFacts
    from cuda_matrix.predict import predict

    if host.no_card:
        return None
    reference = load_reference()
    card = next(iter(host.named), None)
    if card is None:
        return predict(facts, HostFacts(driver=host.loaded, machine=platform.machine()), reference)
    seen = SeenCard(card.name, host.loaded or card.driver, card.capability)
    return predict(facts, this_machine(seen, reference), reference)


def prediction_step(prediction: Prediction | None, host: HostSeen) -> HostStep:
    """The prediction as a step; an unknown one is not seen."""
    step = HostStep(id="prediction", title="Prediction for this machine", status="not-seen")
    if prediction is None:
        return step.model_copy(update={"why": NO_CARD if host.no_card else "nothing is known"})
    text = f"{prediction.verdict} by rule {prediction.rule}: {prediction.explanation}"
    if prediction.verdict == "unknown":
        return step.model_copy(update={"why": text})
    do = f"Driver {prediction.needs_driver} or newer would do." if prediction.needs_driver else ""
    update = {"status": _STATUS[prediction.verdict], "seen": text, "do": do, "cause": prediction.cause}
    return step.model_copy(update=update)


def way_foretold(prediction: Prediction, known: Mapping[str, Known]) -> Way:
    """The way down the tree that a predicted failure takes; `known` is what was seen of the machine."""
    tree = load_tree()
    asked = {id_: answer for id_, answer in known.items() if id_ != "started" and answer.answer in {YES, NO}}
    path = walk(tree, asked, prediction.cause, prediction.explanation)
    if path.leaf is not None and prediction.cause in path.leaf.causes:
        return way(path, tree, {**HOW, "diagnosis": "as predicted"})
    seen = way(walk(tree, known), tree)
    return replace(seen, end=f"Predicted not to work, by rule {prediction.rule}", found=False, leaf="", do=())


def why_no_run(host: HostSeen, engine: EngineSeen, held: HeldImage, *, no_run: bool) -> str:
    """Why the image is not tried; empty where it can be."""
    if no_run:
        return "left out (--no-run)"
    if engine.info is None:
        return "no Docker daemon answers"
    if held.why:
        return f"whether Docker holds the image was not seen ({held.why})"
    if held.facts is None:
        return "the image is not on this machine, and nothing is pulled here: `docker pull` it first"
    if not host.no_card and not host.named:
        return "nvidia-smi must name a card first"
    return ""


def tried(pinned: str, host: HostSeen, environ: Mapping[str, str]) -> CellResult:
    """One run: on the first card's name with all cards, on the CPU where there is no card.

    Raises:
        InfrastructureError: Docker does not answer, or not to this program.
    """
    from cuda_matrix.commands.trial import run_once

    card = next(iter(host.named), None)
    return run_once(pinned, card.name if card else None, dict(environ))


def run_step(result: CellResult | None, why_not: str) -> HostStep:
    """The run as a step: its verdict and reason."""
    step = HostStep(id="run", title="One run of the smoke profile", status="not-seen", why=why_not)
    if result is None:
        return step
    where = "" if result.gpu else " on the CPU"
    text = f"{result.verdict.value}{where}: {result.reason}"
    if result.verdict in GOOD:
        status = "ok" if result.verdict is Verdict.PASS else "warn"
        return step.model_copy(update={"status": status, "seen": text, "why": ""})
    found = result.diagnosis
    told = {"do": found.fix[0] if found.fix else "", "cause": found.cause} if found else {}
    if result.verdict is Verdict.INCONCLUSIVE:
        return step.model_copy(update={"why": text, **told})
    return step.model_copy(update={"status": "problem", "seen": text, "why": "", **told})
