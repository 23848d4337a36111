"""Owns the verb `report`: results in, tables out. Whether they allow a release is the verb `gate`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

FORMATS = ("console", "markdown", "html", "json", "junit")


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder for the files of the report.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="Repeatable. Default: console, and with --out every file.",
)
def command(results: tuple[Path, ...], out: Path | None, formats: tuple[str, ...]) -> None:
    """Turn results into the compatibility and performance table.

    RESULTS are folders (with everything below them) or files that `run` wrote. Cells that the plan has and no result
    shows are "not run", which counts as failed. Exit 0 when there is a report, whatever it says.
    """
    from cuda_matrix.commands.material import collect, decide
    from cuda_matrix.report.build import build_view
    from cuda_matrix.report.console import render_console
    from cuda_matrix.report.render import FILES, render

    if out is None and len(formats) > 1:
        msg = "several formats go into a folder: give --out DIR"
        raise click.UsageError(msg)
    collected = collect(results)
    view = build_view(collected.plan, decide(collected), collected.problems)
    if not formats or "console" in formats:
        click.echo(render_console(view, colour=sys.stdout.isatty()), nl=False)
    files = render(view, [name for name in FILES if name in formats or (out and not formats)])
    if out is None:
        for text in files.values():
            click.echo(text, nl=False)
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
        click.echo(f"wrote {out / name}", err=True)
