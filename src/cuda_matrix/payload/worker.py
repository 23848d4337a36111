"""Owns the worker: imports torch once, without touching CUDA, and forks a child for the items that share one.

A segfault, a broken CUDA context or a hang costs one item; the rest of them go on in a fresh child. If the worker
itself dies, its supervisor starts another. Must not write to stdout: it tells its supervisor, the only writer.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import itertools
import os
import time

from . import children, context, processes, series

IMPORT_LIMIT_S = 180.0  # for a worker that has to import torch a second time


class Job:
    """What a worker is given: the request, the items that remain, what is known and compiled, and when to stop.

    `end` and `budget_end` are moments of time.monotonic: of the whole payload, and for items that are optional.
    """

    def __init__(self, request, items, state, ahead, end, budget_end):
        self.request = request
        self.ahead = ahead
        self.items = items
        self.results = dict(state["results"])
        self.kept = dict(state["kept"])
        self.cards = state["cards"]
        self.end = end
        self.budget_end = budget_end


class Worker:
    """Runs items one after another, in the order of the plan."""

    def __init__(self, descriptor: int, job: Job):
        self._descriptor = descriptor
        self._job = job
        self._profile = job.request["profile"]
        self._context = context.Context(job.request, job.results, job.kept, job.cards)
        self._torch_loaded = False

    def main(self) -> None:
        """Run every item."""
        _need_a_temporary_directory()
        share = self._job.request.get("share", True)
        for _, sharing in itertools.groupby(self._job.items, lambda item: item.child if share else item.id):
            waiting = list(sharing)
            while waiting:
                waiting = self._run(waiting)
        processes.let_leave()

    def _run(self, items):
        """Run as many of the items as one child survives; those that are left."""
        ready = []
        for item in items:
            answer = self._obstacle(item)
            if answer is None and item.torch:
                answer = self._import_torch(item)
            if answer is None:
                ready.append(item)
            else:
                self._finish(item, answer)
        if not ready:
            return []
        limits = {item.id: item.limit_s(self._profile) for item in ready}
        child = children.Child(ready, limits, self._job.end, self._job.budget_end, close=(self._descriptor,))
        return child.run(self._context, self._send, self._finish)

    def _obstacle(self, item):
        """The result of an item that cannot run; None where it can."""
        now = time.monotonic()
        if now >= self._job.end:
            return context.skipped(children.CELL_LIMIT_REACHED, cause="cell-timeout")
        if item.optional and now >= self._job.budget_end:
            return series.budget_used_up(self._profile)
        return _blocked(item, self._job.results, self._context.gpu_needed)

    def _send(self, message):
        if message.get("event") == "keep":
            self._job.kept[message["name"]] = message["value"]
        processes.send(self._descriptor, message)

    def _finish(self, item, answer):
        if item.thresholds:
            answer.setdefault("thresholds", item.thresholds)
        self._job.results[item.id] = answer
        self._send({"event": "end", "id": item.id, **answer})

    def _import_torch(self, item):
        """Import torch; the item's result where that fails, or where it is torch.import itself, else None.

        The seconds belong to torch.import alone.
        """
        if self._torch_loaded:
            return None
        started = time.monotonic()
        limit = item.limit_s(self._profile) if item.id == "torch.import" else IMPORT_LIMIT_S
        limit = min(limit, self._job.end - started)
        self._send({"event": "turn", "id": item.id, "within_s": limit})
        faulthandler.enable(file=2)
        series.say_where(limit)
        failure = None
        try:
            importlib.import_module("torch")
        except BaseException as error:  # whatever a broken torch raises, SystemExit included, is this check's result
            failure = error
        try:
            seconds = time.monotonic() - started
            self._job.budget_end += seconds
            self._send({"event": "imported", "seconds": seconds})
            self._context.import_seconds = seconds
            answer = self._imported(item, failure) if item.id == "torch.import" or failure is not None else None
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
        if failure is None:
            self._torch_loaded = True
            processes.own_signals()  # a package may have changed them at import
            self._job.ahead.take()
            _quiet_warnings()
            gc.freeze()  # a child's collector must not touch, and so copy, every page of torch
        return answer and {**answer, "seconds": round(seconds, 3)}

    def _imported(self, item, failure):
        """The result of `import torch`; where that succeeded, of the module in this process, so without a child."""
        if failure is not None:
            from . import checks_torch

            return checks_torch.import_failed(failure, self._context.expect)
        self._context.begin(item, item.limit_s(self._profile), self._send)
        try:
            answer = children.function_of(item)(self._context)
        except Exception as error:  # a module that only calls itself torch may raise at any attribute
            answer = series.raised(self._context, error)
        return series.proper(answer, item.kind, None)


def _blocked(item, results, gpu_needed):
    """The result of an item whose prerequisites have shown that it cannot run; None where it can."""
    for need in item.needs:
        if results.get(need, {}).get("status") in context.GOOD:
            continue
        if need == "torch.import":
            return context.skipped("torch could not be imported")
        if need == "first-kernel" and gpu_needed:
            return context.skipped("no usable GPU")
        return context.skipped(f"the check {need} did not pass")
    first = results.get("first-kernel", {})
    if item.gpu and first.get("status") in context.GOOD and first.get("device") == "cpu":
        return context.skipped("needs a GPU", device="cpu")
    return None


def _quiet_warnings():
    """An image that turns warnings into errors has had its say at `import torch`; our own calls are not its code."""
    import warnings

    warnings.resetwarnings()
    warnings.simplefilter("default")


def _need_a_temporary_directory():
    """Torch 2 wants one as soon as it trains. A hardened container may have none; its /dev/shm is one."""
    places = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    places += ["/tmp", "/var/tmp", "/usr/tmp", "/dev/shm"]  # noqa: S108 - where `tempfile` looks, and one more
    for place in places:
        if place and os.access(place, os.W_OK | os.X_OK):
            os.environ["TMPDIR"] = place
            return


def no_core_files() -> None:
    """A segfault is reported, not dumped: a core file of a torch process is gigabytes."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (ImportError, OSError, ValueError):
        return
