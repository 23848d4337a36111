"""GitHub as it answers, through PyGithub, against an emulated one; every request is checked by tests/github_openapi."""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections.abc import Callable

import pytest

from cuda_matrix.forge import CheckReport, Forbidden, Forge, ForgeError
from github_bed import FOLDER, GithubBed, Waits
from github_openapi import github_openapi, graphql_complaints
from github_proxy import Fault, lost_answer

MARKER = "<!-- cuda-matrix: v1 demo -->"
REPORT = CheckReport("3 cells", "all **good**", "details")


def test_it_is_a_forge(github_bed: GithubBed) -> None:
    seen: Forge = github_bed.forge()
    assert seen.default_branch() == "main"


# ---- who, comments


@pytest.mark.parametrize(("token", "login"), [("bot", "github-actions"), ("developer", "dana"), ("owner", "olga")])
def test_login_of_every_kind_of_token_without_bot(github_bed: GithubBed, token: str, login: str) -> None:
    assert github_bed.forge(getattr(github_bed, token)).login() == login


def test_the_comment_with_the_marker_is_found_among_300(github_bed: GithubBed) -> None:
    pull = github_bed.pull()
    for number in range(300):
        ours = number == 250
        token = github_bed.bot if ours else github_bed.developer
        github_bed.comment(pull, f"{MARKER} {number}" if ours else f"comment {number}", token=token)
    seen = github_bed.forge()
    comments = list(seen.comments(pull))
    assert len(comments) == 300
    (sticky,) = [one for one in comments if MARKER in one.body and one.author == seen.login()]
    assert sticky.body.endswith("250")
    assert github_bed.proxy.count("GET", "/comments$") == 3
    edited = seen.edit_comment(sticky, f"{MARKER} new")
    assert (edited.id, edited.body) == (sticky.id, f"{MARKER} new")
    assert [one["body"] for one in github_bed.comments(pull) if MARKER in one["body"]] == [f"{MARKER} new"]


@pytest.mark.parametrize("status", [502, 504, 0])
def test_a_comment_whose_answer_was_lost_is_not_made_twice(github_bed: GithubBed, status: int) -> None:
    pull, waits = github_bed.pull(), Waits()
    github_bed.comment(pull, f"{MARKER} of somebody else")
    github_bed.proxy.faults.append(lost_answer("POST", "/comments$", status=status))
    made = github_bed.forge(waits=waits).create_comment(pull, f"{MARKER} ours", MARKER)
    assert made.author == "github-actions"
    assert [one["body"] for one in github_bed.comments(pull)][1:] == [f"{MARKER} ours"]
    assert waits.slept == [1.0]


def test_a_comment_that_was_not_made_is_made_on_the_second_try(github_bed: GithubBed) -> None:
    pull = github_bed.pull()
    github_bed.proxy.faults.append(Fault("POST", "/comments$", 502))
    github_bed.forge().create_comment(pull, f"{MARKER} ours", MARKER)
    assert len(github_bed.comments(pull)) == 1
    assert github_bed.proxy.count("POST", "/comments$") == 2


def test_a_server_that_stays_broken_is_given_up(github_bed: GithubBed) -> None:
    pull, waits = github_bed.pull(), Waits()
    github_bed.proxy.faults.append(Fault("POST", "/comments$", 502, times=99))
    with pytest.raises(ForgeError, match="502"):
        github_bed.forge(waits=waits).create_comment(pull, MARKER, MARKER)
    assert github_bed.proxy.count("POST", "/comments$") == 6
    assert waits.slept == [1, 2, 4, 8, 16]


def test_duplicates_are_folded_away_as_outdated(github_bed: GithubBed) -> None:
    pull = github_bed.pull()
    comment = github_bed.forge().create_comment(pull, MARKER, MARKER)
    github_bed.forge().minimise_comment(comment)
    assert github_bed.proxy.minimised == [(comment.node_id, "OUTDATED")]


def test_a_comment_that_is_too_long_is_refused_in_githubs_words(github_bed: GithubBed) -> None:
    pull = github_bed.pull()
    with pytest.raises(ForgeError, match="too long"):
        github_bed.forge().create_comment(pull, "x" * 65_537, MARKER)


def test_graphql_is_what_github_describes(github_bed: GithubBed) -> None:
    seen = github_bed.forge()
    seen.minimise_comment(seen.create_comment(github_bed.pull(), MARKER, MARKER))
    seen.login()
    asked = [one.body for one in github_bed.proxy.sent if one.path == "/graphql"]
    assert len(asked) == 2
    for body in asked:
        assert graphql_complaints(FOLDER, body["query"], body["variables"]) == []


def test_a_wrong_request_would_be_noticed(github_bed: GithubBed) -> None:
    check, here = github_openapi(FOLDER).complaints, github_bed.here("")
    assert check("GET", f"{here}/pulls?state=open&per_page=100", b"") == []
    assert "no such operation" in check("GET", f"{here}/pullz", b"")[0]
    assert "no query parameter" in check("GET", f"{here}/pulls?stat=open", b"")[0]
    assert "is not one of" in check("GET", f"{here}/pulls?state=opened", b"")[0]
    assert "'body' is a required property" in check("POST", f"{here}/issues/1/comments", b"{}")[0]
    assert "was unexpected" in check("POST", f"{here}/issues/1/comments", b'{"body": "x", "bodi": "x"}')[0]
    assert "a body is required" in check("POST", f"{here}/git/trees", b"")[0]


# ---- what a token may not do


def writers(bed: GithubBed, token: str) -> dict[str, Callable[[], object]]:
    seen, pull, head = bed.forge(token), bed.pull("other"), bed.head()
    comment = bed.forge().create_comment(pull, MARKER, MARKER)
    check = bed.forge().start_check("cuda-matrix", head, "1", "https://example.org", REPORT)
    return {
        "comment": lambda: seen.create_comment(pull, "x", "x"),
        "edit": lambda: seen.edit_comment(comment, "x"),
        "minimise": lambda: seen.minimise_comment(comment),
        "start check": lambda: seen.start_check("other", head, "2", "https://example.org", REPORT),
        "finish check": lambda: seen.finish_check(check, "success", REPORT),
        "commit": lambda: seen.commit("main", head, {"a": b"a"}, "m"),
        "new branch": lambda: seen.create_branch("b", head),
        "pull": lambda: seen.open_pull("other", "third", "t", "b"),
    }


def test_a_read_only_token_reads_all_and_writes_nothing(github_bed: GithubBed) -> None:
    github_bed.push({"x": "x"}, "third")
    seen = github_bed.forge(github_bed.read_only)
    for name, write in writers(github_bed, github_bed.read_only).items():
        with pytest.raises(Forbidden, match="403"):
            pytest.fail(f"{name} went through: {write()}")
    assert seen.head("main") == github_bed.head()
    assert list(seen.tree(github_bed.head())) == ["README.md"]
    assert seen.login() == "github-actions"


def test_a_personal_token_may_make_no_check_run(github_bed: GithubBed) -> None:
    seen = github_bed.forge(github_bed.developer)
    with pytest.raises(Forbidden, match="authenticate via a GitHub App"):
        seen.start_check("cuda-matrix", github_bed.head(), "1", "https://example.org", REPORT)


def test_no_error_and_no_log_shows_a_token(github_bed: GithubBed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    written = io.StringIO()
    # A server that says back what it was given, and one that hangs up.
    echo = {"message": f"bad header Authorization: Bearer {github_bed.read_only} and {github_bed.read_only}"}
    github_bed.proxy.faults += [
        Fault("GET", "/git/ref/", 403, echo),
        Fault("GET", "/git/trees/", 422, echo),
        Fault("GET", "/pulls", 500, echo, times=9),
    ]
    seen = github_bed.forge(github_bed.read_only)
    tries = [lambda: seen.head("main"), lambda: seen.tree("0" * 40), lambda: seen.pull(1)]
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
        for call in [*tries, *writers(github_bed, github_bed.read_only).values()]:
            with pytest.raises(ForgeError) as raised:
                call()
            written.write("".join(traceback.format_exception(raised.value)) + repr(raised.value.__dict__))
    assert "Forbidden" in written.getvalue()
    everything = written.getvalue() + caplog.text + repr(seen) + repr(seen._client)
    assert github_bed.read_only not in everything


# ---- pull requests


def test_pull_requests_of_here_and_of_a_fork(github_bed: GithubBed) -> None:
    seen = github_bed.forge()
    number, fork, head = github_bed.fork_pull()
    own = seen.pull(github_bed.pull("mine"))
    theirs = seen.pull(number)
    assert own is not None
    assert theirs is not None
    assert (own.from_fork, own.head_repository, own.base_ref) == (False, github_bed.repository, "main")
    assert (theirs.from_fork, theirs.head_repository, theirs.head_sha) == (True, fork, head)
    assert [one.number for one in seen.pulls_of(fork, head)] == [number]
    assert list(seen.pulls_of(github_bed.repository, head)) == []
    assert list(seen.pulls_of(fork, github_bed.head())) == []
    assert seen.pull(999) is None


def test_a_pull_request_is_opened_once(github_bed: GithubBed) -> None:
    seen = github_bed.forge()
    github_bed.push({"x": "x"}, "cuda-matrix/report")
    github_bed.proxy.faults.append(lost_answer("POST", "/pulls$"))
    first = seen.open_pull("cuda-matrix/report", "main", "Report", "text")
    assert seen.open_pull("cuda-matrix/report", "main", "Report", "text") == first
    assert github_bed.proxy.count("POST", "/pulls$") == 1
    with pytest.raises(ForgeError, match="head is invalid"):
        seen.open_pull("no-such-branch", "main", "Report", "text")
