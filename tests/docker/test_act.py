"""Our reusable workflow, called from another repository, by act (a real client of Actions) on this host's Docker."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from act_bed import HOW, Ran, Workflow, released
from container_bed import Bed, wait_until
from github_bed import GithubBed

pytestmark = [
    pytest.mark.skipif(shutil.which("act") is None, reason=HOW),
    pytest.mark.timeout(600),
]
STORE = Path(os.environ.get("CUDA_MATRIX_TESTBED", "/var/cache/cuda-matrix-ci"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released(tmp_path_factory.mktemp("ours"))


@pytest.fixture
def workflow(bed: Bed, github_bed: GithubBed, ours: Path) -> Iterator[Workflow]:
    home = STORE / "act-home"  # with the tool cache: one installation of our packages for all tests and runs
    home.mkdir(parents=True, exist_ok=True)
    flow = Workflow(bed, github_bed, ours, home)
    yield flow
    flow.cleanup()


def config(bed: Bed, images: list[str], **sections: Any) -> dict[str, Any]:
    """Quick cells on a runner without a card; `rtx3090` is there too, simulated by the test bed's hook."""
    return {
        "version": 1,
        "images": [{"id": image, "ref": bed.ref(image), "paths": [f"{image}/**"]} for image in images],
        "runners": {"cpu": {"labels": ["self-hosted", "cpu"]}},
        "payload": {"profile": "smoke", "checks": ["first-kernel"], "benchmarks": [], "timeout": "2m"},
        "container": {"shm_size": "1g", "memory": "4g"},
        "policy": {"tiers": {"pull_request": ["*"]}},
        **sections,
    }


JOBS = ("Plan", "cpu 1/1 (1 cell)", "Report and gate")


def ended(done: Ran) -> list[str]:
    """How each job of a run with one lane ended; empty where it did not run."""
    return [done.ended(job) for job in JOBS]


def check_of(workflow: Workflow, sha: str) -> tuple[str, str | None]:
    """The one check run on a commit."""
    [check] = workflow.github.check_runs(sha)
    return check["status"], check["conclusion"]


def test_all_green_and_then_nothing_is_affected(workflow: Workflow) -> None:
    """The nightly run commits; a pull request that changes nothing runs nothing, on a warm tool cache, and is green."""
    workflow.write("nightly.yml", config(workflow.bed, ["torch26"]))
    head = workflow.github.head()
    workflow.stand_at(head)
    done = workflow.run("workflow_dispatch", {"repository": {"default_branch": "main"}})
    assert (done.code, ended(done)) == (0, ["succeeded"] * 3), done.log
    assert {cell: one["verdict"] for cell, one in workflow.results().items()} == {"torch26@cpu": "pass"}
    assert check_of(workflow, head) == ("completed", "success")
    files = workflow.github.files()
    assert {"reports/report.md", "reports/index.html", "reports/results.jsonl"} <= set(files)
    assert b"torch26" in files["reports/report.md"]

    for name, content in files.items():
        (workflow.caller / name).parent.mkdir(parents=True, exist_ok=True)
        (workflow.caller / name).write_bytes(content)
    base = workflow.write("pull-request.yml", config(workflow.bed, ["torch26"]))
    shutil.rmtree(workflow.artifacts)
    workflow.run_id += 1
    done = workflow.run("pull_request", workflow.pull_event(workflow.github.pull(), base))
    assert (done.code, ended(done)) == (0, ["succeeded", "", "succeeded"]), done.log
    assert "nothing to run" in done.job("Plan")
    assert workflow.results() == {}
    [took] = re.findall(r"Prepare a private environment \[([0-9.]+m?s)\]", done.job("Plan"))
    assert took.endswith("ms") or float(took[:-1]) < 5, "the tool cache was warm"


def test_one_red_cell_fails_the_job_and_the_pull_request_says_why(workflow: Workflow) -> None:
    base = workflow.write("pull-request.yml", config(workflow.bed, ["python"]))
    number = workflow.github.pull()
    event = workflow.pull_event(number, base)
    done = workflow.run("pull_request", event)
    assert (done.code, ended(done)) == (1, ["succeeded", "succeeded", "failed"]), done.log
    assert "torch-missing" in done.job("Report and gate")
    [comment] = workflow.github.comments(number)
    assert "torch-missing" in comment["body"]
    assert check_of(workflow, event["pull_request"]["head"]["sha"]) == ("completed", "failure")


def test_a_lane_that_dies_before_its_upload_is_not_run_and_red(workflow: Workflow) -> None:
    base = workflow.write("pull-request.yml", config(workflow.bed, ["torch26"]))
    number = workflow.github.pull()
    event = workflow.pull_event(number, base)
    lost = ["--env", "CUDA_MATRIX_ACT_LOSE=cuda-matrix-lane-0"]
    done = workflow.run("pull_request", event, options=lost)
    assert (done.code, ended(done)) == (1, ["succeeded", "failed", "failed"]), done.log
    assert "1 required cell did not run" in done.job("Report and gate")
    assert "torch26" in workflow.github.comments(number)[0]["body"]
    assert check_of(workflow, event["pull_request"]["head"]["sha"]) == ("completed", "failure")


def test_a_fork_reaches_no_machine_of_ours(workflow: Workflow) -> None:
    base = workflow.write("pull-request.yml", config(workflow.bed, ["torch26"]))
    number, fork, head = workflow.github.fork_pull()
    event = workflow.pull_event(number, base, head=head, fork=fork)
    done = workflow.run("pull_request", event, token=workflow.github.read_only)
    assert (done.code, ended(done)) == (1, ["failed", "", "failed"]), done.log
    assert "the code comes from a fork" in done.job("Plan")
    assert workflow.results() == {}
    assert workflow.github.comments(number) == []


def test_a_fork_on_a_hosted_runner_has_a_summary_alone(workflow: Workflow) -> None:
    sections = {"runners": {"cpu": {"labels": ["ubuntu-24.04"]}}, "report": {"comment": "always"}}
    base = workflow.write("pull-request.yml", config(workflow.bed, ["torch26"], **sections))
    number, fork, _ = workflow.github.fork_pull()
    head = workflow.github.head()  # GitHub finds a fork's commits in the base repository; emulate does not
    event = workflow.pull_event(number, base, head=head, fork=fork)
    done = workflow.run("pull_request", event, token=workflow.github.read_only)
    assert (done.code, ended(done)) == (0, ["succeeded"] * 3), done.log
    said = done.job("Report and gate")
    assert "summary: written" in said
    assert "check: refused" in said
    assert "comment: refused" in said
    assert workflow.github.comments(number) == []
    assert workflow.github.check_runs(head) == []


def test_cancelled_in_mid_run(workflow: Workflow) -> None:
    base = workflow.write("pull-request.yml", config(workflow.bed, ["hang"]))
    event = workflow.pull_event(workflow.github.pull(), base)
    process = workflow.start("pull_request", event)
    wait_until(
        "the container runs", lambda: workflow.bed.docker("ps", "--quiet", "--filter", "label=cuda-matrix.cell"), 120
    )
    process.send_signal(signal.SIGINT)
    log, _ = process.communicate(timeout=120)
    wait_until("no container is left", lambda: workflow.bed.containers() == [], 60)
    assert check_of(workflow, event["pull_request"]["head"]["sha"])[0] == "completed", log
