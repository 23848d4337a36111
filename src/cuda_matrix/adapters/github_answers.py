"""Owns how an answer of GitHub is read: what it holds, or why it is a refusal.

Must not know who asked, or how often. No answer is trusted: a field that is missing or of another kind is an error that
says so. Refusals: https://docs.github.com/rest/using-the-rest-api/troubleshooting-the-rest-api
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cuda_matrix.adapters.github_retry import Failed
from cuda_matrix.forge import Forbidden, ForgeError

_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _INVALID, _TOO_MANY = 401, 403, 404, 409, 422, 429
_REDIRECT, _ERROR = 300, 400  # and above


class NotFound(ForgeError):
    """There is no such thing, or this token may not see it."""


class Refused(ForgeError):
    """GitHub understood, and will not do it (409, 422); `message` holds its words."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(text)
        self.message = message


class Lost(ForgeError):
    """It is not known whether something was created: no answer, or an error of the server. Look before a second try."""


@dataclass(frozen=True)
class Reply:
    """One good answer. `data` is what its JSON says; headers have names in lower case."""

    asked: str
    headers: Mapping[str, str]
    data: Any

    @property
    def has_next(self) -> bool:
        """Whether there is a further page; its address is not followed, the token goes nowhere but to GitHub."""
        return 'rel="next"' in self.headers.get("link", "")

    def text(self, *path: str | int) -> str:
        """A text of the answer. Raises ForgeError where there is none."""
        value = self.field(*path)
        if not isinstance(value, str):
            msg = f"{self.asked}: GitHub's answer has no text at {_place(path)}"
            raise ForgeError(msg)
        return value

    def sha(self, *path: str | int) -> str:
        """The name of a Git object."""
        value = self.text(*path)
        if not re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", value):
            msg = f"{self.asked}: GitHub's answer has no object name at {_place(path)}"
            raise ForgeError(msg)
        return value

    def number(self, *path: str | int) -> int:
        """A positive whole number."""
        value = self.field(*path)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            msg = f"{self.asked}: GitHub's answer has no number at {_place(path)}"
            raise ForgeError(msg)
        return value

    def entries(self, *path: str | int) -> list[Reply]:
        """The elements of a list."""
        value = self.field(*path)
        if not isinstance(value, list):
            msg = f"{self.asked}: GitHub's answer has no list at {_place(path)}"
            raise ForgeError(msg)
        return [Reply(self.asked, self.headers, one) for one in value]

    def field(self, *path: str | int) -> Any:
        """Whatever stands there, None for nothing."""
        value = self.data
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value


def read(asked: str, status: int, headers: Mapping[str, str], text: str) -> Reply | Failed:
    """What came back over HTTP; header names in lower case. Raises ForgeError for a good status without JSON."""
    try:
        data = json.loads(text) if text else None
    except (ValueError, RecursionError):
        data = _NO_JSON
    if status >= _ERROR:
        return Failed(status, headers, _words(data) or f"status {status}")
    if data is _NO_JSON or status >= _REDIRECT:
        msg = f"{asked}: the answer with status {status} is no JSON of GitHub's API"
        raise ForgeError(msg)
    # Only GraphQL has errors in a good answer, and no answer of REST that is asked for here has a field of this name.
    errors = data.get("errors") if isinstance(data, dict) else None
    return _graphql_failure(errors, headers) if errors else Reply(asked, headers, data)


def refusal(status: int, text: str, message: str) -> ForgeError:
    """The error of a status that no second try would change; `message` is GitHub's own."""
    if status == _FORBIDDEN:
        return Forbidden(text)
    if status == _NOT_FOUND:
        return NotFound(text)
    if status in {_CONFLICT, _INVALID}:
        return Refused(text, message)
    return ForgeError(f"{text}: the token is wrong or has expired" if status == _UNAUTHORIZED else text)


def _words(data: Any) -> str:
    """GitHub's `message`, with the messages of its `errors`."""
    if not isinstance(data, dict):
        return ""
    errors = data.get("errors")
    texts = [one.get("message") if isinstance(one, dict) else one for one in errors] if isinstance(errors, list) else []
    return ": ".join(str(text) for text in [data.get("message"), *texts[:3]] if text)


def _graphql_failure(errors: Any, headers: Mapping[str, str]) -> Failed:
    """GraphQL says no with status 200 (https://docs.github.com/graphql/overview/rate-limits-and-query-limits)."""
    first = errors[0] if isinstance(errors, list) and isinstance(errors[0], dict) else {}
    kind, said = str(first.get("type", "")), str(first.get("message", "an error without words"))
    statuses = {"FORBIDDEN": _FORBIDDEN, "INSUFFICIENT_SCOPES": _FORBIDDEN, "NOT_FOUND": _NOT_FOUND}
    status = _TOO_MANY if kind in {"RATE_LIMITED", "RATE_LIMIT"} else statuses.get(kind, _INVALID)
    return Failed(status, headers, said)


def _place(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path)) or "its top"


_NO_JSON = object()
