"""Owns one forked child and the items that run in it: deadlines, logs, and what its end means for whom.

Must not know in which order groups run (worker) or how an item is run inside (series).
"""

from __future__ import annotations

import importlib
import time

from . import cgroup, context, processes, series

CELL_LIMIT_REACHED = "the cell's time limit was reached"
PASSED_LOG_LIMIT = 2000  # characters of a good check's output that are kept
GRACE_S = 5.0  # what a worker gets on top of an item's limit, to report the timeout itself
BETWEEN_S = 60.0  # for what a process does outside of any item: starting, giving memory back


class Child:
    """Runs some items. An item's limit counts its own turns only; rounds of its neighbours do not use it up.

    `end` and `budget_end` are moments of time.monotonic: when the whole payload must have ended, and from when on
    optional items are not begun.
    """

    def __init__(self, items, limits_s: dict, end: float, budget_end: float, close=()):
        self._items = {item.id: item for item in items}
        self._limits_s = limits_s
        self._spent_s = dict.fromkeys(self._items, 0.0)
        self._end = end
        self._budget_end = budget_end
        self._close = close
        self._output = processes.Output()
        self._logs = dict.fromkeys(self._items, "")
        self._deadline = processes.Deadline(min(time.monotonic() + BETWEEN_S, end))
        self._current = None  # the item whose turn it is
        self._turn_began = 0.0
        self._waiting = list(items)

    def run(self, check_context, send, finish) -> list:
        """Fork, follow, and say what became of each item; the items that are left for another child."""
        self._send, self._finish, self._context = send, finish, check_context
        turns = [
            series.Turn(item, function_of(item), self._limits_s[item.id], self._end, self._budget_end)
            for item in self._waiting
        ]
        kills_before = cgroup.kills()

        def main(descriptor):
            _be_first_to_be_killed()
            series.run(turns, check_context, lambda message: _tell(descriptor, message))

        ending = processes.run(main, self._on_message, self._deadline, self._close, self._output)
        send({"event": "series", "pid": None})  # killed: the number may soon be another's
        if self._current is None and len(self._waiting) == len(self._items):
            self._take_turn(self._waiting[0])  # it died before its first turn: somebody must be charged
        if self._current is not None:
            item = self._current
            self._end_turn()
            own = self._limits_s[item.id]
            cut_short = time.monotonic() >= self._end
            limit = self._spent_s[item.id] if cut_short else own
            self._answer(item, ending_result(ending, limit, cut_short, kills_before))
        return self._waiting

    def _left_s(self, item, now):
        return max(0.0, min(self._limits_s[item.id] - self._spent_s[item.id], self._end - now))

    def _on_message(self, message):
        kind = message.get("event")
        if kind == "turn":
            self._end_turn()
            self._take_turn(self._items[message["id"]])
        elif kind == "answer":
            item = self._items[message["id"]]
            self._end_turn()
            self._answer(item, {key: value for key, value in message.items() if key not in ("event", "id")})
            self._deadline.at = min(time.monotonic() + BETWEEN_S, self._end)
        elif kind == "child":
            self._send({"event": "series", "pid": message["pid"]})
        else:
            self._send(message)

    def _take_turn(self, item):
        now = time.monotonic()
        left = self._left_s(item, now)
        self._current, self._turn_began = item, now
        self._deadline.at = now + left
        self._send({"event": "turn", "id": item.id, "within_s": left + GRACE_S})

    def _end_turn(self):
        if self._current is None:
            return
        self._spent_s[self._current.id] += time.monotonic() - self._turn_began
        self._logs[self._current.id] += self._output.take()
        self._current = None

    def _answer(self, item, answer):
        log = self._logs[item.id]
        if log.strip():
            answer["log"] = log[-PASSED_LOG_LIMIT:] if answer["status"] == "pass" else log
        answer["seconds"] = round(self._spent_s[item.id], 3)
        self._waiting = [each for each in self._waiting if each.id != item.id]
        self._finish(item, answer)
        # What holds a card, or may, must have ended before another child begins.
        self._deadline.over = not self._waiting and self._context.device == "cpu"


def _tell(descriptor, message):
    """Send a message; where a turn begins, what was printed before and after it must not mix."""
    turn = message["event"] == "turn"
    if turn:
        processes.flush()
        processes.wait_until_read(1)
    processes.send(descriptor, message)
    if turn:
        processes.wait_until_read(descriptor)


def function_of(item):
    """The item's function; where it cannot be had, one that says so: that costs this item, and not the worker."""
    module_name, _, function_name = item.run.partition(":")
    try:
        module = importlib.import_module("." + module_name, __package__)  # in the worker, so that children share it
        return getattr(module, function_name)
    except Exception as error:  # an incomplete Python, without ctypes for one
        reason = error

    def broken(_context):
        raise reason

    return broken


def ending_result(ending, limit_s: float, cut_short: bool, kills_before: int) -> dict:
    """The result of a process that ended without one."""
    if ending.timed_out:
        why = CELL_LIMIT_REACHED if cut_short else "no result within its time limit"
        text = f"stopped after {limit_s:.1f} s: {why}"
        cause = "cell-timeout" if cut_short else None
        return context.result("timeout", text, thresholds={"limit_s": round(limit_s, 1)}, cause=cause)
    if ending.signal is None and ending.code is None:
        text = "the process ended without a result, and somebody else took its exit code"
        return context.result("crash", text, evidence=text)
    if ending.signal is None:
        text = f"the process ended with exit code {ending.code} and without a result"
        return context.result("crash", text, evidence=text, numbers={"exit_code": ending.code})
    numbers = {"signal": ending.signal, "signal_name": ending.signal_name}
    if ending.signal_name == "SIGKILL" and cgroup.kills() > kills_before:
        return context.result(
            "crash",
            "killed by the memory limit",
            numbers=numbers,
            cause="host-oom-kill",
            evidence=f"{ending.signal_text}; the cgroup's oom_kill counter rose",
        )
    return context.result("crash", "died: " + ending.signal_text, numbers=numbers, evidence=ending.signal_text)


def _be_first_to_be_killed():
    """Where the memory limit kills, it shall take the child and leave the worker, which can tell of it."""
    try:
        with open("/proc/self/oom_score_adj", "w") as stream:
            stream.write("900")
    except OSError:
        return
