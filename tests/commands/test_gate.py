from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from builders import DIGEST, make_plan, make_result
from cuda_matrix.commands.gate import command
from cuda_matrix.ledger import Ledger, encode
from cuda_matrix.model import Verdict
from cuda_matrix.result_files import write_plan, write_result

CONFIG = """\
version: 1
images:
  - {id: good, ref: example.org/good:1}
  - {id: bad, ref: example.org/bad:1}
runners:
  rtx4090: {labels: [gpu], gpu: RTX 4090}
policy:
  required: ["good@*"]
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_plan(tmp_path / "results", make_plan(images=("good", "bad")))
    write_result(tmp_path / "results", make_result("good@rtx4090"))
    return tmp_path / "results"


def test_yes(results: Path) -> None:
    write_result(results, make_result("bad@rtx4090"))
    result = CliRunner().invoke(command, [str(results)])
    assert (result.exit_code, result.stdout) == (0, "release: yes\n")


def test_no_with_one_line_per_reason(results: Path) -> None:
    write_result(results, make_result("bad@rtx4090", Verdict.FAIL))
    result = CliRunner().invoke(command, [str(results)])
    assert (result.exit_code, result.stdout) == (1, "release: no\n  1 required cell fails: bad@rtx4090\n")


def test_the_policy_of_another_configuration(results: Path, tmp_path: Path) -> None:
    config = tmp_path / "other.yml"
    config.write_text(CONFIG)
    result = CliRunner().invoke(command, [str(results), "--config", str(config)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "note: bad@rtx4090 is not-run, but not required" in result.stdout


def test_a_plan_that_could_not_be_read_is_a_no(results: Path) -> None:
    write_result(results, make_result("bad@rtx4090"))
    (results / "lane-2").mkdir()
    (results / "lane-2" / "plan.json").write_text("{")
    result = CliRunner().invoke(command, [str(results)])
    assert result.exit_code == 1
    assert "a plan could not be used: lane-2/plan.json" in result.stdout


def test_a_plan_does_not_decide_what_the_configuration_demands(results: Path, tmp_path: Path) -> None:
    config = tmp_path / "other.yml"
    config.write_text(CONFIG.replace('"good@*"', '"*"') + "  tiers: {few: ['good@*']}\n")
    write_plan(results, make_plan(images=("good",)))
    assert CliRunner().invoke(command, [str(results)]).exit_code == 0
    result = CliRunner().invoke(command, [str(results), "--config", str(config)])
    assert result.exit_code == 1
    assert "required by the configuration, but not in the plan: bad@rtx4090" in result.stdout
    for part in (["--tier", "few"], ["--select", "good"]):
        result = CliRunner().invoke(command, [str(results), "--config", str(config), *part])
        assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "release: yes")
    assert CliRunner().invoke(command, [str(results), "--tier", "few"]).exit_code == 2


def test_a_plan_that_calls_everything_unchanged(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.yml").write_text(CONFIG)
    plan = make_plan(images=("good", "bad"), skipped=(("good", "rtx4090", "unchanged", "x"),))
    skipped = plan.skipped[0].model_copy(update={"digest": DIGEST})
    write_plan(results, plan.model_copy(update={"skipped": (skipped,)}))
    result = CliRunner().invoke(command, [str(results), "--config", "other.yml"])
    assert result.exit_code == 1
    assert "the table in this checkout holds no such good result: good@rtx4090" in result.stdout
    Path("reports").mkdir()
    Path("reports/results.jsonl").write_bytes(encode(Ledger(plan, {"good@rtx4090": make_result("good@rtx4090")})))
    assert CliRunner().invoke(command, [str(results), "--config", "other.yml"]).exit_code == 0
    Path("other.yml").write_text(CONFIG + "report: {branch: gpu-data}\n")
    assert CliRunner().invoke(command, [str(results), "--config", "other.yml"]).exit_code == 1


def test_a_plan_does_not_say_how_large_the_matrix_is(results: Path, tmp_path: Path) -> None:
    """A part of a matrix is asked for less coverage: whether it is one is the configuration's word."""
    config = tmp_path / "other.yml"
    config.write_text(CONFIG + "  coverage: {rtx4090: 2}\n")
    write_plan(results, make_plan(images=("good", "bad")).model_copy(update={"matrix_cells": 1_000}))
    result = CliRunner().invoke(command, [str(results), "--config", str(config)])
    assert result.exit_code == 1
    assert "rtx4090: 1 of 2 cells have an answer" in result.stdout
