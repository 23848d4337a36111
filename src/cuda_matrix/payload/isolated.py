"""Owns a forked child of an item: a crash, a hang or a spoilt process costs its answer, and nothing else.

Only a process that has not touched CUDA may fork one that does. The item's own limit still holds, and is longer.
Must not know what the child does, nor what its answer means.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from . import processes
from .context import exception_line

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Answer:
    """What became of a child: its `value` (a JSON object), or None and the `error`, in one line.

    `error_type`: the name of the exception's class, where one was raised. `output`: what the child printed.
    `crashed`: it ended without an answer. `timed_out`: it was ended, and had none.
    """

    def __init__(self, value=None, error: str = "", timed_out: bool = False):
        self.value = value
        self.error = error
        self.error_type = ""
        self.output = ""
        self.seconds = 0.0
        self.crashed = False
        self.timed_out = timed_out

    def get(self, name: str):
        """A field of the value; None where there is none."""
        return (self.value or {}).get(name)

    def said(self) -> str:
        """The last line that was printed, or "": a library that aborts says why just before."""
        own = self.output.partition("Fatal Python error")[0]  # what follows is faulthandler's
        lines = [line.strip() for line in own.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def call(function, limit_s: float, environment=()) -> Answer:
    """Run `function()`, which returns a JSON object, in a child for at most `limit_s` seconds.

    `environment`: as `set_environment` takes it. An exception is an answer, too: its `error`.
    """
    messages = []
    started = time.monotonic()
    parent = os.getpid()

    def main(descriptor):
        _die_with_parent(parent)
        set_environment(environment)
        message = {"event": "isolated", "value": None, "error": "", "error_type": ""}
        try:
            message["value"] = function()
        except Exception as error:
            import traceback

            sys.stderr.write(traceback.format_exc())
            message.update(error=exception_line(error), error_type=type(error).__name__)
        processes.send(descriptor, message)

    def on_message(message):
        if message.get("event") == "isolated":
            messages.append(message)

    ending = processes.run(main, on_message, processes.Deadline(started + max(0.1, limit_s)))
    answer = _answer(messages, ending, limit_s)
    answer.seconds = time.monotonic() - started
    answer.output = ending.output.text()
    return answer


def _answer(messages, ending, limit_s) -> Answer:
    if messages:
        answer = Answer(messages[-1]["value"], messages[-1]["error"])
        answer.error_type = messages[-1]["error_type"]
        return answer
    if ending.timed_out:
        return Answer(error=f"no answer within {limit_s:.0f} s", timed_out=True)
    text = f"the process ended with exit code {ending.code} and without an answer"
    answer = Answer(error=text if ending.signal is None else ending.signal_text)
    answer.crashed = True
    return answer


def set_environment(pairs) -> None:
    """Set variables of this process: (name, value) pairs; None removes the variable."""
    for name, value in pairs:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def with_log(result: dict, *answers) -> dict:
    """The result, with what the children printed where it is not good: a fault that was provoked is no news."""
    if result["status"] != "pass":
        result["log"] = "".join(each.output for each in answers if each is not None)
    return result


def _die_with_parent(parent):
    """The item's own end must be this child's end too: it leads a process group of its own."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    except (ImportError, OSError, AttributeError):  # a Python without ctypes; a C library without prctl
        return
    if os.getppid() != parent:  # it had ended before
        os._exit(1)
