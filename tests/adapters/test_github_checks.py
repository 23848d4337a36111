"""Check runs against an emulated GitHub: made once, taken up again, any number of annotations."""

from __future__ import annotations

import contextlib

import pytest

from cuda_matrix.forge import Annotation, CheckReport
from github_bed import GithubBed
from github_proxy import Fault, lost_answer

REPORT = CheckReport("3 cells", "all **good**", "details")


def test_120_annotations_in_three_requests_and_the_conclusion_with_the_first(github_bed: GithubBed) -> None:
    seen, head = github_bed.forge(), github_bed.head()
    levels = ("notice", "warning", "failure")
    annotations = [Annotation("matrix.yml", n, levels[n % 3], f"cell {n}", f"says {n}") for n in range(120)]  # type: ignore[arg-type]
    check = seen.start_check("cuda-matrix", head, "run-1", "https://example.org/1", REPORT)
    assert github_bed.check_runs(head)[0]["status"] == "in_progress"
    seen.finish_check(check, "failure", CheckReport("t", "s", "x", annotations))
    (run,) = github_bed.check_runs(head)
    assert (run["status"], run["conclusion"], run["external_id"]) == ("completed", "failure", "run-1")
    found = github_bed.annotations(check)
    assert [one["message"] for one in found] == [f"says {n}" for n in range(120)]
    assert found[0]["start_line"] == 1  # lines count from 1, what says 0 means the file
    edits = [one for one in github_bed.proxy.sent if one.method == "PATCH"]
    assert [len(one.body["output"]["annotations"]) for one in edits] == [50, 50, 20]
    assert edits[0].body["conclusion"] == "failure"


@pytest.mark.parametrize("done", [True, False])
def test_annotations_are_not_sent_twice(github_bed: GithubBed, done: bool) -> None:
    seen, head = github_bed.forge(), github_bed.head()
    check = seen.start_check("cuda-matrix", head, "run-1", "https://example.org/1", REPORT)
    github_bed.proxy.faults.append(Fault("PATCH", "/check-runs/", 502, after=done))
    annotations = [Annotation("a", n + 1, "warning", "t", f"m{n}") for n in range(60)]
    seen.finish_check(check, "success", CheckReport("t", "s", "", annotations))
    assert [one["message"] for one in github_bed.annotations(check)] == [f"m{n}" for n in range(60)]
    assert github_bed.check_runs(head)[0]["conclusion"] == "success"


def test_a_check_is_taken_up_again(github_bed: GithubBed) -> None:
    seen, head = github_bed.forge(), github_bed.head()
    other = seen.start_check("cuda-matrix", head, "other", "https://example.org/1", REPORT)
    first = seen.start_check("cuda-matrix", head, "run-1", "https://example.org/1", REPORT)
    assert seen.start_check("cuda-matrix", head, "run-1", "https://example.org/2", REPORT) == first != other
    assert seen.find_check("cuda-matrix", head, "run-1") == first
    assert seen.find_check("cuda-matrix", head, "run-9") is None
    assert seen.find_check("another", head, "run-1") is None
    assert len(github_bed.check_runs(head)) == 2


def test_a_check_whose_answer_was_lost_is_not_made_twice(github_bed: GithubBed) -> None:
    github_bed.proxy.faults.append(lost_answer("POST", "/check-runs$"))
    seen, head = github_bed.forge(), github_bed.head()
    check = seen.start_check("cuda-matrix", head, "run-1", "https://example.org/1", REPORT)
    assert [one["id"] for one in github_bed.check_runs(head)] == [check]


def test_texts_are_cut_to_what_github_takes(github_bed: GithubBed) -> None:
    seen, head = github_bed.forge(), github_bed.head()
    long = "é" * 40_000
    annotation = Annotation("a", 1, "failure", "t" * 300, "")
    check = seen.start_check("n" * 300, head, "1", "https://example.org/1", CheckReport("t" * 300, long, long))
    seen.finish_check(check, "neutral", CheckReport("t", long, long, [annotation]))
    sent = github_bed.proxy.sent[-1].body["output"]
    assert len(sent["summary"].encode()) == len(sent["text"].encode()) == 65_534
    assert sent["annotations"][0]["message"] == "t" * 254 + "…"


def test_a_branch_that_requires_the_check_lets_only_a_green_commit_in(github_bed: GithubBed) -> None:
    seen, commit = github_bed.forge(), github_bed.push({"a.txt": "a"}, "work")
    github_bed.protect(check="cuda-matrix")
    check = seen.start_check("cuda-matrix", commit, "1", "https://example.org", REPORT)
    for conclusion, refused in (("failure", True), ("success", False)):
        seen.finish_check(check, conclusion, REPORT)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="Protected") if refused else contextlib.nullcontext():
            github_bed.ask("PATCH", github_bed.here("/git/refs/heads/main"), {"sha": commit}, token=github_bed.bot)
        assert (github_bed.head() == commit) is not refused
