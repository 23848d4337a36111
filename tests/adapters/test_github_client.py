"""The conversation with GitHub's API: waiting, refusals, addresses, and answers that are none."""

from __future__ import annotations

import pytest

from cuda_matrix.adapters.github_answers import NotFound, Refused
from cuda_matrix.adapters.github_client import GithubClient
from cuda_matrix.adapters.github_forge import GithubForge
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.forge import Forbidden, ForgeError
from github_bed import GithubBed, Waits
from github_proxy import Fault, rate_limited, secondary_limit

MARKER = "<!-- cuda-matrix: v1 demo -->"


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_rate_limits_are_waited_for_whatever_the_method(github_bed: GithubBed, method: str) -> None:
    pull, waits = github_bed.pull(), Waits()
    seen = github_bed.forge(waits=waits)
    path = {"GET": "/comments$", "POST": "/comments$", "PATCH": r"/comments/\d+$"}[method]
    comment = seen.create_comment(pull, MARKER, MARKER)
    github_bed.proxy.faults += [rate_limited(method, path, seconds=9), secondary_limit(method, path)]
    if method == "GET":
        assert len(list(seen.comments(pull))) == 1
    elif method == "POST":
        seen.create_comment(pull, "second", "second")
        assert len(github_bed.comments(pull)) == 2
    else:
        assert seen.edit_comment(comment, "new").body == "new"
    assert waits.slept == [10, 121]  # the second limit in a row is waited for twice as long


def test_an_hour_is_not_waited_for(github_bed: GithubBed) -> None:
    waits = Waits()
    github_bed.proxy.faults.append(rate_limited("GET", "/git/ref/", seconds=3600))
    with pytest.raises(ForgeError, match=r"API rate limit exceeded.*in 3601 s; 300 s of waiting"):
        github_bed.forge(waits=waits).head("main")
    assert waits.slept == []


def test_many_limits_in_a_row_are_not_waited_for_beyond_the_bound(github_bed: GithubBed) -> None:
    waits = Waits()
    github_bed.proxy.faults.append(rate_limited("GET", "/git/ref/", seconds=140, times=9))
    with pytest.raises(ForgeError, match="300 s of waiting"):
        github_bed.forge(waits=waits).head("main")
    assert waits.slept == [141, 141]


def test_no_answer_in_time_is_asked_again(github_bed: GithubBed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuda_matrix.adapters.github_client._TIMEOUT_S", 1)
    github_bed.proxy.faults.append(Fault("GET", "/git/ref/", delay_s=1.6))
    waits = Waits()
    assert github_bed.forge(waits=waits).head("main") == github_bed.head()
    assert waits.slept == [1]


def test_nobody_there(github_bed: GithubBed) -> None:
    waits = Waits()
    with pytest.raises(ForgeError, match=r"no answer.*tried 6 times"):
        github_bed.forge(waits=waits, api_url="http://127.0.0.1:9").head("main")
    assert waits.slept == [1, 2, 4, 8, 16]


def test_a_wrong_token_is_named_as_such(github_bed: GithubBed) -> None:
    with pytest.raises(ForgeError, match=r"Bad credentials.*wrong or has expired") as raised:
        github_bed.forge("ghp_" + "z" * 36).head("main")
    assert not isinstance(raised.value, Forbidden)


def test_github_enterprise(github_bed: GithubBed) -> None:
    seen = github_bed.forge(api_url=f"{github_bed.url}/api/v3")
    assert seen.login() == "github-actions"
    assert seen.head("main") == github_bed.head()


@pytest.mark.parametrize(
    ("api_url", "graphql_url"),
    [
        ("ftp://example.org", ""),
        ("example.org", ""),
        ("https://user:pw@example.org", ""),
        ("https://ghes.example/api/v3", "https://elsewhere.example/api/graphql"),
    ],
)
def test_an_address_that_is_none(api_url: str, graphql_url: str) -> None:
    with pytest.raises(ConfigurationError):
        GithubClient("ghp_x", api_url=api_url, graphql_url=graphql_url)


@pytest.mark.parametrize("name", ["", "one", "a/b/c", "a/..", "../a", "a b/c", "a/b?x=1", "-a/b"])
def test_a_repository_that_is_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no repository"):
        GithubForge(name, GithubClient("ghp_x"))


# ---- answers


def client(bed: GithubBed) -> GithubClient:
    return GithubClient(bed.bot, api_url=bed.url, clock=Waits().clock(), pace_s=0)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFound), (409, Refused), (422, Refused), (403, Forbidden), (418, ForgeError)]
)
def test_refusals_by_kind(github_bed: GithubBed, status: int, kind: type[ForgeError]) -> None:
    said = {"message": "Validation Failed", "errors": [{"message": "the reason"}, "another", {"code": "x"}, 7]}
    github_bed.proxy.faults.append(Fault("GET", "/pulls$", status, said))
    with pytest.raises(kind, match=rf"GET /repos/.*/pulls: Validation Failed: the reason: another \({status}\)"):
        client(github_bed).get(github_bed.here("/pulls"))


def test_hostile_words_are_made_harmless_and_short(github_bed: GithubBed) -> None:
    said = {"message": "\x1b[31m::set-env name=X::1\n##[error]" + "x" * 100_000}
    github_bed.proxy.faults.append(Fault("GET", "/pulls$", 422, said))
    with pytest.raises(Refused) as raised:
        client(github_bed).get(github_bed.here("/pulls"))
    assert len(str(raised.value)) < 700
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("status", [200, 304])
def test_a_good_status_without_json_is_no_answer(github_bed: GithubBed, status: int) -> None:
    github_bed.proxy.faults.append(Fault("GET", "/pulls$", status, raw=b"<html>log in here</html>"))
    with pytest.raises(ForgeError, match=f"{status}"):
        client(github_bed).get(github_bed.here("/pulls"))


def test_a_redirect_to_another_host_is_not_followed(github_bed: GithubBed) -> None:
    elsewhere = {"Location": "http://localhost:9/repos/evil"}
    github_bed.proxy.faults.append(Fault("GET", "/pulls$", 301, headers=elsewhere))
    with pytest.raises(ForgeError, match="redirected"):
        client(github_bed).get(github_bed.here("/pulls"))


@pytest.mark.parametrize(
    ("said", "kind"), [("FORBIDDEN", Forbidden), ("NOT_FOUND", NotFound), ("OTHER", Refused), ("RATE_LIMITED", None)]
)
def test_graphql_refuses_with_a_good_status(github_bed: GithubBed, said: str, kind: type[ForgeError] | None) -> None:
    github_bed.proxy.faults.append(Fault("POST", "/graphql$", 200, {"errors": [{"type": said, "message": "why"}]}))
    seen, query = client(github_bed), "query { viewer { login } }"
    if kind is None:
        assert seen.graphql(query, {}).text("data", "viewer", "login") == "github-actions[bot]"
        return
    with pytest.raises(kind, match="why"):
        seen.graphql(query, {})
