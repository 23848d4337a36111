"""The whole way of a publication against an emulated GitHub: what is written, what is left out, and at what cost."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import STARTED, make_plan, make_result
from cuda_matrix.commit_back import Pace
from cuda_matrix.config import ReportOptions
from cuda_matrix.dry_forge import DryForge
from cuda_matrix.forge import Forge
from cuda_matrix.gate import judge, newest_date
from cuda_matrix.ledger import LedgerTooLargeError
from cuda_matrix.model import Verdict
from cuda_matrix.plan import Plan
from cuda_matrix.publish import Edges, Judged, Occasion, Said, Wanted, check_identity, give_up, publish, start
from cuda_matrix.result import CellResult
from github_bed import GithubBed
from github_proxy import Fault, lost_answer, rate_limited, secondary_limit

IMAGES, RUNNERS = ("torch2.4", "torch2.5"), ("left", "right")
RUN_URL = "https://github.com/acme/images/actions/runs/77"


def plan_of(options: ReportOptions | None = None, images: tuple[str, ...] = IMAGES) -> Plan:
    plan = make_plan(images, RUNNERS)
    return plan.model_copy(update={"matrix_cells": len(plan.cells), "report": options or ReportOptions()})


def judged(plan: Plan | None = None, bad: tuple[str, ...] = (), minutes: int = 0, speed: float = 900) -> Judged:
    plan = plan or plan_of()
    started = STARTED + timedelta(minutes=minutes)
    results: tuple[CellResult, ...] = tuple(
        make_result(cell.id, Verdict.FAIL, started_at=started)
        if cell.id in bad
        else make_result(cell.id, images_per_s=speed, started_at=started)
        for cell in plan.cells
    )
    return Judged(plan, results, (), judge(plan, results, newest_date(results)))


def push(bed: GithubBed, **values: Any) -> Occasion:
    """A run of the default branch."""
    usual = Occasion("push", "refs/heads/main", bed.head(), bed.repository, "", None, False, "77", "1", RUN_URL)
    return replace(usual, **values)


def pull_request(bed: GithubBed, files: dict[str, str] | None = None) -> Occasion:
    number = bed.pull(files=files)
    head = str(bed.ask("GET", bed.here(f"/pulls/{number}"))["head"]["sha"])
    ref = f"refs/pull/{number}/merge"
    return push(bed, event="pull_request", ref=ref, head_sha=head, base_ref="main", pull=number)


def go(
    forge: Forge, what: Judged, occasion: Occasion, wanted: Wanted | None = None
) -> tuple[dict[str, Said], list[str]]:
    """Part → what became of it; the summaries written."""
    written: list[str] = []
    told: list[Said] = []

    def write(markdown: str) -> bool:
        written.append(markdown)
        return True

    edges = Edges(write, told.append, STARTED + timedelta(days=1), Pace(sleep=lambda _: None, chance=lambda: 1.0))
    said = publish(forge, what, occasion, wanted or Wanted(), edges)
    assert tuple(told) == said
    return {one.part: one for one in said}, written


def states(said: dict[str, Said]) -> dict[str, str]:
    return {part: one.state for part, one in said.items()}


def test_a_run_of_the_default_branch(github_bed: GithubBed) -> None:
    occasion = push(github_bed)
    said, written = go(github_bed.forge(), judged(), occasion)
    assert states(said) == {"summary": "done", "check": "done", "commit": "done", "comment": "left out"}
    assert len(written) == 1
    (run,) = github_bed.check_runs(occasion.head_sha)
    assert (run["name"], run["status"], run["conclusion"]) == ("cuda-matrix", "completed", "success")
    assert run["external_id"] == "cuda-matrix:reports:77"
    assert "reports/history/2026/11/77-1.jsonl" in github_bed.files()
    assert github_bed.commits()[0]["message"] == f"cuda-matrix: update the report\n\n{RUN_URL}\n\n[skip ci]"


def test_the_same_run_published_twice_leaves_one_of_everything(github_bed: GithubBed) -> None:
    occasion = push(github_bed)
    start(github_bed.forge(), ReportOptions(), occasion, 4)
    assert [run["status"] for run in github_bed.check_runs(occasion.head_sha)] == ["in_progress"]
    go(github_bed.forge(), judged(), occasion)
    head = github_bed.head()
    said, _ = go(github_bed.forge(), judged(), replace(occasion, attempt="1"))
    assert said["commit"].state == "unchanged"
    assert github_bed.head() == head
    assert [run["status"] for run in github_bed.check_runs(occasion.head_sha)] == ["completed"]


def test_a_pull_request_is_compared_with_its_base_and_commits_nothing(github_bed: GithubBed) -> None:
    go(github_bed.forge(), judged(), push(github_bed))
    head = github_bed.head()
    occasion = pull_request(github_bed)
    said, _ = go(github_bed.forge(), judged(bad=("torch2.5@right",), minutes=60), occasion)
    assert states(said) == {
        "base": "done",
        "summary": "done",
        "check": "done",
        "commit": "left out",
        "comment": "done",
    }
    assert occasion.pull is not None
    (comment,) = github_bed.comments(occasion.pull)
    assert comment["body"].startswith("<!-- cuda-matrix:1:reports -->")
    assert "torch2.5" in comment["body"]
    assert "main" in comment["body"]
    assert [run["conclusion"] for run in github_bed.check_runs(occasion.head_sha)] == ["failure"]
    assert github_bed.head() == head, "what is not merged is not committed"
    go(github_bed.forge(), judged(minutes=90), occasion)
    (again,) = github_bed.comments(occasion.pull)
    assert again["id"] == comment["id"]
    said, _ = go(github_bed.forge(), judged(minutes=90), occasion)
    assert said["comment"].state == "unchanged"


def test_explicit_wishes_do_not_commit_what_is_not_merged(github_bed: GithubBed) -> None:
    said, _ = go(github_bed.forge(), judged(), pull_request(github_bed), Wanted(commit=True))
    assert said["commit"].text == "results of code that is not merged are not committed"
    fork = push(github_bed, from_fork=True)
    said, _ = go(github_bed.forge(), judged(), fork, Wanted(commit=True))
    assert said["commit"].text == "results of a fork's code are never committed"
    queue = push(github_bed, event="merge_group", ref="refs/heads/gh-readonly-queue/main/pr-1")
    said, _ = go(github_bed.forge(), judged(), queue)
    assert said["commit"].state == "left out"


def test_a_token_that_may_only_read_still_writes_the_summary(github_bed: GithubBed) -> None:
    occasion = pull_request(github_bed)
    said, written = go(github_bed.forge(github_bed.read_only), judged(bad=("torch2.5@left",)), occasion)
    assert states(said) == {
        "base": "left out",
        "summary": "done",
        "check": "refused",
        "commit": "left out",
        "comment": "refused",
    }
    assert "torch2.5" in written[0]
    assert all("\n" not in one.text for one in said.values())
    said, _ = go(github_bed.forge(github_bed.read_only), judged(), push(github_bed))
    assert (said["check"].state, said["commit"].state) == ("refused", "refused")


def test_after_a_fork_the_pull_request_is_found_through_the_api(github_bed: GithubBed) -> None:
    number, fork, head = github_bed.fork_pull()
    before = github_bed.head()
    later = push(
        github_bed, event="workflow_run", head_sha=head, head_repository=fork, from_fork=True, ref="refs/heads/main"
    )
    said, _ = go(github_bed.forge(), judged(bad=("torch2.4@left",)), later, Wanted(commit=True))
    assert said["comment"].state == "done"
    assert len(github_bed.comments(number)) == 1
    assert github_bed.head() == before
    said, _ = go(github_bed.forge(), judged(), replace(later, head_sha=before), Wanted(check=False))
    assert said["base"].text == "no open pull request has this commit at its head"
    assert said["comment"].state == "left out"


def test_after_another_workflow_only_merged_code_is_committed(github_bed: GithubBed) -> None:
    """What ran before may have been a pull request that is closed by now: then none has this commit at its head."""
    later = push(github_bed, event="workflow_run", after="pull_request")
    said, _ = go(github_bed.forge(), judged(), later, Wanted(commit=True, check=False))
    assert said["commit"].text == "results of code that is not merged are not committed"
    topic = replace(later, after="push", ref="refs/heads/nowhere")
    said, _ = go(github_bed.forge(), judged(), topic, Wanted(commit=True, check=False))
    assert (said["commit"].state, said["commit"].text) == ("failed", "there is no branch nowhere")
    said, _ = go(github_bed.forge(), judged(), replace(later, after="push"), Wanted(check=False))
    assert said["commit"].state == "left out"
    said, _ = go(github_bed.forge(), judged(), replace(later, after="push"), Wanted(commit=True, check=False))
    assert said["commit"].state == "done"


def test_a_comment_on_a_pull_request_leaves_no_check_at_another_commit(github_bed: GithubBed) -> None:
    number = github_bed.pull()
    event = push(github_bed, event="issue_comment", pull=number, head_sha="", head_repository="", from_fork=True)
    said, _ = go(github_bed.forge(), judged(bad=("torch2.5@left",)), event, Wanted(commit=True))
    assert (said["check"].state, said["commit"].state, said["comment"].state) == ("left out", "left out", "done")
    assert start(github_bed.forge(), ReportOptions(), event, 3).state == "left out"
    assert give_up(github_bed.forge(), ReportOptions(), event, "why").state == "left out"


def test_a_base_that_a_later_version_published_costs_the_comparison_alone(github_bed: GithubBed) -> None:
    github_bed.push({"reports/results.jsonl": '{"ledger_version": 2}\n'})
    said, _ = go(github_bed.forge(), judged(), pull_request(github_bed))
    assert said["base"].state == "left out"
    assert "later version" in said["base"].text


def test_github_out_of_reach_costs_no_other_part(github_bed: GithubBed) -> None:
    occasion = pull_request(github_bed)
    github_bed.proxy.faults.append(Fault("GET", "/git/ref/", 500, times=999))
    github_bed.proxy.faults.append(Fault("POST", "/check-runs$", 500, times=999))
    said, written = go(github_bed.forge(), judged(bad=("torch2.4@left",)), occasion)
    assert states(said) == {
        "base": "failed",
        "summary": "done",
        "check": "failed",
        "commit": "left out",
        "comment": "done",
    }
    assert len(written) == 1


def _shape(path: str) -> str:
    """A request's path without its numbers, as a pattern."""
    return re.sub(r"/(?:[0-9a-f]{40}|\d+)(?=/|$)", "/(?:[0-9a-f]{40}|[0-9]+)", path.partition("/acme/")[2]) + "$"


def test_whatever_a_request_runs_into_everything_lands_once(github_bed: GithubBed) -> None:
    """Each write is done and its answer lost, one after another; then every request is refused once for its rate."""
    proxy = github_bed.proxy
    occasion = pull_request(github_bed)
    assert occasion.pull is not None
    go(github_bed.forge(), judged(), push(github_bed))
    go(github_bed.forge(), judged(bad=("torch2.4@left",)), occasion)
    shapes = list(dict.fromkeys((one.method, _shape(one.path)) for one in proxy.sent if "/acme/" in one.path))
    lost = [[lost_answer(*shape, status=status)] for shape in shapes if shape[0] != "GET" for status in (502, 0)]
    assert len(lost) >= 10
    refused = [[rate_limited(*shape) for shape in shapes], [secondary_limit(*shape) for shape in shapes]]
    for number, faults in enumerate([*lost, *refused], 1000):
        commits = len(github_bed.commits())
        proxy.faults[:] = faults
        run = {"run_id": str(number), "attempt": "1"}
        said, _ = go(github_bed.forge(), judged(speed=number, minutes=number), push(github_bed, **run))
        failing = judged(bad=("torch2.4@left",), speed=number + 0.5)
        told, _ = go(github_bed.forge(), failing, replace(occasion, **run))
        assert said["commit"].state == "done", (faults, said)
        assert {one.state for one in (*said.values(), *told.values())} <= {"done", "left out", "unchanged"}, faults
        assert len(github_bed.commits()) == commits + 1, faults
        assert len(github_bed.comments(occasion.pull)) == 1, faults
        checks = [one for one in github_bed.check_runs(occasion.head_sha) if one["external_id"].endswith(f":{number}")]
        assert [one["status"] for one in checks] == ["completed"], faults


def test_a_bug_in_one_part_is_raised_when_the_others_are_done(
    github_bed: GithubBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cuda_matrix.check_run.compose", lambda *_: 1 / 0)
    occasion = pull_request(github_bed)
    with pytest.raises(ZeroDivisionError):
        go(github_bed.forge(), judged(bad=("torch2.4@left",)), occasion)
    assert occasion.pull is not None
    assert len(github_bed.comments(occasion.pull)) == 1


def test_only_the_default_branch_is_committed_to_unasked(github_bed: GithubBed) -> None:
    github_bed.push({"a": "a"}, "feature")
    feature = push(github_bed, ref="refs/heads/feature")
    said, _ = go(github_bed.forge(), judged(), feature)
    assert "not the default branch" in said["commit"].text
    said, _ = go(github_bed.forge(), judged(), feature, Wanted(commit=True))
    assert said["commit"].state == "done"
    assert "reports/report.md" in github_bed.files("feature")
    said, _ = go(github_bed.forge(), judged(), push(github_bed, ref="refs/tags/v1"), Wanted(commit=True))
    assert "refs/tags/v1 is no branch" in said["commit"].text


def test_a_branch_for_reports_is_the_base_of_comparisons_too(github_bed: GithubBed) -> None:
    plan = plan_of(ReportOptions(dir="docs/gpu", branch="matrix-data"))
    said, _ = go(github_bed.forge(), judged(plan), push(github_bed))
    assert said["commit"].state == "done"
    assert "docs/gpu/report.md" in github_bed.files("matrix-data")
    assert set(github_bed.files()) == {"README.md"}
    occasion = pull_request(github_bed)
    said, _ = go(github_bed.forge(), judged(plan, bad=("torch2.4@left",), minutes=3), occasion)
    assert said["base"].text == "compared with main"
    assert occasion.pull is not None
    assert github_bed.comments(occasion.pull)[0]["body"].startswith("<!-- cuda-matrix:1:docs/gpu -->")
    assert check_identity(plan.report, occasion) == ("cuda-matrix (docs/gpu)", "cuda-matrix:docs/gpu:77")


def test_comment_modes(github_bed: GithubBed) -> None:
    occasion = pull_request(github_bed)
    never = plan_of(ReportOptions(comment="never"))
    said, _ = go(github_bed.forge(), judged(never, bad=("torch2.4@left",)), occasion)
    assert said["comment"].text == "report.comment is never"
    said, _ = go(github_bed.forge(), judged(never), occasion, Wanted(comment=False))
    assert said["comment"].text == "not asked for"
    said, _ = go(github_bed.forge(), judged(never), occasion, Wanted(comment=True))
    assert said["comment"].state == "done"


def test_a_check_that_was_started_ends_even_without_a_report(github_bed: GithubBed) -> None:
    occasion = push(github_bed)
    start(github_bed.forge(), ReportOptions(), occasion, 4)
    give_up(github_bed.forge(), ReportOptions(), occasion, "no plan.json could be read <b>@olga</b>")
    (run,) = github_bed.check_runs(occasion.head_sha)
    assert (run["status"], run["conclusion"]) == ("completed", "failure")
    assert "<b>" not in run["output"]["summary"]


def test_sixty_cells_take_at_most_fifteen_requests(github_bed: GithubBed) -> None:
    images = tuple(f"torch{number}" for number in range(30))
    plan = plan_of(images=images)
    assert len(plan.cells) == 60
    start(github_bed.forge(), plan.report, push(github_bed), 60)
    github_bed.proxy.sent.clear()
    said, _ = go(github_bed.forge(), judged(plan), push(github_bed))
    assert states(said) == {"summary": "done", "check": "done", "commit": "done", "comment": "left out"}
    assert len(github_bed.proxy.sent) <= 11
    occasion = pull_request(github_bed)
    bad = tuple(cell.id for cell in plan.cells[:40])
    github_bed.proxy.sent.clear()
    said, _ = go(github_bed.forge(), judged(plan, bad=bad, minutes=9), occasion)
    assert states(said)["comment"] == states(said)["check"] == states(said)["base"] == "done"
    assert len(github_bed.proxy.sent) <= 10


def test_a_dry_run_writes_nothing_and_says_what_it_would(github_bed: GithubBed) -> None:
    occasion = pull_request(github_bed)
    github_bed.proxy.sent.clear()
    dry = DryForge(github_bed.forge())
    go(dry, judged(bad=("torch2.4@left",)), occasion)
    go(dry, judged(), push(github_bed))
    assert not github_bed.proxy.writes()
    text = "\n".join(dry.said)
    assert f"would comment on #{occasion.pull}, " in text
    assert "would complete the check as failure" in text
    assert "would commit to main: reports/badge.json, reports/history/2026/11/77-1.jsonl, reports/index.html" in text


def test_a_report_that_does_not_fit_into_a_commit_is_said(
    github_bed: GithubBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> bytes:
        msg = "the results take 99 bytes"
        raise LedgerTooLargeError(msg)

    monkeypatch.setattr("cuda_matrix.ledger.encode", too_large)
    said, _ = go(github_bed.forge(), judged(), push(github_bed))
    assert (said["commit"].state, said["commit"].text) == ("failed", "the results take 99 bytes")


def test_an_annotation_stands_at_the_dockerfile_that_the_pull_request_touches(github_bed: GithubBed) -> None:
    plan = plan_of()
    built = plan.images["torch2.4"].model_copy(update={"paths": ("images/torch2.4/**",)})
    plan = plan.model_copy(update={"images": {**plan.images, "torch2.4": built}})
    occasion = pull_request(github_bed, {"README.md": "x", "images/torch2.4/Dockerfile": "FROM scratch\n"})
    said, _ = go(github_bed.forge(), judged(plan, bad=("torch2.4@left",)), occasion)
    assert said["check"].state == "done"
    (run,) = github_bed.check_runs(occasion.head_sha)
    found = [(one["path"], one["start_line"]) for one in github_bed.annotations(run["id"])]
    assert found == [("images/torch2.4/Dockerfile", 1)]
