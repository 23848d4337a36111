"""Owns a child's whole life: run the items of a group or more in one process, one after another or round by round.

A CUDA context costs up to a second a process, so items share one; each ends by proving it healthy, and all switches are
turned back in between. Where the proof fails, the item at hand is charged and the process ends: the worker gives the
rest to a fresh one. Must not know where messages go.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import sys
import time
import types

from . import context as contexts
from . import events, switches

_PROOF_SIZE = 1024  # elements whose sum is known


class Turn:
    """One item in this process: its function, the seconds that it may take, and its generator if it is one.

    `end` and `budget_end` are moments of time.monotonic: when everything must have ended, and from when on an optional
    item is not begun any more.
    """

    def __init__(self, item, function, limit_s: float, end: float, budget_end: float):
        self.item = item
        self._limit_s = limit_s
        self._end = end
        self._budget_end = budget_end
        self._function = function
        self._generator = None
        self._switches = None
        self._spent_s = 0.0

    @property
    def begun(self) -> bool:
        """Whether it has had a round and waits for another: it holds objects that are to be given back."""
        return self._generator is not None

    @property
    def left_out(self) -> bool:
        """Whether there is no time left to begin it."""
        return self.item.optional and not self.begun and time.monotonic() >= self._budget_end

    def step(self, context, base: dict, send):
        """Run the function, or one round of its generator: its result as others see it; None while rounds are left."""
        switches.restore(base if self._switches is None else self._switches)
        if not self.begun:  # neighbours have used what was left of the cell's time
            self._limit_s = max(0.0, min(self._limit_s, self._end - time.monotonic()))
        context.begin(self.item, self._limit_s, send)
        send({"event": "turn", "id": self.item.id})
        started = time.monotonic()
        say_where(min(self._limit_s - self._spent_s, self._end - started))
        try:
            ended, answer = self._advance(context)
            answer = proper(answer, self.item.kind, context.device) if ended else None
        except Exception as error:
            answer = proper(raised(context, error), self.item.kind, context.device)
        finally:
            faulthandler.cancel_dump_traceback_later()
        self._spent_s += time.monotonic() - started
        self._switches = switches.capture()
        return answer

    def _advance(self, context):
        """(whether it has ended, what it gave then)."""
        if self._generator is None:
            answer = self._function(context)
            if not isinstance(answer, types.GeneratorType):
                return True, answer
            self._generator = answer
        try:
            next(self._generator)
        except StopIteration as end:
            return True, end.value
        return False, None


def run(turns, context, send) -> None:
    """Give every item its turn, until each has sent its answer. Ends early where the CUDA context is broken."""
    faulthandler.enable(file=2)
    if context.device == "cpu":
        _use_one_thread()
    base = switches.capture()
    groups = [list(group) for _, group in itertools.groupby(turns, lambda turn: turn.item.group)]
    while groups:
        if not _interleaved(groups.pop(0), groups, context, base, send):
            return


def _interleaved(waiting, later, context, base: dict, send) -> bool:
    """Run one group, round by round; whether the CUDA context is good for the groups that come `later`."""
    while waiting:
        turn = waiting.pop(0)
        if turn.left_out:
            send({"event": "answer", "id": turn.item.id, **budget_used_up(context.profile)})
            continue
        answer = turn.step(context, base, send)
        broken = broken_context(context)
        if broken:
            answer = charged(answer, broken, context)
        if answer is None:
            waiting.append(turn)
            continue
        send({"event": "answer", "id": turn.item.id, **answer})
        context.results[turn.item.id] = answer
        if broken:
            return False
        if waiting or later:  # with the last item the process ends, and that gives back everything
            _tidy()
        if not any(turn.begun for turn in waiting):
            gc.freeze()  # what is left are modules: the next item's tidying need not look through them again
    return True


def budget_used_up(profile: str) -> dict:
    """The result of an optional item for which there is no time left."""
    return contexts.skipped(f"the time budget of the profile {profile} is used up")


def _use_one_thread():
    """On a CPU that others use too, the threads of small operations wait for each other, up to a hundredfold."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


def raised(context, error: Exception) -> dict:
    """An exception is a failed check; its traceback goes to the log."""
    import traceback

    sys.stderr.write(traceback.format_exc())
    sys.stderr.flush()
    evidence = contexts.exception_line(error)
    return contexts.failed(f"raised {type(error).__name__}", evidence=evidence, device=context.device)


def proper(answer, kind: str, device) -> dict:
    """The result as the protocol has it, and as every process sees it; a crash where the item gave something else."""
    wrong = contexts.improper(answer, kind)
    if not wrong:
        try:
            return events.normal({key: value for key, value in answer.items() if key in contexts.KEYS})
        except (RecursionError, TypeError, ValueError) as error:
            wrong = "what it gave is no JSON: " + contexts.exception_line(error)
    return contexts.result("crash", "the item gave no result", evidence=wrong, device=device)


def broken_context(context) -> str:
    """Why the CUDA context of this process can no longer be used, or ""."""
    torch = sys.modules.get("torch")
    if torch is None or not context.on_gpu:
        return ""
    try:
        if not torch.cuda.is_initialized():
            return ""
        torch.cuda.synchronize()
        total = int(torch.arange(_PROOF_SIZE, device=context.device).sum())
    except Exception as error:
        return contexts.exception_line(error)
    expected = _PROOF_SIZE * (_PROOF_SIZE - 1) // 2
    return "" if total == expected else f"the sum of 0 to {_PROOF_SIZE - 1} is {total} on the GPU"


def charged(answer, broken: str, context) -> dict:
    """The result of an item that leaves the context broken. One that has failed by itself says more than we could."""
    if answer is not None and answer["status"] not in (*contexts.GOOD, "skip", "unknown"):
        return answer
    text = "left the CUDA context broken: nothing can run in this process any more"
    return contexts.result("crash", text, evidence=broken, device=context.device)


def say_where(limit_s):
    """Have a hang write its Python stack to the log shortly before its limit: it names the operation that did it."""
    try:
        faulthandler.dump_traceback_later(max(limit_s - 0.5, limit_s * 0.8, 0.1), file=2)
    except RuntimeError:  # it needs a thread, and there may be no more of them
        return


def _tidy():
    """Give memory back, so that the next item finds what it would find alone."""
    gc.collect()
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    except (AttributeError, RuntimeError):  # a stand-in for torch, or a context that the next proof will find broken
        return
