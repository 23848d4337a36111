"""The verb `publish` in the environment of a runner, against an emulated GitHub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builders import make_plan, make_result
from cuda_matrix.commands import gate, publish, recommend, report
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.result_files import write_plan, write_result
from github_bed import GithubBed

CELLS = ("good@rtx4090", "other@rtx4090")


@pytest.fixture
def workspace(github_bed: GithubBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of the default branch, with results and their report."""
    for name, value in environment(github_bed, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    plan = make_plan(("good", "other"))
    write_plan(tmp_path / "results", plan.model_copy(update={"matrix_cells": 2}))
    for cell in CELLS:
        write_result(tmp_path / "results", make_result(cell, images_per_s=900))
    CliRunner().invoke(report.command, ["results", "--out", "out"], catch_exceptions=False)
    return tmp_path


def environment(bed: GithubBed, folder: Path) -> dict[str, str]:
    return {
        "GITHUB_REPOSITORY": bed.repository,
        "GITHUB_SHA": bed.head(),
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_EVENT_NAME": "schedule",
        "GITHUB_EVENT_PATH": "",
        "GITHUB_RUN_ID": "4711",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_API_URL": bed.url,
        "GITHUB_GRAPHQL_URL": f"{bed.url}/graphql",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_TOKEN": bed.bot,
    }


def run(*arguments: str) -> Result:
    return CliRunner().invoke(publish.command, list(arguments))


def test_what_is_committed_can_be_read_again_by_every_verb(workspace: Path, github_bed: GithubBed) -> None:
    done = run("out")
    assert done.exit_code == 0, done.output
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(said) == ["summary", "check", "commit", "comment"]
    assert said["commit"].startswith("6 files to main in ")
    assert said["comment"] == "left out: no pull request"
    assert (workspace / "summary.md").read_text().startswith("# GPU compatibility")
    checkout = workspace / "checkout"
    for path, content in github_bed.files().items():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_bytes(content)
    folder = str(checkout / "reports")
    shown = CliRunner().invoke(report.command, [folder, "--format", "markdown"], catch_exceptions=False)
    assert shown.stdout == (checkout / "reports/report.md").read_text()
    judged = CliRunner().invoke(gate.command, [folder])
    assert (judged.exit_code, judged.stdout) == (0, "release: yes\n")
    asked = ["--offline", "--json", "--gpu", "RTX 4090", "--driver", "550.54.15", "--results", folder]
    best = json.loads(CliRunner().invoke(recommend.command, asked, catch_exceptions=False).stdout)
    assert best["fits"][0]["measured"]["images_per_s"] == 900
    assert json.loads((checkout / "reports/badge.json").read_text())["message"] == "2 of 2 work"


def test_a_dry_run_writes_nothing(workspace: Path, github_bed: GithubBed) -> None:
    done = run("out", "--dry-run")
    assert done.exit_code == 0
    assert "would commit to main: reports/badge.json" in done.stdout
    assert "would write a summary" in done.stdout
    assert not github_bed.proxy.writes()
    assert not (workspace / "summary.md").exists()
    assert ": done" not in done.output
    assert "check: completed" not in done.output


def test_start_shows_a_check_in_progress_and_nothing_else(workspace: Path, github_bed: GithubBed) -> None:
    done = run("results", "--start")
    assert (done.exit_code, done.stdout) == (0, "check: in progress\n")
    (check,) = github_bed.check_runs(github_bed.head())
    assert (check["status"], check["output"]["title"]) == ("in_progress", "2 cells to run")
    assert len(github_bed.proxy.writes()) == 1
    (workspace / "results/plan.json").unlink()
    done = run("out")
    assert isinstance(done.exception, ConfigurationError)
    (check,) = github_bed.check_runs(github_bed.head())
    assert (check["status"], check["conclusion"]) == ("completed", "failure")


def test_a_token_that_only_reads_is_no_failure(
    workspace: Path, github_bed: GithubBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", github_bed.read_only)
    done = run("out")
    assert done.exit_code == 0
    assert "check: refused: this token may not: " in done.stdout
    assert "commit: refused: this token may not: " in done.stdout
    assert (workspace / "summary.md").exists()


@pytest.mark.usefixtures("workspace")
def test_a_wrong_token_is_infrastructure_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghs_" + "S3cret" * 6)
    done = run("out", "--no-check")
    assert done.exit_code == 3
    assert "commit: failed: " in done.stdout
    assert "S3cret" not in done.output


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "GITHUB_REPOSITORY", "GITHUB_SHA"])
def test_outside_of_a_workflow_the_error_names_what_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name)
    done = run("out")
    assert isinstance(done.exception, ConfigurationError)
    assert name in f"{done.exception} {done.exception.hint}"


def test_a_report_of_other_results_is_noticed(workspace: Path) -> None:
    (workspace / "out/report.json").write_text("{}")
    done = run("out", "--dry-run", "--no-commit")
    assert "is of other results; published is what the results say" in done.stderr
    assert "commit: left out: not asked for" in done.stdout


def test_the_configuration_stands_over_a_plan_of_somebody_else(workspace: Path) -> None:
    (workspace / "cuda-matrix.yml").write_text(
        "version: 1\nimages: [{id: good, ref: 'example.org/good:1'}]\n"
        "runners: {rtx4090: {labels: [self-hosted], gpu: RTX 4090}}\nreport: {dir: docs/gpu}\n"
    )
    done = run("out", "--dry-run", "--config", "cuda-matrix.yml")
    assert "would commit to main: docs/gpu/badge.json" in done.stdout


@pytest.mark.usefixtures("workspace")
def test_a_folder_that_is_not_there() -> None:
    done = run("nowhere", "--dry-run")
    assert isinstance(done.exception, ConfigurationError)
    assert "no folder nowhere" in str(done.exception)


def test_a_forks_plan_is_not_judged_by_its_own_word(
    workspace: Path, github_bed: GithubBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fork, head = github_bed.fork_pull()
    before = {"head_sha": head, "head_repository": {"full_name": fork}, "event": "pull_request", "head_branch": "main"}
    (workspace / "event.json").write_text(json.dumps({"workflow_run": before}))
    monkeypatch.setenv("GITHUB_EVENT_NAME", "workflow_run")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(workspace / "event.json"))
    refused = run("out").exception
    assert isinstance(refused, ConfigurationError)
    assert "give --config" in (refused.hint or "")
    config = workspace / "cuda-matrix.yml"
    images = "[{id: good, ref: 'example.org/good:1'}, {id: lost, ref: 'example.org/lost:1'}]"
    config.write_text(f"version: 1\nimages: {images}\nrunners: {{rtx4090: {{labels: [x], gpu: RTX 4090}}}}\n")
    # Without the check: the emulator does not know the commits of forks in the repository that they are of.
    done = run("out", "--config", str(config), "--commit", "--no-check")
    assert done.exit_code == 0, done.output
    assert "commit: left out: results of a fork's code are never committed" in done.stdout
    assert "required by the configuration, but not in the plan: lost@rtx4090" in (workspace / "summary.md").read_text()
    (workspace / "summary.md").unlink()
    assert run("out", "--config", str(config), "--select", "good", "--no-check").exit_code == 0
    assert "required by the configuration" not in (workspace / "summary.md").read_text()
