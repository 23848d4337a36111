"""`validate`, `init` and `schema`, as click calls them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cuda_matrix.errors import ConfigurationError


def call(verb: str, *arguments: str) -> Result:
    command = importlib.import_module(f"cuda_matrix.commands.{verb}").command
    return CliRunner().invoke(command, list(arguments), catch_exceptions=True, standalone_mode=False)


def test_init_then_validate(tmp_path: Path) -> None:
    done = call("init", str(tmp_path))
    assert done.exception is None
    assert done.stdout == ""
    assert f"wrote {tmp_path.as_posix()}/matrix/images.yml" in done.stderr
    assert f"cuda-matrix validate --config {tmp_path.as_posix()}/matrix" in done.stderr
    assert (
        call("validate", "--config", str(tmp_path / "matrix")).stdout
        == "ok: 4 images × 1 runner = 4 cells (0 excluded)\n"
    )


def test_init_twice(tmp_path: Path) -> None:
    call("init", str(tmp_path))
    assert isinstance(call("init", str(tmp_path)).exception, ConfigurationError)


def test_validate_raises_every_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("version: 1\nimages: [{id: a}]\nrunners: {g: {label: [x]}}\n")
    error = call("validate", "--config", str(tmp_path / "a.yml")).exception
    assert isinstance(error, ConfigurationError)
    assert [(problem.line, problem.column, problem.path) for problem in error.problems] == [
        (2, 10, "images[0].ref"),
        (3, 14, "runners.g.labels"),
        (3, 15, "runners.g.label"),
    ]


@pytest.mark.parametrize(("what", "key"), [("config", "images"), ("result", "verdict")])
def test_schema(what: str, key: str) -> None:
    schema = json.loads(call("schema", what).stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert schema["description"]
    assert key in schema["properties"]
