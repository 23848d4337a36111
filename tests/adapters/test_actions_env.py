"""Workflow commands cannot be broken out of."""

from __future__ import annotations

import pytest

from cuda_matrix.adapters.actions_env import error_command, warning_command
from cuda_matrix.errors import Problem


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (
            Problem("matrix/images.yml", 3, 7, "images[0].id", "wrong"),
            "::error file=matrix/images.yml,line=3,col=7::images[0].id: wrong",
        ),
        (Problem("a.yml", 0, 0, "", "is empty"), "::error file=a.yml::is empty"),
        (
            Problem("a,b:c\n.yml", 1, 1, "", "50%\r\n::add-mask::x"),
            "::error file=a%2Cb%3Ac%0A.yml,line=1,col=1::50%25%0D%0A::add-mask::x",
        ),
    ],
)
def test_error_command(problem: Problem, line: str) -> None:
    assert error_command(problem) == line


def test_warning_command() -> None:
    problem = Problem("a.yml", 2, 3, "images[0].ref", "50% sure")
    assert warning_command(problem) == "::warning file=a.yml,line=2,col=3::images[0].ref: 50%25 sure"
