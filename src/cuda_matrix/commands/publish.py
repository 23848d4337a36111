"""Owns the verb `publish`: the report on GitHub, from inside a workflow."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cuda_matrix.adapters.actions_env import ActionsRun
    from cuda_matrix.commands.material import Material
    from cuda_matrix.config_files import LoadedConfig
    from cuda_matrix.forge import Forge
    from cuda_matrix.publish import Judged, Occasion, Said

_AFTER_ANOTHER = "workflow_run"
_DEFAULT_RESULTS = ("results", "cuda-matrix-results")  # where `run`, and the workflow, put them


@dataclass(frozen=True)
class Options:
    """The verb's options, as click gives them."""

    report_dir: Path
    results: tuple[Path, ...]
    config: str | None
    tier: str | None
    select: tuple[str, ...]
    start: bool
    summary: bool
    check: bool
    commit: bool | None
    comment: bool | None
    dry_run: bool


@click.command(short_help="Put the report on GitHub: summary, check run, commit, comment.")
@click.argument("report_dir", type=click.Path(path_type=Path))
@click.option(
    "--results",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="What the report was made of; repeatable. Default: REPORT_DIR where it holds results, else results/ or "
    "cuda-matrix-results/.",
)
@click.option(
    "--config",
    metavar="PATH",
    help="Judge by this configuration, its policy, cells and report options, instead of by the plan's word: where a "
    "fork made the plan.",
)
@click.option("--tier", metavar="NAME", help="With --config: only this tier was to be planned.")
@click.option("--select", multiple=True, metavar="GLOB", help="With --config: only these cells were to be planned.")
@click.option("--start", is_flag=True, help="Only show a check run in progress; REPORT_DIR holds the plan.")
@click.option("--summary/--no-summary", default=True, show_default=True, help="The summary of the job.")
@click.option("--check/--no-check", default=True, show_default=True, help="The check run, with annotations.")
@click.option("--commit/--no-commit", default=None, help="Commit the report. Default: on the default branch.")
@click.option("--comment/--no-comment", default=None, help="Comment on the pull request. Default: report.comment.")
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing, say what would be written.")
@click.pass_context
def command(ctx: click.Context, /, **values: Any) -> None:
    """Put the report on GitHub: job summary, check run, commit of the report files, comment on the pull request.

    REPORT_DIR is the folder that `report --out` wrote. One line per part says what became of it. What the token may
    not do is left out and said (exit 0: a fork's token only reads); exit 3 where GitHub could not be reached. Whether
    the results allow a release is the verb `gate`. Needs GITHUB_REPOSITORY, GITHUB_SHA and GITHUB_TOKEN.
    """
    from cuda_matrix.adapters.actions_env import actions_run
    from cuda_matrix.errors import ExitCode

    options = Options(**values)
    run = actions_run(os.environ)
    forge = _forge(run)
    act = _start if options.start else _publish
    if options.dry_run:
        from cuda_matrix.dry_forge import DryForge
        from cuda_matrix.report.escape import console_text

        dry = DryForge(forge)
        said = act(dry, run, options)
        for line in dry.said:
            click.echo(console_text(line))
    else:
        said = act(forge, run, options)
    ctx.exit(ExitCode.INFRASTRUCTURE if any(one.state == "failed" for one in said) else ExitCode.GOOD)


def _forge(run: ActionsRun) -> Forge:
    from cuda_matrix.adapters.github_forge import connect
    from cuda_matrix.errors import ConfigurationError

    if not run.token:
        hint = "in a workflow: `env: { GITHUB_TOKEN: ${{ github.token }} }`; its `permissions:` say what is published"
        msg = "GITHUB_TOKEN is empty"
        raise ConfigurationError(msg, hint=hint)
    return connect(run.repository, run.token, api_url=run.api_url, graphql_url=run.graphql_url)


def _occasion(run: ActionsRun) -> Occasion:
    from cuda_matrix.publish import Occasion

    return Occasion(**{field.name: getattr(run, field.name) for field in fields(Occasion)})


def _start(forge: Forge, run: ActionsRun, options: Options) -> tuple[Said, ...]:
    from cuda_matrix.publish import start
    from cuda_matrix.result_files import PLAN_FILE, read_plan

    path = options.report_dir
    plan = read_plan(path / PLAN_FILE if path.is_dir() else path)
    said = start(forge, plan.report, _occasion(run), len(plan.cells))
    _tell(said)
    return (said,)


def _publish(forge: Forge, run: ActionsRun, options: Options) -> tuple[Said, ...]:
    from datetime import datetime, timezone

    from cuda_matrix.adapters.actions_env import append_summary
    from cuda_matrix.commands.material import decide, decide_under
    from cuda_matrix.commit_back import Pace
    from cuda_matrix.publish import Edges, Judged, Wanted, publish

    loaded = _loaded(options, run)
    found = _material(forge, run, options, loaded)
    if loaded is None:
        verdict = decide(found)
    else:
        found, verdict = decide_under(found, loaded, options.tier, options.select)
    judged = Judged(found.plan, found.results, found.problems, verdict)
    if loaded is None:
        _compare(options.report_dir, judged)
    wanted = Wanted(options.summary, options.check, options.commit, options.comment)

    def write_summary(markdown: str) -> bool:
        if options.dry_run:
            click.echo(f"would write a summary, {len(markdown.encode()):,} bytes")
            return True
        return append_summary(run, markdown)

    def tell(said: Said) -> None:
        if not options.dry_run or said.state != "done":  # a dry run has done nothing: it says what it would do
            _tell(said)

    edges = Edges(write_summary, tell, datetime.now(timezone.utc), Pace())
    return publish(forge, judged, _occasion(run), wanted, edges)


def _compare(report_dir: Path, judged: Judged) -> None:
    """A folder of another run beside these results would otherwise go unnoticed: all is made anew from the results."""
    from cuda_matrix.report.build import build_view
    from cuda_matrix.report.jsonform import render_json

    there = report_dir / "report.json"
    ours = render_json(build_view(judged.plan, judged.gate, judged.problems)).encode()
    if there.is_file() and (there.stat().st_size != len(ours) or there.read_bytes() != ours):
        click.echo(f"note: {there} is of other results; published is what the results say", err=True)


def _loaded(options: Options, run: ActionsRun) -> LoadedConfig | None:
    """What is judged by; None: the plan's own word."""
    from cuda_matrix.errors import ConfigurationError

    if options.config is None:
        if options.tier is not None or options.select:
            msg = "--tier and --select say which part of a configuration was to be planned"
            raise ConfigurationError(msg, hint="give --config too")
        if run.event == _AFTER_ANOTHER and run.from_fork:
            msg = "these results were made by the workflow of a fork, and so was the plan that they are judged by"
            raise ConfigurationError(msg, hint="give --config: the configuration of this branch then judges")
        return None
    from cuda_matrix.config_files import load

    return load(options.config)


def _material(forge: Forge, run: ActionsRun, options: Options, loaded: LoadedConfig | None) -> Material:
    """The results. Where there are none the check run ends all the same, as a failure."""
    from cuda_matrix.commands.material import collect
    from cuda_matrix.config import ReportOptions
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.publish import give_up

    try:
        if not options.report_dir.is_dir():
            msg = f"there is no folder {options.report_dir}"
            raise ConfigurationError(msg, hint="`cuda-matrix report RESULTS… --out DIR` makes it")  # noqa: TRY301
        return collect(options.results or _results(options.report_dir))
    except ConfigurationError as error:
        if options.check:
            _tell(give_up(forge, loaded.config.report if loaded else ReportOptions(), _occasion(run), str(error)))
        raise


def _results(report_dir: Path) -> tuple[Path, ...]:
    from cuda_matrix.ledger import LEDGER_FILE
    from cuda_matrix.result_files import PLAN_FILE

    if any((report_dir / name).is_file() for name in (PLAN_FILE, LEDGER_FILE)):
        return (report_dir,)
    folders = (Path(name) for name in _DEFAULT_RESULTS)
    return (next((folder for folder in folders if any(folder.rglob(PLAN_FILE))), report_dir),)


def _tell(said: Said) -> None:
    from cuda_matrix.report.escape import console_text

    click.echo(console_text(f"{said.part}: {said.text if said.state == 'done' else f'{said.state}: {said.text}'}"))
