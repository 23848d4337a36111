"""Our reusable workflow, called from another repository, by act (a real client of Actions) on this host's Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from act_bed import HOW, ROOT, Ran, Workflow, released
from container_bed import Bed, wait_until
from github_bed import GithubBed
from hostile_lab import assert_harmless_html, assert_harmless_log, assert_harmless_markdown

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
    """Even where the first attempt was good, and its artifacts still lie there ("Re-run all jobs")."""
    base = workflow.write("pull-request.yml", config(workflow.bed, ["torch26"]))
    number = workflow.github.pull()
    event = workflow.pull_event(number, base)
    done = workflow.run("pull_request", event)
    assert (done.code, ended(done)) == (0, ["succeeded"] * 3), done.log
    lost = ["--env", "GITHUB_RUN_ATTEMPT=2", "--env", "CUDA_MATRIX_ACT_LOSE=cuda-matrix-2-lane-0"]
    done = workflow.run("pull_request", event, options=lost)
    assert (done.code, ended(done)) == (1, ["succeeded", "failed", "failed"]), done.log
    assert workflow.results()["torch26@cpu"]["verdict"] == "pass", "of the first attempt"
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


def test_an_image_that_attacks_its_reader(workflow: Workflow) -> None:
    """tests/docker/images/hostile: what it says reaches every page as text, its neighbour and the gate not at all."""
    base = workflow.write("pull-request.yml", config(workflow.bed, ["hostile", "torch26"]))
    number = workflow.github.pull()
    event = workflow.pull_event(number, base)
    done = workflow.run("pull_request", event)
    log = done.log
    assert (done.code, [done.ended(job) for job in HOSTILE_JOBS]) == (1, ["succeeded", "succeeded", "failed"]), log
    results = workflow.results()
    assert {cell: one["verdict"] for cell, one in results.items()} == {"hostile@cpu": "fail", "torch26@cpu": "pass"}
    assert {item["id"]: item["status"] for item in results["torch26@cpu"]["checks"]}["first-kernel"] == "pass"
    assert "1 required cell fails, unknown: hostile@cpu" in done.job("Report and gate")
    assert_harmless_log(log)
    [summary] = set(re.findall(r"Summary - (.*?)\n\[GPU matrix/", log, re.DOTALL))
    assert_harmless_markdown(summary)
    [comment] = workflow.github.comments(number)
    assert_harmless_markdown(comment["body"])
    assert len(comment["body"].encode()) <= 60_000
    [check] = workflow.github.check_runs(event["pull_request"]["head"]["sha"])
    assert check["conclusion"] == "failure"
    for part in ("summary", "text"):
        assert_harmless_markdown(check["output"][part])
        assert len(check["output"][part].encode()) <= 65_535
    assert "EVIL" not in check["output"]["title"]
    assert all(one["path"] == "cuda-matrix.yml" for one in workflow.github.annotations(check["id"]))
    commit(workflow)
    files = workflow.github.files()
    assert all(re.fullmatch(r"(README\.md|reports/[a-z0-9./_-]+)", name) and ".." not in name for name in files), files
    assert sum(map(len, files.values())) < 1_000_000, "10 MB were said, twice"
    assert_harmless_markdown(files["reports/report.md"].decode())
    assert_harmless_html(files["reports/index.html"].decode())
    everything = "\n".join([log, comment["body"], json.dumps(results), *(each.decode() for each in files.values())])
    assert "what the container knows: PATH=" in everything
    assert not any(token in everything for token in (workflow.github.bot, workflow.github.read_only))


HOSTILE_JOBS = ("Plan", "cpu 1/1 (2 cells)", "Report and gate")


def commit(workflow: Workflow) -> None:
    """The same artifacts, as the nightly run publishes them."""
    environ = {
        **{name: os.environ[name] for name in ("PATH", "HOME")},
        "PYTHONPATH": str(ROOT / "src"),
        "GITHUB_API_URL": workflow.github.url,
        "GITHUB_GRAPHQL_URL": f"{workflow.github.url}/graphql",
        "GITHUB_REPOSITORY": workflow.github.repository,
        "GITHUB_SHA": workflow.github.head(),
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_EVENT_NAME": "workflow_dispatch",
        "GITHUB_RUN_ID": "101",
        "GITHUB_TOKEN": workflow.github.bot,
    }
    command = [sys.executable, "-m", "cuda_matrix", "publish", workflow.artifacts / "cuda-matrix-report"]
    command += ["--results", workflow.artifacts, "--commit", "--no-check"]
    done = subprocess.run(
        command, cwd=workflow.bed.work, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
