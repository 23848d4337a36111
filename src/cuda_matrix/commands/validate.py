"""Owns the verb `validate`."""

from __future__ import annotations

import click


@click.command(short_help="Check the configuration; every error at once.")
@click.option(
    "--config", metavar="PATH", help="Directory of YAML files, or one file. Default: matrix/, else cuda-matrix.yml."
)
def command(config: str | None) -> None:
    """Check the configuration and name every error at once, each as file:line:column: path: problem."""
    from cuda_matrix import config_files

    found = config_files.load(config).expansion
    images, runners, cells, skipped = (len(part) for part in (found.images, found.runners, found.cells, found.skipped))
    sides = f"{images} image{'s' * (images != 1)} × {runners} runner{'s' * (runners != 1)}"
    click.echo(f"ok: {sides} = {cells + skipped} cell{'s' * (cells + skipped != 1)} ({skipped} excluded)")
