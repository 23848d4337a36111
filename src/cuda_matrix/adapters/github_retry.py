"""Owns how patient we are with GitHub: which answers are asked for again, and after how long.

Must not know how a request is sent (github_client). Two profiles, because a lost answer may hide a success:
`repeatable` requests (reads, and writes that end the same when done twice) are sent again after anything that may pass;
a `create` (comment, check run, pull request) only after GitHub said that it did nothing, which a rate limit says.
PyGithub's own GithubRetry is not used: it leaves out PATCH and 429, and repeats a POST after 502
(https://github.com/PyGithub/PyGithub/issues/2970).
Rules: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Profile = Literal["repeatable", "create"]
_FORBIDDEN, _TOO_MANY = 403, 429
_LIMIT_WORDS = ("rate limit", "abuse detection", "wait a few minutes", "retry your request again later")
_DATE_LIMIT = 9  # digits of a header that are believed to be seconds; more would be no number of seconds at all


@dataclass(frozen=True)
class Patience:
    """For one request: `tries` in all, `longest_s` seconds of waiting in all.

    `backoff_s` is the first pause after a failure, doubled each time, with jitter; `secondary_s` the pause that GitHub
    asks for where a secondary limit names none, doubled each time too.
    """

    tries: int = 6
    longest_s: float = 300
    backoff_s: float = 1
    backoff_most_s: float = 32
    secondary_s: float = 60


@dataclass(frozen=True)
class Failed:
    """What came back: a status, 0 for nothing at all; header names in lower case.

    `unsent`: the connection was never made, so nothing can have been done.
    """

    status: int = 0
    headers: Mapping[str, str] | None = None
    message: str = ""
    unsent: bool = False


def is_limit(failed: Failed) -> bool:
    """Whether GitHub refused because of too many requests: it did nothing."""
    if failed.status == _TOO_MANY:
        return True
    if failed.status != _FORBIDDEN:
        return False
    headers = failed.headers or {}
    spoken = failed.message.lower()
    return "retry-after" in headers or _exhausted(headers) or any(words in spoken for words in _LIMIT_WORDS)


def may_pass(failed: Failed) -> bool:
    """Whether the next try could go otherwise: no answer, or an error of the server."""
    return failed.status == 0 or failed.status >= 500


def pause_s(
    failed: Failed, profile: Profile, failures: int, patience: Patience, *, now_s: float, chance: float
) -> float | None:
    """Seconds before the next try, None where there must be none.

    Args:
        failed: What came back.
        profile: Whether the request may be repeated when it is not known what became of it.
        failures: How often this request has failed, this one included.
        patience: Its bound on the sum of pauses is checked by the caller, who knows the sum.
        now_s: Seconds since 1970.
        chance: Between 0 and 1; two clients that failed together do not come back together.
    """
    if failures >= patience.tries:
        return None
    if is_limit(failed):
        return _limit_s(failed, failures, patience, now_s) + chance
    if failed.unsent or (profile == "repeatable" and may_pass(failed)):
        most = min(patience.backoff_s * 2.0 ** (failures - 1), patience.backoff_most_s)
        return most * (0.5 + chance / 2)
    return None


def _limit_s(failed: Failed, failures: int, patience: Patience, now_s: float) -> float:
    headers = failed.headers or {}
    asked = headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:_DATE_LIMIT])
    reset = headers.get("x-ratelimit-reset", "").strip()
    if _exhausted(headers) and reset.isascii() and reset.isdigit() and len(reset) <= _DATE_LIMIT + 3:
        return max(float(reset) - now_s, 0) + 1  # within which second it ends is not said
    return patience.secondary_s * 2.0 ** (failures - 1)


def _exhausted(headers: Mapping[str, str]) -> bool:
    return headers.get("x-ratelimit-remaining", "").strip() == "0"
