"""Owns one conversation with GitHub's API: token, addresses, waiting, and what its refusals mean.

Must not know what is asked for (github_forge, github_checks, github_commits) or how an answer is read (github_answers).
PyGithub carries the token, builds the addresses of github.com and of GitHub Enterprise, and keeps the connection; how
often is asked again is github_retry's. No error text holds the token.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import requests
from github import Auth, Github
from urllib3.exceptions import NameResolutionError, NewConnectionError

from cuda_matrix.adapters.github_answers import Lost, Reply, read, refusal
from cuda_matrix.adapters.github_retry import Failed, Patience, Profile, is_limit, may_pass, pause_s
from cuda_matrix.errors import ConfigurationError
from cuda_matrix.forge import ForgeError
from cuda_matrix.redaction import REMOVED, redact
from cuda_matrix.report.escape import one_line, short
from cuda_matrix.version import __version__

API_URL = "https://api.github.com"
_TIMEOUT_S = 30  # to connect, and between two packets
_ANSWER_LIMIT = 64 << 20  # characters; GitHub's own bounds are 7 MB for a tree and 100 MB for a blob
_PAGES_LIMIT = 200  # of 100 entries each
_SAID_LIMIT = 500  # characters of GitHub's own words that are kept
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")


class Clock(NamedTuple):
    """Time and chance as arguments: seconds since 1970, a way to wait so many, a number between 0 and 1."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


_PATIENCE, _CLOCK = Patience(), Clock()


class GithubClient:
    """One token at one GitHub.

    Args:
        token: GITHUB_TOKEN, the installation token of an App, or a personal access token.
        api_url: As GITHUB_API_URL says it: `https://api.github.com`, or `https://HOST/api/v3`.
        graphql_url: As GITHUB_GRAPHQL_URL says it; empty: derived from `api_url`.
        patience: How long to go on.
        clock: Time and chance.
        pace_s: Least seconds between two writes, as GitHub asks for
            (https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api).

    Raises:
        ConfigurationError: The addresses are none.
    """

    def __init__(
        self,
        token: str,
        *,
        api_url: str = API_URL,
        graphql_url: str = "",
        patience: Patience = _PATIENCE,
        clock: Clock = _CLOCK,
        pace_s: float = 1,
    ) -> None:
        api_url = api_url.rstrip("/") or API_URL
        _check_addresses(api_url, graphql_url)
        self._token = token
        self._patience = patience
        self._clock = clock
        self._requester = Github(
            auth=Auth.Token(token),
            base_url=api_url,
            timeout=_TIMEOUT_S,
            user_agent=f"cuda-matrix/{__version__}",
            per_page=100,
            retry=None,
            seconds_between_requests=0,
            seconds_between_writes=pace_s,
        ).requester
        self._graphql_url = graphql_url or self._requester.graphql_url

    def __repr__(self) -> str:
        return f"GithubClient({self._requester.base_url})"

    def get(self, path: str, **query: str | int) -> Reply:
        """Read. Raises NotFound, Forbidden, ForgeError."""
        return self.ask("GET", path, query=query)

    def pages(self, path: str, **query: str | int) -> Iterator[Reply]:
        """Every page of a list, 100 entries each."""
        for page in range(1, _PAGES_LIMIT + 1):
            reply = self.get(path, per_page=100, page=page, **query)
            yield reply
            if not reply.has_next:
                return
        msg = f"GET {path}: more than {_PAGES_LIMIT * 100:,} entries"
        raise ForgeError(msg)

    def ask(
        self,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str | int] | None = None,
        profile: Profile = "repeatable",
    ) -> Reply:
        """One request, with every retry that its profile allows.

        Raises:
            NotFound: 404.
            Forbidden: 403 that is no rate limit.
            Refused: 409, 422.
            Lost: A `create` of which nobody knows what became.
            ForgeError: Everything else, in words.
        """
        asked = f"{verb} {path}"
        waited_s, failures = 0.0, 0
        while True:
            reply = self._once(verb, path, query or {}, body)
            if isinstance(reply, Reply):
                return reply
            failures += 1
            now_s, chance = self._clock.now(), self._clock.chance()
            pause = pause_s(reply, profile, failures, self._patience, now_s=now_s, chance=chance)
            if pause is None:
                raise self._error(asked, reply, profile, failures)
            if waited_s + pause > self._patience.longest_s:
                bound = f"{self._patience.longest_s:.0f} s of waiting for one request are the most"
                msg = f"{asked}: {self.clean(reply.message)}: would go on in {pause:.0f} s; {bound}"
                raise ForgeError(msg)
            self._clock.sleep(pause)
            waited_s += pause

    def graphql(self, query: str, variables: Mapping[str, Any]) -> Reply:
        """A query, or a mutation that may be done twice."""
        return self.ask("POST", self._graphql_url, {"query": query, "variables": dict(variables)})

    def clean(self, text: str) -> str:
        """GitHub's words, or a library's: on one line, bounded, without secrets."""
        bare = text.replace(self._token, REMOVED) if self._token else text
        return short(redact(one_line(bare[: 4 * _SAID_LIMIT])), _SAID_LIMIT)

    def wait(self, failures: int) -> None:
        """The pause before something that was lost is looked for: what was created may not be listed at once."""
        pause = pause_s(Failed(), "repeatable", failures, self._patience, now_s=0, chance=self._clock.chance())
        self._clock.sleep(pause or 0)

    @property
    def tries(self) -> int:
        """How often something may be tried in all."""
        return self._patience.tries

    def _once(
        self, verb: str, path: str, query: Mapping[str, str | int], body: Mapping[str, Any] | None
    ) -> Reply | Failed:
        asked = f"{verb} {path}"
        given = None if body is None else dict(body)
        try:
            status, raw_headers, text = self._requester.requestJson(verb, path, dict(query), None, given)
        except requests.RequestException as error:
            return Failed(message=_network_words(error), unsent=_is_unsent(error))
        except (AssertionError, RuntimeError, ValueError) as error:  # PyGithub: sent to another host
            msg = f"{asked}: {self.clean(str(error))}"
            raise ForgeError(msg) from None
        if len(text) > _ANSWER_LIMIT:
            msg = f"{asked}: the answer has more than {_ANSWER_LIMIT:,} characters"
            raise ForgeError(msg)
        headers = {name.lower(): str(value) for name, value in raw_headers.items()}
        return read(asked, status, headers, text)

    def _error(self, asked: str, failed: Failed, profile: Profile, failures: int) -> ForgeError:
        said = self.clean(failed.message)
        text = f"{asked}: {said}" + (f" ({failed.status})" if failed.status else "")
        if is_limit(failed):
            return ForgeError(f"{text}; still rate limited after {failures} tries")
        if may_pass(failed) and profile == "create" and not failed.unsent:
            return Lost(text)
        if may_pass(failed):
            return ForgeError(f"{text}; tried {failures} times")
        return refusal(failed.status, text, said)


def root(repository: str) -> str:
    """`/repos/OWNER/NAME`. Raises ConfigurationError for a name that GitHub would not have."""
    if not _REPOSITORY.fullmatch(repository):
        hint = "GITHUB_REPOSITORY says it: OWNER/NAME"
        msg = f"{short(one_line(repository), 100)!r} is no repository of GitHub"
        raise ConfigurationError(msg, hint=hint)
    return f"/repos/{quote(repository)}"


def _check_addresses(api_url: str, graphql_url: str) -> None:
    api = urlsplit(api_url)
    if api.scheme not in {"https", "http"} or not api.hostname or api.username:
        msg = f"{short(api_url, 100)!r} is no address of GitHub's API"
        raise ConfigurationError(msg, hint="see GITHUB_API_URL")
    if graphql_url and urlsplit(graphql_url)[:2] != api[:2]:
        hint = "GITHUB_API_URL and GITHUB_GRAPHQL_URL must name one server: the token is sent to no other"
        msg = f"GraphQL at {short(graphql_url, 100)!r}, but the API at {short(api_url, 100)!r}"
        raise ConfigurationError(msg, hint=hint)


def _is_unsent(error: requests.RequestException) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    inner = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(inner, NewConnectionError | NameResolutionError)


def _network_words(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer within {_TIMEOUT_S} s"
    return f"no answer: {error}"
