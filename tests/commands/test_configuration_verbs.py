"""`validate`, `init` and `schema`, as click calls them."""

from __future__ import annotations

import importlib
import json
import shlex
from pathlib import Path

import click
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


DOUBTFUL = """\
version: 1
images:
  - {id: a, ref: "a:latest"}
  - {id: b, ref: "b"}
  - {id: "c{t}", ref: "c:{t}", axes: {t: ["1", nightly]}}
  - {id: d, ref: "d:{t}-1", axes: {t: ["1"]}}
  - {id: e, ref: "localhost:5000/e"}
runners: {g: {labels: [x], gpu: RTX 3900}}
policy:
  expect_fail: [{cell: a@g, until: "2020-01-31", reason: abc}]
"""


@pytest.mark.parametrize("verb", [["validate"], ["plan", "--offline"]])
def test_warnings_change_nothing_but_stderr(tmp_path: Path, verb: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    file = tmp_path / "a.yml"
    file.write_text(DOUBTFUL)
    done = call(verb[0], *verb[1:], "--config", str(file))
    assert done.exception is None
    assert "warning" not in done.stdout
    lines = [line.removeprefix(f"warning: {file.as_posix()}:") for line in done.stderr.splitlines()]
    assert [line.split(": ")[:2] for line in lines] == [
        ["3:18", "images[0].ref"],
        ["4:18", "images[1].ref"],
        ["5:23", "images[2].ref"],
        ["7:18", "images[4].ref"],
        ["8:33", "runners.g.gpu"],
        ["10:36", "policy.expect_fail[0].until"],
    ]
    assert "did you mean 'RTX 3090'?" in lines[4]


def test_warnings_are_annotations_under_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "a.yml").write_text("version: 1\nimages: [{id: a, ref: a}]\nrunners: {g: {labels: [x]}}\n")
    done = call("validate", str(tmp_path / "a.yml"))
    assert done.stdout == "ok: 1 image × 1 runner = 1 cell (0 excluded)\n"
    warning, annotation = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert annotation.startswith(f"::warning file={(tmp_path / 'a.yml').as_posix()},line=2,col=23::images[0].ref: ")


def test_the_path_is_given_once(tmp_path: Path) -> None:
    assert isinstance(call("validate", str(tmp_path), "--config", str(tmp_path)).exception, click.UsageError)


def test_the_command_that_init_suggests_can_be_pasted(tmp_path: Path) -> None:
    done = call("init", str(tmp_path / "my fleet"))
    suggested = shlex.split(done.stderr.rpartition("then: ")[2])
    assert suggested == ["cuda-matrix", "validate", "--config", f"{tmp_path.as_posix()}/my fleet/matrix"]
    assert call(*suggested[1:]).exception is None


@pytest.mark.parametrize(("what", "key"), [("config", "images"), ("result", "verdict")])
def test_schema(what: str, key: str) -> None:
    schema = json.loads(call("schema", what).stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert schema["description"]
    assert key in schema["properties"]
