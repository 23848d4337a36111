"""Owns how `validate` and `plan` show warnings: on stderr, and as annotations where GitHub Actions runs them.

Must not know what is worth a warning (review).
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cuda_matrix.config_files import LoadedConfig


def show_warnings(loaded: LoadedConfig) -> None:
    """One line a warning, `warning: file:line:column: path: …`. Warnings never change an exit code."""
    from cuda_matrix.adapters.actions_env import warning_command
    from cuda_matrix.config_files import warnings
    from cuda_matrix.report.escape import console_text

    for problem in warnings(loaded, datetime.now(timezone.utc).date()):
        click.echo(f"warning: {console_text(str(problem))}", err=True)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            click.echo(warning_command(problem), err=True)
