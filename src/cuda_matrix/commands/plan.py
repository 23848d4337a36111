"""Owns the verb `plan`: what is chosen, resolved and shown."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cuda_matrix.image_facts import ImageFacts
    from cuda_matrix.plan import Plan, PlannedCell, PlannedImage, SkippedCell

ROWS_SHOWN = 200  # of the table; a longer one is for machines
_WHY_WIDTH = 90  # columns of a reason, which is a sentence with its source
_DIGEST_SHOWN = 19  # characters: `sha256:` and 12 digits, as Docker abbreviates


@dataclass(frozen=True)
class Options:
    """The verb's options, as click gives them."""

    config: str | None
    select: tuple[str, ...]
    tier: str | None
    offline: bool
    no_skip: bool
    changed_since: str | None
    form: str
    max_jobs: int
    output: Path | None


@click.command(short_help="Show which cells run, in which lane, and which do not.")
@click.option(
    "--config", metavar="PATH", help="Directory of YAML files, or one file. Default: matrix/, else cuda-matrix.yml."
)
@click.option("--select", multiple=True, metavar="GLOB", help="Only cells that match; may be given several times.")
@click.option("--tier", metavar="NAME", help="Only the cells of this tier of the policy.")
@click.option("--offline", is_flag=True, help="Ask no registry: tags stay unresolved, and the plan says so.")
@click.option(
    "--no-skip", is_flag=True, help="Run cells that are predicted to fail, whatever policy.skip_predicted says."
)
@click.option(
    "--changed-since",
    metavar="REV",
    help="Leave out cells with nothing new since the committed table of this git revision; anything doubtful runs.",
)
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "github"]), default="table", show_default=True, help="How."
)
@click.option("--max-jobs", type=click.IntRange(1, 256), default=256, show_default=True, help="Most lanes of the plan.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the plan (JSON) there too."
)
def command(**values: Any) -> None:
    """Show which cells run, in which lane, and which do not and why.

    Tags are resolved to digests, so that every lane runs the same image. Each cell shows what is predicted of it from
    the registry, the configuration and the tag, without a pull. `--format github` prints the value of
    `strategy.matrix`; each lane is then `cuda-matrix run --plan FILE --lane N`.
    """
    from cuda_matrix import config_files, matrix
    from cuda_matrix.commands import foresight
    from cuda_matrix.commands.admission import admit, without_unchanged
    from cuda_matrix.commands.notices import show_warnings
    from cuda_matrix.report.escape import console_text

    options = Options(**values)
    loaded = config_files.load(options.config)
    show_warnings(loaded)
    plan = matrix.make_plan(
        loaded.expansion, loaded.config, select=options.select, tier=options.tier, max_jobs=options.max_jobs
    )
    asked: dict[str, ImageFacts | str] = {}
    if not options.offline:
        unresolved = {row.ref for row in plan.images.values() if row.digest is None}
        asked = foresight.ask_registries({row.ref for row in plan.images.values()}, needed=unresolved)
        plan = matrix.with_digests(plan, foresight.digests(asked))
    plan = foresight.foretold(plan, asked, skip=loaded.config.policy.skip_predicted and not options.no_skip)
    if options.changed_since is not None:
        plan, notes = without_unchanged(plan, options.changed_since, datetime.now(timezone.utc), options.config)
        for note in notes:
            click.echo(f"note: {console_text(note)}", err=True)
    environment = admit(plan, options.config, os.environ)
    if options.output is not None:
        _write(plan, options.output)
    click.echo(_shown(plan, options.form, environment))


def _write(plan: Plan, output: Path) -> None:
    from cuda_matrix.errors import ConfigurationError

    try:
        output.write_text(plan.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        msg = f"cannot write {output}: {error.strerror}"
        raise ConfigurationError(msg) from error


def _shown(plan: Plan, form: str, environment: str) -> str:
    if form == "json":
        return plan.model_dump_json(indent=2)
    if form == "github":
        from cuda_matrix.lanes import github_matrix

        return json.dumps(github_matrix(plan, environment))
    return "\n".join(_table(plan))


def _table(plan: Plan) -> Iterator[str]:
    from tabulate import tabulate

    from cuda_matrix.commands.foresight import driverless, wrapped

    rows = [
        (cell.id, _image(plan.images[cell.image]), f"{cell.lane}", _predicted(cell)) for cell in plan.cells[:ROWS_SHOWN]
    ]
    yield tabulate(rows, headers=("Cell", "Image", "Lane", "Predicted"), disable_numparse=True)
    yield from _more(len(plan.cells))
    yield from (wrapped(line) for line in driverless(plan))
    if plan.skipped:
        yield ""
        skipped = [(cell.id, _why_not(cell)) for cell in plan.skipped[:ROWS_SHOWN]]
        yield tabulate(skipped, headers=("Not run", "Why"), disable_numparse=True, maxcolwidths=[None, _WHY_WIDTH])
        yield from _more(len(plan.skipped))
        rules = {cell.prediction.rule: cell.prediction.source for cell in plan.skipped if cell.prediction}
        yield from (wrapped(f"rule {rule}: {source}") for rule, source in rules.items())
    yield ""
    runners = _count(len({lane.runner for lane in plan.lanes}), "runner")
    amounts = f"{_count(len(plan.cells), 'cell')} in {_count(len(plan.lanes), 'lane')} on {runners}"
    yield f"{amounts}; {len(plan.skipped)} skipped"
    yield from _unresolved(plan)


def _predicted(cell: PlannedCell) -> str:
    """– where no card is asked for, so that no rule speaks."""
    from cuda_matrix.commands.foresight import said

    return "–" if cell.prediction is None else said(cell.prediction)


def _why_not(cell: SkippedCell) -> str:
    from cuda_matrix.report.escape import console_text

    said = cell.prediction
    by = f" (rule {said.rule})" if said else ""
    return console_text(f"{cell.kind}: {cell.reason}{by}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _more(count: int) -> Iterator[str]:
    if count > ROWS_SHOWN:
        yield f"… and {count - ROWS_SHOWN} more (--format json shows all)"


def _image(row: PlannedImage) -> str:
    digest = f" ({row.digest[:_DIGEST_SHOWN]})" if row.digest and row.digest not in row.ref else ""
    return f"{row.ref}{digest}"


def _unresolved(plan: Plan) -> Iterator[str]:
    if plan.digests == "offline":
        yield "tags are unresolved (--offline): an image may change between two lanes"
    elif plan.digests == "partly":
        from cuda_matrix.report.escape import console_text

        reasons = {row.ref: row.unresolved for row in plan.images.values() if row.digest is None}
        yield f"unresolved tags: {len(reasons)}"
        yield from (f"  {ref}: {console_text(reason)}" for ref, reason in list(reasons.items())[:ROWS_SHOWN])
