"""Asks a web address once, politely, within limits; tells "is not there" from "could not be asked"."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

_LIMIT_BYTES = 20_000_000
_GONE = (404, 410)
_AGENT = "cuda-matrix-refresh-facts (a maintainer's check; a few requests)"


class Page(NamedTuple):
    """An answer. `status` is that of the last address, behind redirects."""

    status: int
    text: str
    headers: Message


class UnreachableError(Exception):
    """The address did not answer, or not with an answer that says anything about the page (403, 429, 5xx)."""


class Web:
    """`mirrors` replaces the beginning of an address: a proxy, a mirror, a test's server."""

    def __init__(self, mirrors: Mapping[str, str], timeout_s: float) -> None:
        self._mirrors = mirrors
        self._timeout_s = timeout_s
        self._dead: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, url: str, headers: Mapping[str, str] | None = None, accept: tuple[int, ...] = ()) -> Page | None:
        """The page; None where the server says that there is none (404, 410).

        Args:
            url: https://…
            headers: to send beside the agent's name.
            accept: further statuses that are an answer.

        Raises:
            UnreachableError: nobody answered, or nothing that tells.
        """
        asked = next((url.replace(old, new, 1) for old, new in self._mirrors.items() if url.startswith(old)), url)
        host = urlsplit(asked).netloc
        if host in self._dead:
            raise UnreachableError(self._dead[host])
        if not asked.startswith(("https://", "http://")):
            msg = "not a web address"
            raise UnreachableError(msg)
        request = urllib.request.Request(asked, headers={"User-Agent": _AGENT, **(headers or {})})  # noqa: S310 - checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310 - checked
                body = answer.read(_LIMIT_BYTES)
                return Page(answer.status, body.decode("utf-8", "replace"), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _GONE:
                    return None
                if error.code in accept:
                    return Page(error.code, error.read(_LIMIT_BYTES).decode("utf-8", "replace"), error.headers)
            msg = f"HTTP {error.code}"
            raise UnreachableError(msg) from error
        except (OSError, HTTPException, ValueError) as error:
            reason = str(getattr(error, "reason", error))
            with self._lock:
                self._dead.setdefault(host, reason)
            raise UnreachableError(reason) from error
