"""Owns the form of events: strict JSON, bounded texts, one line of at most 64 KiB behind the marker.

Must not know what an event means or who sends it.
"""

from __future__ import annotations

import json
import os

LINE_LIMIT = 64 * 1024 - 64  # bytes, marker and newline apart
TEXT_LIMIT = 2000  # characters
LOG_LIMIT = 16000  # characters
NUMBERS_LIMIT = 64  # entries
KEY_LIMIT = 80  # characters of a key, and of what is a word: a device, a cause, a unit
_INTEGER_LIMIT = 1 << 64  # a larger integer has as many digits as it likes, and no counter is one


_TEXTS = (("summary", TEXT_LIMIT), ("evidence", TEXT_LIMIT))
_WORDS = (("device", KEY_LIMIT), ("cause", KEY_LIMIT), ("unit", KEY_LIMIT))


def head(text: str, limit: int = TEXT_LIMIT) -> str:
    """The beginning of a text, with a mark where it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def tail(text: str, limit: int = LOG_LIMIT) -> str:
    """The end of a log, with a mark where it was cut."""
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :]


def plain(value):
    """Any value as strict JSON: NaN and infinities become null, unknown objects and endless integers their text."""
    if value is None or isinstance(value, (bool, int, float)):
        return _number(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no text
    if isinstance(value, dict):
        return {str(plain(str(key))): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return str(value)


def _number(value):
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if value is None or isinstance(value, bool) or abs(value) <= _INTEGER_LIMIT:
        return value
    return head(hex(value), KEY_LIMIT)


def scalars(numbers: dict) -> dict:
    """A `numbers` or `thresholds` object: scalars only. NaN and infinities are findings: kept, as text."""
    kept = {}
    for key, value in list(numbers.items())[:NUMBERS_LIMIT]:
        kept[head(str(key), KEY_LIMIT)] = _scalar(value)
    return kept


def _scalar(value):
    if isinstance(value, float) and value - value != 0.0:
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else head(str(value))


def bounded(event: dict) -> dict:
    """The event with every text inside the protocol's limits."""
    event = dict(event)
    for key in ("numbers", "thresholds", "samples"):
        if event.get(key) is not None:
            event[key] = scalars(event[key])
    for key, limit in (*_TEXTS, *_WORDS):
        if event.get(key) is not None:
            event[key] = head(str(event[key]), limit)
    if "log" in event:
        event["log"] = tail(str(event["log"]))
    return plain(event)


def encode(event: dict) -> str:
    """One event as one line of JSON without its newline, shortened until it fits."""
    event = bounded(event)
    text = json.dumps(event, allow_nan=False)
    while len(text) > LINE_LIMIT:
        _shorten(event)
        text = json.dumps(event, allow_nan=False)
    return text


def normal(event: dict) -> dict:
    """The event as whoever reads its line sees it."""
    return json.loads(encode(event))


def _shorten(event):
    """Halve what is longest in its JSON form: the log first, since a reader misses it least."""
    shortenable = ("log", "evidence", "summary", "value", "items", "numbers", "thresholds", "samples")
    candidates = [key for key in shortenable if event.get(key)]
    if not candidates:
        raise ValueError("an event without text is longer than a line")
    key = max(candidates, key=lambda name: (name == "log", len(json.dumps(event[name]))))
    value = event[key]
    half = len(value) // 2
    if key == "log":
        event[key] = tail(value, half) if half > 1 else ""
    elif isinstance(value, str):
        event[key] = head(value, half) if half > 1 else ""
    elif isinstance(value, dict):
        event[key] = dict(list(value.items())[:half])
    else:
        event[key] = value[:half]


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything: `os.write` may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Stream:
    """The one writer of events on stdout."""

    def __init__(self, descriptor, marker):
        self._descriptor = descriptor
        self._marker = marker
        self._begun = False

    def emit(self, event, **keys):
        """Write one event. The first ends whatever line the image's own start-up noise left open."""
        line = "{} {}\n".format(self._marker, encode({"event": event, **keys}))
        if not self._begun:
            line = "\n" + line
            self._begun = True
        write_all(self._descriptor, line.encode("ascii"))
