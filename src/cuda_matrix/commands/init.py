"""Owns the verb `init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command(short_help="Write a commented starter configuration and workflow.")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
def command(directory: Path) -> None:
    """Write a commented starter configuration and workflow into DIR (default: here). Overwrites nothing."""
    from cuda_matrix.starter import write_starter

    for path in write_starter(directory):
        click.echo(f"wrote {path.as_posix()}", err=True)
    where = "" if directory == Path() else f" --config {shlex.quote((directory / 'matrix').as_posix())}"
    click.echo(f"next: put your machines into matrix/runners.yml, then: cuda-matrix validate{where}", err=True)
