"""Owns the verb `promote`: ask everything first, then give the tags one after another, and say what was done."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cuda_matrix.adapters.registry_tags import RegistryTags, Source
    from cuda_matrix.attestation import Attestation, Origin
    from cuda_matrix.gate import GateReason, GateVerdict
    from cuda_matrix.plan import Plan
    from cuda_matrix.promote import Decision, Promotion

JSON_VERSION = 1
_WHAT = {"open": "not given", "dry": "would give", "already": "already", "given": "given", "failed": "failed"}


@dataclass
class _Tag:
    """One tag and what became of it: a key of `_WHAT`. `before` is the digest that it named."""

    image: str
    target: str
    digest: str
    before: str | None
    state: str = "open"

    def line(self) -> str:
        change = "" if self.before == self.digest else f" (was {self.before})" if self.before else " (new)"
        return f"  {_WHAT[self.state]}: {self.target} → {self.digest}{change}"


class _Answer(NamedTuple):
    """What is shown in the end."""

    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    tags: list[_Tag]

    @property
    def head(self) -> str:
        if self.reasons:
            return "no"
        return "incomplete" if any(tag.state in {"open", "failed"} for tag in self.tags) else "yes"


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--config", metavar="PATH", help="Policy and release tags of this configuration instead of the plan's.")
@click.option("--dry-run", is_flag=True, help="Ask the registry, write nothing, say what would be done.")
@click.option(
    "--attestation",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an in-toto test result here, and its subjects and whole statement beside it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    results: tuple[Path, ...],
    config: str | None,
    dry_run: bool,
    attestation: Path | None,
    as_json: bool,
) -> None:
    """Give release tags to exactly the digests that passed.

    The tags are those of `release:` in the configuration. All images are released, or none: the gate must say yes, and
    every image must be in its registry as it was tested. A failure that the policy expects holds nothing back while
    another cell of the image passed; notes and attestation name it. Results of a fork's code are never released. No
    layer is pushed; a tag that exists is moved. Running it again does no harm, and completes what a failure left
    undone.
    """
    from cuda_matrix.errors import ExitCode

    _refuse_forks(os.environ)
    if attestation is not None and not dry_run:
        _make_room(attestation)
    plan, verdict, decision = _decision(results, config)
    texts = _attestation(decision, plan, verdict) if attestation else None
    answer = _Answer(decision.reasons, decision.notes, [])
    try:
        if decision.promotions:
            answer = _release(decision, answer.tags, dry_run=dry_run)
    except BaseException:  # a registry that fails half-way, or Ctrl-C: what was done must be known
        if answer.tags:
            _show(answer, as_json=as_json, dry_run=dry_run)
        raise
    _show(answer, as_json=as_json, dry_run=dry_run)
    if answer.reasons:
        ctx.exit(ExitCode.GATE_SAYS_NO)
    if attestation is not None and texts is not None and not dry_run:
        _write(texts, attestation)


def _decision(results: tuple[Path, ...], config: str | None) -> tuple[Plan, GateVerdict, Decision]:
    from datetime import datetime, timezone

    from cuda_matrix.commands.material import collect
    from cuda_matrix.demands import shortfalls, with_reasons
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.gate import judge
    from cuda_matrix.promote import as_configured, decide

    material = collect(results)
    plan, demanded = material.plan, None
    otherwise: tuple[GateReason, ...] = ()
    if config is not None:
        from cuda_matrix.config_files import load

        loaded = load(config)
        plan, demanded = as_configured(plan, loaded.config, loaded.expansion)
        released = [cell for cell in loaded.expansion.cells if cell.id in set(chain(*demanded.values()))]
        planned = {cell.id for cell in plan.cells} | {cell.id for cell in plan.skipped}  # others: told by image
        cells = [cell for cell in released if cell.id in planned]
        otherwise = shortfalls(plan, loaded.config, loaded.expansion, cells)
    if not demanded and not any(row.release for row in plan.images.values()):
        msg = "no image has a release tag: there is nothing to promote"
        hint = "write `release: [name:tag]` beside the image's `ref:`; a plan that was made before needs --config too"
        raise ConfigurationError(msg, hint=hint)
    now = datetime.now(timezone.utc)
    # On today's date, not that of the results: what was accepted until yesterday is not released today.
    verdict = with_reasons(judge(plan, material.results, now.date(), material.plan_problems), otherwise)
    decision = decide(plan, verdict, now, demanded)
    return plan, verdict, replace(decision, notes=(*decision.notes, *map(str, material.problems)))


def _release(decision: Decision, tags: list[_Tag], *, dry_run: bool) -> _Answer:
    from cuda_matrix.adapters.registry_tags import RegistryTags

    registry = RegistryTags(os.environ)
    tested, moved = _ask(registry, decision.promotions)
    if moved:
        return _Answer(tuple(moved), decision.notes, tags)
    for each in decision.promotions:
        tags += [_Tag(each.image, target, each.digest, registry.named(target)) for target in each.targets]
    for tag in tags:
        if tag.before == tag.digest:
            tag.state = "already"
        elif dry_run:
            tag.state = "dry"
    if not dry_run:
        _give(registry, tags, tested)
    return _Answer((), decision.notes, tags)


def _ask(registry: RegistryTags, promotions: Sequence[Promotion]) -> tuple[dict[str, Source], list[str]]:
    """Image → what its reference still names; and why that is not what was tested."""
    from cuda_matrix.adapters.registry_tags import Moved

    answers = {each.image: registry.tested(each.ref, each.digest) for each in promotions}
    moved = [f"{image}: {answer.text}" for image, answer in answers.items() if isinstance(answer, Moved)]
    return {image: answer for image, answer in answers.items() if not isinstance(answer, Moved)}, moved


def _give(registry: RegistryTags, tags: Sequence[_Tag], tested: Mapping[str, Source]) -> None:
    from cuda_matrix.errors import InfrastructureError

    for tag in tags:
        if tag.state == "already":
            continue
        tag.state = "failed"  # until it is done
        try:
            registry.give(tested[tag.image], tag.target)
        except InfrastructureError as error:
            given = sum(each.state == "given" for each in tags)
            msg = f"{error}; {given} of {len(tags)} tags were given before that"
            hint = f"{error.hint}; then run promote again: it completes the release"
            raise InfrastructureError(msg, hint=hint) from error
        tag.state = "given"


def _show(answer: _Answer, *, as_json: bool, dry_run: bool) -> None:
    from cuda_matrix.report.escape import console_text

    if as_json:
        document = {
            "promote_version": JSON_VERSION,
            "release": answer.head,
            "dry_run": dry_run,
            "reasons": answer.reasons,
            "notes": answer.notes,
            "tags": [vars(tag) for tag in answer.tags],
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"release: {answer.head}{' (dry run: nothing is written)' if dry_run else ''}")
    for reason in answer.reasons:
        click.echo(f"  {console_text(reason)}")
    for note in answer.notes:
        click.echo(f"  note: {console_text(note)}")
    for tag in answer.tags:
        click.echo(tag.line())


def _attestation(decision: Decision, plan: Plan, verdict: GateVerdict) -> Attestation | None:
    """Made before any tag is given, so that one that nobody could sign stops the release."""
    from cuda_matrix.attestation import PREDICATE_LIMIT_BYTES, SUBJECTS_LIMIT, attest
    from cuda_matrix.errors import ConfigurationError

    if not decision.promotions:
        return None
    texts = attest(decision.promotions, plan, verdict, _origin(os.environ))
    subjects = texts.subjects.count("\n")
    if len(texts.predicate) > PREDICATE_LIMIT_BYTES or subjects > SUBJECTS_LIMIT:
        size = f"{len(texts.predicate):,} bytes and {subjects:,} subjects"
        msg = f"the attestation has {size}; actions/attest takes {PREDICATE_LIMIT_BYTES:,} and {SUBJECTS_LIMIT:,}"
        raise ConfigurationError(msg, hint="promote in several calls, or without --attestation")
    return texts


def _refuse_forks(environ: Mapping[str, str]) -> None:
    """Results that the code of a fork made are the fork's word: whoever may write them may write any digest."""
    if environ.get("GITHUB_ACTIONS") != "true":
        return
    from cuda_matrix.adapters.actions_env import actions_run
    from cuda_matrix.errors import ConfigurationError

    run = actions_run(environ)
    if run.from_fork:
        msg = f"not promoted: the event ({run.event}) is about code of a fork, whose results prove nothing"
        raise ConfigurationError(msg, hint="merge it, run the matrix on your own branch, and promote those results")


def _make_room(path: Path) -> None:
    """What cannot be written must be known before the first tag is given."""
    from cuda_matrix.errors import ConfigurationError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for each in _files(path):
            each.unlink(missing_ok=True)  # of an earlier release: it must not be signed for this one
            each.touch()
            each.unlink()
    except OSError as error:
        msg = f"the attestation cannot be written: {error.filename}: {error.strerror}"
        raise ConfigurationError(msg, hint="--attestation takes a file in a folder that can be written") from error


def _files(path: Path) -> tuple[Path, Path, Path]:
    """FILE takes the predicate; `FILE`'s stem names the other two: subjects and whole statement."""
    return path, path.with_suffix(".subjects.txt"), path.with_suffix(".statement.json")


def _write(texts: Attestation, path: Path) -> None:
    contents = (texts.predicate, texts.subjects, texts.statement)
    for each, content in zip(_files(path), contents, strict=True):
        each.write_text(content, encoding="utf-8")


def _origin(environ: Mapping[str, str]) -> Origin:
    from cuda_matrix.attestation import Origin
    from cuda_matrix.version import __version__

    if environ.get("GITHUB_ACTIONS") != "true":
        return Origin(tool_version=__version__)
    from cuda_matrix.adapters.actions_env import actions_run

    run = actions_run(environ)
    return Origin(run.run_url, f"git+{run.server_url}/{run.repository}", run.sha, __version__)
