"""Owns the host's side of docs/payload-protocol.md: what is sent in, and how the event stream is read.

Must not know how bytes travel (adapters) or what they mean for a cell (verdict). Nothing that comes out of
a container is believed without its marker, its schema and its bounds.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from cuda_matrix.model import CheckStatus, Frozen, Profile
from cuda_matrix.result import (
    BENCHMARK_LIMIT,
    CHECK_LIMIT,
    LOG_LIMIT,
    TEXT_LIMIT,
    BenchmarkResult,
    CheckResult,
    Exit,
    Facts,
)
from cuda_matrix.verdict import Outcome, PlannedItem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cuda_matrix.tables import Reference

PROTOCOL_VERSION: Literal[1] = 1
LINE_LIMIT = 64 * 1024  # bytes of one event line, marker included
TEXT_BUDGET = 2 << 20  # characters of all results of one cell; past it, logs are left out
ANOMALY_LIMIT = 32
_HEAD_LIMIT = LOG_LIMIT // 4  # of the log's characters, this many are its beginning


class Request(Frozen):
    """What the payload is asked to do; sent in as `request.json`."""

    protocol: Literal[1] = PROTOCOL_VERSION
    marker: str
    profile: Profile
    checks: tuple[str, ...]
    benchmarks: tuple[str, ...]
    gpu_required: bool
    expect: dict[str, str]
    limit_s: float
    share: bool = Field(default=True, description="Whether items of one group share a process.")


_ITEM_KEYS = {
    *("id", "kind", "run", "needs", "gpu", "priority", "limits_s", "group", "unit", "higher_is_better", "thresholds"),
}
_CARD_KEYS = {
    *("id", "name", "match", "exclude", "cc", "sm", "memory_gb", "bandwidth_gbs", "l2_mb", "boost_mhz"),
    *("tensor_peak_mhz", "pcie_gen", "nvlink_gbs", "peak_tflops", "uncertain"),
}


def payload_sources(reference: Reference) -> dict[str, bytes]:
    """The payload as it lies in the container: relative path → content, without the request.

    Its tables come along as JSON: a foreign image has no YAML reader.
    """
    tables = {
        "items.json": reference.items.model_dump_json(include={"budgets_s": True, "items": {"__all__": _ITEM_KEYS}}),
        "cards.json": json.dumps([card.model_dump(mode="json", include=_CARD_KEYS) for card in reference.cards]),
    }
    sources = {path: text.encode() for path, text in tables.items()}
    for entry in files("cuda_matrix").joinpath("payload").iterdir():
        if entry.name == "start.sh":
            sources["start.sh"] = entry.read_bytes()
        elif entry.name == "entry.py":
            sources["__main__.py"] = entry.read_bytes()
        elif entry.name.endswith(".py"):
            sources[f"cuda_matrix_payload/{entry.name}"] = entry.read_bytes()
    return dict(sorted(sources.items()))


def payload_sha256(sources: Mapping[str, bytes]) -> str:
    """One hash over every file's path and content: two results with the same hash ran the same payload."""
    digest = hashlib.sha256()
    for path, content in sorted(sources.items()):
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def deployment(sources: Mapping[str, bytes], request: Request) -> dict[str, bytes]:
    """Every file of `/cuda-matrix/`: the payload, its marker, its request."""
    return {
        **sources,
        "marker": request.marker.encode() + b"\n",
        "request.json": request.model_dump_json().encode(),
    }


class _BoundedLog:
    """Keeps the beginning and the end of a noisy stream, and counts what it left out."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        room = _HEAD_LIMIT - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            keep = LOG_LIMIT - _HEAD_LIMIT - 100  # the rest is for the line that counts what is missing
            self._tail += data[-keep:]
            del self._tail[:-keep]

    def text(self) -> str:
        missing = self._total - len(self._head) - len(self._tail)
        middle = f"\n… {missing} bytes left out …\n" if missing else ""
        return (self._head.decode(errors="replace") + middle + self._tail.decode(errors="replace"))[:LOG_LIMIT]


class EventStream:
    """Reads one cell's output as it comes. `feed` never raises: what cannot be read is noted in `anomalies`."""

    def __init__(self, marker: str) -> None:
        self._marker = marker.encode() + b" "
        self._pending = b""  # of stdout: what may still become an event
        self._log = _BoundedLog()
        self._hello = False
        self._done = False
        self._planned: dict[str, PlannedItem] = {}
        self._started: list[str] = []
        self._ended: dict[str, CheckResult] = {}
        self._facts: dict[str, Any] = {}
        self._budget = TEXT_BUDGET
        self.anomalies: list[str] = []

    @property
    def running(self) -> str | None:
        """The item that began and has not ended, for progress and for blame."""
        open_items = [item for item in self._started if item not in self._ended]
        return open_items[-1] if open_items else None

    @property
    def progress(self) -> tuple[int, int]:
        """(items ended, items planned)."""
        return len(self._ended), len(self._planned)

    def feed(self, data: bytes, channel: Literal["stdout", "stderr"] = "stdout") -> None:
        """Take the next bytes of one channel. Noise is skipped in bulk: a flood costs a search, not a parse."""
        if channel == "stderr":
            self._log.add(data)
            return
        buffer = self._pending + data
        position = 0
        while (found := buffer.find(self._marker, position)) >= 0:
            end = buffer.find(b"\n", found)
            if end < 0:
                break
            self._log.add(buffer[position:found])
            self._event_line(buffer[found + len(self._marker) : end])
            position = end + 1
        keep_from = found if found >= 0 else max(position, len(buffer) - len(self._marker))
        if len(buffer) - keep_from > LINE_LIMIT:  # an event that never ends is no event
            self._note("an event line is longer than 64 KiB")
            keep_from = len(buffer)
        self._log.add(buffer[position:keep_from])
        self._pending = buffer[keep_from:]

    def outcome(self, exit_: Exit) -> Outcome:
        """Close the stream. An item that started and did not end is charged with the end of the process."""
        self._log.add(self._pending)
        self._pending = b""
        results = [self._ended[item] for item in self._planned if item in self._ended]
        results += [_cut_off(self._planned[item], exit_) for item in self._started if item not in self._ended]
        order = list(self._planned)
        results.sort(key=lambda result: order.index(result.id))
        return Outcome(
            hello=self._hello,
            planned=tuple(self._planned.values()),
            checks=tuple(result for result in results if not isinstance(result, BenchmarkResult)),
            benchmarks=tuple(result for result in results if isinstance(result, BenchmarkResult)),
            done=self._done,
            facts=Facts(**self._facts),
            log=self._log.text(),
            anomalies=tuple(self.anomalies),
        )

    def _note(self, text: str) -> None:
        if len(self.anomalies) < ANOMALY_LIMIT:
            self.anomalies.append(text)

    def _event_line(self, line: bytes) -> None:
        if self._done:
            self._note("an event came after `done`")
            return
        try:
            event = json.loads(line.decode(errors="replace"), parse_constant=_refuse_constant)
            handler = getattr(self, f"_on_{event['event']}", None)
            if handler is None or len(line) > LINE_LIMIT:
                self._note("an event of unknown kind or size")
            else:
                handler(event)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._note(f"an event could not be read: {type(error).__name__}")

    def _on_hello(self, event: dict[str, Any]) -> None:
        if event.get("protocol") == PROTOCOL_VERSION:
            self._hello = True
        else:
            self._note("the payload speaks another protocol version")

    def _on_plan(self, event: dict[str, Any]) -> None:
        if self._planned:
            self._note("a second plan")
            return
        room = {"check": CHECK_LIMIT, "benchmark": BENCHMARK_LIMIT}
        for item in event["items"]:
            planned = PlannedItem(id=item["id"], kind=item["kind"])
            room[planned.kind] -= 1
            if room[planned.kind] < 0:
                self._note(f"more {planned.kind}s than anybody plans")
                return
            self._planned[planned.id] = planned

    def _on_fact(self, event: dict[str, Any]) -> None:
        name, value = event["name"], event["value"]
        if name not in Facts.model_fields:
            self._note("a fact of unknown name")
            return
        try:
            self._facts[name] = getattr(Facts(**{name: _shorten(value)}), name)
        except ValidationError:
            self._note(f"the fact {name} has an impossible value")

    def _on_start(self, event: dict[str, Any]) -> None:
        if event["id"] in self._planned and event["id"] not in self._started:
            self._started.append(event["id"])
        else:
            self._note("a start of an item that was not planned, or a second one")

    def _on_end(self, event: dict[str, Any]) -> None:
        item = event["id"]
        if item not in self._planned or item in self._ended:
            self._note("an end of an item that was not planned, or a second one")
            return
        self._ended[item] = self._result(self._planned[item], {k: v for k, v in event.items() if k != "event"})

    def _on_done(self, _event: dict[str, Any]) -> None:
        self._done = True

    def _result(self, item: PlannedItem, event: dict[str, Any]) -> CheckResult:
        model = BenchmarkResult if item.kind == "benchmark" else CheckResult
        event = {key: _shorten(value, LOG_LIMIT if key == "log" else TEXT_LIMIT) for key, value in event.items()}
        self._budget -= len(str(event))
        if self._budget < 0:
            event = {**event, "log": "", "evidence": "", "numbers": {}, "thresholds": {}}
        try:
            result = model(**event)
            if item.kind == "check" and result.status is CheckStatus.INVALID:
                msg = "a check cannot be invalid"
                raise ValueError(msg)  # noqa: TRY301 - one path for every impossible result
        except ValueError as error:
            self._note(f"the result of {item.id} cannot be")
            status = CheckStatus.INVALID if item.kind == "benchmark" else CheckStatus.CRASH
            return model(id=item.id, status=status, summary="sent a result that cannot be", evidence=str(error)[:500])
        return result


def _refuse_constant(name: str) -> None:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _shorten(value: Any, limit: int = TEXT_LIMIT) -> Any:
    """Cut over-long texts instead of losing the event that carries them."""
    if isinstance(value, str):
        return value if len(value) <= limit else value[: limit - 1] + "…"
    if isinstance(value, list):
        return [_shorten(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _shorten(entry) for key, entry in value.items()}
    return value


def _cut_off(item: PlannedItem, exit_: Exit) -> CheckResult:
    """The result of an item whose end was never seen, read off the end of the whole process."""
    cause = None
    if exit_.interrupted:
        status, summary = CheckStatus.UNKNOWN, "interrupted"
    elif exit_.timed_out:
        status, summary = CheckStatus.TIMEOUT, "still running when the cell's time limit was reached"
    elif exit_.oom_killed:
        status, summary, cause = CheckStatus.CRASH, "killed by the memory limit", "host-oom-kill"
    else:
        status, summary = CheckStatus.CRASH, f"the payload ended here (exit code {exit_.code})"
    model = BenchmarkResult if item.kind == "benchmark" else CheckResult
    return model(id=item.id, status=status, summary=summary, cause=cause, evidence=summary)
