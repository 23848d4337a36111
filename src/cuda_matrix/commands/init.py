"""Owns the verb `init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command(short_help="Write a commented starter configuration and workflow.")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--entrypoint",
    is_flag=True,
    help="Instead: an entrypoint for your image that says at start whether the GPU can be used; printed, or into DIR.",
)
def command(directory: Path | None, *, entrypoint: bool) -> None:
    """Write a commented starter configuration and workflow into DIR (default: here). Overwrites nothing."""
    if entrypoint:
        _entrypoint(directory)
        return
    from cuda_matrix.starter import write_starter

    directory = directory or Path()
    for path in write_starter(directory):
        click.echo(f"wrote {path.as_posix()}", err=True)
    where = "" if directory == Path() else f" --config {shlex.quote((directory / 'matrix').as_posix())}"
    click.echo(f"next: put your machines into matrix/runners.yml, then: cuda-matrix validate{where}", err=True)


def _entrypoint(directory: Path | None) -> None:
    from cuda_matrix.reference import load_drivers
    from cuda_matrix.starter import entrypoint_script, write_entrypoint

    drivers = load_drivers()
    if directory is None:
        click.echo(entrypoint_script(drivers), nl=False)
        return
    path = write_entrypoint(directory, drivers)
    click.echo(f"wrote {path.as_posix()}; its first lines say how an image uses it", err=True)
