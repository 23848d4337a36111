"""Owns what one line of a log says once everything that tools wrap around it is gone.

Terminal colours, time stamps, the prefixes of docker compose, kubectl, GitHub Actions and the journal, Markdown
quotes and fences, JSON records, NULs. Must not know which line matters.
"""

from __future__ import annotations

import json
import re

LINE_LIMIT = 2_000  # characters: what a diagnosis looks at
JSON_LIMIT = 64 << 10  # bytes of one JSON record that is taken apart

# CSI and OSC sequences and the two-character ones (ECMA-48).
_ANSI = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)?|[@-Z\\-_])")
_ENDS = re.compile(r"[\r\n\x0b\x0c\x85\u2028\u2029]")
_FENCE = re.compile(r"(?:```|~~~)[\w.+-]{0,20}")
_STAMP = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:[ ]?(?:Z|UTC|[+-]\d\d:?\d\d))?"
_PREFIX = re.compile(
    rf"""\s{{0,200}}(?:
      (?:>\s?){{1,8}}                                        # Markdown quote
    | \[?{_STAMP}\]?(?:\s|$)                                 # GitHub Actions, docker logs -t, many loggers
    | [A-Za-z0-9][\w.-]{{0,63}}\s{{0,40}}\|\s                # docker compose
    | \[(?:pod|container)/[^\]\s]{{1,200}}\]\s               # kubectl logs --prefix
    | (?:stdout|stderr)\s[FP]\s                              # CRI
    | [A-Z][a-z]{{2}}\s[\s\d]\d\s\d\d:\d\d:\d\d\s[\w.-]{{1,64}}\s[\w./@-]{{1,64}}(?:\[\d{{1,10}}\])?:\s #  journal
    | \[\s{{0,12}}\d{{1,9}}\.\d{{6}}\]\s                     # kernel ring buffer
    | \#\d{{1,4}}\s\d{{1,6}}\.\d{{1,3}}\s                    # BuildKit
    | \[(?:rank|default)\d{{1,5}}\]:(?:\s|$)                 # torchrun
    | \#\#\[[a-z-]{{1,20}}\]                                 # GitHub Actions, as stored
    )""",
    re.VERBOSE,
)
_PREFIXES_LIMIT = 8
# Where JSON loggers keep what was said, in the order in which a reader wants it.
_SAID = (
    "log",
    "msg",
    "message",
    "MESSAGE",
    "textPayload",
    "event",
    "error",
    "err",
    "exception",
    "exc_info",
    "stack",
    "stacktrace",
)


def said(raw: bytes) -> list[str]:
    """What a stretch of a log says: its lines that are not empty, each at most LINE_LIMIT characters.

    A longer line comes in several parts that overlap by a quarter, so that a sentence is whole in one of them.
    """
    text = _ANSI.sub("", _decoded(raw).replace("\0", ""))
    return [part for line in _ENDS.split(text) for each in _unwrapped(line) for part in _parts(each)]


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        # A cut in the middle of a character is no other encoding.
        forgiving = raw.decode("utf-8", "replace")
        return forgiving if forgiving.count("\ufffd") <= 2 + len(raw) // 500 else raw.decode("latin-1")


def _unwrapped(line: str) -> list[str]:
    """The line without its prefixes; a JSON record gives the lines that it holds."""
    for _ in range(_PREFIXES_LIMIT):
        found = _PREFIX.match(line)
        if found is None:
            break
        line = line[found.end() :]
    line = line.strip()
    if line.startswith("{") and line.endswith("}"):
        inner = _record(line)
        if inner is not None:
            return [each for part in _ENDS.split(_ANSI.sub("", inner)) for each in _unwrapped_once(part)]
    return [line] if line and not _FENCE.fullmatch(line) else []


def _unwrapped_once(line: str) -> list[str]:
    found = _PREFIX.match(line)
    line = (line[found.end() :] if found else line).replace("\0", "").strip()
    return [line] if line else []


def _record(line: str) -> str | None:
    """What a JSON record says; None where it is none, or says nothing under a known name."""
    if len(line) > JSON_LIMIT:
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    found = [record[name] for name in _SAID if isinstance(record.get(name), str)]
    return "\n".join(dict.fromkeys(found)) if found else None


def _parts(line: str) -> list[str]:
    if len(line) <= LINE_LIMIT:
        return [line]
    step = LINE_LIMIT - LINE_LIMIT // 4
    return [line[start : start + LINE_LIMIT] for start in range(0, len(line) - LINE_LIMIT // 4, step)]
