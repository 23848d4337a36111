"""Owns the verb `gate`: the decision as lines and an exit code."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--config",
    metavar="PATH",
    help="Judge by this configuration, its policy and its cells, instead of by the plan's word.",
)
@click.option("--tier", metavar="NAME", help="With --config: only this tier was to be planned.")
@click.option("--select", multiple=True, metavar="GLOB", help="With --config: only these cells were to be planned.")
@click.pass_context
def command(
    ctx: click.Context, results: tuple[Path, ...], config: str | None, tier: str | None, select: tuple[str, ...]
) -> None:
    """Say whether the results allow a release; exit 0 or 1.

    One line per reason. Only good cells, failures that the policy expects, and skips with a reason let it through;
    a planned cell without a result counts as failed. With --config the plan is not believed either: its policy does
    not count, and a cell that the configuration requires must be in it, asked as the configuration says.
    """
    from cuda_matrix.commands.material import collect, decide, decide_under
    from cuda_matrix.errors import ExitCode
    from cuda_matrix.report.escape import console_text

    material = collect(results)
    if config is not None:
        from cuda_matrix.config_files import load

        material, verdict = decide_under(material, load(config), tier, select)
    elif tier is not None or select:
        msg = "--tier and --select say which part of a configuration was to be planned"
        raise click.UsageError(msg + ": give --config too")
    else:
        verdict = decide(material)
    click.echo(f"release: {'yes' if verdict.released else 'no'}")
    for reason in verdict.reasons:
        click.echo(f"  {console_text(reason.text)}")
    for note in verdict.notes:
        click.echo(f"  note: {console_text(note.text)}")
    for problem in material.problems:
        click.echo(f"  note: {console_text(str(problem))}")
    ctx.exit(ExitCode.GOOD if verdict.released else ExitCode.GATE_SAYS_NO)
