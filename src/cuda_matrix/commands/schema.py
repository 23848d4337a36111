"""Owns the verb `schema`."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of a configuration or a result.")
@click.argument("what", type=click.Choice(["config", "result"]))
def command(what: str) -> None:
    """Print the JSON Schema (draft 2020-12) of a configuration file or of a result file."""
    from cuda_matrix.schemas import config_schema, result_schema

    schema = config_schema() if what == "config" else result_schema()
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))
