"""Owns the verb `gate`: the decision over collected results, as lines and an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cuda_matrix.errors import Problem
    from cuda_matrix.gate import GateVerdict
    from cuda_matrix.plan import Plan
    from cuda_matrix.result import CellResult


class Material(NamedTuple):
    """What a decision is made of: collected results that have a plan."""

    plan: Plan
    results: tuple[CellResult, ...]
    problems: tuple[Problem, ...]
    plan_problems: tuple[Problem, ...]


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--config", metavar="PATH", help="Judge by the policy of this configuration instead of the plan's.")
@click.pass_context
def command(ctx: click.Context, results: tuple[Path, ...], config: str | None) -> None:
    """Say whether the results allow a release; exit 0 or 1.

    One line per reason. Only good cells, failures that the policy expects, and skips with a reason let it through;
    a planned cell without a result counts as failed.
    """
    from cuda_matrix.errors import ExitCode
    from cuda_matrix.report.escape import console_text

    material = collect(results)
    if config is not None:
        from cuda_matrix.config_files import load

        policy = load(config).config.policy
        material = material._replace(plan=material.plan.model_copy(update={"policy": policy}))
    verdict = decide(material)
    click.echo(f"release: {'yes' if verdict.released else 'no'}")
    for reason in verdict.reasons:
        click.echo(f"  {console_text(reason.text)}")
    for note in verdict.notes:
        click.echo(f"  note: {console_text(note.text)}")
    for problem in material.problems:
        click.echo(f"  note: {console_text(str(problem))}")
    ctx.exit(ExitCode.GOOD if verdict.released else ExitCode.GATE_SAYS_NO)


def collect(paths: Iterable[Path]) -> Material:
    """Read results and their plan.

    Raises:
        ConfigurationError: no plan was found, so that nothing says which cells are missing.
    """
    from cuda_matrix.errors import ConfigurationError
    from cuda_matrix.result_files import PLAN_FILE, read_results

    found = read_results(paths)
    if found.plan is None:
        msg = f"no {PLAN_FILE} could be read: nothing says which cells there should be"
        hint = "`cuda-matrix run` writes it beside the results; give its whole folder"
        raise ConfigurationError(msg, problems=found.problems, hint=hint)
    return Material(found.plan, found.results, found.problems, found.plan_problems)


def decide(material: Material) -> GateVerdict:
    """Judge on the day of the newest result, so that the same results always give the same answer."""
    from cuda_matrix.gate import judge, newest_date

    return judge(material.plan, material.results, newest_date(material.results), material.plan_problems)
