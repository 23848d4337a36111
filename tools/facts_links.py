"""Every web address that a table names as a source: is the page still there?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from facts_report import Outcome
from facts_web import UnreachableError, Web

_ADDRESS = re.compile(r"https://[^\s\"'<>|`]+")
_AT_ONCE = 4


def check(web: Web, table: str, document: Any) -> Outcome:
    """A page that is gone is a difference; one that nobody could ask for is not."""
    outcome = Outcome(table)
    urls = sorted({url for text in _sources(document) for url in addresses(text)})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for url, answer in zip(urls, pool.map(lambda url: _there(web, url), urls), strict=True):
            if answer is None:
                outcome.compared += 1
            elif answer == "gone":
                outcome.compared += 1
                outcome.differences.append(f"gone: {url}")
            else:
                outcome.unreachable[url] = answer
    return outcome


def addresses(text: str) -> list[str]:
    """The web addresses in a sentence, without what belongs to the sentence."""
    found = []
    for match in _ADDRESS.finditer(text):
        url = match[0].rstrip(".,;:")
        if url.endswith(")") and "(" not in url:
            url = url.rstrip(").,;:")
        found.append(url.partition("#")[0])
    return found


def _there(web: Web, url: str) -> str | None:
    """None where the page is there, else `gone` or why it could not be asked for."""
    try:
        return None if web.get(url) else "gone"
    except UnreachableError as error:
        return str(error)


def _sources(value: Any, cited: bool = False) -> Iterator[str]:
    """Every text below a key `source` or `sources`. Addresses elsewhere are commands to type, or explained."""
    if isinstance(value, str):
        if cited:
            yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _sources(item, cited or key in {"source", "sources"})
    elif isinstance(value, list):
        for item in value:
            yield from _sources(item, cited)
