"""Owns the workflow commands that turn a problem into an annotation of GitHub Actions; prints nothing itself.

Must not know whether a workflow runs (commands). The only module that knows their syntax
(https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands); outputs and the job summary are
written by action/main.sh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cuda_matrix.errors import Problem


def error_command(problem: Problem) -> str:
    """`::error file=…,line=…,col=…::message`, escaped as the runner's own toolkit does."""
    return _command("error", problem)


def warning_command(problem: Problem) -> str:
    """`::warning file=…,line=…,col=…::message`: an annotation that fails nothing."""
    return _command("warning", problem)


def _command(name: str, problem: Problem) -> str:
    place = f"file={_property(problem.file)}"
    if problem.line:
        place += f",line={problem.line},col={problem.column}"
    text = f"{problem.path}: {problem.message}" if problem.path else problem.message
    return f"::{name} {place}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
