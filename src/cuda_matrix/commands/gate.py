"""Owns the verb `gate`: the decision as lines and an exit code."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--config", metavar="PATH", help="Judge by the policy of this configuration instead of the plan's.")
@click.pass_context
def command(ctx: click.Context, results: tuple[Path, ...], config: str | None) -> None:
    """Say whether the results allow a release; exit 0 or 1.

    One line per reason. Only good cells, failures that the policy expects, and skips with a reason let it through;
    a planned cell without a result counts as failed.
    """
    from cuda_matrix.commands.material import collect, decide
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
