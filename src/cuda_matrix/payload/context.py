"""Owns what a check is given (Context) and how it says its result (the functions below).

Must not know how a check is run or where its result goes.
"""

from __future__ import annotations

import json

from . import cards, events

GOOD = ("pass", "warn")
# What a result may say; `timeout` is for whoever waited, `invalid` for benchmarks.
STATUSES = ("pass", "warn", "fail", "skip", "unknown", "crash", "invalid")
# What a result may have: the protocol's keys of the event `end` that are an item's own.
KEYS = ("status", "summary", "device", "numbers", "thresholds", "cause", "evidence", "log", "samples")
_OBJECTS = ("numbers", "thresholds", "samples")
KEEP_LIMIT = 32768  # characters of JSON: well inside a line, which would be shortened without a word


class Context:
    """Everything that a check may know: the request, its row of the table, earlier results; and where it leaves facts.

    `results`: id → an earlier result, at least its status and device. `kept`: what earlier items have kept, in whatever
    process they ran. `card`: this device's row of the cards table, or None. `limit_s`: seconds that the item may take.
    """

    def __init__(self, request: dict, results: dict, kept=None, cards=()):
        self.profile = request["profile"]
        self.expect = request.get("expect") or {}
        # An image that declares itself a CPU image is right on the CPU, whatever the host has.
        self.gpu_needed = bool(request.get("gpu_required")) and self.expect.get("cuda") != "none"
        self.results = results
        self.kept = {} if kept is None else kept
        self.import_seconds = None
        self.item_id = None
        self.thresholds = {}
        self.unit = ""
        self.higher_is_better = True
        self.limit_s = 0.0
        self._cards = cards
        self._send = None

    def begin(self, item, limit_s: float, send) -> None:
        """Turn to an item; `send` takes messages to the worker."""
        self.item_id = item.id
        self.thresholds = dict(item.thresholds)
        self.unit = item.unit
        self.higher_is_better = item.higher_is_better
        self.limit_s = limit_s
        self._send = send

    @property
    def device(self):
        """`cuda:0` or `cpu`, as the first-kernel check has proved; None before it."""
        return self.results.get("first-kernel", {}).get("device")

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA device."""
        return (self.device or "").startswith("cuda")

    @property
    def card(self):
        """The row of the cards table that the device's own name and compute capability match; None for none or two."""
        seen = self.kept.get("device") or {}
        return cards.find(self._cards, seen.get("name", ""), seen.get("capability", ""))

    def fact(self, name: str, value) -> None:
        """Report one field of `Facts`; None is not worth an event."""
        if self._send is not None and value is not None:
            self._send({"event": "fact", "name": name, "value": value})

    def keep(self, name: str, value) -> None:
        """Keep a JSON value for later items, whatever process they run in. Raises where it is none, or too large."""
        text = json.dumps(value)
        if len(text) > KEEP_LIMIT:
            raise ValueError(f"{name} has {len(text)} characters of JSON, and {KEEP_LIMIT} can be kept")
        value = events.plain(json.loads(text))  # as it reaches another process: a verdict must not depend on which
        self.kept[name] = value
        if self._send is not None:
            self._send({"event": "keep", "name": name, "value": value})


def result(status: str, summary: str, **keys) -> dict:
    """One result in the protocol's form."""
    return {"status": status, "summary": summary, **keys}


def passed(summary: str, **keys) -> dict:
    """Verified, and right."""
    return result("pass", summary, **keys)


def warned(summary: str, **keys) -> dict:
    """It works, with a remark."""
    return result("warn", summary, **keys)


def failed(summary: str, **keys) -> dict:
    """Verified, and wrong."""
    return result("fail", summary, **keys)


def skipped(summary: str, **keys) -> dict:
    """Nothing was verified, and why."""
    return result("skip", summary, **keys)


def unknown(summary: str, **keys) -> dict:
    """It could not be told."""
    return result("unknown", summary, **keys)


def ran_elsewhere(asked: str, **keys):
    """The failure of work whose result lies on another `device` than it was asked for; None where it is that one."""
    if keys["device"] == asked:
        return None
    text = "asked for {}, the result lies on {}".format(asked, keys["device"])
    return failed(text, evidence=text, cause="silent-cpu-fallback", **keys)


def improper(answer, kind: str) -> str:
    """What is wrong with the form of an item's result, or "". `kind`: check or benchmark."""
    if not isinstance(answer, dict):
        return f"it gave {type(answer).__name__}, not a result"
    status = answer.get("status")
    if not isinstance(status, str) or status not in STATUSES or (status == "invalid" and kind == "check"):
        return f"its status is {status!r}"[:200]
    for key in _OBJECTS:
        if not isinstance(answer.get(key) or {}, dict):
            return f"its {key} are {type(answer[key]).__name__}, not an object"
    return ""


def exception_line(error: BaseException) -> str:
    """`RuntimeError: the first line of its message`: what a search engine and a reader need."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:2000]
