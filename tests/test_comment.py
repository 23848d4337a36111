from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from big_reports import big_decision, big_view
from builders import STARTED, make_benchmark, make_plan, make_result
from cuda_matrix import comment
from cuda_matrix.comment import LIMIT_BYTES, Mode, News, Upserted
from cuda_matrix.config import ReportOptions
from cuda_matrix.forge import Forbidden
from cuda_matrix.gate import judge
from cuda_matrix.model import Verdict
from cuda_matrix.report.brief import LAST_RUNG_BYTES, counts, rungs
from cuda_matrix.report.build import build_view
from cuda_matrix.report.differences import Change, Differences, Seen, against
from cuda_matrix.report.view import Links
from github_bed import GithubBed
from markdown_lab import assert_whole, html_of, parse
from report_cases import CASES, HOSTILE, hostile, mixed

Golden = Callable[[str, str], None]
SHA = "5eeb3a6ce0c2c2b3a7d1a0f9f1a6e6d4b8a1c3f2"
NEWS, CALM = News(changed=True, failing=True), News(changed=False, failing=False)
MARKER = "<!-- cuda-matrix:1:reports -->"


def differences() -> Differences:
    """One of each kind, over images that `report_cases.mixed` does not know."""
    before = make_plan(images=("broken", "mended", "slow", "quick", "big", "gone", "warned"))
    after = make_plan(images=("broken", "mended", "slow", "quick", "big", "new", "warned"))
    heavy = make_result("big@rtx4090", benchmarks=(make_benchmark(900, numbers={"peak_memory_gb": 30.0}),))
    old = [make_result(f"{image}@rtx4090", images_per_s=900) for image in before.images if image != "mended"]
    new = [make_result(f"{image}@rtx4090", images_per_s=speed) for image, speed in (("slow", 700), ("quick", 990))]
    new += [heavy, make_result("mended@rtx4090"), make_result("new@rtx4090", images_per_s=1)]
    new += [make_result("broken@rtx4090", Verdict.FAIL), make_result("warned@rtx4090", Verdict.WARN, 900)]
    today = STARTED.date()
    old.append(make_result("mended@rtx4090", Verdict.FAIL))
    return against(after, judge(after, new, today), judge(before, old, today), "main")


# ---- what it says


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, golden: Golden) -> None:
    text = comment.compose(CASES[case](), Differences(base="main"), SHA)
    assert_whole(text)
    golden(f"report/{case}/comment.md", text)


def test_golden_with_changes_against_the_base(golden: Golden) -> None:
    text = comment.compose(mixed(), differences(), SHA)
    assert_whole(text)
    golden("report/mixed/comment-changes.md", text)


def test_every_rung_is_whole_and_shorter_than_the_one_before() -> None:
    for case in CASES.values():
        texts = [render() for render in rungs(case(), differences(), SHA)]
        for text in texts:
            assert_whole(text)
            assert SHA in text
        sizes = [len(text.encode()) for text in texts]
        assert sizes == sorted(sizes, reverse=True)


def test_the_first_lines_are_headline_decision_changes_and_what_to_do() -> None:
    text = comment.compose(mixed(), differences(), SHA)
    order = ["## GPU compatibility:", "**Release: no.**", f"updated for {SHA}", "**Against `main`:**"]
    order += ["`broken@rtx4090` newly fails", "### What fails", "use `torch2.2.0-cu118`", "| Image |", "<details>"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("\n", 0, text.index("| Image |")) < 40


def test_what_changed_is_told_in_words_and_counts() -> None:
    text = comment.compose(mixed(), differences(), SHA)
    assert (
        "**Against `main`:** 1 cell newly fails, 1 cell is fixed, 1 cell changed otherwise, 1 cell is new, "
        "1 cell is gone, 1 cell is slower, 1 cell is faster, 1 cell needs more memory.\n" in text
    )
    assert "- `slow@rtx4090` is slower: ✅ 900 → ✅ 700 (−22.2\u00a0% images/s)\n" in text
    assert "- `broken@rtx4090` newly fails: ✅ 900 → ❌ fails\n" in text
    assert "- `gone@rtx4090` is gone: ✅ 900\n" in text
    same = comment.compose(mixed(), Differences(base="main", known=True), SHA)
    assert "**Against `main`:** nothing has changed.\n" in same
    assert "Against" not in comment.compose(mixed(), sha=SHA)
    few = Differences(base="main", known=True, fixed=differences().fixed)
    made = comment.compose(mixed(), few, SHA)
    assert "**Against `main`:**\n- `mended@rtx4090` is fixed: ❌ fails → ✅ good\n" in made
    assert "**Against `main`:** 1 cell is fixed.\n" in counts(mixed(), few, SHA)


def test_a_long_list_of_changes_is_cut_and_counted() -> None:
    many = Differences(base="main", known=True, gone=differences().gone * 14)
    made = comment.compose(mixed(), many, SHA)
    assert made.count("`gone@rtx4090` is gone") == 10
    assert "- and 4 other cells are gone\n" in made


def test_a_commit_that_is_no_object_name_is_escaped() -> None:
    assert f"updated for {SHA} ·" in comment.compose(mixed(), sha=SHA)
    assert "updated for &lt;b&gt; @\u200bx" in comment.compose(mixed(), sha="<b> @x")


def test_images_that_are_good_everywhere_are_counted_and_folded_away() -> None:
    text = comment.compose(mixed())
    shown, _, folded = text.partition("Every image on every card")
    assert "Images that are good everywhere: 1." in shown
    assert "`torch2.6.0-cpu`" in folded
    assert "`torch2.6.0-cpu`" not in shown
    assert "| Image |" not in comment.compose(CASES["green"]()).partition("<details>")[0]


def test_the_table_links_to_the_page_or_nowhere() -> None:
    assert "](https://o.github.io/r/#cell-torch2.2.0-cu121--a800)" in comment.compose(mixed())
    assert "](#" not in comment.compose(CASES["nothing-ran"]())


def test_a_changed_image_that_is_green_has_a_row() -> None:
    moved = Change("torch2.6.0-cpu@cpu", Seen(Verdict.FAIL, "❌", "fails"), Seen(Verdict.PASS, "✅", "good", "12"))
    changed = Differences(base="main", known=True, fixed=(moved,))
    assert comment.compose(mixed(), changed).count("| `torch2.6.0-cpu` |") == 1
    assert "Every image on every card" not in comment.compose(mixed(), changed)
    assert "Every image on every card" in comment.compose(mixed())


def test_links_can_be_given() -> None:
    text = comment.compose(mixed(), links=Links(run="https://github.example/run"))
    assert "[run](https://github.example/run)" in text
    assert "o.github.io" not in text


def test_no_html_link_or_mention_of_a_container() -> None:
    text = comment.compose(hostile(), differences(), SHA)
    tokens = parse(text)
    assert not [child for token in tokens for child in token.children or () if child.type in {"image", "link_open"}]
    assert not [piece for piece in html_of(tokens) if "script" in piece or "img" in piece]
    prose = " ".join(child.content for token in tokens for child in token.children or () if child.type == "text")
    assert "octocat" in prose
    assert not re.search(r"(?<![\w])@\w|#\d|GH-\d|https?://|www\.", prose)


# ---- its size


@pytest.mark.parametrize(
    ("images", "runners", "text", "log", "rung"),
    [
        (3, 2, "plain", 0, 0),
        (40, 4, "plain " * 30, 16_000, 1),
        (90, 8, "plain", 0, 2),
        (40, 4, "|@#1&<`\U0001f4a5" * 200, 16_000, 2),
    ],
)
def test_each_rung_is_used(images: int, runners: int, text: str, log: int, rung: int) -> None:
    view = big_view(images, runners, text, log, Links(run="https://github.com/o/r/actions/runs/1"))
    made = comment.compose(view, Differences(base="main"), SHA)
    assert made == rungs(view, Differences(base="main"), SHA)[rung]()
    assert len(made.encode()) <= LIMIT_BYTES - 400
    assert_whole(made)
    assert "](https://github.com/o/r/actions/runs/1)" in made


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    images=st.integers(1, 20),
    runners=st.integers(1, 4),
    text=st.one_of(
        st.text(max_size=300), st.sampled_from([HOSTILE * 4, "```\n~~~\n" * 60, "|" * 2_000, "<details>\n\n" * 50])
    ),
    log=st.integers(0, 16_000),
    missing=st.integers(1, 9),
)
def test_any_report_fits_and_is_whole(images: int, runners: int, text: str, log: int, missing: int) -> None:
    plan, gate = big_decision(images, runners, text, log, missing)
    made = comment.compose(build_view(plan, gate), against(plan, gate, gate, text), SHA)
    assert len(made.encode()) <= LIMIT_BYTES - 400
    assert_whole(made)


def test_the_last_rung_is_bounded_whatever_the_report_holds() -> None:
    worst = "|" * 3_000
    plan, gate = big_decision(60, 4, worst, missing=3)
    view = build_view(plan, gate, links=Links("https://x/" + "a" * 5_000, "https://y/" + "b" * 990, ""))
    seen = Seen(Verdict.FAIL, "❌", worst, worst)
    many = tuple(Change(worst, seen, seen, worst) for _ in range(500))
    changed = Differences(worst, True, many, many, many, many, many, many, many, many, 500)
    made = counts(view, changed, worst)
    assert len(made.encode()) <= LAST_RUNG_BYTES <= LIMIT_BYTES - 400
    assert "aaaa" not in made
    assert_whole(made)


# ---- whether there is one


def test_modes_are_those_of_the_configuration() -> None:
    assert get_args(Mode) == get_args(ReportOptions.model_fields["comment"].annotation)


def test_news() -> None:
    green, red = CASES["green"](), mixed()
    assert comment.news(green, Differences(base="main", known=True)) == CALM
    assert comment.news(green, differences()) == News(changed=True, failing=False)
    assert comment.news(green) == CALM
    assert comment.news(red, Differences(base="main", known=True)) == News(changed=False, failing=True)
    warned = build_view(make_plan(), judge(make_plan(), [make_result("good@rtx4090", Verdict.WARN)], STARTED.date()))
    assert comment.news(warned) == News(changed=True, failing=False)
    assert comment.news(warned, Differences(base="main", known=True)) == CALM
    assert comment.news(replace(green, released=False)).failing


@pytest.mark.parametrize(
    ("mode", "told", "made"),
    [
        ("always", CALM, True),
        ("on-change", CALM, False),
        ("on-change", News(changed=True, failing=False), True),
        ("on-change", News(changed=False, failing=True), True),
        ("on-failure", News(changed=True, failing=False), False),
        ("on-failure", News(changed=False, failing=True), True),
        ("never", NEWS, False),
    ],
)
def test_when_a_first_comment_is_written(github_bed: GithubBed, mode: Mode, told: News, made: bool) -> None:
    pull = github_bed.pull()
    done = comment.upsert(github_bed.forge(), pull, "body\n", mode, matrix="reports", told=told)
    assert done.action == ("created" if made else "none")
    assert len(github_bed.comments(pull)) == made


@pytest.mark.parametrize("mode", ["always", "on-change", "on-failure"])
def test_one_that_is_there_is_always_updated(github_bed: GithubBed, mode: Mode) -> None:
    pull, forge = github_bed.pull(), github_bed.forge()
    comment.upsert(forge, pull, "all is red\n", "always", matrix="reports", told=NEWS)
    done = comment.upsert(forge, pull, "all is green\n", mode, matrix="reports", told=CALM)
    assert done.action == "updated"
    (only,) = github_bed.comments(pull)
    assert only["body"].endswith("all is green\n")
    assert done.url == only["html_url"]


# ---- that there is one only


def writes(bed: GithubBed) -> list[str]:
    return [f"{one.method} {one.path}" for one in bed.proxy.writes() if "viewer" not in str(one.body)]


def test_ours_is_found_on_the_third_page_and_a_second_run_writes_nothing(github_bed: GithubBed) -> None:
    pull, forge = github_bed.pull(), github_bed.forge()
    for number in range(300):
        token = github_bed.bot if number == 250 else github_bed.developer
        github_bed.comment(pull, f"{MARKER}\nold" if number == 250 else f"comment {number}", token=token)
    body = comment.compose(mixed(), sha=SHA)
    done = comment.upsert(forge, pull, body, "on-change", matrix="reports", told=CALM)
    assert done.action == "updated"
    assert len(github_bed.comments(pull)) == 300
    assert github_bed.comments(pull)[250]["body"].endswith(body)
    assert len(writes(github_bed)) == 1
    again = comment.upsert(forge, pull, body, "always", matrix="reports", told=NEWS)
    assert again == Upserted("unchanged", done.url)
    assert len(writes(github_bed)) == 1
    assert github_bed.proxy.count() == 2 * 3 + 1 + 1  # pages twice, whose token it is, the one write


def test_a_strangers_comment_with_our_marker_is_not_touched(github_bed: GithubBed) -> None:
    pull = github_bed.pull()
    theirs = [f"{MARKER}\nall green, believe me", f"I quote:\n{MARKER}"]
    for text in theirs:
        github_bed.comment(pull, text, token=github_bed.stranger)
    github_bed.comment(pull, f"quoted:\n{MARKER}", token=github_bed.bot)  # not at the top: not the comment
    done = comment.upsert(github_bed.forge(), pull, "body\n", "always", matrix="reports", told=CALM)
    assert (done.action, done.minimised) == ("created", 0)
    bodies = [one["body"] for one in github_bed.comments(pull)]
    assert bodies[:3] == [*theirs, f"quoted:\n{MARKER}"]
    assert len(bodies) == 4
    assert github_bed.proxy.minimised == []


def test_the_oldest_is_kept_and_copies_are_minimised_once(github_bed: GithubBed) -> None:
    pull, forge = github_bed.pull(), github_bed.forge()
    copies = [github_bed.comment(pull, f"{MARKER}\ncopy {number}", token=github_bed.bot) for number in range(3)]
    done = comment.upsert(forge, pull, "body\n", "on-failure", matrix="reports", told=CALM)
    assert (done.action, done.url, done.minimised) == ("updated", copies[0]["html_url"], 2)
    assert github_bed.proxy.minimised == [(copy["node_id"], "OUTDATED") for copy in copies[1:]]
    bodies = [one["body"] for one in github_bed.comments(pull)]
    assert bodies[0].endswith("body\n")
    assert [body.splitlines()[1] for body in bodies[1:]] == ["copy 1", "copy 2"]
    before = len(writes(github_bed))
    again = comment.upsert(forge, pull, "body\n", "always", matrix="reports", told=NEWS)
    assert (again.action, again.minimised) == ("unchanged", 0)
    assert len(writes(github_bed)) == before


def test_matrices_have_a_comment_each(github_bed: GithubBed) -> None:
    pull, forge = github_bed.pull(), github_bed.forge()
    for matrix in ("reports", "reports-2", "reports"):
        comment.upsert(forge, pull, f"of {matrix}\n", "always", matrix=matrix, told=CALM)
    assert [one["body"].splitlines()[-1] for one in github_bed.comments(pull)] == ["of reports", "of reports-2"]


def test_a_personal_token_finds_its_own(github_bed: GithubBed) -> None:
    pull, forge = github_bed.pull(), github_bed.forge(github_bed.developer)
    for body, action in (("one\n", "created"), ("two\n", "updated"), ("two\n", "unchanged")):
        assert comment.upsert(forge, pull, body, "always", matrix="reports", told=CALM).action == action


@pytest.mark.parametrize("change", [lambda body: body.replace("\n", "\r\n"), lambda body: body.rstrip() + " "])
def test_what_github_did_to_the_text_is_no_change(github_bed: GithubBed, change) -> None:  # type: ignore[no-untyped-def]
    pull, forge = github_bed.pull(), github_bed.forge()
    comment.upsert(forge, pull, "a\nb\n", "always", matrix="reports", told=CALM)
    (ours,) = github_bed.comments(pull)
    path = github_bed.here(f"/issues/comments/{ours['id']}")
    github_bed.ask("PATCH", path, {"body": change(ours["body"])}, token=github_bed.bot)
    before = len(writes(github_bed))
    assert comment.upsert(forge, pull, "a\nb\n", "always", matrix="reports", told=CALM).action == "unchanged"
    assert len(writes(github_bed)) == before


def test_the_read_only_token_of_a_fork_is_forbidden(github_bed: GithubBed) -> None:
    pull, _, _ = github_bed.fork_pull()
    forge = github_bed.forge(github_bed.read_only)
    with pytest.raises(Forbidden):
        comment.upsert(forge, pull, "body\n", "always", matrix="reports", told=CALM)
    assert comment.upsert(forge, pull, "body\n", "never", matrix="reports", told=NEWS).action == "none"
    assert github_bed.comments(pull) == []


@pytest.mark.parametrize("matrix", ["a --> <b>", "x" * 300, "a--b", "-", "@all", "\n", "über"])
def test_any_id_makes_a_marker_that_html_cannot_misread(matrix: str) -> None:
    made = comment.marker(matrix)
    assert re.fullmatch(r"<!-- cuda-matrix:1:[0-9a-f]{16} -->", made)
    assert made != comment.marker(f"{matrix}x")


def test_marker() -> None:
    assert comment.marker("reports") == MARKER
