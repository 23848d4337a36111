"""What the runner says is read with distrust, and what it is told cannot be broken out of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cuda_matrix.adapters.actions_env import (
    EVENT_LIMIT,
    SUMMARY_LIMIT,
    ActionsRun,
    actions_run,
    append_summary,
    error_command,
    warning_command,
    write_output,
)
from cuda_matrix.errors import ConfigurationError, Problem

MERGE, HEAD, BASE = "a" * 40, "b" * 40, "c" * 40


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


def run_of(folder: Path, event: Any = None, **environ: str) -> ActionsRun:
    given = {
        "GITHUB_REPOSITORY": "acme/images",
        "GITHUB_SHA": MERGE,
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_RUN_ID": "42",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_TOKEN": "ghs_secret",
    }
    if event is not None:
        file = folder / "event.json"
        file.write_text(event if isinstance(event, str) else json.dumps(event))
        given["GITHUB_EVENT_PATH"] = str(file)
    return actions_run({**given, **environ})


def pull_request(repository: Any, **more: Any) -> dict[str, Any]:
    head = {"sha": HEAD, "repo": repository and {"full_name": repository}}
    return {"pull_request": {"number": 7, "head": head, "base": {"sha": BASE, "ref": "main"}}, **more}


def test_a_push(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"head_commit": {}})
    assert (run.repository, run.sha, run.head_sha, run.head_repository) == ("acme/images", MERGE, MERGE, "acme/images")
    assert (run.pull, run.from_fork, run.base_sha, run.label) == (None, False, "", "")
    assert run.run_url == "https://github.com/acme/images/actions/runs/42"
    assert (run.api_url, run.graphql_url, run.summary, run.output) == ("https://api.github.com", "", None, None)


def test_a_second_attempt_on_github_enterprise(tmp_path: Path) -> None:
    server = {"GITHUB_SERVER_URL": "https://ghe.example/", "GITHUB_API_URL": "https://ghe.example/api/v3"}
    run = run_of(tmp_path, GITHUB_RUN_ATTEMPT="3", GITHUB_GRAPHQL_URL="https://ghe.example/api/graphql", **server)
    assert run.run_url == "https://ghe.example/acme/images/actions/runs/42/attempts/3"
    assert (run.api_url, run.graphql_url) == ("https://ghe.example/api/v3", "https://ghe.example/api/graphql")


@pytest.mark.parametrize(
    ("repository", "fork"), [("acme/images", False), ("Acme/Images", False), ("mallory/images", True), (None, True)]
)
def test_a_pull_request(tmp_path: Path, repository: str | None, fork: bool) -> None:
    event = pull_request(repository, action="labeled", label={"name": "gpu-approved"})
    run = run_of(tmp_path, event, GITHUB_EVENT_NAME="pull_request", GITHUB_REF="refs/pull/7/merge")
    assert (run.sha, run.head_sha, run.base_sha, run.base_ref) == (MERGE, HEAD, BASE, "main")
    assert (run.pull, run.from_fork, run.head_repository) == (7, fork, repository or "")
    assert (run.event, run.activity, run.label) == ("pull_request", "labeled", "gpu-approved")


def test_a_workflow_run_speaks_of_the_run_before(tmp_path: Path) -> None:
    before = {"head_sha": HEAD, "head_repository": {"full_name": "mallory/images"}, "pull_requests": []}
    run = run_of(tmp_path, {"workflow_run": before}, GITHUB_EVENT_NAME="workflow_run")
    assert (run.head_sha, run.head_repository, run.from_fork, run.pull) == (HEAD, "mallory/images", True, None)


@pytest.mark.parametrize(
    ("branch", "ref"), [("topic", "refs/heads/topic"), (None, ""), ("x\ny", ""), ("--force", ""), ("a b", "")]
)
def test_a_workflow_run_names_the_branch_and_event_of_the_run_before(tmp_path: Path, branch: Any, ref: str) -> None:
    before = {"head_sha": HEAD, "head_repository": {"full_name": "acme/images"}, "head_branch": branch, "event": "push"}
    run = run_of(tmp_path, {"workflow_run": before}, GITHUB_EVENT_NAME="workflow_run")
    assert (run.ref, run.after, run.from_fork) == (ref, "push", False)
    assert run_of(tmp_path, {"head_commit": {}}).after == ""


def test_a_comment_on_a_pull_request_does_not_say_whose_code_is_checked_out(tmp_path: Path) -> None:
    issue = {"number": 7, "pull_request": {"url": "x"}}
    run = run_of(tmp_path, {"issue": issue, "comment": {"body": "/test"}}, GITHUB_EVENT_NAME="issue_comment")
    assert (run.from_fork, run.pull, run.base_sha, run.head_sha, run.head_repository) == (True, 7, MERGE, "", "")
    plain = run_of(tmp_path, {"issue": {"number": 7}}, GITHUB_EVENT_NAME="issue_comment")
    assert (plain.from_fork, plain.pull, plain.head_sha) == (False, None, MERGE)


@pytest.mark.parametrize("event", ["push", "schedule", "workflow_dispatch", "repository_dispatch"])
def test_events_that_propose_nothing(tmp_path: Path, event: str) -> None:
    content = {"action": "x", "inputs": {"pull_request": 1}, "client_payload": {"pull_request": {"number": 9}}}
    run = run_of(tmp_path, content, GITHUB_EVENT_NAME=event, GITHUB_REF="refs/tags/v1")
    assert (run.from_fork, run.pull, run.head_sha, run.ref) == (False, None, MERGE, "refs/tags/v1")


@pytest.mark.parametrize("number", ["7", 7.0, True, None, 10**18, [7]])
def test_a_number_is_a_number(tmp_path: Path, number: Any) -> None:
    event = pull_request("acme/images")
    event["pull_request"]["number"] = number
    assert run_of(tmp_path, event, GITHUB_EVENT_NAME="pull_request_target").pull is None


def test_a_merge_queue(tmp_path: Path) -> None:
    group = {"head_sha": MERGE, "base_sha": BASE, "base_ref": "refs/heads/main"}
    run = run_of(tmp_path, {"merge_group": group}, GITHUB_EVENT_NAME="merge_group")
    assert (run.head_sha, run.base_sha, run.base_ref, run.from_fork) == (MERGE, BASE, "main", False)


@pytest.mark.parametrize("event", ["pull_request", "pull_request_target", "workflow_run"])
@pytest.mark.parametrize(
    "content", [None, {}, {"pull_request": "x"}, {"pull_request": {"head": {}}}, {"workflow_run": {}}]
)
def test_whose_code_it_is_must_be_said(tmp_path: Path, event: str, content: Any) -> None:
    assert run_of(tmp_path, content, GITHUB_EVENT_NAME=event).from_fork


def test_a_hostile_event_gives_nothing(tmp_path: Path) -> None:
    event = pull_request("../../etc", action="x\n::set-env", label={"name": "l" * 10_000})
    event["pull_request"] |= {"number": -1}
    event["pull_request"]["head"]["sha"] = "$(reboot)"
    run = run_of(tmp_path, event, GITHUB_EVENT_NAME="pull_request", GITHUB_RUN_ID="1;x", GITHUB_REF="refs/pull/x/merge")
    assert (run.head_sha, run.head_repository, run.pull, run.activity, run.run_id) == (MERGE, "", None, "", "")
    assert run.from_fork
    assert len(run.label) == 100


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_an_event_file_that_is_none(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError, match="no JSON object"):
        run_of(tmp_path, content)


def test_an_event_file_that_is_missing_or_enormous(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run_of(tmp_path, GITHUB_EVENT_PATH=str(tmp_path / "none.json"))
    big = tmp_path / "big.json"
    with big.open("wb") as file:
        file.truncate(EVENT_LIMIT + 1)
    with pytest.raises(ConfigurationError, match="more than"):
        run_of(tmp_path, GITHUB_EVENT_PATH=str(big))


@pytest.mark.parametrize("environ", [{"GITHUB_REPOSITORY": "x"}, {"GITHUB_SHA": ""}, {"GITHUB_REPOSITORY": "a/.."}])
def test_outside_of_actions_it_says_what_is_missing(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="GITHUB_REPOSITORY") as raised:
        run_of(tmp_path, **environ)
    assert raised.value.hint


def test_the_token_is_not_shown(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert run.token == "ghs_secret"
    assert "ghs_secret" not in repr(run)
    assert actions_run({"GITHUB_REPOSITORY": "a/b", "GITHUB_SHA": HEAD}, token="ghp_mine").token == "ghp_mine"


def test_the_summary_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    run = run_of(tmp_path, GITHUB_STEP_SUMMARY=str(file))
    assert append_summary(run, "# Ä")
    assert append_summary(run, "more\n\n")
    assert file.read_bytes() == "# Ä\nmore\n".encode()
    rest = SUMMARY_LIMIT - file.stat().st_size
    assert not append_summary(run, "x" * rest)
    assert file.read_bytes() == "# Ä\nmore\n".encode()
    assert append_summary(run, "x" * (rest - 1))
    assert file.stat().st_size == SUMMARY_LIMIT
    assert not append_summary(run_of(tmp_path), "x")


def test_outputs_are_read_back_as_the_runner_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "output"
    run = run_of(tmp_path, GITHUB_OUTPUT=str(file))
    values = {"matrix": '{"include": []}', "lines": "one\ntwo\r\nthree", "evil": "x\nEOF\nother<<EOF\n1", "empty": ""}
    for name, value in values.items():
        write_output(run, name, value)
    lines, seen = iter(file.read_text().split("\n")), {}
    for line in lines:
        if line:
            name, delimiter = line.split("<<")
            seen[name] = "\n".join(iter(lines.__next__, delimiter))
    assert seen == {**values, "lines": "one\ntwo\nthree"}


@pytest.mark.parametrize(("name", "value"), [("a", "x END y"), ("a b", "x"), ("a<<b", "x"), ("a\nb", "x"), ("", "x")])
def test_an_output_that_would_end_early_is_refused(tmp_path: Path, name: str, value: str) -> None:
    file = tmp_path / "output"
    with pytest.raises(ValueError, match=r"delimiter|name"):
        write_output(run_of(tmp_path, GITHUB_OUTPUT=str(file)), name, value, delimiter="END")
    assert not file.exists()
