"""Owns the verb `doctor`: what is looked at, in which order it is told, and that nothing secret is told."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cuda_matrix.examination import EngineSeen, HeldImage, HostSeen, HostStep
    from cuda_matrix.image_facts import ImageFacts
    from cuda_matrix.prediction import Prediction
    from cuda_matrix.redaction import Identity
    from cuda_matrix.report.view import Way
    from cuda_matrix.result import CellResult
    from cuda_matrix.tree import Known

LIMIT_S = 12.0  # for all looks together; what has not answered by then is not seen
PROGRAM_LIMIT_S = 5.0  # for one program: two in a row fit into the whole
_MARKS = {"ok": "ok", "warn": "warn", "problem": "PROBLEM", "none": "none seen", "not-seen": "not seen"}
_MARK_WIDTH = max(map(len, _MARKS.values()))


@dataclass(frozen=True)
class Options:
    """The verb's options, as click gives them."""

    image: str | None
    as_json: bool
    no_run: bool
    offline: bool


@dataclass
class Visit:
    """All that one call finds out."""

    host: HostSeen
    engine: EngineSeen
    steps: list[HostStep] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    way: Way | None = None
    prediction: Prediction | None = None
    result: CellResult | None = None


@click.command(short_help="Look this machine over, and one image on it: what is wrong?")
@click.argument("image", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--no-run", is_flag=True, help="With IMAGE: look at it and predict, start no container.")
@click.option("--offline", is_flag=True, help="With IMAGE: ask no registry.")
def command(**values: Any) -> int:
    """Look over this machine, and one image on it, down the diagnosis tree.

    Card, driver, container toolkit, Docker, disk; then IMAGE: what is known of it, what is predicted, and, where Docker
    holds it, one run of the smoke profile. Nothing is pulled or changed. Needs no root, no Docker and no card: what
    could not be seen is said, and why. Secrets, names and addresses are taken out: ready to paste into an issue (and
    fenced for one where the output goes into a file or a pipe).
    Exit 0 where nothing is a PROBLEM, 1 where something is. No card is one only where IMAGE is built for CUDA.
    """
    from cuda_matrix.errors import ConfigurationError, ExitCode
    from cuda_matrix.image_reference import problem_of

    options = Options(**values)
    problem = problem_of(options.image) if options.image is not None else None
    if problem:
        raise ConfigurationError(problem, hint="name an image as for `docker run`, for example pytorch/pytorch:latest")
    visit = examine(options, Path("/"), os.environ)
    identity = _identity()
    if options.as_json:
        click.echo(_document(visit, options, identity))
    else:
        text = _text(visit, options, identity)
        click.echo(text if sys.stdout.isatty() else _fenced(text))
    return ExitCode.GATE_SAYS_NO if _problems(visit) else ExitCode.GOOD


def examine(options: Options, root: Path, environ: Mapping[str, str]) -> Visit:
    """Everything that is found out. `root` stands before the paths of the machine, `environ` names its programs."""
    from cuda_matrix.adapters import engine_probe, host_probe, image_probe
    from cuda_matrix.adapters.looks import look
    from cuda_matrix.adapters.programs import Programs
    from cuda_matrix.engine_rules import judge_engine
    from cuda_matrix.examination import EngineSeen, HeldImage, HostSeen, known_of
    from cuda_matrix.host_rules import judge_host
    from cuda_matrix.reference import load_reference

    programs = Programs(environ.get("PATH", os.defpath), environ, PROGRAM_LIMIT_S)
    ref = options.image
    looks = host_probe.probes(root, programs) | engine_probe.probes(root, programs)
    otherwise = host_probe.unseen() | engine_probe.unseen()
    if ref is not None:
        looks["image"] = lambda: {"held": image_probe.held(ref, programs)}
        looks["registry"] = lambda: image_probe.asked(ref, environ, offline=options.offline)
        otherwise["image"] = lambda why: {"held": HeldImage(why=why)}
        otherwise["registry"] = lambda why: {"registry": why}
    reference = load_reference()
    found = look(looks, otherwise, LIMIT_S)
    host = HostSeen(**{name: value for name, value in found.items() if name in HostSeen.model_fields})
    engine = EngineSeen(**{name: value for name, value in found.items() if name in EngineSeen.model_fields})
    visit = Visit(host, engine)
    held = found.get("held", HeldImage())
    assert isinstance(held, HeldImage)
    answer = found.get("registry")
    facts = None if ref is None else _facts(ref, held, answer)
    visit.steps += judge_host(host, reference.xids, card_wanted=facts is not None and facts.cuda not in {None, "none"})
    visit.steps += judge_engine(engine, host, _need(held, facts))
    if ref is not None and facts is not None:
        _see_image(visit, held, answer, facts, options, environ)
    visit.known = known_of(tuple(visit.steps)) | visit.known
    visit.way = _way(visit, options)
    return visit


def _facts(ref: str, held: HeldImage, answer: object) -> ImageFacts:
    """What Docker holds, over what the registry says, over the tag."""
    from cuda_matrix.image_facts import ImageFacts
    from cuda_matrix.image_tags import facts_of_ref
    from cuda_matrix.reference import load_reference

    facts = facts_of_ref(ref, load_reference().schemes)
    for each in (answer, held.facts):
        if isinstance(each, ImageFacts):
            facts = each.over(facts)
    return facts


def _need(held: HeldImage, facts: ImageFacts | None) -> int | None:
    """Bytes that the image will take on the disk; an image that is there takes no more."""
    from cuda_matrix.engine_rules import UNPACKED_FACTOR

    if facts is None or facts.size_bytes is None or held.facts is not None:
        return None
    return int(facts.size_bytes * UNPACKED_FACTOR)


def _see_image(
    visit: Visit, held: HeldImage, answer: object, facts: ImageFacts, options: Options, environ: Mapping[str, str]
) -> None:
    from cuda_matrix.commands import doctor_image as about
    from cuda_matrix.errors import InfrastructureError
    from cuda_matrix.reference import load_tree
    from cuda_matrix.tree import NO, Known

    ref = options.image
    assert ref is not None
    step, known = about.image_step(ref, held, answer, facts)
    visit.steps.append(step)
    visit.prediction = said = about.predicted(facts, visit.host)
    if said is not None and said.fails and said.cause in load_tree().causes_below["no-such-image"]:
        known["exists"] = Known(answer=NO, evidence=said.explanation)
    visit.known |= known
    visit.steps.append(about.prediction_step(said, visit.host))
    why_not = about.why_no_run(visit.host, visit.engine, held, no_run=options.no_run)
    if not why_not:
        try:
            visit.result = about.tried(held.pinned or ref, visit.host, environ)
        except InfrastructureError as error:  # what was seen until then is told all the same
            why_not = str(error)
    visit.steps.append(about.run_step(visit.result, why_not))


def _way(visit: Visit, options: Options) -> Way | None:
    """The way down the tree; None where a run was good and there is no way to go."""
    from cuda_matrix.gate import GOOD
    from cuda_matrix.reference import load_reference, load_tree
    from cuda_matrix.report.way import way
    from cuda_matrix.tree import Known, answers_of, walk

    tree, result, said = load_tree(), visit.result, visit.prediction
    if result is not None:
        if result.verdict in GOOD:
            return None
        known = visit.known | answers_of(result, load_reference().drivers)
        found = result.diagnosis
        return way(walk(tree, known, found.cause, found.evidence) if found else walk(tree, known), tree)
    nothing = "no container was started"
    known = {name: Known(answer="no", evidence=nothing) for name in ("works", "started")}
    if options.image is None:
        known |= {name: Known(answer="no image named", evidence="") for name in ("registry", "request")}
    else:
        known["request"] = Known(answer="not tried", evidence=nothing)
    known |= visit.known
    path = walk(tree, known)
    wrong_here = any(step.bad for step in path.steps if step.evidence != nothing)
    if said is not None and said.fails and not wrong_here:
        from cuda_matrix.commands.doctor_image import way_foretold

        return way_foretold(said, known)
    return way(path, tree)


def _problems(visit: Visit) -> list[str]:
    return [step.id for step in visit.steps if step.status == "problem"]


def _identity() -> Identity:
    from cuda_matrix.redaction import Identity

    user = os.environ.get("USER") or os.environ.get("LOGNAME") or Path.home().name
    return Identity(user=user, home=str(Path.home()), host=os.uname().nodename)


def _document(visit: Visit, options: Options, identity: Identity) -> str:
    from cuda_matrix.redaction import redact_all
    from cuda_matrix.report.jsonform import way_form
    from cuda_matrix.version import __version__

    document = {
        "doctor_version": 1,
        "tool_version": __version__,
        "system": _system(),
        "image": options.image,
        "steps": [step.model_dump(exclude={"node"}) for step in visit.steps],
        "way": way_form("", visit.way).model_dump(exclude={"cell"}) if visit.way else None,
        "prediction": visit.prediction.model_dump() if visit.prediction else None,
        "result": visit.result.model_dump(mode="json", include={"verdict", "reason", "remarks", "diagnosis"})
        if visit.result
        else None,
        "problems": _problems(visit),
    }
    return json.dumps(redact_all(document, identity), indent=1)


def _system() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"


def _text(visit: Visit, options: Options, identity: Identity) -> str:
    """Every step, the way, and one line that sums up. No line begins with a fence."""
    from cuda_matrix.redaction import redact
    from cuda_matrix.report.escape import console_text
    from cuda_matrix.report.numbers import plural
    from cuda_matrix.version import __version__

    def told(text: str) -> str:
        return console_text(redact(text, identity))

    lines = [told(f"cuda-matrix doctor {__version__}{f' {options.image}' if options.image else ''} ({_system()})"), ""]
    for step in visit.steps:
        lines.append(f"{_MARKS[step.status]:<{_MARK_WIDTH}}  {told(f'{step.title}: {step.seen or step.why}')}")
        if step.do and step.status != "ok":
            lines.append(f"{'':{_MARK_WIDTH}}  do: {told(step.do)}")
    if visit.way is not None:
        lines += ["", "The way down the diagnosis tree:"]
        for each in visit.way.steps:
            how = "" if each.how == "seen" or not each.answer else f" ({each.how})"
            evidence = f" ({each.evidence})" if each.evidence else ""
            lines.append(f"  {told(f'{each.question} {each.answer or each.how}{how}{evidence}')}")
        lines.append(f"  => {told(visit.way.end)}")
        lines += [f"     do: {told(text)}" for text in visit.way.do]
    problems = _problems(visit)
    names = f"{plural(len(problems), 'problem')}: {', '.join(problems)}" if problems else "no problem found"
    for status in ("none", "not-seen"):
        found = ", ".join(step.id for step in visit.steps if step.status == status)
        names += f"; {_MARKS[status]}: {found}" if found else ""
    return "\n".join([*lines, "", names])


def _fenced(text: str) -> str:
    """A block for an issue: nothing inside it is Markdown, and no line can close it."""
    return f"```text\n{text}\n```"
