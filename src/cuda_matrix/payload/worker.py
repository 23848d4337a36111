"""Owns the worker: imports torch once, without touching CUDA, and forks a child for every group of items.

A segfault, a broken CUDA context or a hang costs one item; the rest of its group goes on in a fresh child. If the
worker itself dies, its supervisor starts another. Must not write to stdout: it tells its supervisor, the only writer.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import itertools
import os
import time

from . import children, context, processes

IMPORT_LIMIT_S = 180.0  # for a worker that has to import torch a second time


class Job:
    """What a worker is given: the request, the items that remain, what is known already, and when to stop.

    `end` and `budget_end` are moments of time.monotonic: of the whole payload, and for items that are optional.
    """

    def __init__(self, request, items, state, end, budget_end):
        self.request = request
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
        for _, group in itertools.groupby(self._job.items, self._group_of()):
            waiting = list(group)
            while waiting:
                waiting = self._run(waiting)

    def _group_of(self):
        """A key that is the same for neighbours that may share a child."""
        share = self._job.request.get("share", True)
        return lambda item: item.group if share and item.group else item.id

    def _run(self, items):
        """Run as many of a group's items as one child survives; those that are left."""
        ready, spent = [], {}
        for item in items:
            refused = self._obstacle(item)
            if refused is None and item.torch:
                refused = self._import_torch(item, spent)
            if refused is None:
                ready.append(item)
            else:
                self._finish(item, refused)
        if not ready:
            return []
        limits = {item.id: item.limit_s(self._profile) for item in ready}
        child = children.Child(ready, limits, spent, self._job.end, close=(self._descriptor,))
        return child.run(self._context, self._send, self._finish)

    def _obstacle(self, item):
        """The result of an item that cannot run; None where it can."""
        now = time.monotonic()
        if now >= self._job.end:
            return context.skipped(children.CELL_LIMIT_REACHED, cause="cell-timeout")
        if item.optional and now >= self._job.budget_end:
            return context.skipped(f"the time budget of the profile {self._profile} is used up")
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

    def _import_torch(self, item, spent):
        """Import torch; a result where it cannot be, None where it can. Its seconds belong to torch.import alone."""
        if self._torch_loaded:
            return None
        started = time.monotonic()
        limit = item.limit_s(self._profile) if item.id == "torch.import" else IMPORT_LIMIT_S
        limit = min(limit, self._job.end - started)
        self._send({"event": "turn", "id": item.id, "within_s": limit})
        faulthandler.enable(file=2)
        faulthandler.dump_traceback_later(max(limit - 0.5, limit * 0.8), file=2)
        try:
            importlib.import_module("torch")
        except BaseException as error:  # whatever a broken torch raises, SystemExit included, is this check's result
            from . import checks_torch

            return {
                **checks_torch.import_failed(error, self._context.expect),
                "seconds": round(time.monotonic() - started, 3),
            }
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
            seconds = time.monotonic() - started
            self._job.budget_end += seconds
            self._send({"event": "imported", "seconds": seconds})
            if item.id == "torch.import":
                spent[item.id] = seconds
        processes.own_signals()  # a package may have changed them at import
        self._context.import_seconds = seconds
        self._torch_loaded = True
        _quiet_warnings()
        gc.freeze()  # a child's collector must not touch, and so copy, every page of torch
        return None


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
