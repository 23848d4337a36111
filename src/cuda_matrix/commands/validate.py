"""Owns the verb `validate`."""

from __future__ import annotations

import click


@click.command(short_help="Check the configuration; every error at once.")
@click.argument("path", required=False)
@click.option(
    "--config", metavar="PATH", help="Directory of YAML files, or one file. Default: matrix/, else cuda-matrix.yml."
)
def command(path: str | None, config: str | None) -> None:
    """Check the configuration and name every error at once, each as file:line:column: path: problem.

    PATH is short for --config PATH. Warnings name what is allowed and probably not meant; they change no exit code.
    """
    from cuda_matrix import config_files
    from cuda_matrix.commands.notices import show_warnings

    if path is not None and config is not None:
        msg = "give the path once: either PATH or --config PATH"
        raise click.UsageError(msg)
    loaded = config_files.load(path if path is not None else config)
    show_warnings(loaded)
    found = loaded.expansion
    images, runners, cells, skipped = (len(part) for part in (found.images, found.runners, found.cells, found.skipped))
    sides = f"{images} image{'s' * (images != 1)} × {runners} runner{'s' * (runners != 1)}"
    click.echo(f"ok: {sides} = {cells + skipped} cell{'s' * (cells + skipped != 1)} ({skipped} excluded)")
