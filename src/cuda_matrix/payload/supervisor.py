"""Owns the supervisor: reads the request, plans, runs workers until every item has ended, writes every event.

Standard library only. Of the image's code, only what its Python runs at every start (sitecustomize, .pth files) is in
this process: a package that breaks when it is used cannot take it down.
Must not know how an item is run (worker, children, series).
"""

from __future__ import annotations

import json
import os
import time

from . import cards, children, compiled, events, facts, table, versions

PROTOCOL = 1
NOISE_LIMIT = 16384  # bytes of a worker's own output that are passed on to stderr
TERMINATED = 143  # exit code after SIGTERM


class Terminated(BaseException):
    """SIGTERM or SIGINT came."""


def main(directory: str) -> int:
    """Run the request in `directory`; the exit code is 0 where the stream was closed with `done`."""
    started = time.monotonic()
    _fill_standard_descriptors()
    request = _read_request(os.path.join(directory, "request.json"))
    stream = events.Stream(1, request["marker"])
    stream.emit("hello", protocol=PROTOCOL, python=versions.python())
    known = table.load(os.path.join(directory, "items.json"))
    profile = request["profile"]
    selected, barren = table.select(known.items, profile, request["checks"], request["benchmarks"])
    _emit_plan(stream, selected, barren, profile)
    for name, value in facts.cheap(os.environ).items():
        stream.emit("fact", name=name, value=value)
    for _, pattern, elsewhere in barren:
        if elsewhere:
            stream.emit("end", id=pattern, status="skip", summary=f"the profile {profile} leaves this out")
        else:
            stream.emit("end", id=pattern, status="unknown", summary="no item of this payload matches this glob")
    code = 0
    if selected:
        rows = cards.load(os.path.join(directory, "cards.json"))
        budget_s = known.budgets_s.get(profile)
        code = Supervisor(stream, request, selected, Clock(started, request["limit_s"], budget_s), rows).run()
    if code == 0:
        stream.emit("done", seconds=round(time.monotonic() - started, 3))
    return code


def _fill_standard_descriptors():
    """With stdin, stdout or stderr closed, the first pipe would take its number."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)


def _read_request(path):
    with open(path, "rb") as stream:
        request = json.loads(stream.read().decode("utf-8"))
    if request.get("protocol") != PROTOCOL:
        raise ValueError("request.json speaks protocol {!r}, this payload {}".format(request.get("protocol"), PROTOCOL))
    return request


def _emit_plan(stream, selected, barren, profile):
    planned = [{"id": item.id, "kind": item.kind, "limit_s": item.limit_s(profile)} for item in selected]
    # A glob that selects nothing is a mistake that must be seen, so it is planned, and ends as unknown.
    planned += [{"id": pattern, "kind": kind, "limit_s": 0} for kind, pattern, _ in barren]
    stream.emit("plan", items=planned)


class Clock:
    """When the payload must have ended, and when optional items are left out (moments of time.monotonic)."""

    def __init__(self, started: float, limit_s: float, budget_s):
        self.end = started + float(limit_s)
        self.budget_end = self.end if budget_s is None else started + float(budget_s)


class Supervisor:
    """Runs workers until every selected item has ended."""

    def __init__(self, stream, request: dict, selected, clock: Clock, card_rows):
        self._stream = stream
        self._request = request
        self._remaining = list(selected)
        self._items = {item.id: item for item in selected}
        self._clock = clock
        # What later items and later workers need: id → status and device; what items keep; the cards table.
        self._state = {"results": {}, "kept": {}, "cards": card_rows}
        self._begun = set()
        self._current = None  # id of the started item that has not ended
        self._current_started = time.monotonic()
        self._check_pid = None
        self._output = None
        self._deadline = None
        self._noise_left = NOISE_LIMIT
        self._ahead = compiled.Ahead()

    def run(self) -> int:
        """Run everything; the payload's exit code."""
        import signal

        from . import processes, worker

        processes.own_signals()
        processes.cancel_timers()
        worker.no_core_files()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _terminate)
        try:
            while self._remaining:
                self._one_worker()
        except Terminated:
            return TERMINATED
        finally:
            self._kill_check()
        return 0

    def _one_worker(self):
        """Run one worker over everything that remains; where it dies, charge the item at hand."""
        from . import cgroup, context, processes, worker

        before = len(self._remaining)
        kills = cgroup.kills()
        self._output = processes.Output()
        self._current_started = time.monotonic()
        self._deadline = processes.Deadline(max(self._current_started, self._clock.end) + children.GRACE_S)
        items, end, budget_end = list(self._remaining), self._clock.end, self._clock.budget_end
        job = worker.Job(self._request, items, self._state, self._ahead, end, budget_end)

        def main_of_worker(descriptor):
            worker.Worker(descriptor, job).main()

        try:
            ending = processes.run(
                main_of_worker, self._on_message, self._deadline, output=self._output, idle=self._ahead.compile_next
            )
        except processes.NotStartedError as error:
            self._turn(self._remaining[0].id)
            text = f"no process could be started for it: {error}"
            self._finish(self._current, context.result("crash", text, evidence=text))
            return
        self._kill_check()
        self._pass_on_noise()
        if not self._remaining:
            return
        if self._current is None and len(self._remaining) == before:
            self._turn(self._remaining[0].id)  # it died before its first item: somebody must be charged
        if self._current is not None:
            seconds = time.monotonic() - self._current_started
            result = children.ending_result(ending, seconds, time.monotonic() >= self._clock.end, kills)
            result["log"] = self._output.text()
            result["seconds"] = round(seconds, 3)
            self._finish(self._current, result)

    def _on_message(self, message):
        kind = message.get("event")
        if kind == "series":
            self._check_pid = message["pid"]
        elif kind == "turn":
            self._turn(message["id"])
            self._deadline.at = min(self._current_started + message["within_s"], self._clock.end + children.GRACE_S)
        elif kind == "imported":
            self._clock.budget_end += message["seconds"]
        elif kind == "keep":
            self._state["kept"][message["name"]] = message["value"]
        elif kind == "fact":
            self._stream.emit("fact", name=message["name"], value=message["value"])
        elif kind == "end":
            self._finish(message.pop("id"), {key: value for key, value in message.items() if key != "event"})

    def _turn(self, item_id):
        """An item is at hand; the first time, the host hears of it."""
        self._current = item_id
        self._current_started = time.monotonic()
        if item_id not in self._begun:
            self._begun.add(item_id)
            self._stream.emit("start", id=item_id)

    def _finish(self, item_id, result):
        item = self._items[item_id]
        self._remaining = [each for each in self._remaining if each.id != item_id]
        self._current = None
        self._deadline.at = min(time.monotonic() + children.BETWEEN_S, self._clock.end + children.GRACE_S)
        self._state["results"][item_id] = {key: result.get(key) for key in ("status", "device", "numbers", "samples")}
        if item_id == "torch.import" and not result.get("log"):
            result["log"] = self._output.text()  # what the image printed at import
        if not str(result.get("log", "")).strip():
            result.pop("log", None)
        if item.kind == "benchmark":
            result.setdefault("unit", item.unit)
            result.setdefault("higher_is_better", item.higher_is_better)
        self._stream.emit("end", id=item_id, **result)

    def _kill_check(self):
        """A check outlives its worker where that was killed: it is in a group of its own."""
        if self._check_pid is not None:
            from . import processes

            processes.kill_group(self._check_pid)
            self._check_pid = None

    def _pass_on_noise(self):
        """What the image printed at import goes to stderr, bounded, and never with the marker in it."""
        noise = self._output.text().replace(self._request["marker"], "<marker>")
        noise = noise[max(0, len(noise) - self._noise_left) :]
        self._noise_left -= len(noise)
        if noise:
            try:
                events.write_all(2, noise.encode("utf-8", "replace"))
            except OSError:
                self._noise_left = 0


def _terminate(_number, _frame):
    raise Terminated
