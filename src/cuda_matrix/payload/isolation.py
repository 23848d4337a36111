"""Owns one question asked in a forked child of its own, so that a crash or a hang costs the answer and nothing else.

Must not know what is asked. Used inside an item's own child: the item's limit still holds, and is longer.
"""

from __future__ import annotations

import signal
import time

from . import processes
from .context import exception_line

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Answer:
    """What became of a question: `value` (a dict) where it was answered, else `error`, one line."""

    def __init__(self, value, error: str, output: str, seconds: float):
        self.value = value
        self.error = error
        self.output = output
        self.seconds = seconds
        self.crashed = False
        self.timed_out = False

    def said(self) -> str:
        """The last line that was printed, or "": a library that aborts says why just before."""
        own = self.output.partition("Fatal Python error")[0]  # what follows is faulthandler's
        lines = [line.strip() for line in own.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def ask(question, limit_s: float) -> Answer:
    """Run `question()` (returns a JSON object) in a child for at most `limit_s` seconds."""
    answers = []
    started = time.monotonic()

    def on_message(message):
        if message.get("event") == "answer":
            answers.append(message)

    def main(descriptor):
        _die_with_parent()
        try:
            message = {"event": "answer", "value": question(), "error": ""}
        except Exception as error:
            import traceback

            traceback.print_exc()
            message = {"event": "answer", "value": None, "error": exception_line(error)}
        processes.send(descriptor, message)

    ending = processes.run(main, on_message, processes.Deadline(started + max(0.1, limit_s)))
    seconds = time.monotonic() - started
    output = ending.output.text()
    if answers:
        return Answer(answers[-1]["value"], answers[-1]["error"], output, seconds)
    if ending.timed_out:
        answer = Answer(None, f"no answer within {limit_s:.0f} s", output, seconds)
    elif ending.signal is not None:
        answer = Answer(None, ending.signal_text, output, seconds)
    else:
        answer = Answer(None, f"the process ended with exit code {ending.code} and without an answer", output, seconds)
    answer.timed_out, answer.crashed = ending.timed_out, not ending.timed_out
    return answer


def _die_with_parent():
    """The item's own end must be this child's end too: it leads a process group of its own."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
