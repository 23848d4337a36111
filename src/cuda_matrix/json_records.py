"""Owns what a JSON record of a log says: Docker's json-file driver, the journal, cloud loggers, structured loggers.

Must not know what stands around the record (log_lines) or what its words mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

JSON_LIMIT = 64 << 10  # characters of one record that is taken apart

_BRACKETS = {("{", "}"), ("[", "]"), ('"', '"')}
_DEPTH_LIMIT = 5
_TEXTS_LIMIT = 200
# `journalctl -o json` writes a text with colours in it as an array of bytes (systemd.io/JOURNAL_EXPORT_FORMATS).
_JOURNAL = "MESSAGE"
_BYTES_LIMIT = 4_096
# Where loggers keep what was said, in the order in which a reader wants it.
_SAID = (
    "log",
    "msg",
    "message",
    _JOURNAL,
    "textPayload",
    "event",
    "error",
    "err",
    "reason",
    "exception",
    "exc_info",
    "stack",
    "stacktrace",
)


def said_in_record(text: str) -> str | None:
    """The lines that a JSON record holds; None where the text is no record, or says nothing under a known name.

    What stands at the top wins; only where nothing does, deeper objects are searched (`jsonPayload.message`).
    A text of several lines is a record of itself.
    """
    if (text[:1], text[-1:]) not in _BRACKETS or len(text) > JSON_LIMIT:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(record, str):
        return record if "\n" in record else None
    if isinstance(record, list):
        record = {"log": record} if record and all(isinstance(each, str) for each in record) else {"": record}
    texts = _texts(record) or [each for value in record.values() for each in _deeper(value, _DEPTH_LIMIT)]
    return "\n".join(dict.fromkeys(texts[:_TEXTS_LIMIT])) or None


def _texts(record: dict[str, Any]) -> list[str]:
    numbers = record.get(_JOURNAL)
    if isinstance(numbers, list):
        numbers = numbers[:_BYTES_LIMIT]
        if all(isinstance(each, int) and 0 <= each <= 255 for each in numbers):
            return [bytes(numbers).decode("utf-8", "replace")]
    return [text for name in _SAID for text in _text(record.get(name))]


def _text(value: Any) -> list[str]:
    """A text, or lines of it."""
    lines = value if isinstance(value, list) else [value]
    return lines if all(isinstance(each, str) for each in lines) else []


def _deeper(value: Any, depth: int) -> Iterator[str]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = _texts(value) if isinstance(value, dict) else []
    yield from found
    if not found and depth:
        for each in inner:
            yield from _deeper(each, depth - 1)
