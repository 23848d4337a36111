from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from big_reports import big_view
from builders import STARTED, make_diagnosis, make_plan, make_result
from cuda_matrix import check_run
from cuda_matrix.config import Policy
from cuda_matrix.forge import Annotation, Conclusion
from cuda_matrix.gate import judge
from cuda_matrix.model import Verdict
from cuda_matrix.report.differences import Differences
from cuda_matrix.report.view import Links
from github_bed import GithubBed
from markdown_lab import assert_whole, html_of, parse
from report_cases import CASES, HOSTILE, hostile, mixed

Golden = Callable[[str, str], None]
FIELD = check_run.FIELD_BYTES


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, golden: Golden) -> None:
    report = check_run.compose(CASES[case]())
    for text in (report.summary, report.text):
        assert_whole(text)
    golden(f"report/{case}/check.md", f"{report.title}\n\n{report.summary}\n{report.text}")


def test_the_title_says_the_decision() -> None:
    assert check_run.compose(mixed()).title == "GPU compatibility: 6 of 9 cells good · release: no"
    assert check_run.compose(CASES["green"]()).title.endswith("good · release: yes")


def test_a_title_of_any_length_fits_in_bytes() -> None:
    for text in ("x" * 300, "🎁" * 300, "é" * 130, "\x1b[31mred\n" * 90):
        title = check_run.compose(replace(mixed(), headline=text)).title
        assert 200 < len(title.encode()) <= 255
        assert title.endswith("…")
        assert "\n" not in title
        assert "\x1b" not in title


def test_summary_and_text_do_not_say_the_same() -> None:
    report = check_run.compose(mixed(), changed=Differences(base="main", known=True))
    assert "**Release: no.**" in report.summary
    assert "Against `main`" in report.summary
    assert "Release" not in report.text
    assert report.text.startswith("## Which image works on which card\n")
    assert "```mermaid" not in report.text


def test_annotations_are_passed_on() -> None:
    remark = Annotation("Dockerfile", 1, "failure", "t", "m")
    assert check_run.compose(mixed(), [remark]).annotations == (remark,)


@pytest.mark.parametrize(
    ("images", "text", "log", "part"),
    [
        (2, "plain", 0, "How these numbers were made"),
        (20, "plain " * 20, 4_000, "What failed, and what to do"),
        (90, "plain " * 20, 4_000, "The whole report is too long for this place"),
    ],
)
def test_the_ladder_of_the_text(images: int, text: str, log: int, part: str) -> None:
    report = check_run.compose(big_view(images, 2, text, log, Links(run="https://github.com/o/r/actions/runs/1")))
    assert part in report.text
    for field in (report.summary, report.text):
        assert len(field.encode()) <= FIELD
        assert_whole(field)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    images=st.integers(1, 12),
    runners=st.integers(1, 3),
    text=st.one_of(st.text(max_size=300), st.sampled_from([HOSTILE * 4, "```\n~~~\n" * 60, "|" * 2_000])),
    log=st.integers(0, 16_000),
)
def test_any_report_fits_and_is_whole(images: int, runners: int, text: str, log: int) -> None:
    report = check_run.compose(big_view(images, runners, text, log))
    for field in (report.summary, report.text):
        assert len(field.encode()) <= FIELD
        assert_whole(field)


def test_no_html_of_a_container() -> None:
    report = check_run.compose(hostile())
    assert not [piece for piece in html_of(parse(report.summary + report.text)) if "script" in piece or "img" in piece]


# ---- conclusion


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((Verdict.PASS, Verdict.WARN), "success"),
        ((Verdict.PASS, Verdict.FAIL), "failure"),
        ((Verdict.PASS, None), "failure"),
        ((Verdict.PASS, Verdict.HOST_FAILED), "action_required"),
        ((Verdict.HOST_FAILED, Verdict.INCONCLUSIVE), "action_required"),
        ((Verdict.HOST_FAILED, Verdict.FAIL), "failure"),
        ((Verdict.INCONCLUSIVE, None), "failure"),
        ((None, None), "failure"),
    ],
)
def test_conclusion(verdicts: tuple[Verdict | None, ...], expected: str) -> None:
    plan = make_plan(images=("a", "b"))
    diagnosis = make_diagnosis("gpu-lost")
    results = [
        make_result(cell.id, verdict, diagnosis=None if verdict is Verdict.PASS else diagnosis)
        for cell, verdict in zip(plan.cells, verdicts, strict=True)
        if verdict
    ]
    assert check_run.conclusion(judge(plan, results, STARTED.date())) == expected


def test_a_policy_that_demands_nothing_is_a_failure() -> None:
    plan = make_plan(policy=Policy(required=()))
    assert check_run.conclusion(judge(plan, [make_result("good@rtx4090")], STARTED.date())) == "failure"


def test_neutral_is_never_given_though_the_forge_knows_it() -> None:
    assert "neutral" in get_args(Conclusion)
    for verdict in Verdict:
        gate = judge(make_plan(), [make_result("good@rtx4090", verdict)], STARTED.date())
        assert check_run.conclusion(gate) in {"success", "failure", "action_required"}


def test_github_takes_it(github_bed: GithubBed) -> None:
    forge, sha = github_bed.forge(), github_bed.head()
    report = check_run.compose(big_view(20, 4, HOSTILE, 8_000), [Annotation("m.yml", 3, "failure", "t", HOSTILE)])
    check = forge.start_check("cuda-matrix", sha, "run-1", "https://github.com/o/r/actions/runs/1", report)
    forge.finish_check(check, "failure", report)
    (run,) = github_bed.check_runs(sha)
    assert (run["conclusion"], run["output"]["title"]) == ("failure", report.title)
    assert (run["output"]["summary"], run["output"]["text"]) == (report.summary, report.text)
