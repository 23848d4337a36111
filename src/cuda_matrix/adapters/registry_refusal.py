"""Owns why a registry gave nothing: its own words, or those that Go's net package has for a network that fails.

Must not know how a registry is asked (registry_client).
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import requests
from oras.auth import AuthenticationException

WORDS_LIMIT = 1_000  # characters of a registry's own words that are kept
_LAYERS = 20  # of exceptions within exceptions
NOT_FOUND, _UNAUTHORIZED = 404, 401


class Refused(AuthenticationException):  # type: ignore[misc] # oras-py has no types
    """The registry's answer is no, or cannot be believed; the text says why.

    An AuthenticationException because oras-py passes on that one at once; any other it would try five times
    more, with pauses of 3, 5, 11, 29 and 83 s.
    """

    status: int | None = None  # of HTTP, where this is the registry's own answer


class OutOfReach(Refused):
    """No answer of the registry at all: name, route, TLS, time, or a login that cannot be read."""


def refusal(response: requests.Response) -> Refused:
    """What Docker would print: the registry's error code in words, and its message.

    https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
    """
    error = Refused(_refusal_words(response))
    error.status = response.status_code
    return error


def _refusal_words(response: requests.Response) -> str:
    status = f"{response.status_code} {response.reason or ''}".strip()
    words = _own_words(response)
    if response.status_code == NOT_FOUND and not words:
        return f"manifest unknown: {status}"
    if response.status_code == _UNAUTHORIZED and not words:
        return f"unauthorized: {status}"
    return f"{words} ({status})" if words else f"received unexpected HTTP status: {status}"


def _own_words(response: requests.Response) -> str:
    try:
        document = json.loads(response.content)
        errors = document.get("errors") or [document]
        said = [_one_error(error) for error in errors[:3] if isinstance(error, dict)]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ""
    return "; ".join(filter(None, said))[:WORDS_LIMIT]


def _one_error(error: dict[str, Any]) -> str:
    code = str(error.get("code") or "").replace("_", " ").lower()
    # `details` and `error_description` are what token servers say.
    message = next(
        (str(error[key]) for key in ("message", "details", "error_description", "error") if error.get(key)), ""
    )
    return f"{code}: {message}" if code and message else f"unauthorized: {message}" if message else code


def too_late(host: str) -> str:
    """No patience is left for this host."""
    return f"dial tcp {host}: i/o timeout: the time for asking registries is used up"


def network_words(error: requests.RequestException) -> str:
    """In the words of Go's net package, which Docker prints and everybody searches for."""
    host = urlsplit(str(error.request.url)).netloc if error.request is not None else "the registry"
    inner = str(innermost(error))
    if isinstance(error, requests.exceptions.SSLError):
        return f"{host}: tls: failed to verify certificate: x509: {inner}"
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in inner:
        return f"dial tcp {host}: i/o timeout"
    known: tuple[tuple[str, str], ...] = (
        ("refused", "connection refused"),
        ("not known", "no such host"),
        ("name resolution", "temporary failure in name resolution"),
        ("No address associated", "no such host"),
        ("unreachable", "network is unreachable"),
        ("No route", "no route to host"),
    )
    return f"dial tcp {host}: " + next((words for sign, words in known if sign in inner), inner[:WORDS_LIMIT])


def innermost(error: BaseException) -> BaseException:
    """What the operating system or TLS said, below the layers of requests and urllib3."""
    for _ in range(_LAYERS):
        below = (getattr(error, "reason", None), error.__cause__, error.__context__, *error.args)
        found = next((one for one in below if isinstance(one, BaseException)), None)
        if found is None:
            break
        error = found
    return error
