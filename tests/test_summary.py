from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from big_reports import big_view
from cuda_matrix import summary
from cuda_matrix.adapters.actions_env import SUMMARY_LIMIT
from cuda_matrix.report.differences import Differences
from cuda_matrix.report.markdown import render_markdown
from cuda_matrix.report.view import Links
from markdown_lab import assert_whole
from report_cases import CASES, HOSTILE

Golden = Callable[[str, str], None]


def test_the_limit_leaves_room_in_that_of_the_runner() -> None:
    assert summary.LIMIT_BYTES == 900 * 1024 < SUMMARY_LIMIT


@pytest.mark.parametrize("case", CASES)
def test_a_report_that_fits_is_shown_whole(case: str) -> None:
    text = summary.compose(CASES[case]())
    assert text == render_markdown(CASES[case]())  # which has its golden file
    assert_whole(text)


def test_what_changed_stands_below_the_head() -> None:
    made = summary.compose(CASES["mixed"](), Differences(base="main", known=True))
    assert made.index("**Release: no.**") < made.index("**Against `main`:** nothing has changed.\n\n## Which image")
    assert_whole(made)


def test_golden_of_a_report_that_does_not_fit(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "LIMIT_BYTES", 4_000)
    golden("report/mixed/summary-short.md", summary.compose(CASES["mixed"](), Differences(base="main")))


@pytest.mark.parametrize(
    ("images", "text", "log", "part"),
    [
        (20, "a `b`", 16_000, "and the end of its log"),
        (90, "a `b` " * 30, 16_000, "How these numbers were made"),
        (45, "|" * 2_000, 4_000, "What fails, and what to do"),
    ],
)
def test_the_ladder(images: int, text: str, log: int, part: str) -> None:
    made = summary.compose(big_view(images, 1, text, log, Links(run="https://github.com/o/r/actions/runs/1")))
    assert part in made
    assert len(made.encode()) <= summary.LIMIT_BYTES
    assert_whole(made)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    images=st.integers(1, 25),
    text=st.one_of(st.text(max_size=300), st.sampled_from([HOSTILE * 8, "|" * 2_000])),
    log=st.integers(0, 16_000),
)
def test_any_report_fits_and_is_whole(images: int, text: str, log: int) -> None:
    made = summary.compose(big_view(images, 2, text, log))
    assert len(made.encode()) <= summary.LIMIT_BYTES
    assert_whole(made)
