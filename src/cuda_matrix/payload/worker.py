"""Owns the worker: imports torch once, without touching CUDA, and forks a fresh child for every item.

A segfault, a sticky CUDA error or a hang costs one item. If the worker itself dies, its supervisor starts another.
Must not write to stdout: it tells its supervisor, the only writer of events.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import sys
import time

from . import cgroup, context, processes

CELL_LIMIT_REACHED = "the cell's time limit was reached"
IMPORT_LIMIT_S = 180.0  # for a worker that has to import torch a second time
PASSED_LOG_LIMIT = 2000  # characters of a good check's output that are kept


class Worker:
    """Runs items one after another, in the order of the plan."""

    def __init__(self, descriptor: int, request: dict, items, results: dict, end: float):
        self._descriptor = descriptor
        self._items = items
        self._results = results
        self._end = end  # time.monotonic at which the whole payload must have ended
        self._profile = request["profile"]
        self._context = context.Context(request, results)
        self._torch_loaded = False

    def main(self) -> None:
        """Run every item."""
        _need_a_temporary_directory()
        for item in self._items:
            if time.monotonic() >= self._end:
                self._finish(item, context.skipped(CELL_LIMIT_REACHED, cause="cell-timeout"))
                continue
            reason = blocked(item, self._results, self._context.gpu_needed)
            if reason:
                self._finish(item, context.skipped(reason))
                continue
            started = time.monotonic()
            self._send({"event": "start", "id": item.id})
            answer = self._import_torch(item) if item.torch else None
            if answer is None:
                answer = self._run(item)
            answer["seconds"] = round(time.monotonic() - started, 3)
            self._finish(item, answer)

    def _send(self, message):
        processes.send(self._descriptor, message)

    def _finish(self, item, answer):
        self._results[item.id] = answer
        self._send({"event": "end", "id": item.id, **answer})

    def _import_torch(self, item):
        """Import torch; a result where it cannot be, None where it can."""
        if self._torch_loaded:
            return None
        _say_where(min(item.limit_s(self._profile), self._end - time.monotonic()))
        started = time.monotonic()
        try:
            importlib.import_module("torch")
        except BaseException as error:  # whatever a broken torch raises, SystemExit included, is this check's result
            from . import checks_torch

            return checks_torch.import_failed(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.disable()
        self._context.import_seconds = time.monotonic() - started
        self._torch_loaded = True
        _quiet_warnings()
        gc.collect()
        gc.freeze()  # a child's collector must not touch, and so copy, every page of torch
        return None

    def _run(self, item):
        """Fork the item's child and say what became of it."""
        module_name, _, function_name = item.run.partition(":")
        module = importlib.import_module("." + module_name, __package__)  # here, so that children share it
        check = getattr(module, function_name)
        own_limit = item.limit_s(self._profile)
        limit = min(own_limit, self._end - time.monotonic())
        answers = []

        def on_message(message):
            if message.get("event") == "answer":
                answers.append({key: value for key, value in message.items() if key != "event"})
            else:
                self._send(message)

        def child(descriptor):
            _be_first_to_be_killed()
            check_process(check, self._context, descriptor, limit)

        kills_before = cgroup.kills()
        deadline = processes.Deadline(time.monotonic() + limit)
        ending = processes.run(child, on_message, deadline, close=(self._descriptor,))
        answer = answers[-1] if answers else ending_result(ending, limit, limit < own_limit, kills_before)
        log = ending.output.text()
        if log.strip():
            answer["log"] = log[-PASSED_LOG_LIMIT:] if answer["status"] == "pass" else log
        return answer


def blocked(item, results: dict, gpu_needed: bool) -> str:
    """Why the item cannot be run, or "". Reads only what its prerequisites have shown."""
    for need in item.needs:
        if results.get(need, {}).get("status") in context.GOOD:
            continue
        if need == "torch.import":
            return "torch could not be imported"
        if need == "first-kernel":
            return "no usable GPU" if gpu_needed else "the check first-kernel did not pass"
        return f"the check {need} did not pass"
    return ""


def check_process(check, check_context, descriptor: int, limit_s: float) -> None:
    """The child's whole life: run one check and send its result; an exception is a failed check."""
    _say_where(limit_s)
    check_context._send_fact = lambda name, value: processes.send(
        descriptor, {"event": "fact", "name": name, "value": value}
    )
    try:
        answer = check(check_context)
    except Exception as error:
        import traceback

        sys.stderr.write(traceback.format_exc())
        sys.stderr.flush()
        evidence = context.exception_line(error)
        answer = context.failed(f"raised {type(error).__name__}", evidence=evidence, device=check_context.device)
    processes.send(descriptor, {"event": "answer", **answer})


def ending_result(ending, limit_s: float, cut_short: bool, kills_before: int) -> dict:
    """The result of a process that ended without one."""
    if ending.timed_out:
        why = CELL_LIMIT_REACHED if cut_short else "no result within its time limit"
        text = f"stopped after {limit_s:.1f} s: {why}"
        cause = "cell-timeout" if cut_short else None
        return context.result("timeout", text, thresholds={"limit_s": round(limit_s, 1)}, cause=cause)
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


def _say_where(limit_s):
    """A segfault or a hang writes its Python stack to the log: it names the operation that did it."""
    faulthandler.enable(file=2)
    faulthandler.dump_traceback_later(max(limit_s - 0.5, limit_s * 0.8), file=2)


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


def _be_first_to_be_killed():
    """Where the memory limit kills, it shall take the child and leave the worker, which can tell of it."""
    try:
        with open("/proc/self/oom_score_adj", "w") as stream:
            stream.write("900")
    except OSError:
        return


def no_core_files() -> None:
    """A segfault is reported, not dumped: a core file of a torch process is gigabytes."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (ImportError, OSError, ValueError):
        return
